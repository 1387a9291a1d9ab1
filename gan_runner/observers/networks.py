"""The networks as observers see them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan_runner.batches import draw_labels, draw_latent
from gan_runner.config.schema import Latent
from gan_runner.datasets import DataFacts
from gan_runner.networks.running import generate
from gan_runner.randomness import rng
from gan_runner.state import State


@dataclass(frozen=True)
class Networks:
    """Both networks, to sample from and to look at; nothing here changes a weight, a buffer or a stream."""

    state: State
    facts: DataFacts
    latent: Latent
    num_classes: int  # that they are conditioned on, 0: none
    seed: int

    @property
    def generator(self) -> nn.Module:
        """The generator to sample from: its moving average, where there is one."""
        return self.state.sampled

    @property
    def discriminator(self) -> nn.Module:
        """The discriminator, whose inputs are packs where `trainer.packing` says so."""
        return self.state.discriminator.module

    def generate(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Samples (B, *shape) of latents (B, latent_dim) in eval mode, as the discriminator sees them, on the CPU."""
        return generate(self.generator, z, labels, self.state.device)

    def sample(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The same in the data's own units: images in [0, 1]."""
        return self.facts.in_data_units(self.generate(z, labels))

    def draw(self, count: int) -> Tensor:
        """`count` samples in the data's own units, always of the same noise: classes in turn, clusters by size."""
        noise = rng(self.seed, "observer")
        z, labels = draw_latent(self.latent, count, noise), None
        if self.num_classes and self.facts.cluster_sizes:
            labels = draw_labels(self.num_classes, self.facts.cluster_sizes, count, noise)
        elif self.num_classes:
            labels = torch.arange(count) % self.num_classes
        return self.sample(z, labels)
