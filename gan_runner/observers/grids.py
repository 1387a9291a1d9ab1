"""Pictures of samples from fixed noise."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_runner import pictures
from gan_runner.batches import draw_latent
from gan_runner.datasets import ArrayDataset, Dataset
from gan_runner.observers.base import Moment, Observer
from gan_runner.observers.networks import Networks
from gan_runner.randomness import rng
from gan_runner.runs.logger import Logger

MOST_CLASSES = 100


@dataclass
class Grids(Observer):
    """Writes samples/step_….png. Points are drawn among the data's.

    Of a conditional generator, a row is a class, and there are at most `MOST_CLASSES` of them.
    """

    networks: Networks
    dataset: Dataset
    shape: tuple[int, int]  # rows and columns
    folder: Path
    logger: Logger

    def __post_init__(self) -> None:
        classes = min(self.networks.num_classes, MOST_CLASSES)
        rows, self.columns = (classes or self.shape[0]), self.shape[1]
        self.noise = rng(self.networks.seed, "grid")
        self.z = draw_latent(self.networks.latent, rows * self.columns, self.noise)
        self.labels = torch.arange(rows).repeat_interleave(self.columns) if classes else None
        self.row_names = pictures.class_labels(range(classes), self.networks.facts.class_names) if classes else []

    def sample(self) -> Tensor:
        """The samples (N, *shape) of the grid."""
        return self.networks.sample(self.z, self.labels)

    def __call__(self, moment: Moment) -> None:
        picture = self.draw(self.sample(), moment)
        self.logger.image("samples/grid", picture, moment.step, self.folder / f"step_{moment.step:08d}.png")

    def draw(self, samples: Tensor, moment: Moment) -> pictures.Picture:
        """The picture of samples (N, *shape)."""
        if samples.shape[1:] != (2,):
            return pictures.grid(samples, self.columns, self.row_names)
        available = len(self.dataset) if isinstance(self.dataset, ArrayDataset) else len(samples)
        real, _ = self.dataset.batch(0, min(len(samples), available), self.networks.seed)
        return pictures.scatter(real.cpu(), samples)


@dataclass
class Evolution(Observer):
    """Of vectors, keeps what becomes of the grid's first sample. It is a part of the state: before a checkpoint."""

    grids: Grids

    def is_due(self, step: int) -> bool:
        """Not out of turn, so that an extended run has no more than the longer run."""
        return step % self.every == 0

    def __call__(self, moment: Moment) -> None:
        self.grids.networks.state.evolution.append(self.grids.sample()[0])
