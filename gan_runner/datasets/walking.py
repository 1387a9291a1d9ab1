"""Every file in a folder, at any depth and through links, each once."""

import heapq
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from gan_runner.heartbeat import heartbeat

Identity = tuple[int, int]  # of a folder, by whatever path it is reached: device and inode


def is_hidden(name: str) -> bool:
    """Whether a file or folder is left out without a word."""
    return name.startswith(".") or name == "__MACOSX"


class Walk:
    """The relative path of each folder in `root` (with None), and of each file (with its entry), hidden ones left out.

    Links are followed, because clusters assemble datasets from them, but no folder is read twice: of a folder and a
    link to it, the folder is read, of two links the first by name. `leave_out` is told a reason and a path for each
    link that is passed over, and for whatever cannot be read. Raises OSError if `root` itself cannot be.
    """

    def __init__(self, root: Path, leave_out: Callable[[str, str], None]) -> None:
        self._root, self._leave_out = root, leave_out
        self._seen = {_identity(os.stat(root))}
        self._folders, self._links = [""], list[str]()  # still to be read

    def __iter__(self) -> Iterator[tuple[str, os.DirEntry[str] | None]]:
        while self._folders or self._links:
            if self._folders:
                folder = self._folders.pop()
            else:
                folder = heapq.heappop(self._links)
                if not self._is_followed(folder):
                    continue
            if folder:
                yield folder, None
            for entry in self._entries(folder):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if self._is_file(entry, path):
                    yield path, entry

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                return sorted((e for e in entries if not is_hidden(e.name)), key=lambda e: e.name, reverse=True)
        except OSError as error:
            if not folder:
                raise
            self._leave_out(f"folders that cannot be read ({error.strerror})", folder)
            return []

    def _is_file(self, entry: os.DirEntry[str], path: str) -> bool:
        """Whether it can be read as a file; a folder, or a link to one, is put among those still to be read."""
        heartbeat.beat()  # a network's file system may take minutes
        try:
            if entry.is_dir(follow_symlinks=False):
                self._add_folder(path, _identity(entry.stat()))
            elif entry.is_dir():
                heapq.heappush(self._links, path)
            elif entry.is_file():
                return True
            else:  # reading a pipe, for one, would never end
                what = "links that lead to no file or folder" if entry.is_symlink() else "pipes, sockets or devices"
                self._leave_out(what, path)
        except OSError as error:
            self._leave_out(f"files that cannot be read ({error.strerror})", path)
        return False

    def _add_folder(self, path: str, identity: Identity) -> None:
        if identity in self._seen:  # a link led into it before, or it is mounted twice
            self._leave_out("folders that are read already by another name", path)
        else:
            self._seen.add(identity)
            self._folders.append(path)

    def _is_followed(self, link: str) -> bool:
        """Whether the folder that a link leads to is still to be read."""
        path, reason = os.path.join(self._root, link), None
        try:
            identity, place = _identity(os.stat(path)), Path(os.path.realpath(os.path.dirname(path)))
            if identity in {_identity(os.stat(folder)) for folder in (place, *place.parents)}:
                reason = "links to a folder above"  # without end, and where it is "/", the whole machine
            elif identity in self._seen:
                reason = "links to a folder that is read already"
            self._seen.add(identity)
        except OSError as error:
            reason = f"links that cannot be followed ({error.strerror})"
        if reason is not None:
            self._leave_out(reason, link)
        return reason is None


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino
