"""The training loop: take a step, then let whoever is due look at it."""

import time
from collections.abc import Callable, Iterable

import torch

from gan_runner.batches import Batches
from gan_runner.observers.base import Interrupted, Moment, Observer, Observers, Row
from gan_runner.state import State
from gan_runner.step import Rates, TakeStep
from gan_runner.stopping import Left


def fit(
    state: State,
    steps: int,
    batches: Batches,
    rates: Callable[[int], Rates],
    take_step: TakeStep,
    observers: Observers,
    log_every: int,
    pending: Row | None = None,
) -> None:
    """Trains from the step that `state` has reached to `steps`; raises what an observer ends the training with.

    The observers that are due after a step are called in their order, so that each sees what those before it found.
    `pending` is what the first of them found at the step reached, if the others have yet to look at it.
    """
    for observer in observers:
        observer.begin(state.step)
    if pending is not None:
        _end_of_step(observers, Moment(state.step, row={**pending}, is_ready=True))
    seen, since = state.step, time.perf_counter()
    for step in range(state.step + 1, steps + 1):
        is_logged = step % log_every == 0 or step == steps
        try:
            state, computed = take_step(state, batches.at(step), rates(step), is_logged)
        except Left:  # by all processes, before anything was computed; what ends the training is raised there
            _end_of_step(observers, Moment(state.step, is_left=True, ending=Interrupted()))
        state.step = step

        if any(observer.is_due(step) for observer in observers):
            if state.device.type != "cpu":
                torch.accelerator.synchronize(state.device)  # what is queued there has yet to be computed
            moment = Moment(step, computed, trained=(step - seen, time.perf_counter() - since))
            _look(observers.first, moment)
            _end_of_step(observers, moment)
            seen, since = step, time.perf_counter()


def _end_of_step(observers: Observers, moment: Moment) -> None:
    """Calls those who look after the checkpoint. A stop may cut them short; the resumed run calls them first."""
    if not moment.is_left:
        try:
            _look(observers.slow, moment)
        except Left:
            moment.is_left = True
    _look(observers.last, moment)
    if moment.ending is not None:
        for observer in observers.at_the_end:
            observer(moment)
        raise moment.ending


def _look(observers: Iterable[Observer], moment: Moment) -> None:
    for observer in observers:
        if observer.is_due(moment.step):
            observer(moment)
