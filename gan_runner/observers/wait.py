"""The other processes wait while the first one draws, measures and writes."""

from collections.abc import Collection

from gan_runner.machine.ranks import Ranks
from gan_runner.observers.base import Moment
from gan_runner.observers.log import AfterOthers


class WaitForMain(AfterOthers):
    """However long that takes: a collective that all processes take part in has a time limit."""

    def __init__(self, periods: Collection[int], steps: int, ranks: Ranks) -> None:
        super().__init__(periods, steps)
        self.ranks = ranks

    def __call__(self, moment: Moment) -> None:
        self.ranks.wait_for_main()
