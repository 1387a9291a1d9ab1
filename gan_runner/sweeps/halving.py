"""Successive halving, asynchronously: at each rung a job goes on if it is among the best that have come there so far.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (ASHA, 2020), but that the best of a rung always goes
on, so that there is a job that comes to its end.
"""

import math
from collections.abc import Iterable

from gan_runner.config.schema import Halving as Settings
from gan_runner.errors import UserError


def rungs_of(settings: Settings, steps: int, every: int) -> list[int]:
    """The steps first, first·factor, first·factor² … before the last one, `steps`.

    Raises `UserError` if the first is not, or before the first evaluation; there is one `every` so many steps.
    """
    first = round(settings.first * steps) if settings.first < 1 else int(settings.first)
    if not every <= first < steps:
        raise UserError(
            f"hydra.sweeper.halving.first={settings.first:g}: the first rung is step {first}; allowed: "
            f"from the first evaluation, trainer.evaluate_every={every}, to before the last step, trainer.steps={steps}"
        )
    count = math.ceil(math.log(steps / first, settings.factor)) + 1  # one too many rather than one too few
    return [rung for number in range(count) if (rung := first * settings.factor**number) < steps]


class Rungs:
    """The cost of each job, of which less is better, at each rung: of its first evaluation there or later."""

    def __init__(self, factor: int, steps: Iterable[int]) -> None:
        self.factor = factor
        self.costs: dict[int, dict[str, float]] = {step: {} for step in sorted(steps)}

    def next(self, job: str) -> float:
        """The step of the lowest rung at which nothing is known of the job; infinity past the last one."""
        return next((step for step, costs in self.costs.items() if job not in costs), math.inf)

    def see(self, job: str, costs: Iterable[tuple[int, float]]) -> bool:
        """Takes in what a job's evaluations gave so far, by step; whether it has come to a rung by that."""
        before = self.next(job)
        for step, cost in costs:
            while step >= self.next(job):
                self.costs[int(self.next(job))][job] = cost
        return self.next(job) != before

    def of(self, job: str) -> list[tuple[int, float]]:
        """The rungs that the job has come to, each with its cost."""
        return [(step, costs[job]) for step, costs in self.costs.items() if job in costs]

    def may_go_on(self, job: str) -> bool:
        """Whether the job is among the best 1/factor of those at the highest rung that it has come to."""
        reached = self.of(job)
        if not reached:
            return True
        costs = self.costs[reached[-1][0]]
        best = sorted(costs, key=lambda other: math.inf if math.isnan(costs[other]) else costs[other])
        return job in best[: max(1, len(costs) // self.factor)]
