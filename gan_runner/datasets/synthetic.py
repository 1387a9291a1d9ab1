"""Data whose distribution is known, so that one can see exactly what a generator has learned."""

import math
from functools import partial
from typing import Annotated

import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from gan_runner.datasets.base import ArrayDataset, Distribution, Range
from gan_runner.errors import UserError
from gan_runner.randomness import derive, rng

Positive = Annotated[FiniteFloat, Field(gt=0)]


class Pattern(Distribution):
    """Vectors (length,) whose values are high, low, high, …, each uniform in its range.

    Source: T. Rashid, "Make Your First GAN With PyTorch" (2020), the 1010 pattern. Raises `UserError` unless every low
    value is below every high one.
    """

    def __init__(self, length: PositiveInt, high: Range, low: Range) -> None:
        if not low[0] <= low[1] < high[0] <= high[1]:
            raise UserError(
                f"dataset.low is {list(low)} and dataset.high is {list(high)}; "
                "each must be [lowest, highest], and all of low below all of high"
            )
        super().__init__((length,), (low[0], high[1]))
        ranges = torch.tensor([high, low])[torch.arange(length) % 2]  # (length, 2)
        self._lowest, self._highest = ranges.unbind(1)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest value at each position, both (length,)."""
        return self._lowest, self._highest

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, None]:
        uniform = torch.rand(count, *self.shape, generator=rng)
        return self._lowest + (self._highest - self._lowest) * uniform, None


class Gaussian1D(Distribution):
    """Numbers, as vectors (1,), with density N(mean, std²)."""

    def __init__(self, mean: FiniteFloat, std: Positive) -> None:
        super().__init__((1,))
        self.mean = float(mean)
        self.std = float(std)

    def density(self, x: Tensor) -> Tensor:
        """The probability density at each x, in the shape of x."""
        return torch.exp(-0.5 * ((x - self.mean) / self.std) ** 2) / (self.std * math.sqrt(2 * math.pi))

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, None]:
        return self.mean + self.std * torch.randn(count, 1, generator=rng), None


class GaussianMixture(ArrayDataset):
    """Points (2,) from a mixture of the Gaussians N(means[k], std² I) with equal weights; `means` is (K, 2).

    `size` points are drawn once, by `data_seed`, so that the run's seed does not change its data.
    """

    def __init__(self, means: Tensor, std: float, size: int, data_seed: int) -> None:
        self.means, self.std, self.num_modes = means, std, len(means)
        fresh = partial(GaussianMixture, means, std, size, derive(data_seed, "held out"))
        super().__init__(self.draw(size, rng(data_seed, "points")), held_out=fresh)

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """`count` new points (count, 2), random by `rng` alone."""
        modes = torch.randint(len(self.means), (count,), generator=rng)
        return self.means[modes] + self.std * torch.randn(count, 2, generator=rng)


class Ring(GaussianMixture):
    """A mixture of Gaussians, evenly spaced on a circle around the origin."""

    def __init__(
        self, *, modes: PositiveInt, radius: Positive, std: Positive, size: PositiveInt, data_seed: NonNegativeInt
    ) -> None:
        angles = torch.arange(modes) * (2 * math.pi / modes)
        super().__init__(radius * torch.stack([angles.cos(), angles.sin()], dim=1), std, size, data_seed)


class Grid(GaussianMixture):
    """A mixture of side × side Gaussians on a square grid around the origin, `spacing` apart."""

    def __init__(
        self, *, side: PositiveInt, spacing: Positive, std: Positive, size: PositiveInt, data_seed: NonNegativeInt
    ) -> None:
        positions = spacing * (torch.arange(side) - (side - 1) / 2)
        super().__init__(torch.cartesian_prod(positions, positions), std, size, data_seed)
