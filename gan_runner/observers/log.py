"""What the observers before it found, written down and shown."""

from collections.abc import Collection
from dataclasses import dataclass

from gan_runner.console import Progress, progress_text
from gan_runner.observers.base import Moment, Observer
from gan_runner.runs.logger import Logger


@dataclass
class AfterOthers(Observer):
    """Due whenever one of the observers with these periods is, itself among them."""

    periods: Collection[int]

    def is_due(self, step: int) -> bool:
        return 0 in map(step.__mod__, self.periods) or step == self.steps


@dataclass
class Log(AfterOthers):
    """Writes the row of each step at which there is something to log."""

    logger: Logger
    progress: Progress

    def __call__(self, moment: Moment) -> None:
        if moment.row:
            self.logger.write(moment.step, moment.row)
            self.progress.show(moment.step, progress_text(moment.row))

    def end(self, error: BaseException | None) -> None:
        self.progress.close()
