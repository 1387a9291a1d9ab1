"""`gan-train -m` with hydra/sweeper=search: the values of each job follow from what the jobs before it gave."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from gan_runner.commands.sweep import (
    Account,
    end,
    launcher_settings,
    refuse_resume,
    run_side_by_side,
    wait_for_orphans,
)
from gan_runner.config.composition import JobRequest, SearchRequest, plain
from gan_runner.config.schema import Config, Searching, SideBySide, validate
from gan_runner.console import rounded, say
from gan_runner.errors import UserError
from gan_runner.overrides import as_typed
from gan_runner.status import Status
from gan_runner.sweeps.findings import read_findings
from gan_runner.sweeps.halving import Rungs, rungs_of
from gan_runner.sweeps.jobs import Sweep, SweepDirectory, read_sweep
from gan_runner.sweeps.plan import Task, differing_keys, plan_jobs
from gan_runner.sweeps.search import Search
from gan_runner.sweeps.space import Choices, Space, dimension
from gan_runner.sweeps.study import JOURNAL, Study, require_optuna
from gan_runner.sweeps.view import View
from gan_runner.tables import show


def run_search(request: SearchRequest, config_dir: str | None) -> Status:
    """The whole of a search: what is left of its budget, a table, and the best trial. Raises `UserError`."""
    is_ours, launcher = launcher_settings(request.config)
    if not (is_ours and isinstance(launcher, SideBySide)):
        raise UserError("hydra/launcher: a search starts jobs one by one, which hydra/launcher=local alone can")
    sweeper = plain(request.config.hydra.sweeper)
    chosen = {key: value for key, value in sweeper.items() if key not in ("_target_", "params")}
    settings: Searching = validate(Searching, chosen, "hydra.sweeper")
    space = {key: dimension(override) for key, override in request.space.items()}
    _refuse_what_cannot_be_searched(space, settings)
    require_optuna()
    examples = _examples(request, space)
    rungs = None
    if settings.halving is not None:
        trainer = validate(Config, examples[0].plain).trainer
        rungs = Rungs(settings.halving.factor, rungs_of(settings.halving, trainer.steps, trainer.evaluate_every))
    if launcher.dry_run:
        _refuse_other_jobs(read_sweep(request.directory), examples, request.directory)
        _show_what_is_left(request.directory, space, settings)
        return Status.COMPLETED
    with closing(SweepDirectory(request.directory)) as directory:
        try:
            before = read_sweep(directory.path)
            _refuse_other_jobs(before, examples, directory.path)
            study = Study(directory.path, space, settings)
        except UserError:
            directory.remove_if_empty()
            raise
        sweep = Sweep(command=["gan-train", *sys.argv[1:]], swept=[*space], jobs=before.jobs)
        own = differing_keys(examples)

        def plan(values: Mapping[str, str]) -> Task:
            return plan_jobs(sweep, [request.job(values)], directory.path, (), own)[0]

        wait_for_orphans([directory.path / name for name in sweep.jobs])
        with closing(View(directory.path, sweep.jobs, [], study.left() + study.count("running"))) as view:
            account = Account(directory, sweep, view)
            search = Search(study, directory.path, sweep, plan, account, rungs)
            interrupted = run_side_by_side(account, launcher, search)
            is_at_its_end = search.finish()
        status = end(account, [*sweep.jobs], interrupted, _summary(directory.path, sweep, config_dir))
        if is_at_its_end or status != Status.COMPLETED:
            return status
        say("the same command goes on with this search")  # all that has begun has completed
        return Status.INTERRUPTED if interrupted else Status.FAILED


def _refuse_what_cannot_be_searched(space: Space, settings: Searching) -> None:
    if not space:
        raise UserError("hydra.sweeper.params: a search needs something to choose from: KEY='interval(…)' or KEY=a,b,c")
    for key, numbers in space.items():
        if settings.sampler == "grid" and numbers.values is None:
            raise UserError(
                f"{key}: {numbers.typed} has no end of values, of which hydra.sweeper.sampler=grid would try each; "
                "allowed: choice(…), range(…)"
            )


def _examples(request: SearchRequest, space: Space) -> list[JobRequest]:
    """Jobs in which each key has one value after another, the others their first: what is mistyped is refused now."""
    ends = {
        key: numbers.values if isinstance(numbers, Choices) else [numbers.word(numbers.low), numbers.word(numbers.high)]
        for key, numbers in space.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    jobs = [request.job(first)]
    jobs += [request.job({**first, key: value}) for key, values in ends.items() for value in values[1:]]
    for job in jobs:
        validate(Config, job.plain)
    refuse_resume(jobs)
    if not jobs[0].plain["metric"]:
        raise UserError("trainer.objective: a search goes by a figure, and without a metric there is none")
    return jobs


def _refuse_other_jobs(before: Sweep, examples: Sequence[JobRequest], directory: Path) -> None:
    """UserError where the search so far had other jobs than these, or longer or shorter ones."""
    own, steps = differing_keys(examples), examples[0].plain["trainer"]["steps"]
    plan_jobs(before, examples[:1], directory, (), own)
    others = {job.steps for job in before.jobs.values()} - {steps}
    if others and "trainer.steps" not in own:
        raise UserError(
            f"trainer.steps={steps}: the trials in {directory} have {others.pop()}, and figures after more steps do "
            "not compare; give another search another name"
        )


def _show_what_is_left(directory: Path, space: Space, settings: Searching) -> None:
    study = Study(directory, space, settings) if (directory / JOURNAL).exists() else None
    left, open_trials = (study.left(), study.count("running")) if study is not None else (settings.trials, 0)
    show(["key", "values"], [[key, numbers.typed] for key, numbers in space.items()])
    print(f"{directory}: {left} of {settings.trials} trials are still to begin, {open_trials} to go on")


def _summary(directory: Path, sweep: Sweep, config_dir: str | None) -> list[str]:
    """The best trial, the command that trains it again, and how much each key matters."""
    found = read_findings(directory)
    best = found.best_trial if found is not None else None
    if found is None or best is None or best.job is None:
        return ["best: no trial has come to its end with a figure"]
    overrides = [word.partition("=") for word in sweep.jobs[best.job].overrides if not word.startswith("name=")]
    words = [f"{key}{equals}{as_typed(key, value)}" for key, equals, value in overrides]
    typed = ["gan-train", *(["--config-dir", config_dir] if config_dir else []), *words]
    lines = [
        f"best: trial {best.number}, {best.job}: {found.figure} {rounded(best.value)}",
        f"again: {shlex.join(typed)}",
    ]
    if found.importances:
        shares = (f"{key} {100 * share:.0f} %" for key, share in found.importances.items())
        lines.append(f"importance: {', '.join(shares)}")
    return lines
