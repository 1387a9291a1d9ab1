"""Any images: a folder or a zip, flat, with one sub-folder per class, or with a dataset.json of labels."""

from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt

from gan_runner.datasets.base import ArrayDataset, Folder, NumClusters, Range
from gan_runner.datasets.classes import LIST, find_classes, text_order
from gan_runner.datasets.decoding import Crop, Size
from gan_runner.datasets.image_cache import load
from gan_runner.datasets.image_files import ImageFiles
from gan_runner.paths import as_path


class Images(ArrayDataset):
    """The images of a folder or a .zip, as (channels, height, width).

    If all images are in sub-folders, these are the classes, in the order of their names, or of their numbers if all
    names are numbers. For `crop` and `size` see `image_cache.load`. Images that cannot be decoded, or are too small for
    `crop`, are skipped. Raises `UserError` if fewer than two are left, if none is left of a class, unless
    `allow_empty`, or if `root` is not a folder or zip of images.

    With `clusters`, folders are no classes, and all images count.

    The runner gives `labels_wanted`: whether to leave out images without a class rather than have no labels at all; and
    `class_order`, which is "text" in a run that an earlier version began: its classes keep the numbers that they have.
    """

    def __init__(
        self,
        *,
        root: Folder,
        size: Size,
        crop: Crop,
        channels: Literal[1, 3],
        value_range: Range,
        allow_empty: bool = False,  # runs of earlier versions lack this key, and the next three
        samples: PositiveInt | None = None,
        samples_seed: NonNegativeInt = 0,
        clusters: NumClusters | None = None,
        labels_wanted: bool = False,
        class_order: Literal["number", "text"] = "number",
    ) -> None:
        files = ImageFiles.find(as_path("dataset.root", root), lists=(LIST,))
        in_text_order = class_order == "text"
        labels_wanted, allow_empty = labels_wanted and clusters is None, allow_empty or clusters is not None
        classes = text_order(files) if in_text_order else find_classes(files, labels_wanted)
        if not (allow_empty or in_text_order):
            classes.refuse_empty(classes.images)  # before minutes of decoding
        pixels, images, skipped = load(files, list(classes.images), size, crop, channels)
        if not (allow_empty or in_text_order):
            classes.refuse_empty(images)
        numbers = classes.numbers
        labels = torch.tensor([numbers[classes.class_of[image]] for image in images]) if numbers else None
        super().__init__(
            pixels,
            labels,
            value_range=value_range,
            num_classes=len(classes.names),
            skipped=skipped,
            class_names=classes.names,
            num_files=len(files.stamps),
            remarks=[*classes.remarks, *files.remarks],
            samples=samples,
            samples_seed=samples_seed,
            clusters=clusters,
        )
        self.class_order = class_order
