"""Metrics of the tests' own, as a user would write them."""

import math

from pydantic import PositiveInt

from gan_runner.datasets import Dataset
from gan_runner.metrics import Metric, Samples


class Mean(Metric):
    """How far the mean of all values is from the data's."""

    goals = {"mean_gap": "min", "mean": None}  # noqa: RUF012

    def __init__(self, samples: PositiveInt) -> None:
        self.samples = samples

    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        mean = float(made.values.mean())
        return {"mean_gap": abs(mean - float(real.values.mean())), "mean": mean}


class Goalless(Metric):
    """A metric that does not say what it returns."""

    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        return {}


class Undefined(Mean):
    """A figure that these samples leave undefined."""

    goals = {"undefined": "max"}  # noqa: RUF012

    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        return {"undefined": math.nan}


class Broken(Mean):
    """A metric with a mistake in it."""

    goals = {"broken": "max"}  # noqa: RUF012

    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        raise ZeroDivisionError("no such luck")
