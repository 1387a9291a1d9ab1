"""Runs measured afterwards, one or several: evaluation.json and pictures in each, and a table of the figures."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import NonNegativeInt, PositiveInt

from gan_runner import cli, pictures
from gan_runner.build import build_dataset
from gan_runner.checkpoint import write_atomically
from gan_runner.config import Device, Section, check, validate
from gan_runner.console import say
from gan_runner.errors import UserError
from gan_runner.evaluation import Evaluation, Report
from gan_runner.run_directory import read_json, read_run
from gan_runner.sampling import Checkpoint, find_device, load_generator

if TYPE_CHECKING:
    from rich.table import Table


class DataPlace(Section):
    """Where the data lie now; null: where the run found them."""

    root: str | None


class Sides(Section):
    """What may differ from the run's own evaluation; null: as there."""

    extractor: str | None
    real_samples: PositiveInt | None


class Evaluating(Section):
    """Which runs to measure, and by what."""

    run: str | None
    runs: list[str] | str | None
    checkpoint: Checkpoint
    metric: dict[str, dict[str, Any]]
    evaluation: Sides
    dataset: DataPlace
    seed: NonNegativeInt | None
    trust: list[str]
    device: Device


def evaluate_runs(plain: Mapping[str, Any]) -> int:
    """Measures what the configuration `plain` names, prints a table, and returns the exit status.

    Raises `UserError`; of several runs, one that cannot be measured is reported and the others go on.
    """
    settings = validate(Evaluating, plain)
    device = find_device(settings.device)
    if (settings.run is None) == (settings.runs is None):
        raise UserError("run: name one run directory with run=…, or several, or a folder of them, with runs=…")
    if settings.run is not None:
        report = evaluate_run(Path(settings.run), settings, device)
        show(table_of_one(report))
        print(settings.run)
        return cli.FAILED if report.failures else cli.COMPLETED
    reports: dict[str, Report | str] = {}
    for path in find_runs([settings.runs] if isinstance(settings.runs, str) else settings.runs or []):
        try:
            reports[str(path)] = evaluate_run(path, settings, device)
        except UserError as error:
            say(f"error: {error}")
            reports[str(path)] = str(error)
    show(table_of_several(reports))
    failed = any(isinstance(report, str) or report.failures for report in reports.values())
    return cli.FAILED if failed else cli.COMPLETED


def find_runs(folders: list[str]) -> list[Path]:
    """The run directories in `folders`, at any depth."""
    for folder in folders:
        if not any(Path(folder).rglob("config.yaml")):
            raise UserError(f"runs={folder}: there is no run directory in it")
    return sorted({file.parent for folder in folders for file in Path(folder).rglob("config.yaml")})


def evaluate_run(path: Path, settings: Evaluating, device: torch.device) -> Report:
    """Measures the generator of the run in `path`, which anyone may have made, and keeps what it found there.

    By default with the run's own metrics and noise: the figures are those of its last evaluation. Raises `UserError`.
    """
    stored = read_run(path, settings.trust, "run")
    if settings.metric:
        stored["metric"] = settings.metric
    if settings.dataset.root is not None:
        stored["dataset"] |= {"root": settings.dataset.root}
    stored["evaluation"] |= {k: v for k, v in settings.evaluation.model_dump().items() if v is not None}
    config = check(stored)
    generator = load_generator(path, settings.trust, device, settings.checkpoint)
    dataset = build_dataset(config)
    if dataset.fingerprint() != read_json(path / "manifest.json").get("data", {}).get("fingerprint"):
        raise UserError(f"dataset.root: these are other data than {path} was trained on")
    evaluation = Evaluation(config, dataset, device)
    if not evaluation.metrics:
        raise UserError(f"metric: {path} is to be measured by nothing; choose, for example, metric=[fid,neighbours]")
    say(f"{path}: {', '.join(evaluation.metrics)}")
    seed = config.seed if settings.seed is None else settings.seed
    report = evaluation(generator, seed, with_pictures=True)

    content = {"step": generator.step, "checkpoint": settings.checkpoint, "seed": seed, **report.to_json()}
    before = read_json(path / "evaluation.json")
    content |= {"objective": before["objective"]} if "objective" in before else {}
    try:
        write_atomically(path / "evaluation.json", (json.dumps(content, indent=2) + "\n").encode())
        for name, picture in report.pictures.items():
            pictures.save(path / "evaluation" / f"{name}.png", picture)
    except OSError as error:
        raise UserError(f"{path}: cannot keep the evaluation: {error.strerror or error}") from error
    return report


def table_of_one(report: Report) -> "Table":
    """A row a figure, with all that it depends on."""
    from rich.table import Table

    table = Table("figure", "value", "a perfect sampler", "better", "N", "real", "held out", "extractor")
    for name, f in report.figures.items():
        better = {"min": "lower", "max": "higher", None: ""}[f.goal]
        extractor = f"{f.extractor} {(f.extractor_hash or '')[:8]}" if f.extractor else ""
        perfect = f"{number(f.perfect)} (N {f.perfect_samples:,})"
        real = f"{f.real_samples:,}" if f.real_samples else "the truth"
        row = (name, number(f.value), perfect, better, f"{f.samples:,}", real, f.held_out, extractor)
        table.add_row(*row)
    for name, reason in report.failures.items():
        table.add_row(name, "failed", reason)
    return table


def table_of_several(reports: Mapping[str, Report | str]) -> "Table":
    """A row a run, a column a figure; at the end what a perfect sampler scores on the data of the first run."""
    from rich.table import Table

    measured = {path: report for path, report in reports.items() if isinstance(report, Report)}
    names = list(dict.fromkeys(name for report in measured.values() for name in report.figures))
    table = Table("run", *names)
    for path, found in reports.items():
        if isinstance(found, str):
            table.add_row(path, found)
        else:
            table.add_row(path, *(number(found.figures[n].value) if n in found.figures else "failed" for n in names))
    first = next(iter(measured.values()), Report())
    table.add_row("a perfect sampler", *(number(first.figures[n].perfect) if n in first.figures else "" for n in names))
    return table


def number(value: float | None) -> str:
    """Four significant digits, or nothing."""
    return "" if value is None else f"{value:,.4g}"


def show(table: "Table") -> None:
    """Prints a table on standard output, as wide as it needs to be where that is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 240).print(table)
