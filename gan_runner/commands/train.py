"""One run from its first file to its last: what each of its processes does around the training loop."""

import shlex
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gan_runner import pictures
from gan_runner.batches import draw_latent
from gan_runner.commands.status import Status
from gan_runner.config import composition
from gan_runner.config.components import check, find_targets
from gan_runner.config.schema import Config
from gan_runner.console import rounded, say
from gan_runner.datasets import DataFacts, Dataset
from gan_runner.errors import UserError
from gan_runner.evaluation.evaluation import Evaluation, Figure
from gan_runner.machine.devices import peak_memory
from gan_runner.machine.launch import under_torchrun
from gan_runner.machine.ranks import Ranks
from gan_runner.machine.signals import on_stop_signal
from gan_runner.randomness import rng
from gan_runner.runs.building import build_dataset
from gan_runner.runs.checkpoint import load_newest
from gan_runner.runs.directory import RunDirectory, read_json, read_run
from gan_runner.runs.logger import Logger, Row, read_metrics
from gan_runner.runs.manifest import Manifest, environment
from gan_runner.runs.plan import Plan
from gan_runner.runs.summary import memory, parameter_count, summarize
from gan_runner.runs.trainer import Diverged, Interrupted, Trainer

SAVED = ("running", "completed", "interrupted")  # states of a run that, past step 0, has left a checkpoint
STATES: dict[int, str] = {
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.DIVERGED: "diverged",
    Status.INTERRUPTED: "interrupted",
}


def work(planned: Plan, ranks: Ranks | None = None) -> int:
    """The whole of a run, in each of its processes; returns the exit status."""
    ranks = ranks or Ranks()
    directory = None
    try:
        config = check(planned.plain).config
        ranks.place(config.device)

        # A run that is there is claimed at once; a new one gets its directory when nothing can refuse it any more.
        if planned.continues:
            if ranks.on_main(already_completed, planned.path, config):
                return Status.COMPLETED
            directory = ranks.main_alone(RunDirectory, planned.path)
        dataset = ranks.main_first(lambda: prepare_dataset(config, ranks))
        trainer = Trainer(config, dataset, ranks)
        with answered_signals(trainer.ask_to_stop):
            ranks.any(False)  # nothing is on the disk before all processes can be interrupted
            summary = try_out(trainer)
            fingerprint = ranks.on_main(dataset.fingerprint)
            restore(trainer, planned, fingerprint)
            if not planned.continues:
                directory = ranks.main_alone(RunDirectory.create, planned.path, planned.unique)

            if directory is None:
                return fit(trainer, None, None)
            return Record(directory, trainer, planned, fingerprint).keep(summary)
    except UserError as error:
        say(f"error: {error}")
        return Status.REFUSED
    except OSError as error:  # a full disk, most likely
        say(f"error: {error}")
        return Status.FAILED
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        say(f"error: this does not fit into memory: {composition.one_line(error)}")
        return Status.REFUSED
    finally:
        if directory is not None:
            directory.release()
        ranks.leave()


def lacks_memory(error: Exception) -> bool:
    """Whether it says that there is not enough of it, on whatever device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def answered_signals(ask_to_stop: Callable[[], None]) -> AbstractContextManager[None]:
    """SIGTERM and SIGINT ask to stop until the block ends; a second one has its usual effect.

    Not in one of several processes: a scheduler may signal them all, and whoever started them passes its signal on. So
    each may be told twice, even after it has stopped; whoever started them ends those that do not stop.
    """

    def answer() -> None:
        say("stopping after this step; once more to stop at once")
        ask_to_stop()

    return on_stop_signal(answer, once=not under_torchrun())


def already_completed(path: Path, config: Config) -> bool:
    """Whether there is nothing left to do, which is said."""
    status = read_json(path / "status.json")
    if status.get("state") != "completed" or status.get("step") != config.trainer.steps:
        return False
    say(f"{path}: is completed ({config.trainer.steps} steps) and left as it is; a larger trainer.steps extends it")
    print(path)
    return True


def prepare_dataset(config: Config, ranks: Ranks) -> Dataset:
    """The dataset, found to be large enough for one batch."""
    dataset = build_dataset(config)
    dataset.batch(0, config.trainer.batch_size, config.seed, slice(0, 1))
    if config.device.hold_dataset:
        dataset.to(ranks.device)
    if dataset.skipped:
        shown = ", ".join(dataset.skipped[:5]) + (" …" if len(dataset.skipped) > 5 else "")
        say(f"warning: {len(dataset.skipped)} images could not be used and are left out: {shown}")
    return dataset


def try_out(trainer: Trainer) -> str:
    """One small batch through copies of both networks: refuses those that do not fit, and describes those that do."""
    share = trainer.settings.batch_size // trainer.ranks.size
    count, architecture, facts = min(share, 2), trainer.config.architecture, trainer.facts
    z = draw_latent(architecture.latent, count, rng(0)).to(trainer.ranks.device)
    labels = torch.zeros(count, dtype=torch.long, device=z.device) if architecture.conditional else None
    return summarize(trainer.parts, facts.shape, z, labels)


def restore(trainer: Trainer, planned: Plan, fingerprint: str) -> None:
    """Puts the trainer where the run it goes on with, or starts from, has left off."""
    config = trainer.config
    if planned.continues:
        before = Manifest.of(planned.path)
        if before.data.get("fingerprint", fingerprint) != fingerprint:
            raise UserError(f"dataset.root: these are other data than {planned.path} was started with")
        trainer.ranks.main_alone(refuse_another_extractor, trainer.evaluation, before, planned.path)
        read_metrics(planned.path / "metrics.jsonl")  # what is wrong with it is to be said before anything is written
        step, state, damaged = load_newest(planned.path / "checkpoints")
        for path in damaged:
            say(f"warning: {path} is damaged; going on from step {step}")
        if step:
            trainer.load(step, state, f"resume={planned.path}")
        elif (status := read_json(planned.path / "status.json")).get("step") and status.get("state") in SAVED:
            raise UserError(f"{planned.path / 'checkpoints'}: are gone, and without them the run cannot go on")
    elif config.fork_from is not None:
        source = Path(config.fork_from).expanduser()
        read_run(source, config.trust, "fork_from")
        step, state, _ = load_newest(source / "checkpoints")
        if not step:
            raise UserError(f"fork_from={source}: has no checkpoint to start from")
        trainer.load_networks(state, f"fork_from={source}")


def refuse_another_extractor(evaluation: Evaluation, before: Manifest, path: Path) -> None:
    """UserError where a run would go on to be measured through another extractor: its figures would not compare."""
    now = evaluation.extractor
    if now is not None and before.extractor is not None and now.hash != before.extractor:
        raise UserError(
            f"evaluation.extractor: the run in {path} was measured through one of SHA-256 {before.extractor[:8]}…, "
            f"and '{now.name}' that is there now is another, {now.hash[:8]}…; put the first one back"
        )


@dataclass
class Record:
    """The main process's account of a run."""

    directory: RunDirectory
    trainer: Trainer
    planned: Plan
    fingerprint: str

    def keep(self, summary: str) -> int:
        """Trains, and leaves behind what tells how that went; returns the exit status."""
        trainer, path, begun = self.trainer, self.directory.path, time.time()
        assert trainer.evaluation is not None
        before, extractor = Manifest.of(path), trainer.evaluation.extractor
        say(summary)
        say(f"{path}: from step {trainer.step} to {trainer.settings.steps} on {trainer.ranks.device}")
        self.directory.sign()
        self.directory.write_config(self.planned.plain)
        self.directory.write_json("status.json", {"state": "running", "step": trainer.step})
        (path / "summary.txt").write_text(summary + "\n")
        skipped = trainer.dataset.skipped
        manifest = environment(trainer.ranks.device, trainer.ranks.size) | {
            "data": DataFacts.of(trainer.dataset).model_dump()
            | {"fingerprint": self.fingerprint, "skipped": len(skipped), "skipped_files": skipped},
            "parameters": {
                "generator": parameter_count(trainer.generator),
                "discriminator": parameter_count(trainer.discriminator),
            },
            "extractor": before.extractor if extractor is None else extractor.hash,
            "wall_seconds": before.wall_seconds,
        }
        self.directory.write_json("manifest.json", manifest)
        logger = Logger(path, trainer.step, trainer.in_turn)
        if not trainer.step:
            logger.describe(self.planned.plain)
        status = fit(trainer, self.directory, logger)
        manifest["wall_seconds"] += time.time() - begun
        manifest["memory_mib"] = memory(trainer.parts) | {"peak": peak_memory(trainer.ranks.device) / 2**20}
        try:
            self.directory.write_json("manifest.json", manifest)
            if status != Status.FAILED:  # what failed may be the disk, or the loss whose reference values are drawn
                self.draw_charts(logger)
        except OSError as error:
            say(f"warning: {error}")
        finally:
            logger.close()
        self.report(status, manifest, logger.rows)
        return status

    def draw_charts(self, logger: Logger) -> None:
        """The losses, the metrics, and for vectors what became of one sample over the run."""
        trainer = self.trainer
        charts = {"losses": ("loss/chart", pictures.loss_chart(logger.rows, trainer.reference_losses()))}
        if figures := trainer.report.figures:
            perfect = {name: (figure.perfect, figure.perfect_sampler) for name, figure in figures.items()}
            charts["metrics"] = ("metric/chart", pictures.metric_chart(logger.rows, perfect))
        if trainer.evolution:
            vectors = torch.stack(trainer.evolution).numpy()
            picture = pictures.evolution(vectors, trainer.settings.sample_every)
            charts["evolution"] = ("samples/evolution", picture)
        for name, (tag, chart) in charts.items():
            pictures.save(self.directory.path / f"{name}.png", chart)
            logger.image(tag, chart, trainer.step)

    def report(self, status: int, manifest: dict[str, Any], rows: list[Row]) -> None:
        """The short summary on standard output, whose last line is the run directory."""
        last: Row = {}
        for row in rows:
            last |= row
        device, seconds = self.trainer.ranks.device, manifest["wall_seconds"]
        print(f"{STATES[status]} at step {self.trainer.step} in {seconds:.1f} s on {device}")
        figures = self.trainer.report.figures
        for tag, value in last.items():
            if tag.startswith(("loss/", "score/", "divergence/", "theory/", "metric/", "speed/")):
                print(f"  {tag:28} {rounded(value)}{_context(figures.get(tag.removeprefix('metric/')))}")
        sizes = ", ".join(f"{name.replace('_', ' ')} {size:,.1f}" for name, size in manifest["memory_mib"].items())
        print(f"  {'memory (MiB)':28} {sizes}")
        if self.trainer.doctor is not None:
            print(f"  {'health':28} {self.trainer.doctor.report()['verdict']}")
        if status == Status.INTERRUPTED:
            print(f"go on with: python -m gan_runner.train {self.resume_command()}")
        print(self.directory.path, flush=True)

    def resume_command(self) -> str:
        """The overrides that go on with this run."""
        foreign = {t.split(".")[0] for t in find_targets(self.planned.plain).values()} - {"gan_runner", "torch"}
        trust = [f"trust=[{','.join(sorted(foreign))}]"] if foreign else []
        return " ".join(shlex.quote(word) for word in [f"resume={self.directory.path}", *trust])


def _context(figure: Figure | None) -> str:
    """What a figure rests on, for the summary."""
    if figure is None:
        return ""
    parts = [figure.perfect_sampler, f"N {figure.samples:,}"]
    parts += [f"{figure.extractor} {figure.extractor_hash[:8]}"] if figure.extractor_hash is not None else []
    return f"  ({', '.join(part for part in parts if part)})"


def fit(trainer: Trainer, directory: RunDirectory | None, logger: Logger | None) -> int:
    """Runs the loop; whatever ends it becomes an exit status and, on the main process, status.json."""
    status, message = Status.COMPLETED, None
    try:
        trainer.fit(directory, logger)
    except Interrupted:
        status = Status.INTERRUPTED
    except Diverged as error:
        status, message = Status.DIVERGED, f"after step {trainer.step}: {error}"
    except Exception as error:
        status, message = Status.FAILED, f"after step {trainer.step}: {composition.one_line(error)}"
        if not isinstance(error, OSError):  # a disk is the user's; anything else is ours, or the user's own class
            traceback.print_exc()
    if message is not None:
        say(f"error: {STATES[status]} {message}")
    if directory is not None:
        try:
            directory.write_json("status.json", {"state": STATES[status], "step": trainer.step, "message": message})
        except OSError as error:
            say(f"warning: {error}")
            status = status or Status.FAILED
    return status
