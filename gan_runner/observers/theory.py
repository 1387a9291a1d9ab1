"""Proposition 1 of Goodfellow et al., "Generative Adversarial Networks" (2014), watched in one dimension."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan_runner import pictures
from gan_runner.batches import draw_latent
from gan_runner.datasets import Gaussian1D
from gan_runner.metrics import masses
from gan_runner.networks.running import eval_mode, generate
from gan_runner.observers.base import Moment
from gan_runner.observers.grids import Grids

SAMPLES = 1_000_000
BINS = 200


@dataclass
class Theory(Grids):
    """In place of a grid, p_data, p_g, D and D*; adds how far D is from D* to the row.

    p_g is the density of the generator that D plays against, not that of its moving average.
    """

    real_target: float | None  # of the loss; None: its best D is no ratio of densities

    def __post_init__(self) -> None:
        super().__post_init__()
        assert isinstance(self.dataset, Gaussian1D)
        self.density = self.dataset
        self.many = draw_latent(self.networks.latent, SAMPLES, self.noise)

    def draw(self, samples: Tensor, moment: Moment) -> pictures.Picture:
        """Of far more samples than a grid has."""
        state = self.networks.state
        made = generate(state.generator.module, self.many, None, state.device)
        gap, picture = compare(self.density, made, self.networks.discriminator, self.real_target)
        if math.isfinite(gap):  # else the losses will tell, in all processes
            moment.row["theory/discriminator_gap"] = gap
        return picture


def compare(
    dataset: Gaussian1D, made: Tensor, discriminator: nn.Module, real_target: float | None = 1.0
) -> tuple[float, pictures.Picture]:
    """How far the discriminator is from the best one, and a picture of all of them.

    The best is D* = p_data / (p_data + p_g), times `real_target`, which is below 1 where labels are smoothed. If it is
    None, because the loss has another best D, the gap is nan and D* is not drawn. p_g is the histogram of `made`
    (N, 1), the generated samples. The gap is the largest |D - D*|, but for places where p_data + p_g is below 1 % of
    its peak.
    """
    numbers, reach = made.flatten(), 6 * dataset.std
    lowest, highest = numbers.quantile(torch.tensor([0.001, 0.999])).tolist()  # a stray one is not to blur the others
    low, high = min(dataset.mean - reach, lowest), max(dataset.mean + reach, highest)
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    x = (edges[1:] + edges[:-1]) / 2
    p_data, p_g = (mass[1:-1] / edges.diff() for mass in masses(numbers, dataset, edges))
    device = next(discriminator.parameters()).device
    with eval_mode(discriminator), torch.no_grad():
        d = discriminator(x.float().unsqueeze(1).to(device)).sigmoid().cpu().double()
    if real_target is None:
        return math.nan, pictures.theory(x, p_data, p_g, d)
    best = real_target * p_data / (p_data + p_g).clamp_min(1e-300)
    has_mass = p_data + p_g >= 0.01 * (p_data + p_g).max()
    gap = float((d - best)[has_mass].abs().max())
    return gap, pictures.theory(x, p_data, p_g, d, torch.where(has_mass, best, torch.nan), real_target)
