"""The directory of a run: created exclusively, locked while in use, read as a stranger's work until proven ours."""

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

from gan_runner.config.schema import Config, validate
from gan_runner.config.trust import refuse_foreign_targets
from gan_runner.errors import UserError
from gan_runner.paths import write_atomically

# A checkpoint is our own safetensors; a file that opens like a pickle or a zip (torch.save) is not from here.
# (Ours may begin with such bytes too, the length of its header, but then that header's brace follows.)
_PICKLE = re.compile(rb"\x80[\x02-\x05](?!.{6}\{)|PK\x03\x04|c[\w.]+\n[\w.]+\n", re.DOTALL)


class RunDirectory:
    """A locked run directory; `path` exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"{path}: nothing can be written there: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 64, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise UserError(f"{path}: is in use by another run (process {holder or 'unknown'})") from None

    @classmethod
    def create(cls, path: Path, unique: bool) -> "RunDirectory":
        """A new directory. With `unique`, the name gets a number where another run took it in the same second."""
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
        """Tells whoever finds the directory in use by which process; a run that is refused changes nothing."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def write_config(self, plain: Mapping[str, Any]) -> None:
        """Keeps the resolved configuration, the identity of the run."""
        write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(plain), sort_keys=False).encode())

    def write_json(self, name: str, content: Mapping[str, Any], durable: bool = True) -> None:
        """Writes status.json, manifest.json, evaluation.json or health.json."""
        write_atomically(self.path / name, (json.dumps(content, indent=2) + "\n").encode(), durable)

    def close(self) -> None:
        """Lets another process have the directory."""
        os.close(self._lock)


def is_run(path: Path) -> bool:
    """Whether a run has been started in `path`."""
    return (path / "config.yaml").exists()


def is_taken(path: Path) -> bool:
    """Whether `path` holds anything that a new run must not mix with; a run killed at once leaves hidden files."""
    return path.exists() and (not path.is_dir() or any(not p.name.startswith(".") for p in path.iterdir()))


def read_run(path: Path, trust: Sequence[str], key: str) -> dict[str, Any]:
    """The configuration of the run in `path`, which anyone may have made: nothing in it is executed.

    `key` is what the user typed to name it. Raises `UserError`, and reads nothing further, at the first file that is
    not what a run leaves.
    """
    if not is_run(path):
        raise UserError(f"{key}={path}: is no run directory, there is no config.yaml in it")
    for file in sorted(path.rglob("*")):
        if what := _harmful_kind(file):
            raise UserError(f"{file}: is {what}, which no run leaves; nothing in {path} was loaded")
    file = path / "config.yaml"
    plain = _read(file, _parse_config)
    refuse_foreign_targets(plain, trust, str(file))
    try:
        validate(Config, plain)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    for name, field in Config.model_fields.items():  # keys that a run of an earlier version has not
        if not field.is_required():
            plain.setdefault(name, field.get_default(call_default_factory=True))
    return plain


def _harmful_kind(file: Path) -> str:
    """What `file` is that could do harm: a link leads writing astray, a pickle is a program; "" for any other."""
    try:
        mode = file.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return "a link or a special file"
        with file.open("rb") if stat.S_ISREG(mode) else io.BytesIO() as opened:
            return "a pickle" if _PICKLE.match(opened.read(256)) else ""
    except FileNotFoundError:  # of a run at work here, which its lock will tell
        return ""
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def _parse_config(text: str) -> Any:
    """YAML as a run writes it: JSON's values, each written out; a small file of aliases or brackets can be endless."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > 50:
            raise ValueError("it has aliases, or lists in lists without end")
    return json.loads(json.dumps(yaml.safe_load(text)))


def read_json(path: Path) -> dict[str, Any]:
    """status.json or manifest.json; {} where a run was stopped before it wrote one."""
    return _read(path, json.loads) if path.exists() else {}


def read_objective(path: Path) -> float | None:
    """The best value of the figure that the run in `path` is judged by: NaN where it is undefined, None without one."""
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
