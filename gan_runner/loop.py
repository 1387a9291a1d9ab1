"""The training loop: take a step, then let whoever is due look at it."""

import time
from collections.abc import Callable, Sequence

from gan_runner.batches import Batches
from gan_runner.observers.base import Moment, Observer
from gan_runner.state import State
from gan_runner.step import Rates, TakeStep


def fit(
    state: State,
    steps: int,
    batches: Batches,
    rates: Callable[[int], Rates],
    take_step: TakeStep,
    observers: Sequence[Observer],
    log_every: int,
) -> None:
    """Trains from the step that `state` has reached to `steps`; raises what an observer ends the training with.

    The observers that are due after a step are called in their order, so that each sees what those before it found.
    """
    for observer in observers:
        observer.begin(state.step)
    seen, since = state.step, time.perf_counter()
    for step in range(state.step + 1, steps + 1):
        is_logged = step % log_every == 0 or step == steps
        state, computed = take_step(state, batches.at(step), rates(step), is_logged)
        state.step = step

        due = [observer for observer in observers if observer.is_due(step)]
        if due:
            moment = Moment(step, computed, trained=(step - seen, time.perf_counter() - since))
            for observer in due:
                observer(moment)
            if moment.ending is not None:
                raise moment.ending
            seen, since = step, time.perf_counter()
