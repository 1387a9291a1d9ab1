"""Networks of R3GAN (Huang et al. 2024, arXiv:2501.05441): residual, without any normalization.

For sides that are multiples of 4 and at least 16: 28 is made as 7 → 14 → 28, 64 as 4 → 8 → 16 → 32 → 64. There is one
set of `widths`, of which smaller images use the first.
"""

from itertools import pairwise
from math import sqrt
from typing import TypeVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gan_runner.errors import UserError
from gan_runner.networks.conditioning import ClassEmbedding
from gan_runner.networks.layers import pyramid

SLOPE = 0.2  # of all leaky ReLUs
EXPANSION = 2  # how many times as wide as its input a block is inside

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def initialized(layer: Layer, gain: float = 1.0) -> Layer:
    """`layer` with weights from N(0, gain² / fan-in) (He et al. 2015)."""
    nn.init.normal_(layer.weight, std=gain / sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Sequential):
    """The residual in x + W₃ φ(W₂ φ(W₁ x + b₁) + b₂): W₁ and W₃ are 1×1, W₂ is 3×3 in groups of channels.

    W₃ is zero at first, and the others are scaled down by the number of blocks in the network, L^(-1/4), so that the
    variance does not grow with depth (Zhang et al. 2019, "Fixup").
    """

    def __init__(self, width: int, group_width: int, blocks_in_all: int) -> None:
        inner = EXPANSION * width
        gain = sqrt(2 / (1 + SLOPE**2)) * blocks_in_all ** (-1 / 4)
        super().__init__(
            initialized(nn.Conv2d(width, inner, 1), gain),
            nn.LeakyReLU(SLOPE),
            initialized(nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_width), gain),
            nn.LeakyReLU(SLOPE),
            initialized(nn.Conv2d(inner, width, 1, bias=False), gain=0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, width, H, W)."""
        return x + super().forward(x)


class Resample(nn.Module):
    """Bilinear interpolation, which is the filter [1, 3, 3, 1] along each side, with zeros beyond the edge."""

    def __init__(self, double: bool) -> None:
        super().__init__()
        self.double_it = double
        side = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.filter: Tensor
        self.register_buffer("filter", torch.outer(side, side)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W), or (B, C, H/2, W/2)."""
        channels = x.shape[1]
        each = self.filter.expand(channels, 1, 4, 4)
        if self.double_it:
            return F.conv_transpose2d(x, 4 * each, stride=2, padding=1, groups=channels)
        return F.conv2d(x, each, stride=2, padding=1, groups=channels)


def stages(shape: tuple[int, ...], widths: list[PositiveInt], group_width: int) -> tuple[int, int, list[int]]:
    """Height and width of the smallest map, and the channels of each map from there to the image."""
    height, width, halvings = pyramid(shape, channels=1)
    count = len(halvings) + 1
    if len(widths) < count:
        raise UserError(
            f"architecture: images of {shape[1]}×{shape[2]} need {count} widths, "
            f"for maps of {', '.join(f'{height << i}×{width << i}' for i in range(count))}, but there are {len(widths)}"
        )
    if unfit := [n for n in widths if EXPANSION * n % group_width]:
        raise UserError(f"architecture: {EXPANSION} times the width {unfit[0]} is no multiple of {group_width=}")
    return height, width, widths[:count]


def pointwise(n_in: int, n_out: int) -> list[nn.Module]:
    """A 1×1 convolution, if the number of channels changes."""
    return [] if n_in == n_out else [initialized(nn.Conv2d(n_in, n_out, 1, bias=False))]


class R3GANGenerator(nn.Module):
    """A learned first map scaled by a linear function of z, `blocks` for each size, and a 1×1 convolution to the image.

    A label is embedded and concatenated to z. As in the paper, nothing bounds the values of the image.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        widths: list[PositiveInt],
        blocks: PositiveInt,
        group_width: PositiveInt,
        embedding: PositiveInt,
    ) -> None:
        super().__init__()
        height, width, widths = stages(shape, widths, group_width)
        in_all = blocks * len(widths)
        self.embed = ClassEmbedding(num_classes, embedding) if num_classes else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=1 / sqrt(num_classes))  # a linear layer's, on one-hot labels
        self.basis = nn.Parameter(torch.randn(widths[0], height, width))
        self.scale = initialized(nn.Linear(latent_dim + embedding * (num_classes > 0), widths[0], bias=False))
        layers: list[nn.Module] = [Block(widths[0], group_width, in_all) for _ in range(blocks)]
        for n_in, n_out in pairwise(widths):
            layers += [*pointwise(n_in, n_out), Resample(double=True)]
            layers += [Block(n_out, group_width, in_all) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, initialized(nn.Conv2d(widths[-1], shape[0], 1, bias=False)))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent_dim), (B,) or (B, num_classes) -> (B, C, H, W)."""
        if self.embed is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        return self.layers(self.basis * self.scale(z)[:, :, None, None])


class R3GANDiscriminator(nn.Module):
    """The mirror image: a 1×1 convolution, `blocks` for each size, and a product with one learned map per channel.

    A linear layer makes the logit of the products; with labels, it makes a vector, whose product with the embedded
    label is the logit (projection).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        widths: list[PositiveInt],
        blocks: PositiveInt,
        group_width: PositiveInt,
        embedding: PositiveInt,
    ) -> None:
        super().__init__()
        height, width, widths = stages(shape, widths, group_width)
        in_all, first = blocks * len(widths), widths[0]
        layers: list[nn.Module] = [initialized(nn.Conv2d(shape[0], widths[-1], 1, bias=False))]
        for n_in, n_out in pairwise(reversed(widths)):
            layers += [Block(n_in, group_width, in_all) for _ in range(blocks)]
            layers += [Resample(double=False), *pointwise(n_in, n_out)]
        layers += [Block(first, group_width, in_all) for _ in range(blocks)]
        basis = initialized(nn.Conv2d(first, first, (height, width), groups=first, bias=False))
        self.layers = nn.Sequential(*layers, basis, nn.Flatten())
        self.linear = initialized(nn.Linear(first, embedding if num_classes else 1, bias=False))
        self.embed = nn.Embedding(num_classes, embedding) if num_classes else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=1 / sqrt(num_classes * embedding))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B,) -> logits (B,)."""
        products = self.linear(self.layers(x))
        return products.squeeze(1) if self.embed is None else (products * self.embed(labels)).sum(dim=1)
