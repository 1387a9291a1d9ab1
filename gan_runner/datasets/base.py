"""The two kinds of datasets: finite arrays, visited in epochs, and distributions, which give samples without end."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, FiniteFloat
from torch import Tensor

from gan_runner.datasets.clustering import MOST_CLUSTERS
from gan_runner.datasets.clustering import clusters as find_clusters
from gan_runner.errors import UserError
from gan_runner.randomness import rng

Folder = Annotated[str, Field(min_length=1)]  # not empty, as an unset shell variable would be
Range = tuple[FiniteFloat, FiniteFloat]
NumClusters = Annotated[int, Field(ge=2, le=MOST_CLUSTERS)]


_PIECE = 2**26  # values that are hashed at once
DESCRIPTIVE = ("class_names", "num_files", "remarks")  # attributes of a dataset that do not change its samples


def in_one_line(text: object) -> str:
    """Text in which line breaks, and whatever else would steer a terminal, are escaped: names come from the disk."""
    kept = "\u200c\u200d"  # join letters, and do nothing else
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in str(text))


def first(names: Sequence[str], count: int = 5) -> str:
    """The first of the names, in quotes, each in one line whatever is in it."""
    return ", ".join(map(repr, names[:count])) + (" …" if len(names) > count else "")


class Dataset(ABC):
    """Images (C, H, W) or vectors (D,) to train on, with labels unless `num_classes` is 0.

    `value_range` is the (lowest, highest) value that networks see, or None if values have no bounds. `skipped` names
    the files that could not be read, of `num_files` in all (0: unknown); `class_names` has a name for each class, its
    number if there is none. `remarks` are sentences about the data for the user.
    """

    classifier: str | None = None  # the extractor for these classes that ships with the package
    num_modes = 0  # how many modes the data have; 0: unknown
    independent_channels = False  # whether each channel is an image of its own
    cluster_sizes: tuple[int, ...] = ()  # how many images each class has, where the classes are clusters
    class_order: str | None = None  # how the classes got their numbers, where a run that goes on has to know

    def __init__(
        self,
        shape: Sequence[int],
        value_range: Sequence[float] | None = None,
        num_classes: int = 0,
        skipped: Sequence[str] = (),
        class_names: Sequence[str] = (),
        num_files: int = 0,
        remarks: Sequence[str] = (),
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
        if class_names and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class_names for {num_classes} classes")
        self.class_names = tuple(map(in_one_line, class_names or range(num_classes)))
        self.num_files = num_files
        self.remarks = list(remarks)

    @abstractmethod
    def batch(self, number: int, size: int, seed: int, part: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """A `part` (a rank's share) of global batch `number` = 0, 1, … in a run with this `seed`.

        Depends on its arguments alone. Returns float32 samples (B, *shape) in `value_range`, and their int64 labels
        (B,) or None.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content, wherever it is: the same on every machine."""

    def class_counts(self) -> list[int]:
        """How many samples each class has; empty if they are not known."""
        return []

    def held_out(self) -> "Dataset | None":
        """Data of the same kind that training never sees, or None if there are none."""
        return None

    def to(self, device: torch.device) -> None:  # noqa: B027 (a distribution has nothing to move)
        """Moves the data to `device`."""


class ArrayDataset(Dataset):
    """A finite dataset in memory (or memory-mapped). Each epoch has a new order and leaves out the last, partial batch.

    `data` is (N, *shape): uint8 images, whose 0…255 becomes `value_range` batch by batch, or float32 vectors, which are
    not changed. `labels` is (N,), integers below `num_classes`. `held_out` makes the data that training never sees.
    `samples=n` keeps n of them in memory, chosen at random by `samples_seed` alone. `clusters=k` divides uint8 images
    into k clusters, which become the classes in place of the labels.
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
        class_names: Sequence[str] = (),
        num_files: int = 0,
        remarks: Sequence[str] = (),
        samples: int | None = None,
        samples_seed: int = 0,
        clusters: int | None = None,
    ) -> None:
        super().__init__(data.shape[1:], value_range, num_classes, skipped, class_names, num_files, remarks)
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
        if samples is not None:
            self._keep_part(samples, samples_seed)
        if clusters is not None:
            self._cluster(clusters)
        self._held_out = held_out
        self._order: tuple[tuple[int, int, torch.device], Tensor] | None = None

    def __len__(self) -> int:
        return len(self._data)

    def _keep_part(self, samples: int, seed: int) -> None:
        count = len(self._data)
        if samples > count:
            raise UserError(f"dataset.samples is {samples}; allowed: at most {count}, all of the data")
        chosen = torch.randperm(count, generator=rng(seed, "part"))[:samples].sort().values
        self._data = self._data[chosen]
        self.remarks.append(f"{samples:,} of {count:,} are used, chosen at random by dataset.samples_seed={seed}")
        if self.labels is not None:
            had, self.labels = self.class_counts(), self.labels[chosen]
            counts = zip(self.class_names, had, self.class_counts(), strict=True)
            if lost := [name for name, before, now in counts if before and not now]:
                self.remarks.append(f"nothing of these classes is among them ({len(lost)}): {first(lost)}")

    def _cluster(self, count: int) -> None:
        if count > len(self):
            raise UserError(f"dataset.clusters is {count}; allowed: at most {len(self)}, one for each sample")
        if self._data.dtype != torch.uint8 or self._data.dim() != 4:
            raise ValueError(f"clusters are made of uint8 images (N, C, H, W), not of {self._data.dtype} {self.shape}")
        self.labels = find_clusters(self._data, count)
        self.num_classes, self.class_names = count, tuple(f"cluster {number}" for number in range(count))
        self.cluster_sizes = tuple(self.class_counts())

    def batch(self, number: int, size: int, seed: int, part: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        if size > len(self):
            raise UserError(f"trainer.batch_size is {size}; the dataset allows at most its {len(self)} samples")
        epoch, position = divmod(number, len(self) // size)
        return self[self.order(seed, epoch)[position * size : (position + 1) * size][part]]

    def __getitem__(self, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
        """The samples (B, *shape) at the indices `chosen` (B,), and their labels, in the form of `batch`."""
        samples = self._select(chosen)
        if samples.dtype == torch.uint8 and self.value_range is not None:
            low, high = self.value_range
            samples = samples.float().div_(255).mul_(high - low).add_(low)
        return samples, None if self.labels is None else self.labels[chosen]

    def fingerprint(self) -> str:
        facts = [str(self._data.dtype), list(self._data.shape), self.value_range, self.num_classes]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for tensor in (self._data, self.labels):
            if tensor is not None:
                content = tensor.cpu().reshape(-1).numpy()
                for start in range(0, len(content), _PIECE):  # between two of them a signal is answered
                    digest.update(content[start : start + _PIECE].data)
        return digest.hexdigest()

    def class_counts(self) -> list[int]:
        return [] if self.labels is None else self.labels.cpu().bincount(minlength=self.num_classes).tolist()

    def held_out(self) -> Dataset | None:
        return None if self._held_out is None else self._held_out()

    def to(self, device: torch.device) -> None:
        self._data = self._data.to(device)
        self.labels = None if self.labels is None else self.labels.to(device)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The indices (N,) of all samples, in their order in this epoch of a run with this `seed`."""
        key = (seed, epoch, self._data.device)
        if self._order is None or self._order[0] != key:
            self._order = (key, epoch_order(len(self), seed, epoch).to(self._data.device))
        return self._order[1]

    def _select(self, chosen: Tensor) -> Tensor:
        """The stored samples (B, *shape) at these indices (B,)."""
        return self._data.index_select(0, chosen)  # a tenth of the time of indexing


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The indices (count,) of all samples, in their order in this epoch."""
    return torch.randperm(count, generator=rng(seed, "order", epoch))


class Distribution(Dataset):
    """Samples without end. A subclass defines `draw`, and has its parameters (numbers, tensors) as attributes."""

    @abstractmethod
    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`count` float32 samples (count, *shape), and their int64 labels or None; random by `rng` alone."""

    def batch(self, number: int, size: int, seed: int, part: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """Draws the whole batch, so that a part does not depend on how many processes share it."""
        samples, labels = self.draw(size, rng(seed, "data", number))
        return samples[part], None if labels is None else labels[part]

    def held_out(self) -> Dataset:
        return self  # with another seed, its samples are fresh

    def fingerprint(self) -> str:
        parameters = {name: value for name, value in vars(self).items() if name not in DESCRIPTIVE}
        facts = json.dumps([type(self).__qualname__, parameters], sort_keys=True, default=lambda value: value.tolist())
        return hashlib.sha256(facts.encode()).hexdigest()
