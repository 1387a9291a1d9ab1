"""The process of one job: nothing that happens in it can harm another, and it never outlives the sweep."""

import faulthandler
import os
import pkgutil
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gan_runner.config.composition import Request, parse
from gan_runner.console import logged, say, say_traceback
from gan_runner.errors import UserError
from gan_runner.heartbeat import heartbeat
from gan_runner.machine.signals import interrupt, on_stop_signal
from gan_runner.status import Status
from gan_runner.sweeps.jobs import State

GRACE = 60.0  # seconds that a job has to save itself before it is killed,
GRACE_OF_HUNG = 10.0  # and one that hangs anyway
STATES: dict[int, State] = {
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.REFUSED: "refused",
    Status.DIVERGED: "diverged",
    Status.INTERRUPTED: "interrupted",
}
TICK = 1.0  # seconds between two looks at its progress


@dataclass(frozen=True)
class Order:
    """What the process of a job is told."""

    command: str  # module:function, which takes a Request and gives an Outcome
    config: dict[str, Any]  # resolved
    swept: dict[str, str]  # as typed
    directory: Path
    threads: int | None = None  # None: as many as torch chooses
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """A job moves, and has come to this step."""

    step: int


@dataclass(frozen=True)
class Ended:
    """A job has come to its end: at which step, with which exit status, and the last error that it told of."""

    step: int
    status: int
    error: str | None


def run_job(order: Order, sweep: Connection) -> None:
    """Runs the job in this process, which belongs to it alone, and reports to the sweep."""
    os.setsid()  # the terminal's Ctrl-C is meant for the sweep; and whatever the job starts can be ended with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(order.environment)
    order.directory.mkdir(parents=True, exist_ok=True)
    log_file = order.directory / "log.txt"
    _redirect_output(log_file)
    threading.Thread(target=_report, args=(sweep,), daemon=True).start()
    if order.threads is not None:
        import torch

        torch.set_num_threads(order.threads)
        os.environ.pop("OMP_NUM_THREADS", None)  # not the user's: a run that goes on keeps the number that it had
    with logged() as log, on_stop_signal(interrupt, once=True):
        log.open(log_file)
        try:
            swept = parse([f"{key}={value}" for key, value in order.swept.items()])
            request = Request(order.config, swept, order.directory, directory_chosen=True)
            status = int(pkgutil.resolve_name(order.command)(request).status)
        except UserError as error:
            say(f"error: {error}")
            status = Status.REFUSED
        except KeyboardInterrupt:  # before there was anything to save
            status = Status.INTERRUPTED
        except BaseException as error:  # sys.exit in a user's class, too
            say_traceback(error)
            status = Status.FAILED
    with suppress(OSError):  # the sweep is gone
        sweep.send(Ended(heartbeat.step(), status, log.last_error))
    sys.exit(status)


def run_job_by(descriptor: int) -> None:
    """`run_job` in a new process, which is given its order through an open connection."""
    sweep = Connection(descriptor)
    run_job(sweep.recv(), sweep)


def _redirect_output(log_file: Path) -> None:
    """Sends all that this process and its children print to the log, a crash's traceback included."""
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(null)
    faulthandler.enable()


def _report(sweep: Connection) -> None:
    """Tells the sweep of each progress; when the sweep is gone, has the job save itself, and ends it."""
    moved = True
    with suppress(OSError):
        while True:
            if moved:
                sweep.send(Progress(heartbeat.step()))
            if sweep.poll(TICK):  # the sweep sends nothing: what can be read is that its end is closed
                break
            moved = heartbeat.has_moved()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


def how_it_ended(
    ended: Ended | None, exit_code: int | None, stopped_because: str | None, said: str | None
) -> tuple[State, str | None]:
    """The state of a job that has ended, and why it is not completed.

    Its last report counts; without one it was killed, or left by itself. `stopped_because` is what the sweep stopped it
    for, "" if it is to go on later; `said` is the last error in its log.
    """
    if ended is not None:
        state = STATES.get(ended.status, "failed")
        if stopped_because and state != "completed":
            return "failed", stopped_because
        error = (ended.error or said or "").removeprefix(f"{state} ")
        return state, None if state in ("completed", "interrupted") else error
    if stopped_because is not None:
        return ("failed", stopped_because) if stopped_because else ("interrupted", None)
    details = f": {said}" if said else ""
    if exit_code is None or exit_code >= 0:
        return "failed", f"ended by itself with exit status {exit_code}{details}"
    name = signal.Signals(-exit_code).name
    return "failed", f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else details}"


def reason_in(log_file: Path, begin: int = 0) -> str | None:
    """The last error in a job's log after byte `begin`, else its last line; None if there is none."""
    try:
        with log_file.open("rb") as file:
            file.seek(begin)
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return None
    said = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line).strip() for line in lines]
    said = [line for line in said if line]
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    return [*said[-1:], *errors][-1] if said else None
