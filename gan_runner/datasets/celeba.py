"""CelebA: 202,599 aligned faces, with the official partition and forty attributes (Liu et al. 2015)."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import torch
from pydantic import NonNegativeInt, PositiveInt

from gan_runner.datasets.base import ArrayDataset, Folder, NumClusters, Range
from gan_runner.datasets.decoding import Crop, Size
from gan_runner.datasets.image_cache import load
from gan_runner.datasets.image_files import ImageFiles
from gan_runner.errors import UserError, did_you_mean
from gan_runner.paths import as_path

PARTITION, ATTRIBUTES = "list_eval_partition.txt", "list_attr_celeba.txt"
T = TypeVar("T")


class CelebA(ArrayDataset):
    """The faces of one partition (3, height, width), 218×178 before `crop`; an `attribute` gives labels 0 and 1.

    For `crop` and `size` see `image_cache.load`. Raises `UserError` if a file is missing or malformed, or the attribute
    does not exist.
    """

    def __init__(
        self,
        *,
        root: Folder,
        split: Literal["all", "train", "valid", "test"],
        attribute: str | None,
        crop: Crop,
        size: Size,
        value_range: Range,
        samples: PositiveInt | None = None,  # runs of earlier versions lack this key, and the next two
        samples_seed: NonNegativeInt = 0,
        clusters: NumClusters | None = None,
    ) -> None:
        files = ImageFiles.find(_locate(as_path("dataset.root", root)), lists=(PARTITION, ATTRIBUTES))
        names = list(files.stamps)
        has_test = False
        if split != "all":
            lines = _read_list(files.root, PARTITION, f"dataset.split={split}")
            splits = _column(PARTITION, lines, 1, names, {"0": "train", "1": "valid", "2": "test"})
            names = [name for name, its_split in zip(names, splits, strict=True) if its_split == split]
            has_test = splits.count("test") >= 2  # of a part of the images, perhaps all are to train on
        pixels, names, skipped = load(files, names, size, crop, channels=3)
        labels = None
        if attribute is not None:
            _, header, *lines = [*_read_list(files.root, ATTRIBUTES, f"dataset.attribute={attribute}"), "", ""]
            if attribute not in header.split():
                raise UserError(f"dataset.attribute: no '{attribute}'; {did_you_mean(attribute, header.split())}")
            column = 1 + header.split().index(attribute)
            labels = torch.tensor(_column(ATTRIBUTES, lines, column, names, {"-1": 0, "1": 1}))
        test = partial(CelebA, root=root, split="test", attribute=attribute, crop=crop, size=size)
        super().__init__(
            pixels,
            labels,
            value_range=value_range,
            num_classes=0 if labels is None else 2,
            skipped=skipped,
            class_names=() if attribute is None else (f"not {attribute}", attribute),
            num_files=len(files.stamps),
            remarks=files.remarks,
            samples=samples,
            samples_seed=samples_seed,
            clusters=clusters,
            held_out=partial(test, value_range=value_range) if split == "train" and has_test else None,
        )


def _locate(root: Path) -> Path:
    """The folder or zip of images, which is in `root` or is `root` itself."""
    for images in (root / "img_align_celeba", root / "img_align_celeba.zip"):
        if os.path.exists(images):
            return images
    if os.path.isfile(root) or any(root.glob("*.jpg")):
        return root
    raise UserError(
        f"dataset.root: no CelebA in '{root}'; put there img_align_celeba.zip or the folder img_align_celeba from it "
        f"(https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, 'Align&Cropped Images'), {PARTITION} for dataset.split "
        f"and {ATTRIBUTES} for dataset.attribute"
    )


def _read_list(images: Path, name: str, reason: str) -> list[str]:
    """The lines of the list `name`, which is next to the folder of images or inside it."""
    for file in (images.parent / name, images / name):
        if os.path.isfile(file):
            try:
                return file.read_text(errors="replace").splitlines()
            except OSError as error:
                raise UserError(f"{reason} needs the file '{file}', which cannot be read: {error.strerror}") from None
    raise UserError(f"{reason} needs the file '{images.parent / name}', which does not exist")


def _column(file: str, lines: list[str], column: int, names: list[str], meaning: Mapping[str, T]) -> list[T]:
    """The entry of each image in a column of the list, translated by `meaning`."""
    rows = {row[0]: row for row in map(str.split, lines) if row}
    values = []
    for name in names:
        row = rows.get(PurePosixPath(name).name, [])
        if len(row) <= column or row[column] not in meaning:
            raise UserError(f"dataset.root: {file} has no valid entry for '{name}' (allowed: {', '.join(meaning)})")
        values.append(meaning[row[column]])
    return values
