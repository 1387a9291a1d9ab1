"""Several processes that share a run, over gloo on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from gan_runner.commands.train import answering_signals
from gan_runner.machine import ranks
from gan_runner.metrics import NearestNeighbours
from gan_runner.status import Status
from gan_runner.stopping import stopping
from tests.machine.world import environments
from tests.training import last_step, newest_state, rows, start, status, train, write_images

# Without batch norm, whose statistics are each process's own; with a penalty at each update and a lazy one.
SHARED = (
    "dataset=images",
    "dataset.size=8",
    "dataset.channels=1",
    "architecture=mlp_layernorm",
    "architecture.generator.hidden=[16]",
    "architecture.discriminator.hidden=[16]",
    "regularizer=[gradient_penalty,r1]",
    "regularizer.r1.interval=4",
    "trainer.batch_size=12",
    "trainer.log_every=1",
    "trainer.sample_columns=2",
    "trainer.sample_rows=2",
    "trainer.ema_decay=0.9",
)
LOSSES = ("loss/", "score/", "divergence/", "gradient_norm/", "augmentation/")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return (*SHARED, f"dataset.root={write_images(tmp_path_factory.mktemp('images'))}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, shared):
    """What one process does."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert train(run, *shared, "trainer.steps=50", "device=cpu") == Status.COMPLETED
    return run


@pytest.fixture
def launch(tmp_path, environment):
    """`python -m gan_runner.train device=ddp …` in the background."""
    started = []

    def launch(*overrides: str, processes: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "gan_runner.train", "device=ddp", f"device.processes={processes}", *overrides]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def losses(run):
    return [{tag: value for tag, value in row.items() if tag.startswith(LOSSES)} for row in rows(run)]


def workers(parent: int) -> list[int]:
    """The processes that share the run `parent` has started."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    table = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(pid) for pid, of, command in table if int(of) == parent and "spawn_main" in command]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_step(run, step: int, process: subprocess.Popen) -> None:
    while process.poll() is None and last_step(run) < step:
        time.sleep(0.01)


def train_together(processes: int, run, *overrides: str) -> list[int | None]:
    """The exit statuses of so many forks, with the environment that torchrun would give them."""
    told = [partial(os.environ.update, environment) for environment in environments(processes)]
    forks = [start(run, *overrides, "device=ddp", before=before) for before in told]
    for fork in forks:
        fork.join(60)
    return [fork.exitcode for fork in forks]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_number_of_processes_changes_nothing(tmp_path, shared, alone, processes):
    run = tmp_path / "run"
    assert train_together(processes, run, *shared, "trainer.steps=50") == [Status.COMPLETED] * processes
    assert status(run) == {"state": "completed", "step": 50, "message": None}
    expected, found = losses(alone), losses(run)
    assert len(found) == len(expected) == 50
    for one, many in zip(expected, found, strict=True):
        assert many == pytest.approx(one, rel=1e-5, abs=1e-5)
    assert "loss/r1" in found[0]
    assert json.loads((run / "manifest.json").read_text())["machine"]["processes"] == processes


def test_nor_what_the_discriminator_is_shown_of_a_group_nor_its_class_losses(tmp_path):
    words = ["dataset=images", f"dataset.root={write_images(tmp_path / 'images', side=16)}", "dataset.size=16"]
    words += ["dataset.channels=1", "architecture=dcgan", "architecture.generator.normalization=layer"]
    words += ["architecture.generator.channels=4", "architecture.discriminator.channels=4", "regularizer=r1"]
    words += ["architecture.discriminator.normalization=none", "trainer.log_every=1", "trainer.steps=10"]
    words += ["doctor=none", "metric=[]", "architecture.conditional=true"]
    words += ["architecture.discriminator.conditioning=auxiliary"]
    four = [*words, "trainer.batch_size=24", "architecture.discriminator.minibatch_stddev=4"]
    one, three = tmp_path / "one", tmp_path / "three"
    assert train(one, *four, "device=cpu") == Status.COMPLETED
    assert train_together(3, three, *four) == [Status.COMPLETED] * 3
    for expected, found in zip(losses(one), losses(three), strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert "loss/auxiliary_real" in found

    nine = [*words, "trainer.batch_size=18", "architecture.discriminator.minibatch_stddev=9"]
    assert train_together(3, tmp_path / "split", *nine) == [Status.REFUSED] * 3
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize("augmentation", ["diffaugment", "ada", "instance_noise"])
def test_nor_does_it_with_an_augmentation(tmp_path, shared, augmentation):
    words = (*shared, f"augmentation={augmentation}", "trainer.steps=20")
    if augmentation == "ada":
        words = (*words, "augmentation.interval=2", "augmentation.images=240", "augmentation.target=-0.8")
    assert train(tmp_path / "alone", *words, "device=cpu") == Status.COMPLETED
    assert train_together(3, tmp_path / "run", *words) == [Status.COMPLETED] * 3
    for one, many in zip(losses(tmp_path / "alone"), losses(tmp_path / "run"), strict=True):
        assert many == pytest.approx(one, rel=1e-5, abs=1e-5)
    assert augmentation != "ada" or max(row["augmentation/probability"] for row in losses(tmp_path / "run")) > 0.2


def test_nor_does_it_with_what_clips_adapts_or_draws_much(tmp_path, shared):
    words = [word for word in shared if not word.startswith("regularizer")]
    words += ["regularizer=[dragan,lecam]", "regularizer.dragan.interval=2", "regularizer.lecam.decay=0.5"]
    words += ["trainer.weight_clip=0.1", "trainer.steps=20"]
    assert train(tmp_path / "alone", *words, "device=cpu") == Status.COMPLETED
    assert train_together(3, tmp_path / "run", *words) == [Status.COMPLETED] * 3
    for one, many in zip(losses(tmp_path / "alone"), losses(tmp_path / "run"), strict=True):
        assert many == pytest.approx(one, rel=1e-5, abs=1e-5)
    expected, found = newest_state(tmp_path / "alone"), newest_state(tmp_path / "run")
    averages = [f"adaptive/regularizer.lecam/{name}" for name in ("real", "fake")]
    assert [found[name].item() for name in averages] == pytest.approx([expected[name].item() for name in averages])
    weights = [w for name, w in found.items() if name.startswith("discriminator/")]
    assert max(w.abs().max().item() for w in weights) == pytest.approx(0.1)


def test_nor_does_it_with_packs(tmp_path, shared):
    words = (*shared, "trainer.packing=2", "trainer.steps=20")
    assert train(tmp_path / "alone", *words, "device=cpu") == Status.COMPLETED
    assert train_together(3, tmp_path / "run", *words) == [Status.COMPLETED] * 3
    for one, many in zip(losses(tmp_path / "alone"), losses(tmp_path / "run"), strict=True):
        assert many == pytest.approx(one, rel=1e-5, abs=1e-5)
    words = (*shared, "trainer.packing=4", "trainer.steps=20")  # of 12 samples, but not of 6
    assert train_together(2, tmp_path / "split", *words) == [Status.REFUSED] * 2
    assert not (tmp_path / "split").exists()


def test_a_long_evaluation_does_not_count_as_a_long_step(tmp_path, shared, alone, monkeypatch):
    measure, pauses = NearestNeighbours.measure, [6]

    def measure_slowly(*arguments):
        time.sleep(pauses.pop() if pauses else 0)
        return measure(*arguments)

    monkeypatch.setattr(NearestNeighbours, "measure", measure_slowly)
    monkeypatch.setattr(ranks, "STEP_LIMIT", timedelta(seconds=2))
    metric = ("metric=[neighbours]", "metric.neighbours.samples=16", "trainer.evaluate_every=5")
    run = tmp_path / "run"
    assert train_together(2, run, *shared, *metric, "trainer.steps=7") == [Status.COMPLETED] * 2
    assert [row["step"] for row in rows(run) if "metric/memorised" in row] == [5, 7]
    for one, many in zip(losses(alone), losses(run), strict=False):
        assert many == pytest.approx(one, rel=1e-5, abs=1e-5)


def test_all_of_them_refuse(tmp_path):
    overrides = ("dataset=images", "dataset.root=nowhere")
    assert train_together(2, tmp_path / "run", *overrides) == [Status.REFUSED] * 2
    assert not (tmp_path / "run").exists()


def torchrun(logs: Path) -> list[str]:
    """The words that start two processes; by default it leaves a directory of logs in /tmp."""
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--log-dir", str(logs)]


def test_torchrun_makes_one_directory(tmp_path, shared, alone, environment):
    command = [*torchrun(tmp_path), "-m", "gan_runner.train", "device=ddp", "trainer.steps=50", *shared]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs" / "images").iterdir()
    assert status(run)["state"] == "completed"
    assert done.stdout.splitlines()[-1] == str(run.relative_to(tmp_path))
    assert losses(run)[-1] == pytest.approx(losses(alone)[-1], rel=1e-5, abs=1e-5)


def test_a_signal_to_all_of_them_interrupts_and_one_process_goes_on(tmp_path, shared, alone, environment):
    """A scheduler's signal to the parent and its workers alike; then on with another device."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "gan_runner.train", "device=ddp", "device.processes=2", *shared]
    command += ["trainer.steps=100000", f"hydra.run.dir={run}"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    wait_for_step(run, 5, process)
    os.killpg(process.pid, signal.SIGUSR2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == Status.INTERRUPTED, err
    stopped = status(run)
    assert stopped["state"] == "interrupted"
    assert newest_state(run)["optimizer/generator/0/step"].item() == stopped["step"]
    # Its steps would take longer than a test may: one process resumes it, and is stopped as well.
    goes_on = start(run, *shared, "trainer.steps=100000", "device=cpu")
    while goes_on.is_alive() and last_step(run) < stopped["step"] + 20:
        time.sleep(0.01)
    goes_on.terminate()
    goes_on.join()
    assert goes_on.exitcode == Status.INTERRUPTED
    assert [row["step"] for row in rows(run)] == list(range(1, status(run)["step"] + 1))
    for one, many in zip(losses(alone)[:25], losses(run), strict=False):
        assert many == pytest.approx(one, rel=1e-5, abs=1e-5)


def test_one_of_several_processes_may_be_told_twice(monkeypatch):
    """It is signalled by the scheduler and by whoever started it, who also ends it if it does not stop."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    main = ranks.Ranks.__new__(ranks.Ranks)  # which would wait for the others
    main.rank, main._processes = 0, []
    with answering_signals(main):
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stopping.asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_parent_is_passed_on(tmp_path, launch, number):
    run = tmp_path / "run"
    process = launch("trainer.steps=100000", "trainer.log_every=10", f"hydra.run.dir={run}", processes=2)
    wait_for_step(run, 10, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == Status.INTERRUPTED, err
    *_, hint, last = out.splitlines()
    assert hint.startswith("go on with: ")
    assert hint.endswith(f" resume={run}")
    assert last == str(run)
    assert "Traceback" not in err


def test_a_killed_worker_ends_the_run(tmp_path, launch):
    run = tmp_path / "run"
    process = launch("trainer.steps=1000000", "trainer.log_every=10", f"hydra.run.dir={run}", processes=2)
    wait_for_step(run, 10, process)
    main, other = workers(process.pid)
    os.kill(other, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == Status.FAILED
    assert not is_alive(main)
    assert status(run)["state"] == "failed"


def test_a_killed_parent_leaves_no_worker_behind(tmp_path, launch):
    run = tmp_path / "run"
    process = launch("trainer.steps=1000000", "trainer.log_every=10", f"hydra.run.dir={run}", processes=2)
    wait_for_step(run, 10, process)
    left = workers(process.pid)
    assert len(left) == 2
    process.kill()
    deadline = time.monotonic() + 20
    while any(map(is_alive, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, left))


LEAVING = """
import sys
import torch.distributed as dist
from gan_runner.machine.ranks import Ranks
ranks = Ranks()
import torch._dynamo  # as the first optimizer does
ranks.any(True)
group = dist.group.WORLD
ranks.leave()
print(sys.getrefcount(group))
del group  # held to the end it would abort this process, too, now and then
"""


def test_nothing_holds_the_process_group_of_those_who_left(tmp_path, environment):
    """Else Gloo's threads outlive the interpreter, and now and then abort the process as it ends."""
    (tmp_path / "leaving.py").write_text(LEAVING)
    command = [*torchrun(tmp_path), str(tmp_path / "leaving.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "".join(done.stdout.split()) == "22"  # of each: `group` itself, and the argument
