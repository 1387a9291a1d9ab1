"""Messages: on standard error and in a run's log.txt. Standard output is for results, such as the run directory."""

import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TextIO

from gan_runner.heartbeat import heartbeat

STDERR = 2  # its file descriptor
_SHOWN = {
    "loss": "loss/classifier",
    "D": "loss/discriminator",
    "G": "loss/generator",
    "D(x)": "score/real",
    "D(G(z))": "score/fake",
    "images/s": "speed/images_per_second",
}
_LINES = 20  # lines of progress in all, without a terminal
_BAR_WIDTH = 58  # columns of a terminal that a bar and its numbers take
PAUSE = 15.0  # least seconds between two lines about work that is usually short


class LogFile:
    """A run's log.txt: all messages, including those from before the run had a directory. A full disk is no error."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._file: TextIO | None = None
        self.is_console = False  # in a job of a sweep, whose standard error is the same file
        self.last_error: str | None = None

    def open(self, path: Path) -> None:
        """From now on appends to `path`, beginning with the messages so far; does nothing if it is open already."""
        if self._file is not None:
            return
        with suppress(OSError):
            self._file = path.open("a")
            self.is_console = os.path.sameopenfile(self._file.fileno(), STDERR)
            self._write([] if self.is_console else self._lines)

    def add(self, text: str) -> None:
        """Adds lines, each with the time."""
        if text.startswith("error: "):
            self.last_error = text.removeprefix("error: ")
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
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


_log: LogFile | None = None


@contextmanager
def logged() -> Iterator[LogFile]:
    """Inside the block, messages also go to the log file, which the caller opens as soon as it has a path.

    A block inside another uses the same log file.
    """
    global _log  # noqa: PLW0603 (there is one console)
    if _log is not None:
        yield _log
        return
    _log = LogFile()
    try:
        yield _log
    finally:
        _log.close()
        _log = None


def say(message: str, to: TextIO | None = None) -> None:
    """Prints a line on standard error, or on `to`; of the processes that share a run, only rank 0 does."""
    if os.environ.get("RANK", "0") != "0":
        return
    heartbeat.beat()
    if _log is not None:
        _log.add(message)
    if _log is None or not _log.is_console:
        print(message, file=to or sys.stderr, flush=True)


def say_in_log(message: str) -> None:
    """Writes a line to the log only."""
    if _log is not None and os.environ.get("RANK", "0") == "0":
        _log.add(message)


def say_traceback(error: BaseException) -> None:
    """Prints the traceback on standard error, and writes it to the log."""
    say("".join(traceback.format_exception(error)).rstrip())


def log_traceback(error: BaseException) -> None:
    """Writes the traceback to the log only; the console shows one line about the error."""
    say_in_log("".join(traceback.format_exception(error)))


def rounded(value: float | None) -> str:
    """Four significant digits, but no fewer than the integer part has; "" for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def progress_text(row: Mapping[str, float]) -> str:
    """The figures of a row that a progress bar shows."""
    return "  ".join(f"{name} {rounded(row[tag])}" for name, tag in _SHOWN.items() if tag in row)


class Progress:
    """The progress of `total` units of work: on a terminal a bar with the time left, elsewhere a few plain lines.

    There are at least `pause` seconds between two lines. Work inside other work may name the other's Progress as
    `parent`: its lines are fewer. Its bar is below in any case.
    """

    _shared: ClassVar[Any] = None  # the terminal's, while one is open

    def __init__(
        self, unit: str, total: int, done: int = 0, parent: "Progress | None" = None, pause: float = 0.0
    ) -> None:
        self._unit, self._total, self._first = unit, max(1, total), done
        self._lines, self._pause = done * _LINES // self._total, pause if parent is None else PAUSE
        self._begun = self._said = time.perf_counter()
        self._bar: Any = Progress._shared
        self._is_inner = parent is not None or self._bar is not None
        if not self._is_inner and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            bar = BarColumn(bar_width=12)
            columns = (TextColumn("{task.fields[unit]}"), bar, MofNCompleteColumn(), TimeElapsedColumn())
            left = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, *left, console=Console(stderr=True))
            self._bar.start()
            Progress._shared = self._bar
        if self._bar is not None:
            self._task = self._bar.add_task("", total=total, completed=done, unit=unit)

    def show(self, done: int, text: str) -> None:
        """Shows how many units are done, and `text`."""
        heartbeat.beat()
        if self._bar is not None:
            room = max(0, self._bar.console.width - _BAR_WIDTH)  # a longer text would cut the numbers
            self._bar.update(self._task, completed=done, description=text[:room])
        now, lines = time.perf_counter(), done * _LINES // self._total
        if lines > self._lines and now - self._said >= self._pause:
            self._lines, self._said = lines, now
            left = (now - self._begun) / (done - self._first) * (self._total - done)
            write = say if self._bar is None else say_in_log
            write(f"{self._unit} {done}/{self._total}  {text}  {math.ceil(left)} s left")

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is None:
            return
        if self._is_inner:
            self._bar.remove_task(self._task)
        else:
            self._bar.stop()
            Progress._shared = None
