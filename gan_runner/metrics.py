"""Measures of generated samples: each class is one choice of the group `metric`, above the pure functions it rests on.

A metric is a function of samples alone, so that what a perfect sampler would score at the same N is the same function
of data that training never saw.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets import Dataset

Goal = Literal["min", "max"]


class Extractor(Protocol):
    """A trained network that tells what is in an image."""

    name: str  # "digits", "inception"
    hash: str  # SHA-256 (hex) of its weights
    classes: int  # how many it tells apart, 0: none

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (N, C, H, W) in [0, 1] on the CPU -> features (N, F) float32 and predicted classes (N,) int64 or None."""


@dataclass(frozen=True)
class Samples:
    """Samples, generated or real, and what an extractor sees in them, which is computed once, when first asked for."""

    values: Tensor  # (N, *shape) float32 on the CPU, in the data's own units: [0, 1] for images
    labels: Tensor | None = None  # (N,) int64: what was asked of the generator, or what the data says
    extractor: Extractor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: slice) -> "Samples": ...

    @cached_property
    def _extracted(self) -> tuple[Tensor, Tensor | None]:
        if self.extractor is None:
            raise ValueError("these samples have no extractor")
        return self.extractor(self.values)

    @property
    def features(self) -> Tensor:
        """(N, F) float32."""
        return self._extracted[0]

    @property
    def predicted(self) -> Tensor:
        """(N,) int64: the class that the extractor sees."""
        classes = self._extracted[1]
        assert classes is not None
        return classes


class Metric(ABC):
    """One measure; its `__init__` takes the keys of its YAML. `samples` is N, how many generated samples it wants."""

    samples: int
    goals: ClassVar[Mapping[str, Goal | None]]  # what it returns, the main figure first, and which way is better
    needs: ClassVar[Literal["features", "classes"] | None] = None  # what it asks of an extractor

    def unfit(self, dataset: Dataset, conditional: bool) -> str | None:
        """Why it says nothing about a generator of this dataset, as the end of a sentence; None: it does."""
        return None

    @abstractmethod
    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        """The figures named in `goals`, of generated samples against real ones (the training data, or a part of it)."""

    def picture(self, made: Samples, real: Samples, dataset: Dataset) -> np.ndarray | None:
        """A picture (H, W, 3) uint8 that shows what the figures say, or None."""
        return None


def pattern_error(samples: Tensor, low: Tensor, high: Tensor) -> tuple[float, float]:
    """The share of values outside [low, high], and the mean distance of all values to it.

    `samples` (N, D), `low` and `high` (D,).
    """
    distance = (low - samples).clamp_min(0) + (samples - high).clamp_min(0)  # (N, D), 0 inside
    return float((distance > 0).float().mean()), float(distance.mean())


def histogram_density(samples: Tensor, edges: Tensor) -> Tensor:
    """The density of `samples` (N,) in the bins between equally spaced `edges` (K + 1,), (K,)."""
    counts = torch.histc(samples.double(), len(edges) - 1, float(edges[0]), float(edges[-1]))
    return counts / counts.sum() / (edges[1] - edges[0])


def jensen_shannon(p: Tensor, q: Tensor, width: float) -> float:
    """JSD(p‖q) in nats of two densities on bins of one width, by the midpoint rule; between 0 and ln 2."""
    middle = (p + q) / 2
    return float((torch.xlogy(p, p / middle).nan_to_num() + torch.xlogy(q, q / middle).nan_to_num()).sum() * width / 2)
