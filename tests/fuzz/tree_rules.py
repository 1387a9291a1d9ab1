"""What must hold for a training on a tree of image files: all is used or told, with the right labels and pixels."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz import running
from tests.fuzz.case import COMPLETED, REFUSED, Case, Ended
from tests.fuzz.planting import Image
from tests.fuzz.rules import Rule
from tests.fuzz.trees import TreeCase

TOLERANCE = 3  # of 255: a JPEG of one colour, a mixture with white


def uses_the_right_images(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    """Reads the data set anew, as the run's configuration describes it."""
    if not isinstance(case, TreeCase) or ended.status != COMPLETED or not (place / "work/made").is_dir():
        return
    found = running.in_fork(lambda: _read_dataset(place))
    colours, labels = np.array(found["colours"]).reshape(len(found["colours"]), -1), found["labels"]
    if max(found["spread"]) > TOLERANCE:
        yield f"a picture of one colour has others: they differ by {max(found['spread'])}"
    truth = case.truth
    if truth.unsure:
        return
    if len(colours) != len(truth.used):
        yield f"{len(colours)} images are used, {len(truth.used)} are there"
        return
    names = None if labels is None else [_names(place)[label] for label in labels]
    if (names is None) != (truth.classes is None):
        yield f"labels are {'' if names is None else 'not '}missing"
        return
    if truth.classes is not None and _names(place) != truth.classes:
        yield f"the classes are {_names(place)}, right is {truth.classes}"
    yield from _match(truth.used, colours, names, case.channels)


def says_what_it_does_not_use(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    """Each entry of the tree that is not hidden is used, or told with its number, and once."""
    if not isinstance(case, TreeCase) or ended.status != COMPLETED or case.truth.unsure:
        return
    truth = case.truth
    told = sum(int(count) for count in re.findall(r"left out \((\d+)\)", ended.err))
    not_used = len(truth.unusable) + len(truth.others) + len(truth.strange)
    if told != not_used:
        yield f"{told} are told as left out, {not_used} are not used"
    data = json.loads((place / "work/made/manifest.json").read_text())["data"]
    kept = data["skipped"] + sum(int(n) for n in re.findall(r"left out \((\d+)\)", str(data.get("remarks"))))
    if kept != not_used:
        yield f"{kept} are told as left out in manifest.json, {not_used} are not used"


def says_what_the_data_are(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    """In a line on the console, and in manifest.json."""
    if not isinstance(case, TreeCase) or ended.status != COMPLETED or case.truth.unsure:
        return
    line = re.search(r"^data: ([\d,]+) images", ended.err, re.MULTILINE)
    if line is None:
        yield "there is no line that says what the data are"
    elif int(line[1].replace(",", "")) != len(case.truth.used):
        yield f"says that there are {line[1]} images, and there are {len(case.truth.used)}"
    data = json.loads((place / "work/made/manifest.json").read_text())["data"]
    if case.truth.classes is not None:
        by_class = Counter(image.label for image in case.truth.used)
        counts = [by_class[name] for name in case.truth.classes]
        if data.get("class_counts") != counts:
            yield f"class_counts in manifest.json are {data.get('class_counts')}, right is {counts}"


def names_what_is_wrong_with_a_tree(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if not isinstance(case, TreeCase) or ended.status != REFUSED:
        return
    if not any(name in ended.err for name in (*case.truth.names, "dataset.root", "tree")):
        yield f"names neither the data nor {', '.join(case.truth.names)}: {ended.err.strip()}"


def _read_dataset(place: Path) -> dict[str, Any]:
    """The mean colour of each image (0…255), how far its pixels differ, and the labels."""
    import torch

    from gan_runner.config.components import check
    from gan_runner.datasets import ArrayDataset

    torch.set_num_threads(1)
    os.chdir(place / "work")
    os.environ["GAN_RUNNER_CACHE"] = str(place / "probe")  # decoded anew
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    running.drop_capabilities()
    plain = yaml.safe_load(Path("made/config.yaml").read_text())
    dataset = check(plain).build("dataset", labels_wanted=plain["architecture"]["conditional"])
    assert isinstance(dataset, ArrayDataset)
    samples, labels = dataset[torch.arange(len(dataset))]
    flat = samples.flatten(2) * 255
    return {
        "colours": flat.mean(2).tolist(),
        "spread": (flat.amax(2) - flat.amin(2)).amax(1).tolist(),
        "labels": None if labels is None else labels.tolist(),
    }


def _names(place: Path) -> list[str]:
    """The names of the classes, by number, as manifest.json has them."""
    data = json.loads((place / "work/made/manifest.json").read_text())["data"]
    return data.get("class_names") or [str(number) for number in range(data["num_classes"])]


def _match(used: list[Image], colours: np.ndarray, names: list[str] | None, channels: int) -> Iterator[str]:
    """Each picture has to be found once, with its label and its colour."""
    left = list(range(len(colours)))
    for image in used:
        red, green, blue = image.colour
        right = np.array(image.colour if channels == 3 else [0.299 * red + 0.587 * green + 0.114 * blue])
        distance = np.abs(colours - right).max(axis=1)
        near = sorted((i for i in left if distance[i] <= TOLERANCE), key=distance.__getitem__)
        same = [i for i in near if names is None or names[i] == image.label]
        if not near:
            yield f"the picture of {image.colour} is not found: {os.path.splitext(image.name)[1]}"
        elif not same:
            yield f"a picture of class {image.label} has the label {names[near[0]] if names else None}"
        else:
            left.remove(same[0])


RULES: tuple[Rule, ...] = (
    uses_the_right_images,
    says_what_it_does_not_use,
    says_what_the_data_are,
    names_what_is_wrong_with_a_tree,
)
