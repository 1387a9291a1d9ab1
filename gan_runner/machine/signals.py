"""SIGTERM and SIGINT, which ask a run to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_stop_signal(handler: Callable[[], None], *, once: bool) -> Iterator[None]:
    """Calls `handler` at SIGTERM or SIGINT until the block ends. If `once`, a second signal has its usual effect.

    If not `once`, each signal calls it. Signals after the block are then ignored if one came inside it: the process is
    about to end with the right exit status. A SIGINT that was already ignored stays so, as in a shell's background job
    and in a worker, whose parent passes it on.
    """
    previous: dict[int, Any] = {}
    received = False

    def restore() -> None:
        for number, before in previous.items():
            signal.signal(number, before)

    def handle(*_: Any) -> None:
        nonlocal received
        received = True
        if once:
            restore()
        handler()

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        if received and not once:
            previous = dict.fromkeys(previous, signal.SIG_IGN)
        restore()
