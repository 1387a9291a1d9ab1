"""What a run leaves beside its logs and checkpoints: what it was made with, how it ended, and charts."""

import shlex
import sys
import time
from typing import Any

import torch

from gan_runner import pictures
from gan_runner.commands.observing import Watch
from gan_runner.commands.training import Measures, Training
from gan_runner.config.trust import foreign_packages
from gan_runner.console import rounded, say
from gan_runner.datasets import DataFacts, Dataset, about_data, describe
from gan_runner.evaluation.report import Figure
from gan_runner.machine.devices import peak_memory
from gan_runner.observers.base import Row
from gan_runner.overrides import command, override
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.manifest import Manifest, environment
from gan_runner.runs.plan import Plan, with_places
from gan_runner.runs.summary import memory, parameter_count
from gan_runner.status import Status
from gan_runner.sweeps.report.page import Page, Section, to_markdown
from gan_runner.sweeps.report.run_page import class_table
from gan_runner.sweeps.report.writing import report_at_the_end, write_run_report

SUMMARIZED = ("loss/", "score/", "divergence/", "theory/", "metric/", "observer/", "speed/")


class Record:
    """The first process's account of a run."""

    def __init__(
        self, directory: RunDirectory, training: Training, measures: Measures, plan: Plan, fingerprint: str
    ) -> None:
        self.directory, self.training, self.plan = directory, training, plan
        self.begun = time.time()
        before, extractor = Manifest.of(directory.path), measures.evaluation.extractor
        self.manifest: dict[str, Any] = environment(training.ranks.device, training.ranks.size) | {
            "data": data_record(training.dataset, fingerprint),
            "parameters": {
                "generator": parameter_count(training.state.generator.module),
                "discriminator": parameter_count(training.state.discriminator.module),
            },
            "extractor": before.extractor if extractor is None else extractor.hash,
            "wall_seconds": before.wall_seconds,
        }

    def begin(self, summary: str) -> None:
        """Writes what is known before the first step."""
        path, state = self.directory.path, self.training.state
        say(summary)
        for line in about_data(self.training.dataset):
            say(line)
        say(f"{path}: from step {state.step} to {self.training.settings.steps} on {self.training.ranks.device}")
        self.directory.write_pid()
        self.directory.write_config(with_places(self.plan.plain))
        self.directory.write_json("status.json", {"state": "running", "step": state.step})
        (path / "summary.txt").write_text(summary + "\n")
        self.directory.write_json("manifest.json", self.manifest)

    def end(self, status: Status, message: str | None, watch: Watch) -> Status:
        """Writes how the run ended, draws its charts, and prints a short summary; returns the exit status."""
        state, name = self.training.state, status.name.lower()
        try:
            self.directory.write_json("status.json", {"state": name, "step": state.step, "message": message})
        except OSError as error:
            say(f"warning: {error}")
            status = status or Status.FAILED
        self.manifest["wall_seconds"] += time.time() - self.begun
        self.manifest["memory_mib"] = memory(state) | {"peak": peak_memory(self.training.ranks.device) / 2**20}
        try:
            self.directory.write_json("manifest.json", self.manifest)
            if status != Status.FAILED:  # what failed may be the disk, or the loss whose reference values are drawn
                self.draw_charts(watch)
        except OSError as error:
            say(f"warning: {error}")
        finally:
            watch.logger.close()
        if status != Status.INTERRUPTED:  # a stop is answered at once
            report_at_the_end(write_run_report, self.directory.path)
        self.report(status, watch)
        return status

    def draw_charts(self, watch: Watch) -> None:
        """The losses, the metrics, and for vectors what became of one sample over the run."""
        state, logger = self.training.state, watch.logger
        charts = {"losses": ("loss/chart", pictures.loss_chart(logger.rows, self.training.reference_losses()))}
        if figures := watch.evaluate.report.figures:
            perfect = {name: (figure.perfect, figure.perfect_sampler) for name, figure in figures.items()}
            charts["metrics"] = ("metric/chart", pictures.metric_chart(logger.rows, perfect))
        if state.evolution:
            picture = pictures.evolution(torch.stack(state.evolution).numpy(), self.training.settings.sample_every)
            charts["evolution"] = ("samples/evolution", picture)
        for name, (tag, chart) in charts.items():
            logger.image(tag, chart, state.step, self.directory.path / f"{name}.png")

    def report(self, status: Status, watch: Watch) -> None:
        """The summary on standard output, whose last line is the run directory."""
        last: Row = {}
        for row in watch.logger.rows:
            last |= row
        device, seconds = self.training.ranks.device, self.manifest["wall_seconds"]
        lines = [f"{status.name.lower()} at step {self.training.state.step} in {seconds:.1f} s on {device}"]
        figures = watch.evaluate.report.figures
        for tag, value in last.items():
            if tag.startswith(SUMMARIZED):
                lines.append(f"  {tag:28} {rounded(value)}{_context(figures.get(tag.removeprefix('metric/')))}")
        sizes = self.manifest["memory_mib"].items()
        sizes_in_words = ", ".join(f"{name.replace('_', ' ')} {size:,.1f}" for name, size in sizes)
        lines.append(f"  {'memory (MiB)':28} {sizes_in_words}")
        if watch.verdict is not None:
            lines.append(f"  {'health':28} {watch.verdict}")
        if status == Status.INTERRUPTED:
            lines.append(f"go on with: {command('train')} {self.resume_command()}")
        for line in [*lines, str(self.directory.path)]:
            say(line, sys.stdout)

    def resume_command(self) -> str:
        """The overrides that go on with this run."""
        foreign = foreign_packages(self.plan.plain)
        trust = [shlex.quote(f"trust=[{','.join(foreign)}]")] if foreign else []
        return " ".join([override("resume", self.directory.path), *trust])


def data_record(dataset: Dataset, fingerprint: str) -> dict[str, Any]:
    """What manifest.json says of the data."""
    return DataFacts.of(dataset).model_dump() | {
        "description": describe(dataset),
        "class_counts": dataset.class_counts(),
        "class_order": dataset.class_order,
        "num_files": dataset.num_files,
        "remarks": dataset.remarks,
        "fingerprint": fingerprint,
        "skipped": len(dataset.skipped),
        "skipped_files": dataset.skipped,
    }


def data_as_markdown(dataset: Dataset) -> str:
    """What the data are, and a table of their classes."""
    classes = Section("Classes", class_table(dataset.class_names, dataset.class_counts()))
    return to_markdown(Page("Data", [describe(dataset), *dataset.remarks], [classes]))


def _context(figure: Figure | None) -> str:
    """What a figure rests on, for the summary."""
    if figure is None:
        return ""
    parts = [figure.perfect_sampler, f"N {figure.samples:,}"]
    parts += [f"{figure.extractor} {figure.extractor_hash[:8]}"] if figure.extractor_hash is not None else []
    return f"  ({', '.join(part for part in parts if part)})"
