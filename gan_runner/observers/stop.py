"""What ends a training before its last step, in all of its processes at once."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from gan_runner.observers.base import Diverged, Interrupted, Moment, Observer


@dataclass
class StopWhenAsked(Observer):
    """Ends the training after the step under way, once `ask` was called in any of the processes."""

    processes: int
    any_process: Callable[[bool], bool]
    asked: bool = False

    def ask(self) -> None:
        """As a signal does."""
        self.asked = True

    def is_due(self, step: int) -> bool:
        """At once; or for several processes, which wait for each other to agree, where logging makes them do so."""
        return self.asked if self.processes == 1 else super().is_due(step)

    def __call__(self, moment: Moment) -> None:
        if self.any_process(self.asked) and moment.step < self.steps:
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
