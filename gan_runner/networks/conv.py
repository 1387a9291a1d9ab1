"""Convolutional networks, specified layer by layer.

Unless told otherwise, conditioning concatenates the one-hot label to the noise, and, as constant maps, to the channels
of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt, with_config
from torch import Tensor, nn

from gan_runner.errors import UserError
from gan_runner.networks.conditioning import (
    DiscriminatorConditioning,
    GeneratorConditioning,
    Layers,
    concatenate_labels,
    logits_of,
    refuse_nothing_to_condition,
    split_labels,
)
from gan_runner.networks.layers import (
    Activation,
    DropoutRate,
    GeneratorOutput,
    GroupSize,
    LayerStyle,
    Normalization,
    NormalizationPlace,
    ValueRange,
    image_shape,
    minibatch_spread,
)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Window:
    """The square window of a convolution, in pixels."""

    kernel: PositiveInt
    stride: PositiveInt
    padding: NonNegativeInt


@dataclass(frozen=True)
class Convolution(Window):
    """A hidden convolution; if `normalized`, the network's batch or layer normalization follows it."""

    channels: PositiveInt
    normalized: bool


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class FirstMap:
    """The first feature map of a generator; the key `seed`."""

    channels: PositiveInt
    height: PositiveInt
    width: PositiveInt
    normalized: bool


def size_made(seed: FirstMap, windows: Sequence[Window]) -> list[int]:
    """Height and width of what transposed convolutions make of the seed."""
    size = [seed.height, seed.width]
    for window in windows:
        size = [(s - 1) * window.stride - 2 * window.padding + window.kernel for s in size]
    return size


class ConvGenerator(nn.Module):
    """A linear layer to the seed, then the transposed convolutions `layers` and `last_layer`, then `output`.

    Raises `UserError` if they make images of another size than the data's.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: tuple[int, ...],
        num_classes: int,
        value_range: ValueRange,
        *,
        seed: FirstMap,
        layers: list[Convolution],
        last_layer: Window,
        activation: Activation,
        negative_slope: NonNegativeFloat,
        normalization: Normalization,
        normalize: NormalizationPlace,
        dropout: DropoutRate,
        output: list[GeneratorOutput],
        conditioning: GeneratorConditioning | None = None,  # runs of earlier versions lack this key
    ) -> None:
        super().__init__()
        self.concatenated, in_norms = split_labels(conditioning, num_classes)
        image_channels, *image_size = image_shape(shape)
        size = size_made(seed, [*layers, last_layer])
        if size != image_size:
            raise UserError(
                f"architecture.generator: its seed and layers make images of {size[0]}×{size[1]}, "
                f"but the dataset's are {image_size[0]}×{image_size[1]}"
            )

        style = LayerStyle(
            activation, negative_slope, normalization, normalize, dropout, spatial=True, num_classes=in_norms
        )
        channels = seed.channels
        modules = [
            style.normalize_weights(nn.Linear(latent_dim + self.concatenated, channels * seed.height * seed.width)),
            nn.Unflatten(1, (channels, seed.height, seed.width)),
            *style.after_hidden(channels, seed.normalized),
        ]
        for layer in layers:
            convolution = nn.ConvTranspose2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding)
            channels = layer.channels
            modules += [style.normalize_weights(convolution), *style.after_hidden(channels, layer.normalized)]
        last = nn.ConvTranspose2d(channels, image_channels, last_layer.kernel, last_layer.stride, last_layer.padding)
        self.layers = Layers(
            *modules, style.normalize_weights(last), *style.after_last(output, image_channels, value_range)
        )
        refuse_nothing_to_condition(self.layers, in_norms)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent_dim), (B,) or (B, num_classes) -> (B, C, H, W)."""
        return self.layers(concatenate_labels(z, labels, self.concatenated), labels)


class ConvDiscriminator(nn.Module):
    """The convolutions `layers`, then a linear layer to one logit.

    Raises `UserError` if the data are too small for the layers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        layers: list[Convolution],
        activation: Activation,
        negative_slope: NonNegativeFloat,
        normalization: Normalization,
        normalize: NormalizationPlace,
        dropout: DropoutRate,
        conditioning: DiscriminatorConditioning | None = None,  # runs of earlier versions lack this key and the next
        minibatch_stddev: GroupSize | None = None,
    ) -> None:
        super().__init__()
        self.concatenated = num_classes if conditioning in (None, "concatenation") else 0
        image_channels, *size = image_shape(shape)
        style = LayerStyle(activation, negative_slope, normalization, normalize, dropout, spatial=True)
        channels = image_channels + self.concatenated
        modules: list[nn.Module] = []
        for i, layer in enumerate(layers):
            convolution = nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding)
            channels = layer.channels
            modules += [style.normalize_weights(convolution), *style.after_hidden(channels, layer.normalized)]
            size = [(s + 2 * layer.padding - layer.kernel) // layer.stride + 1 for s in size]
            if min(size) < 1:
                raise UserError(
                    f"architecture.discriminator.layers.{i}: its kernel of {layer.kernel} is larger than what is left "
                    f"there of the dataset's images of {shape[1]}×{shape[2]}"
                )
        spread, maps = minibatch_spread(minibatch_stddev)
        last = style.last_of_discriminator((channels + maps) * size[0] * size[1], conditioning, num_classes)
        self.layers = Layers(*modules, *spread, nn.Flatten(), last)

    def forward(self, x: Tensor, labels: Tensor | None = None, classes: bool = False) -> Tensor:
        """(B, C, H, W), (B,) -> logits (B,); with `classes` (B, 1 + K), those of the classes after them."""
        outputs = self.layers(concatenate_labels(x, labels, self.concatenated), labels)
        return logits_of(outputs, classes)
