"""What gan_runner costs beside a training loop written by hand, and until it starts: `make bench`.

On one thread, in rounds, so that whatever else the machine does falls on all that is compared; figures are medians.
"""

import gzip
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median

import numpy as np
import torch
from gan_runner.runs.trainer import Trainer

from gan_runner.batches import draw_latent
from gan_runner.commands.evaluate import show, table
from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.config.schema import Config
from gan_runner.datasets import DataFacts
from gan_runner.health.doctor import Doctor
from gan_runner.machine.devices import Ranks
from gan_runner.runs.building import build_dataset, build_parts
from tests.training import rows, train

ROUNDS = 5
STARTS = {
    "python -c 'import torch'": ("-c", "import torch"),
    "gan-train --help": ("-m", "gan_runner.train", "--help"),
    "gan-train dataset=mnst (a mistake)": ("-m", "gan_runner.train", "dataset=mnst"),
    "gan-train trainer.steps=1": ("-m", "gan_runner.train", "trainer.steps=1", "device=cpu"),
}
RECIPES = {  # those without a penalty or an average, which `by_hand` has not, and steps for a few seconds
    "pattern_bce trainer.discriminator_update=joint": 2000,
    "ring_plain": 600,
    "mnist_mlp": 600,
    "mnist_cnn": 200,
}


def by_hand(config: Config) -> float:
    """Seconds a step of the recipe's networks, loss and optimizers in a script's loop, with the data in memory."""
    dataset, size, latent = build_dataset(config), config.trainer.batch_size, config.architecture.latent
    parts = build_parts(config, DataFacts.of(dataset), torch.device("cpu"))
    data, _ = dataset.batch(0, 10_000, 0)
    noise = torch.Generator()
    begun = time.perf_counter()
    for _ in range(config.trainer.steps):
        real = data[torch.randint(len(data), (size,))]
        with torch.no_grad():
            fake = parts.generator(draw_latent(latent, size, noise))
        parts.optimizers["discriminator"].zero_grad()
        (parts.loss.real(parts.discriminator(real)) + parts.loss.fake(parts.discriminator(fake))).mean().backward()
        parts.optimizers["discriminator"].step()

        parts.optimizers["generator"].zero_grad()
        fake = parts.generator(draw_latent(latent, size, noise))
        parts.loss.generator(parts.discriminator(fake)).mean().backward()
        parts.optimizers["generator"].step()
    return (time.perf_counter() - begun) / config.trainer.steps


def seconds(work: Callable[..., object], *inputs: object) -> float:
    """How long it takes; what it says is lost."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        begun = time.perf_counter()
        work(*inputs)
        return time.perf_counter() - begun


def by_runner(words: Sequence[str]) -> float:
    """Seconds a step of `gan-train` in this process, with all that it logs, draws and saves on the way."""
    with tempfile.TemporaryDirectory() as folder:
        seconds(train, Path(folder), *words)
        first, *_, last = rows(Path(folder), with_clock=True)
    return (last["time/seconds"] - first["time/seconds"]) / (last["step"] - first["step"])


def medians(*sides: Callable[[], float]) -> list[float]:
    """Of what each side measures when they take turns, and at last of the ratio of the second to the first."""
    rounds = [[side() for side in sides] for _ in range(ROUNDS)]
    return [median(values) for values in zip(*rounds, strict=True)] + [median(r[1] / r[0] for r in rounds)]


def write_digits(folder: Path) -> None:
    """Noise in MNIST's format."""
    images = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", np.arange(10_000) % 10)):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), 1))


def of_starting(folder: Path) -> list[list[str]]:
    """A row a command: how long until it has ended."""

    def start(*words: str) -> None:
        subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, check=False)

    found = medians(*(lambda words=words: seconds(start, *words) for words in STARTS.values()))
    return [[name, f"{value:.2f} s"] for name, value in zip(STARTS, found, strict=False)]


def of_training(recipe: str, folder: Path) -> list[str]:
    """A recipe's row: a step beside one by hand, and how much of a run goes to the doctor and to evaluations."""
    name, *more = recipe.split()
    words = [f"experiment={name}", *more, f"trainer.steps={RECIPES[recipe]}", "device=cpu"]
    words += [f"dataset.root={folder}"] if name.startswith("mnist") else []
    config = check(composition.plain(composition.compose(words, "train"))).config
    trainer = Trainer(config, build_dataset(config), Ranks())
    doctor = Doctor(trainer.rule_context(), [])
    assert trainer.evaluation is not None
    evaluate = partial(trainer.evaluation, trainer._generate, 0, with_pictures=False)
    seconds(evaluate)  # what concerns real data alone is computed once
    hand, ours, look, evaluation, ratio = medians(
        lambda: by_hand(config),
        lambda: by_runner([*words, "doctor=none", "metric=[]"]),
        lambda: seconds(doctor.examine, trainer.samples, trainer.generator, trainer.discriminator),
        lambda: seconds(evaluate),
    )
    shares = [(look, config.trainer.sample_every), (evaluation, config.trainer.evaluate_every)]
    costs = [f"{1e3 * cost:.0f} ms, {cost / (cost + every * ours):.1%}" for cost, every in shares]
    return [recipe, f"{1e3 * hand:.2f} ms", f"{1e3 * ours:.2f} ms", f"{ratio:.2f}", *costs]


def main() -> None:
    """Prints both tables."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        show(table(["command", "time"], of_starting(Path(folder))))
        write_digits(Path(folder))
        heads = ["experiment", "a step by hand", "by gan_runner", "ratio", "a look of the doctor", "an evaluation"]
        show(table(heads, [of_training(recipe, Path(folder)) for recipe in RECIPES]))


if __name__ == "__main__":
    main()
