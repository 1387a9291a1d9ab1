"""Metrics of data whose distribution is known."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, FiniteFloat, PositiveInt
from torch import Tensor

from gan_runner import pictures
from gan_runner.datasets import Dataset, Gaussian1D, GaussianMixture, Pattern
from gan_runner.metrics.base import Goals, Metric, Samples


class PatternError(Metric):
    """The share of values outside their range in generated patterns, and the mean distance of all values to it."""

    goals: ClassVar[Goals] = {"pattern_error": "min", "pattern_distance": "min"}
    against = "none"
    measures = Pattern
    and_not = "measures patterns, and {} is not one of them"

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        assert isinstance(dataset, Pattern)
        error, distance = pattern_error(fake.values, *dataset.bounds())
        return {"pattern_error": error, "pattern_distance": distance}


class JensenShannon(Metric):
    """The Jensen-Shannon divergence (nats, 0 to ln 2) between a histogram of generated numbers and the true density."""

    goals: ClassVar[Goals] = {"jsd": "min"}
    against = "none"
    measures = Gaussian1D
    and_not = "needs a known density of one number, and {} has none"

    def __init__(self, samples: PositiveInt, bins: PositiveInt) -> None:
        super().__init__(samples)
        self.bins = bins

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        """Bins reach to 6 standard deviations; two more are for all that is beyond."""
        assert isinstance(dataset, Gaussian1D)
        reach = 6 * dataset.std
        edges = torch.linspace(dataset.mean - reach, dataset.mean + reach, self.bins + 1, dtype=torch.float64)
        return {"jsd": jensen_shannon(*masses(fake.values.flatten(), dataset, edges))}


class ModeCoverage(Metric):
    """How many modes of a mixture of Gaussians are generated, and how precisely, evenly and widely.

    A sample has high quality if it is within `radius` standard deviations of the nearest mean, and a mode counts if it
    has such a sample (Lin et al., "PacGAN", 2018). `reverse_kl` is KL(generated ‖ uniform) in nats, where each sample
    belongs to its nearest mode (the code of PacGAN leaves out those of low quality).

    `spread` is the standard deviation per axis of a mode's high-quality samples about their own mean, divided by that
    of the true Gaussian cut at the same radius: 1 is right, 0 is a point. It is the mean over the modes with at least
    two such samples; `spread_min` and `spread_max` are the extremes. All are 0 if there is no such mode.
    """

    goals: ClassVar[Goals] = {
        "modes": "max",
        "high_quality": "max",
        "reverse_kl": "min",
        "spread": None,
        "spread_min": None,
        "spread_max": None,
    }
    against = "none"
    measures = GaussianMixture
    and_not = "counts the modes of a mixture of Gaussians, and {} is none"

    def __init__(self, samples: PositiveInt, radius: Annotated[FiniteFloat, Field(gt=0)]) -> None:
        super().__init__(samples)
        self.radius = radius

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        assert isinstance(dataset, GaussianMixture)
        mode, good = self._assign(fake.values, dataset)
        points, means = fake.values.double(), len(dataset.means)
        own = [points[good & (mode == k)] for k in range(means)]  # the high-quality samples of each mode
        whole = dataset.std * truncated_std(self.radius, points.shape[1])
        spreads = [float(x.var(dim=0).mean().sqrt()) / whole for x in own if len(x) > 1] or [0.0]
        return {
            "modes": float(sum(len(x) > 0 for x in own)),
            "high_quality": float(good.double().mean()),
            "reverse_kl": kl(torch.bincount(mode, minlength=means), torch.ones(means)),
            "spread": sum(spreads) / len(spreads),
            "spread_min": min(spreads),
            "spread_max": max(spreads),
        }

    def picture(self, fake: Samples, real: Samples, dataset: Dataset) -> np.ndarray:
        """The samples, and a circle of `radius` standard deviations around each mean."""
        assert isinstance(dataset, GaussianMixture)
        _, good = self._assign(fake.values, dataset)
        return pictures.modes(fake.values.numpy(), good.numpy(), dataset.means.numpy(), self.radius * dataset.std)

    def _assign(self, points: Tensor, dataset: GaussianMixture) -> tuple[Tensor, Tensor]:
        """The nearest mode of each point (N,), and whether it is within the radius (N,)."""
        distance, mode = torch.cdist(points.double(), dataset.means.double()).min(dim=1)
        return mode, distance <= self.radius * dataset.std


def pattern_error(samples: Tensor, low: Tensor, high: Tensor) -> tuple[float, float]:
    """The share of the values (N, D) outside [low, high], (D,) each, and the mean distance of all values to it."""
    distance = (low - samples).clamp_min(0) + (samples - high).clamp_min(0)  # (N, D), 0 inside
    return float((distance > 0).float().mean()), float(distance.mean())


def masses(numbers: Tensor, dataset: Gaussian1D, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of the data, and of `numbers` (N,), in each bin: (K + 2,) each, float64.

    Bins are between the rising `edges` (K + 1,); the first and the last bin are for what is below and above.
    """
    standard = (edges.double() - dataset.mean) / dataset.std
    below = torch.cat([torch.zeros(1), torch.special.ndtr(standard), torch.ones(1)])
    counts = torch.bincount(torch.bucketize(numbers.double(), edges.double()), minlength=len(edges) + 1)
    return below.diff(), counts / counts.sum().double()


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """JSD(p‖q) in nats, between 0 and ln 2, of two distributions (K,) over the same bins."""
    terms = [torch.xlogy(a, 2 * a / (p + q)).nan_to_num() for a in (p, q)]  # 0 if both are 0
    return float((terms[0] + terms[1]).sum() / 2)


def truncated_std(radius: float, dimensions: int) -> float:
    """The standard deviation per axis of a standard normal distribution cut to a ball: 0.9744 for radius 3 in 2-D.

    |x|² is χ² with D degrees of freedom, and E[|x|²; |x| ≤ r] = D·P(χ²(D + 2) ≤ r²).
    """
    half = torch.tensor([dimensions / 2 + 1, dimensions / 2], dtype=torch.float64)
    above, below = torch.special.gammainc(half, torch.full_like(half, radius**2 / 2))
    return float((above / below).sqrt())


def kl(p: Tensor, q: Tensor) -> float:
    """KL(p ‖ q) in nats of two histograms (K,) with any totals; infinite if some q is 0 and its p is not."""
    p, q = p.double() / p.sum(), q.double() / q.sum()
    some = p > 0
    return float((p[some] * (p[some] / q[some]).log()).sum())
