"""What the doctor measures: statistics of samples, copies of training images, and dead units."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner.datasets import ArrayDataset, Dataset
from gan_runner.metrics.neighbours import nearest, share_of_copies, usual_distances

DIRECTIONS = 10  # principal components along which diversity is measured; the others are mostly noise
NEIGHBOURS = 5
MAX_IMAGES, MAX_VALUES = 2000, 2**25  # limits of the training images that samples are compared with
NO_GRADIENT = 1e-3  # an activation with at most this slope passes no gradient
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh)  # those that can have no slope
WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


class DataStatistics:
    """Statistics of real samples (N, *shape). With `labels` (N,), diversity is that within a class."""

    def __init__(self, real: Tensor, labels: Tensor | None) -> None:
        self._labels = labels
        values = real.flatten(1)
        self._lowest, self._highest, self._mean = values.min(), values.max(), values.mean(0)
        self._std = values.std(0).square().mean().sqrt()
        self._directions = torch.linalg.svd(values - self._mean, full_matrices=False).Vh[:DIRECTIONS].T
        self._spread = self._spread_of(self._project(values))
        self._distinct = self._project(values.unique(dim=0))  # in a small dataset, a sample's nearest would be itself
        neighbours = min(NEIGHBOURS + 1, len(self._distinct))
        self._radii = torch.cdist(self._distinct, self._distinct).kthvalue(neighbours, dim=1).values

    def compare(self, fake: Tensor) -> dict[str, float]:
        """Figures of as many generated samples, without those that are undefined, as for data without spread."""
        values = fake.flatten(1)
        points = self._project(values)
        span = self._highest - self._lowest
        figures = {
            "lowest": (values.min() - self._lowest) / span,  # > 0: no generated value is as low as the data's lowest
            "highest": (values.max() - self._highest) / span,  # < 0: none is as high
            "mean_error": (values.mean(0) - self._mean).square().mean().sqrt() / self._std,  # in standard deviations
            # The geometric mean over directions of standard deviations, generated over real.
            "diversity": (self._spread_of(points) / self._spread).clamp_min(1e-6).log().mean().exp(),
            # The share of real samples with a generated one nearer than their neighbours (coverage, Naeem et al. 2020).
            "coverage": (torch.cdist(self._distinct, points).amin(1) <= self._radii).float().mean(),
        }
        return {name: value for name, figure in figures.items() if math.isfinite(value := float(figure))}

    def _project(self, values: Tensor) -> Tensor:
        """(N, D) -> (N, K), along the data's principal components."""
        return (values - self._mean) @ self._directions

    def _spread_of(self, points: Tensor) -> Tensor:
        """The standard deviation (K,) of points (N, K); with labels, that within a class."""
        if self._labels is not None:
            sums = torch.zeros(int(self._labels.max()) + 1, points.shape[1]).index_add_(0, self._labels, points)
            points = points - (sums / self._labels.bincount().clamp_min(1).unsqueeze(1))[self._labels]
        return points.std(0)


class TrainingImages:
    """Training images, at most MAX_IMAGES, to find out how many of `count` generated images are copies."""

    def __init__(self, dataset: Dataset, seed: int, count: int, quantile: float) -> None:
        self._quantile = quantile
        self._images = torch.empty(0)
        if isinstance(dataset, ArrayDataset) and len(dataset.shape) == 3:
            chosen = dataset.order(seed, 0)[: min(MAX_IMAGES, MAX_VALUES // math.prod(dataset.shape))]
            self._images = dataset[chosen][0].cpu().unique(dim=0)  # duplicates would count as copies of each other
        if len(self._images) > 1:
            self._usual = usual_distances(self._images, count)

    def compare(self, fake: Tensor) -> dict[str, float]:
        """The share of copies. Nothing if the data are no images or all alike, or a sample is not finite."""
        if len(self._images) < 2 or not fake.isfinite().all():
            return {}
        return {"memorised": share_of_copies(nearest(fake, self._images, 1)[0], self._usual, self._quantile)}


def split_at_last_weights(network: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The modules before the last linear layer or convolution, and those after it; without one, all come after.

    What parametrizes a weight, as spectral normalization does, is no layer.
    """
    modules = [module for name, module in network.named_modules() if ".parametrizations" not in f".{name}"]
    last = max((i for i, module in enumerate(modules) if isinstance(module, WEIGHTED)), default=-1)
    return modules[: max(last, 0)], modules[last + 1 :]


Slopes = dict[tuple[nn.Module, int], Tensor]  # by module and number of units: one module may serve several layers


def dead_share(steepest: Slopes) -> float:
    """The share of units that pass no gradient, in the layer where it is largest; 0 without layers."""
    return max((float((slopes <= NO_GRADIENT).float().mean()) for slopes in steepest.values()), default=0.0)


@contextmanager
def recorded_slopes(network: nn.Module) -> Iterator[Slopes]:
    """Inside the block, records the steepest slope (U,) of each unit of the network's activations.

    A unit is a feature, or a channel of a map. What follows the last linear layer is left out: there, a unit may be
    dead for a good reason, such as a pixel that is black in all of the data.
    """
    steepest: Slopes = {}

    def record(module: nn.Module, _: Any, output: Tensor) -> None:
        units = output.flatten(2).transpose(1, 2).flatten(0, 1) if output.ndim > 2 else output  # (N, U)
        if isinstance(module, nn.Sigmoid):
            slope = units * (1 - units)
        elif isinstance(module, nn.Tanh):
            slope = 1 - units.square()
        else:
            slope = units.abs()  # 0 where the slope of ReLU is; nearly so for GELU and SiLU
        key, found = (module, units.shape[1]), slope.amax(0)
        steepest[key] = torch.maximum(steepest[key], found) if key in steepest else found

    before, _ = split_at_last_weights(network)
    hooks = [module.register_forward_hook(record) for module in before if isinstance(module, ACTIVATIONS)]
    try:
        yield steepest
    finally:
        for hook in hooks:
            hook.remove()
