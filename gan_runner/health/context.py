"""What the doctor's rules are given: the facts about a run, and its rows of metrics.jsonl as columns."""

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
from gan_runner.losses import Loss
from gan_runner.paths import CONF
from gan_runner.regularizers import Regularizer

EXAMINED = "health/dead_units_discriminator"  # in exactly the rows in which the doctor examined the networks


@dataclass
class RuleContext:
    """The facts about a run that do not change while it trains."""

    config: Config
    generator: nn.Module
    discriminator: nn.Module
    loss: Loss
    regularizers: Mapping[str, Regularizer]
    learning_rates: Mapping[str, float]  # by network, of those that are trained
    dataset: Dataset
    reference_losses: Mapping[str, float]  # of a discriminator that cannot tell real from fake

    def __post_init__(self) -> None:
        assert self.config.doctor is not None
        self.limits = self.config.doctor
        self.trains_generator = "generator" in self.learning_rates
        self.samples_vary = self.trains_generator and self.config.architecture.latent.distribution != "constant"
        self._values = self.config.model_dump()
        self._repaired = [f"experiment={twin}" for twin in repaired_twins(self.config.name)]

    def advice(self, *overrides: str) -> list[str]:
        """The overrides of keys that exist and have another value, after the recipe's repaired twin if it has one."""
        return self._repaired + [override for override in overrides if self._changes_something(override)]

    def _changes_something(self, override: str) -> bool:
        key, _, value = override.partition("=")
        node: Any = self._values
        for part in key.split("."):
            if part not in node:
                return False
            node = node[part]
        return str(node).replace("'", "").lower() != value

    @property
    def smoother(self) -> str:
        """The override that penalizes the discriminator's slope, or does so ten times as much."""
        weights = (f"regularizer.{name}.weight={10 * r.weight or 1:.2g}" for name, r in self.regularizers.items())
        return next(weights, "regularizer=r1")

    def slower(self, network: str) -> str:
        """The override that divides a network's learning rate by ten."""
        return f"optimizer.{network}.lr={self.learning_rates[network] / 10:.2g}"


def repaired_twins(name: str) -> list[str]:
    """The repaired recipes of a run named after one: mnist_cnn_fixed of mnist_cnn, pattern_fixed of pattern_bce."""
    recipes = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    twins = [f"{stem}_fixed" for stem in (name, name.rpartition("_")[0])] if name in recipes else []
    return [twin for twin in twins if twin in recipes and twin != name]


class History:
    """The values of each tag in a run's rows after step `begin`, up to `step` of `steps`; each row is read once.

    Recent values are those from step `since` on.
    """

    def __init__(self, begin: int, steps: int) -> None:
        self.begin = self.since = self.step = begin
        self.steps = steps
        self._columns: dict[str, tuple[array[int], array[float]]] = defaultdict(lambda: (array("q"), array("d")))

    def append(self, row: Mapping[str, Any]) -> None:
        """Takes in the next row."""
        self.step = row["step"]
        if self.step > self.begin:
            for tag, value in row.items():
                steps, values = self._columns[tag]
                steps.append(self.step)
                values.append(value)

    def examined(self, count: int) -> Sequence[int]:
        """The steps of the last `count` examinations, of fewer where there are not as many."""
        return self._columns[EXAMINED][0][-count:]

    def whole(self, tag: str) -> Sequence[float]:
        """All values of a tag."""
        return self._columns[tag][1]

    def recent(self, tag: str) -> np.ndarray:
        """The values (N,) of a tag from step `since` on."""
        steps, values = self._columns[tag]
        return np.asarray(values[bisect_left(steps, self.since) :])

    def measured(self, metric: str) -> np.ndarray:
        """The recent values of a metric, at least two unless the run has ended: one does not tell where it is going."""
        recent, last = self.recent(f"metric/{metric}"), np.asarray(self.whole(f"metric/{metric}")[-2:])
        values = recent if len(recent) > 1 else last
        return values if len(values) > 1 or self.step == self.steps else values[:0]
