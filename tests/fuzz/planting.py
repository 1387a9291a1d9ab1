"""A tree of image files on the way, and what is known of it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random

from tests.fuzz import pixels
from tests.fuzz.pixels import Colour

NAMES = (
    "a", "b c", "größe", "写真", "данные", "-dash", "--help", "new\nline", "tab\t", "quote'", 'double"', "back\\slash",
    "x" * 200, "10", "2", "007", "1e3", "null", "a.b.c", "#x", "%s", "$HOME", "~", "*", "[a]", "{a}", "a,b", "a=b", " ",
    "é", "é", "\u202ertl", "emoji😀", "UPPER", "upper", "a:b", "con", "…", "x.", "@", "&", "(1)",
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
    strange: list[str] = field(default_factory=list)  # pipes, links to what is there already, links to nowhere
    classes: list[str] | None = None  # in their order; None: no labels
    unsure: bool = False
    refused: bool = False
    names: tuple[str, ...] = ()


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
            [
                (".txt", b"notes"),
                (".csv", b"a,b\n"),
                ("", b"x"),
                (".txt", picture),
                (".mp4", b"\0" * 9),
                (".pkl", b"\x80\4."),
            ]
        )
        name = self._name(folder, ending).replace("\\", "-")  # else a folder, as it is written on Windows
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
