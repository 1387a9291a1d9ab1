"""What a sweep shows: a live view on a terminal, plain lines elsewhere, and a table at the end."""

import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from gan_runner.console import duration, rounded, say
from gan_runner.sweeps.jobs import Job, objective_of
from gan_runner.sweeps.plan import Task
from gan_runner.tables import Table, draw

PAUSE = 60.0  # seconds between two plain lines about running jobs
BEGINS = {
    "run": "begins",
    "resume": "goes on",
    "extend": "goes on",
    "retry": "is tried again",
    "check": "is completed if the data are the same",
}
SHOWN = 12  # running jobs in the live view


class Shown(Protocol):
    """A running job, wherever it runs."""

    task: Task
    begun: float


class View:
    """How far the sweep is."""

    def __init__(self, directory: Path, jobs: dict[str, Job], to_do: Sequence[Task], expected: int = 0) -> None:
        self.directory, self.jobs = directory, jobs
        self.expected = expected  # how many jobs there will be, where not all of them are known yet
        self.to_do = {task.name: (task.job, task.job.step) for task in to_do}  # with the step it begins at
        self.ended: set[str] = set()
        self.begun = self.said = time.monotonic()
        self.live: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self.live.start()

    def changed(self, task: Task) -> None:
        """A line about a job that has begun or ended."""
        job = task.job
        if job.state == "running":
            self.ended.discard(task.name)  # it is tried again
            self.to_do.setdefault(task.name, (job, job.step))
            self._say(f"{task.name}: {BEGINS[task.to_do]}")
            return
        if job.state == "waiting":
            self._say(f"{task.name}: waits again")
            return
        self.ended.add(task.name)
        value = objective_of(self.directory / task.name)
        best = f", best {rounded(value)}" if value is not None else ""
        reason = f": {job.reason}" if job.reason else ""
        count = f"[{len(self.ended)}/{max(len(self.to_do), self.expected)}]"
        self._say(f"{count} {task.name}: {job.state} after {duration(job.seconds)}{best}{reason}")

    def show(self, running: Sequence[Shown]) -> None:
        """The running jobs."""
        if not running:
            return
        if self.live is not None:
            self.live.update(self._picture(running), refresh=True)
        elif time.monotonic() - self.said > PAUSE:
            steps = (f"{job.task.name} {job.task.job.step}/{job.task.job.steps}" for job in running)
            self._say(f"{', '.join(steps)}{self._time_left()}")

    def _say(self, line: str) -> None:
        self.said = time.monotonic()
        if self.live is not None:
            self.live.console.print(line, markup=False, highlight=False)
        else:
            say(line)

    def _picture(self, running: Sequence[Shown]) -> Any:
        rows = []
        for one in running[:SHOWN]:
            job = one.task.job
            bar = "━" * round(20 * job.step / max(job.steps, 1))
            value = objective_of(self.directory / one.task.name)
            time_so_far = duration(time.monotonic() - one.begun)
            rows.append([one.task.name, f"{bar:20}", f"{job.step}/{job.steps}", rounded(value), time_so_far])
        states = Counter(job.state for job in self.jobs.values())
        counted = ", ".join(f"{count} {state}" for state, count in states.items())
        picture = draw(["running", "", "step", "best", "time"], rows)
        picture.title = f"{self.directory}: {counted}{self._time_left()}"
        return picture

    def _time_left(self) -> str:
        """An estimate from the steps that this command has taken so far."""
        done = sum(job.step - begin for job, begin in self.to_do.values())
        all_steps = sum(job.steps - begin for job, begin in self.to_do.values())
        left = sum(job.steps - job.step for job, _ in self.to_do.values() if job.state in ("waiting", "running"))
        if not 0 < done < all_steps or len(self.to_do) < self.expected:
            return ""
        return f", about {duration(math.ceil(left * (time.monotonic() - self.begun) / done))} left"

    def close(self) -> None:
        """Removes the live view."""
        if self.live is not None:
            self.live.stop()


def table_of_jobs(jobs: dict[str, Job], directory: Path) -> Table:
    """Every job: what became of it, the best value of the figure that it is selected by, and why it ended early."""
    rows = []
    for name, job in jobs.items():
        best = rounded(objective_of(directory / name))
        rows.append([name, job.state, f"{job.step}/{job.steps}", best, duration(job.seconds), job.reason or ""])
    return ["job", "state", "step", "best", "time", "reason"], rows


def table_of_tasks(tasks: Sequence[Task]) -> Table:
    """What a command would do with each job."""
    each = {task.name: task for task in tasks}.values()
    rows = [[t.name, t.job.state, f"{t.job.step}/{t.job.steps}", t.to_do or "nothing", t.why] for t in each]
    return ["job", "state", "step", "to do", ""], rows
