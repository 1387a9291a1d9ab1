"""A stop that was asked for, and the work that may be left for its sake."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Left(KeyboardInterrupt):
    """Work was left where it was, because the run is to stop. Like Ctrl-C, nothing that survives errors survives it."""


class Stopping:
    """Whether this process was asked to stop; the module's `stopping` is this process's."""

    def __init__(self) -> None:
        self.asked = False
        self._may_leave = False

    def begin(self) -> None:
        """Forgets what was asked of an earlier run in this process."""
        self.asked = self._may_leave = False

    def ask(self) -> None:
        """As a signal does: leaves the work under way, if it may be left."""
        was_asked, self.asked = self.asked, True
        if not was_asked:
            self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Between two parts of long work: what a signal raises is lost where Python was collecting garbage."""
        if self.asked and self._may_leave:
            raise Left

    def stay(self) -> None:
        """From now on the work is not left any more, although its block goes on."""
        self._may_leave = False

    @contextmanager
    def may_leave(self) -> Iterator[None]:
        """The block changes nothing that a run goes on from: once a stop is asked for, it is left with `Left`."""
        before, self._may_leave = self._may_leave, True
        try:
            self.leave_if_asked()
            yield
        finally:
            self._may_leave = before


stopping = Stopping()


def answering(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)`, called in another thread: inside of one long call of a library, no signal is answered."""
    outcome = Future[T]()

    def call() -> None:
        try:
            outcome.set_result(function(*arguments))
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()  # nothing waits for one that is left
    return outcome.result()
