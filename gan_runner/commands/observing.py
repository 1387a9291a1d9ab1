"""Which observers a process has. Whatever only one process does is answered here: the others lack that observer."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from gan_runner.commands.training import Measures, Training
from gan_runner.config.schema import Trainer
from gan_runner.console import Progress
from gan_runner.datasets import Gaussian1D
from gan_runner.health.context import RuleContext
from gan_runner.health.doctor import Doctor
from gan_runner.observers.base import Observer, Row
from gan_runner.observers.checkpoints import Checkpoints, KeepBest, ReadyToSave
from gan_runner.observers.evaluation import BestSoFar, Evaluate
from gan_runner.observers.grids import Grids
from gan_runner.observers.health import Health
from gan_runner.observers.log import Log
from gan_runner.observers.losses import Losses
from gan_runner.observers.own import CallOwn
from gan_runner.observers.speed import Speed
from gan_runner.observers.stop import StopOnFindings, StopWhenAsked
from gan_runner.observers.theory import Theory
from gan_runner.observers.wait import WaitForMain
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.logger import Logger


@dataclass(frozen=True)
class Watch:
    """The observers of the first process, and those of them that know how the run went."""

    observers: list[Observer]
    logger: Logger
    evaluate: Evaluate
    health: list[Health]

    @property
    def verdict(self) -> str | None:
        """The doctor's, None where there is no doctor."""
        return self.health[0].verdict if self.health else None


def watch_from_others(training: Training, stop: StopWhenAsked) -> list[Observer]:
    """The observers of all processes but the first: what all must agree on."""
    losses, *ends = _agreed(training, stop, findings=list)
    settings = training.settings
    return [losses, WaitForMain(settings.log_every, settings.steps, _periods(settings), training.ranks), *ends]


def watch_from_main(training: Training, measures: Measures, stop: StopWhenAsked, directory: RunDirectory) -> Watch:
    """The observers of the first process, in the order in which they look."""
    settings, state, networks, steps = training.settings, training.state, training.networks, training.settings.steps
    owns = measures.own_observers
    logger = Logger(
        directory.path, state.step, lambda row: in_turn(row, training, {n: o.every for n, o in owns.items()})
    )
    progress = Progress("step", steps, state.step)
    periods = _periods(settings) | {own.every for own in owns.values()}

    grid_kind = Theory if isinstance(training.dataset, Gaussian1D) else Grids
    shape = (settings.sample_rows, settings.sample_columns)
    grids = grid_kind(
        settings.sample_every, steps, networks, training.dataset, shape, directory.path / "samples", logger
    )
    best = BestSoFar(measures.objective, logger.rows)
    evaluate = Evaluate(
        settings.evaluate_every, steps, measures.evaluation, best, networks, directory, logger, progress
    )
    health: list[Health] = []
    if training.config.doctor is not None:
        make_doctor = partial(_make_doctor, training, logger)
        health = [Health(settings.sample_every, steps, periods, make_doctor, networks, directory, logger)]

    def findings() -> Collection[str]:
        return [name for observer in health for name in observer.present if name in settings.stop_on]

    losses, *ends = _agreed(training, stop, findings)
    observers = [
        losses,
        Speed(settings.log_every, steps, settings.batch_size, training.ranks.device),
        grids,
        evaluate,
        *(CallOwn(own.every, steps, name, own, networks, logger) for name, own in owns.items()),
        *health,
        Log(settings.log_every, steps, periods, logger, progress),
        KeepBest(settings.evaluate_every, steps, state, best, directory.path / "checkpoints"),
        WaitForMain(settings.log_every, steps, _periods(settings), training.ranks),
        *ends,
        Checkpoints(settings.checkpoint_every, steps, state, ends[:-1], directory, logger, settings.keep_checkpoints),
    ]
    return Watch(observers, logger, evaluate, health)


def _periods(settings: Trainer) -> set[int]:
    """After how many steps each something is logged."""
    return {settings.log_every, settings.sample_every, settings.evaluate_every}


def _agreed(training: Training, stop: StopWhenAsked, findings: Callable[[], Collection[str]]) -> list[Observer]:
    """What all processes have: the losses first, then what may end the training, and what must be so to save it."""
    settings, ranks, state = training.settings, training.ranks, training.state
    losses = Losses(settings.log_every, settings.steps, state, training.game, ranks.mean)
    enders: list[Observer] = [stop]
    if settings.stop_on:
        enders.append(StopOnFindings(settings.sample_every, settings.steps, findings, ranks.any))
    return [losses, *enders, ReadyToSave(settings.checkpoint_every, settings.steps, state, enders, ranks.mean)]


def _make_doctor(training: Training, logger: Logger) -> Doctor:
    state = training.state
    context = RuleContext(
        training.config,
        state.generator.module,
        state.discriminator.module,
        training.game.loss,
        training.game.regularizers,
        {name: network.optimizer.learning_rate for name, network in state.networks()},
        training.dataset,
        training.reference_losses(),
    )
    return Doctor(context, logger.rows)


def in_turn(row: Row, training: Training, own: Mapping[str, int]) -> Row:
    """The part of a row that a longer run would have logged at the same step; the last step logs everything."""
    settings, step = training.settings, row["step"]
    if step == settings.steps:
        return row
    sampled = settings.sample_every
    periods = {"metric": settings.evaluate_every, "theory": sampled, "health": sampled, "step": 1}
    periods |= {f"observer/{name}": every for name, every in own.items()}

    def period(tag: str) -> int:
        kind, _, rest = tag.partition("/")
        return periods.get(f"{kind}/{rest.partition('/')[0]}", periods.get(kind, settings.log_every))

    return {tag: value for tag, value in row.items() if step % period(tag) == 0}
