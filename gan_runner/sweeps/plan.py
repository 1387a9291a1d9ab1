"""What a command is to do with each job of its sweep, some of which may have been run before."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_runner.config.composition import JobRequest
from gan_runner.errors import UserError
from gan_runner.names import job_name, with_hash
from gan_runner.runs.directory import is_run
from gan_runner.runs.plan import MAY_CHANGE, Plan, place_of_data, refuse_changes
from gan_runner.sweeps.jobs import Job, Sweep, look_at_run

Leaves = dict[str, str]  # a configuration: each value as text, by its whole key


@dataclass(frozen=True)
class Task:
    """A job, and what is to be done with it."""

    name: str
    job: Job
    to_do: str  # run, resume, extend, retry, check; "" for nothing
    why: str = ""  # nothing is done


def plan_jobs(
    before: Sweep,
    wanted: Sequence[JobRequest],
    directory: Path,
    retry: Sequence[str],
    may_differ: Collection[str] = (),
) -> list[Task]:
    """A task for each job of this command, in its order; the same one for a value written in two ways.

    Changes nothing on the disk. A job that is there already is found by its configuration, except for keys that a run
    may change and that tell no jobs apart: `may_differ` are keys that do, besides those in which these jobs differ.
    Raises `UserError` where the command changes what all jobs have in common, or would extend what cannot be.
    """
    old = {name: _leaves(job.config) for name, job in before.jobs.items()}
    new = [_leaves(request.plain) for request in wanted]
    own = _differing(old.values()) | _differing(new) | {*may_differ}
    _refuse_common_changes(old.values(), new, own, directory)

    def identity(leaves: Leaves) -> frozenset[tuple[str, str]]:
        return frozenset((key, value) for key, value in leaves.items() if key in own or not _may_change(key))

    names = {identity(leaves): name for name, leaves in old.items()}
    tasks, planned = dict[str, Task](), list[Task]()
    taken = {name.casefold() for name in before.jobs}  # some disks tell no a from A
    for request, leaves in zip(wanted, new, strict=True):
        name = names.get(identity(leaves))
        if name is None:
            name = job_name(request.swept)
            if name.casefold() in taken:
                name = with_hash(name, repr(sorted(leaves.items())))
            names[identity(leaves)] = name
            taken.add(name.casefold())
        if name not in tasks:
            tasks[name] = _plan_job(name, before.jobs.get(name), request, directory, retry)
        planned.append(tasks[name])
    return planned


def differing_keys(requests: Iterable[JobRequest]) -> set[str]:
    """The keys that have not the same value in all of these jobs."""
    return _differing(_leaves(request.plain) for request in requests)


def _plan_job(name: str, before: Job | None, request: JobRequest, directory: Path, retry: Sequence[str]) -> Task:
    job = Job(swept=request.swept, overrides=request.overrides, config=request.plain)
    if before is None:
        return Task(name, job, "run")
    job = before.model_copy(update={"swept": job.swept, "overrides": job.overrides, "config": job.config})
    look_at_run(job, directory / name)
    if is_run(directory / name):
        refuse_changes(Plan(job.config, directory / name, stored=before.config))
    if job.state in ("failed", "diverged", "refused"):
        hint = f"left as it is; 'hydra.launcher.retry=[{job.state}]' tries again"
        return Task(name, job, "retry") if job.state in retry else Task(name, job, "", hint)
    if job.state == "pruned":
        return Task(name, job, "", "its search has left it behind")
    if job.state == "completed":
        has_moved = place_of_data(before.config) != place_of_data(job.config)  # to the same data, the job will check
        to_do = "extend" if job.steps > job.step else "check" if has_moved else ""
        return Task(name, job, to_do, "" if to_do else "nothing is left to do")
    return Task(name, job, "resume" if job.state == "interrupted" else "run")


def _refuse_common_changes(old: Iterable[Leaves], new: Iterable[Leaves], own: set[str], directory: Path) -> None:
    """UserError if the jobs that are there, and those of this command, have each another value of one key in common."""
    for before, after in zip(list(old)[:1], list(new)[:1], strict=False):
        for key in sorted({*before, *after} - own):
            if before.get(key) != after.get(key) and not _may_change(key):
                raise UserError(
                    f"{key}: the jobs in {directory} have {before.get(key, 'null')} in common, found "
                    f"{after.get(key, 'null')}; sweep over both values, or give this sweep another name"
                )


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Leaves:
    """Every value of a configuration but null as text, by its whole key; an empty section counts as a value."""
    leaves: Leaves = {}
    for name, value in config.items():
        if value is None:  # as a missing key, which a sweep of an earlier version may lack
            continue
        inner = isinstance(value, Mapping) and len(value) > 0
        leaves |= _leaves(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": repr(value)}
    return leaves


def _differing(configs: Iterable[Leaves]) -> set[str]:
    """The keys that have not the same value in all."""
    first, *others = [*configs] or [{}]
    return {key for other in others for key in {*first, *other} if first.get(key) != other.get(key)}


def _may_change(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)
