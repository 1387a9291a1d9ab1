"""The metrics, while the training runs."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from gan_runner.console import Progress, say
from gan_runner.evaluation.evaluation import Evaluation
from gan_runner.evaluation.report import Report
from gan_runner.heartbeat import heartbeat
from gan_runner.metrics import Goal
from gan_runner.observers.base import Moment, Observer, Row
from gan_runner.observers.networks import Networks
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.logger import Logger
from gan_runner.stopping import stopping


class BestSoFar:
    """The best value of the figure to select by, and its step; the newest of several as good."""

    def __init__(self, objective: tuple[str, Goal] | None, rows: Iterable[Row]) -> None:
        self.tag: str = objective[0] if objective is not None else ""
        self.goal: Goal | None = objective[1] if objective is not None else None
        self.value, self.step = math.nan, 0
        for row in rows:
            self.take(row["step"], row)

    def take(self, step: int, row: Row) -> None:
        """Looks at the row of the next step."""
        value = row.get(self.tag)
        if value is not None and not (value > self.value if self.goal == "min" else value < self.value):
            self.value, self.step = value, step


@dataclass
class Evaluate(Observer):
    """Holds the generator against the data; evaluation.json has the newest figures with all that they depend on."""

    evaluation: Evaluation
    best: BestSoFar
    networks: Networks
    directory: RunDirectory
    logger: Logger
    progress: Progress
    report: Report = field(default_factory=Report, init=False)  # of the newest evaluation

    def __call__(self, moment: Moment) -> None:
        last = moment.step == self.steps
        with heartbeat.long_work(), stopping.may_leave():
            self.report = self.evaluation(self.networks.sample, self.networks.seed, last, self.progress)
        if self.report.figures or self.report.failures:
            moment.row.update(self.report.row())
            self.best.take(moment.step, moment.row)
            self.keep(moment)

    def keep(self, moment: Moment) -> None:
        """Writes the report; a full disk costs only that."""
        content = {"step": moment.step, **self.report.to_json()}
        best = self.best
        if best.step:
            content["objective"] = {"figure": best.tag, "goal": best.goal, "value": best.value, "step": best.step}
        elif best.tag.removeprefix("metric/") in self.report.figures:  # undefined, which is no failure
            content["objective"] = {"figure": best.tag, "goal": best.goal, "value": None, "step": moment.step}
        try:
            self.directory.write_json("evaluation.json", content, durable=moment.step == self.steps)
            for name, picture in self.report.pictures.items():
                file = self.directory.path / "evaluation" / f"{name}.png"
                self.logger.image(f"evaluation/{name}", picture, moment.step, file)
        except OSError as error:
            say(f"warning: the evaluation at step {moment.step} is not kept: {error.strerror}")
