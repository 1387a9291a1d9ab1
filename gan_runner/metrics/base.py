"""The base class of metrics, and the samples that they compare."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import PositiveInt
from torch import Tensor

from gan_runner.datasets import ArrayDataset, DataFacts, Dataset

Goal = Literal["min", "max"]
Goals = Mapping[str, Goal | None]  # by figure; None: neither is better
Need = Literal["features", "classes"]  # from an extractor
Extracted = tuple[Tensor, Tensor | None]  # features (N, F) float32, and predicted classes (N,) int64 or None


class Extractor(Protocol):
    """A trained network that finds features, and perhaps classes, in images."""

    name: str  # "digits", "inception"
    hash: str  # SHA-256 (hex) of its weights
    features: int  # the length of a feature vector
    classes: int  # how many classes it knows, 0: none

    def __call__(self, images: Tensor) -> Extracted:
        """Features and classes of images (N, C, H, W) in [0, 1]; all are on the CPU."""


class LazyImages:
    """Images that are read from their dataset when indexed, because all of them may not fit into memory.

    Metrics use them like a tensor (N, C, H, W) in [0, 1].
    """

    def __init__(self, dataset: ArrayDataset, indices: Tensor) -> None:
        self._dataset, self._indices = dataset, indices
        self._facts = DataFacts.of(dataset)
        self.shape = (len(indices), *dataset.shape)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, chosen: slice | Tensor) -> Tensor:
        """Reads the images of a slice, or of indices (B,)."""
        return self._facts.in_data_units(self._dataset[self._indices[chosen]][0].cpu())

    def part(self, chosen: slice) -> "LazyImages":
        """The images of a slice, still in the dataset."""
        return LazyImages(self._dataset, self._indices[chosen])


@dataclass(frozen=True, eq=False)
class Samples:
    """Generated or real samples; raises `ValueError` if a value is not finite."""

    data: Tensor | LazyImages  # (N, *shape) float32 on the CPU, in the data's own units: [0, 1] for images
    labels: Tensor | None = None  # (N,) int64: asked of the generator, or of the data
    extracted: Extracted | None = None  # if a metric `needs` it

    def __post_init__(self) -> None:
        if isinstance(self.data, LazyImages) or self.data.sum().isfinite():  # the sum is finite only if all values are
            return
        if broken := int((~self.data.isfinite()).flatten(1).any(dim=1).sum()):
            raise ValueError(f"{broken} of {len(self)} samples are not finite")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, chosen: slice) -> "Samples":
        data = self.data.part(chosen) if isinstance(self.data, LazyImages) else self.data[chosen]
        labels = None if self.labels is None else self.labels[chosen]
        if self.extracted is None:
            return Samples(data, labels)
        features, predicted = self.extracted
        return Samples(data, labels, (features[chosen], None if predicted is None else predicted[chosen]))

    @property
    def values(self) -> Tensor:
        """All samples in one tensor."""
        return self.data[:]

    @property
    def features(self) -> Tensor:
        """(N, F) float32."""
        if self.extracted is None:
            raise ValueError("these samples have no features; a metric gets them where its `needs` says so")
        return self.extracted[0]

    @property
    def predicted(self) -> Tensor:
        """(N,) int64: the classes that the extractor predicts."""
        if self.extracted is None or self.extracted[1] is None:
            raise ValueError("these samples have no classes; a metric gets them where its `needs` says so")
        return self.extracted[1]


class Metric(ABC):
    """A metric; its `__init__` takes the keys of its YAML. `samples` is how many generated samples it gets."""

    needs: ClassVar[Need | None] = None
    # Which real samples it gets; none: it knows the true distribution.
    against: ClassVar[Literal["all", "as many", "none"]] = "all"
    seeks_copies: ClassVar[bool] = False  # in the training data, whichever real samples other metrics get
    measures: ClassVar[type] = Dataset
    and_not: ClassVar[str] = ""  # why it measures no other dataset, {}

    def __init__(self, samples: PositiveInt) -> None:
        self.samples = samples

    @property
    @abstractmethod
    def goals(self) -> Goals:
        """Its figures, the main one first, and whether small or large is better: a class attribute."""

    def why_not_applicable(self, dataset: Dataset, conditional: bool) -> str | None:
        """Why it cannot measure a generator of this dataset, as the end of a sentence, or None."""
        if not isinstance(dataset, self.measures):
            return self.and_not.format(type(dataset).__name__)
        if self.needs and len(dataset.shape) != 3:
            return f"looks at images, and those of {type(dataset).__name__} are none"
        return None

    def min_samples(self, features: int) -> int:
        """How many generated and real samples it needs, if the extractor's feature vectors have this length."""
        return 1

    def real_count(self, available: int) -> int:
        """How many of the available real samples it gets, by `against`."""
        return {"all": available, "as many": min(self.samples, available), "none": 0}[self.against]

    def require_enough(self, fake: Samples, real: Samples) -> None:
        """Raises `ValueError` if there are fewer than `min_samples`."""
        needed = self.min_samples(fake.features.shape[1] if self.needs == "features" else 0)
        if min(len(fake), len(real)) < needed:
            have = f"there are {len(fake)} generated and {len(real)} real ones"
            raise ValueError(f"needs at least {needed} samples; {have}")

    @abstractmethod
    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        """The figures named in `goals`, from generated samples and real ones.

        Raises `ValueError` if there are too few samples.
        """

    def picture(self, fake: Samples, real: Samples, dataset: Dataset) -> np.ndarray | None:
        """A picture (H, W, 3) uint8 that shows what the figures say, or None."""
        return None
