"""The figure that a sweep goes by: what a run's files say of it, read without torch."""

import json
import math
from pathlib import Path
from typing import Literal

from gan_runner.config.schema import Section, validate
from gan_runner.runs.directory import read_json


class Objective(Section):
    """The figure that a search goes by, as evaluation.json names it with its best value so far."""

    figure: str
    goal: Literal["min", "max"]
    value: float | None
    step: int

    def cost(self, value: float | None) -> float:
        """The same as a number of which less is better; an undefined one is the worst."""
        if value is None or math.isnan(value):
            return math.inf
        return value if self.goal == "min" else -value


def read_objective(path: Path) -> Objective | None:
    """The objective of the run in `path`; None if it has none yet. Raises `UserError`."""
    file = path / "evaluation.json"
    found: Objective | None = validate(Objective | None, read_json(file).get("objective"), f"{file}: objective")
    return found


def read_figure(path: Path, figure: str) -> list[tuple[int, float]]:
    """A figure of the run in `path` so far, by step."""
    file = path / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []  # the last one may be cut short
    rows = map(json.loads, lines)
    return [(row["step"], row[figure]) for row in rows if figure in row]
