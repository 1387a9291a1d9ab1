"""The signals that ask a process to stop: SIGTERM, SIGINT, SIGHUP, and a scheduler's warnings SIGUSR1 and SIGUSR2."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Sent some time before a time limit, or before others run instead; SIGHUP by a terminal that closes, and by its shell.
WARNINGS = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}
STOP = {signal.SIGTERM, signal.SIGINT, *WARNINGS}
INTERRUPTED = 128 + signal.SIGINT  # the exit status of a process that had nothing to save


@contextmanager
def on_stop_signal(handler: Callable[[], None], *, once: bool) -> Iterator[None]:
    """Calls `handler` at a signal of `STOP` until the block ends. If `once`, a second one has its usual effect.

    If not `once`, each signal calls it. Signals after the block are then ignored if one came inside it: the process is
    about to end with the right exit status. Warnings, and the first other signal after them, are one and the same
    request, because a scheduler sends several. A signal that was already ignored stays so, as SIGINT in a shell's
    background job and in a worker, whose parent passes it on, and SIGHUP under nohup.
    """
    previous: dict[int, Any] = {}
    received: set[int] = set()

    def handle(number: int, _: Any) -> None:
        is_same_request = bool(received) and (number in WARNINGS or received <= WARNINGS)
        received.add(number)
        if once and number not in WARNINGS:
            for other in previous.keys() - WARNINGS:
                signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_DFL)
        if not is_same_request:
            handler()

    number: int
    for number in STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, before in previous.items():
            if not received:
                signal.signal(number, before)
            elif not once:
                signal.signal(number, signal.SIG_IGN)


def interrupt() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt
