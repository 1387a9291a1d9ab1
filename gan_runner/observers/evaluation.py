"""The metrics, while the training runs."""

from collections.abc import Sequence

from gan_runner import pictures
from gan_runner.console import Progress, say
from gan_runner.evaluation.evaluation import Evaluation
from gan_runner.evaluation.report import Report
from gan_runner.metrics import Goal
from gan_runner.observers.base import Moment, Observer, Row
from gan_runner.observers.networks import Networks
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.logger import Logger


class Evaluate(Observer):
    """Holds the generator against the data; evaluation.json has the newest figures with all that they depend on."""

    def __init__(
        self,
        every: int,
        steps: int,
        evaluation: Evaluation,
        objective: tuple[str, Goal] | None,  # the figure to select by, and which way is better
        networks: Networks,
        directory: RunDirectory,
        logger: Logger,
        progress: Progress,
    ) -> None:
        super().__init__(every, steps)
        self.evaluation, self.objective, self.networks = evaluation, objective, networks
        self.directory, self.logger, self.progress = directory, logger, progress
        self.report = Report()  # of the newest evaluation

    def __call__(self, moment: Moment) -> None:
        last = moment.step == self.steps
        self.report = self.evaluation(self.networks.sample, self.networks.seed, last, self.progress)
        if self.report.figures or self.report.failures:
            moment.row.update(self.report.row())
            self.keep(moment)

    def keep(self, moment: Moment) -> None:
        """Writes the report; a full disk costs only that."""
        content = {"step": moment.step, **self.report.to_json()}
        if self.objective is not None:
            tag, goal = self.objective
            found = best([*self.logger.rows, {"step": moment.step, **self.report.row()}], tag, goal)
            found = found or {"step": moment.step, tag: None}
            if found[tag] is not None or tag.removeprefix("metric/") in self.report.figures:  # undefined, no failure
                content["objective"] = {"figure": tag, "goal": goal, "value": found[tag], "step": found["step"]}
        try:
            self.directory.write_json("evaluation.json", content, durable=moment.step == self.steps)
            for name, picture in self.report.pictures.items():
                pictures.save(self.directory.path / "evaluation" / f"{name}.png", picture)
                self.logger.image(f"evaluation/{name}", picture, moment.step)
        except OSError as error:
            say(f"warning: the evaluation at step {moment.step} is not kept: {error.strerror}")


def best(rows: Sequence[Row], tag: str, goal: Goal) -> Row | None:
    """The row with the best value of `tag`, the newest of several as good; None where no row has it."""
    sign = 1 if goal == "max" else -1
    return max((row for row in rows if tag in row), key=lambda row: (sign * row[tag], row["step"]), default=None)
