"""The directory of a run: created by one process alone, locked while in use, checked before it is read."""

import fcntl
import io
import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gan_runner.config.schema import Config, Section, validate
from gan_runner.config.trust import refuse_foreign_targets
from gan_runner.errors import UserError
from gan_runner.paths import write_atomically

# How a pickle or a zip (torch.save) begins; a run leaves neither. A safetensors file may begin with the same bytes, the
# length of its header, but then the header's brace follows.
_PICKLE = re.compile(rb"\x80[\x02-\x05](?!.{6}\{)|PK\x03\x04|c[\w.]+\n[\w.]+\n", re.DOTALL)

_FILES = (".html", ".json", ".jsonl", ".md", ".png", ".safetensors", ".txt", ".yaml")  # ends of names that a run leaves


class RunDirectory:
    """An existing run directory, locked by this process; `UserError` if it cannot be written to."""

    def __init__(self, path: Path) -> None:
        for entry in path.iterdir():
            if entry.suffix in _FILES and entry.is_dir():
                raise UserError(f"{entry}: is a folder, where the run keeps a file; move it away")
        self.path, self._lock = path, lock(path, "is in use by another run")

    @classmethod
    def create(cls, path: Path, unique: bool) -> "RunDirectory":
        """Makes a new directory. If `unique`, a number is added to a name that another run has just taken."""
        wanted, number = path, 1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    path.mkdir()
                    return cls(path)
                except FileExistsError:
                    if not unique:
                        return cls(path)
                    number += 1
                    path = wanted.with_name(f"{wanted.name}_{number}")
        except OSError as error:
            raise UserError(f"{path}: cannot make the run directory: {error.strerror}") from error

    def write_pid(self) -> None:
        """Writes this process's id into the lock, for the message to others. Not before nothing can refuse the run."""
        write_pid(self._lock)

    def write_config(self, plain: Mapping[str, Any]) -> None:
        """Writes the resolved configuration, which identifies the run."""
        write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(plain), sort_keys=False).encode())

    def write_json(self, name: str, content: Mapping[str, Any], durable: bool = True) -> None:
        """Writes status.json, manifest.json, evaluation.json or health.json."""
        write_atomically(self.path / name, (json.dumps(content, indent=2) + "\n").encode(), durable)

    def close(self) -> None:
        """Unlocks the directory."""
        os.close(self._lock)


def lock(path: Path, taken: str) -> int:
    """Locks a directory until the descriptor that is returned is closed; `UserError` if another process has done so."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"{path}: nothing can be written there: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise UserError(f"{path}: {taken} (process {holder or 'unknown'})") from None
    return descriptor


def write_pid(descriptor: int) -> None:
    """Writes this process's id into a lock, for the message to others."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def is_run(path: Path) -> bool:
    """Whether a run has been started in `path`."""
    return (path / "config.yaml").exists()


def in_use(path: Path) -> bool:
    """Whether a process holds the lock of the run in `path`."""
    try:
        with (path / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def is_taken(path: Path) -> bool:
    """Whether `path` holds more than a run that ended at once leaves: hidden files and, in a sweep, its log.txt."""
    if not path.is_dir():
        return path.exists()
    return any(not file.name.startswith(".") and file.name != "log.txt" for file in path.iterdir())


def read_run(path: Path, trust: Sequence[str] | None, key: str) -> dict[str, Any]:
    """The configuration of the run in `path`. Anyone may have made that directory, so nothing in it is executed.

    `key` is the key that named it; `trust` are the packages of which it may name classes, None where none will be
    imported. Raises `UserError` at the first file that no run leaves, before reading any more.
    """
    if not is_run(path):
        raise UserError(f"{key}={path}: is no run directory, there is no config.yaml in it")
    for file in sorted(path.rglob("*")):
        if what := _harmful_kind(file):
            raise UserError(f"{file}: is {what}, which no run leaves; nothing in {path} was loaded")
    file = path / "config.yaml"
    plain = _read(file, _parse_config)
    if trust is not None:
        refuse_foreign_targets(plain, trust, str(file))
    try:
        validate(Config, plain)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    add_newer_keys(Config, plain)
    return plain


def add_newer_keys(section: type[Section], plain: dict[str, Any]) -> None:
    """Adds the keys that a configuration of an earlier version lacks."""
    for name, field in section.model_fields.items():
        if not field.is_required():
            plain.setdefault(name, field.get_default(call_default_factory=True))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            inner = plain.get(name)
            add_newer_keys(
                field.annotation, inner if isinstance(inner, dict) else {}
            )  # a refused job's may be no section


def _harmful_kind(file: Path) -> str:
    """What makes `file` harmful: a link could redirect writes, a pickle could execute code. "" for other files."""
    try:
        mode = file.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return "a link or a special file"
        with file.open("rb") if stat.S_ISREG(mode) else io.BytesIO() as opened:
            return "a pickle" if _PICKLE.match(opened.read(256)) else ""
    except FileNotFoundError:  # of a run that is at work here; its lock will refuse
        return ""
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def _parse_config(text: str) -> Any:
    """Parses the YAML that a run writes, without aliases or deep nesting: by these, a small file can be endless."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > 50:
            raise ValueError("it has aliases, or lists in lists without end")
    return json.loads(json.dumps(yaml.safe_load(text)))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a run; {} if the run was stopped before it wrote the file."""
    return _read(path, json.loads) if path.exists() else {}


def read_objective(path: Path) -> float | None:
    """The best value of a run's `trainer.objective`; NaN if it is undefined, None if there is none."""
    file = path / "evaluation.json"
    objective = validate(dict[str, Any] | None, read_json(file).get("objective"), f"{file}: objective")
    if objective is None:
        return None
    value = validate(float | None, objective.get("value"), f"{file}: objective.value")
    return math.nan if value is None else value


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        content = parse(path.read_bytes().decode())
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not what a run leaves: found {type(content).__name__}, expected keys and values")
    return content
