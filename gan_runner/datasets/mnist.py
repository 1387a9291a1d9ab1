"""MNIST and Fashion-MNIST from their IDX files."""

import math
import os
import tempfile
import zlib
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets.base import ArrayDataset, Range
from gan_runner.errors import UserError

TORCHVISION_CLASS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
FILE_PREFIX = {"train": "train", "test": "t10k"}


class MNIST(ArrayDataset):
    """Digits or fashion: grey images (1, 28, 28) in ten classes, 60,000 to train and 10,000 to test.

    The IDX files, gzipped or not, lie in `root` or where torchvision puts them; `download` fetches them through
    torchvision where they are missing. UserError where they are missing, damaged or contradict each other.
    """

    def __init__(
        self,
        *,
        variant: Literal["mnist", "fashion_mnist"],
        root: str,
        download: bool,
        split: Literal["train", "test"],
        value_range: Range,
    ) -> None:
        folder = Path(root).expanduser()
        raw = folder / TORCHVISION_CLASS[variant] / "raw"
        names = [f"{FILE_PREFIX[split]}-{content}" for content in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        if download and not all(_find(name, folder, raw) for name in names):
            _download(variant, folder, raw)
        files = [_find(name, folder, raw) for name in names]
        images_file, labels_file = files
        if images_file is None or labels_file is None:
            missing = " and ".join(name for name, file in zip(names, files, strict=True) if file is None)
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
        super().__init__(images.unsqueeze(1), labels, value_range=value_range, num_classes=10)
        self.classifier = "digits" if variant == "mnist" else None
        self._has_test = split == "train" and all(_find(f"t10k-{name[6:]}", folder, raw) for name in names)
        self._of_split = partial(MNIST, variant=variant, root=root, download=False, value_range=value_range)

    def held_out(self) -> "MNIST | None":
        """The test images, where this is the training split and their files are there."""
        return self._of_split(split="test") if self._has_test else None


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The bytes of an IDX file, gzipped or not, as uint8 of that many dimensions; UserError where it is damaged.

    Source: http://yann.lecun.com/exdb/mnist: 0, 0, 8 (unsigned byte), the number of dimensions, each dimension's size
    as a big-endian 32-bit integer, then the data.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            # Unlike gzip.decompress, this gives what there is of a truncated file, so that the bytes can be counted.
            content = zlib.decompressobj(wbits=31).decompress(content)
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


def _find(name: str, *folders: Path) -> Path | None:
    candidates = (folder / f"{name}{suffix}" for folder in folders for suffix in ("", ".gz"))
    return next((file for file in candidates if file.is_file()), None)


def _download(variant: str, folder: Path, raw: Path) -> None:
    import torchvision

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Fetched aside and moved when complete, so that neither a kill nor a second process leaves half a file.
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
