"""What a job of SLURM does on its node: it starts the process of a sweep's job, and reports what became of it."""

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gan_runner.config.schema import validate
from gan_runner.machine.signals import on_stop_signal
from gan_runner.paths import write_atomically
from gan_runner.runs.directory import read_json
from gan_runner.status import Status
from gan_runner.sweeps.foreign import run_in_new_process
from gan_runner.sweeps.job import STATES, Order
from gan_runner.sweeps.jobs import State

FOLDER = ".slurm"  # in the sweep's directory: what was handed in, what it printed, and what became of it
STOP = "stop"  # a file there while the whole sweep stops: no job is to go back into the queue


@dataclass(frozen=True)
class Report:
    """What became of a job on its node; it is "running" until its end, also if it was killed."""

    slurm_id: str
    state: State
    step: int = 0
    reason: str | None = None
    seconds: float = 0.0  # of all times that it was in the queue


def read_report(folder: Path, name: str, slurm_id: str) -> Report | None:
    """The report of the sweep's job `name`; None if its job in SLURM has not begun. Raises `UserError`."""
    file = folder / f"{name}.json"
    report: Report | None = validate(Report, read_json(file), str(file)) if file.exists() else None
    return report if report is not None and report.slurm_id == slurm_id else None


def run_on_node(order: Order, working_directory: Path) -> None:
    """Runs the job and ends this process with its exit status: 75 if it is to go back into the queue.

    SLURM signals all processes of a job, so the job's own process is asked to stop without help from here.
    """
    folder, name, slurm_id = order.directory.parent / FOLDER, order.directory.name, _own_id()
    before, signals = read_report(folder, name, slurm_id), list[None]()
    seconds = before.seconds if before is not None else 0.0

    def report(about: Report) -> None:
        write_atomically(folder / f"{name}.json", json.dumps(asdict(about)).encode())

    with on_stop_signal(lambda: signals.append(None), once=False):
        report(Report(slurm_id, "running", seconds=seconds))
        threads = os.environ["SLURM_CPUS_PER_TASK"]
        os.environ["OMP_NUM_THREADS"] = threads  # torch looks when it is imported
        result = run_in_new_process(
            replace(order, threads=int(threads)), working_directory, is_asked_to_stop=lambda: bool(signals)
        )
        report(Report(slurm_id, result.state, result.step, result.reason, seconds + result.seconds))
        stops_for_good = result.state == "interrupted" and (folder / STOP).exists()
    statuses = {state: status for status, state in STATES.items()}
    sys.exit(Status.COMPLETED if stops_for_good else statuses[result.state])


def _own_id() -> str:
    """As `squeue` and `sbatch` call it: 12, or 12_3 in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
