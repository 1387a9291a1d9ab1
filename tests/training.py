"""Trainings inside the tests' own process, or in a fork of it that may be killed: no time is spent on imports."""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner.config import composition
from gan_runner.runs import checkpoint
from gan_runner.status import Outcome
from gan_runner.tensor_files import flatten, parse
from gan_runner.train import train as gan_train

# Everything that a resumed run can get wrong: epochs, labels, dropout, running statistics, an average, lazy penalties,
# an augmentation and a penalty that adapt.
INTRICATE = (
    "dataset=images",
    "dataset.size=8",
    "dataset.channels=1",
    "architecture=mlp_dropout",
    "architecture.conditional=true",
    "architecture.generator.hidden=[16]",
    "architecture.generator.normalization=batch",
    "architecture.generator.output=[auto]",
    "architecture.discriminator.hidden=[16]",
    "architecture.discriminator.normalization=batch",
    "architecture.discriminator.output=[]",
    "regularizer=[r1,lecam,dragan]",
    "regularizer.lecam.weight=0.01",
    "regularizer.dragan.weight=0.1",
    "regularizer.dragan.interval=5",
    "regularizer.r1.interval=24",  # every twelfth step: often not between a checkpoint and the next logged step
    "augmentation=ada",
    "augmentation.interval=3",  # of two updates a step: a checkpoint may lie between
    "augmentation.images=500",
    "augmentation.target=0.0",
    "trainer.discriminator_steps=2",
    "trainer.ema_decay=0.9",
    "trainer.batch_size=8",
    "trainer.log_every=5",
    "trainer.sample_every=20",
    "trainer.sample_columns=2",
    "metric=[neighbours]",
    "metric.neighbours.samples=16",
    "trainer.objective=metric/memorised",
    "trainer.evaluate_every=15",
    "trainer.checkpoint_every=10",
    "device=cpu",
)
TINY = ("trainer.batch_size=8", "trainer.log_every=5", "trainer.sample_every=50", "device=cpu")


def write_images(folder: Path, side: int = 8) -> Path:
    """Fifty square images in three classes: six batches of eight an epoch."""
    noise = np.random.default_rng(0)
    for i in range(50):
        path = folder / f"class_{i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (side, side), dtype=np.uint8)).save(path)
    return folder


def train(directory: Path, *overrides: str) -> int:
    """The exit status of `python -m gan_runner.train hydra.run.dir=DIRECTORY …`; raises `UserError`."""
    return outcome(directory, *overrides).status


def outcome(directory: Path, *overrides: str) -> Outcome:
    """The `Outcome` of that command."""
    words = [f"hydra.run.dir={directory}", *overrides]
    config = composition.compose(words, "train")
    return gan_train(
        composition.Request(composition.plain(config), composition.parse(words), directory, directory_chosen=True)
    )


def start(directory: Path, *overrides: str, before: Callable[[], object] = lambda: None) -> BaseProcess:
    """`train` in a fork, after `before` has been called there; its exit code is the exit status."""

    def work() -> None:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        before()
        os._exit(train(directory, *overrides))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def status(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "status.json").read_text())


def rows(directory: Path, with_clock: bool = False) -> list[dict[str, float]]:
    """metrics.jsonl, without what depends on the clock or the machine."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    of_machine = () if with_clock else ("speed/", "time/", "memory/")
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(of_machine)} for line in lines]


def last_step(directory: Path) -> int:
    """The last step that is logged so far."""
    path = directory / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def newest_state(directory: Path) -> dict[str, Any]:
    """The newest checkpoint, flat."""
    path = checkpoint.checkpoints(directory / "checkpoints")[-1]
    return dict(flatten(parse(path.read_bytes(), path)))


def assert_same_end(one: Path, other: Path) -> None:
    """Asserts that two runs ended bit for bit the same: weights, optimizers, average, penalties, figures, pictures."""
    expected, found = newest_state(one), newest_state(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]) if isinstance(value, torch.Tensor) else value == found[name], name
    assert (
        checkpoint.checkpoints(one / "checkpoints")[-1].name == checkpoint.checkpoints(other / "checkpoints")[-1].name
    )
    assert rows(one) == rows(other)
    for file in ("generator.safetensors", "checkpoints/best.safetensors", "evaluation.json", "health.json"):
        assert (one / file).exists() == (other / file).exists()
        assert not (one / file).exists() or (one / file).read_bytes() == (other / file).read_bytes(), file
    pictures = sorted(path.name for path in (one / "samples").iterdir())
    assert pictures == sorted(path.name for path in (other / "samples").iterdir() if not path.name.startswith("."))
    for name in pictures:
        assert (one / "samples" / name).read_bytes() == (other / "samples" / name).read_bytes(), name


def scalars(directory: Path, tag: str) -> list[float]:
    """The values that TensorBoard shows under `tag`."""
    accumulator = EventAccumulator(str(directory)).Reload()
    return [float(np.float32(event.value)) for event in accumulator.Scalars(tag)]


def pictures(directory: Path, tag: str) -> list[tuple[int, bytes]]:
    """The steps and PNG files that TensorBoard shows under `tag`."""
    accumulator = EventAccumulator(str(directory), size_guidance={"images": 0}).Reload()
    return [(event.step, event.encoded_image_string) for event in accumulator.Images(tag)]
