"""`gan-train -m`: many runs, and what became of each."""

import math
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from gan_runner.config.composition import JobRequest, SweepRequest, plain
from gan_runner.config.schema import Config, OnSlurm, SideBySide, validate
from gan_runner.console import say
from gan_runner.errors import UserError
from gan_runner.machine.signals import on_stop_signal
from gan_runner.overrides import as_typed
from gan_runner.paths import CONF
from gan_runner.runs.directory import in_use
from gan_runner.status import Status
from gan_runner.sweeps.foreign import run_elsewhere
from gan_runner.sweeps.job import GRACE, Order
from gan_runner.sweeps.jobs import Sweep, SweepDirectory, objective_of, read_sweep
from gan_runner.sweeps.plan import Task, plan_jobs
from gan_runner.sweeps.pool import Pool, Source
from gan_runner.sweeps.slurm import Slurm, refuse_without_slurm
from gan_runner.sweeps.view import Shown, View, table_of_jobs, table_of_tasks
from gan_runner.tables import show

LOCAL, SLURM = (OmegaConf.load(CONF / "hydra/launcher" / f"{name}.yaml") for name in ("local", "slurm"))
TRAIN = "gan_runner.train:train"
PRELOAD = ["gan_runner.commands.train", "matplotlib.figure", "matplotlib.backends.backend_agg"]


class Grid:
    """Jobs that are all known from the start, as the source of a pool."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = iter(tasks)

    def next(self) -> Task | None:
        return next(self._tasks, None)

    def ended(self, task: Task) -> None:
        """Nothing follows from it."""

    def watch(self, running: Sequence[Shown]) -> None:
        """Each job comes to its own end."""


@dataclass(frozen=True)
class Account:
    """Keeps sweep.json up to date, and shows what happens."""

    directory: SweepDirectory
    sweep: Sweep
    view: View

    def changed(self, task: Task) -> None:
        self.sweep.jobs[task.name] = task.job
        self.directory.write(self.sweep)
        self.view.changed(task)

    def show(self, running: Sequence[Shown]) -> None:
        self.view.show(running)


def run_sweep(request: SweepRequest, config_dir: str | None) -> tuple[Status, list[Task]]:
    """The whole of a sweep: what is left to do of it, and its table; the exit status and a task for each job asked for.

    Raises `UserError`.
    """
    refuse_resume(request.jobs)
    for job in request.jobs:  # a value of a wrong type or spelling; classes and data have their say in the job itself
        validate(Config, job.plain)
    is_ours, settings = launcher_settings(request.config)
    if settings.dry_run:
        tasks = plan_jobs(read_sweep(request.directory), request.jobs, request.directory, settings.retry)
        show(*table_of_tasks(tasks))
        return Status.COMPLETED, tasks
    if isinstance(settings, OnSlurm):
        refuse_without_slurm()
    with closing(SweepDirectory(request.directory)) as directory:
        try:
            before = read_sweep(directory.path)
            tasks = plan_jobs(before, request.jobs, directory.path, settings.retry)
        except UserError:
            directory.remove_if_empty()
            raise
        swept = list(dict.fromkeys([*before.swept, *request.jobs[0].swept]))
        jobs = before.jobs | {task.name: task.job for task in tasks}
        sweep = Sweep(command=["gan-train", *sys.argv[1:]], swept=swept, jobs=jobs)
        to_do = [task for task in {task.name: task for task in tasks}.values() if task.to_do]
        _begin(directory, sweep, tasks)
        with closing(View(directory.path, jobs, to_do)) as view:
            account = Account(directory, sweep, view)
            if isinstance(settings, OnSlurm):
                interrupted = _run_on_slurm(account, settings, to_do)
            elif is_ours:
                wait_for_orphans([directory.path / task.name for task in to_do])
                interrupted = run_side_by_side(account, settings, Grid(to_do))
            else:
                wait_for_orphans([directory.path / task.name for task in to_do])
                interrupted = _run_elsewhere(account, request.config, config_dir, to_do)
        return end(account, [task.name for task in tasks], interrupted), tasks


def refuse_resume(jobs: Sequence[JobRequest]) -> None:
    """UserError where jobs would all go on with one run."""
    if any(job.plain["resume"] is not None for job in jobs):
        raise UserError("resume: goes on with one run; the same command goes on with a sweep")


def launcher_settings(config: DictConfig) -> tuple[bool, SideBySide | OnSlurm]:
    """Whether the launcher is ours, and its keys: with another, the defaults of `local`. Raises `UserError`."""
    ours = {LOCAL._target_: SideBySide, SLURM._target_: OnSlurm}
    is_ours = config.hydra.launcher._target_ in ours
    keys: Any = OmegaConf.to_container(config.hydra.launcher if is_ours else LOCAL, resolve=True)
    return is_ours, validate(ours[keys.pop("_target_")], keys, "hydra.launcher")


def run_side_by_side(account: Account, settings: SideBySide, source: Source) -> bool:
    """Runs jobs on this machine; returns whether the sweep was asked to stop before its end."""
    pool = Pool(account.directory.path, settings, TRAIN, PRELOAD, account)

    def stop() -> None:
        say("stopping: running jobs save themselves; once more to kill them" if not pool.stops else "killing")
        pool.ask_to_stop()

    with on_stop_signal(stop, once=False):
        try:
            pool.run(source)
        except OSError as error:
            say(f"error: the sweep cannot go on: {error.strerror or error}")
    return pool.stops > 0


def _run_on_slurm(account: Account, settings: OnSlurm, to_do: Sequence[Task]) -> bool:
    """Runs jobs on a cluster; returns whether the sweep was asked to stop before its end. Raises `UserError`."""
    slurm = Slurm(account.directory.path, settings, TRAIN, account)

    def stop() -> None:
        first = "stopping: jobs save themselves or leave the queue; once more to cancel them"
        say("cancelling" if slurm.stops else first)
        slurm.ask_to_stop()

    with on_stop_signal(stop, once=False):
        try:
            if new := slurm.take_on(to_do):
                wait_for_orphans([slurm.directory / task.name for task in new])
                slurm.submit(new)
            slurm.follow()
        except UserError:
            if not slurm.submitted:
                account.directory.remove_if_empty()
            raise
        except OSError as error:
            say(f"error: the sweep cannot go on: {error.strerror or error}")
    return slurm.stops > 0


def _run_elsewhere(account: Account, config: DictConfig, config_dir: str | None, to_do: Sequence[Task]) -> bool:
    """Runs jobs with a launcher of Hydra's or of others; returns whether it was interrupted."""
    path = account.directory.path.absolute()
    orders = {task.name: Order(TRAIN, task.job.config, task.job.swept, path / task.name) for task in to_do}
    interrupted = False

    def stop() -> None:
        raise KeyboardInterrupt

    with on_stop_signal(stop, once=True):
        try:
            run_elsewhere(config, config_dir, to_do, orders)
        except KeyboardInterrupt:
            interrupted = True
    for task in to_do:
        account.changed(task)
    return interrupted


def _begin(directory: SweepDirectory, sweep: Sweep, tasks: Sequence[Task]) -> None:
    """Writes down what is to be done, and says what is not."""
    directory.write(sweep)
    for task in tasks:
        if not task.to_do:
            say(f"{task.name}: {task.job.state}, {task.why}")


def wait_for_orphans(paths: Sequence[Path]) -> None:
    """Waits while jobs of a killed sweep save themselves."""
    end, told = time.monotonic() + GRACE, False
    while any(map(in_use, paths)) and time.monotonic() < end:
        if not told:
            say("waiting for jobs of the sweep before, which are saving themselves")
            told = True
        time.sleep(0.1)


def end(account: Account, names: Sequence[str], interrupted: bool, summary: Sequence[str] = ()) -> Status:
    """The table of all jobs, what else is to be said, the report; the exit status is that of the jobs `names`."""
    directory, jobs = account.directory, account.sweep.jobs
    states = {jobs[name].state for name in names}
    show(*table_of_jobs(jobs, directory.path))
    if states == {"refused"}:
        directory.remove_if_empty()
        return Status.REFUSED
    if interrupted and states != {"completed"}:
        say("the same command goes on with this sweep")
        print(*summary, directory.path, sep="\n")
        return Status.INTERRUPTED
    from gan_runner.sweeps.report.writing import report_at_the_end, write_sweep_report  # they import torch

    report_at_the_end(write_sweep_report, directory.path)
    print(*summary, directory.path, sep="\n")
    return Status.COMPLETED if states <= {"completed", "pruned"} else Status.FAILED


def launch(config: DictConfig, jobs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """A batch of jobs for a sweeper that is not ours: their return values are the objectives, NaN for none."""
    fixed = {*config.hydra.overrides.task}
    typed = [[word.split("=", 1) for word in words if word not in fixed] for words in overrides]
    swept = [{key: as_typed(key, value) for key, value in words} for words in typed]
    wanted = [JobRequest(s, list(o), plain(job)) for s, o, job in zip(swept, overrides, jobs, strict=True)]
    status, tasks = run_sweep(SweepRequest(wanted, Path(config.hydra.sweep.dir), config), None)
    if status == Status.INTERRUPTED:
        raise KeyboardInterrupt
    returned = []
    for task in tasks:
        value = objective_of(Path(config.hydra.sweep.dir) / task.name)
        returned.append(JobReturn(overrides=task.job.overrides, status=JobStatus.COMPLETED))
        returned[-1].return_value = math.nan if value is None else value
    return returned
