"""Paths: the packaged conf/, the cache folder, and how a file is written whole."""

import os
from collections.abc import Iterable
from pathlib import Path

# In a checkout conf/ stands beside the package, in an installed wheel inside it.
CONF = next(p for p in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if p.is_dir())


def cache_folder() -> Path:
    """Where decoded images, features and classifiers are kept: $GAN_RUNNER_CACHE, by default ~/.cache/gan_runner."""
    return Path(os.environ.get("GAN_RUNNER_CACHE") or "~/.cache/gan_runner").expanduser()


def write_atomically(path: Path, content: bytes | Iterable[bytes], durable: bool = True) -> None:
    """Writes a file, given whole or in parts, that is either the old or all of the new, whenever the machine stops.

    What is not `durable` is whole only whenever the process stops, and is written fifty times as fast.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    if durable:
        make_durable(path.parent)


def make_durable(path: Path) -> None:
    """Has a file's content, or a folder's list of names, on the disk before this returns; nothing where it is not."""
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
