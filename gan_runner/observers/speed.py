"""How fast the training goes, and how much memory it takes."""

import time
from dataclasses import dataclass, field

import torch

from gan_runner.machine.devices import peak_memory
from gan_runner.observers.base import Moment, Observer


@dataclass
class Speed(Observer):
    """Images a second while it trains, without what observers take; seconds since the run began or went on.

    A step that a run before this one has taken has none of these figures.
    """

    batch_size: int
    device: torch.device
    begun: float = field(default_factory=time.perf_counter)

    def __call__(self, moment: Moment) -> None:
        count, seconds = moment.trained
        if not count:
            return
        moment.row["memory/peak_mib"] = peak_memory(self.device) / 2**20
        moment.row["speed/images_per_second"] = count * self.batch_size / seconds
        moment.row["time/seconds"] = time.perf_counter() - self.begun
