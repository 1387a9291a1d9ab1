"""What the fuzzer tries, and what came of it."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

COMPLETED, FAILED, REFUSED, DIVERGED = 0, 1, 2, 3  # as the README says


@dataclass(frozen=True)
class Case:
    """One command line, and the place in which it is typed. It is a function of its kind and number alone."""

    kind: str
    number: int
    command: str  # train, sample, export, evaluate, classifier, report
    words: tuple[str, ...]
    about: str  # what is right or wrong with it
    expect: frozenset[int]  # the exit statuses that are right
    names: tuple[str, ...] = ()  # what the message about a mistake has to name: one of these
    needs: tuple[str, ...] = ()  # inputs in the working directory, see `world.Inputs`
    files: Mapping[str, bytes] = field(default_factory=dict)  # further files there
    environment: Mapping[str, str | None] = field(default_factory=dict)  # None: not set
    may_write: tuple[str, ...] = ()  # besides outputs/ and the cache, relative to the working directory
    faults_of_user: bool = False  # a class of the user's raises: its traceback is wanted
    makes: str | None = None  # a folder that has to be there after status 0
    keeps: Mapping[str, str] = field(default_factory=dict)  # what config.yaml then has to hold, letter for letter
    prints_only: bool = False  # --help and its like: no run directory comes of it
    build: Callable[[Path], None] | None = field(default=None, compare=False)  # makes what `files` cannot hold
    stdout: Literal["closed", "full", "pipe"] | None = None  # a stream that takes nothing
    as_process: bool = False  # through `python -m`, start-up included

    def as_typed(self) -> str:
        """The command, to be pasted into bash."""
        settings = [f"{name}={quoted(value)}" for name, value in self.environment.items() if value is not None]
        unset = [word for name, value in self.environment.items() if value is None for word in ("-u", name)]
        prefix = ["env", *unset, *settings] if settings or unset else []
        ends = {"closed": [">&-"], "full": ["> /dev/full"], "pipe": ["| true"]}.get(self.stdout or "", [])
        return " ".join([*prefix, "python", "-m", f"gan_runner.{self.command}", *map(quoted, self.words), *ends])


@dataclass(frozen=True)
class Entry:
    """A file, folder or link as it is on the disk."""

    mode: int
    content: str  # the hash of a file, the target of a link
    changed: int  # nanoseconds; 0 but for files


Tree = dict[str, Entry]  # by path


@dataclass(frozen=True)
class Ended:
    """What a case came to."""

    status: int | None  # None: it took longer than it may; negative: a signal killed it
    out: str
    err: str
    seconds: float
    left: tuple[str, ...]  # the command lines of processes that it left behind
    before: Tree
    after: Tree
    logs: Mapping[str, str]  # the content of each log.txt


def quoted(word: str) -> str:
    """A word for bash; bytes that are no UTF-8 and control characters in bash's own spelling."""
    raw = word.encode(errors="surrogateescape")
    if word.isprintable() and raw.decode(errors="replace") == word:
        return shlex.quote(word)
    escaped = "".join(chr(b) if 32 <= b < 127 and chr(b) not in "\\'" else f"\\x{b:02x}" for b in raw)
    return f"$'{escaped}'"
