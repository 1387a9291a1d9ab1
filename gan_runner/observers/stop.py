"""What ends a training before its last step, in all of its processes at once."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gan_runner.observers.base import Diverged, Interrupted, Moment, Observer
from gan_runner.observers.log import AfterOthers
from gan_runner.stopping import stopping

LOOK = 2.0  # seconds between two looks of several processes at whether one of them was asked to stop


@dataclass
class StopWhenAsked(Observer):
    """Ends the training of one process after the step under way, once it was asked to stop."""

    def is_due(self, step: int) -> bool:
        return stopping.asked

    def __call__(self, moment: Moment) -> None:
        if moment.step < self.steps or moment.is_left:  # else nothing is left to do
            moment.ending = Interrupted()


@dataclass
class StopTogether(AfterOthers):
    """Ends the training of several processes, once one of them was asked to stop.

    They look where they wait for each other anyway, and besides every few seconds. How many steps that are they agree
    on as well, because their clocks differ.
    """

    mean: Callable[[Tensor], Tensor]
    looked: tuple[int, float] = field(default=(0, 0.0), init=False)  # at which step, and when
    next_look: int = field(default=0, init=False)

    def begin(self, step: int) -> None:
        self.looked = (step, time.perf_counter())

    def is_due(self, step: int) -> bool:
        return step >= self.next_look or super().is_due(step)

    def __call__(self, moment: Moment) -> None:
        (before, then), step, now = self.looked, moment.step, time.perf_counter()
        wants = stopping.asked and (step < self.steps or moment.is_left)
        in_a_look = LOOK * (step - before) / (now - then)
        wanting, steps = self.mean(torch.tensor([float(wants), in_a_look])).tolist()
        self.looked, self.next_look = (step, now), step + max(1, int(steps))
        if wanting:
            moment.ending = Interrupted()


@dataclass
class StopOnFindings(Observer):
    """Ends the training where the doctor has found what it is to stop on."""

    findings: Callable[[], Collection[str]]  # what holds now, of what it is to stop on
    any_process: Callable[[bool], bool]

    def is_due(self, step: int) -> bool:
        """While there is something to stop."""
        return step % self.every == 0 and step < self.steps

    def begin(self, step: int) -> None:
        """A run that has stopped does not go on because it is started again."""
        if self.is_due(step):
            self._stop_if_found()

    def __call__(self, moment: Moment) -> None:
        try:
            self._stop_if_found()
        except Diverged as error:
            moment.ending = error

    def _stop_if_found(self) -> None:
        found = self.findings()
        if self.any_process(bool(found)):
            raise Diverged(f"the doctor found {', '.join(found)}, on which it is to stop")
