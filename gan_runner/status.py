"""How a command ends: its exit status and objective."""

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """The exit status of a command."""

    COMPLETED = 0
    FAILED = 1
    REFUSED = 2  # because of the configuration or the input; nothing was done
    DIVERGED = 3
    INTERRUPTED = 75  # saved; can be resumed


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int  # a `Status`, or a child process's exit status
    objective: float | None = None  # for a sweep to optimize; NaN: undefined, None: there is none
