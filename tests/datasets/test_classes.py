"""Which image is of which class, and which number that class has."""

import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_runner.datasets import Images, about_data, describe
from gan_runner.errors import UserError


@pytest.fixture
def lay(tmp_path: Path) -> Callable[..., Path]:
    """`lay("cat/1.png", "dog/")` makes a folder of such images and empty folders."""

    def make(*names: str) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / "data" / name
            if name.endswith("/"):
                path.mkdir(parents=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(path)
        return tmp_path / "data"

    return make


def images(root: Path, labels_wanted: bool = True, **keys: Any) -> Images:
    settings = {"size": None, "crop": None, "channels": 3, "value_range": (0.0, 1.0), **keys}
    return Images(root=str(root), labels_wanted=labels_wanted, **settings)


def zipped(folder: Path) -> Path:
    """The same as a .zip, empty folders included."""
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def of_classes(*names: str) -> list[str]:
    """Two images of each class."""
    return [f"{name}/{i}.png" for name in names for i in "ab"]


def counts(data: Images) -> dict[str, int]:
    """How many images each class has, in the order of the numbers."""
    return dict(zip(data.class_names, data.class_counts(), strict=True))


def labels_of(data: Images) -> list[int]:
    assert data.labels is not None
    labels: list[int] = data.labels.tolist()
    return labels


# The order of the numbers


@pytest.mark.parametrize(
    "expected",
    [
        ["0", "1", "2", "9", "10", "11", "100"],
        ["007", "8", "0010"],
        ["007", "07", "7", "8"],  # the same number: in the order of the text
        ["2019", "2020"],
        ["9", "12", "9999999999999999999999"],
        ["cat", "dog"],
        ["Zebra", "ant", "Ärger", "яблоко", "猫"],  # as Python sorts text: capitals first, then by code point
        ["a b", "a=b", "a[1]", "a{b}"],
        ["class_1", "class_10", "class_2"],  # more than a number: as text, as it was always
        ["1", "10", "2", "other"],
        ["-1", "-2", "1"],
        ["1.5", "10", "2"],
        ["10", "2", "²"],  # a superscript is no number
    ],
)
def test_numbers_are_in_their_order_and_all_else_in_that_of_the_text(lay, expected):
    shuffled = of_classes(*expected)
    random.Random(0).shuffle(shuffled)
    data = images(lay(*shuffled))
    assert list(data.class_names) == expected
    assert data.num_classes == len(expected)
    assert data.class_counts() == [2] * len(expected)
    for path, label in zip(sorted(shuffled), labels_of(data), strict=True):
        assert path.startswith(f"{expected[label]}/")


def test_a_run_of_an_earlier_version_has_the_numbers_of_the_text(lay):
    root = lay(*of_classes(*map(str, range(12))), "empty/")
    data = images(root, class_order="text")
    assert list(data.class_names) == ["0", "1", "10", "11", *"23456789"]
    assert data.class_order == "text"
    assert data.class_counts() == [2] * 12


def test_a_name_that_is_no_text_or_steers_a_terminal_is_escaped(tmp_path):
    for name in (b"caf\xe9", b"caf\xe8", b"a\nb", b"\x1b[2J"):
        folder = os.fsencode(tmp_path / "data") + b"/" + name
        os.makedirs(folder)
        for i in "ab":
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder + f"/{i}.png".encode())
    data = images(tmp_path / "data")
    assert sorted(data.class_names) == sorted(["caf\\udce9", "caf\\udce8", "a\\nb", "\\x1b[2J"])
    assert describe(data).isprintable()


# Classes without images


@pytest.mark.parametrize(
    ("names", "empty"),
    [
        ([*of_classes("0", "2"), "1/"], "class '1' has"),
        ([*of_classes("cat", "dog"), "eel/deeper/"], "class 'eel' has"),
        ([*of_classes("all/cat", "all/dog"), "all/eel/", "all/fox/"], "classes 'eel', 'fox' have"),
        ([*of_classes("cat"), "dog/"], "class 'dog' has"),  # of two classes, one is empty
        ([*of_classes("cat/deeper"), "dog/"], "class 'dog' has"),
    ],
)
def test_a_class_without_images_is_refused_by_name_or_keeps_its_number(lay, names, empty):
    root = lay(*names)
    for place in (root, zipped(root)):
        with pytest.raises(UserError, match=rf"dataset\.root: the {empty} no image .*dataset\.allow_empty=true"):
            images(place)
        data = images(place, allow_empty=True)
        expected = {n.split("/")[-2 if n.endswith(".png") else 1 if n.startswith("all") else 0]: 0 for n in names}
        if "cat/deeper/a.png" in names:
            expected = {"cat": 2, "dog": 0}
        assert counts(data) == {name: 2 if name not in empty else 0 for name in sorted(expected)}


def test_folders_that_are_no_classes_may_be_empty(lay):
    root = lay(*of_classes("cat", "dog"), "cat/deeper/", ".hidden/", "__MACOSX/", "__MACOSX/cat/")
    assert counts(images(root)) == {"cat": 2, "dog": 2}
    assert counts(images(zipped(root))) == {"cat": 2, "dog": 2}


def test_flat_images_may_lie_beside_an_empty_folder(lay):
    assert images(lay("a.png", "b.png", "empty/"), labels_wanted=False).num_classes == 0


def test_damaged_images_change_no_number(lay):
    root = lay(*of_classes("0", "1", "2"))
    for i in "ab":
        (root / "1" / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"class '1' has no image that can be used"):
        images(root)
    data = images(root, allow_empty=True)
    assert counts(data) == {"0": 2, "1": 0, "2": 2}
    assert labels_of(data) == [0, 0, 2, 2]
    left_out = "warning: images that could not be used are left out (2): '1/a.png', '1/b.png'"
    assert about_data(data)[:2] == [f"data: {describe(data)}", left_out]
    assert about_data(data)[2].startswith("data: why images could not be used: '1/a.png' (")


# Pictures beside the folders, and folders that are no classes


def test_pictures_beside_class_folders_are_left_out_if_labels_are_wanted(lay):
    root = lay(*of_classes("cat", "dog"), "cover.png", "contact sheet.png")
    data = images(root)
    assert counts(data) == {"cat": 2, "dog": 2}
    assert data.remarks == ["images beside the class folders are left out (2): 'contact sheet.png', 'cover.png'"]
    assert describe(data).startswith("4 images of 6 files, 4×4, 3 channels; classes 0 = cat (2), 1 = dog (2)")
    unlabelled = images(root, labels_wanted=False)
    assert (len(unlabelled), unlabelled.num_classes) == (6, 0)


def test_class_folders_are_found_below_a_picture(lay):
    root = lay(*of_classes("photos/cat", "photos/dog"), "cover.png", "photos/cover.png", "cat.png")
    data = images(root)
    assert counts(data) == {"cat": 2, "dog": 2}
    assert data.remarks[0].startswith("images beside the class folders are left out (3)")


def test_one_folder_beside_pictures_is_no_class(lay):
    assert images(lay("a.png", "b.png", *of_classes("more"))).num_classes == 0


@pytest.mark.parametrize(
    ("names", "training"),
    [
        (("train", "val"), "train"),
        (("train", "test"), "train"),
        (("Train", "Valid", "Test"), "Train"),
        (("set/training", "set/validation"), "set/training"),
        (("train/cat", "train/dog", "test/cat", "test/dog"), "train"),
    ],
)
def test_the_parts_of_a_dataset_are_no_classes(lay, names, training):
    root = lay(*of_classes(*names))
    with pytest.raises(UserError, match=rf"are the parts of a dataset, .* alone: dataset\.root={root}/{training}$"):
        images(root)
    data = images(root, labels_wanted=False)
    assert (len(data), data.num_classes) == (2 * len(names), 0)
    assert data.remarks[0].endswith(f"alone: dataset.root={root}/{training}")
    with pytest.raises(UserError, match=r"are the parts of a dataset, .*unpack"):
        images(zipped(root))


@pytest.mark.parametrize("names", [("train", "car"), ("test", "val"), ("train", "val", "cat")])
def test_other_folders_are_classes_even_if_one_is_called_train(lay, names):
    assert list(images(lay(*of_classes(*names))).class_names) == sorted(names)


def test_a_way_with_spaces_is_quoted(lay):
    root = lay(*of_classes("my photos/train", "my photos/val"))
    with pytest.raises(UserError, match=rf"alone: 'dataset\.root={root}/my photos/train'$"):
        images(root)


# dataset.json


def write_list(root: Path, labels: Any) -> Path:
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root


STYLEGAN = [f"0000{i // 3}/img0000000{i}.png" for i in range(6)]  # its tools put a thousand images in each folder


@pytest.mark.parametrize("place", [lambda root: root, zipped])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_the_labels_of_a_list_are_read_and_its_folders_are_no_classes(lay, place, separator):
    labels = [2, 0, 1, 1, 2, 1]
    entries = [[name.replace("/", separator), n] for name, n in zip(STYLEGAN, labels, strict=True)]
    root = place(write_list(lay(*STYLEGAN), entries[::-1]))
    for wanted in (True, False):
        data = images(root, labels_wanted=wanted)
        assert labels_of(data) == labels
        assert counts(data) == {"0": 1, "1": 3, "2": 2}
        assert data.remarks == []


@pytest.mark.parametrize("odd", ["new\nline", "tab\t", "a\\b", "\x1b[1m", "größe", "写真", "a b"])
def test_a_list_finds_images_whatever_their_names(lay, odd):
    """Messages show some letters of a name otherwise than the list has them."""
    names = [f"{odd}.png", f"x/{odd}.png", "plain.png"]
    root = write_list(lay(*names), [[name, i] for i, name in enumerate(names)])
    data = images(root)
    assert counts(data) == {"0": 1, "1": 1, "2": 1}
    assert data.remarks == []


def test_a_list_in_a_folder_around_the_images_names_them_from_there(lay):
    root = lay(*(f"faces/{name}" for name in STYLEGAN))
    write_list(root / "faces", [[name, i % 2] for i, name in enumerate(STYLEGAN)])
    assert labels_of(images(root)) == [0, 1] * 3


@pytest.mark.parametrize("labels", [None, []])
def test_a_list_without_labels_means_no_classes(lay, labels):
    data = images(write_list(lay(*STYLEGAN), labels))
    assert (len(data), data.num_classes) == (6, 0)


def test_a_list_of_another_kind_is_not_read(lay):
    root = lay(*of_classes("cat", "dog"))
    for content in ({"name": "mine"}, [1, 2], "text"):
        (root / "dataset.json").write_text(json.dumps(content))
        assert counts(images(root)) == {"cat": 2, "dog": 2}


def test_images_that_a_list_lacks_are_told_by_name(lay):
    root = write_list(lay(*STYLEGAN), [[name, i % 2] for i, name in enumerate(STYLEGAN[:4])] + [["gone.png", 1]])
    data = images(root)
    assert labels_of(data) == [0, 1, 0, 1]
    assert data.remarks == [
        "dataset.json has labels of images that are not there (1): 'gone.png'",
        f"images without a label in dataset.json are left out (2): '{STYLEGAN[4]}', '{STYLEGAN[5]}'",
    ]
    unlabelled = images(root, labels_wanted=False)
    assert (len(unlabelled), unlabelled.num_classes) == (6, 0)


def test_a_number_without_images_is_refused_in_a_list_too(lay):
    root = write_list(lay(*STYLEGAN), [[name, 3] for name in STYLEGAN])
    with pytest.raises(UserError, match=r"classes '0', '1', '2' have no image that can be used"):
        images(root)
    assert counts(images(root, allow_empty=True)) == {"0": 0, "1": 0, "2": 0, "3": 6}


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([[STYLEGAN[0], 0.5]], r"has the label \[\"0.*0\.5\]; allowed: \[image, number\]"),
        ([[STYLEGAN[0], [0, 1, 0]]], r"has the label .*\[0, 1, 0\]\]; allowed"),
        ([[STYLEGAN[0], True]], "has the label"),
        ([[STYLEGAN[0], "3"]], "has the label"),
        ([[STYLEGAN[0], -1]], "has the label"),
        ([[STYLEGAN[0], 10**9]], "has the label"),
        ([[3, STYLEGAN[0]]], "has the label"),
        ([STYLEGAN[0]], "has the label"),
        ([[STYLEGAN[0]]], "has the label"),
        ([{"name": 3}], "has the label"),
        ({STYLEGAN[0]: 3}, r"\"labels\" in 'dataset\.json' is no list"),
        ("cat", r"\"labels\" in 'dataset\.json' is no list"),
        ([["elsewhere.png", 1]], r"has labels of none of the images in .*, but of 'elsewhere\.png'"),
    ],
)
def test_a_malformed_list_is_refused_in_one_line(lay, labels, problem):
    root = write_list(lay(*STYLEGAN), labels)
    for place in (root, zipped(root)):
        with pytest.raises(UserError, match=rf"^dataset\.root: .*{problem}") as refused:
            images(place)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\xfa", b"[" * 100_000, b'{"labels": '])
def test_a_list_that_is_no_json_is_refused(lay, content):
    root = lay(*STYLEGAN)
    (root / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=r"^dataset\.root: 'dataset\.json' in .* cannot be read: ") as refused:
        images(root)
    assert "\n" not in str(refused.value)
