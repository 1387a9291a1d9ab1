"""Who watches a training: an observer is called after the steps at which it is due."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from torch import Tensor

Row = dict[str, Any]  # figures by TensorBoard's tags: a line of metrics.jsonl


class Diverged(Exception):
    """The training went off course: a number is not finite, or the doctor found what `trainer.stop_on` names."""


class NotFinite(Diverged):
    """A loss or a weight is no longer a finite number."""


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""


@dataclass
class Moment:
    """A step at which some observers are due, and what they make of it."""

    step: int
    computed: dict[str, Tensor] = field(default_factory=dict)  # by the step
    trained: tuple[int, float] = (0, 0.0)  # steps, and seconds spent on them, since observers last looked
    row: Row = field(default_factory=dict)  # what is logged of this step
    is_ready: bool = False  # the state can be saved
    is_left: bool = False  # not all have looked, because the run is to stop
    ending: Exception | None = None  # what ends the training


@dataclass
class Observer(ABC):
    """Looks at every `every`-th step, and at the last of `steps`."""

    every: int
    steps: int

    def is_due(self, step: int) -> bool:
        """Whether it is to look at what `step` made."""
        return step % self.every == 0 or step == self.steps

    @abstractmethod
    def __call__(self, moment: Moment) -> None:
        """Looks, and may add to the moment's row or end the training."""

    def begin(self, step: int) -> None:  # noqa: B027 (most have nothing to do)
        """Called once before the training begins, or goes on after `step`."""

    def end(self, error: BaseException | None) -> None:  # noqa: B027 (most have nothing to do)
        """Called once when the training has ended, with what ended it early."""


@dataclass(frozen=True)
class Observers:
    """All observers of a process, in the order in which they look."""

    first: list[Observer]  # they are quick, and the checkpoint that is due comes last
    slow: list[Observer]  # they change nothing but logs; where a stop cuts them short, the resumed run calls them again
    last: list[Observer]  # what all processes agree on
    at_the_end: list[Observer]  # called where one of the last ends the training

    def __iter__(self) -> Iterator[Observer]:
        return chain(self.first, self.slow, self.last)
