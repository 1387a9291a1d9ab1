"""Parts of all families of networks: layers by their names in YAML, labels, sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_runner.errors import UserError
from gan_runner.networks.conditioning import ClassBatchNorm, DiscriminatorConditioning, Projection
from gan_runner.networks.spectral import spectral_norm

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "sigmoid", "tanh"]
Normalization = Literal["none", "batch", "layer", "spectral"]
NormalizationPlace = Literal["before_activation", "after_activation"]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
GroupSize = Annotated[int, Field(ge=2)]

# What may follow the last linear layer or convolution. `auto` is the activation with the data's value range.
DiscriminatorOutput = Literal[Activation, "batch", "layer", "dropout"]
GeneratorOutput = Literal[DiscriminatorOutput, "auto"]
ValueRange = tuple[float, float] | None


@dataclass(frozen=True)
class LayerStyle:
    """Activation, normalization and dropout of one network.

    `spectral` normalizes the weights of all linear layers and convolutions (Miyato et al. 2018); `batch` and `layer`
    normalize the features after the hidden ones. `spatial` features are maps: layer norm is then over channels and
    positions together, with a gain and a bias for each channel. With `num_classes`, batch norm has gains and biases for
    each class.
    """

    activation: Activation
    negative_slope: float
    normalization: Normalization
    normalize: NormalizationPlace
    dropout: float
    spatial: bool
    num_classes: int = 0

    def normalize_weights(self, module: nn.Module) -> nn.Module:
        """`module`, a linear layer or convolution, under spectral norm if that is the style."""
        return spectral_norm(module) if self.normalization == "spectral" else module

    def after_hidden(self, features: int, normalized: bool = True) -> list[nn.Module]:
        """The layers after a hidden linear layer or convolution with `features` outputs."""
        names: list[str] = [self.activation]
        if normalized and self.normalization in ("batch", "layer"):
            names.insert(0 if self.normalize == "before_activation" else 1, self.normalization)
        if self.dropout:
            names.append("dropout")
        return [self.layer(name, features) for name in names]

    def after_last(
        self, names: Sequence[GeneratorOutput], features: int, value_range: ValueRange = None
    ) -> list[nn.Module]:
        """The layers after the last linear layer or convolution."""
        return [output_activation(value_range) if name == "auto" else self.layer(name, features) for name in names]

    def layer(self, name: str, features: int) -> nn.Module:
        """A new layer with this name in YAML, for `features` inputs."""
        build: dict[str, Callable[[], nn.Module]] = {
            "relu": nn.ReLU,
            "leaky_relu": lambda: nn.LeakyReLU(self.negative_slope),
            "gelu": nn.GELU,
            "silu": nn.SiLU,
            "sigmoid": nn.Sigmoid,
            "tanh": nn.Tanh,
            "batch": lambda: self.batch_norm(features),
            "layer": lambda: nn.GroupNorm(1, features) if self.spatial else nn.LayerNorm(features),
            "dropout": lambda: nn.Dropout(self.dropout),
        }
        return build[name]()

    def batch_norm(self, features: int) -> nn.Module:
        """Batch norm, by class if there are any."""
        if self.num_classes:
            return ClassBatchNorm(features, self.num_classes, self.spatial)
        return nn.BatchNorm2d(features) if self.spatial else nn.BatchNorm1d(features)

    def last_of_discriminator(
        self, features: int, conditioning: DiscriminatorConditioning | None, num_classes: int
    ) -> nn.Module:
        """The layer that makes the logit from `features`; if `auxiliary`, those of the classes beside it."""
        auxiliary = num_classes if conditioning == "auxiliary" else 0
        linear = self.normalize_weights(nn.Linear(features, 1 + auxiliary))
        if conditioning != "projection" or not num_classes:
            return linear
        embed = nn.Embedding(num_classes, features)
        nn.init.xavier_uniform_(embed.weight)  # as in the authors' code; by N(0, 1), logits would begin near √features
        return Projection(linear, self.normalize_weights(embed))


class ScaledSigmoid(nn.Module):
    """A sigmoid with the range (low, high)."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * x.sigmoid()


def output_activation(value_range: ValueRange) -> nn.Module:
    """The activation with the range of the data; None is unbounded."""
    if value_range is None:
        return nn.Identity()
    low, high = value_range
    if (low, high) == (0, 1):
        return nn.Sigmoid()
    return nn.Tanh() if (low, high) == (-1, 1) else ScaledSigmoid(low, high)


class MinibatchStddev(nn.Module):
    """Adds one map that says how much the samples of a group differ, so that too little variety is seen.

    It holds, for each group of consecutive samples, their standard deviation at each channel and position, averaged
    over all of these. Sources: Karras et al. 2018 (arXiv:1710.10196, section 3); in groups, StyleGAN2's code. What is
    left over at the end of a batch is a smaller group.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + 1, H, W)."""
        rest = len(x) % self.group
        if 0 < rest < len(x):
            return torch.cat([self(x[:-rest]), self(x[-rest:])])
        groups = x.unflatten(0, (-1, min(self.group, len(x))))  # (N, G, C, H, W)
        deviation = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (N,)
        maps = deviation[:, None, None, None, None].expand(-1, groups.shape[1], 1, *x.shape[2:])
        return torch.cat([x, maps.flatten(0, 1)], dim=1)


def minibatch_spread(group: int | None) -> tuple[list[nn.Module], int]:
    """The layer that adds what the samples of a group differ by, and how many maps it adds; none without a group."""
    return ([], 0) if group is None else ([MinibatchStddev(group)], 1)


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`shape` as (channels, height, width); raises `UserError` if the data are not images."""
    if len(shape) != 3:
        raise UserError(
            f"architecture: a convolutional network needs images (channels, height, width), "
            f"but the dataset's shape is {tuple(shape)}; choose an mlp architecture"
        )
    channels, height, width = shape
    return channels, height, width


class Pyramid(NamedTuple):
    """The resolutions of a network that halves its feature maps several times, or doubles them in a generator."""

    height: int  # of the smallest map
    width: int
    channels: list[int]  # one number for each halving, from the image on


def pyramid(shape: tuple[int, ...], channels: int) -> Pyramid:
    """Halves an image while its sides stay whole and at least 4; each halving doubles the channels, up to 16-fold.

    Raises `UserError` for an image that cannot be halved twice.
    """
    _, height, width = image_shape(shape)
    halvings = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 8:
        height, width, halvings = height // 2, width // 2, halvings + 1
    if halvings < 2:
        raise UserError(
            f"architecture: this network needs images whose sides are multiples of 4 and at least 16, "
            f"but the dataset's are {shape[1]}×{shape[2]}"
        )
    return Pyramid(height, width, [channels * min(2**i, 16) for i in range(halvings)])
