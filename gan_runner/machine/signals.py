"""Signals that ask a run to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gan_runner.console import say
from gan_runner.machine.devices import under_torchrun


@contextmanager
def answered_signals(ask_to_stop: Callable[[], None]) -> Iterator[None]:
    """While it lasts, SIGTERM and SIGINT ask to stop; a second one has its usual effect.

    Not on one of several processes: a signal to all of them reaches each twice, once through whoever started them,
    who also ends them where they do not stop.
    """
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def answer(*_: Any) -> None:
        if not under_torchrun():
            restore()
        say("stopping after this step; once more to stop at once")
        ask_to_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in a background job, or where a parent answers
            previous[number] = signal.signal(number, answer)
    try:
        yield
    finally:
        restore()
