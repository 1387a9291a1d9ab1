"""The jobs of a sweep and what became of them: sweep.json, locked by the command that is at work on it."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from gan_runner.config.schema import Config, validate
from gan_runner.errors import UserError
from gan_runner.paths import write_atomically
from gan_runner.runs.directory import add_newer_keys, is_run, lock, read_json, read_objective, write_pid

JobName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # leads nowhere else
State = Literal["waiting", "running", "completed", "failed", "refused", "diverged", "interrupted", "pruned"]
ENDED = ("completed", "failed", "refused", "diverged", "pruned")
FILES = {".lock", ".slurm", "sweep.json", "search.json", "study.journal"}  # of a sweep, beside its jobs


class Job(BaseModel):
    """One run of a sweep. It is its configuration; its name is only how it is called."""

    model_config = ConfigDict(extra="forbid")

    swept: dict[str, str]  # what the command sweeps, as typed
    overrides: list[str]
    config: dict[str, Any]  # resolved, as in config.yaml
    state: State = "waiting"
    step: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0  # of all attempts
    attempts: NonNegativeInt = 0
    reason: str | None = None  # why it is not completed

    @property
    def steps(self) -> int:
        """The step at which it is completed; 0 where the configuration is wrong, which the job itself will say."""
        trainer = self.config.get("trainer")
        steps = trainer.get("steps") if isinstance(trainer, dict) else None
        return int(steps) if isinstance(steps, int | float) else 0


class Sweep(BaseModel):
    """The content of sweep.json."""

    model_config = ConfigDict(extra="forbid")

    command: list[str]
    swept: list[str]  # the keys, as typed
    jobs: dict[JobName, Job]  # by the names of their directories


class SweepDirectory:
    """The directory of a sweep, made if it is not there, and locked by this process until it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot make the directory of the sweep: {error.strerror}") from error
        self._lock = lock(path, "another command is at work on this sweep")
        write_pid(self._lock)

    def write(self, sweep: Sweep) -> None:
        """Writes sweep.json."""
        content = (json.dumps(sweep.model_dump(), indent=1) + "\n").encode()
        write_atomically(self.path / "sweep.json", content, durable=False)

    def remove_if_empty(self) -> None:
        """Removes what this command has made, if it holds no job."""
        if self._made and {file.name for file in self.path.iterdir()} <= FILES:
            for file in self.path.iterdir():
                shutil.rmtree(file) if file.is_dir() else file.unlink()
            with suppress(OSError):  # another command has put something there
                for folder in self._made:
                    folder.rmdir()

    def close(self) -> None:
        """Unlocks it."""
        os.close(self._lock)


def read_sweep(path: Path) -> Sweep:
    """The sweep in `path`, one without jobs if there is none. Raises `UserError`, also if none could be there."""
    in_the_way = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not in_the_way.is_dir():
        raise UserError(f"{path}: cannot be the directory of a sweep, because {in_the_way} is a file")
    file = path / "sweep.json"
    content = read_json(file) or {"command": [], "swept": [], "jobs": {}}
    sweep: Sweep = validate(Sweep, content, str(file))
    for name, job in sweep.jobs.items():
        job.config = content["jobs"][name]["config"]  # letter for letter: `validate` makes 1 of 1.0
        add_newer_keys(Config, job.config)
    return sweep


def look_at_run(job: Job, path: Path) -> None:
    """Brings the job up to date with its run directory: it may have gone on by itself, or be gone."""
    if not is_run(path):
        if job.state not in ("failed", "refused", "diverged"):
            job.state, job.step = "waiting", 0
        return
    status = read_json(path / "status.json")
    job.step = validate(NonNegativeInt, status.get("step", 0), f"{path / 'status.json'}: step")
    state = status.get("state")
    if state == "completed" or job.state not in ENDED:
        known = state in ("completed", "failed", "diverged")
        job.state = validate(State, state) if known else "interrupted"
        job.reason = status.get("message") if known else None


def objective_of(path: Path) -> float | None:
    """The best value so far of the figure that the job in `path` is selected by, None if there is none yet."""
    try:
        return read_objective(path)
    except UserError:
        return None


def remove_if_unused(directory: Path) -> None:
    """Removes the directory of a job that was refused before it became a run."""
    with suppress(OSError):
        if {file.name for file in directory.iterdir()} <= {"log.txt", ".lock"}:
            for file in directory.iterdir():
                file.unlink()
            directory.rmdir()
