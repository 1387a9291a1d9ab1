"""How fast the training goes, and how much memory it takes."""

import time

import torch

from gan_runner.machine.devices import peak_memory
from gan_runner.observers.base import Moment, Observer


class Speed(Observer):
    """Images a second while it trains, without what observers take; seconds since the run began or went on."""

    def __init__(self, every: int, steps: int, batch_size: int, device: torch.device) -> None:
        super().__init__(every, steps)
        self.batch_size, self.device = batch_size, device
        self.begun = time.perf_counter()

    def __call__(self, moment: Moment) -> None:
        count, seconds = moment.trained
        moment.row["memory/peak_mib"] = peak_memory(self.device) / 2**20
        moment.row["speed/images_per_second"] = count * self.batch_size / seconds
        moment.row["time/seconds"] = time.perf_counter() - self.begun
