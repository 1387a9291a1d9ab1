"""The image files in a folder or a zip, and what else lies there."""

import os
import stat
import unicodedata
import zipfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gan_runner.datasets.decoding import extensions
from gan_runner.datasets.walking import Walk, is_hidden
from gan_runner.errors import UserError

_MOST_BYTES = 2**29  # of one file: more than any picture that Pillow agrees to decode
# A zip may promise gigabytes in a few bytes. Pictures of one colour are compressed as much, but are not that large.
_ABSURD_RATIO, _ABSURD_FROM = 200, 2**24
_PIECE = 2**12  # bytes read at once, because bzip2 and LZMA decompress all that they are given
_SHOWN = 3  # of the files that are left out for the same reason

Stamp = tuple[int, int]


@dataclass(frozen=True)
class ImageFiles:
    """The images in a folder, at any depth, or in a zip; without hidden files and `__MACOSX`.

    `stamps` has, for each relative name in sorted order, two numbers that change when the file does. Names have forward
    slashes, whatever the zip has, and what cannot be printed is escaped. `folders` are the names of all folders, empty
    ones too. `remarks` are sentences for the user about what is not used.
    """

    root: Path
    archive: zipfile.ZipFile | None
    stamps: dict[str, Stamp]
    folders: tuple[str, ...]
    remarks: list[str]
    _sources: dict[str, str | zipfile.ZipInfo]  # by name: the path in a folder, or the entry of a zip

    @classmethod
    def find(cls, root: Path, lists: Collection[str] = ()) -> "ImageFiles":
        """The images in `root`, beside which, in whatever folder, the dataset itself reads the files named in `lists`.

        Raises `UserError` if `root` is not a folder or zip of images.
        """
        archive, found = None, _Inventory(lists)
        try:
            mode = os.stat(root).st_mode
            if stat.S_ISDIR(mode):
                found.take_folder(root)
        except (FileNotFoundError, ValueError):  # ValueError: a name that no file can have
            raise UserError(f"dataset.root: '{root}' does not exist; allowed: a folder or a .zip of images") from None
        except OSError as error:
            raise UserError(f"dataset.root: '{root}' cannot be read: {error.strerror}") from None
        if not stat.S_ISDIR(mode):
            archive = _open_zip(root, mode)
            found.take_zip(archive)

        remarks = [f"{what} are left out ({len(names)}): {examples(names)}" for what, names in found.left_out.items()]
        if not found.stamps:
            what = "; ".join(remarks) or "it is empty"
            raise UserError(f"dataset.root: no images in '{root}': {what} (allowed: {', '.join(sorted(extensions()))})")
        stamps = dict(sorted(found.stamps.items()))
        return cls(root, archive, stamps, tuple(sorted(found.folders)), remarks, found.sources)

    def read(self, name: str) -> bytes:
        """The content of an image or of one of the `lists`; any exception if it is damaged."""
        source = self._sources[name]
        if isinstance(source, str):
            with open(os.path.join(self.root, source), "rb") as file:
                _refuse_large(os.fstat(file.fileno()).st_size)
                return file.read()
        assert self.archive is not None
        return _read_entry(self.archive, source)


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.flag_bits & 1:
        raise ValueError("it is encrypted")
    _refuse_large(entry.file_size)
    if entry.file_size > max(_ABSURD_FROM, _ABSURD_RATIO * entry.compress_size):
        raise ValueError(f"it is absurdly compressed: {entry.compress_size} bytes for {entry.file_size}")
    with archive.open(entry) as file:  # gives no more bytes than the entry says that it has
        return b"".join(iter(lambda: file.read(_PIECE), b""))


def _refuse_large(size: int) -> None:
    if size > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")


class _Inventory:
    """What is found in a folder or a zip."""

    def __init__(self, lists: Collection[str]) -> None:
        self._lists = lists
        self.stamps: dict[str, Stamp] = {}
        self.sources: dict[str, str | zipfile.ZipInfo] = {}
        self.folders: set[str] = set()
        self.left_out: dict[str, list[str]] = {}

    def leave_out(self, reason: str, name: str) -> None:
        self.left_out.setdefault(reason, []).append(f"'{plain_name(name)}'")

    def take_folder(self, root: Path) -> None:
        for path, entry in Walk(root, self.leave_out):
            name = plain_name(path)
            if entry is None:
                self._add_folders((name, *_parents(name)))
            elif self._is_used(name):
                try:
                    status = entry.stat()
                except OSError as error:
                    self.leave_out(f"files that cannot be read ({error.strerror})", path)
                    continue
                if os.access(entry.path, os.R_OK):
                    self._add(name, path, (status.st_size, status.st_mtime_ns))
                else:
                    self.leave_out("files that may not be read", path)

    def take_zip(self, archive: zipfile.ZipFile) -> None:
        for entry in archive.infolist():
            raw = _entry_name(entry)
            name = plain_name(raw)
            if any(map(is_hidden, name.split("/"))):
                continue
            if raw.endswith(("/", "\\")):
                self._add_folders((name, *_parents(name)))
            elif stat.S_ISLNK(entry.external_attr >> 16):
                self.leave_out("links in a zip", name)
            elif self._is_used(name):
                self._add(name, entry, (entry.file_size, entry.CRC))

    def _is_used(self, name: str) -> bool:
        if self._is_list(name) or PurePosixPath(name).suffix.lower() in extensions():
            return True
        self._add_folders(_parents(name))
        self.leave_out("files that are no images", name)
        return False

    def _add(self, name: str, source: str | zipfile.ZipInfo, stamp: Stamp) -> None:
        if name in self.sources:
            self.leave_out("files whose name another has", name)
        self.sources[name] = source
        self._add_folders(_parents(name))
        if not self._is_list(name):
            self.stamps[name] = stamp

    def _is_list(self, name: str) -> bool:
        return PurePosixPath(name).name in self._lists

    def _add_folders(self, names: Iterable[str]) -> None:
        self.folders.update(name for name in names if name)


def examples(shown: Iterable[str]) -> str:
    """The first of them, in one line."""
    first = sorted(shown)
    return ", ".join(first[:_SHOWN]) + (" …" if len(first) > _SHOWN else "")


def _parents(name: str) -> list[str]:
    return [str(folder) for folder in PurePosixPath(name).parents][:-1]


def plain_name(name: str) -> str:
    """The name with forward slashes, relative, and without what cannot be printed in a line.

    A zip that was made on Windows may have backslashes, and files that were unpacked from it without care.
    """
    parts = (part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))
    plain = "/".join(parts)
    if plain.isprintable():
        return plain
    escaped = (c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cs") else c for c in plain)
    return "".join(escaped)


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """The name of a zip's entry; some programs, macOS's among them, write UTF-8 without saying so."""
    try:
        return entry.filename if entry.flag_bits & 0x800 else entry.filename.encode("cp437").decode()
    except UnicodeError:
        return entry.filename


def _open_zip(path: Path, mode: int) -> zipfile.ZipFile:
    try:
        if not stat.S_ISREG(mode):  # a pipe would be waited for
            raise ValueError("it is no file")
        return zipfile.ZipFile(path)
    except Exception as error:  # on a damaged file, zipfile raises almost anything
        raise UserError(f"dataset.root: '{path}' is neither a folder nor a readable zip: {error}") from None
