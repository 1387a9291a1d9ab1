"""How fast gan_runner trains beside loops written by hand, and how fast it starts.

`make bench` measures all of it, `make bench ARGS="starting pattern"` two parts; everything runs on one thread. What is
compared takes turns, so that whatever else the machine does slows down both; times and ratios are medians over the
rounds. The digits are noise in MNIST's format.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median

import numpy as np
import torch

from gan_runner.commands.observing import watch_from_main
from gan_runner.commands.training import Measures, Training, prepare_dataset
from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.loop import fit
from gan_runner.machine.ranks import Ranks
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.manifest import Manifest
from tests.loops_by_hand import Loop, fast_loop, notes_lsgan, notes_pattern

ROUNDS = 5
RECIPES = {"ring_plain": 400, "mnist_mlp": 400, "mnist_cnn": 200}  # steps in a turn
EPOCH = 117  # steps of batch 512 on 60,000 digits
COMMANDS = {"trainer.steps=1 device=cpu": (0, 1.9), "--help": (0, 0.35), "dataset=mnst": (2, 0.13)}  # status, aim


def starting(folder: Path) -> None:
    """Whole commands beside `import torch`."""

    def run(status: int, *words: str) -> None:
        done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr

    commands = [partial(run, status, "-m", "gan_runner.train", *w.split()) for w, (status, _) in COMMANDS.items()]
    theirs, *ours = take_turns([partial(run, 0, "-c", "import torch"), *commands])
    for (words, (_, aim)), our in zip(COMMANDS.items(), ours, strict=True):
        report(f"gan-train {words} / import torch", theirs, our, "s", aim)


def pattern(folder: Path) -> None:
    """`pattern_bce` with its own logging beside the notes' loop; at last the command, with nothing compiled before."""
    words = ["experiment=pattern_bce", "trainer.compile=true"]
    notes, eager, compiled = notes_pattern(), prepare(words[0]), prepare(*words)
    loops = [notes, gan_runner_loop(eager, folder), gan_runner_loop(compiled, folder)]
    by_notes, by_eager, by_compiled = seconds_a_step(loops, 1000)
    report("pattern_bce, a step / notes", by_notes, by_eager, "ms", 0.65)
    report("pattern_bce, a compiled step / notes", by_notes, by_compiled, "ms", 1 / 7)

    def run(cache: str) -> None:
        command = [sys.executable, "-m", "gan_runner.train", *words, "device=cpu"]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)

    with tempfile.TemporaryDirectory() as cache:
        before, whole, after = (
            seconds(work) for work in (partial(notes, 5000), partial(run, cache), partial(notes, 5000))
        )
    steps = compiled.settings.steps
    report(f"pattern_bce, {steps:,} compiled steps / notes", [(before + after) / 10_000 * steps], [whole], "s", 1 / 3)


def recipes(folder: Path) -> None:
    """Other recipes, without doctor, metrics and pictures, beside a loop by hand that is as fast."""
    for name, steps in RECIPES.items():
        words = [
            f"experiment={name}",
            "doctor=none",
            "metric=[]",
            "trainer.sample_every=20000",
            *([f"dataset.root={folder}"] * ("mnist" in name)),
        ]
        eager, compiled = prepare(*words), prepare(*words, "trainer.compile=true")
        loops = [fast_loop(eager), gan_runner_loop(eager, folder), gan_runner_loop(compiled, folder)]
        by_hand, by_eager, by_compiled = seconds_a_step(loops, steps)
        report(f"{name}, a step / by hand", by_hand, by_eager, "ms", 1.02)
        report(f"{name}, a compiled step / eager", by_eager, by_compiled, "ms", 1)


def lsgan(folder: Path) -> None:
    """An epoch of `mnist_lsgan` with its own logging beside the notes' loop."""
    training = prepare("experiment=mnist_lsgan", f"dataset.root={folder}")
    theirs, ours = seconds_a_step([notes_lsgan(folder), gan_runner_loop(training, folder)], EPOCH)
    report("mnist_lsgan, an epoch / notes", [EPOCH * t for t in theirs], [EPOCH * t for t in ours], "s", 1 / 3)


def sweeps(folder: Path) -> None:
    """Two trainings at once beside one after the other; 40 jobs of one step, one at a time, beside plain commands."""
    numbers = itertools.count()

    def sweep(*words: str) -> None:
        train("-m", f"name=sweep_{next(numbers)}", *words)

    def train(*words: str) -> None:
        command = [sys.executable, "-m", "gan_runner.train", *words, "device=cpu"]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)

    two = ("experiment=pattern_bce", "trainer.steps=20000", "seed=0,1")
    after_another, at_once = take_turns([partial(sweep, *two), partial(sweep, *two, "hydra.launcher.jobs=2")], 3)
    report("two pattern jobs, at once / one after the other", after_another, at_once, "s", 0.65)
    plain, forty = take_turns(
        [partial(train, "trainer.steps=1"), partial(sweep, "trainer.steps=1", "seed=range(0,40)")], 3
    )
    report("a sweep of 40 jobs of one step / 40 commands", [40 * t for t in plain], forty, "s", 0.5)


PARTS = {part.__name__: part for part in (starting, pattern, recipes, lsgan, sweeps)}


def prepare(*words: str) -> Training:
    """What `gan-train` trains, on the CPU."""
    experiment, ranks = check(composition.plain(composition.compose([*words, "device=cpu"], "train"))), Ranks()
    ranks.place(experiment.config.device)
    return Training.of(experiment, prepare_dataset(experiment, Manifest(), ranks.device), ranks)


def gan_runner_loop(training: Training, folder: Path) -> Loop:
    """The loop of `gan-train` with all that it logs, draws, measures and saves; what is compiled stays so."""
    settings, state = training.settings, training.state
    measures = Measures.of(training.experiment, training.dataset, training.ranks.device)
    directory = RunDirectory.create(folder / training.config.name, unique=True)
    observers = watch_from_main(training, measures, directory, is_pending=False).observers

    def train(steps: int) -> None:
        end = state.step + steps
        fit(state, end, training.batches, training.schedule, training.take_step, observers, settings.log_every)

    return train


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def take_turns(works: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[list[float]]:
    """The seconds that each takes in each round."""
    times = [[seconds(work) for work in works] for _ in range(rounds)]
    return [list(by_work) for by_work in zip(*times, strict=True)]


def seconds_a_step(loops: Sequence[Loop], steps: int) -> list[list[float]]:
    """The seconds a step of each loop in each round; what they say is lost."""
    with redirect_stderr(StringIO()):
        for loop in loops:
            loop(steps)  # what is compiled or computed once
        return [[t / steps for t in times] for times in take_turns([partial(loop, steps) for loop in loops])]


def report(what: str, theirs: Sequence[float], ours: Sequence[float], unit: str, aim: float) -> None:
    """Prints a line of the table."""
    scale = {"s": 1, "ms": 1e3}[unit]
    ratio = median(our / their for their, our in zip(theirs, ours, strict=True))
    times = (f"{scale * median(side):.3g} {unit}" for side in (theirs, ours))
    print(f"{what:52}", *(f"{cell:>8}" for cell in (*times, f"{ratio:.3f}", f"{aim:.3f}")), flush=True)


def write_digits(folder: Path) -> None:
    """Noise in the files of MNIST, where torchvision puts them."""
    folder.mkdir(parents=True)
    for split, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", (np.arange(count) % 10).astype(np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(header + array.tobytes())


def main(chosen: Sequence[str]) -> None:
    """Prints a table of the chosen parts, of all where none is chosen."""
    if unknown := [name for name in chosen if name not in PARTS]:
        sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    print(f"{'ours / theirs':52}", *(f"{head:>8}" for head in ("theirs", "ours", "ratio", "at most")), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder) / "MNIST" / "raw")
        for name in chosen or PARTS:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
