"""Distributions of known form, to see exactly what a generator has learned."""

import math
from typing import Annotated

import torch
from pydantic import Field, FiniteFloat, PositiveInt
from torch import Tensor

from gan_runner.datasets.base import ArrayDataset, Distribution, Range
from gan_runner.errors import UserError


class Pattern(Distribution):
    """Vectors (length,) of high and low values in turn, starting high, each uniform in its range.

    Source: T. Rashid, "Make Your First GAN With PyTorch" (2020), the 1010 pattern. UserError unless every low value
    is below every high one.
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
        """`count` patterns (count, length)."""
        uniform = torch.rand(count, *self.shape, generator=rng)
        return self._lowest + (self._highest - self._lowest) * uniform, None


class Gaussian1D(Distribution):
    """Numbers, as vectors (1,), with density N(mean, std²)."""

    def __init__(self, mean: FiniteFloat, std: Annotated[FiniteFloat, Field(gt=0)]) -> None:
        super().__init__((1,))
        self.mean = float(mean)
        self.std = float(std)

    def density(self, x: Tensor) -> Tensor:
        """The probability density at each x, of x's shape."""
        return torch.exp(-0.5 * ((x - self.mean) / self.std) ** 2) / (self.std * math.sqrt(2 * math.pi))

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, None]:
        """`count` numbers (count, 1)."""
        return self.mean + self.std * torch.randn(count, 1, generator=rng), None


class GaussianMixture(ArrayDataset):
    """Points (2,) of a mixture, in equal parts, of the Gaussians N(means[k], std² I); `means` is (K, 2)."""

    means: Tensor
    std: float
