"""What one process of a run trains, and by what it is measured."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from gan_runner.batches import Batches, Schedule, draw_latent
from gan_runner.config.components import Experiment
from gan_runner.config.schema import Config, Trainer
from gan_runner.console import say
from gan_runner.datasets import DataFacts, Dataset, describe
from gan_runner.datasets.base import first
from gan_runner.errors import UserError, last_line
from gan_runner.evaluation.evaluation import Evaluation, choose_objective
from gan_runner.game import Game
from gan_runner.machine.ranks import Ranks
from gan_runner.metrics import Goal
from gan_runner.observers.networks import Networks
from gan_runner.observers.own import OwnObserver, build_own_observer
from gan_runner.paths import as_path
from gan_runner.randomness import rng
from gan_runner.runs.building import (
    build_batches,
    build_dataset,
    build_game,
    build_schedule,
    build_state,
    build_take_step,
)
from gan_runner.runs.checkpoint import load_newest
from gan_runner.runs.directory import read_json, read_run
from gan_runner.runs.logger import Row, parse_row, read_metrics
from gan_runner.runs.manifest import Manifest
from gan_runner.runs.plan import Plan
from gan_runner.runs.summary import Summary, summarize
from gan_runner.state import State
from gan_runner.step import TakeStep
from gan_runner.tensor_files import Kept

SAVED = ("running", "completed", "interrupted")  # states of a run that, past step 0, has left a checkpoint


@dataclass(frozen=True)
class Training:
    """What one process of a run trains."""

    experiment: Experiment
    dataset: Dataset
    ranks: Ranks
    game: Game
    state: State
    batches: Batches
    schedule: Schedule
    take_step: TakeStep
    networks: Networks

    @classmethod
    def of(cls, experiment: Experiment, dataset: Dataset, ranks: Ranks) -> "Training":
        """Before its first step."""
        config, facts = experiment.config, DataFacts.of(dataset)
        game, state = build_game(experiment, dataset), build_state(experiment, facts, ranks.device)
        batches = build_batches(experiment, dataset, game, state, ranks)
        networks = Networks(state, facts, config.architecture.latent, batches.num_classes, config.seed)
        take_step, schedule = build_take_step(experiment, game, state, ranks), build_schedule(experiment, state)
        return cls(experiment, dataset, ranks, game, state, batches, schedule, take_step, networks)

    @property
    def config(self) -> Config:
        """The values of the configuration."""
        return self.experiment.config

    @property
    def settings(self) -> Trainer:
        """Those of the loop."""
        return self.experiment.config.trainer

    def reference_losses(self) -> dict[str, float]:
        """What the losses are where the discriminator cannot tell real from fake."""
        loss = self.game.loss
        logit = torch.full((1,), loss.equilibrium_logit)
        real, fake = loss.discriminator_terms(logit, logit)
        generator = loss.generator_term(logit, logit)
        return {"discriminator_real": real.item(), "discriminator_fake": fake.item(), "generator": generator.item()}


@dataclass(frozen=True)
class Measures:
    """What a run is measured by, in its first process."""

    evaluation: Evaluation
    objective: tuple[str, Goal] | None  # the figure to select by, and which way is better
    own_observers: dict[str, OwnObserver]

    @classmethod
    def of(cls, experiment: Experiment, dataset: Dataset, device: torch.device) -> "Measures":
        """UserError where one of them does not fit the data."""
        evaluation = Evaluation(experiment, dataset, device)
        objective = choose_objective(evaluation, experiment.config.trainer.objective)
        own = {name: build_own_observer(component) for name, component in experiment.group("observer").items()}
        return cls(evaluation, objective, own)

    @property
    def own_periods(self) -> dict[str, int]:
        """After how many steps each of the user's own observers looks."""
        return {name: own.every for name, own in self.own_observers.items()}

    @property
    def figures(self) -> list[str]:
        """The tags of what is measured, the figure to select by first."""
        first = [] if self.objective is None else [self.objective[0]]
        return list(dict.fromkeys([*first, *(f"metric/{name}" for name in self.evaluation.goals)]))


def prepare_dataset(experiment: Experiment, before: Manifest, device: torch.device) -> Dataset:
    """The dataset, with the class numbers that the manifest `before` has; it is large enough for one batch."""
    config, dataset = experiment.config, build_dataset(experiment, before)
    dataset.batch(0, config.trainer.batch_size, config.seed, slice(0, 1))
    if config.device.hold_dataset:
        dataset.to(device)
    return dataset


def check_networks(training: Training) -> Summary:
    """What both networks are; one small batch through copies of them refuses those that do not fit."""
    architecture, state, packing = training.config.architecture, training.state, training.settings.packing
    count = min(training.settings.batch_size // training.ranks.size, 2 * packing)
    z = draw_latent(architecture.latent, count, rng(0)).to(training.ranks.device)
    labels = torch.zeros(count, dtype=torch.long, device=z.device) if architecture.conditional else None
    return summarize(
        state.generator.module, state.discriminator.module, training.networks.facts.shape, z, labels, packing
    )


def refuse_other_measures(plan: Plan, measures: Measures) -> None:
    """UserError where a run would go on to be measured through another extractor: its figures would not compare."""
    now, before = measures.evaluation.extractor, Manifest.of(plan.path) if plan.continues else Manifest()
    if now is not None and before.extractor is not None and now.hash != before.extractor:
        raise UserError(
            f"evaluation.extractor: the run in {plan.path} was measured through one of SHA-256 "
            f"{before.extractor[:8]}…, and '{now.name}' that is there now is another, {now.hash[:8]}…; "
            "put the first one back"
        )


def refuse_other_data(plan: Plan, dataset: Dataset, fingerprint: str) -> None:
    """UserError where an existing run would go on with other data; it says what is known to differ."""
    before = Manifest.of(plan.path)
    if before.data.get("fingerprint", fingerprint) == fingerprint:
        return
    differs, was, now = other_classes(before, dataset), before.data.get("description"), describe(dataset)
    if not differs and was != now:
        differs = f"; it had {was}, and here are {now}" if was else f"; here are {now}"
        if not was and dataset.class_order is not None:
            differs += " (the version that started it counted fewer kinds of image files)"
    raise UserError(f"dataset.root: these are other data than {plan.path} was started with{differs}")


def restore(training: Training, plan: Plan, fingerprint: str) -> Row | None:
    """Loads the state of the run that goes on, or the weights of the one to start from.

    Returns what was known of that step if not all have looked at it, which the lack of its row says.
    """
    config, state = training.config, training.state
    if plan.continues:
        refuse_other_data(plan, training.dataset, fingerprint)
        rows = read_metrics(plan.path / "metrics.jsonl")  # before anything is written: it may be damaged
        step, kept, damaged = load_newest(plan.path / "checkpoints")
        for path in damaged:
            say(f"warning: {path} is damaged; going on from step {step}")
        if step:
            _load(state, kept, f"resume={plan.path}", step)
            return None if any(row["step"] == step for row in rows) else _pending(kept, plan.path)
        if (status := read_json(plan.path / "status.json")).get("step") and status.get("state") in SAVED:
            raise UserError(f"{plan.path / 'checkpoints'}: are gone, and without them the run cannot go on")
    elif config.fork_from is not None:
        source = as_path("fork_from", config.fork_from)
        read_run(source, config.trust, "fork_from")
        step, kept, _ = load_newest(source / "checkpoints")
        if not step:
            raise UserError(f"fork_from={source}: has no checkpoint to start from")
        _load(state, kept, f"fork_from={source}")
        if config.architecture.conditional and (differs := other_classes(Manifest.of(source), training.dataset)):
            say(f"warning: fork_from={source}: a number of a class means another one{differs}")
    return None


def _pending(kept: Kept, run: Path) -> Row | None:
    """None in the checkpoints of an earlier version, which wrote them last."""
    try:
        return parse_row(bytes(kept["pending"].tolist())) if "pending" in kept else None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{run / 'checkpoints'}: the newest holds no row of metrics as what is pending") from error


def other_classes(before: Manifest, dataset: Dataset) -> str:
    """The end of a sentence that says how the classes of a run were called, and are now; "" if they are the same.

    Earlier versions kept no names. Of folders of images, their order was that of the text.
    """
    now = list(dataset.class_names)
    names = before.data.get("class_names", now if dataset.class_order is None else sorted(now))
    if not isinstance(names, list) or names == now:
        return ""
    return f"; its classes are {first(names)}, and here {first(now)}"


def _load(state: State, kept: Kept, source: str, step: int | None = None) -> None:
    """All of a checkpoint, or where no step is given its weights alone."""
    part = "weights do"
    try:
        state.load_weights(kept)
        if step is not None:
            part = "state does"
            state.load_progress(kept, step)
    except (RuntimeError, ValueError, LookupError, AttributeError, TypeError) as error:
        network = re.search(r"state_dict for (\w+)", str(error))  # as torch begins
        raise UserError(
            f"{source}: its {part} not fit{f' {network[1]}' if network else ''}: {last_line(error)}"
        ) from error
