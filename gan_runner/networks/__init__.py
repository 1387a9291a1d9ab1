"""Generators and discriminators, each family configured by YAML.

A generator is `forward(z: (B, latent_dim), labels: (B,) | None) -> (B, *shape)`; a discriminator is
`forward(x: (B, *shape), labels: (B,) | None) -> logits (B,)`. The runner sets what depends on the data and the latent
distribution: `latent_dim`, `shape`, `num_classes` (0 for an unconditional network) and `value_range`.
"""

from gan_runner.networks.conv import ConvDiscriminator, ConvGenerator
from gan_runner.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gan_runner.networks.mlp import FourierDiscriminator, MLPDiscriminator, MLPGenerator, NoiseGenerator
from gan_runner.networks.pytorch_gan import (
    PyTorchGANConvDiscriminator,
    PyTorchGANConvGenerator,
    PyTorchGANDiscriminator,
    PyTorchGANGenerator,
)
from gan_runner.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from gan_runner.networks.resnet import ResNetDiscriminator, ResNetGenerator
