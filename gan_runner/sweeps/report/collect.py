"""What a report is about, read from the disk: runs, and the sweep.json of a sweep. All of it may be anyone's making."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from gan_runner.config.schema import validate
from gan_runner.errors import UserError
from gan_runner.metrics import Goal
from gan_runner.runs.directory import in_use, is_run, read_json, read_run
from gan_runner.runs.logger import Row, read_metrics
from gan_runner.runs.manifest import Manifest

AT_WORK = ("waiting", "running")
LARGEST = 10**15  # a whole number that a run may log: more than any reaches, and still exact as a float


class Stored(BaseModel):
    """A file of a run, of which a report shows these keys."""

    model_config = ConfigDict(frozen=True)


class StoredFigure(Stored):
    """A figure in evaluation.json."""

    metric: str = ""
    value: float | None = None  # None: undefined
    perfect: float | None = None
    goal: Goal | None = None
    samples: NonNegativeInt = 0
    real_samples: NonNegativeInt = 0
    perfect_samples: NonNegativeInt = 0
    real: str = ""
    held_out: str = ""
    extractor: str | None = None
    extractor_hash: str | None = None


class StoredObjective(Stored):
    """The figure to select by, at its best."""

    figure: str
    goal: Goal | None = None
    value: float | None = None
    step: NonNegativeInt = 0


class StoredEvaluation(Stored):
    """evaluation.json."""

    step: NonNegativeInt = 0
    figures: dict[str, StoredFigure] = {}
    failures: dict[str, str] = {}
    objective: StoredObjective | None = None


class StoredFinding(Stored):
    """A finding in health.json."""

    name: str
    step: NonNegativeInt = 0
    evidence: str = ""
    cause: str = ""
    to_try: list[str] = Field([], alias="try")
    resolved: NonNegativeInt | None = None


class StoredHealth(Stored):
    """health.json."""

    verdict: str = ""
    findings: list[StoredFinding] = []


class StoredStatus(Stored):
    """status.json."""

    state: str = "unknown"
    step: NonNegativeInt = 0
    message: str | None = None


class StoredData(Stored):
    """The data in manifest.json; of what earlier versions wrote, only the skipped files."""

    description: str = ""
    class_names: list[str] = []
    class_counts: list[NonNegativeInt] = []
    remarks: list[str] = []
    skipped: NonNegativeInt = 0


class Origin(Manifest):
    """manifest.json: what a run was made with."""

    versions: dict[str, str] = Field(default={})
    git_commit: str | None = None
    command: list[str] = Field(default=[])
    machine: dict[str, Any] = Field(default={})
    parameters: dict[str, int] = Field(default={})

    @property
    def fingerprint(self) -> str:
        """Of the data."""
        return str(self.data.get("fingerprint", ""))


class StoredJob(Stored):
    """A job in sweep.json."""

    swept: dict[str, str] = {}
    config: dict[str, Any] = {}
    state: str = "waiting"
    step: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    reason: str | None = None


class StoredSweep(Stored):
    """sweep.json. The names of jobs are those of folders beside it, and lead nowhere else."""

    command: list[str] = []
    swept: list[str] = []
    jobs: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")], StoredJob] = {}


@dataclass(frozen=True)
class Run:
    """A run, or a job of a sweep that has not come to be one."""

    name: str  # its folder's, within the one that the report is about
    path: Path
    config: dict[str, Any]
    state: str
    step: int
    seconds: float
    reason: str = ""  # why it did not complete
    swept: dict[str, str] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    evaluation: StoredEvaluation = field(default_factory=StoredEvaluation)
    health: StoredHealth = field(default_factory=StoredHealth)
    origin: Origin = field(default_factory=Origin)
    data: StoredData = field(default_factory=StoredData)

    @property
    def seed(self) -> int:
        seed: int = self.config["seed"]
        return seed

    @property
    def steps(self) -> int | None:
        """How many it was asked for; None for a job that may have been refused because of them."""
        trainer = self.config.get("trainer")
        steps = trainer.get("steps") if isinstance(trainer, dict) else None
        return int(steps) if isinstance(steps, int | float) and abs(steps) <= LARGEST else None

    @property
    def tags(self) -> list[str]:
        """What it measured while it trained, those figures included that were undefined throughout."""
        logged = dict.fromkeys(tag for row in self.rows for tag in row if tag.startswith("metric/"))
        undefined = (name for name, figure in self.evaluation.figures.items() if figure.value is None)
        return [*logged | dict.fromkeys(f"metric/{name}" for name in undefined)]

    def final(self, tag: str) -> float | None:
        """The figure at the end: of the last row that has it; NaN if it is undefined, None if it was not measured."""
        row = next((row for row in reversed(self.rows) if tag in row), None)
        newest = self.evaluation.figures.get(tag.removeprefix("metric/"))
        if newest is not None and newest.value is None and (row is None or self.evaluation.step >= row["step"]):
            return math.nan  # the logs leave out what is undefined
        return None if row is None else float(row[tag])

    def best(self) -> float | None:
        """The objective at its best on the way; NaN if it is undefined, None if there is none."""
        objective = self.evaluation.objective
        return None if objective is None else math.nan if objective.value is None else objective.value


@dataclass(frozen=True)
class Runs:
    """The runs in a folder."""

    folder: Path
    runs: list[Run]
    unreadable: list[str]  # why, one sentence each
    command: Sequence[str] = ()  # of the sweep
    swept: Sequence[str] = ()  # its keys


_Kind = TypeVar("_Kind", bound=BaseModel)


def _read(kind: type[_Kind], path: Path) -> _Kind:
    found: _Kind = validate(kind, read_json(path), str(path))
    return found


def read_one(path: Path, key: str = "run", name: str = "", job: StoredJob | None = None) -> Run:
    """The run in `path`, which `key` names. A `job` of a sweep tells its own state. Raises `UserError`."""
    config = read_run(path, None, key)  # no class that it names is imported
    rows = read_metrics(path / "metrics.jsonl")
    if any(isinstance(value, int) and not 0 <= value <= LARGEST for row in rows for value in row.values()):
        raise UserError(f"{path / 'metrics.jsonl'}: has a number that no run logs")
    origin = _read(Origin, path / "manifest.json")
    job = job or _as_job(path, origin)
    last = rows[-1] if rows else {}
    return Run(
        name=name or path.name,
        path=path,
        config=config,
        state=job.state,
        step=max(job.step, last.get("step", 0)) if job.state in AT_WORK else job.step,
        seconds=max(job.seconds, last.get("time/seconds", 0.0)) if job.state in AT_WORK else job.seconds,
        reason=job.reason or "",
        swept=job.swept,
        rows=rows,
        evaluation=_read(StoredEvaluation, path / "evaluation.json"),
        health=_read(StoredHealth, path / "health.json"),
        origin=origin,
        data=validate(StoredData, origin.data, f"{path / 'manifest.json'}: data"),
    )


def _as_job(path: Path, origin: Origin) -> StoredJob:
    """What a run says of itself; but a run that was killed goes on saying that it is running."""
    status = _read(StoredStatus, path / "status.json")
    killed = status.state == "running" and not in_use(path)
    reason = "it was killed" if killed else status.message
    state = "interrupted" if killed else status.state
    return StoredJob(state=state, step=status.step, seconds=origin.wall_seconds, reason=reason)


def read_several(folder: Path) -> Runs:
    """The jobs of the sweep in `folder`, or, without a sweep.json, the runs in it at any depth. Raises `UserError`.

    A run that cannot be read is told of, and does not hide the others.
    """
    sweep = _read(StoredSweep, folder / "sweep.json")
    paths = [folder / name for name in sweep.jobs] or sorted(p.parent for p in folder.rglob("config.yaml"))
    if not paths:
        raise UserError(f"runs={folder}: there is no run directory in it")
    runs, unreadable = [], []
    for path in paths:
        job, name = sweep.jobs.get(path.name) if sweep.jobs else None, path.relative_to(folder).as_posix()
        try:
            if job is None or is_run(path):
                runs.append(read_one(path, "runs", name, job))
            else:
                gone = job.state == "completed"
                state, reason = ("lost", "its directory is gone") if gone else (job.state, job.reason or "")
                runs.append(Run(name, path, job.config, state, job.step, job.seconds, reason, job.swept))
        except UserError as error:
            unreadable.append(str(error))
    return Runs(folder, runs, unreadable, sweep.command, sweep.swept)
