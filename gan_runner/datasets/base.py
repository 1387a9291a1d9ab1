"""The two kinds of data: finite arrays, held as they are and visited in epochs, and distributions, drawn endlessly."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat
from torch import Tensor

from gan_runner.errors import UserError
from gan_runner.randomness import rng


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# Not empty, as an unset variable is, and perhaps what looks like a number.
Folder = Annotated[str, Field(min_length=1), BeforeValidator(_number_as_text)]
Range = tuple[FiniteFloat, FiniteFloat]


class Dataset(ABC):
    """What a GAN is trained on: images (C, H, W) or vectors (D,), with labels where `num_classes` is not 0.

    `value_range` is the (lowest, highest) value that networks see, None where there is no bound, and `skipped` names
    the files that could not be read.
    """

    classifier: str | None = None  # the name of the extractor that ships with the package and knows these classes
    num_modes = 0  # how many modes the data are known to have, 0: unknown
    independent_channels = False  # whether each channel is an image of its own, to be looked at by itself

    def __init__(
        self,
        shape: Sequence[int],
        value_range: Sequence[float] | None = None,
        num_classes: int = 0,
        skipped: Sequence[str] = (),
    ) -> None:
        self.shape: tuple[int, ...] = tuple(shape)
        self.value_range: tuple[float, float] | None = None
        if value_range is not None:
            low, high = map(float, value_range)
            if not low < high:
                raise UserError(f"dataset.value_range is [{low}, {high}]; the first must be below the second")
            self.value_range = (low, high)
        self.num_classes = num_classes
        self.skipped = list(skipped)

    @abstractmethod
    def batch(self, number: int, size: int, seed: int, part: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """The samples `part` (a rank's share) of global batch `number` = 0, 1, … of the run with this `seed`.

        A function of its arguments alone. Returns float32 samples (B, *shape) in `value_range`, and their int64
        labels (B,) or None.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content, not of where it lies: the same on every machine."""

    def held_out(self) -> "Dataset | None":
        """Data of the same kind that training never sees, or None where there is none."""
        return None

    def to(self, device: torch.device) -> None:  # noqa: B027 (most need do nothing)
        """Hold the data on `device`, where this dataset holds any."""


class ArrayDataset(Dataset):
    """A finite dataset in memory (or memory-mapped): every epoch visits it in a new order, without the remainder.

    `data` is (N, *shape): uint8 images, whose 0…255 becomes `value_range` batch by batch, or float32 vectors, taken as
    they are. `labels` is (N,), integers below `num_classes`. `held_out` makes the data that training never sees.
    """

    def __init__(
        self,
        data: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | None = None,
        *,
        value_range: Sequence[float] | None = None,
        num_classes: int = 0,
        skipped: Sequence[str] = (),
        held_out: Callable[[], Dataset] | None = None,
    ) -> None:
        super().__init__(data.shape[1:], value_range, num_classes, skipped)
        self._data = torch.as_tensor(data)
        self.labels = None if labels is None else torch.as_tensor(labels).long()
        if self._data.dtype != torch.uint8:
            self._data = self._data.float()
        elif value_range is None:
            raise ValueError("uint8 data need a value_range")
        if self.labels is not None and len(self.labels) != len(self._data):
            raise ValueError(f"{len(self.labels)} labels for {len(self._data)} samples")
        if self.labels is not None and ((self.labels < 0) | (self.labels >= num_classes)).any():
            raise ValueError(f"every label must be in 0…num_classes - 1, and num_classes is {num_classes}")
        self._held_out = held_out
        self._order: tuple[tuple[int, int, torch.device], Tensor] | None = None

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, number: int, size: int, seed: int, part: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """As the base class says; UserError where a batch is larger than the dataset."""
        if size > len(self):
            raise UserError(f"trainer.batch_size is {size}; the dataset allows at most its {len(self)} samples")
        epoch, position = divmod(number, len(self) // size)
        return self[self.order(seed, epoch)[position * size : (position + 1) * size][part]]

    def __getitem__(self, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
        """The samples (B, *shape) with the indices `chosen` (B,) and their labels, as `batch` gives them."""
        samples = self._take(chosen)
        if samples.dtype == torch.uint8 and self.value_range is not None:
            low, high = self.value_range
            samples = samples.float().div_(255).mul_(high - low).add_(low)
        return samples, None if self.labels is None else self.labels[chosen]

    def fingerprint(self) -> str:
        """SHA-256 (hex) of samples, labels and what is done to them."""
        facts = [str(self._data.dtype), list(self._data.shape), self.value_range, self.num_classes]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for tensor in (self._data, self.labels):
            if tensor is not None:
                digest.update(tensor.cpu().reshape(-1).numpy().data)
        return digest.hexdigest()

    def held_out(self) -> Dataset | None:
        """Made anew at each call."""
        return None if self._held_out is None else self._held_out()

    def to(self, device: torch.device) -> None:
        """Hold samples and labels on `device`; batches are made there from now on."""
        self._data = self._data.to(device)
        self.labels = None if self.labels is None else self.labels.to(device)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The indices (N,) of all samples, in the order of that epoch of the run with this `seed`."""
        key = (seed, epoch, self._data.device)
        if self._order is None or self._order[0] != key:
            self._order = (key, epoch_order(len(self), seed, epoch).to(self._data.device))
        return self._order[1]

    def _take(self, chosen: Tensor) -> Tensor:
        """The samples of these indices (B,), as they are held, (B, *shape)."""
        return self._data[chosen]


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The indices (count,) of all samples in the order of that epoch."""
    return torch.randperm(count, generator=rng(seed, "order", epoch))


class Distribution(Dataset):
    """Samples without end. A subclass gives `draw`, and keeps its parameters (numbers, tensors) as attributes."""

    @abstractmethod
    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`count` float32 samples (count, *shape) and their int64 labels or None, with no randomness but `rng`'s."""

    def batch(self, number: int, size: int, seed: int, part: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """As the base class says: all of the batch is drawn, so that its parts do not depend on their number."""
        samples, labels = self.draw(size, rng(seed, "data", number))
        return samples[part], None if labels is None else labels[part]

    def held_out(self) -> Dataset:
        """Itself: under another seed than the run's, its samples are fresh."""
        return self

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the class's name and its attributes."""
        facts = json.dumps([type(self).__qualname__, vars(self)], sort_keys=True, default=lambda value: value.tolist())
        return hashlib.sha256(facts.encode()).hexdigest()


class DataFacts(BaseModel):
    """What networks must know of the data; kept in manifest.json, so that sampling needs no dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[int, ...]  # (C, H, W) for images, (D,) for vectors
    value_range: tuple[float, float] | None  # of the values that the networks see; None: unbounded
    num_classes: int  # 0: unlabelled

    @classmethod
    def of(cls, dataset: Dataset) -> "DataFacts":
        """The facts of a dataset."""
        return cls(shape=dataset.shape, value_range=dataset.value_range, num_classes=dataset.num_classes)

    @property
    def is_image(self) -> bool:
        """Whether samples are (C, H, W) with one or three channels."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    def in_data_units(self, samples: Tensor) -> Tensor:
        """Samples as the data's owner knows them: images in [0, 1] whatever the networks use, vectors as they are."""
        if not self.is_image or self.value_range is None:
            return samples.float()
        low, high = self.value_range
        return ((samples.float() - low) / (high - low)).clamp(0, 1)
