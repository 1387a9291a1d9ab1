"""Which image is of which class: by its folder, or by a `dataset.json` of StyleGAN's tools."""

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gan_runner.datasets.base import first
from gan_runner.datasets.image_files import ImageFiles, plain_name
from gan_runner.errors import UserError, one_line
from gan_runner.overrides import override

LIST = "dataset.json"
MOST_CLASSES = 100_000  # a larger label is a slip, and would make an enormous embedding
TRAINING = {"train", "training"}
OTHER_PARTS = {"val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class Classes:
    """The images to use, and the class of each; without classes, all of them."""

    images: Sequence[str]
    class_of: dict[str, str] = field(default_factory=dict)  # by image
    names: Sequence[str] = ()  # of the classes, by number
    remarks: Sequence[str] = ()

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each class."""
        return {name: number for number, name in enumerate(self.names)}

    def refuse_empty(self, images: Iterable[str]) -> None:
        """UserError if none of these `images` is of one of the classes: its number would mean nothing."""
        counts = Counter(self.class_of[image] for image in images) if self.names else Counter[str]()
        if empty := [name for name in self.names if not counts[name]]:
            which = f"class {first(empty)} has" if len(empty) == 1 else f"classes {first(empty)} have"
            raise UserError(
                f"dataset.root: the {which} no image that can be used; put some there, take the class away, "
                "or keep its number with dataset.allow_empty=true"
            )


def find_classes(files: ImageFiles, labels_wanted: bool) -> Classes:
    """The classes of all images: from a dataset.json, else their folders.

    If `labels_wanted`, images without a label are left out. If not, one of them makes all the images unlabelled.
    Raises `UserError` if dataset.json is malformed, or if the folders are no classes, but the parts of a dataset.
    """
    listed = _read_list(files)
    return _by_folder(files, labels_wanted) if listed is None else _by_list(files, *listed, labels_wanted)


def text_order(files: ImageFiles) -> Classes:
    """The classes as earlier versions found them: "10" comes before "2", and a folder without images has no number."""
    folders = _folders(files)
    if (shared := _shared(folders)) in folders.values():
        return Classes([*folders])
    level = len(_parts(shared))
    class_of = {image: _parts(folder)[level] for image, folder in folders.items()}
    return Classes([*folders], class_of, sorted(set(class_of.values())))


def _parts(folder: str) -> list[str]:
    return folder.split("/") if folder else []


def _folders(files: ImageFiles) -> dict[str, str]:
    """The folder of each image; "" for the root."""
    return {image: posixpath.dirname(image) for image in files.stamps}


def _shared(folders: Mapping[str, str]) -> str:
    """The folder that all images are in."""
    return posixpath.commonpath(set(folders.values()))


def _by_folder(files: ImageFiles, labels_wanted: bool) -> Classes:
    """A class is a folder right below the one that all images share."""
    folders = _folders(files)
    shared, beside = _shared(folders), list[str]()
    while labels_wanted and shared in (used := set(folders.values())) and len(used) > 1:
        beside += [image for image, folder in folders.items() if folder == shared]
        folders = {image: folder for image, folder in folders.items() if folder != shared}
        shared = _shared(folders)
    if labels_wanted and shared in folders.values():
        shared = _parent_of_several(files, shared)  # of one class with images, and others that are empty
    if shared in folders.values():
        return Classes([*files.stamps])
    level = len(_parts(shared))
    class_of = {image: _parts(folder)[level] for image, folder in folders.items()}
    remarks = [f"images beside the class folders are left out ({len(beside):,}): {first(beside)}"] if beside else []
    found = set(class_of.values())
    if _are_parts(found):
        return Classes([*folders], remarks=[*remarks, _told_parts(files, shared, found, labels_wanted)])
    return Classes([*folders], class_of, _by_number(found.union(_children(files, shared))), remarks)


def _children(files: ImageFiles, folder: str) -> list[str]:
    """The names of the folders in `folder`."""
    return [posixpath.basename(path) for path in files.folders if posixpath.dirname(path) == folder]


def _parent_of_several(files: ImageFiles, folder: str) -> str:
    """The topmost folder on the way to `folder` in which there are several; `folder` itself if there is none."""
    parts = _parts(folder)
    ways = ("/".join(parts[:depth]) for depth in range(len(parts)))
    return next((way for way in ways if len(_children(files, way)) > 1), folder)


def _by_number(names: Iterable[str]) -> list[str]:
    """Class names in the order of their numbers, if all of them are numbers, else of the text."""
    ordered = sorted(names)
    return sorted(ordered, key=int) if all(name.isdecimal() for name in ordered) else ordered


def _are_parts(folders: set[str]) -> bool:
    names = {name.lower() for name in folders}
    return bool(names & TRAINING) and bool(names & OTHER_PARTS) and names <= TRAINING | OTHER_PARTS


def _told_parts(files: ImageFiles, shared: str, folders: set[str], labels_wanted: bool) -> str:
    """That the folders are the parts of a dataset, and how to choose one; a `UserError` if they would be classes."""
    names = sorted(folders)
    training = next(name for name in names if name.lower() in TRAINING)
    chosen = override("dataset.root", files.root / shared / training)
    how = f"unpack it to choose '{training}'" if files.archive else f"for '{training}' alone: {chosen}"
    if labels_wanted:
        raise UserError(
            f"dataset.root: the folders {first(names)} in '{files.root / shared}' are the parts of a dataset, and no "
            f"classes; {how}"
        )
    return f"the parts {first(names)} of a dataset are used together; {how}"


def _read_list(files: ImageFiles) -> tuple[str, str, Any] | None:
    """A dataset.json in the root, or on the way to the images: its path, its folder, and its labels."""
    parts = _parts(_shared(_folders(files)))
    for folder in ("/".join(parts[:depth]) for depth in range(len(parts) + 1)):
        path = posixpath.join(folder, LIST)
        try:
            content = json.loads(files.read(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, KeyError):
            continue
        except Exception as error:  # a zip raises almost anything for a broken entry
            raise UserError(f"dataset.root: '{path}' in '{files.root}' cannot be read: {one_line(error)}") from None
        if isinstance(content, dict) and "labels" in content:
            return path, folder, content["labels"]
    return None


def _by_list(files: ImageFiles, path: str, folder: str, labels: Any, labels_wanted: bool) -> Classes:
    """A class is a number in dataset.json. The folders beside it are none: its tools put a thousand images in each."""
    images = list(files.stamps)
    if not labels:  # null: the images have none
        return Classes(images)
    if not isinstance(labels, list):
        raise UserError(f"dataset.root: \"labels\" in '{path}' is no list of [image, number]")
    class_of, strangers = dict[str, str](), list[str]()
    for entry in labels:
        name, number = _entry(path, entry)
        image = plain_name(posixpath.join(folder, name))
        if image in files.stamps:
            class_of[image] = str(number)
        else:
            strangers.append(name)
    if not class_of:
        raise UserError(
            f"dataset.root: '{path}' has labels of none of the images in '{files.root}', but of {first(strangers)}"
        )
    gone = f"{path} has labels of images that are not there ({len(strangers):,}): {first(strangers)}"
    remarks = [gone] if strangers else []
    if unlabelled := [image for image in images if image not in class_of]:
        what = "are left out" if labels_wanted else "leave all of them unlabelled"
        remarks.append(f"images without a label in {path} {what} ({len(unlabelled):,}): {first(unlabelled)}")
        if not labels_wanted:
            return Classes(images, remarks=remarks)
    highest = max(map(int, class_of.values()))
    labelled = [image for image in images if image in class_of]
    return Classes(labelled, class_of, [str(number) for number in range(highest + 1)], remarks)


def _entry(path: str, entry: Any) -> tuple[str, int]:
    """The image and the number of a label; `UserError` if it is anything else."""
    name, number = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    if not isinstance(name, str) or type(number) is not int or not 0 <= number < MOST_CLASSES:
        found = json.dumps(entry)
        raise UserError(
            f"dataset.root: '{path}' has the label {found[:80]}{' …' * (len(found) > 80)}; "
            f"allowed: [image, number], from 0 to {MOST_CLASSES - 1}"
        )
    return name, number
