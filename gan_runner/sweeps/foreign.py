"""Jobs under a launcher that is not ours (joblib, submitit, Ray): each of its tasks starts a process for the job."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gan_runner.config.composition import make_launcher
from gan_runner.console import say
from gan_runner.errors import type_and_message
from gan_runner.sweeps.job import GRACE, Ended, Order, how_it_ended, reason_in
from gan_runner.sweeps.jobs import State, look_at_run, remove_if_unused
from gan_runner.sweeps.plan import Task


@dataclass(frozen=True)
class Result:
    """What a task gives back to the sweep, perhaps from another machine."""

    state: State
    step: int
    reason: str | None
    seconds: float


@dataclass(frozen=True)
class StartJob:
    """The function that the launcher calls for each job, in a process of its choice."""

    orders: Mapping[str, Order]  # by the names of the jobs
    working_directory: Path

    def __call__(self, config: DictConfig) -> Result:
        """Runs the job whose directory the launcher has made, in a new process, and waits for its end."""
        return run_in_new_process(self.orders[HydraConfig.get().sweep.subdir], self.working_directory)


def run_in_new_process(order: Order, working_directory: Path, is_asked_to_stop: Callable[[], bool] = bool) -> Result:
    """Runs a job in a new process, and waits for its end. Whoever asks this one to stop asks the job as well."""
    begun, log = time.monotonic(), order.directory / "log.txt"
    log_begin = log.stat().st_size if log.exists() else 0
    ours, theirs = multiprocessing.Pipe()
    script = f"from gan_runner.sweeps.job import run_job_by; run_job_by({theirs.fileno()})"
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, cwd=working_directory, pass_fds=[theirs.fileno()])
    theirs.close()
    try:
        step, ended = _follow(ours, order)
    finally:
        ours.close()  # the job saves itself and ends, if it has not yet
        process.wait(2 * GRACE)
    stopped_because = "" if is_asked_to_stop() else None
    state, reason = how_it_ended(ended, process.returncode, stopped_because, reason_in(log, log_begin))
    return Result(state, step, reason, time.monotonic() - begun)


def _follow(job: Connection, order: Order) -> tuple[int, Ended | None]:
    """The last step that the job reported, and its last report, None if it was killed."""
    step, ended = 0, None
    with suppress(EOFError, OSError):
        job.send(order)
        while True:
            message = job.recv()
            step, ended = message.step, message if isinstance(message, Ended) else None
    return step, ended


def run_elsewhere(
    config: DictConfig, config_dir: str | None, tasks: Sequence[Task], orders: Mapping[str, Order]
) -> None:
    """Runs the tasks with the launcher of `config`, and writes into their jobs what became of them."""
    launcher = make_launcher(config, config_dir, StartJob(orders, Path.cwd()))
    words = []
    for task in tasks:
        path = orders[task.name].directory
        folder = str(path.parent).replace("\\", "\\\\").replace("'", "\\'")  # in Hydra's grammar
        words.append([*task.job.overrides, f"hydra.sweep.dir='{folder}'", f"hydra.sweep.subdir='{path.name}'"])
    try:
        results: Sequence[Any] = launcher.launch(words, initial_job_idx=0)
    except Exception as error:  # what a broken launcher raises is its own affair
        say(f"warning: the launcher failed: {type_and_message(error)}")
        results = [None] * len(tasks)
    for task, returned in zip(tasks, results, strict=True):
        job = task.job
        result = getattr(returned, "_return_value", None)
        if isinstance(result, Result):
            job.state, job.step, job.reason = result.state, result.step, result.reason
            job.seconds += result.seconds
            if job.state == "refused":
                remove_if_unused(orders[task.name].directory)
            continue
        job.state = "running"
        look_at_run(job, orders[task.name].directory)  # it may have come to its end all the same
        if job.state not in ("completed", "diverged"):
            job.state, job.reason = "failed", f"its process was lost by the launcher: {result}"
