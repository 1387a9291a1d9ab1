"""A stop while something long is under way: left at once, and made up for, bit for bit, by the run that goes on."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner.evaluation.evaluation import Evaluation
from gan_runner.health.doctor import Doctor
from gan_runner.heartbeat import heartbeat
from gan_runner.metrics import NearestNeighbours
from gan_runner.observers import theory
from gan_runner.observers.grids import Grids
from gan_runner.observers.theory import Theory
from gan_runner.runs import checkpoint
from gan_runner.runs.logger import Logger
from gan_runner.status import Status
from gan_runner.tensor_files import parse
from tests.training import INTRICATE, TINY, assert_same_end, rows, start, status, train, write_images

STEPS = 60
SECONDS = 10.0  # within which a stop is answered


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def intricate(tmp_path_factory):
    images = write_images(tmp_path_factory.mktemp("images"))
    return (*INTRICATE, f"dataset.root={images}", f"trainer.steps={STEPS}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, intricate):
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train(directory, *intricate) == Status.COMPLETED
    return directory


def hang_in(owner: type, name: str, step: int, reached: Path) -> None:
    """The method comes to no end where the training has reached `step`."""
    method = getattr(owner, name)

    def hanging(*arguments, **keywords):
        if heartbeat.step() == step:
            reached.touch()
            while True:
                time.sleep(0.01)
        return method(*arguments, **keywords)

    setattr(owner, name, hanging)


def stop_there(run: Path, number: int, before: Callable[[Path], object], *overrides: str) -> int | None:
    """The exit status of a run that gets the signal as soon as it has made the file that `before` is told of."""
    reached = run.with_name("reached")
    process = start(run, *overrides, before=lambda: before(reached))
    while process.is_alive() and not reached.exists():
        time.sleep(0.01)
    assert process.pid is not None
    begun = time.monotonic()
    os.kill(process.pid, number)
    process.join(60)
    assert time.monotonic() - begun < SECONDS
    return process.exitcode


def events(run: Path) -> dict[str, list]:
    """TensorBoard's scalars and images, but for the clock and the chart that each end of a run draws."""
    shown = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0}).Reload()
    tags = shown.Tags()
    found = {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in tags["scalars"]}
    found |= {tag: [(e.step, e.encoded_image_string) for e in shown.Images(tag)] for tag in tags["images"]}
    return {tag: of for tag, of in found.items() if not tag.startswith(("speed/", "time/", "memory/", "loss/chart"))}


def assert_made_up(run: Path, whole: Path) -> None:
    assert_same_end(whole, run)
    assert [p.name for p in checkpoint.checkpoints(run / "checkpoints")] == [
        p.name for p in checkpoint.checkpoints(whole / "checkpoints")
    ]
    assert events(run) == events(whole)
    assert [file for file in run.rglob(".*") if file.name != ".lock"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGKILL])
@pytest.mark.parametrize("step", [15, 30, STEPS])  # without a checkpoint of its own, with one, and the last
def test_an_evaluation_is_left_and_made_up_for(tmp_path, intricate, uninterrupted, step, number):
    run = tmp_path / "run"
    ended = stop_there(run, number, partial(hang_in, NearestNeighbours, "measure", step), *intricate)
    reached = step if step % 10 == 0 or number != signal.SIGKILL else 10
    assert checkpoint.step_of(checkpoint.checkpoints(run / "checkpoints")[-1]) == reached
    assert step not in [row["step"] for row in rows(run)]
    if number == signal.SIGKILL:
        assert ended == -number
    else:
        assert ended == Status.INTERRUPTED
        assert status(run) == {"state": "interrupted", "step": step, "message": None}
    assert train(run, *intricate) == Status.COMPLETED
    assert status(run) == {"state": "completed", "step": STEPS, "message": None}
    assert_made_up(run, uninterrupted)


@pytest.mark.parametrize(
    ("owner", "name", "step"),
    [
        (Evaluation, "_generate", 45),
        (NearestNeighbours, "picture", STEPS),
        (Doctor, "examine", 40),
        (Doctor, "examine", STEPS),
    ],
)
def test_whatever_is_long_can_be_left(tmp_path, intricate, uninterrupted, owner, name, step):
    run = tmp_path / "run"
    ended = stop_there(run, signal.SIGTERM, partial(hang_in, owner, name, step), *intricate)
    assert ended == Status.INTERRUPTED
    assert train(run, *intricate) == Status.COMPLETED
    assert_made_up(run, uninterrupted)


@pytest.mark.parametrize(
    ("owner", "name", "step"),
    [
        (Grids, "__call__", 40),
        (Logger, "write", 40),
        (Logger, "_append", STEPS),
        (checkpoint, "save_best", 30),
        (Logger, "close", STEPS),
    ],
)
def test_a_kill_between_the_checkpoint_and_the_end_is_made_up_for(
    tmp_path, intricate, uninterrupted, owner, name, step
):
    run = tmp_path / "run"
    process = start(run, *intricate, before=partial(die_in, owner, name, step))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.step_of(checkpoint.checkpoints(run / "checkpoints")[-1]) == step
    assert train(run, *intricate) == Status.COMPLETED
    assert_made_up(run, uninterrupted)


def die_in(owner: type, name: str, step: int) -> None:
    """The process is killed where it calls this in `step`."""
    method = getattr(owner, name)

    def dying(*arguments, **keywords):
        if heartbeat.step() == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments, **keywords)

    setattr(owner, name, dying)


def test_it_is_left_again_and_again(tmp_path, intricate, uninterrupted):
    run = tmp_path / "run"
    for name in ("_generate", "_measure", "_measure_all"):
        run.with_name("reached").unlink(missing_ok=True)
        assert stop_there(run, signal.SIGTERM, partial(hang_in, Evaluation, name, 15), *intricate) == Status.INTERRUPTED
        assert status(run)["step"] == 15
    assert train(run, *intricate) == Status.COMPLETED
    assert_made_up(run, uninterrupted)


def test_a_run_left_at_its_last_step_may_be_extended(tmp_path, intricate):
    """Only what is due by the longer run's schedule is made up for."""
    run, whole, shorter = tmp_path / "run", tmp_path / "whole", (*intricate, "trainer.steps=37")
    assert train(whole, *shorter) == train(whole, *intricate) == Status.COMPLETED
    assert stop_there(run, signal.SIGTERM, partial(hang_in, Evaluation, "_generate", 37), *shorter) == 75
    assert status(run) == {"state": "interrupted", "step": 37, "message": None}
    assert train(run, *intricate) == Status.COMPLETED
    assert_same_end(whole, run)


def test_a_run_in_one_dimension_draws_its_theory_once(tmp_path, monkeypatch):
    """Also a figure of the row, and the sample whose evolution is a part of the state."""
    monkeypatch.setattr(theory, "SAMPLES", 1000)
    words = ["experiment=theory_1d", "trainer.generator_start=2", "trainer.steps=30", "device=cpu", "metric=[]"]
    words += ["trainer.discriminator_steps=1"]
    words += [f"trainer.{name}_every=10" for name in ("log", "sample", "checkpoint")]
    assert train(tmp_path / "whole", *words) == Status.COMPLETED
    run = tmp_path / "run"
    process = start(run, *words, before=partial(die_in, Theory, "draw", 20))
    process.join()
    assert checkpoint.step_of(checkpoint.checkpoints(run / "checkpoints")[-1]) == 20
    assert train(run, *words) == Status.COMPLETED
    assert "theory/discriminator_gap" in rows(run)[1]
    assert_made_up(run, tmp_path / "whole")


def test_a_checkpoint_of_an_earlier_version_is_complete(tmp_path, monkeypatch):
    """It was written after all had looked at its step, whose row may be missing because nothing was due."""
    words = (*TINY, "trainer.checkpoint_every=7", "trainer.steps=12")
    assert train(tmp_path / "whole", *words) == Status.COMPLETED
    monkeypatch.setattr(checkpoint, "pending", lambda row: {})
    process = start(tmp_path / "run", *words, before=partial(die_in, Logger, "write", 12))
    process.join()
    monkeypatch.undo()
    kept = checkpoint.checkpoints(tmp_path / "run" / "checkpoints")
    kept[-1].unlink()
    assert train(tmp_path / "run", *words) == Status.COMPLETED
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_what_is_no_row_is_refused_as_pending(tmp_path, capsys):
    words = (*TINY, "trainer.checkpoint_every=5")
    assert train(tmp_path / "run", *words, "trainer.steps=5") == Status.COMPLETED
    (path,) = checkpoint.checkpoints(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    state = parse(path.read_bytes(), path)
    for wrong in (b"[1]", b'{"loss/generator": "x"}', b"{", b"\xff", None):
        path.unlink()
        letters = "{}" if wrong is None else torch.tensor([*wrong], dtype=torch.uint8)
        path = checkpoint.save(path.parent, 5, state | {"pending": letters}, keep=1)
        assert train(tmp_path / "run", *words, "trainer.steps=10") == Status.REFUSED
        assert "the newest holds no row of metrics" in capsys.readouterr().err
