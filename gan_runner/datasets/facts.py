"""Facts about a dataset: what networks need to know of it, and what a reader of its runs does."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from gan_runner.datasets.base import ArrayDataset, Dataset, first, in_one_line

CLASSES_SHOWN = 12  # in one line


class DataFacts(BaseModel):
    """What networks need to know of the data; in manifest.json, so that sampling needs no dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[int, ...]  # (C, H, W) for images, (D,) for vectors
    value_range: tuple[float, float] | None  # of the values that the networks see; None: unbounded
    num_classes: int  # 0: unlabelled
    cluster_sizes: tuple[Annotated[int, Field(ge=0, le=2**40)], ...] = ()  # where the classes are clusters
    class_names: tuple[Annotated[str, AfterValidator(in_one_line)], ...] = ()  # by number; earlier versions kept none

    @model_validator(mode="after")
    def _all_classes_have_them(self) -> "DataFacts":
        for key, values in (("class_names", self.class_names), ("cluster_sizes", self.cluster_sizes)):
            if values and len(values) != self.num_classes:
                raise ValueError(f"there are {len(values)} {key} for {self.num_classes} classes")
        if self.cluster_sizes and not any(self.cluster_sizes):
            raise ValueError("cluster_sizes are all 0")
        return self

    @classmethod
    def of(cls, dataset: Dataset) -> "DataFacts":
        return cls(
            shape=dataset.shape,
            value_range=dataset.value_range,
            num_classes=dataset.num_classes,
            cluster_sizes=dataset.cluster_sizes,
            class_names=dataset.class_names,
        )

    @property
    def is_image(self) -> bool:
        """Whether samples are (C, H, W) with one or three channels."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    def class_name(self, number: int) -> str:
        """The name of a class: its number where there are no names."""
        return self.class_names[number] if self.class_names else str(number)

    def in_data_units(self, samples: Tensor) -> Tensor:
        """Samples in the data's own units: images in [0, 1], whatever range networks use; vectors unchanged."""
        if not self.is_image or self.value_range is None:
            return samples.float()
        low, high = self.value_range
        return ((samples.float() - low) / (high - low)).clamp(0, 1)


def describe(dataset: Dataset) -> str:
    """The data in one line: how many there are, their form, and the first of their classes by number and name."""
    facts = DataFacts.of(dataset)
    if facts.is_image:
        channels, height, width = facts.shape
        kind, form = "images", f", {height}×{width}, {channels} channel{'s' * (channels > 1)}"
    elif len(facts.shape) == 1:
        kind, form = f"points of dimension {facts.shape[0]}", ""
    else:
        kind, form = f"arrays {'×'.join(map(str, facts.shape))}", ""
    files = f" of {dataset.num_files:,} files" if dataset.num_files else ""
    modes = f", {dataset.num_modes:,} modes" if dataset.num_modes else ""
    if isinstance(dataset, ArrayDataset):
        text = f"{len(dataset):,} {kind}{files}{form}{modes}"
    else:
        text = f"{kind}{form}{modes}, drawn anew for each batch"
    if not dataset.num_classes:
        return f"{text}; no labels" if facts.is_image else text
    if dataset.cluster_sizes:
        smallest, largest = min(dataset.cluster_sizes), max(dataset.cluster_sizes)
        return f"{text}; {dataset.num_classes} clusters of {smallest:,} to {largest:,}"
    return f"{text}; classes {_classes(facts, dataset.class_counts())}"


def about_data(dataset: Dataset) -> list[str]:
    """What to say before the data are trained on: what they are, and what of them is not used."""
    lines = [f"data: {describe(dataset)}"]
    if dataset.skipped:
        count = len(dataset.skipped)
        lines.append(f"warning: images that could not be used are left out ({count:,}): {first(dataset.skipped)}")
    return [*lines, *(f"data: {remark}" for remark in dataset.remarks)]


def _classes(facts: DataFacts, counts: list[int]) -> str:
    """The first classes, such as "0 = cat (40)", and how many more there are."""
    shown = []
    for number in range(min(facts.num_classes, CLASSES_SHOWN)):
        name = facts.class_name(number)
        count = f" ({counts[number]:,})" if counts else ""
        shown.append(f"{number if name == str(number) else f'{number} = {name}'}{count}")
    more = facts.num_classes - len(shown)
    return ", ".join(shown) + (f" … and {more:,} more" if more else "")
