"""The jobs of a sweep as jobs of SLURM: handing them in, following them to their end, stopping them."""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from gan_runner.config.schema import OnSlurm, validate
from gan_runner.console import say
from gan_runner.errors import UserError, last_line, one_line
from gan_runner.paths import write_atomically
from gan_runner.runs.directory import read_json
from gan_runner.status import Status
from gan_runner.sweeps.job import Order
from gan_runner.sweeps.jobs import look_at_run, remove_if_unused
from gan_runner.sweeps.plan import Task
from gan_runner.sweeps.slurm_job import FOLDER, STOP, read_report, run_on_node

ENDED = {  # SLURM's states that nothing follows, and what they mean for a job that could not report its end
    "COMPLETED": "ended without a report",
    "FAILED": "ended without a report",
    "CANCELLED": "cancelled",
    "TIMEOUT": "did not save itself within its time, hydra.launcher.timeout_min",
    "DEADLINE": "did not save itself before its deadline",
    "OUT_OF_MEMORY": "took more memory than hydra.launcher.mem_gb",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "preempted before it could save itself",
    "REVOKED": "revoked",
    "": "is not in the queue any more; cancelled?",  # of a job that waited, SLURM may keep nothing
}
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
PAUSE_OF_STOP = 2.0  # seconds between two looks while the jobs save themselves
LOOK = 0.5  # seconds between two pictures of the sweep
# The end of each job's script. One that has saved itself before its end goes back into the queue, unless it is being
# cancelled. This is outside of a container, in which there may be no scontrol. An array's last job has the number of
# the array, so its place in the array has to be named as well.
REQUEUE = """\
status=$?
job=${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}
if [ $status = {interrupted} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ] &&
   [ "$(squeue --noheader --jobs=$job --format=%T)" = RUNNING ]; then
    scontrol requeue $job
fi
exit $status"""


class Watcher(Protocol):
    """Whom to tell what happens."""

    def changed(self, task: Task) -> None:
        """The job has begun, has ended, or waits again."""

    def show(self, running: "Sequence[Submitted]") -> None:
        """Called several times a second."""


@dataclass
class Submitted:
    """A job in SLURM's hands."""

    task: Task
    slurm_id: str
    begun: float = field(default_factory=time.monotonic)
    is_asked_to_stop: bool = False
    lacks_report: bool = False  # it has ended; a shared file system may show its report a little later


def refuse_without_slurm() -> None:
    """UserError where jobs cannot be handed in."""
    lacking = "submitit" if importlib.util.find_spec("submitit") is None else "sbatch"
    if lacking == "submitit" or shutil.which("sbatch") is None:
        raise UserError(
            f"hydra/launcher=slurm: needs submitit (pip install 'gan_runner[slurm]') and, on this machine, SLURM's "
            f"sbatch; found no {lacking}"
        )


def parameters(settings: OnSlurm, name: str) -> dict[str, Any]:
    """The settings as submitit names them."""
    named = settings.model_dump(include={"partition", "account", "qos", "constraint"}, exclude_none=True)
    if settings.gpus_per_node:
        named["gpus_per_node"] = settings.gpus_per_node
    if settings.mem_gb is not None:
        named["mem"] = f"{round(settings.mem_gb * 1024)}M"
    return named | {
        "job_name": name,
        "time": settings.timeout_min,
        "cpus_per_task": settings.cpus_per_task,
        "array_parallelism": settings.max_parallel,
        "setup": settings.setup,
        "teardown": [REQUEUE.format(interrupted=int(Status.INTERRUPTED), requeues=settings.requeues)],
        "srun_args": [f"--cpus-per-task={settings.cpus_per_task}", *settings.srun],  # srun does not ask sbatch for it
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **settings.additional},
    }


def slurm_states(ids: Collection[str]) -> dict[str, str]:
    """SLURM's state of each job, such as PENDING; "" of one it does not know any more. Raises `OSError`."""
    queue = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i %T"]
    states = read_states(_ask(queue))
    gone = [slurm_id for slurm_id in ids if slurm_id not in states]
    if gone:
        account = ["sacct", "--noheader", "--allocations", "--parsable2", "--delimiter= ", "--format=JobID,State"]
        with suppress(OSError):  # a cluster may keep no accounts
            states |= read_states(_ask([*account, f"--jobs={','.join(gone)}"]))
    return {slurm_id: states.get(slurm_id, "") for slurm_id in ids}


def read_states(table: str) -> dict[str, str]:
    """SLURM's state of each job, from lines such as `12_3 CANCELLED by 1000`."""
    return {words[0]: words[1].rstrip("+") for line in table.splitlines() if len(words := line.split()) > 1}


def _ask(command: Sequence[str]) -> str:
    try:
        # In a session of its own, because a terminal's Ctrl-C is not meant for it.
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, start_new_session=True)
    except subprocess.SubprocessError as error:
        raise OSError(f"{command[0]}: {getattr(error, 'stderr', None) or error}".strip()) from error
    return done.stdout


def _scancel(option: str, ids: Sequence[str]) -> None:
    if ids:
        subprocess.run(["scancel", option, *ids], check=False, start_new_session=True)


class Slurm:
    """The jobs of one sweep in SLURM."""

    def __init__(self, directory: Path, settings: OnSlurm, command: str, watcher: Watcher) -> None:
        self.directory, self.settings, self.command, self.watcher = directory.absolute(), settings, command, watcher
        self.folder = self.directory / FOLDER
        self.submitted: list[Submitted] = []
        self.stops = 0  # how often it was asked to stop
        self._is_silent = False  # SLURM does not answer

    def take_on(self, tasks: Sequence[Task]) -> list[Task]:
        """Takes on the jobs that a command before has handed in and that have not ended; returns the others."""
        ids = self._ids()
        known = [ids[task.name] for task in tasks if task.name in ids]
        states, new = slurm_states(known) if known else {}, []
        for task in tasks:
            if task.name in ids and states[ids[task.name]] not in ENDED:
                task.job.state = "waiting"  # until the next look
                self.submitted.append(Submitted(task, ids[task.name]))
            else:
                new.append(task)
        return new

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hands in jobs, as one array. Raises `UserError`."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        is_new = not self.folder.exists()
        orders = [Order(self.command, task.job.config, task.job.swept, self.directory / task.name) for task in tasks]
        try:
            executor = SlurmExecutor(self.folder, python=self.settings.python)
            executor.update_parameters(**parameters(self.settings, self.directory.name))
            with redirect_stderr(io.StringIO()):  # it would print what the error says
                handed_in = executor.map_array(run_on_node, orders, [Path.cwd()] * len(orders))
        except (FailedJobError, FailedSubmissionError, RuntimeError, ValueError) as error:
            if is_new:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise UserError(f"hydra/launcher=slurm: the jobs were not taken: {one_line(error)}") from error
        ids = self._ids() | {task.name: job.job_id for task, job in zip(tasks, handed_in, strict=True)}
        write_atomically(self.folder / "submitted.json", json.dumps(ids).encode())
        for task in tasks:
            task.job.state, task.job.reason, task.job.attempts = "waiting", None, task.job.attempts + 1
            self.submitted.append(Submitted(task, ids[task.name]))
        say(f"jobs handed to SLURM as {handed_in[0].job_id.partition('_')[0]}: {len(tasks)}")

    def _ids(self) -> dict[str, str]:
        """By the names of the sweep's jobs."""
        file = self.folder / "submitted.json"
        ids: dict[str, str] = validate(dict[str, str], read_json(file), str(file))
        return ids

    def ask_to_stop(self) -> None:
        """Once: running jobs save themselves and stop, waiting ones leave the queue. Twice: all are cancelled."""
        self.stops += 1

    def follow(self) -> None:
        """Returns when all jobs have ended, or stopped."""
        (self.folder / STOP).unlink(missing_ok=True)
        while self.submitted and self.stops < 2:
            self._look()
            if self.stops:
                self._ask_jobs_to_stop()
            self._wait()
        if self.submitted:
            _scancel("--quiet", [one.slurm_id for one in self.submitted])
            for one in [*self.submitted]:
                self._end(one, "")

    def _wait(self) -> None:
        stops, end = self.stops, time.monotonic() + (PAUSE_OF_STOP if self.stops else self.settings.poll)
        while self.submitted and time.monotonic() < end and self.stops == stops:
            self.watcher.show([one for one in self.submitted if one.task.job.state == "running"])
            time.sleep(LOOK)

    def _look(self) -> None:
        try:
            states = slurm_states([one.slurm_id for one in self.submitted])
        except OSError as error:
            if not self._is_silent:
                say(f"warning: SLURM does not answer, and is asked again: {last_line(error)}")
            self._is_silent = True
            return
        self._is_silent = False
        for one in [*self.submitted]:
            state, job = states[one.slurm_id], one.task.job
            if state in ENDED:
                self._end(one, state)
            elif state == "RUNNING":
                self._runs(one)
            elif state in WAITING and job.state == "running":
                job.state, one.task = "waiting", replace(one.task, to_do="resume")
                self.watcher.changed(one.task)

    def _runs(self, one: Submitted) -> None:
        job = one.task.job
        status = read_json(self.directory / one.task.name / "status.json")
        job.step = max(job.step, validate(int, status.get("step", 0), f"{one.task.name}/status.json: step"))
        if job.state != "running":
            job.state, one.begun = "running", time.monotonic()
            self.watcher.changed(one.task)

    def _end(self, one: Submitted, slurm_state: str) -> None:
        """The job has ended: what became of it?"""
        job, path = one.task.job, self.directory / one.task.name
        report = read_report(self.folder, one.task.name, one.slurm_id)
        if (report is None or report.state == "running") and not one.lacks_report and self.stops < 2:
            one.lacks_report = True
            return
        job.seconds += report.seconds if report is not None else 0.0
        if report is not None and report.state != "running":
            job.state, job.step, job.reason = report.state, max(job.step, report.step), report.reason
        else:
            job.state = "running"
            look_at_run(job, path)
            if job.state not in ("completed", "diverged") and not self.stops:
                job.state, job.reason = "failed", f"{ENDED[slurm_state]} (job {one.slurm_id} of SLURM)"
        if job.state == "completed" and job.step < job.steps:  # an earlier command, which wanted fewer, handed it in
            job.state = "interrupted"
        if job.state == "refused":
            remove_if_unused(path)
        self.submitted.remove(one)
        self.watcher.changed(one.task)

    def _ask_jobs_to_stop(self) -> None:
        """Again at each look, because a job may have begun or gone back in between."""
        (self.folder / STOP).touch()
        _scancel("--state=PENDING", [one.slurm_id for one in self.submitted if one.task.job.state == "waiting"])
        running = [one for one in self.submitted if one.task.job.state == "running" and not one.is_asked_to_stop]
        _scancel("--signal=TERM", [one.slurm_id for one in running])
        for one in running:  # a second time it would not save itself
            one.is_asked_to_stop = True
