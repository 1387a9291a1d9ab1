"""The input of the doctor's rules: facts about the run, and the rows of metrics.jsonl as columns."""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from gan_runner.config.schema import Config
from gan_runner.datasets import Dataset
from gan_runner.game import Game
from gan_runner.paths import CONF

EXAMINED = "health/dead_units_discriminator"  # a row has it if, and only if, the doctor examined the networks


@dataclass
class RuleContext:
    """The facts about a run that do not change while it trains."""

    config: Config
    generator: nn.Module
    discriminator: nn.Module
    game: Game
    learning_rates: Mapping[str, float]  # of the networks that are trained
    dataset: Dataset
    reference_losses: Mapping[str, float]  # when the discriminator cannot tell real from fake

    def __post_init__(self) -> None:
        assert self.config.doctor is not None
        self.limits = self.config.doctor
        self.trains_generator = "generator" in self.learning_rates
        self.samples_vary = self.trains_generator and self.config.architecture.latent.distribution != "constant"
        self._values = self.config.model_dump()
        self._fixed = [f"experiment={recipe}" for recipe in fixed_recipes(self.config.name)]

    def advice(self, *overrides: str) -> list[str]:
        """The fixed form of the recipe, if there is one, and those overrides that change the configuration."""
        return self._fixed + [override for override in overrides if self._changes_something(override)]

    def _changes_something(self, override: str) -> bool:
        key, _, value = override.partition("=")
        node: Any = self._values
        for part in key.split("."):
            if part not in node:
                return False
            node = node[part]
        return str(node).replace("'", "").lower() != value

    @property
    def stronger_penalty(self) -> str:
        """The override that adds a gradient penalty, or multiplies its weight by ten."""
        chosen = self.game.regularizers
        slopes = {name: r for name, r in chosen.items() if not r.paired}
        weights = (f"regularizer.{name}.weight={10 * r.weight or 1:.2g}" for name, r in slopes.items())
        return next(weights, f"regularizer=[{','.join([*chosen, 'r1'])}]" if chosen else "regularizer=r1")

    def lower_rate(self, network: str) -> str:
        """The override that divides a network's learning rate by ten."""
        return f"optimizer.{network}.lr={self.learning_rates[network] / 10:.2g}"


def fixed_recipes(name: str) -> list[str]:
    """The fixed form of the recipe `name`, if any: mnist_cnn_fixed of mnist_cnn, pattern_fixed of pattern_bce."""
    recipes = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    fixed = [f"{stem}_fixed" for stem in (name, name.rpartition("_")[0])] if name in recipes else []
    return [recipe for recipe in fixed if recipe in recipes and recipe != name]


class History:
    """The values of each tag in a run's rows after step `begin`, so far up to `step` of `steps`.

    Recent values are those from step `since` on.
    """

    def __init__(self, begin: int, steps: int) -> None:
        self.begin = self.since = self.step = begin
        self.steps = steps
        self._columns: dict[str, tuple[array[int], array[float]]] = defaultdict(lambda: (array("q"), array("d")))

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds the next row."""
        self.step = row["step"]
        if self.step > self.begin:
            for tag, value in row.items():
                steps, values = self._columns[tag]
                steps.append(self.step)
                values.append(value)

    def examined(self, count: int) -> Sequence[int]:
        """The steps of the last `count` examinations, or of all if there were fewer."""
        return self._columns[EXAMINED][0][-count:]

    def all_values(self, tag: str) -> Sequence[float]:
        """All values of a tag."""
        return self._columns[tag][1]

    def recent(self, tag: str) -> np.ndarray:
        """The recent values (N,) of a tag."""
        steps, values = self._columns[tag]
        return np.asarray(values[bisect_left(steps, self.since) :])

    def measured(self, metric: str) -> np.ndarray:
        """The recent values of a metric: at least two, to show a direction, or none. At a run's end one is enough."""
        recent, last = self.recent(f"metric/{metric}"), np.asarray(self.all_values(f"metric/{metric}")[-2:])
        values = recent if len(recent) > 1 else last
        return values if len(values) > 1 or self.step == self.steps else values[:0]
