"""`hydra/launcher=slurm` as far as it can be seen without SLURM; tests/slurm/ has the rest, on a real cluster."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gan_runner.config.schema import OnSlurm, validate
from gan_runner.paths import CONF
from gan_runner.sweeps import slurm
from gan_runner.sweeps.jobs import Job
from gan_runner.sweeps.plan import Task
from gan_runner.sweeps.slurm_job import Report, read_report
from tests.sweeps import made_up
from tests.sweeps.test_sweep import LONG, processes_in
from tests.training import status


def settings(**changed) -> OnSlurm:
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / "hydra/launcher/slurm.yaml"))
    assert isinstance(defaults, dict)
    del defaults["_target_"]
    return validate(OnSlurm, defaults | changed)


def test_what_sbatch_is_told():
    script = pytest.importorskip("submitit.slurm.slurm")._make_sbatch_string
    chosen = settings(
        partition="gpu",
        account="physics",
        constraint="a100|h100",
        timeout_min=720,
        gpus_per_node=2,
        cpus_per_task=8,
        mem_gb=1.5,
        max_parallel=3,
        setup=["module load cuda"],
        srun=["--container-image=gan.sqsh"],
        additional={"exclude": "node7", "exclusive": True},
    )
    lines = script(command="python", folder="there", map_count=5, **slurm.parameters(chosen, "losses")).splitlines()
    for line in (
        "partition=gpu",
        "account=physics",
        "constraint='a100|h100'",
        "time=720",
        "gpus-per-node=2",
        "cpus-per-task=8",
        "mem=1536M",
        "array=0-4%3",
        "exclude=node7",
        "exclusive",
        "requeue",
        "job-name=losses",
        "signal=USR2@90",
    ):
        assert f"#SBATCH --{line}" in lines
    assert not any(line.startswith("#SBATCH --qos") for line in lines)
    (srun,) = (place for place, line in enumerate(lines) if line.startswith("srun"))
    assert "--cpus-per-task=8 --container-image=gan.sqsh python" in lines[srun]
    assert lines.index("module load cuda") < srun < lines.index("status=$?")


def test_a_node_without_gpu_and_memory_as_the_cluster_likes():
    assert {"gpus_per_node", "mem"}.isdisjoint(slurm.parameters(settings(gpus_per_node=0, mem_gb=None), "losses"))


@pytest.mark.parametrize(
    ("code", "state", "restarts", "requeued"),
    [
        (75, "RUNNING", 0, ["requeue 20_1"]),
        (75, "RUNNING", 99, ["requeue 20_1"]),
        (75, "RUNNING", 100, []),
        (75, "COMPLETING", 0, []),  # it is being cancelled
        (0, "RUNNING", 0, []),
        (1, "RUNNING", 0, []),
    ],
)
def test_what_goes_back_into_the_queue(code, state, restarts, requeued):
    """The last job of an array, whose number is the array's, too."""
    teardown = "\n".join(slurm.parameters(settings(), "losses")["teardown"])
    commands = f'squeue() {{ [ $2 = --jobs=20_1 ] && echo {state}; }}\nscontrol() {{ echo "$@"; }}\n(exit {code})\n'
    own = {"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "20", "SLURM_ARRAY_TASK_ID": "1"}
    environment = os.environ | own | {"SLURM_RESTART_COUNT": str(restarts)}
    done = subprocess.run(
        ["bash", "-c", commands + teardown], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout.splitlines(), done.returncode) == (requeued, code), done.stderr


def test_a_single_job_goes_back_by_its_number():
    teardown = "\n".join(slurm.parameters(settings(), "losses")["teardown"])
    commands = 'squeue() { [ $2 = --jobs=21 ] && echo RUNNING; }\nscontrol() { echo "$@"; }\n(exit 75)\n'
    environment = os.environ | {"SLURM_JOB_ID": "21"}
    done = subprocess.run(
        ["bash", "-c", commands + teardown], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "requeue 21\n"


def test_reading_states():
    squeue = "20_0 RUNNING\n20_1 PENDING\n31 COMPLETING\n"
    sacct = "40 COMPLETED\n41_7 CANCELLED by 1000\n42 CANCELLED+\n43 OUT_OF_MEMORY\n\n"
    assert slurm.read_states(squeue) == {"20_0": "RUNNING", "20_1": "PENDING", "31": "COMPLETING"}
    assert slurm.read_states(sacct) == {
        "40": "COMPLETED",
        "41_7": "CANCELLED",
        "42": "CANCELLED",
        "43": "OUT_OF_MEMORY",
    }


class Watcher:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def changed(self, task: Task) -> None:
        self.told.append((task.name, task.job.state))

    def show(self, running) -> None: ...


def follow(folder: Path, monkeypatch, *seen: str, report: Report | None = None) -> tuple[Job, list[str]]:
    """What becomes of a job that SLURM has told of in these states, one after the other."""
    task = Task("seed-0", Job(**made_up.job({"seed": "0"}, "waiting", 0)), "run")
    watcher, states = Watcher(), iter(seen)
    followed = slurm.Slurm(folder, settings(poll=0.01), "", watcher)
    followed.folder.mkdir(exist_ok=True)
    if report is not None:
        (followed.folder / "seed-0.json").write_text(json.dumps(vars(report)))
    followed.submitted = [slurm.Submitted(task, "20_0")]
    monkeypatch.setattr(slurm, "LOOK", 0.001)
    monkeypatch.setattr(slurm, "slurm_states", lambda ids: {"20_0": next(states)})
    followed.follow()
    return task.job, [state for _, state in watcher.told]


def test_the_job_says_what_became_of_it(tmp_path, monkeypatch):
    report = Report("20_0", "failed", 15, "after step 15: no luck", 7.0)
    job, told = follow(tmp_path, monkeypatch, "PENDING", "RUNNING", "RUNNING", "FAILED", report=report)
    assert (job.state, job.step, job.reason, job.seconds) == ("failed", 15, report.reason, 2.0 + 7.0)
    assert told == ["running", "failed"]


def test_a_requeued_job_waits_again(tmp_path, monkeypatch):
    report = Report("20_0", "completed", 100)
    seen = ("RUNNING", "COMPLETING", "PENDING", "PENDING", "RUNNING", "COMPLETED")
    assert follow(tmp_path, monkeypatch, *seen, report=report)[1] == ["running", "waiting", "running", "completed"]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("CANCELLED", "cancelled (job 20_0 of SLURM)"),
        ("OUT_OF_MEMORY", "took more memory than hydra.launcher.mem_gb (job 20_0 of SLURM)"),
        ("", "is not in the queue any more; cancelled? (job 20_0 of SLURM)"),
    ],
)
@pytest.mark.parametrize("report", [None, Report("20_0", "running"), Report("19_0", "completed", 100)])
def test_one_that_could_not_say(tmp_path, monkeypatch, state, reason, report):
    job, told = follow(tmp_path, monkeypatch, "RUNNING", state, state, report=report)
    assert (job.state, job.reason) == ("failed", reason)
    assert told == ["running", "failed"]


def test_one_that_was_killed_after_it_was_completed(tmp_path, monkeypatch):
    made_up.make_run(tmp_path / "seed-0", {})
    assert follow(tmp_path, monkeypatch, "CANCELLED", "CANCELLED")[0].state == "completed"


def test_an_earlier_command_that_wanted_fewer_steps(tmp_path, monkeypatch):
    job, _ = follow(tmp_path, monkeypatch, "COMPLETED", report=Report("20_0", "completed", 60))
    assert (job.state, job.step) == ("interrupted", 60)


def test_a_job_on_its_node_saves_itself_and_asks_to_go_back(tmp_path, environment):
    """All of its processes are signalled, as SLURM does it; the threads are those of its allocation."""
    swept, path = tmp_path / "far", tmp_path / "far/seed-3"
    (swept / ".slurm").mkdir(parents=True)
    script = f"""
from pathlib import Path
from gan_runner.config.composition import compose, plain
from gan_runner.sweeps.job import Order
from gan_runner.sweeps.slurm_job import run_on_node
config = plain(compose({["seed=3", *LONG]}, "train"))
run_on_node(Order("gan_runner.train:train", config, {{"seed": "3"}}, Path({str(path)!r})), Path.cwd())
"""
    slurm_environment = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", script]
    for whole_sweep_stops, code in ((False, 75), (True, 0)):
        if whole_sweep_stops:
            (swept / ".slurm/stop").touch()
        process = subprocess.Popen(command, cwd=tmp_path, env=environment | slurm_environment)
        end = time.monotonic() + 60
        while not (path / "status.json").exists() or status(path)["state"] != "running" or not status(path)["step"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        for child in processes_of(tmp_path):
            os.kill(child, signal.SIGUSR2)
        assert process.wait(60) == code
        report = read_report(swept / ".slurm", "seed-3", "7")
        assert report is not None
        assert (report.state, report.reason) == ("interrupted", None)
        assert status(path)["state"] == "interrupted"
        assert processes_in(tmp_path) == []
    assert json.loads((path / "manifest.json").read_text())["machine"]["threads"] == 1


def processes_of(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and int(process.name) != os.getpid():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("lacking", ["submitit", "sbatch"])
def test_where_something_is_lacking(refused, monkeypatch, lacking):
    if lacking == "sbatch":
        pytest.importorskip("submitit")
        monkeypatch.setenv("PATH", "")
    else:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "submitit" else find(name))
    said = refused("-m", "seed=0,1", "name=far", "hydra/launcher=slurm")
    assert said == (
        "error: hydra/launcher=slurm: needs submitit (pip install 'gan_runner[slurm]') and, on this machine, SLURM's "
        f"sbatch; found no {lacking}"
    )


def test_keys_are_checked(refused):
    said = refused("-m", "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.partitoin=gpu")
    assert "did you mean 'partition'?" in said
    said = refused("-m", "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.timeout_min=0")
    assert said.startswith("error: hydra.launcher.timeout_min: found 0")


def test_a_configuration_that_a_user_filled_in(typed):
    folder = Path("groups/hydra/launcher")
    folder.mkdir(parents=True)
    (folder / "cluster.yaml").write_text("defaults: [slurm, _self_]\npartition: gpu\ndry_run: true\n")
    ended = typed("--config-dir=groups", "-m", "hydra/launcher=cluster", "seed=0,1")
    assert ended.status == 0, ended.err
    assert "seed-1" in ended.out
    wrong = typed("--config-dir=groups", "-m", "hydra/launcher=cluster", "seed=0,1", "hydra.launcher.requeues=-1")
    assert wrong.err.startswith("error: hydra.launcher.requeues: found -1")
