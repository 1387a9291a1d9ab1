"""A search as the source of a pool's jobs: asked for the next one whenever there is room, told when one has ended."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gan_runner.console import say
from gan_runner.errors import UserError
from gan_runner.sweeps.findings import write_findings
from gan_runner.sweeps.halving import Rungs
from gan_runner.sweeps.jobs import Sweep
from gan_runner.sweeps.objective import Objective
from gan_runner.sweeps.plan import Task
from gan_runner.sweeps.pool import Running, Watcher
from gan_runner.sweeps.study import Study, Trial


@dataclass
class Open:
    """A job whose end is not known, and the trials that it is the end of."""

    task: Task
    trials: list[int]
    is_running: bool = False
    is_paused: bool = False  # at a rung


class Search:
    """Trials become jobs: two of the same values, one job."""

    def __init__(
        self,
        study: Study,
        directory: Path,
        sweep: Sweep,
        plan: Callable[[Mapping[str, str]], Task],
        watcher: Watcher,
        rungs: Rungs | None,
    ) -> None:
        """Takes on what was open when the last command on this search ended, however it did."""
        self.study, self.directory, self.sweep, self.plan, self.watcher = study, directory, sweep, plan, watcher
        self.rungs = rungs or Rungs(2, ())
        self.open: dict[str, Open] = {}
        for name in sweep.jobs:
            self._look(name)
        for trial in study.trials():
            if trial.state == "running":
                self._take(study.taken_on(trial.number))
            elif trial.state == "pruned" and trial.job in sweep.jobs:
                self._leave(Task(trial.job, sweep.jobs[trial.job], ""))

    def next(self) -> Task | None:
        """A job that was begun and may go on; otherwise a new one."""
        for one in self.open.values():
            if not one.is_running and (not one.is_paused or self.rungs.may_go_on(one.task.name)):
                return self._start(one)
        while (trial := self.study.ask()) is not None:
            one_more = self._take(trial)
            if one_more is not None:
                return self._start(one_more)
        return None

    def _take(self, trial: Trial) -> Open | None:
        """The job of a trial, if there was none; the trial of a job that is known waits for it, or is told at once."""
        try:
            task = self.plan(trial.values)
        except UserError as error:
            say(f"trial {trial.number}: refused: {error}")
            self.study.tell(trial.number, None)
            return None
        self.study.note(trial.number, "job", task.name)
        if task.name in self.open:
            self.open[task.name].trials.append(trial.number)
        elif task.to_do:
            self.open[task.name] = Open(task, [trial.number], is_paused=trial.is_paused)
            return self.open[task.name]
        else:
            if task.job.state != self.sweep.jobs[task.name].state:  # it ended after the sweep was killed
                self.watcher.changed(task)
            self._tell(task, [trial.number])
        return None

    def _start(self, one: Open) -> Task:
        if one.is_paused:
            self._pause(one, False)
            one.task = replace(one.task, to_do="resume")
        one.is_running = True
        return one.task

    def _pause(self, one: Open, paused: bool) -> None:
        one.is_paused = paused
        self.study.note(one.trials[0], "paused", paused)

    def watch(self, running: Sequence[Running]) -> None:
        """Stops the jobs that have come to a rung at which others were better."""
        for job in running:
            name, step = job.task.name, job.task.job.step
            has_come_further = step >= self.rungs.next(name) and self._look(name)
            if has_come_further and job.stopped_because is None and not self.rungs.may_go_on(name):
                self._pause(self.open[name], True)
                job.stop("")

    def _look(self, name: str) -> bool:
        """Reads what a job's evaluations gave; whether it has come to another rung."""
        run = self.directory / name
        if self.rungs.next(name) == math.inf or (objective := Objective.of(run)) is None:
            return False
        return self.rungs.see(name, objective.costs(run))

    def ended(self, task: Task) -> None:
        """What was stopped, at a rung or with the whole search, stays open."""
        one = self.open[task.name]
        one.is_running = False
        if task.job.state == "interrupted":
            task.job.reason = self._why_stopped(task.name) if one.is_paused else None
            return
        self._look(task.name)
        del self.open[task.name]
        self._tell(task, one.trials)
        write_findings(self.study, self.sweep, self.directory)

    def _tell(self, task: Task, trials: Sequence[int]) -> None:
        """A job that has failed says nothing of its values; one that has diverged says that they are the worst."""
        cost: float | None = None
        if task.job.state == "diverged":
            cost = math.inf
        elif task.job.state == "completed" and (objective := Objective.of(self.directory / task.name)) is not None:
            cost = objective.cost(objective.value)
        for number in trials:
            self.study.tell(number, cost)

    def finish(self) -> bool:
        """Leaves behind what has stopped at a rung, if the search is at its end; whether it is."""
        if self.study.left() or not all(
            one.is_paused and not self.rungs.may_go_on(name) for name, one in self.open.items()
        ):
            return False
        for name, one in list(self.open.items()):
            for number in one.trials:
                self.study.prune(number, self.rungs.of(name))
            self._leave(one.task)
            del self.open[name]
        write_findings(self.study, self.sweep, self.directory)
        return True

    def _leave(self, task: Task) -> None:
        """Removes what only a run that goes on needs."""
        if task.job.state != "pruned":
            shutil.rmtree(self.directory / task.name / "checkpoints", ignore_errors=True)
            task.job.state, task.job.reason = "pruned", self._why_stopped(task.name)
            self.watcher.changed(task)

    def _why_stopped(self, name: str) -> str:
        step, _ = self.rungs.of(name)[-1]
        return f"not among the best 1/{self.rungs.factor} at step {step}"
