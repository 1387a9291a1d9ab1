"""What a run says: on standard error and in its log.txt. Standard output ends with the run directory."""

import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

_SHOWN = {
    "loss": "loss/classifier",
    "D": "loss/discriminator",
    "G": "loss/generator",
    "D(x)": "score/real",
    "D(G(z))": "score/fake",
    "images/s": "speed/images_per_second",
}
_LINES = 20  # how many lines a work prints where there is no terminal
_BESIDE = 58  # columns of a terminal that a bar and its numbers take
_PAUSE = 15.0  # seconds of silence at least between the lines of a part


class LogFile:
    """log.txt of a run: all that is said, from before the run has a directory on. A full disk loses only the log."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._file: TextIO | None = None

    def open(self, path: Path) -> None:
        """Appends to `path` from now on, and what was said before."""
        with suppress(OSError):
            self._file = path.open("a")
            self._write(self._lines)

    def add(self, text: str) -> None:
        """Lines, each with the time."""
        lines = [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in text.splitlines()]
        if self._file is None:
            self._lines += lines
        else:
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        assert self._file is not None
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._file.writelines(lines)
            self._file.flush()

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


_log: LogFile | None = None


@contextmanager
def logged() -> Iterator[LogFile]:
    """While it lasts, what is said is kept for the log file, which is yet to be opened."""
    global _log  # noqa: PLW0603 (there is one console)
    before, _log = _log, LogFile()
    try:
        yield _log
    finally:
        _log.close()
        _log = before


def say(message: str, to: TextIO | None = None) -> None:
    """A line on standard error, or on `to`, from the first of the processes that share a run."""
    if os.environ.get("RANK", "0") != "0":
        return
    if _log is not None:
        _log.add(message)
    print(message, file=to or sys.stderr, flush=True)


def say_in_log(message: str) -> None:
    """A line in the log alone."""
    if _log is not None and os.environ.get("RANK", "0") == "0":
        _log.add(message)


def log_traceback(error: BaseException) -> None:
    """Where an error came from, in the log alone; what is said of it on the console is one line."""
    say_in_log("".join(traceback.format_exception(error)))


def rounded(value: float | None) -> str:
    """Four significant digits, or all those before the point; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def in_short(row: Mapping[str, float]) -> str:
    """The figures of a row that are worth looking at while they change."""
    return "  ".join(f"{name} {rounded(row[tag])}" for name, tag in _SHOWN.items() if tag in row)


class Progress:
    """Work of `total` units, of which `done` are: a bar with the time left on a terminal, plain lines elsewhere.

    A `part` of other work has its bar below that one's while it lasts, and says less where there are lines.
    """

    def __init__(self, unit: str, total: int, done: int = 0, part_of: "Progress | None" = None) -> None:
        self._unit, self._total, self._first = unit, total, done
        self._lines, self._pause = done * _LINES // total, 0.0 if part_of is None else _PAUSE
        self._begun = self._said = time.perf_counter()
        self._bar: Any = None if part_of is None else part_of._bar
        self._is_part = part_of is not None
        if part_of is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            bar = BarColumn(bar_width=12)
            columns = (TextColumn("{task.fields[unit]}"), bar, MofNCompleteColumn(), TimeElapsedColumn())
            left = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, *left, console=Console(stderr=True))
            self._bar.start()
        if self._bar is not None:
            self._task = self._bar.add_task("", total=total, completed=done, unit=unit)

    def show(self, done: int, text: str) -> None:
        """Called where there is something to show: so many units are done, and `text`."""
        if self._bar is not None:
            room = max(0, self._bar.console.width - _BESIDE)  # a line that is too long costs the numbers their ends
            self._bar.update(self._task, completed=done, description=text[:room])
        now, lines = time.perf_counter(), done * _LINES // self._total
        if lines > self._lines and now - self._said >= self._pause:
            self._lines, self._said = lines, now
            left = (now - self._begun) / (done - self._first) * (self._total - done)
            tell = say if self._bar is None else say_in_log
            tell(f"{self._unit} {done}/{self._total}  {text}  {math.ceil(left)} s left")

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is None:
            return
        if self._is_part:
            self._bar.remove_task(self._task)
        else:
            self._bar.stop()
