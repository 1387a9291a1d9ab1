"""How a command ends."""

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """The exit status of a command."""

    COMPLETED = 0
    FAILED = 1
    REFUSED = 2  # the configuration or the input; nothing was done
    DIVERGED = 3
    INTERRUPTED = 75  # saved, and can go on


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int  # a `Status`, or what a child process ended with
    objective: float | None = None  # what a sweep optimizes: NaN where it is undefined, None where there is none
