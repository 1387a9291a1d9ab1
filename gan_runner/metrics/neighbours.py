"""Metrics by nearest neighbours, of features or of pixels."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from gan_runner import pictures
from gan_runner.datasets import Dataset
from gan_runner.metrics.base import Goals, LazyImages, Metric, Samples

POINTS_AT_ONCE = 500  # points whose distances to a block of others are in memory at once
BLOCK = 2**24  # numbers in such a block
WORK = 2**31  # products of numbers at once, about a second: in between, a stop is answered
SHOWN = 10  # samples of each kind in a picture
TWINS = 4  # how often a sample may be in the data

Quantile = Annotated[float, Field(gt=0, lt=1)]


class NeighbourMetric(Metric):
    """A metric by balls around samples' features, which reach to the `neighbours`-th nearest of the other samples."""

    needs = "features"
    against = "as many"

    def __init__(self, samples: PositiveInt, neighbours: PositiveInt) -> None:
        super().__init__(samples)
        self.neighbours = neighbours

    def min_samples(self, features: int) -> int:
        return self.neighbours + 1


class PrecisionRecall(NeighbourMetric):
    """Precision: the share of generated samples inside the real manifold; recall: of real ones inside the generated.

    A manifold is the union of the balls around its samples (Kynkäänniemi et al. 2019), by torch-fidelity.
    """

    goals: ClassVar[Goals] = {"precision": "max", "recall": "max"}

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

        self.require_enough(fake, real)
        result = prc_features_to_metric(
            fake.features.double(),
            real.features.double(),
            prc_neighborhood=self.neighbours,
            prc_batch_size=POINTS_AT_ONCE,
            save_cpu_ram=True,
            verbose=False,
        )
        return {"precision": result[KEY_METRIC_PRECISION], "recall": result[KEY_METRIC_RECALL]}


class DensityCoverage(NeighbourMetric):
    """Density and coverage of the balls around real samples (Naeem et al. 2020).

    Density is the mean number of balls that a generated sample lies in, divided by k: 1 on average for real data, and
    more is possible. Coverage is the share of balls that hold a generated sample: 1 − 2⁻ᵏ for real data.
    """

    goals: ClassVar[Goals] = {"coverage": "max", "density": None}

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        self.require_enough(fake, real)
        points, centres = fake.features.double(), real.features.double()
        radii = nearest(centres, centres, self.neighbours, own=torch.arange(len(centres)))[0][:, -1]
        rows_at_once = _points_at_once(centres)
        inside = sum((torch.cdist(rows, centres) < radii).sum(dim=0) for rows in points.split(rows_at_once))  # (M,)
        assert isinstance(inside, Tensor)
        density = float(inside.sum()) / (self.neighbours * len(fake))
        return {"coverage": float((inside > 0).double().mean()), "density": density}


class BirthdayParadox(Metric):
    """An estimate of how many different samples the generator can make: N(N − 1) / 2C, from C colliding pairs among N.

    Two samples collide if their features are as close as the closest real samples: at most the `quantile` of real
    samples' distances to their nearest others. The estimate is the inverse of the chance of a collision: a lower bound
    of the size of the support, and equal to it if all samples are equally likely. New data score M / quantile or less
    against M real samples. Without a collision, the figure is N(N − 1) / 2 and means more than that.

    Source: Arora, Risteski & Zhang, "Do GANs learn the distribution?" (2018), who look for duplicates by eye.
    """

    goals: ClassVar[Goals] = {"support_size": "max"}
    needs = "features"
    against = "as many"

    def __init__(self, samples: PositiveInt, quantile: Quantile) -> None:
        super().__init__(samples)
        self.quantile = quantile

    def min_samples(self, features: int) -> int:
        return 2

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        self.require_enough(fake, real)
        points, truth = fake.features.double(), real.features.double()
        near = usual_distances(truth, len(truth)).quantile(self.quantile)
        # By matrix products it would be faster, but duplicates would get a distance.
        direct = "donot_use_mm_for_euclid_dist"
        some = points.split(_points_at_once(points))
        both = sum(int((torch.cdist(rows, points, compute_mode=direct) <= near).sum()) for rows in some)
        collisions = (both - len(points)) // 2  # `both` counts each pair twice, and each sample with itself
        return {"support_size": len(points) * (len(points) - 1) / (2 * max(collisions, 1))}

    def picture(self, fake: Samples, real: Samples, dataset: Dataset) -> np.ndarray:
        """The closest pairs of generated images, each pair side by side."""
        features = fake.features.double()
        distance, other = nearest(features, features, 1, own=torch.arange(len(features)))
        ranked = ((int(i), int(other[i, 0])) for i in distance[:, 0].argsort())
        pairs = list(dict.fromkeys((min(pair), max(pair)) for pair in ranked))[: 2 * SHOWN]
        return pictures.grid(torch.stack([torch.cat([fake.values[i], fake.values[j]], dim=-1) for i, j in pairs]), 4)


class NearestNeighbours(Metric):
    """Whether generated images are copies of training images, by the Euclidean distance of their pixels.

    `memorised` is the share of images that are as close to a training image as only the `quantile` of training images
    is to another one; new data score about the quantile. `nearest_distance` is the median distance, divided by that
    between training images. Simple images are close to others by chance, so look at the picture, too.
    """

    seeks_copies = True
    goals: ClassVar[Goals] = {"memorised": "min", "nearest_distance": None}

    def __init__(self, samples: PositiveInt, quantile: Quantile) -> None:
        super().__init__(samples)
        self.quantile = quantile

    def why_not_applicable(self, dataset: Dataset, conditional: bool) -> str | None:
        if len(dataset.shape) != 3:
            return f"compares images, and those of {type(dataset).__name__} are none"
        return None

    def min_samples(self, features: int) -> int:
        return 2

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        self.require_enough(fake, real)
        found, usual = nearest(fake.values, real.data, 1)[0], usual_distances(real.data, len(fake))
        return {
            "memorised": share_of_copies(found, usual, self.quantile),
            "nearest_distance": float(found.median() / usual.median()),
        }

    def picture(self, fake: Samples, real: Samples, dataset: Dataset) -> np.ndarray:
        """Generated images, each with its five nearest training images: on the left the closest, on the right any."""
        distance, neighbours = nearest(fake.values, real.data, 5)
        closest = distance[:, 0].argsort()[:SHOWN]
        chosen = torch.stack([closest, torch.arange(len(closest))], dim=1).flatten()
        rows = [torch.cat([fake.values[i], *real.data[neighbours[i]]], dim=-1) for i in chosen]
        return pictures.grid(torch.stack(rows), columns=2)


def share_of_copies(distances: Tensor, usual: Tensor, quantile: float) -> float:
    """The share of samples that are as close to a real one as only the `quantile` of real ones is to another."""
    return float((distances <= usual.quantile(quantile)).double().mean())


def usual_distances(real: Tensor | LazyImages, count: int) -> Tensor:
    """The distances (count,) of `count` real samples, evenly spaced in the data, to their nearest different ones.

    Duplicates do not count as nearest, because a distance of 0 is not usual; a sample with `TWINS` or more of them is
    left out. Raises `ValueError` if none is left.
    """
    own = torch.linspace(0, len(real) - 1, min(count, len(real)), dtype=torch.float64).long()
    distances = nearest(real[own], real, TWINS, own)[0]
    different = distances.where(distances > 0, torch.inf).amin(1)
    if different.isinf().all():
        raise ValueError("all real samples are alike")
    return different[different.isfinite()]


def nearest(points: Tensor, others: Tensor | LazyImages, k: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The Euclidean distances of `points` (N, …) to the k nearest `others` (M, …), and their indices: (N, k) each.

    If points[i] is itself others[own[i]], that one is left out. Only a block of `others` is in memory at once.
    """
    points = points.flatten(1)
    distances = torch.full((len(points), 0), torch.inf, dtype=points.dtype)
    indices = torch.zeros(len(points), 0, dtype=torch.long)
    block = max(POINTS_AT_ONCE, BLOCK // points.shape[1])
    for start in range(0, len(others), block):
        part = others[start : start + block].flatten(1)
        size = max(1, min(_points_at_once(part), BLOCK // (k * points.shape[1])))
        chunks = [slice(start, start + size) for start in range(0, len(points), size)]
        found = [_nearest_in(part, points[i], k, None if own is None else own[i] - start) for i in chunks]
        for_each = [torch.cat(each) for each in zip(*found, strict=True)]
        distances = torch.cat([distances, for_each[0]], dim=1)
        indices = torch.cat([indices, for_each[1] + start], dim=1)
        distances, order = distances.sort(dim=1, stable=True)
        distances, indices = distances[:, :k], indices.gather(1, order)[:, :k]
    return distances, indices


def _points_at_once(others: Tensor) -> int:
    """How many points are compared at once with all of `others` (M, D)."""
    return max(1, min(POINTS_AT_ONCE, WORK // others.numel()))


def _nearest_in(others: Tensor, points: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """`nearest` for few points (N, D) and others (M, D); own[i] may be outside of 0 … M - 1."""
    estimate = torch.cdist(points, others)  # by matrix products: fast, but inexact for small distances
    if own is not None:
        inside = ((own >= 0) & (own < len(others))).nonzero().flatten()
        estimate[inside, own[inside]] = torch.inf
    found = estimate.topk(min(k, len(others)), largest=False)
    exact = (points.unsqueeze(1) - others[found.indices]).square().sum(dim=2).sqrt()
    return exact.masked_fill(found.values.isinf(), torch.inf), found.indices
