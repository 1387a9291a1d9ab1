"""`gan-evaluate`: measures one or several runs; writes evaluation.json and pictures, prints a table of figures."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt

from gan_runner import pictures
from gan_runner.config.components import Experiment, check
from gan_runner.config.schema import Device, Section, validate
from gan_runner.console import logged, rounded, say
from gan_runner.datasets import describe
from gan_runner.datasets.base import Folder
from gan_runner.errors import UserError
from gan_runner.evaluation.evaluation import Evaluation
from gan_runner.evaluation.report import Report
from gan_runner.machine.devices import one_device
from gan_runner.machine.threads import keep_threads
from gan_runner.paths import as_path
from gan_runner.runs.building import build_dataset
from gan_runner.runs.directory import RunDirectory, read_json, read_run
from gan_runner.runs.generator import Checkpoint, TrainedGenerator, load_generator
from gan_runner.runs.manifest import Manifest
from gan_runner.status import Status
from gan_runner.sweeps.report.collect import StoredEvaluation
from gan_runner.sweeps.report.run_page import figure_table
from gan_runner.tables import Table, show


class DatasetChanges(Section):
    """Where the data are now; null: in the same place."""

    root: str | None


class EvaluationChanges(Section):
    """What may differ from the run's own evaluation; null: the same."""

    extractor: str | None
    real: Literal["training", "held_out"] | None
    real_samples: PositiveInt | None


class EvaluateSettings(Section):
    """Which runs to measure, and how."""

    run: Folder | None
    runs: Folder | list[Folder] | None
    checkpoint: Checkpoint
    metric: dict[str, dict[str, Any]]
    evaluation: EvaluationChanges
    dataset: DatasetChanges
    seed: NonNegativeInt | None
    trust: list[str]
    device: Device


def evaluate_runs(plain: Mapping[str, Any]) -> int:
    """Measures the runs that the configuration `plain` names, prints a table, and returns the exit status.

    Raises `UserError`; but of several runs, one that cannot be measured is reported, and the others are measured.
    """
    settings = validate(EvaluateSettings, plain)
    device = one_device(settings.device)
    if (settings.run is None) == (settings.runs is None):
        raise UserError("run: name one run directory with run=…, or several, or a folder of them, with runs=…")
    if settings.runs == []:
        raise UserError("runs=[]: names no run")
    if settings.run is not None:
        report = evaluate_run(as_path("run", settings.run), settings, device)
        show(*figure_table(StoredEvaluation.model_validate(report.to_json())))
        print(settings.run)
        return Status.FAILED if report.failures else Status.COMPLETED
    reports: dict[str, Report | None] = {}
    for path in find_runs([settings.runs] if isinstance(settings.runs, str) else settings.runs or []):
        try:
            reports[str(path)] = evaluate_run(path, settings, device)
        except UserError as error:
            say(f"error: {error}")
            reports[str(path)] = None
    show(*table_of_several(reports))
    failed = any(report is None or report.failures for report in reports.values())
    return Status.FAILED if failed else Status.COMPLETED


def find_runs(folders: Sequence[str]) -> list[Path]:
    """The run directories in `folders`, at any depth."""
    found: set[Path] = set()
    for folder in folders:
        runs = {file.parent for file in as_path("runs", folder).rglob("config.yaml")}
        if not runs:
            raise UserError(f"runs={folder}: there is no run directory in it")
        found |= runs
    return sorted(found)


def evaluate_run(path: Path, settings: EvaluateSettings, device: torch.device) -> Report:
    """Measures the generator of the run in `path`, and writes the result there.

    By default, the run's own metrics and noise give the figures of its last evaluation. Raises `UserError`, also if the
    run is still at work.
    """
    stored = read_run(path, settings.trust, "run")
    directory = RunDirectory(path)
    with logged() as log, closing(directory):
        before = read_json(path / "evaluation.json")
        experiment = _experiment(path, stored, settings)
        keep_threads(Manifest.of(path).threads)
        generator = load_generator(path, settings.trust, device, settings.checkpoint)
        seed = experiment.config.seed if settings.seed is None else settings.seed
        report = _measure(path, experiment, generator, seed, device)
        content = {"step": generator.step, "checkpoint": settings.checkpoint, "seed": seed, **report.to_json()}
        content |= {"objective": before["objective"]} if "objective" in before else {}
        log.open(path / "log.txt")  # not before: a refusal leaves nothing behind
        _write(directory, report, content)
    return report


def _experiment(path: Path, stored: dict[str, Any], settings: EvaluateSettings) -> Experiment:
    """The run's configuration, with the changes that the user typed."""
    if settings.metric:
        stored["metric"] = settings.metric
    if settings.dataset.root is not None:
        stored["dataset"] |= {"root": settings.dataset.root}
    stored["evaluation"] |= {k: v for k, v in settings.evaluation.model_dump().items() if v is not None}
    try:
        return check(stored)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _measure(
    path: Path, experiment: Experiment, generator: TrainedGenerator, seed: int, device: torch.device
) -> Report:
    """Compares the generator with the data that it was trained on."""
    before = Manifest.of(path)
    try:
        dataset = build_dataset(experiment, before)
    except UserError as error:
        raise UserError(f"{path}: {error}. dataset.root=… says where the data are now") from error
    if dataset.fingerprint() != before.data.get("fingerprint"):
        raise UserError(f"dataset.root: these are other data than {path} was trained on")
    evaluation = Evaluation(experiment, dataset, device)
    if not evaluation.metrics:
        why = evaluation.left_out or "none is chosen; type, for example, 'metric=[fid,neighbours]'"
        raise UserError(f"metric: nothing to measure {path} by: {why}")
    say(f"{path}: {', '.join(evaluation.metrics)}")
    say(f"data: {describe(dataset)}")
    return evaluation(generator, seed, with_pictures=True)


def _write(directory: RunDirectory, report: Report, content: dict[str, Any]) -> None:
    """Writes evaluation.json and the pictures; if that fails, the figures are still shown."""
    path = directory.path
    try:
        for name, picture in report.pictures.items():
            pictures.save(path / "evaluation" / f"{name}.png", picture)
        directory.write_json("evaluation.json", content)
    except OSError as error:
        report.failures["evaluation.json"] = f"not kept: {error.strerror or error}"
        say(f"error: {path}: the evaluation is not kept: {error.strerror or error}")


def table_of_several(reports: Mapping[str, Report | None]) -> Table:
    """A row for each run, a column for each figure; a perfect sampler's score last, if it is the same for all."""
    found = [report for report in reports.values() if report is not None]
    metrics = {name: figure.metric for report in found for name, figure in report.figures.items()}
    rows = [[path, *(_cell(report, *figure) for figure in metrics.items())] for path, report in reports.items()]
    ideal = [{rounded(r.figures[name].perfect) for r in found if name in r.figures} for name in metrics]
    rows.append(["a perfect sampler", *(values.pop() if len(values) == 1 else "" for values in ideal)])
    return ["run", *metrics], rows


def _cell(report: Report | None, name: str, metric: str) -> str:
    """A figure, or "" if it was not asked for."""
    if report is None:
        return "not measured"
    if name in report.figures:
        return rounded(report.figures[name].value)
    return "failed" if metric in report.failures else ""
