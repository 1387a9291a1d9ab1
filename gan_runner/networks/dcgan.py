"""DCGAN (Radford, Metz & Chintala 2016, arXiv:1511.06434), for images whose sides are multiples of 4, at least 16.

The kernel is 4, not the paper's 5, so that a stride of 2 halves and doubles exactly. The paper's network for 64×64
images has `channels: 128`: 1024, 512, 256 and 128 features from 4×4 upwards.
"""

from pydantic import PositiveInt
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gan_runner.networks.conditioning import DiscriminatorConditioning, GeneratorConditioning
from gan_runner.networks.conv import ConvDiscriminator, ConvGenerator, Convolution, FirstMap, Window
from gan_runner.networks.layers import GroupSize, Normalization, ValueRange, pyramid


def convolution(channels: int, normalized: bool) -> Convolution:
    """A convolution that halves, or a transposed one that doubles, height and width."""
    return Convolution(kernel=4, stride=2, padding=1, channels=channels, normalized=normalized)


class DCGANGenerator(ConvGenerator):
    """ReLU throughout, normalization everywhere but after the last layer."""

    def __init__(
        self,
        latent_dim: int,
        shape: tuple[int, ...],
        num_classes: int,
        value_range: ValueRange,
        *,
        channels: PositiveInt,
        normalization: Normalization,
        conditioning: GeneratorConditioning | None = None,  # runs of earlier versions lack this key
    ) -> None:
        height, width, (*widths, seed_width) = pyramid(shape, channels)
        super().__init__(
            latent_dim,
            shape,
            num_classes,
            value_range,
            seed=FirstMap(channels=seed_width, height=height, width=width, normalized=True),
            layers=[convolution(n, normalized=True) for n in reversed(widths)],
            last_layer=Window(kernel=4, stride=2, padding=1),
            activation="relu",
            negative_slope=0.0,
            normalization=normalization,
            normalize="before_activation",
            dropout=0.0,
            output=["auto"],
            conditioning=conditioning,
        )
        initialize(self)


class DCGANDiscriminator(ConvDiscriminator):
    """Leaky ReLU throughout, normalization everywhere but after the first layer."""

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        channels: PositiveInt,
        normalization: Normalization,
        conditioning: DiscriminatorConditioning | None = None,  # runs of earlier versions lack this key and the next
        minibatch_stddev: GroupSize | None = None,
    ) -> None:
        widths = pyramid(shape, channels).channels
        super().__init__(
            shape,
            num_classes,
            layers=[convolution(n, normalized=i > 0) for i, n in enumerate(widths)],
            activation="leaky_relu",
            negative_slope=0.2,
            normalization=normalization,
            normalize="before_activation",
            dropout=0.0,
            conditioning=conditioning,
            minibatch_stddev=minibatch_stddev,
        )
        initialize(self)


def initialize(network: nn.Module) -> None:
    """Draws all weights from N(0, 0.02²), as in the paper, unless spectral norm makes their scale irrelevant."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and not is_parametrized(module):
            nn.init.normal_(module.weight, std=0.02)
