"""SIGKILL at random moments of short runs of many kinds; each has to end where one that was never killed ends.

python tests/kills.py --kills 300 --seed 0       # a table; exit status 1 if anything was lost
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from gan_runner.commands.evaluate import evaluate_runs
from gan_runner.commands.sample import write_samples
from gan_runner.config import composition
from gan_runner.runs import checkpoint
from gan_runner.runs.directory import in_use, is_run
from gan_runner.status import Status
from tests.conftest import tree
from tests.training import INTRICATE, assert_same_end, last_step, start, status, write_images

DIGITS = f"dataset.root={Path(__file__).parent / 'data' / 'mnist'}"
EVERY = 8  # steps between two checkpoints
SCHEDULE = (
    *(f"trainer.{name}_every={every}" for name, every in (("log", 4), ("sample", 8), ("evaluate", 12))),
    f"trainer.checkpoint_every={EVERY}",
    *("trainer.steps=44", "trainer.batch_size=8", "trainer.sample_rows=2", "trainer.sample_columns=2", "device=cpu"),
)
SMALL = ("architecture.generator.hidden=[16]", "architecture.discriminator.hidden=[16]")
COPIES = ("metric=[neighbours]", "metric.neighbours.samples=32")
PICTURES = ("dataset=images", "dataset.size=8", "dataset.channels=1", "architecture=mlp_layernorm", *SMALL, *COPIES)
RUNS = {
    "pattern": ("trainer.ema_decay=null", "metric.pattern.samples=100"),
    "ring": ("dataset=ring", *SMALL, "metric.modes.samples=200", "trainer.discriminator_steps=2"),
    "grid": ("dataset=grid", *SMALL, "metric.modes.samples=200", "loss=hinge", "optimizer=sgd"),
    "digits": ("dataset=mnist", DIGITS, "architecture=mlp_layernorm", *SMALL, *COPIES),
    "convolutions": ("dataset=mnist", DIGITS, "architecture=cnn_mnist", *COPIES),
    "conditional": ("dataset=mnist", DIGITS, "architecture=mlp_conditional", *SMALL, *COPIES),
    "stacked": ("dataset=stacked_mnist", DIGITS, "architecture=mlp_layernorm", *SMALL, "metric=[]"),
    "images": PICTURES,  # its cache is built at each start
    "average": (*INTRICATE, *SCHEDULE),  # of weights, with dropout, labels, and a lazy penalty
    "penalties": (*PICTURES, "regularizer=[gradient_penalty,r1]", "regularizer.r1.interval=5", "doctor=none"),
    "two processes": (*PICTURES, "regularizer=r1", "regularizer.r1.interval=3", "device=ddp", "device.processes=2"),
    "compiled": ("dataset=ring", *SMALL, "metric.modes.samples=200", "trainer.compile=true"),
}
COMMANDS = ("sampling", "measuring")


@dataclass
class Bench:
    """Where the runs are, what each comes to undisturbed, and how long it takes."""

    folder: Path
    moments: random.Random
    whole: dict[str, tuple[Path, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.images = write_images(self.folder / "images")

    def words(self, name: str) -> tuple[str, ...]:
        """All that is typed for a run; of what is typed twice, the last word counts."""
        root = (f"dataset.root={self.images}",) if "dataset=images" in RUNS[name] else ()
        return (*SCHEDULE, *RUNS[name], *root)

    def undisturbed(self, name: str) -> tuple[Path, float]:
        """The run that was never killed, and its seconds."""
        if name not in self.whole:
            run, begun = self.folder / "whole" / name.replace(" ", "_"), time.monotonic()
            process = self.begin(run, name)
            process.join()
            assert process.exitcode == Status.COMPLETED, name
            self.whole[name] = run, time.monotonic() - begun
        return self.whole[name]

    def begin(self, run: Path, name: str, before: Callable[[], object] = lambda: None) -> BaseProcess:
        def prepare() -> None:
            os.environ["GAN_RUNNER_CACHE"] = str(run.with_name(f"{run.name}_cache"))
            for stream in (1, 2):  # the processes that share a run print there
                os.dup2(sys.stderr.fileno(), stream)
            before()

        return start(run, *self.words(name), before=prepare)

    def kill(self, process: BaseProcess, seconds: float) -> bool:
        """Kills it at a random moment; whether it was still at work."""
        process.join(self.moments.uniform(0, 1.05 * seconds))
        process.kill()
        process.join()
        return process.exitcode == -signal.SIGKILL


def kill_a_run(bench: Bench, name: str, number: int) -> int:
    """How many kills hit it; AssertionError where something was lost."""
    whole, seconds = bench.undisturbed(name)
    run, hits = bench.folder / f"run_{number}", 0
    for _ in range(bench.moments.randint(1, 3)):
        dying = partial(die_at_write, bench.moments.randint(1, 30)) if bench.moments.random() < 0.4 else int
        hits += bench.kill(bench.begin(run, name, dying), seconds)
        while in_use(run):  # by the processes that share the run, which notice
            time.sleep(0.05)
        kept = checkpoint.checkpoints(run / "checkpoints")
        assert last_step(run) - (checkpoint.step_of(kept[-1]) if kept else 0) <= EVERY, "more than one period is lost"
    goes_on = bench.begin(run, name)
    goes_on.join()
    assert goes_on.exitcode == Status.COMPLETED, f"going on ended with {goes_on.exitcode}"
    assert status(run)["state"] == "completed"
    assert_same_end(whole, run)
    names = [[path.name for path in checkpoint.checkpoints(one / "checkpoints")] for one in (whole, run)]
    assert names[0] == names[1], "other checkpoints are kept"
    refuse_leftovers(run)
    shutil.rmtree(run)
    return hits


def die_at_write(write: int) -> None:
    """The process is killed where its `write`-th file is whole, but does not have its name yet."""
    rename, written = Path.replace, 0

    def dying_rename(self, target):
        nonlocal written
        written += 1
        if written == write:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    setattr(Path, "replace", dying_rename)  # noqa: B010


def kill_a_command(bench: Bench, name: str, number: int) -> int:
    """Of a run that is there: samples, or measures it; typed again, the command gives what it always gives."""
    source, _ = bench.undisturbed("digits")
    run = shutil.copytree(source, bench.folder / f"run_{number}")
    words = {"sampling": ["count=2000", "images=true"], "measuring": [*COPIES]}[name]
    command, function = {"sampling": ("sample", write_samples), "measuring": ("evaluate", evaluate_runs)}[name]

    def work() -> None:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        function(composition.plain(composition.compose([f"run={run}", *words, "device=cpu"], command)))
        os._exit(0)

    def begin() -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        return process

    results, hits = [], 0
    begun = time.monotonic()
    begin().join()
    seconds = time.monotonic() - begun
    for _ in range(2):
        results.append({path: content for path, content in tree(run).items() if not path.endswith("log.txt")})
        hits += bench.kill(begin(), seconds)
        again = begin()
        again.join()
        assert again.exitcode == 0
    assert results[0] == results[1], "it gives something else"
    refuse_leftovers(run)
    shutil.rmtree(run)
    return hits


def refuse_leftovers(run: Path) -> None:
    strays = [str(file) for file in run.rglob(".*") if file.name != ".lock"]
    assert not strays, f"left behind: {strays}"
    assert is_run(run)


def kill(kills: int, seed: int, names: list[str]) -> list[str]:
    """Kills until so many have hit, prints a table, and returns what was lost."""
    hits, trials, faults = Counter[str](), Counter[str](), list[str]()
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    with tempfile.TemporaryDirectory() as folder:
        bench, number = Bench(Path(folder), random.Random(seed)), 0
        while hits.total() < kills:
            name = names[number % len(names)]
            try:
                hits[name] += (kill_a_command if name in COMMANDS else kill_a_run)(bench, name, number)
            except AssertionError as error:
                faults.append(f"{name}, trial {number} of seed {seed}: {str(error) or 'another end'}")
            trials[name] += 1
            number += 1
    print(f"{'run':14} {'trials':>6} {'kills':>6} {'faults':>6}")
    for name in names:
        print(f"{name:14} {trials[name]:6} {hits[name]:6} {sum(fault.startswith(f'{name},') for fault in faults):6}")
    print(*faults, sep="\n")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", nargs="+", choices=[*RUNS, *COMMANDS], default=[*RUNS, *COMMANDS])
    arguments = parser.parse_args()
    sys.exit(bool(kill(arguments.kills, arguments.seed, arguments.runs)))


if __name__ == "__main__":
    main()
