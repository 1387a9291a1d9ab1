"""What a step is given: real samples, noise and labels, as functions of (seed, step, rank)."""

import torch
from torch import Tensor

from gan_runner.config.schema import Latent


def draw_latent(latent: Latent, count: int, noise: torch.Generator) -> Tensor:
    """Inputs for the generator, (count, latent.dim), on the CPU."""
    if latent.distribution == "constant":
        return torch.full((count, latent.dim), latent.loc)
    draw = torch.randn if latent.distribution == "normal" else torch.rand
    return latent.loc + latent.scale * draw(count, latent.dim, generator=noise)
