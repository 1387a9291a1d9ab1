"""The packaged conf/, the cache folder, and atomic writes."""

import os
from collections.abc import Iterable
from pathlib import Path

# In a checkout conf/ is next to the package, in an installed wheel inside it.
CONF = next(p for p in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if p.is_dir())


def cache_folder() -> Path:
    """Where decoded images, features and classifiers are kept: $GAN_RUNNER_CACHE, by default ~/.cache/gan_runner."""
    return Path(os.environ.get("GAN_RUNNER_CACHE") or "~/.cache/gan_runner").expanduser()


def write_atomically(path: Path, content: bytes | Iterable[bytes], durable: bool = True) -> None:
    """Writes a file, given whole or in parts: after a crash, it holds either its old content or all of the new.

    `durable` covers a crash of the machine; without it only the process may crash, and writing is fifty times as fast.
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
        temporary.unlink(missing_ok=True)  # if the disk is full, frees what was written
        raise
    if durable:
        make_durable(path.parent)


def make_durable(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk. Does nothing if there is no `path`."""
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
