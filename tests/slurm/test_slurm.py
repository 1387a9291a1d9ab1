"""Sweeps on a real cluster of one node. Asked for by GAN_RUNNER_SLURM=1, which starts one; or where SLURM answers."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sweeps.test_sweep import DIGITS, LONG, jobs, moods, moody, processes_in, states  # noqa: F401 (a fixture)
from tests.training import assert_same_end, status, train

CLUSTER = Path(__file__).with_name("cluster.sh")
ON_SLURM = (
    "hydra/launcher=slurm",
    "hydra.launcher.gpus_per_node=0",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
    "hydra.launcher.poll=1",
)


def answers() -> bool:
    return (
        shutil.which("sinfo") is not None
        and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    pytest.importorskip("submitit")
    was_there = answers()
    if not was_there and os.environ.get("GAN_RUNNER_SLURM") != "1":
        pytest.skip("needs SLURM; GAN_RUNNER_SLURM=1 starts it, as root, where slurm-wlm and munge are installed")
    if not was_there:
        subprocess.run([CLUSTER, "start"], check=True)
    yield
    if not was_there:
        subprocess.run([CLUSTER, "stop"], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[int], Path]:
    """A run of LONG with a seed, alone in this process."""

    @functools.cache
    def run(seed: int) -> Path:
        alone = tmp_path_factory.mktemp("undisturbed") / str(seed)
        assert train(alone, f"seed={seed}", "name=far", *LONG) == 0
        return alone

    return run


@pytest.fixture
def sweep(tmp_path, environment) -> Iterator["Sweep"]:
    sweep = Sweep(tmp_path, environment)
    yield sweep
    for slurm_id in sweep.ids().values():
        subprocess.run(["scancel", "--quiet", slurm_id], check=False)


class Sweep:
    """A sweep `name=far` whose command is typed in `folder`, perhaps more than once."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment, self.path = folder, environment, folder / "outputs/far"

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "gan_runner.train", *words, "name=far", *ON_SLURM]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def end(self, *words: str) -> tuple[int, str]:
        process = self.begin(*words)
        out, err = process.communicate(timeout=200)
        return process.returncode, out + err

    def ids(self) -> dict[str, str]:
        file = self.path / ".slurm/submitted.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def wait_until(self, fulfilled, process: "subprocess.Popen[str] | None" = None) -> None:
        end = time.monotonic() + 100
        while not fulfilled():
            assert time.monotonic() < end
            assert process is None or process.poll() is None, process.communicate()
            time.sleep(0.05)

    def has_saved(self, *names: str) -> bool:
        folders = [self.path / name / "checkpoints" for name in names]
        return all(folder.is_dir() and any(folder.iterdir()) for folder in folders)

    def queue(self) -> dict[str, str]:
        lines = subprocess.check_output(["squeue", "-h", "-r", "-o", "%i %T"], text=True).splitlines()
        queue = dict(line.split() for line in lines)
        return {name: queue[slurm_id] for name, slurm_id in self.ids().items() if slurm_id in queue}


def test_a_sweep_of_four_with_one_requeued_and_one_cancelled(sweep, undisturbed):
    words = ("-m", "seed=0,1,2,3", *LONG)
    process = sweep.begin(*words)
    sweep.wait_until(lambda: sweep.has_saved("seed-0", "seed-1"), process)
    ids = sweep.ids()
    subprocess.run(["scontrol", "requeue", ids["seed-0"]], check=True)
    subprocess.run(["scancel", ids["seed-1"]], check=True)
    sweep.wait_until(lambda: jobs(sweep.path)["seed-0"]["state"] == "waiting", process)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    completed = {f"seed-{seed}": "completed" for seed in (0, 2, 3)}
    assert states(sweep.path) == completed | {"seed-1": "interrupted"}  # it has saved itself
    assert "seed-0: waits again" in err
    assert "seed-0: goes on" in err
    assert out.splitlines()[-1] == "outputs/far"
    assert status(sweep.path / "seed-1")["state"] == "interrupted"

    code, said = sweep.end(*words)
    assert code == 0, said
    assert ": 1\n" in said.partition("handed to SLURM as")[2]
    assert set(states(sweep.path).values()) == {"completed"}
    for seed in (0, 1, 2, 3):
        assert_same_end(undisturbed(seed), sweep.path / f"seed-{seed}")


def test_a_warning_before_the_time_limit_saves_a_job_and_puts_it_back_into_the_queue(sweep, undisturbed):
    """An array's last job, which has the same number as the whole array; the other is left alone."""
    process = sweep.begin("-m", "seed=0,1", *LONG)
    for _ in range(2):
        sweep.wait_until(lambda: sweep.has_saved("seed-1") and sweep.queue().get("seed-1") == "RUNNING", process)
        sweep.wait_until(lambda: status(sweep.path / "seed-1")["state"] == "running", process)
        subprocess.run(["scancel", "--signal=USR2", sweep.ids()["seed-1"]], check=True)
        sweep.wait_until(lambda: sweep.queue().get("seed-1") == "PENDING", process)
        assert status(sweep.path / "seed-1")["state"] == "interrupted"
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert err.count("seed-1: waits again") == 2
    assert "seed-0: waits" not in err
    assert jobs(sweep.path)["seed-1"]["attempts"] == 1
    for seed in (0, 1):
        assert_same_end(undisturbed(seed), sweep.path / f"seed-{seed}")


def test_ctrl_c_saves_what_runs_and_takes_the_rest_out_of_the_queue(sweep, undisturbed):
    words = ("-m", "seed=0,1,2", *LONG)
    process = sweep.begin(*words)
    sweep.wait_until(lambda: sweep.has_saved("seed-0", "seed-1"), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert states(sweep.path) == {"seed-0": "interrupted", "seed-1": "interrupted", "seed-2": "waiting"}
    assert sweep.queue() == {}
    assert processes_in(sweep.folder) == []
    code, said = sweep.end(*words)
    assert code == 0, said
    for seed in (0, 2):
        assert_same_end(undisturbed(seed), sweep.path / f"seed-{seed}")


def test_ctrl_c_twice_cancels(sweep):
    process = sweep.begin("-m", "seed=0,1,2", *LONG)
    sweep.wait_until(lambda: sweep.has_saved("seed-0", "seed-1"), process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "cancelling" in err
    sweep.wait_until(lambda: sweep.queue() == {})
    assert processes_in(sweep.folder) == []


def test_jobs_go_on_without_the_command_which_finds_them_again(sweep, undisturbed):
    words = ("-m", "seed=0,1,2", *LONG)
    process = sweep.begin(*words)
    sweep.wait_until(lambda: sweep.has_saved("seed-0"), process)
    ids = sweep.ids()
    process.kill()
    process.communicate()
    assert sweep.queue().keys() >= {"seed-1", "seed-2"}
    code, said = sweep.end(*words)
    assert code == 0, said
    assert sweep.ids() == ids
    assert "handed to SLURM" not in said
    assert {job["attempts"] for job in jobs(sweep.path).values()} == {1}
    for seed in (0, 2):
        assert_same_end(undisturbed(seed), sweep.path / f"seed-{seed}")


def test_no_job_harms_another(sweep, moody):  # noqa: F811
    words = (*moods("good", "raises", "exits", "killed", "fine"), *DIGITS)
    process = sweep.begin(*words)
    sweep.wait_until(lambda: "mood-fine" in sweep.ids(), process)
    subprocess.run(["scancel", sweep.ids()["mood-fine"]], check=True)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    assert states(sweep.path) == {"mood-good": "completed"} | dict.fromkeys(
        ["mood-raises", "mood-exits", "mood-killed", "mood-fine"], "failed"
    )
    reasons = {name: job["reason"] for name, job in jobs(sweep.path).items()}
    assert reasons["mood-raises"] == "after step 15: no luck"
    assert reasons["mood-exits"] == "after step 15: sys.exit(3) was called"
    assert reasons["mood-killed"] == "was killed by SIGKILL (out of memory?)"
    assert "cancelled" in reasons["mood-fine"]
    assert sweep.ids()["mood-fine"] in reasons["mood-fine"]
    (moody / "bad").unlink()
    assert sweep.end(*words)[0] == 0


def test_what_the_cluster_refuses(sweep):
    code, said = sweep.end("-m", "seed=0,1", *LONG, "hydra.launcher.partition=nowhere")
    assert code == 2
    assert said.startswith("error: hydra/launcher=slurm: the jobs were not taken: sbatch: error: invalid partition")
    assert said.count("\n") == 1
    assert list(sweep.folder.iterdir()) == []
