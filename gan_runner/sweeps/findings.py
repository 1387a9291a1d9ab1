"""search.json: the trials of a search, the best one, and how much each key matters."""

import json
import math
from pathlib import Path
from typing import Any

from gan_runner.paths import write_atomically
from gan_runner.runs.directory import read_json
from gan_runner.sweeps.jobs import Sweep
from gan_runner.sweeps.objective import Objective
from gan_runner.sweeps.study import Study, Trial

FILE = "search.json"


def write_findings(study: Study, sweep: Sweep, directory: Path) -> None:
    """Writes what is known now."""
    content = (json.dumps(_findings(study, sweep, directory), indent=1) + "\n").encode()
    write_atomically(directory / FILE, content, durable=False)


def read_findings(directory: Path) -> dict[str, Any]:
    """What the search in `directory` has found so far; {} if there is none. Raises `UserError`."""
    return read_json(directory / FILE)


def _findings(study: Study, sweep: Sweep, directory: Path) -> dict[str, Any]:
    jobs, trials = sweep.jobs, study.trials()
    objective = next((found for name in jobs if (found := Objective.of(directory / name))), None)
    rows = [
        {
            "number": trial.number,
            "job": trial.job,
            "state": jobs[trial.job].state if trial.job in jobs else "refused",
            "value": _value(trial, objective),
            "values": trial.values,
        }
        for trial in trials
    ]
    costs = {t.number: t.cost for t in trials if t.state == "complete" and t.cost is not None and t.cost < math.inf}
    return {
        "objective": {"figure": objective.figure, "goal": objective.goal} if objective is not None else None,
        "space": {key: numbers.typed for key, numbers in study.space.items()},
        "settings": study.settings.model_dump(),
        "trials": rows,
        "best": rows[min(costs, key=lambda number: costs[number])] if costs else None,
        "importances": study.importances(),
    }


def _value(trial: Trial, objective: Objective | None) -> float | None:
    """A trial's cost as the figure that it is made from."""
    if objective is None or trial.cost is None or not math.isfinite(trial.cost):
        return None
    return trial.cost if objective.goal == "min" else -trial.cost
