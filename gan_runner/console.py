"""What a run says while it trains, on standard error; standard output ends with the run directory."""

import math
import os
import sys
from collections.abc import Mapping
from typing import Any

_SHOWN = {
    "loss": "loss/classifier",
    "D": "loss/discriminator",
    "G": "loss/generator",
    "D(x)": "score/real",
    "D(G(z))": "score/fake",
    "images/s": "speed/images_per_second",
}
_LINES = 20  # how many lines a run prints where there is no terminal


def say(message: str) -> None:
    """A line on standard error, from the first of the processes that share a run."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr, flush=True)


class Progress:
    """A bar with the time left on a terminal, plain lines elsewhere."""

    def __init__(self, done: int, steps: int) -> None:
        self._steps, self._lines = steps, done * _LINES // steps
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
            self._bar = Bar(
                *columns, TimeRemainingColumn(), TextColumn("{task.description}"), console=Console(stderr=True)
            )
            self._task = self._bar.add_task("", total=steps, completed=done)
            self._bar.start()

    def show(self, step: int, row: Mapping[str, float], seconds_left: float) -> None:
        """Called at each step that has something to show."""
        values = "  ".join(f"{name} {row[tag]:.4g}" for name, tag in _SHOWN.items() if tag in row)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=values)
        elif step * _LINES // self._steps > self._lines:
            self._lines = step * _LINES // self._steps
            say(f"step {step}/{self._steps}  {values}  {math.ceil(seconds_left)} s left")

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
