"""What counts as progress of this process, for whoever watches whether it hangs.

A step, a message, and a part of an evaluation do. Outside of the steps, and while one is compiled, so does the use of
the processor, because there nothing can be said for a while.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BUSY = 0.1  # of the time since it was last asked: a process that waits uses less of the processor


class Heartbeat:
    """The progress of one process; the module's `heartbeat` is this process's."""

    def __init__(self) -> None:
        self.step: Callable[[], int] = lambda: 0
        self._beats = 0
        self._only_steps_count = False
        self._seen = (0, 0)
        self._since = (time.perf_counter(), time.process_time())

    def beat(self) -> None:
        """Something was said or shown."""
        self._beats += 1

    @contextmanager
    def steps(self, step: Callable[[], int]) -> Iterator[None]:
        """In the block, `step` gives the step that is reached, and using the processor is no progress by itself."""
        self.step, self._only_steps_count = step, True
        try:
            yield
        finally:
            self._only_steps_count = False

    @contextmanager
    def long_work(self) -> Iterator[None]:
        """In the block, which may be inside one of `steps`, using the processor is progress."""
        before, self._only_steps_count = self._only_steps_count, False
        try:
            yield
        finally:
            self._only_steps_count = before

    def has_moved(self) -> bool:
        """Whether there was progress since this was last asked."""
        seen, since = (self.step(), self._beats), (time.perf_counter(), time.process_time())
        (wall, cpu), was_seen = self._since, self._seen
        self._seen, self._since = seen, since
        is_busy = since[1] - cpu > BUSY * (since[0] - wall)
        return seen != was_seen or (is_busy and not self._only_steps_count)


heartbeat = Heartbeat()
