"""Trees of image files by number: names, links, modes, sizes, formats, damage and layouts of every kind."""

import json
import os
import socket
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random

from tests.fuzz import pixels
from tests.fuzz.case import COMPLETED, REFUSED, Case
from tests.fuzz.pixels import Colour

KIND = "trees"
PROCESS_EVERY = 50
NAMES = (
    "a", "b c", "größe", "写真", "данные", "-dash", "--help", "new\nline", "tab\t", "quote'", 'double"', "back\\slash",
    "x" * 200, "10", "2", "007", "1e3", "null", "a.b.c", "#x", "%s", "$HOME", "~", "*", "[a]", "{a}", "a,b", "a=b", " ",
    "é", "é", "\u202ertl", "emoji😀", "UPPER", "upper", "a:b", "con", "…", ". x", "x.", "@", "&", "(1)",
)  # fmt: skip
NO_UTF8 = "caf\udce9"
CLASS_NAMES = (
    ("cat", "dog", "owl"), ("0", "1", "2"), ("2", "10", "1"), ("9", "10", "11"), ("a b", "c d"), ("größe", "Äpfel"),
    ("class_2", "class_10"), ("-x", "--y"), ("猫", "犬"), ("A", "b", "C"), ("1.0", "1.1"), ("true", "null"), ("x'", 'y"'),
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    """A picture of one colour that has to be used, and its class."""

    name: str
    colour: Colour
    label: str | None


@dataclass
class Truth:
    """What is in the tree. A number that is not certain, because either way is sensible, is in `unsure`."""

    used: list[Image] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)  # called images, but damaged
    others: list[str] = field(default_factory=list)  # files that are not called images, and not hidden
    passed_over: int = 0  # links that lead to what is there already
    classes: list[str] | None = None  # in their order; None: no labels
    unsure: bool = False
    refused: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TreeCase(Case):
    """A training on a tree."""

    truth: Truth = field(default_factory=Truth, compare=False)
    channels: int = 3


class Planting:
    """A tree on the way: files are written to a folder, or into a zip."""

    def __init__(self, rng: Random) -> None:
        self.rng, self.truth = rng, Truth()
        self.steps: list[Callable[[Path], None]] = []
        self.files: dict[str, bytes] = {}  # by the path in the tree
        self.number = rng.randrange(60)

    def picture(self, folder: str, label: str | None, common: bool = False) -> None:
        """One more picture that can be used."""
        made = pixels.picture(self.rng, self.number, common)
        assert made.colour is not None
        name = self._name(folder, made.ending)
        self.number += 1
        self.files[name] = made.content
        self.truth.used.append(Image(name, made.colour, label))

    def damaged(self, folder: str) -> None:
        made = pixels.damaged(self.rng)
        name = self._name(folder, made.ending)
        self.files[name] = made.content
        self.truth.unusable.append(name)

    def other(self, folder: str) -> None:
        """A file that is not called an image."""
        picture = pixels.saved(pixels.Image.new("RGB", (8, 8)), "PNG")
        ending, content = self.rng.choice(
            [(".txt", b"notes"), (".csv", b"a,b\n"), ("", b"x"), (".txt", picture), (".mp4", b"\0" * 9), (".pkl", b"\x80\4.")]
        )
        name = self._name(folder, ending)
        self.files[name] = content
        self.truth.others.append(name)

    def hidden(self, folder: str) -> None:
        """What counts nowhere."""
        picture = pixels.saved(pixels.Image.new("RGB", (8, 8), (1, 2, 3)), "PNG")
        name = self.rng.choice([".a.png", "._a.png", ".DS_Store", ".git/x.png", "__MACOSX/a.png"])
        self.files[os.path.join(folder, name)] = picture

    def _name(self, folder: str, ending: str) -> str:
        """A name that is not there yet, on a disk without upper and lower case neither."""
        taken = {part.casefold() for name in self.files for part in (name, *map(str, PurePosixPath(name).parents))}
        while True:
            stem = self.rng.choice(NAMES) + self.rng.choice(["", "", str(len(self.files))])
            name = os.path.join(folder, stem + ending)
            if name.casefold() not in taken and not (stem.startswith(".") and not ending):
                return name

    def write(self, work: Path) -> None:
        """The tree as a folder."""
        root = work / "tree"
        root.mkdir()
        for name, content in self.files.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        for step in self.steps:
            step(root)


def make(number: int) -> TreeCase:
    """Case `number`: a function of the number alone."""
    rng = Random(f"{KIND}-{number}")
    planting = Planting(rng)
    layout = rng.choices([*LAYOUTS], [*LAYOUTS.values()])[0]
    layout(planting)
    in_zip = rng.random() < 0.25 and not planting.steps
    extra = [] if in_zip else rng.sample([*ODDITIES], rng.choice([0, 0, 1, 1, 2]))
    for oddity in extra:
        oddity(planting)
    odd_zip = rng.choice([*ODD_ZIPS]) if in_zip else None
    truth, channels = planting.truth, rng.choice([3, 3, 1])
    conditional = truth.classes is not None and rng.random() < 0.5
    words = ["dataset=images", f"dataset.root={'tree.zip' if in_zip else 'tree'}", "dataset.size=8", "trainer.steps=1"]
    words += [f"dataset.channels={channels}", "trainer.batch_size=2", "metric=[]", "doctor=none", "device=cpu"]
    words += ["architecture=mlp_conditional" if conditional else "architecture=linear_1d", "hydra.run.dir=made"]
    words += ["architecture.generator.hidden=[2]", "architecture.discriminator.hidden=[2]"]
    build = planting.write
    if odd_zip is not None:
        build = odd_zip(planting)
    about = [layout.__name__, *(oddity.__name__ for oddity in extra), *([odd_zip.__name__] if odd_zip else [])]
    statuses = {REFUSED} if truth.refused or len(truth.used) < 2 else {COMPLETED}
    if truth.unsure:
        statuses = {COMPLETED, REFUSED}
    return TreeCase(
        KIND,
        number,
        "train",
        tuple(words),
        ", ".join(about).replace("_", " ").strip(),
        frozenset(statuses),
        may_write=("made",),
        as_process=number % PROCESS_EVERY == PROCESS_EVERY - 1,
        build=build,
        truth=truth,
        channels=channels,
    )


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
        p.truth.refused, p.truth.names = True, ("dataset.json",)
    p.files["dataset.json"] = content
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


def _link_up(p: Planting) -> None:
    name = p.rng.choice(["up", "self", "again.png"])
    folder = os.path.dirname(p.rng.choice([*p.files] or ["x"]))
    target = os.path.relpath(".", folder or ".")
    p.steps.append(lambda root: os.symlink(target, os.path.join(root, folder, name)) if (root / folder).is_dir() else None)
    p.truth.passed_over += 1


def _links_in_a_loop(p: Planting) -> None:
    p.steps += [lambda root: os.symlink("loop_b", root / "loop_a"), lambda root: os.symlink("loop_a", root / "loop_b")]


def _broken_link(p: Planting) -> None:
    p.steps.append(lambda root: os.symlink("not/there.png", root / "broken.png"))


def _link_to_a_file(p: Planting) -> None:
    """A link to a picture outside counts as one."""
    colour = pixels.COLOURS[p.number % len(pixels.COLOURS)]
    content = pixels.saved(pixels.Image.new("RGB", (9, 9), colour), "PNG")
    like = p.rng.choice(p.truth.used) if p.truth.used else Image("x", colour, None)
    folder = os.path.dirname(like.name)

    def link(root: Path) -> None:
        (root.parent / "outside.png").write_bytes(content)
        (root / folder).mkdir(parents=True, exist_ok=True)
        os.symlink(os.path.relpath(root.parent / "outside.png", root / folder), root / folder / "linked.png")

    p.steps.append(link)
    p.truth.used.append(Image(os.path.join(folder, "linked.png"), colour, like.label))


def _unreadable_file(p: Planting) -> None:
    content = pixels.saved(pixels.Image.new("RGB", (9, 9)), "PNG")
    folder = os.path.dirname(p.truth.used[0].name) if p.truth.used else ""
    name = os.path.join(folder, "secret.png")
    p.files[name] = content
    p.steps.append(lambda root: os.chmod(root / name, 0))
    p.truth.unusable.append(name)


def _unreadable_folder(p: Planting) -> None:
    p.steps += [lambda root: os.mkdir(root / "locked"), lambda root: os.chmod(root / "locked", 0)]
    p.truth.unsure = True


def _read_only(p: Planting) -> None:
    def lock(root: Path) -> None:
        for folder, _, files in os.walk(root):
            for name in files:
                if not os.path.islink(os.path.join(folder, name)):
                    mode = stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
                    os.chmod(os.path.join(folder, name), mode & 0o444)
            os.chmod(folder, 0o555)

    p.steps.append(lock)


def _pipe(p: Planting) -> None:
    p.steps.append(lambda root: os.mkfifo(root / "pipe.png"))


def _socket(p: Planting) -> None:
    def bind(root: Path) -> None:
        with socket.socket(socket.AF_UNIX) as bound:
            here = os.getcwd()
            os.chdir(root)  # a socket's path must be short
            bound.bind("s.png")
            os.chdir(here)

    p.steps.append(bind)


def _no_utf8(p: Planting) -> None:
    """A name that is no UTF-8: used or left out, and told."""
    content = pixels.saved(pixels.Image.new("RGB", (9, 9)), "PNG")
    folder = os.path.dirname(p.truth.used[0].name) if p.truth.used else ""
    p.files[os.path.join(folder, f"{NO_UTF8}.png")] = content
    p.truth.unsure = True


def _deep(p: Planting) -> None:
    """A picture 60 folders down."""
    if not p.truth.used or p.truth.used[0].label is None:
        return
    p.picture(os.path.join(os.path.dirname(p.truth.used[0].name), *["d"] * 60), p.truth.used[0].label, common=True)


ODDITIES = (
    _link_up, _links_in_a_loop, _broken_link, _link_to_a_file, _unreadable_file, _unreadable_folder, _read_only, _pipe,
    _socket, _no_utf8, _deep,
)  # fmt: skip
OddZip = Callable[[Planting], Callable[[Path], None]]


def _zip(p: Planting, rename: Callable[[str], str] = str, extra: Callable[[zipfile.ZipFile], None] | None = None) -> Callable[[Path], None]:
    kind = p.rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])

    def build(work: Path) -> None:
        with zipfile.ZipFile(work / "tree.zip", "w", kind) as archive:
            for name, content in p.files.items():
                entry = zipfile.ZipInfo(rename(name))
                entry.filename = rename(name)  # ZipInfo puts slashes in
                entry.compress_type = kind
                archive.writestr(entry, content)
            if extra is not None:
                extra(archive)

    return build


def plain_zip(p: Planting) -> Callable[[Path], None]:
    return _zip(p)


def backslashes(p: Planting) -> Callable[[Path], None]:
    """As made on Windows."""
    if any("\\" in name for name in p.files):
        return _zip(p)
    return _zip(p, lambda name: name.replace("/", "\\"))


def absolute_names(p: Planting) -> Callable[[Path], None]:
    return _zip(p, lambda name: f"/{name}")


def names_that_lead_up(p: Planting) -> Callable[[Path], None]:
    return _zip(p, lambda name: f"../../{name}")


def folder_entries(p: Planting) -> Callable[[Path], None]:
    def add(archive: zipfile.ZipFile) -> None:
        for folder in sorted({os.path.dirname(name) for name in p.files} - {""}):
            archive.writestr(f"{folder}/", b"")

    return _zip(p, extra=add)


def encrypted_entry(p: Planting) -> Callable[[Path], None]:
    """One entry says that it is encrypted."""
    if not p.truth.used:
        return _zip(p)
    first = p.truth.used[0]
    p.files[name := os.path.join(os.path.dirname(first.name), "encrypted.png")] = b"ENCRYPTED-BY-A-PASSWORD"
    p.truth.unusable.append(name)
    written = _zip(p)

    def build(work: Path) -> None:
        written(work)
        content = bytearray((work / "tree.zip").read_bytes())
        with zipfile.ZipFile(work / "tree.zip") as archive:
            entry = next(info for info in archive.infolist() if info.filename.endswith("encrypted.png"))
        content[entry.header_offset + 6] |= 1
        at = content.rindex(entry.filename.encode())  # in the list at the end
        content[at - 46 + 8] |= 1
        (work / "tree.zip").write_bytes(bytes(content))

    return build


def bomb(p: Planting) -> Callable[[Path], None]:
    """One entry is 64 MiB of zeros in 64 KiB."""
    if not p.truth.used:
        return _zip(p)
    name = os.path.join(os.path.dirname(p.truth.used[0].name), "bomb.png")
    p.truth.unusable.append(name)

    def add(archive: zipfile.ZipFile) -> None:
        archive.writestr(name, bytes(2**26), zipfile.ZIP_DEFLATED)

    return _zip(p, extra=add)


def cut_zip(p: Planting) -> Callable[[Path], None]:
    written = _zip(p)
    p.truth.refused, p.truth.unsure, p.truth.names = True, False, ("tree.zip",)

    def build(work: Path) -> None:
        written(work)
        content = (work / "tree.zip").read_bytes()
        (work / "tree.zip").write_bytes(content[: len(content) * 2 // 3])

    return build


ODD_ZIPS: tuple[OddZip, ...] = (
    plain_zip, plain_zip, backslashes, absolute_names, names_that_lead_up, folder_entries, encrypted_entry, bomb, cut_zip,
)  # fmt: skip
