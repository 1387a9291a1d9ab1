"""Links, modes and special files in a tree."""

import os
import socket
import stat
from pathlib import Path

from tests.fuzz import pixels
from tests.fuzz.planting import Image, Planting

NO_UTF8 = "caf\udce9"


def _link_up(p: Planting) -> None:
    name = p.rng.choice(["up", "self", "again.png"])
    folder = os.path.dirname(p.rng.choice([image.name for image in p.truth.used] or [""]))
    target = os.path.relpath(".", folder or ".")
    p.steps.append(lambda root: os.symlink(target, root / folder / name))
    p.truth.strange.append(name)


def _links_in_a_loop(p: Planting) -> None:
    p.steps += [lambda root: os.symlink("loop_b", root / "loop_a"), lambda root: os.symlink("loop_a", root / "loop_b")]
    p.truth.strange += ["loop_a", "loop_b"]


def _broken_link(p: Planting) -> None:
    p.steps.append(lambda root: os.symlink("not/there.png", root / "broken.png"))
    p.truth.strange.append("broken.png")


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
    p.truth.strange.append("pipe.png")


def _socket(p: Planting) -> None:
    def bind(root: Path) -> None:
        with socket.socket(socket.AF_UNIX) as bound:
            here = os.getcwd()
            os.chdir(root)  # a socket's path must be short
            bound.bind("s.png")
            os.chdir(here)

    p.steps.append(bind)
    p.truth.strange.append("s.png")


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
