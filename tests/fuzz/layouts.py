"""How pictures lie in folders: flat, by classes, by parts of a data set, with a list of labels."""

import json
import os
from collections.abc import Callable

from tests.fuzz.planting import Image, Planting

LIST = "dataset.json"  # of StyleGAN's tools
CLASS_NAMES = (
    ("cat", "dog", "owl"), ("0", "1", "2"), ("2", "10", "1"), ("9", "10", "11"), ("a b", "c d"), ("größe", "Äpfel"),
    ("class_2", "class_10"), ("-x", "--y"), ("猫", "犬"), ("A", "b", "C"), ("1.0", "1.1"), ("true", "null"),
    ("x'", 'y"'),
)  # fmt: skip


def _fill(p: Planting, folder: str, label: str | None, least: int = 1) -> None:
    for _ in range(p.rng.choice([least, least, least + 1, least + 3])):
        p.picture(folder, label)
    for extra, chance in ((p.damaged, 0.25), (p.other, 0.25), (p.hidden, 0.2)):
        if p.rng.random() < chance:
            extra(folder)


def _flat(p: Planting) -> None:
    _fill(p, "", None, 2)


def _classes(p: Planting) -> None:
    names = p.rng.choice(CLASS_NAMES)
    p.truth.classes = sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)
    prefix = p.rng.choice(["", "", "images", "a/b"])
    for name in names:
        for deeper in p.rng.choice([[""], [""], ["x"], ["", "y"]]):
            _fill(p, os.path.join(prefix, name, deeper), name)
    if p.rng.random() < 0.3:
        p.other(prefix)


def _many_numbers(p: Planting) -> None:
    p.truth.classes = [str(i) for i in range(12)]
    for i in range(12):
        p.picture(str(i), str(i), common=True)


def _empty_class(p: Planting) -> None:
    _classes(p)
    classes = p.truth.classes or []
    prefix = os.path.commonpath([os.path.dirname(image.name) for image in p.truth.used])
    name = "extra" if not all(name.isdecimal() for name in classes) else "5"
    p.steps.append(lambda root: os.makedirs(os.path.join(root, prefix, name), exist_ok=True))
    p.truth.refused, p.truth.names = True, (name,)


def _damaged_class(p: Planting) -> None:
    """A class of which nothing can be used: it is refused, or keeps its number."""
    _classes(p)
    prefix = os.path.commonpath([os.path.dirname(image.name) for image in p.truth.used])
    for _ in range(2):
        p.damaged(os.path.join(prefix, "zzz"))
    p.truth.unsure, p.truth.classes, p.truth.names = True, None, ("zzz",)


def _splits(p: Planting) -> None:
    for part in p.rng.choice([("train", "val"), ("train", "test"), ("Train", "Validation"), ("train", "val", "test")]):
        for name in ("cat", "dog"):
            p.picture(f"{part}/{name}", None, common=True)
    p.truth.unsure, p.truth.names = True, ("train", "Train")


def _pictures_beside(p: Planting) -> None:
    _classes(p)
    p.picture("", None)
    p.truth.unsure, p.truth.classes = True, None


def _listed(p: Planting) -> None:
    """With a dataset.json of StyleGAN's tools."""
    labels = {}
    for i in range(p.rng.choice([4, 6])):
        p.picture(f"0000{i % 2}", str(i % 3), common=True)
        labels[p.truth.used[-1].name] = i % 3
    p.truth.classes = ["0", "1", "2"]
    pairs: list[object] = [[name, label] for name, label in labels.items()]
    kind = p.rng.choice(["good", "good", "null", "floats", "malformed", "vectors", "no list", "negative"])
    content = json.dumps({"labels": pairs}).encode()
    if kind == "null":
        content, p.truth.classes = b'{"labels": null}', None
    elif kind != "good":
        wrong = {
            "floats": json.dumps({"labels": [[name, 0.5] for name in labels]}),
            "malformed": '{"labels": [["',
            "vectors": json.dumps({"labels": [[name, [0, 1]] for name in labels]}),
            "no list": json.dumps({"labels": 5}),
            "negative": json.dumps({"labels": [[name, -1] for name in labels]}),
        }
        content = wrong[kind].encode()
        p.truth.refused, p.truth.names = True, (LIST,)
    p.files[LIST] = content
    if kind in ("null",):
        p.truth.used[:] = [Image(image.name, image.colour, None) for image in p.truth.used]


def _nothing(p: Planting) -> None:
    for make_one in p.rng.choices([p.damaged, p.other, p.hidden], k=p.rng.choice([0, 1, 3])):
        make_one("")


LAYOUTS: dict[Callable[[Planting], None], int] = {
    _flat: 8,
    _classes: 10,
    _many_numbers: 1,
    _empty_class: 2,
    _damaged_class: 1,
    _splits: 2,
    _pictures_beside: 2,
    _listed: 3,
    _nothing: 1,
}
