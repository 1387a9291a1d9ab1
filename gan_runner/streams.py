"""Standard streams that end no run, although they are closed, or whoever read them has left."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


def open_closed_streams() -> None:
    """Opens /dev/null in place of each standard stream that is closed: another file would get its number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number; for children as well


class _Lasting(io.FileIO):
    """A descriptor that leads to /dev/null from its first error on: a pipe without a reader, a full disk."""

    def write(self, content: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(content).nbytes


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    raw = io.BufferedWriter(_Lasting(descriptor, "w", closefd=False))
    if stream is None:  # it was closed
        return io.TextIOWrapper(raw, "utf-8", "backslashreplace")
    is_terminal, errors = descriptor == 2 or stream.isatty(), stream.errors or "backslashreplace"
    return io.TextIOWrapper(raw, stream.encoding, errors, line_buffering=is_terminal)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """In the block, nothing that is printed can fail. What has taken a stream's place, as in a test, stays there."""
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(sys.__stdout__, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.__stderr__, 2)
    try:
        yield
    finally:
        for now, earlier in zip((sys.stdout, sys.stderr), before, strict=True):
            if now is not earlier and now is not None:
                now.flush()
        sys.stdout, sys.stderr = before
