"""Pictures of samples from fixed noise."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_runner import pictures
from gan_runner.batches import draw_latent
from gan_runner.datasets import Dataset
from gan_runner.observers.base import Moment, Observer
from gan_runner.observers.networks import Networks
from gan_runner.randomness import rng
from gan_runner.runs.logger import Logger


@dataclass
class Grids(Observer):
    """Writes samples/step_….png; of a conditional generator, a row is a class. Points are drawn among the data's."""

    networks: Networks
    dataset: Dataset
    shape: tuple[int, int]  # rows and columns
    folder: Path
    logger: Logger

    def __post_init__(self) -> None:
        classes = self.networks.num_classes
        rows, self.columns = (classes or self.shape[0]), self.shape[1]
        self.noise = rng(self.networks.seed, "grid")
        self.z = draw_latent(self.networks.latent, rows * self.columns, self.noise)
        self.labels = torch.arange(rows).repeat_interleave(self.columns) if classes else None
        self.row_names = pictures.class_labels(range(classes), self.networks.facts.class_names) if classes else []

    def __call__(self, moment: Moment) -> None:
        samples = self.networks.sample(self.z, self.labels)
        if samples.ndim == 2 and moment.step % self.every == 0:
            self.networks.state.evolution.append(samples[0])
        picture = self.draw(samples, moment)
        self.logger.image("samples/grid", picture, moment.step, self.folder / f"step_{moment.step:08d}.png")

    def draw(self, samples: Tensor, moment: Moment) -> pictures.Picture:
        """The picture of samples (N, *shape)."""
        if samples.shape[1:] != (2,):
            return pictures.grid(samples, self.columns, self.row_names)
        real, _ = self.dataset.batch(0, len(samples), self.networks.seed)
        return pictures.scatter(real.cpu(), samples)
