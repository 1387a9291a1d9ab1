"""The signals that ask a run to stop: SIGTERM, SIGINT, and a scheduler's warnings SIGUSR1 and SIGUSR2."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WARNINGS = {signal.SIGUSR1, signal.SIGUSR2}  # sent some time before a time limit, or before others run instead
STOP = {signal.SIGTERM, signal.SIGINT, *WARNINGS}


@contextmanager
def on_stop_signal(handler: Callable[[], None], *, once: bool) -> Iterator[None]:
    """Calls `handler` at a signal of `STOP` until the block ends. If `once`, a second one has its usual effect.

    If not `once`, each signal calls it. Signals after the block are then ignored if one came inside it: the process is
    about to end with the right exit status. Warnings, and the first other signal after them, are one and the same
    request, because a scheduler sends several. A signal that was already ignored stays so, as SIGINT in a shell's
    background job and in a worker, whose parent passes it on.
    """
    previous: dict[int, Any] = {}
    received: set[int] = set()

    def restore(numbers: set[int]) -> None:
        for number in numbers:
            signal.signal(number, previous[number])

    def handle(number: int, _: Any) -> None:
        is_same_request = bool(received) and (number in WARNINGS or received <= WARNINGS)
        received.add(number)
        if once and number not in WARNINGS:
            restore(previous.keys() - WARNINGS)
        if not is_same_request:
            handler()

    for number in STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        if received and not once:
            previous = dict.fromkeys(previous, signal.SIG_IGN)
        restore({*previous})
