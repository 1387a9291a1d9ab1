"""The parts of a sweep that need no process: GPUs and threads, how a job ended, what is left to do."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from gan_runner.config.composition import JobRequest
from gan_runner.errors import UserError
from gan_runner.heartbeat import Heartbeat
from gan_runner.status import Status
from gan_runner.sweeps import leases
from gan_runner.sweeps.job import Ended, how_it_ended, reason_in
from gan_runner.sweeps.jobs import Job, Sweep, read_sweep
from gan_runner.sweeps.plan import plan_jobs

ONE = {"kind": "auto", "device_ids": None, "processes": None}
NUMBERED = {"device": ONE | {"device_ids": [0]}}


@pytest.mark.parametrize(
    ("named", "gpus"),
    [("", []), ("0,1", ["0", "1"]), ("GPU-a1b2, GPU-c3", ["GPU-a1b2", "GPU-c3"]), ("0,-1,2", ["0"]), ("2", ["2"])],
)
def test_gpus_as_cuda_visible_devices_names_them(monkeypatch, named, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert leases.visible_gpus() == gpus


def test_gpus_as_the_driver_lists_them(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-a1\necho GPU-b2\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert leases.visible_gpus() == ["GPU-a1", "GPU-b2"]


@pytest.mark.parametrize(
    ("device", "wanted"),
    [
        ({}, 1),
        ({"kind": "cpu"}, 0),
        ({"kind": "mps"}, 0),
        ({"kind": "ddp"}, 3),
        ({"kind": "ddp", "processes": 2}, 2),
        ({"kind": "data_parallel"}, 3),
        ({"kind": "cuda", "device_ids": [2]}, ["c"]),
        ({"kind": "ddp", "device_ids": [0, 2]}, ["a", "c"]),
        ({"kind": "cuda", "device_ids": 1}, 1),  # what is wrong is refused by the job
        ({"kind": "cuda", "device_ids": ["x"]}, []),
        ({"kind": "ddp", "processes": "2"}, 3),
    ],
)
def test_how_many_gpus_a_job_takes(device, wanted):
    assert leases.gpus_wanted({"device": ONE | device}, ["a", "b", "c"]) == wanted
    assert leases.gpus_wanted({"device": ONE | device}, []) == 0


def test_leases():
    gpus = leases.Leases(["a", "b", "c"], jobs_per_gpu=2)
    assert gpus.take(1) == ["a"]
    assert gpus.take(1) == ["b"]  # the one with the fewest jobs
    assert gpus.take(2) == ["a", "c"]
    assert gpus.take(["a"]) is None  # two jobs have it
    assert gpus.take(3) is None
    gpus.give_back(["a", "c"])
    assert gpus.take(["a"]) == ["a"]
    assert gpus.environment({"device": ONE}, ["a", "c"]) == {"CUDA_VISIBLE_DEVICES": "a,c"}
    assert gpus.environment(NUMBERED, ["a"]) == {}  # it counts among all
    assert leases.Leases([], 1).take(0) == []


def test_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [leases.threads_for_each(jobs) for jobs in (1, 2, 3, 100)] == [None, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert leases.threads_for_each(2) is None  # typed


@pytest.mark.parametrize(
    ("ended", "exit_code", "stopped_because", "found"),
    [
        (Ended(5, Status.COMPLETED, None), 0, None, ("completed", None)),
        (Ended(5, Status.COMPLETED, None), 0, "too long", ("completed", None)),
        (Ended(5, Status.DIVERGED, "diverged after step 5: nan"), 3, None, ("diverged", "after step 5: nan")),
        (Ended(5, Status.REFUSED, None), 2, None, ("refused", "said")),
        (Ended(5, Status.INTERRUPTED, None), 75, "", ("interrupted", None)),
        (Ended(5, Status.INTERRUPTED, None), 75, "too long", ("failed", "too long")),
        (Ended(5, 17, None), 17, None, ("failed", "said")),
        (None, -9, "", ("interrupted", None)),
        (None, -9, "too long", ("failed", "too long")),
        (None, -9, None, ("failed", "was killed by SIGKILL (out of memory?)")),
        (None, -11, None, ("failed", "was killed by SIGSEGV: said")),
        (None, 3, None, ("failed", "ended by itself with exit status 3: said")),
    ],
)
def test_how_a_job_ended(ended, exit_code, stopped_because, found):
    assert how_it_ended(ended, exit_code, stopped_because, "said") == found


def test_the_reason_in_a_log(tmp_path):
    log = tmp_path / "log.txt"
    assert reason_in(log) is None
    log.write_text("2026-11-26 04:00:00 error: old\n")
    begin = log.stat().st_size
    assert reason_in(log, begin) is None
    with log.open("a") as file:
        file.write(
            "2026-11-26 04:00:01 error: failed after step 3: no luck\n2026-11-26 04:00:02 outputs/x\nSegfault\n\n"
        )
    assert reason_in(log, begin) == "failed after step 3: no luck"
    log.write_text("2026-11-26 04:00:00 hello\nlast words\n")
    assert reason_in(log) == "last words"


def test_what_counts_as_progress():
    heartbeat, step = Heartbeat(), 0
    with heartbeat.steps(lambda: step):
        heartbeat.has_moved()
        use_the_processor()
        assert not heartbeat.has_moved()  # in a step, which does not end
        step = 1
        assert heartbeat.has_moved()
        assert not heartbeat.has_moved()
        heartbeat.beat()
        assert heartbeat.has_moved()
        with heartbeat.long_work():
            use_the_processor()
            assert heartbeat.has_moved()
        use_the_processor()
        assert not heartbeat.has_moved()
    use_the_processor()
    assert heartbeat.has_moved()


def use_the_processor() -> None:
    begun = time.process_time()
    while time.process_time() < begun + 0.05:
        pass


def request(swept: dict[str, str], **config: object) -> JobRequest:
    common = {"seed": 0, "trainer": {"steps": 10, "batch_size": 4}, "optimizer": {"schedule": "constant"}}
    return JobRequest(swept, [f"{key}={value}" for key, value in swept.items()], {**common, **config})


def swept_before(*requests: JobRequest) -> Sweep:
    names = {f"seed-{r.plain['seed']}": Job(swept=r.swept, overrides=r.overrides, config=r.plain) for r in requests}
    return Sweep(command=["gan-train"], swept=["seed"], jobs=names)


def test_jobs_are_found_by_their_configuration(tmp_path):
    before = swept_before(request({}, seed=0), request({}, seed=1))
    wanted = [request({"loss": "a", "seed": str(seed)}, seed=seed) for seed in (1, 0, 2)]
    assert [task.name for task in plan_jobs(before, wanted, tmp_path, [])] == ["seed-1", "seed-0", "loss-a_seed-2"]


def test_the_same_value_written_in_two_ways_is_one_job(tmp_path):
    one, other = request({"seed": "1"}, seed=1), request({"seed": "01"}, seed=1)
    first, second = plan_jobs(swept_before(), [one, other], tmp_path, [])
    assert first is second


def test_a_change_of_what_is_common_to_all_is_refused(tmp_path):
    before = swept_before(request({}, seed=0), request({}, seed=1))
    changed = [request({"seed": str(s)}, seed=s, trainer={"steps": 10, "batch_size": 8}) for s in (0, 1)]
    with pytest.raises(UserError, match=r"trainer\.batch_size: the jobs in .* have 4 in common, found 8"):
        plan_jobs(before, changed, tmp_path, [])
    both = [request({"b": str(b)}, seed=0, trainer={"steps": 10, "batch_size": b}) for b in (4, 8)]
    assert [task.name for task in plan_jobs(before, both, tmp_path, [])] == ["seed-0", "b-8"]


def test_a_name_that_another_job_has_gets_a_hash(tmp_path):
    wanted = [request({"x": x}, x=x) for x in ("A", "a")]  # some disks tell no a from A
    first, second = plan_jobs(swept_before(), wanted, tmp_path, [])
    assert first.name == "x-A"
    assert re.fullmatch("x-a-[0-9a-f]{8}", second.name)


@pytest.mark.parametrize(
    ("state", "retry", "to_do"),
    [
        ("failed", ["failed"], "retry"),
        ("failed", [], ""),
        ("diverged", ["failed"], ""),
        ("diverged", ["diverged"], "retry"),
        ("refused", ["refused"], "retry"),
        ("waiting", [], "run"),
        ("running", [], "run"),  # it left no run directory
    ],
)
def test_what_is_left_to_do(tmp_path, state, retry, to_do):
    before = swept_before(request({}, seed=0))
    before.jobs["seed-0"].state = state
    (task,) = plan_jobs(before, [request({"seed": "0"}, seed=0)], tmp_path, retry)
    assert (task.name, task.to_do) == ("seed-0", to_do)


def test_a_broken_sweep_json_is_named(tmp_path):
    (tmp_path / "sweep.json").write_text('{"command": [], "swept": [], "jobs": {"a": {"state": "flown"}}}')
    with pytest.raises(UserError, match=r"sweep\.json\.jobs\.a\.swept: is missing"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text(json.dumps({"command": [], "swept": []}))
    with pytest.raises(UserError, match=r"sweep\.json\.jobs: is missing"):
        read_sweep(tmp_path)


def test_the_process_of_a_sweep_imports_no_torch():
    script = "import sys; import gan_runner.commands.sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
