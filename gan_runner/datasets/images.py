"""Any images: a folder or a zip, flat or with one sub-folder per class."""

import posixpath
from pathlib import PurePosixPath
from typing import Literal

import torch

from gan_runner.datasets.base import ArrayDataset, Folder, Range
from gan_runner.datasets.image_files import Crop, ImageFiles, Size, load
from gan_runner.paths import as_path


class Images(ArrayDataset):
    """The images of a folder or a .zip, as (channels, height, width).

    If all images are in sub-folders, these are the classes, numbered in the order of their names. For `crop` and `size`
    see `image_files.load`. Images that cannot be decoded, or are too small for `crop`, are skipped. Raises `UserError`
    if fewer than two are left, or if `root` is not a folder or zip of images.
    """

    def __init__(self, *, root: Folder, size: Size, crop: Crop, channels: Literal[1, 3], value_range: Range) -> None:
        files = ImageFiles.find(as_path("dataset.root", root))
        class_of = _classes(list(files.stamps))
        classes = sorted(set(class_of.values()))
        pixels, names, skipped = load(files, list(files.stamps), size, crop, channels)
        labels = torch.tensor([classes.index(class_of[name]) for name in names]) if classes else None
        super().__init__(pixels, labels, value_range=value_range, num_classes=len(classes), skipped=skipped)


def _classes(names: list[str]) -> dict[str, str]:
    """The class of each image: its folder below those that all images share. Empty if an image has none."""
    shared = len(PurePosixPath(posixpath.commonpath(map(posixpath.dirname, names))).parts)
    folders = {name: PurePosixPath(name).parent.parts[shared:] for name in names}
    return {name: folder[0] for name, folder in folders.items()} if all(folders.values()) else {}
