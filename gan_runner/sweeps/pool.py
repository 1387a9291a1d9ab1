"""Jobs side by side on this machine, each in a process forked from a server that has imported torch already."""

import errno
import math
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from gan_runner.config.schema import SideBySide
from gan_runner.sweeps.job import GRACE, GRACE_OF_HUNG, Ended, Order, Progress, how_it_ended, reason_in, run_job
from gan_runner.sweeps.jobs import remove_if_unused
from gan_runner.sweeps.leases import Leases, gpus_wanted, threads_for_each, visible_gpus
from gan_runner.sweeps.plan import Task

LOOK = 0.5  # seconds between two looks at what has taken too long
DISK_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


class Source(Protocol):
    """Where the jobs come from. A grid knows them all; a search learns from those that have ended."""

    def next(self) -> Task | None:
        """The next job to start; None if there is none for now, and at the end if none is running either."""

    def ended(self, task: Task) -> None:
        """The task's job has its new state, and is not tried again."""

    def watch(self, running: "list[Running]") -> None:
        """Called several times a second; may stop a job, which `next` may then give once more."""


class Watcher(Protocol):
    """Whom the pool tells what happens."""

    def changed(self, task: Task) -> None:
        """The job has begun, or ended. An `OSError` ends the sweep."""

    def show(self, running: "list[Running]") -> None:
        """Called several times a second."""


@dataclass
class Running:
    """A job that runs, and what is known of it."""

    task: Task
    process: BaseProcess
    reports: connection.Connection
    gpus: list[str]
    log: Path
    log_begin: int  # where in log.txt this attempt begins
    begun: float = field(default_factory=time.monotonic)
    moved: float = math.inf  # when it last reported progress; the first job waits for the server
    ended: Ended | None = None  # its last report
    stopped_because: str | None = None  # of what the pool stopped it for; "": it is to go on later
    kill_at: float = math.inf

    def stop(self, because: str, grace: float = GRACE) -> None:
        """Asks the job to save itself and stop; after `grace` seconds it is killed."""
        if self.stopped_because is None:
            self.stopped_because, self.kill_at = because, time.monotonic() + grace
            self.process.terminate()

    def kill(self) -> None:
        """Kills it, and what it has started."""
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # it has no group of its own yet
            self.process.kill()


class Pool:
    """Runs so many jobs at a time."""

    def __init__(
        self,
        directory: Path,
        settings: SideBySide,
        command: str,  # module:function, which takes a Request and gives an Outcome
        preload: list[str],  # modules that the server imports
        watcher: Watcher,
    ) -> None:
        self.directory, self.settings, self.command, self.watcher = directory, settings, command, watcher
        self.leases = Leases(visible_gpus(), settings.jobs_per_gpu)
        self.size = settings.jobs or max(1, len(self.leases.gpus) * settings.jobs_per_gpu)
        self.threads = threads_for_each(self.size)
        self.running: list[Running] = []
        self.waiting: deque[Task] = deque()  # for a GPU, or to be tried again
        self.retried = Counter[str]()  # how often a job was tried again, by its name
        self.stops = 0  # how often it was asked to stop
        self.gave_up = False  # `fail_fast` ended it
        self.broken: OSError | None = None  # why nothing more can be kept
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(preload)

    def ask_to_stop(self) -> None:
        """Once: running jobs save themselves and stop, and no other begins. Twice: they are killed."""
        self.stops += 1

    def run(self, source: Source) -> None:
        """Returns when nothing is left to do, or all has stopped. Raises `OSError` when the disk is full."""
        try:
            while True:
                while not self._is_stopping() and len(self.running) < self.size and self._start_next(source):
                    pass
                if not self.running:
                    break
                self._listen(source)
                with self._giving_up_on_errors():
                    source.watch(self.running)
                self._watch_limits()
                self.watcher.show(self.running)
        finally:
            for job in self.running:  # only after an error of our own
                job.kill()
        if self.broken is not None:
            raise self.broken

    def _is_stopping(self) -> bool:
        return self.stops > 0 or self.gave_up or self.broken is not None

    def _start_next(self, source: Source) -> bool:
        """False if no job can start now."""
        task = None
        with self._giving_up_on_errors():
            task = self.waiting.popleft() if self.waiting else source.next()
        if task is None:
            return False
        gpus = self.leases.take(gpus_wanted(task.job.config, self.leases.gpus))
        if gpus is None:
            self.waiting.appendleft(task)  # no other overtakes it
            return False
        with self._giving_up_on_errors():
            self._start(task, gpus)
        return True

    def _start(self, task: Task, gpus: list[str]) -> None:
        job, directory = task.job, self.directory / task.name
        directory.mkdir(exist_ok=True)
        environment = self.leases.environment(job.config, gpus)
        order = Order(self.command, job.config, job.swept, directory, self.threads, environment)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=run_job, args=(order, theirs), name=task.name)
        with _threads_in_environment(self.threads):  # of the server, which the first job starts
            forkserver.ensure_running()
        process.start()
        theirs.close()  # else the end of the job would not be noticed
        log = directory / "log.txt"
        begin = log.stat().st_size if log.exists() else 0
        self.running.append(Running(task, process, ours, gpus, log, begin))
        job.state, job.reason, job.attempts = "running", None, job.attempts + 1
        self.watcher.changed(task)

    def _listen(self, source: Source) -> None:
        """Takes in what the jobs report, up to `LOOK` seconds; a job that has closed its end has ended."""
        jobs = {job.reports: job for job in self.running}
        for reports in connection.wait(list(jobs), LOOK):
            assert isinstance(reports, connection.Connection)
            job = jobs[reports]
            try:
                match reports.recv():
                    case Progress(step):
                        job.moved, job.task.job.step = time.monotonic(), max(step, job.task.job.step)
                    case Ended() as ended:
                        job.ended, job.kill_at = ended, time.monotonic() + GRACE
                        job.task.job.step = max(ended.step, job.task.job.step)
            except (EOFError, OSError):
                self._end(job, source)

    def _watch_limits(self) -> None:
        """Stops what has taken too long, and all jobs if the sweep is to stop."""
        now, limits = time.monotonic(), self.settings
        for job in self.running:
            if self._is_stopping():
                job.stop("")
            elif limits.timeout is not None and now - job.begun > limits.timeout:
                job.stop(f"took longer than hydra.launcher.timeout={limits.timeout:g} s")
            elif limits.heartbeat is not None and now - job.moved > limits.heartbeat and not job.ended:
                job.stop(f"hung: no progress for hydra.launcher.heartbeat={limits.heartbeat:g} s", GRACE_OF_HUNG)
            if now > job.kill_at or self.stops > 1:
                job.kill()

    def _end(self, running: Running, source: Source) -> None:
        """The job has ended: what became of it?"""
        running.process.join(GRACE)
        if running.ended is None:
            running.kill()  # what it has started
        self.running.remove(running)
        self.leases.give_back(running.gpus)
        running.reports.close()
        task, job = running.task, running.task.job
        job.seconds += time.monotonic() - running.begun
        said = reason_in(running.log, running.log_begin)
        job.state, job.reason = how_it_ended(running.ended, running.process.exitcode, running.stopped_because, said)
        if job.state == "completed":
            job.step = job.steps  # also where it was so before, and nothing was known of it
        if job.state == "refused":
            remove_if_unused(self.directory / task.name)
        if any(full in (job.reason or "") for full in DISK_FULL):
            self.broken = OSError(errno.ENOSPC, job.reason)
        with self._giving_up_on_errors():
            self.watcher.changed(task)
        if job.state == "failed" and self.retried[task.name] < self.settings.retries and not self._is_stopping():
            self.retried[task.name] += 1
            self.waiting.append(replace(task, to_do="retry"))
            return
        with self._giving_up_on_errors():
            source.ended(task)
        if self.settings.fail_fast and job.state not in ("completed", "interrupted"):
            self.gave_up = True

    @contextmanager
    def _giving_up_on_errors(self) -> Iterator[None]:
        """An `OSError` in the block, such as a full disk, stops the sweep."""
        try:
            yield
        except OSError as error:
            self.broken = error


@contextmanager
def _threads_in_environment(threads: int | None) -> Iterator[None]:
    """In the block, a process that starts computes with so many threads: torch looks when it is imported."""
    before = os.environ.get("OMP_NUM_THREADS")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if threads is not None and before is None:
            del os.environ["OMP_NUM_THREADS"]
