"""Observers of a user's own: the choices of the group `observer`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gan_runner.config.components import Component
from gan_runner.console import log_traceback, say
from gan_runner.errors import UserError, type_and_message
from gan_runner.observers.base import Moment, Observer
from gan_runner.observers.networks import Networks
from gan_runner.pictures import checked
from gan_runner.runs.logger import Logger
from gan_runner.stopping import stopping


class OwnObserver(Protocol):
    """Any class that has `every` and can be called. It runs in the first process alone."""

    every: int  # it is called after so many steps, and after the last

    def __call__(self, step: int, networks: Networks, row: Mapping[str, float]) -> Mapping[str, Any]:
        """Returns figures (numbers) and pictures ((H, W, 3) uint8 arrays) by name, logged as `observer/NAME/name`.

        `networks.draw(count)` samples the generator; `row` has what is logged of this step so far.
        """


def build_own_observer(component: Component) -> OwnObserver:
    """The user's observer; UserError where its class lacks what an observer needs."""
    own = component.build()
    every = getattr(own, "every", None)
    if not callable(own) or not isinstance(every, int) or every < 1:
        raise UserError(
            f"{component.key}: {component.cls.__name__} is no observer: it needs `every`, a number of steps "
            f"(found {every!r}), and `__call__(step, networks, row)`"
        )
    return own


@dataclass
class CallOwn(Observer):
    """Calls a user's observer; one that raises is reported, and the training goes on."""

    name: str
    own: OwnObserver
    networks: Networks
    logger: Logger

    def __call__(self, moment: Moment) -> None:
        try:
            with stopping.may_leave():
                found = dict(self.own(moment.step, self.networks, dict(moment.row)) or {})
            arrays = {name: v for name, v in found.items() if isinstance(v, np.ndarray) and v.ndim == 3}
            pictures = {name: checked(array) for name, array in arrays.items()}
            figures = {name: float(value) for name, value in found.items() if name not in arrays}
        except Exception as error:
            say(f"warning: observer.{self.name} failed at step {moment.step}: {type_and_message(error)}; see log.txt")
            log_traceback(error)
            return
        moment.row |= {f"observer/{self.name}/{name}": v for name, v in figures.items() if math.isfinite(v)}
        for name, picture in pictures.items():
            self.logger.image(f"observer/{self.name}/{name}", picture, moment.step)
