"""SIGTERM and SIGINT: what asks a run to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_stop_signal(handler: Callable[[], None], *, once: bool) -> Iterator[None]:
    """Calls `handler` at SIGTERM and SIGINT until the block ends; if `once`, a second one has its usual effect.

    If not `once`, each one calls it, and those that come after the block are ignored: the process is about to end, and
    its exit status is to say how. A SIGINT that was ignored before stays so: in a background job of a shell, and in a
    worker, whose parent passes it on.
    """
    previous: dict[int, Any] = {}
    came = False

    def restore() -> None:
        for number, before in previous.items():
            signal.signal(number, before)

    def handle(*_: Any) -> None:
        nonlocal came
        came = True
        if once:
            restore()
        handler()

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        if came and not once:
            previous = dict.fromkeys(previous, signal.SIG_IGN)
        restore()
