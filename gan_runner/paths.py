"""The packaged conf/, the cache folder, paths that a user typed, and atomic writes."""

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path

from gan_runner.errors import CONTROL_CHARACTERS, UserError

# In a checkout conf/ is next to the package, in an installed wheel inside it.
CONF = next(p for p in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if p.is_dir())


def cache_folder() -> Path:
    """Where decoded images, features and classifiers are kept: $GAN_RUNNER_CACHE, by default ~/.cache/gan_runner."""
    return as_path("GAN_RUNNER_CACHE", os.environ.get("GAN_RUNNER_CACHE") or "~/.cache/gan_runner")


def as_path(key: str, text: str) -> Path:
    """The path that a user typed for `key`, with `~` expanded. Nothing needs to be there.

    Raises `UserError` where no file can have this path: what comes after could only fail with a traceback.
    """
    if text == "":  # an unset variable, most likely; Path("") would be the current directory
        raise UserError(f"{key}: is empty; allowed: a path")
    expanded = os.path.expanduser(text)  # of a Path, ./~x would be ~x
    if expanded.startswith("~"):
        whose = "you have no home directory; set HOME" if text.partition("/")[0] == "~" else "there is no such user"
        raise UserError(f"{key}={text}: {whose}, or write ./~… for a folder of this name")
    if CONTROL_CHARACTERS.search(expanded):  # logs, reports and YAML are lines of text
        raise UserError(f"{key}={text}: allowed: a path in UTF-8, without control characters")
    path = Path(expanded)
    try:
        if stat.S_ISDIR(path.stat().st_mode) and not os.access(path, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileNotFoundError, NotADirectoryError):
        pass  # who needs it there will say so
    except OSError as error:
        raise UserError(f"{key}={text}: {error.strerror}") from error
    return path


def refuse_unwritable(out: Path, ending: str, why_kept: str = "it is not overwritten") -> None:
    """Raises `UserError`, before work is lost, if the file `out` is there, ends otherwise, or cannot be written."""
    folder = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if out.suffix != ending or out.is_dir():
        raise UserError(f"out={out}: allowed: a file whose name ends in {ending}")
    if out.exists():
        raise UserError(f"out={out}: is there already, and {why_kept}; name another file, or remove this one")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"out={out}: nothing can be written to '{folder}': {error.strerror}") from error


def write_atomically(path: Path, content: bytes | Iterable[bytes], durable: bool = True, shared: bool = False) -> None:
    """Writes a file, given whole or in parts: after a crash, it holds either its old content or all of the new.

    `durable` covers a crash of the machine; without it only the process may crash, and writing is fifty times as fast.
    `shared`: several processes may write the file at once; without it, the next write removes what a crash has left.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp" if shared else f".{path.name}.tmp")
    try:
        with temporary.open("xb" if shared else "wb") as file:
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
