"""Who watches a training: an observer is called after the steps at which it is due."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
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
    computed: dict[str, Tensor]  # by the step
    trained: tuple[int, float]  # steps, and seconds spent on them, since observers last looked
    row: Row = field(default_factory=dict)  # what is logged of this step
    ending: Exception | None = None  # what ends the training when all have looked


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
