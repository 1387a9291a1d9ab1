"""What can be said of a generator where the truth about the data is known."""

from collections.abc import Callable
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor, nn

from gan_runner import pictures
from gan_runner.datasets import Dataset, Gaussian1D, Pattern
from gan_runner.metrics import histogram_density, jensen_shannon, pattern_error

Draw = Callable[[int], Tensor]  # count -> samples of the generator, (count, *shape), on the CPU

PATTERN_SAMPLES = 1_000
DENSITY_SAMPLES = 1_000_000
DENSITY_BINS = 200


@singledispatch
def measure(dataset: Dataset, draw: Draw, discriminator: nn.Module) -> tuple[dict[str, float], np.ndarray | None]:
    """What the data's known truth says of the generator, and a picture that shows it better than a grid, or None."""
    return {}, None


@measure.register
def _(dataset: Pattern, draw: Draw, discriminator: nn.Module) -> tuple[dict[str, float], np.ndarray | None]:
    outside, distance = pattern_error(draw(PATTERN_SAMPLES), *dataset.bounds())
    return {"metric/pattern_error": outside, "metric/pattern_distance": distance}, None


@measure.register
def _(dataset: Gaussian1D, draw: Draw, discriminator: nn.Module) -> tuple[dict[str, float], np.ndarray | None]:
    made = draw(DENSITY_SAMPLES).flatten()
    low = min(dataset.mean - 6 * dataset.std, float(made.min()))
    high = max(dataset.mean + 6 * dataset.std, float(made.max()))
    edges = torch.linspace(low, high, DENSITY_BINS + 1, dtype=torch.float64)
    x = (edges[1:] + edges[:-1]) / 2
    p_data, p_g = dataset.density(x), histogram_density(made, edges)
    device = next(discriminator.parameters()).device
    with torch.no_grad():
        d = discriminator(x.float().unsqueeze(1).to(device)).sigmoid().cpu().double()
    best = p_data / (p_data + p_g).clamp_min(1e-300)
    has_mass = p_data + p_g >= 0.01 * (p_data + p_g).max()
    values = {
        "metric/jsd": jensen_shannon(p_data, p_g, float(edges[1] - edges[0])),
        "metric/discriminator_gap": float((d - best)[has_mass].abs().max()),
    }
    return values, pictures.theory(x, p_data, p_g, d, torch.where(has_mass, best, torch.nan))
