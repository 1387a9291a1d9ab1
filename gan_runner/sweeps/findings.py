"""search.json: the trials of a search, the best one, and how much each key matters."""

import json
import math
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt

from gan_runner.config.schema import Searching, Section, validate
from gan_runner.paths import write_atomically
from gan_runner.runs.directory import read_json
from gan_runner.sweeps.jobs import State, Sweep
from gan_runner.sweeps.objective import Objective
from gan_runner.sweeps.study import Study, Trial

FILE = "search.json"


class Tried(Section):
    """A trial and what became of it."""

    number: NonNegativeInt
    job: str | None  # None: its values did not compose
    state: State
    value: float | None
    values: dict[str, str]  # as typed, by key


class Findings(Section):
    """The content of search.json."""

    figure: str | None  # that the search goes by; None as long as no trial has it
    goal: Literal["min", "max"] | None
    space: dict[str, str]  # what is searched, as typed
    settings: Searching
    trials: list[Tried]
    best: NonNegativeInt | None  # the number of a trial
    importances: dict[str, float]  # the shares that the keys have in what made trials good; {} while that is not known

    @property
    def best_trial(self) -> Tried | None:
        """The best of those that have come to their end."""
        return next((trial for trial in self.trials if trial.number == self.best), None)


def write_findings(study: Study, sweep: Sweep, directory: Path) -> None:
    """Writes what is known now."""
    content = (json.dumps(_findings(study, sweep, directory).model_dump(), indent=1) + "\n").encode()
    write_atomically(directory / FILE, content, durable=False)


def read_findings(directory: Path) -> Findings | None:
    """What the search in `directory` has found so far; None if there is none. Raises `UserError`."""
    content = read_json(directory / FILE)
    return validate(Findings, content, str(directory / FILE)) if content else None


def _findings(study: Study, sweep: Sweep, directory: Path) -> Findings:
    jobs, trials = sweep.jobs, study.trials()
    objective = next((found for name in jobs if (found := Objective.of(directory / name))), None)
    costs = {t.number: t.cost for t in trials if t.state == "complete" and t.cost is not None and t.cost < math.inf}
    return Findings(
        figure=objective.figure if objective is not None else None,
        goal=objective.goal if objective is not None else None,
        space={key: some.typed for key, some in study.space.items()},
        settings=study.settings,
        trials=[
            Tried(
                number=trial.number,
                job=trial.job,
                state=jobs[trial.job].state if trial.job in jobs else "refused",
                value=_value(trial, objective),
                values=trial.values,
            )
            for trial in trials
        ],
        best=min(costs, key=lambda number: costs[number]) if costs else None,
        importances=study.importances(),
    )


def _value(trial: Trial, objective: Objective | None) -> float | None:
    """A trial's cost as the figure that it is made from."""
    if objective is None or trial.cost is None or not math.isfinite(trial.cost):
        return None
    return trial.cost if objective.goal == "min" else -trial.cost
