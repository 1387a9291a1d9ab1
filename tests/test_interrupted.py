"""Real processes and real signals: every command is gone within seconds, and leaves nothing half-made."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from gan_runner.machine.compiling import CompiledStep
from gan_runner.machine.ranks import Ranks
from gan_runner.stopping import Left, stopping
from tests.conftest import tree
from tests.machine.test_distributed import SHARED, torchrun, workers
from tests.test_step import Run
from tests.test_stopping import SECONDS
from tests.training import TINY, last_step, rows, status, train, write_images

INTERRUPTED = 130
SLOW = """
import time
from pathlib import Path
from gan_runner.datasets import Pattern

class Slow(Pattern):
    def fingerprint(self):
        Path("reached").touch()
        while True:
            time.sleep(0.01)

class Observer:
    def __init__(self, every: int) -> None:
        self.every = every
    def __call__(self, step, networks, row):
        Path("reached").touch()
        while Path("hang").exists():
            time.sleep(0.01)
        return {"figure": row["loss/generator"]}
"""

Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def started(tmp_path, environment) -> Iterator[Started]:
    """`started("train", …)` is `python -m gan_runner.train …` at work in `tmp_path`; no signal is ignored."""
    processes = []

    def start(command: str, *words: str, before: tuple[str, ...] = (), launcher: tuple[str, ...] = ()):
        def listen() -> None:  # tests that run in the background, or under nohup, ignore these
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

        line = [*before, sys.executable, *launcher, "-m", f"gan_runner.{command}", *words]
        pipe = subprocess.PIPE
        settings = {"cwd": tmp_path, "env": environment, "stdout": pipe, "stderr": pipe, "text": True}
        process = subprocess.Popen(line, **settings, preexec_fn=listen)  # noqa: PLW1509 (no thread holds a lock)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(there: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    while not there() and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def stop(process: "subprocess.Popen[str]", number: int, within: float = SECONDS) -> tuple[int, str]:
    """The exit status, and what it has printed."""
    begun = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < within
    assert "Traceback" not in err
    return process.returncode, out + err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_before_there_is_anything_to_save_nothing_is_left_behind(tmp_path, started, number):
    (tmp_path / "slow.py").write_text(SLOW)
    process = started("train", "dataset._target_=slow.Slow", *TINY)
    wait_for((tmp_path / "reached").exists, process)
    assert stop(process, number) == (INTERRUPTED, "")
    assert {path.name for path in tmp_path.iterdir()} == {"slow.py", "reached"}


def test_a_cache_that_is_being_built(tmp_path, started, monkeypatch, environment):
    """With what the decoder's threads have begun; the next start finds no half of it."""
    images = write_images(tmp_path / "images")
    environment["GAN_RUNNER_CACHE"] = str(tmp_path / "cache")
    words = ("dataset=images", f"dataset.root={images}", "dataset.size=2000", "hydra.run.dir=run", *TINY)
    process = started("train", *words)
    wait_for(lambda: [*(tmp_path / "cache").glob("*.new")], process)
    assert stop(process, signal.SIGTERM)[0] == INTERRUPTED
    assert tree(tmp_path / "cache") == {}
    assert not (tmp_path / "run").exists()


@pytest.fixture
def with_observer(tmp_path, environment) -> tuple[str, ...]:
    """The words for a run whose observer takes for ever at step 10, while the file `hang` is there."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "mine" / "observer").mkdir(parents=True)
    (tmp_path / "mine" / "observer" / "slow.yaml").write_text("slow: {_target_: slow.Observer, every: 10}")
    (tmp_path / "hang").touch()
    every = ("trainer.log_every=5", "trainer.sample_every=7", "trainer.checkpoint_every=8", "trainer.steps=20")
    return ("--config-dir=mine", "observer=slow", *TINY, *every, "hydra.run.dir=run")


def test_nohup_and_a_user_s_observer(tmp_path, started, with_observer):
    """HUP ends what TERM ends, but not under nohup; what an observer adds to its row is made up for."""
    process = started("train", *with_observer)
    wait_for((tmp_path / "reached").exists, process)
    assert stop(process, signal.SIGHUP)[0] == 75
    assert status(tmp_path / "run")["step"] == 10
    assert last_step(tmp_path / "run") == 7

    (tmp_path / "reached").unlink()
    process = started("train", *with_observer, before=("nohup",))
    wait_for((tmp_path / "reached").exists, process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    assert stop(process, signal.SIGTERM)[0] == 75

    (tmp_path / "hang").unlink()
    assert started("train", *with_observer).wait() == 0
    figures = {row["step"]: row for row in rows(tmp_path / "run")}
    assert [*figures] == [5, 7, 10, 14, 15, 20]
    assert all(figures[step]["observer/slow/figure"] == figures[step]["loss/generator"] for step in (10, 20))


@pytest.mark.parametrize("to", ["the parent", "a worker that waits"])
def test_several_processes_one_of_which_is_at_work(tmp_path, started, with_observer, to):
    words = (*with_observer, "device=ddp", "device.processes=2")
    process = started("train", *words)
    wait_for((tmp_path / "reached").exists, process)
    if to == "the parent":
        ended = stop(process, signal.SIGTERM, 2 * SECONDS)
    else:
        begun = time.monotonic()
        os.kill(workers(process.pid)[1], signal.SIGTERM)
        ended = (process.wait(60), "")
        assert time.monotonic() - begun < 2 * SECONDS
    assert ended[0] == 75
    assert status(tmp_path / "run") == {"state": "interrupted", "step": 10, "message": None}


def test_under_torchrun(tmp_path, started, with_observer):
    words = (*with_observer, "device=ddp")
    process = started("train", *words, launcher=tuple(torchrun(tmp_path / "logs")[1:]))
    wait_for((tmp_path / "reached").exists, process)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert time.monotonic() - begun < 2 * SECONDS
    assert status(tmp_path / "run") == {"state": "interrupted", "step": 10, "message": None}


@pytest.mark.parametrize("rank", [0, 1])  # the parent passes its signal on to both
def test_several_processes_that_compile(tmp_path, started, environment, rank):
    """Whoever has compiled waits for the others; all leave the step or none. Nothing is trained by then."""
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "compiled")  # so that nothing is found there
    words = ("dataset=ring", "trainer.compile=true", "trainer.steps=20", "metric=[]", "hydra.run.dir=run")
    process = started("train", *words, "device=ddp", "device.processes=2")
    wait_for(lambda: "compiling" in _line(process), process)
    begun = time.monotonic()
    os.kill(workers(process.pid)[rank], signal.SIGTERM)
    assert process.wait(60) == 75
    assert time.monotonic() - begun < 2 * SECONDS
    assert status(tmp_path / "run") == {"state": "interrupted", "step": 0, "message": None}
    assert "compiled in" not in (tmp_path / "run" / "log.txt").read_text()


def test_slow_steps_of_several_processes_do_not_wait_for_the_next_row(tmp_path, started):
    images = write_images(tmp_path / "images")
    words = [word for word in SHARED if not word.startswith("trainer.log_every")]
    words += [f"dataset.root={images}", "trainer.log_every=1000000", "trainer.steps=10000000", "metric=[]"]
    words += ["trainer.checkpoint_every=20", "trainer.sample_every=1000000", "trainer.evaluate_every=1000000"]
    process = started("train", *words, "hydra.run.dir=run", "device=ddp", "device.processes=2")
    wait_for((tmp_path / "run" / "generator.safetensors").exists, process)
    assert stop(process, signal.SIGTERM, 2 * SECONDS)[0] == 75  # they share what other tests leave of the processor
    assert status(tmp_path / "run")["state"] == "interrupted"


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    run = tmp_path_factory.mktemp("completed") / "run"
    assert train(run, *TINY, "trainer.steps=10", "metric.pattern.samples=100") == 0
    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("there", [True, False])
def test_long_sampling(tmp_path, started, completed, number, there):
    out = tmp_path / "here" / "out"
    if there:
        out.mkdir(parents=True)
        np.save(out / "samples.npy", np.zeros(3))
    before = tree(tmp_path)
    process = started("sample", f"run={completed}", "count=100000000", f"out={out}")
    wait_for(lambda: [*out.glob(".new/.samples.npy.tmp")], process)
    assert stop(process, number)[0] == INTERRUPTED
    assert tree(tmp_path) == before


def test_a_long_evaluation_by_hand(tmp_path, started, completed):
    before = tree(completed)
    process = started("evaluate", f"run={completed}", "metric=[pattern]", "metric.pattern.samples=20000000")
    wait_for(lambda: "pattern" in _line(process), process)
    assert stop(process, signal.SIGTERM)[0] == INTERRUPTED
    assert tree(completed) == before


def _line(process: "subprocess.Popen[str]") -> str:
    """The next line that it says."""
    assert process.stderr is not None
    return process.stderr.readline()


def test_a_long_training_of_a_classifier(tmp_path, started):
    images = write_images(tmp_path / "images", side=16)
    before = tree(tmp_path)
    words = ("dataset=images", f"dataset.root={images}", "dataset.size=16", "steps=2000", "batch_size=8", "width=4")
    process = started("classifier", *words, "out=here/made.safetensors")
    wait_for(lambda: "step" in _line(process), process)
    assert stop(process, signal.SIGTERM)[0] == INTERRUPTED
    assert tree(tmp_path) == before


def test_only_compiling_is_left_and_not_the_step():
    """The state is what it was, the count of the average's updates included; a step that has begun is taken."""
    run = Run("dataset=ring", "trainer.batch_size=8", "trainer.ema_decay=0.9", "device=cpu")
    before = [tensor.clone() for tensor in run.state.tensors()]

    def asked_while_it_compiles(graph, inputs, **_):
        stopping.ask()
        return graph

    take_step = CompiledStep(run.state, run.game, Ranks(), run.eagerly, asked_while_it_compiles)
    stopping.begin()
    with pytest.raises(Left):
        take_step(run.state, run.batch(1), run.schedule(1), True)
    assert all(map(torch.equal, run.state.tensors(), before))
    assert run.state.average is not None
    assert run.state.average.updates == 0

    def asked_while_it_runs(graph, inputs, **_):
        def taken(*arguments):
            stopping.ask()
            return graph(*arguments)

        return taken

    stopping.begin()
    take_step = CompiledStep(run.state, run.game, Ranks(), run.eagerly, asked_while_it_runs)
    take_step(run.state, run.batch(1), run.schedule(1), True)
    assert stopping.asked
    assert not take_step.gave_up
    assert run.state.average.updates == 1
    stopping.begin()
