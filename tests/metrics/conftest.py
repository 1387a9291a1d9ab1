"""Samples and data for the tests of metrics."""

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets import ArrayDataset, Dataset, GaussianMixture, StackedMNIST
from gan_runner.metrics import Samples


def extracted(images: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels as features, the first of them as the class."""
    return images.flatten(1), images.flatten(1)[:, 0].long()


def seen(features: object, labels: list[int] | None = None) -> Samples:
    """Samples with these features (N, F), or of these classes (N,)."""
    rows = torch.as_tensor(features).float()
    images = rows.view(len(rows), 1, 1, -1)
    return Samples(images, None if labels is None else torch.tensor(labels), extracted(images))


def images_of(num_classes: int = 0) -> Dataset:
    return ArrayDataset(torch.zeros(4, 1, 1, 2), num_classes=num_classes)


def mixture(means: list[list[float]], std: float) -> GaussianMixture:
    """A mixture with only the attributes that metrics read."""
    dataset = GaussianMixture.__new__(GaussianMixture)
    dataset.means, dataset.std, dataset.shape = torch.tensor(means), std, (2,)
    return dataset


def stacked() -> StackedMNIST:
    dataset = StackedMNIST.__new__(StackedMNIST)
    dataset.shape = (3, 28, 28)
    return dataset


RING = mixture([[float(np.cos(a)), float(np.sin(a))] for a in np.arange(8) * np.pi / 4], 0.01)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def digits_like(seed: int, count: int) -> np.ndarray:
    """Features as a network has them: correlated, not negative, of different sizes, one always 0. (count, 12)"""
    mix = normal(99, 6, 12) * np.linspace(0.1, 3, 12)
    features = np.maximum(normal(seed, count, 6) @ mix + 0.5, 0)
    features[:, 5] = 0
    return features.astype(np.float32)
