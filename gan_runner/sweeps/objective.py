"""The figure that a search goes by: what a run's files say of it, read without torch and while it runs."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Optional

from gan_runner.config.schema import Section, validate
from gan_runner.errors import UserError
from gan_runner.runs.directory import read_json


class Objective(Section):
    """A figure and which way is better, with its best value so far, as evaluation.json has them."""

    figure: str
    goal: Literal["min", "max"]
    value: float | None
    step: int

    @classmethod
    def of(cls, run: Path) -> Optional["Objective"]:
        """That of a run; None if it has none yet."""
        try:
            found: Objective | None = validate(cls | None, read_json(run / "evaluation.json").get("objective"))
        except UserError:
            return None
        return found

    def cost(self, value: float | None) -> float:
        """A value of the figure as a number of which less is better; an undefined one is the worst."""
        if value is None or math.isnan(value):
            return math.inf
        return value if self.goal == "min" else -value

    def costs(self, run: Path) -> Iterator[tuple[int, float]]:
        """What the figure was so far, by step."""
        file = run / "metrics.jsonl"
        for line in file.read_bytes().splitlines(keepends=True) if file.exists() else []:
            if line.endswith(b"\n") and self.figure.encode() in line:  # the last one may be half written
                row = json.loads(line)
                if self.figure in row:
                    yield row["step"], self.cost(row[self.figure])
