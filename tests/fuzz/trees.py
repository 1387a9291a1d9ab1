"""Trees of image files by number: names, links, modes, sizes, formats, damage and layouts of every kind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.case import COMPLETED, REFUSED, Case
from tests.fuzz.layouts import LAYOUTS, LIST
from tests.fuzz.oddities import ODDITIES
from tests.fuzz.planting import Planting, Truth
from tests.fuzz.zips import ODD_ZIPS

KIND = "trees"
PROCESS_EVERY = 50  # so many cases in a fork for one in a process of its own


@dataclass(frozen=True)
class TreeCase(Case):
    """A training on a tree."""

    truth: Truth = field(default_factory=Truth, compare=False)
    channels: int = 3


def make(number: int) -> TreeCase:
    """Case `number`: a function of the number alone."""
    rng = Random(f"{KIND}-{number}")
    planting, layout = Planting(rng), rng.choices([*LAYOUTS], [*LAYOUTS.values()])[0]
    layout(planting)
    listed = _images(planting.truth) if LIST in planting.files else None
    build: Callable[[Path], None] = planting.write
    about = [layout.__name__]
    if rng.random() < 0.25 and not planting.steps:
        odd_zip = rng.choice(ODD_ZIPS)
        build, root = odd_zip(planting), "tree.zip"
        about.append(odd_zip.__name__)
    else:
        root = "tree"
        for oddity in rng.sample(ODDITIES, rng.choice([0, 0, 1, 1, 2])):
            oddity(planting)
            about.append(oddity.__name__)
    truth, channels = planting.truth, rng.choice([3, 3, 1])
    truth.unsure |= listed not in (None, _images(truth))  # there are images without a label
    return TreeCase(
        KIND,
        number,
        "train",
        _words(root, channels, truth, rng),
        ", ".join(about).replace("_", " ").strip(),
        _statuses(truth),
        may_write=("made",),
        as_process=number % PROCESS_EVERY == PROCESS_EVERY - 1,
        build=build,
        truth=truth,
        channels=channels,
    )


def _images(truth: Truth) -> int:
    return len(truth.used) + len(truth.unusable)


def _words(root: str, channels: int, truth: Truth, rng: Random) -> tuple[str, ...]:
    conditional = truth.classes is not None and rng.random() < 0.5
    return (
        "dataset=images",
        f"dataset.root={root}",
        "dataset.size=8",
        f"dataset.channels={channels}",
        f"architecture={'mlp_conditional' if conditional else 'linear_1d'}",
        "architecture.generator.hidden=[2]",
        "architecture.discriminator.hidden=[2]",
        "trainer.steps=1",
        "trainer.batch_size=2",
        "metric=[]",
        "doctor=none",
        "device=cpu",
        "hydra.run.dir=made",
    )


def _statuses(truth: Truth) -> frozenset[int]:
    if truth.refused or (len(truth.used) < 2 and not truth.unsure):
        return frozenset({REFUSED})
    return frozenset({COMPLETED, REFUSED} if truth.unsure else {COMPLETED})
