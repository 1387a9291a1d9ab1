"""Metrics that look at nearest neighbours, of features or of pixels."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from gan_runner import pictures
from gan_runner.datasets import Dataset
from gan_runner.metrics.base import Goals, LazyImages, Metric, Samples

POINTS_AT_ONCE = 500  # at most, whose distances to a block of others are in memory at once
BLOCK = 2**24  # numbers in such a block
SHOWN = 10  # samples of each kind in a picture
TWINS = 4  # how often a sample may be in the data

Quantile = Annotated[float, Field(gt=0, lt=1)]


class PrecisionRecall(Metric):
    """Precision: the share of generated samples inside the real manifold; recall: of real ones inside the generated.

    A manifold is the union of balls about its samples' features that reach to their k-th nearest `neighbours`
    (Kynkäänniemi et al. 2019), by torch-fidelity.
    """

    goals: ClassVar[Goals] = {"precision": "max", "recall": "max"}
    needs = "features"
    against = "as many"

    def __init__(self, samples: PositiveInt, neighbours: PositiveInt) -> None:
        super().__init__(samples)
        self.neighbours = neighbours

    def min_samples(self, features: int) -> int:
        """One more than neighbours."""
        return self.neighbours + 1

    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

        self.require_enough(made, real)
        result = prc_features_to_metric(
            made.features.double(),
            real.features.double(),
            prc_neighborhood=self.neighbours,
            prc_batch_size=POINTS_AT_ONCE,
            save_cpu_ram=True,
            verbose=False,
        )
        return {"precision": result[KEY_METRIC_PRECISION], "recall": result[KEY_METRIC_RECALL]}


class DensityCoverage(Metric):
    """Balls about the real samples' features reach to their k-th nearest `neighbours` (Naeem et al. 2020).

    Density is in how many of them a generated sample lies, over k: 1 on average for real data, and more is possible.
    Coverage is the share of the balls with a generated sample inside: 1 − 2⁻ᵏ for as many real ones.
    """

    goals: ClassVar[Goals] = {"coverage": "max", "density": None}
    needs = "features"
    against = "as many"

    def __init__(self, samples: PositiveInt, neighbours: PositiveInt) -> None:
        super().__init__(samples)
        self.neighbours = neighbours

    def min_samples(self, features: int) -> int:
        """One more than neighbours."""
        return self.neighbours + 1

    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        self.require_enough(made, real)
        points, centres = made.features.double(), real.features.double()
        radii = nearest(centres, centres, self.neighbours, own=torch.arange(len(centres)))[0][:, -1]
        inside = sum((torch.cdist(rows, centres) < radii).sum(dim=0) for rows in points.split(POINTS_AT_ONCE))  # (M,)
        assert isinstance(inside, Tensor)
        density = float(inside.sum()) / (self.neighbours * len(made))
        return {"coverage": float((inside > 0).double().mean()), "density": density}


class BirthdayParadox(Metric):
    """An estimate of how many different samples the generator can make, N(N − 1) / 2C, from C colliding pairs among N.

    Two samples collide whose features are at most as far apart as the `quantile` of the distances of real samples to
    their nearest others. The estimate is the inverse of the chance of a collision, so a lower bound of the support's
    size, equal to it where all are equally likely; fresh data score M / quantile or less against M real samples.
    Without any collision N(N − 1) / 2 stands for more than that.

    Source: Arora, Risteski & Zhang, "Do GANs learn the distribution?" (2018), who look for duplicates by eye.
    """

    goals: ClassVar[Goals] = {"support_size": "max"}
    needs = "features"
    against = "as many"

    def __init__(self, samples: PositiveInt, quantile: Quantile) -> None:
        super().__init__(samples)
        self.quantile = quantile

    def min_samples(self, features: int) -> int:
        """A pair."""
        return 2

    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        self.require_enough(made, real)
        points, truth = made.features.double(), real.features.double()
        near = usual_distances(truth, len(truth)).quantile(self.quantile)
        # Squared norms and products would be faster, and give duplicates a distance.
        direct = "donot_use_mm_for_euclid_dist"
        some = points.split(POINTS_AT_ONCE)
        both = sum(int((torch.cdist(rows, points, compute_mode=direct) <= near).sum()) for rows in some)
        collisions = (both - len(points)) // 2  # both has each pair twice, and each sample with itself
        return {"support_size": len(points) * (len(points) - 1) / (2 * max(collisions, 1))}

    def picture(self, made: Samples, real: Samples, dataset: Dataset) -> np.ndarray:
        """The pairs of generated images nearest to each other, each pair side by side."""
        features = made.features.double()
        distance, other = nearest(features, features, 1, own=torch.arange(len(features)))
        ranked = ((int(i), int(other[i, 0])) for i in distance[:, 0].argsort())
        pairs = list(dict.fromkeys((min(pair), max(pair)) for pair in ranked))[: 2 * SHOWN]
        return pictures.grid(torch.stack([torch.cat([made.values[i], made.values[j]], dim=-1) for i, j in pairs]), 4)


class NearestNeighbours(Metric):
    """Whether generated images are copies of training images, by the Euclidean distance of their pixels.

    `memorised` is the share of them that are as near to a training image as only the `quantile` of training images is
    to another one: fresh data score about the quantile. `nearest_distance` is the median distance over that between
    training images. Simple images are near to others by chance: see the picture before calling them copies.
    """

    goals: ClassVar[Goals] = {"memorised": "min", "nearest_distance": None}

    def __init__(self, samples: PositiveInt, quantile: Quantile) -> None:
        super().__init__(samples)
        self.quantile = quantile

    def why_not_applicable(self, dataset: Dataset, conditional: bool) -> str | None:
        if len(dataset.shape) != 3:
            return f"compares images, and those of {type(dataset).__name__} are none"
        return None

    def min_samples(self, features: int) -> int:
        """A pair."""
        return 2

    def measure(self, made: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        """As many training images as there are samples are compared with the others."""
        self.require_enough(made, real)
        found, usual = nearest(made.values, real.data, 1)[0], usual_distances(real.data, len(made))
        return {
            "memorised": share_of_copies(found, usual, self.quantile),
            "nearest_distance": float(found.median() / usual.median()),
        }

    def picture(self, made: Samples, real: Samples, dataset: Dataset) -> np.ndarray:
        """Rows of an image and its five nearest training images: on the left the nearest of all, on the right any."""
        distance, neighbours = nearest(made.values, real.data, 5)
        closest = distance[:, 0].argsort()[:SHOWN]
        chosen = torch.stack([closest, torch.arange(len(closest))], dim=1).flatten()
        rows = [torch.cat([made.values[i], *real.data[neighbours[i]]], dim=-1) for i in chosen]
        return pictures.grid(torch.stack(rows), columns=2)


def share_of_copies(distances: Tensor, usual: Tensor, quantile: float) -> float:
    """The share of samples that are as near to a real one as only the `quantile` of real ones is to another."""
    return float((distances <= usual.quantile(quantile)).double().mean())


def usual_distances(real: Tensor | LazyImages, count: int) -> Tensor:
    """How far `count` of the real samples, evenly spaced among them, are from the nearest others that differ: (count,).

    The other copies of a sample that is in the data twice are passed over, since a distance of 0 is not usual; a sample
    that is there more than `TWINS` times is left out. ValueError where none is left.
    """
    own = torch.linspace(0, len(real) - 1, min(count, len(real)), dtype=torch.float64).long()
    distances = nearest(real[own], real, TWINS, own)[0]
    different = distances.where(distances > 0, torch.inf).amin(1)
    if different.isinf().all():
        raise ValueError("all real samples are alike")
    return different[different.isfinite()]


def nearest(points: Tensor, others: Tensor | LazyImages, k: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The Euclidean distances of `points` (N, …) to the k nearest `others` (M, …), and which these are: (N, k) each.

    Where points[i] is others[own[i]], that is not among them. No more than a block of `others` is in memory at once.
    """
    points = points.flatten(1)
    distances = torch.full((len(points), 0), torch.inf, dtype=points.dtype)
    indices = torch.zeros(len(points), 0, dtype=torch.long)
    block = max(POINTS_AT_ONCE, BLOCK // points.shape[1])
    size = max(1, min(POINTS_AT_ONCE, BLOCK // (k * points.shape[1])))
    chunks = [slice(start, start + size) for start in range(0, len(points), size)]
    for start in range(0, len(others), block):
        part = others[start : start + block].flatten(1)
        found = [_nearest_in(part, points[i], k, None if own is None else own[i] - start) for i in chunks]
        for_each = [torch.cat(each) for each in zip(*found, strict=True)]
        distances = torch.cat([distances, for_each[0]], dim=1)
        indices = torch.cat([indices, for_each[1] + start], dim=1)
        distances, order = distances.sort(dim=1, stable=True)
        distances, indices = distances[:, :k], indices.gather(1, order)[:, :k]
    return distances, indices


def _nearest_in(others: Tensor, points: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `nearest`, of a few points (N, D) and others (M, D), where own[i] may lie outside of 0 … M - 1."""
    estimate = torch.cdist(points, others)  # by norms and products: fast, but inexact for what is very near
    if own is not None:
        inside = ((own >= 0) & (own < len(others))).nonzero().flatten()
        estimate[inside, own[inside]] = torch.inf
    found = estimate.topk(min(k, len(others)), largest=False)
    exact = (points.unsqueeze(1) - others[found.indices]).square().sum(dim=2).sqrt()
    return exact.masked_fill(found.values.isinf(), torch.inf), found.indices
