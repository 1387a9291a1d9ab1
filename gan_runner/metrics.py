"""Measures of generated samples against a known truth: tensors in, numbers out."""

import torch
from torch import Tensor


def pattern_error(samples: Tensor, low: Tensor, high: Tensor) -> tuple[float, float]:
    """The share of values outside [low, high], and the mean distance of all values to it.

    `samples` (N, D), `low` and `high` (D,).
    """
    distance = (low - samples).clamp_min(0) + (samples - high).clamp_min(0)  # (N, D), 0 inside
    return float((distance > 0).float().mean()), float(distance.mean())


def histogram_density(samples: Tensor, edges: Tensor) -> Tensor:
    """The density of `samples` (N,) in the bins between equally spaced `edges` (K + 1,), (K,)."""
    counts = torch.histc(samples.double(), len(edges) - 1, float(edges[0]), float(edges[-1]))
    return counts / counts.sum() / (edges[1] - edges[0])


def jensen_shannon(p: Tensor, q: Tensor, width: float) -> float:
    """JSD(p‖q) in nats of two densities on bins of one width, by the midpoint rule; between 0 and ln 2."""
    middle = (p + q) / 2
    return float((torch.xlogy(p, p / middle).nan_to_num() + torch.xlogy(q, q / middle).nan_to_num()).sum() * width / 2)
