"""The other processes wait while the first one draws, measures and writes."""

from dataclasses import dataclass

from gan_runner.machine.ranks import Ranks
from gan_runner.observers.base import Moment
from gan_runner.observers.log import AfterOthers


@dataclass
class WaitForMain(AfterOthers):
    """However long that takes: a collective that all processes take part in has a time limit."""

    ranks: Ranks

    def __call__(self, moment: Moment) -> None:
        self.ranks.wait_for_main()
