"""A tree as a zip, of every kind."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.planting import Planting

Build = Callable[[Path], None]  # makes the zip in the working directory


def _zip(
    p: Planting,
    rename: Callable[[str], str] = str,
    extra: Callable[[zipfile.ZipFile], None] = lambda archive: None,
) -> Build:
    kind = p.rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])

    def build(work: Path) -> None:
        with zipfile.ZipFile(work / "tree.zip", "w", kind) as archive:
            for name, content in p.files.items():
                entry = zipfile.ZipInfo(rename(name))
                entry.filename = rename(name)  # ZipInfo puts slashes in
                entry.compress_type = kind
                archive.writestr(entry, content)
            extra(archive)

    return build


def plain_zip(p: Planting) -> Build:
    return _zip(p)


def backslashes(p: Planting) -> Build:
    """As made on Windows."""
    if any("\\" in name for name in p.files):
        return _zip(p)
    return _zip(p, lambda name: name.replace("/", "\\"))


def absolute_names(p: Planting) -> Build:
    return _zip(p, lambda name: f"/{name}")


def names_that_lead_up(p: Planting) -> Build:
    return _zip(p, lambda name: f"../../{name}")


def folder_entries(p: Planting) -> Build:
    def add(archive: zipfile.ZipFile) -> None:
        for folder in sorted({os.path.dirname(name) for name in p.files} - {""}):
            archive.writestr(zipfile.ZipInfo(f"{folder}/"), b"")

    return _zip(p, extra=add)


def encrypted_entry(p: Planting) -> Build:
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


def bomb(p: Planting) -> Build:
    """One entry is 64 MiB of zeros in 64 KiB."""
    if not p.truth.used:
        return _zip(p)
    name = os.path.join(os.path.dirname(p.truth.used[0].name), "bomb.png")
    p.truth.unusable.append(name)

    def add(archive: zipfile.ZipFile) -> None:
        archive.writestr(zipfile.ZipInfo(name), bytes(2**26), zipfile.ZIP_DEFLATED)

    return _zip(p, extra=add)


def cut_zip(p: Planting) -> Build:
    written = _zip(p)
    p.truth.refused, p.truth.unsure, p.truth.names = True, False, ("tree.zip",)

    def build(work: Path) -> None:
        written(work)
        content = (work / "tree.zip").read_bytes()
        (work / "tree.zip").write_bytes(content[: len(content) * 2 // 3])

    return build


ODD_ZIPS: tuple[Callable[[Planting], Build], ...] = (
    plain_zip, plain_zip, backslashes, absolute_names, names_that_lead_up, folder_entries, encrypted_entry, bomb,
    cut_zip,
)  # fmt: skip
