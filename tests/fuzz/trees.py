"""Trees of image files by number: names, links, modes, sizes, formats, damage and layouts of every kind."""

from dataclasses import dataclass, field
from random import Random

from tests.fuzz.case import COMPLETED, REFUSED, Case
from tests.fuzz.layouts import LAYOUTS
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
    planting = Planting(rng)
    layout = rng.choices([*LAYOUTS], [*LAYOUTS.values()])[0]
    layout(planting)
    in_zip = rng.random() < 0.25 and not planting.steps
    extra = [] if in_zip else rng.sample([*ODDITIES], rng.choice([0, 0, 1, 1, 2]))
    for oddity in extra:
        oddity(planting)
    odd_zip = rng.choice([*ODD_ZIPS]) if in_zip else None
    truth, channels = planting.truth, rng.choice([3, 3, 1])
    conditional = truth.classes is not None and rng.random() < 0.5
    words = ["dataset=images", f"dataset.root={'tree.zip' if in_zip else 'tree'}", "dataset.size=8", "trainer.steps=1"]
    words += [f"dataset.channels={channels}", "trainer.batch_size=2", "metric=[]", "doctor=none", "device=cpu"]
    words += ["architecture=mlp_conditional" if conditional else "architecture=linear_1d", "hydra.run.dir=made"]
    words += ["architecture.generator.hidden=[2]", "architecture.discriminator.hidden=[2]"]
    build = planting.write if odd_zip is None else odd_zip(planting)
    about = [layout.__name__, *(oddity.__name__ for oddity in extra), *([odd_zip.__name__] if odd_zip else [])]
    statuses = {REFUSED} if truth.refused or len(truth.used) < 2 else {COMPLETED}
    if truth.unsure:
        statuses = {COMPLETED, REFUSED}
    return TreeCase(
        KIND,
        number,
        "train",
        tuple(words),
        ", ".join(about).replace("_", " ").strip(),
        frozenset(statuses),
        may_write=("made",),
        as_process=number % PROCESS_EVERY == PROCESS_EVERY - 1,
        build=build,
        truth=truth,
        channels=channels,
    )
