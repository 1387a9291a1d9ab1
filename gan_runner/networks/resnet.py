"""Residual networks of SNGAN (Miyato et al. 2018, arXiv:1802.05957), for sides that are multiples of 4, at least 16.

Unless told otherwise, the generator is conditioned by the gains and biases of its batch norms, the discriminator by
projection.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gan_runner.errors import UserError
from gan_runner.networks.conditioning import (
    ClassBatchNorm,
    DiscriminatorConditioning,
    GeneratorConditioning,
    concatenate_labels,
    logits_of,
)
from gan_runner.networks.layers import GroupSize, ValueRange, minibatch_spread, output_activation, pyramid
from gan_runner.networks.spectral import spectral_norm


def initialized(module: nn.Linear | nn.Conv2d | nn.Embedding, spectral: bool = False, gain: float = 1.0) -> nn.Module:
    """`module` with Xavier-uniform weights, under spectral norm if `spectral`."""
    nn.init.xavier_uniform_(module.weight, gain)
    return spectral_norm(module) if spectral else module


def convolution(n_in: int, n_out: int, kernel: int, spectral: bool = False, gain: float = 1.0) -> nn.Module:
    """A convolution that keeps height and width."""
    return initialized(nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2), spectral, gain)


class SelfAttention(nn.Module):
    """x + γ·o, where o is made at each position of values at all positions, and γ is 0 at first.

    As in the code of SAGAN (Zhang et al. 2019, arXiv:1805.08318), queries and keys have an eighth of the channels,
    values a half, and keys and values are max-pooled to half the height and width.
    """

    def __init__(self, channels: int, spectral: bool = False) -> None:
        super().__init__()
        eighth, half = max(channels // 8, 1), max(channels // 2, 1)
        self.query, self.key, self.value, self.last = (
            initialized(nn.Conv2d(n_in, n_out, 1, bias=False), spectral)
            for n_in, n_out in ((channels, eighth), (channels, eighth), (channels, half), (half, channels))
        )
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        query = self.query(x).flatten(2)  # (B, C/8, HW)
        key = F.max_pool2d(self.key(x), 2).flatten(2)  # (B, C/8, HW/4)
        value = F.max_pool2d(self.value(x), 2).flatten(2)  # (B, C/2, HW/4)
        weights = (query.transpose(1, 2) @ key).softmax(dim=2)  # (B, HW, HW/4); torch's own cannot be penalized
        attended = value @ weights.transpose(1, 2)  # (B, C/2, HW)
        return x + self.gamma * self.last(attended.unflatten(2, x.shape[2:]))


def attention_places(key: str, side: int | None, sides: list[int]) -> list[bool]:
    """After which of the blocks there is attention, whose maps have these heights; refuses a `side` of none of them."""
    if side is not None and side not in sides:
        raise UserError(f"{key}={side}: no block makes maps of that height; allowed: {', '.join(map(str, sides))}")
    return [height == side for height in sides]


class UpBlock(nn.Module):
    """A residual block of the generator, which doubles height and width."""

    def __init__(self, n_in: int, n_out: int, num_classes: int, attention: bool = False) -> None:
        super().__init__()
        self.norm1 = ClassBatchNorm(n_in, num_classes)
        self.conv1 = convolution(n_in, n_out, 3, gain=2**0.5)
        self.norm2 = ClassBatchNorm(n_out, num_classes)
        self.conv2 = convolution(n_out, n_out, 3, gain=2**0.5)
        self.shortcut = convolution(n_in, n_out, 1)
        self.attention = SelfAttention(n_out) if attention else nn.Identity()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, n_in, H, W), (B,) or (B, num_classes) -> (B, n_out, 2H, 2W)."""
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, labels)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, labels)))
        return self.attention(h + F.interpolate(self.shortcut(x), scale_factor=2))


class ResNetGenerator(nn.Module):
    """A linear layer to the smallest map, a residual block for each doubling, batch norm, ReLU, convolution."""

    def __init__(
        self,
        latent_dim: int,
        shape: tuple[int, ...],
        num_classes: int,
        value_range: ValueRange,
        *,
        channels: PositiveInt,
        conditioning: GeneratorConditioning | None = None,  # runs of earlier versions lack this key and the next
        attention: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        height, width, widths = pyramid(shape, channels)
        heights = [height << i for i in range(1, len(widths) + 1)]
        at = attention_places("architecture.generator.attention", attention, heights)
        self.concatenated = num_classes if conditioning == "concatenation" else 0
        self.in_norms = num_classes - self.concatenated
        norms = max(self.in_norms, 1)  # without a choice by class, all samples are one class
        self.seed = nn.Sequential(
            initialized(nn.Linear(latent_dim + self.concatenated, widths[-1] * height * width)),
            nn.Unflatten(1, (widths[-1], height, width)),
        )
        self.blocks = nn.ModuleList(
            UpBlock(n_in, n_out, norms, here)
            for (n_in, n_out), here in zip(pairwise([widths[-1], *reversed(widths)]), at, strict=True)
        )
        self.norm = nn.BatchNorm2d(widths[0])
        self.last = convolution(widths[0], shape[0], 3)
        self.output = output_activation(value_range)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent_dim), (B,) or (B, num_classes) -> (B, C, H, W)."""
        h = self.seed(concatenate_labels(z, labels, self.concatenated))
        if self.in_norms == 0:
            labels = torch.zeros(z.shape[0], dtype=torch.int64, device=z.device)
        assert labels is not None, "a conditional network needs labels"
        for block in self.blocks:
            h = block(h, labels)
        return self.output(self.last(F.relu(self.norm(h))))


class DownBlock(nn.Module):
    """A residual block of the discriminator, which halves height and width if `down`.

    The `first` block has no ReLU before its first convolution, because its input is the image.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        spectral: bool,
        first: bool = False,
        down: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(n_in, n_out, 3, spectral, gain=2**0.5)
        self.conv2 = convolution(n_out, n_out, 3, spectral, gain=2**0.5)
        self.shortcut = convolution(n_in, n_out, 1, spectral) if down or n_in != n_out else nn.Identity()
        self.before = nn.Identity() if first else nn.ReLU()
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()
        self.attention = SelfAttention(n_out, spectral) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H, W), or (B, n_out, H/2, W/2) with `down`."""
        h = self.conv2(F.relu(self.conv1(self.before(x))))
        return self.attention(self.pool(h) + self.shortcut(self.pool(x)))


class ResNetDiscriminator(nn.Module):
    """A residual block for each halving and one more, ReLU, and the sum over positions as features φ(x).

    The logit is ψ·φ(x) + b, and with labels ⟨embed(y), φ(x)⟩ is added (projection, Miyato & Koyama 2018).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        channels: PositiveInt,
        spectral_norm: bool,
        conditioning: DiscriminatorConditioning | None = None,  # runs of earlier versions lack these keys
        attention: PositiveInt | None = None,
        minibatch_stddev: GroupSize | None = None,
    ) -> None:
        super().__init__()
        self.concatenated = num_classes if conditioning == "concatenation" else 0
        height, _, widths = pyramid(shape, channels)
        heights = [height << i for i in reversed(range(len(widths)))]
        at = attention_places("architecture.discriminator.attention", attention, heights)
        spread, maps = minibatch_spread(minibatch_stddev)
        self.blocks = nn.Sequential(
            *[
                DownBlock(n_in, n_out, spectral_norm, first=i == 0, attention=at[i])
                for i, (n_in, n_out) in enumerate(pairwise([shape[0] + self.concatenated, *widths]))
            ],
            *spread,
            DownBlock(widths[-1] + maps, widths[-1], spectral_norm, down=False),
            nn.ReLU(),
        )
        auxiliary = num_classes if conditioning == "auxiliary" else 0
        self.linear = initialized(nn.Linear(widths[-1], 1 + auxiliary), spectral_norm)
        projects = num_classes and conditioning in (None, "projection")
        self.embed = initialized(nn.Embedding(num_classes, widths[-1]), spectral_norm) if projects else None

    def forward(self, x: Tensor, labels: Tensor | None = None, classes: bool = False) -> Tensor:
        """(B, C, H, W), (B,) -> logits (B,); with `classes` (B, 1 + K), those of the classes after them."""
        features = self.blocks(concatenate_labels(x, labels, self.concatenated)).sum(dim=(2, 3))  # (B, widths[-1])
        outputs = self.linear(features)
        if self.embed is not None:
            outputs = outputs + (self.embed(labels) * features).sum(dim=1, keepdim=True)
        return logits_of(outputs, classes)
