"""What a metric is, and the samples it looks at."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import PositiveInt
from torch import Tensor

from gan_runner.datasets import ArrayDataset, Dataset

Goal = Literal["min", "max"]
Goals = Mapping[str, Goal | None]  # by figure; None: neither way is better
Need = Literal["features", "classes"]  # of an extractor


class Extractor(Protocol):
    """A trained network that tells what is in an image."""

    name: str  # "digits", "inception"
    hash: str  # SHA-256 (hex) of its weights
    features: int  # how many numbers it makes of an image
    classes: int  # how many it tells apart, 0: none

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (N, C, H, W) in [0, 1] (CPU) -> features (N, F) float32, and predicted classes (N,) int64 or None."""


class Stored:
    """Rows of a dataset that stay in it until they are asked for: of a tensor (N, *shape), what metrics need."""

    def __init__(self, dataset: ArrayDataset, indices: Tensor, in_data_units: Callable[[Tensor], Tensor]) -> None:
        self._dataset, self._indices, self._in_data_units = dataset, indices, in_data_units
        self.shape = (len(indices), *dataset.shape)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, chosen: slice | Tensor) -> Tensor:
        """The rows of a slice, or of indices (B,)."""
        return self._in_data_units(self._dataset[self._indices[chosen]][0].cpu())

    def part(self, chosen: slice) -> "Stored":
        """The rows of a slice, still in the dataset."""
        return Stored(self._dataset, self._indices[chosen], self._in_data_units)


Rows = Tensor | Stored
Look = Callable[[Any], tuple[Tensor, Tensor | None]]  # an `Extractor`, or what takes `Stored` images to it in parts


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples, generated or real, and what an extractor sees in them, which is computed once, when first asked for.

    ValueError where a value of a tensor is not finite.
    """

    rows: Rows  # (N, *shape) float32 on the CPU, in the data's own units: [0, 1] for images
    labels: Tensor | None = None  # (N,) int64: what was asked of the generator, or what the data says
    extractor: Look | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Tensor):
            return
        broken = int((~self.rows.isfinite()).flatten(1).any(dim=1).sum())
        if broken:
            raise ValueError(f"{broken} of {len(self)} samples are not finite")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: slice) -> "Samples":
        """The first of them, or another part, with the features that are already computed."""
        labels = None if self.labels is None else self.labels[chosen]
        rows = self.rows.part(chosen) if isinstance(self.rows, Stored) else self.rows[chosen]
        part = Samples(rows, labels, self.extractor)
        if self.is_seen:
            features, predicted = self._extracted
            vars(part)["_extracted"] = features[chosen], None if predicted is None else predicted[chosen]
        return part

    @property
    def values(self) -> Tensor:
        """All rows at once, which may be more than fit into memory where they are `Stored`."""
        return self.rows[:]

    @cached_property
    def _extracted(self) -> tuple[Tensor, Tensor | None]:
        if self.extractor is None:
            raise ValueError("these samples have no extractor")
        return self.extractor(self.rows)

    @property
    def is_seen(self) -> bool:
        """Whether the extractor has looked at them."""
        return "_extracted" in vars(self)

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

    needs: ClassVar[Need | None] = None
    against: ClassVar[Literal["all", "as many", "none"]] = "all"  # real samples it wants; none: it knows the truth

    def __init__(self, samples: PositiveInt) -> None:
        self.samples = samples

    @property
    @abstractmethod
    def goals(self) -> Goals:
        """What it returns, the main figure first, and which way is better: a class attribute."""

    def unfit(self, dataset: Dataset, conditional: bool) -> str | None:
        """Why it says nothing about a generator of this dataset, as the end of a sentence; None: it does."""
        if self.needs and len(dataset.shape) != 3:
            return f"looks at images, and those of {type(dataset).__name__} are none"
        return None

    def least(self, features: int) -> int:
        """How few samples, generated and real, it can do with, where the extractor finds so many features."""
        return 1

    def require_least(self, made: Samples, real: Samples) -> None:
        """ValueError where there are fewer."""
        least = self.least(made.features.shape[1] if self.needs == "features" else 0)
        if min(len(made), len(real)) < least:
            raise ValueError(
                f"needs at least {least} samples; there are {len(made)} generated and {len(real)} real ones"
            )

    @abstractmethod
    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        """The figures named in `goals`, of generated samples against real ones (the training data, or a part of it).

        ValueError where the samples are too few.
        """

    def picture(self, made: Samples, real: Samples, dataset: Dataset) -> np.ndarray | None:
        """A picture (H, W, 3) uint8 that shows what the figures say, or None."""
        return None
