"""Classifiers from which metrics take features: the network, its description, and its training."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from gan_runner.config.schema import Section
from gan_runner.console import Progress, progress_text
from gan_runner.datasets import ArrayDataset, DataFacts
from gan_runner.datasets.base import epoch_order
from gan_runner.randomness import derive, rng

SMALLEST_SIDE = 8  # of an image, in pixels
_SHOWN_EVERY = 20  # steps
_TEST_BATCH = 500


class ClassifierInfo(Section):
    """The description of a classifier in its file."""

    name: str
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=3, max_length=3)]  # (C, H, W) of its images
    classes: PositiveInt
    width: PositiveInt
    accuracy: float  # on test images
    tested_on: str
    test_images: PositiveInt
    training_images: PositiveInt
    fingerprint: str  # of the training data
    steps: PositiveInt
    batch_size: PositiveInt
    lr: float
    augment: bool
    seed: int


class TrainingSettings(Section):
    """How a classifier is trained."""

    name: str
    seed: NonNegativeInt
    steps: PositiveInt
    batch_size: PositiveInt
    lr: Annotated[PositiveFloat, FiniteFloat]
    width: PositiveInt
    augment: bool


class ClassifierNetwork(nn.Module):
    """Convolutions over smaller and smaller maps; the mean of the last map as features; a linear layer to the classes.

    Maps are halved at least twice, until the shorter side is at most 8. Channels grow from `width` to 4·`width`.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, width: int) -> None:
        super().__init__()
        channels, *sides = shape
        halvings = max(2, math.ceil(math.log2(min(sides) / SMALLEST_SIDE)))
        widths = [width * min(2**i, 4) for i in range(halvings + 1)]
        blocks = [_block(channels, width, stride=1)]
        for before, after in pairwise(widths):
            blocks += [_block(before, after, stride=2), _block(after, after, stride=1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [0, 1] -> features (B, 4·width), at least 0, and logits (B, classes)."""
        features = self.blocks(images).mean((2, 3))
        return features, self.head(features)


def _block(channels: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


@dataclass(frozen=True)
class Split:
    """The images to train on, and the dataset and its images to test on."""

    indices: Tensor
    test: ArrayDataset
    test_indices: Tensor
    tested_on: str


def split(dataset: ArrayDataset, seed: int) -> Split:
    """Tests on held-out data. Without any, a tenth of the images are for the test, and not trained on."""
    test = dataset.held_out()
    if isinstance(test, ArrayDataset):
        return Split(torch.arange(len(dataset)), test, torch.arange(len(test)), "held-out data")
    shuffled = torch.randperm(len(dataset), generator=rng(seed, "held out"))
    test_indices, indices = shuffled.tensor_split([max(1, len(dataset) // 10)])
    return Split(indices, dataset, test_indices, "a tenth of the training data, kept apart")


def train_network(
    dataset: ArrayDataset, indices: Tensor, settings: TrainingSettings, device: torch.device
) -> ClassifierNetwork:
    """Trains on these images of the dataset; on one machine's CPU, the result depends on the arguments alone."""
    torch.manual_seed(derive(settings.seed, "classifier"))
    facts, steps, size = DataFacts.of(dataset), settings.steps, settings.batch_size
    network = ClassifierNetwork(facts.shape, dataset.num_classes, settings.width).to(device)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps + 1)
    progress = Progress("step", steps)
    try:
        for step in range(steps):
            epoch, position = divmod(step, len(indices) // size)
            if position == 0:
                order = indices[epoch_order(len(indices), settings.seed, epoch)]
            images, labels = dataset[order[position * size : (position + 1) * size]]
            assert labels is not None
            images = facts.in_data_units(images)
            if settings.augment:
                images = augmented(images, rng(settings.seed, "augment", step))
            loss = F.cross_entropy(network(images.to(device))[1], labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % _SHOWN_EVERY == 0:
                progress.show(step + 1, progress_text({"loss/classifier": float(loss.detach())}))
    finally:
        progress.close()
    return network


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images (B, C, H, W), each rotated by up to 0.2 rad, resized by up to 15 % and shifted by up to 10 %."""
    angle, size, right, down = torch.rand(4, len(images), generator=generator) * 2 - 1  # (B,) each, in [-1, 1]
    cos, sin = ((0.2 * angle).cos() * (1 + 0.15 * size)), ((0.2 * angle).sin() * (1 + 0.15 * size))
    matrix = [torch.stack([cos, -sin, 0.2 * right], 1), torch.stack([sin, cos, 0.2 * down], 1)]  # sides are 2 long
    grid = F.affine_grid(torch.stack(matrix, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def accuracy(network: ClassifierNetwork, dataset: ArrayDataset, indices: Tensor, device: torch.device) -> float:
    """The share of these images that the network classifies correctly."""
    network.eval()
    correct = 0
    for chosen in indices.split(_TEST_BATCH):
        images, labels = dataset[chosen]
        assert labels is not None
        _, logits = network(DataFacts.of(dataset).in_data_units(images).to(device))
        correct += int((logits.argmax(1).cpu() == labels).sum())
    return correct / len(indices)
