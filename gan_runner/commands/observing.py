"""Which observers a process has. Whatever only one process does is answered here: the others lack that observer."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from gan_runner.commands.training import Measures, Training
from gan_runner.console import Progress
from gan_runner.datasets import Gaussian1D
from gan_runner.health.context import RuleContext
from gan_runner.health.doctor import Doctor
from gan_runner.observers.base import Observer, Observers, Row
from gan_runner.observers.checkpoints import Checkpoints, KeepBest, ReadyToSave
from gan_runner.observers.evaluation import BestSoFar, Evaluate
from gan_runner.observers.grids import Evolution, Grids
from gan_runner.observers.health import Health
from gan_runner.observers.log import Log
from gan_runner.observers.losses import Losses
from gan_runner.observers.own import CallOwn
from gan_runner.observers.speed import Speed
from gan_runner.observers.stop import StopOnFindings, StopTogether, StopWhenAsked
from gan_runner.observers.theory import Theory
from gan_runner.observers.wait import WaitForMain
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.logger import Logger


@dataclass(frozen=True)
class Watch:
    """The observers of the first process, and those of them that know how the run went."""

    observers: Observers
    logger: Logger
    evaluate: Evaluate
    health: list[Health]

    @property
    def verdict(self) -> str | None:
        """The doctor's, None where there is no doctor."""
        return self.health[0].verdict if self.health else None


def watch_from_others(training: Training, own_periods: Collection[int]) -> Observers:
    """The observers of all processes but the first: what all must agree on."""
    losses, ready = _before_saving(training)
    return Observers([losses, ready], [], _after_logging(training, own_periods, findings=list), [ready])


def watch_from_main(training: Training, measures: Measures, directory: RunDirectory, is_pending: bool) -> Watch:
    """The observers of the first process, in the order in which they look."""
    settings, state, networks, steps = training.settings, training.state, training.networks, training.settings.steps
    own_periods = measures.own_periods
    logger = Logger(directory.path, state.step, lambda row: in_turn(row, training, own_periods), is_pending)
    progress = Progress("step", steps, state.step)
    periods = _periods(training, own_periods.values())

    grid_kind: Callable[..., Grids] = Grids
    is_plain = settings.packing == 1 and training.game.augmentation is None  # else D sees other numbers than the data's
    if isinstance(training.dataset, Gaussian1D) and is_plain:
        loss = training.game.loss
        grid_kind = partial(Theory, real_target=loss.real_target if loss.density_ratio else None)
    shape = (settings.sample_rows, settings.sample_columns)
    grids = grid_kind(
        settings.sample_every, steps, networks, training.dataset, shape, directory.path / "samples", logger
    )
    evolution = [Evolution(settings.sample_every, steps, grids)] if len(training.dataset.shape) == 1 else []
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

    losses, ready = _before_saving(training)
    checkpoints = Checkpoints(settings.checkpoint_every, steps, state, directory, logger, settings.keep_checkpoints)
    slow = [
        Speed(settings.log_every, steps, settings.batch_size, training.ranks.device),
        grids,
        evaluate,
        *(CallOwn(own.every, steps, name, own, networks, logger) for name, own in measures.own_observers.items()),
        *health,
        KeepBest(settings.evaluate_every, steps, state, best, directory.path / "checkpoints"),
        Log(settings.log_every, steps, periods, logger, progress),
    ]
    observers = Observers(
        [losses, *evolution, ready, checkpoints],
        slow,
        _after_logging(training, own_periods.values(), findings),
        [ready, checkpoints],
    )
    return Watch(observers, logger, evaluate, health)


def _periods(training: Training, own_periods: Collection[int]) -> set[int]:
    """After how many steps each something is logged."""
    settings = training.settings
    return {settings.log_every, settings.sample_every, settings.evaluate_every, *own_periods}


def _before_saving(training: Training) -> tuple[Observer, Observer]:
    settings, ranks, state = training.settings, training.ranks, training.state
    losses = Losses(settings.log_every, settings.steps, state, training.game, ranks.mean)
    return losses, ReadyToSave(settings.checkpoint_every, settings.steps, state, ranks.mean)


def _after_logging(
    training: Training, own_periods: Collection[int], findings: Callable[[], Collection[str]]
) -> list[Observer]:
    """What all processes have: that they wait for the first one, and what may end the training."""
    settings, ranks = training.settings, training.ranks
    log_every, steps = settings.log_every, settings.steps
    observers: list[Observer] = [StopWhenAsked(log_every, steps)]
    if ranks.size > 1:
        periods = _periods(training, own_periods)
        observers = [WaitForMain(log_every, steps, periods, ranks), StopTogether(log_every, steps, periods, ranks.mean)]
    if settings.stop_on:
        observers.append(StopOnFindings(settings.sample_every, steps, findings, ranks.any))
    return observers


def _make_doctor(training: Training, logger: Logger) -> Doctor:
    state = training.state
    context = RuleContext(
        training.config,
        state.generator.module,
        state.discriminator.module,
        training.game,
        {name: network.optimizer.learning_rate for name, network in state.networks()},
        training.dataset,
        training.reference_losses(),
    )
    return Doctor(context, logger.rows)


def in_turn(row: Row, training: Training, own_periods: Mapping[str, int]) -> Row:
    """The part of a row that a longer run would have logged at the same step; the last step logs everything."""
    settings, step = training.settings, row["step"]
    if step == settings.steps:
        return row
    sampled = settings.sample_every
    periods = {"metric": settings.evaluate_every, "theory": sampled, "health": sampled, "step": 1}
    periods |= {f"observer/{name}": every for name, every in own_periods.items()}

    def period(tag: str) -> int:
        kind, _, rest = tag.partition("/")
        return periods.get(f"{kind}/{rest.partition('/')[0]}", periods.get(kind, settings.log_every))

    return {tag: value for tag, value in row.items() if step % period(tag) == 0}
