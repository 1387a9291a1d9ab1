"""MNIST, Fashion-MNIST and Stacked MNIST from their IDX files."""

import hashlib
import math
import os
import tempfile
import zlib
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from gan_runner.datasets.base import ArrayDataset, Folder, NumClusters, Range
from gan_runner.errors import UserError
from gan_runner.paths import as_path
from gan_runner.randomness import rng

TORCHVISION_CLASS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
CLASS_NAMES = {  # by number; a digit is its own name
    "mnist": (),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
FIRST_LABELS = {  # by split; the files of both have the same names and sizes
    "mnist": {"train": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), "test": (7, 2, 1, 0, 4, 1, 4, 9, 5, 9)},
    "fashion_mnist": {"train": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5), "test": (9, 2, 1, 1, 6, 1, 4, 6, 5, 7)},
}
_MOST_BYTES = 2**30  # that a gzipped file unpacks to: twenty times what the digits take
FILE_PREFIX = {"train": "train", "test": "t10k"}


class MNIST(ArrayDataset):
    """Digits or fashion: grey images (1, 28, 28), or resized, in ten classes, 60,000 to train and 10,000 to test.

    The IDX files, gzipped or not, are in `root` or where torchvision puts them; if they are missing, `download` fetches
    them through torchvision. Raises `UserError` if they are missing or damaged, contradict each other, or are those of
    the other variant.
    """

    def __init__(
        self,
        *,
        variant: Literal["mnist", "fashion_mnist"],
        root: Folder,
        download: bool,
        split: Literal["train", "test"],
        value_range: Range,
        size: Annotated[int, Field(ge=4)] | None = None,  # runs of earlier versions lack this key, and the next three
        samples: PositiveInt | None = None,
        samples_seed: NonNegativeInt = 0,
        clusters: NumClusters | None = None,
    ) -> None:
        folder = as_path("dataset.root", root)
        raw = folder / TORCHVISION_CLASS[variant] / "raw"
        if download and not all(_find(split, folder, raw).values()):
            _download(variant, folder, raw)
        files = _find(split, folder, raw)
        images_file, labels_file = files.values()
        if images_file is None or labels_file is None:
            missing = " and ".join(name for name, file in files.items() if file is None)
            raise UserError(
                f"dataset.root: {missing} not found; put them, gzipped or not, in '{folder}' or '{raw}', "
                "or fetch them with dataset.download=true"
            )

        images, labels = read_idx(images_file, dimensions=3), read_idx(labels_file, dimensions=1)
        if len(images) != len(labels):
            raise UserError(
                f"dataset.root: '{images_file}' has {len(images)} images, but '{labels_file}' {len(labels)} labels"
            )
        if (labels > 9).any():
            raise UserError(f"dataset.root: '{labels_file}' has the label {labels.max()}; allowed: 0 to 9")
        _refuse_the_other(variant, split, labels, labels_file)
        test = partial(MNIST, variant=variant, root=root, download=False, split="test")
        has_test = split == "train" and all(_find("test", folder, raw).values())
        super().__init__(
            images.unsqueeze(1) if size is None else _resized(images.unsqueeze(1), size),
            labels,
            value_range=value_range,
            num_classes=10,
            held_out=partial(test, value_range=value_range, size=size) if has_test else None,
            class_names=CLASS_NAMES[variant],
            samples=samples,
            samples_seed=samples_seed,
            clusters=clusters,
        )
        self.classifier = "digits" if variant == "mnist" else None


class StackedMNIST(ArrayDataset):
    """Images (3, 28, 28) without labels. Each channel is a random digit of MNIST, which makes 1,000 modes.

    `size` images are composed once, by `data_seed`. The held-out data are 26,000 images of test digits, the number on
    which published results are measured. Files and errors are those of `MNIST`. Source: Metz et al., "Unrolled
    Generative Adversarial Networks" (2017); numbers: Lin et al., "PacGAN" (2018).
    """

    classifier = "digits"
    independent_channels = True
    num_modes = 1000

    def __init__(
        self,
        *,
        root: Folder,
        download: bool,
        split: Literal["train", "test"],
        value_range: Range,
        size: PositiveInt,
        data_seed: NonNegativeInt,
    ) -> None:
        digits = MNIST(variant="mnist", root=root, download=download, split=split, value_range=value_range)
        test = partial(StackedMNIST, root=root, download=False, split="test", size=26_000, data_seed=data_seed)
        held_out = partial(test, value_range=value_range) if digits._held_out else None
        super().__init__(digits._data, value_range=value_range, held_out=held_out)
        self.shape = (3, 28, 28)
        self._triples = torch.randint(len(digits), (size, 3), generator=rng(data_seed, "triples"))

    def __len__(self) -> int:
        return len(self._triples)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(super().fingerprint().encode())
        digest.update(self._triples.cpu().numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> None:
        super().to(device)
        self._triples = self._triples.to(device)

    def _select(self, chosen: Tensor) -> Tensor:
        return self._data[self._triples[chosen]].squeeze(2)


def _resized(images: Tensor, side: int) -> Tensor:
    """Images (N, 1, H, W) of uint8 as (N, 1, side, side), bilinearly; made smaller without aliases."""
    parts = [
        F.interpolate(part.float(), (side, side), mode="bilinear", antialias=True).round_().to(torch.uint8)
        for part in images.split(10_000)
    ]
    return torch.cat(parts)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The content of an IDX file, gzipped or not, as uint8 of so many dimensions; `UserError` if it is damaged.

    Source: http://yann.lecun.com/exdb/mnist: 0, 0, 8 (unsigned byte), the number of dimensions, each dimension's size
    as a big-endian 32-bit integer, then the data.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            # Unlike gzip.decompress, this returns the beginning of a truncated file, so that its bytes can be counted.
            content = zlib.decompressobj(wbits=31).decompress(content, _MOST_BYTES)
    except (OSError, zlib.error) as error:
        raise UserError(f"dataset.root: '{path}' cannot be read: {error}") from None
    magic, start = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    if content[:4] != magic:
        raise UserError(
            f"dataset.root: '{path}' is not an IDX file of {dimensions} dimension(s): "
            f"it starts with the bytes '{content[:4].hex(' ')}', expected '{magic.hex(' ')}'"
        )
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    expected = start + math.prod(sizes)
    if len(content) != expected:
        raise UserError(f"dataset.root: '{path}' is damaged: it holds {len(content)} bytes, expected {expected}")
    return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(sizes))


def _refuse_the_other(variant: str, split: str, labels: Tensor, file: Path) -> None:
    for other, first_labels in FIRST_LABELS.items():
        if other != variant and tuple(labels[:10].tolist()) == first_labels[split]:
            raise UserError(
                f"dataset.root: '{file}' belongs to {other}, not to {variant}; give the folder of {variant}'s "
                f"files, or type dataset={other}"
            )


def _find(split: str, *folders: Path) -> dict[str, Path | None]:
    """The files of a split by name, images first; None for a file that is in none of the `folders`."""
    files = {}
    for content in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        name = f"{FILE_PREFIX[split]}-{content}"
        candidates = (folder / f"{name}{suffix}" for folder in folders for suffix in ("", ".gz"))
        files[name] = next((file for file in candidates if file.is_file()), None)
    return files


def _download(variant: str, folder: Path, raw: Path) -> None:
    import torchvision

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Moved when complete, so that neither a kill nor a second process leaves half a file.
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            getattr(torchvision.datasets, TORCHVISION_CLASS[variant])(aside, download=True)
            raw.mkdir(parents=True, exist_ok=True)
            for file in (aside / raw.relative_to(folder)).iterdir():
                os.replace(file, raw / file.name)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torchvision lists its mirrors line by line
        raise UserError(
            f"dataset.download=true: {variant} could not be fetched into '{folder}' ({reason}); "
            "put its IDX files there by hand"
        ) from None
