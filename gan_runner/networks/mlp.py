"""Multilayer perceptrons. Unless told otherwise, they concatenate the one-hot label to the (flattened) input."""

from collections.abc import Iterator
from itertools import pairwise
from math import prod

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
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
    DiscriminatorOutput,
    DropoutRate,
    GeneratorOutput,
    LayerStyle,
    Normalization,
    NormalizationPlace,
    ValueRange,
)


def hidden_layers(sizes: list[int], style: LayerStyle) -> Iterator[nn.Module]:
    """Linear layers from each size to the next, and what follows each of them."""
    for n_in, n_out in pairwise(sizes):
        yield style.normalize_weights(nn.Linear(n_in, n_out))
        yield from style.after_hidden(n_out)


class MLPGenerator(nn.Module):
    """latent_dim (+ num_classes) -> hidden[0] -> ... -> prod(shape), then the layers named in `output`."""

    def __init__(
        self,
        latent_dim: int,
        shape: tuple[int, ...],
        num_classes: int,
        value_range: ValueRange,
        *,
        hidden: list[PositiveInt],
        activation: Activation,
        negative_slope: NonNegativeFloat,
        normalization: Normalization,
        normalize: NormalizationPlace,
        dropout: DropoutRate,
        output: list[GeneratorOutput],
        conditioning: GeneratorConditioning | None = None,  # runs of earlier versions lack this key
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.concatenated, in_norms = split_labels(conditioning, num_classes)
        style = LayerStyle(
            activation, negative_slope, normalization, normalize, dropout, spatial=False, num_classes=in_norms
        )
        sizes = [latent_dim + self.concatenated, *hidden]
        self.layers = Layers(
            *hidden_layers(sizes, style),
            style.normalize_weights(nn.Linear(sizes[-1], prod(shape))),
            *style.after_last(output, prod(shape), value_range),
        )
        refuse_nothing_to_condition(self.layers, in_norms)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent_dim), (B,) or (B, num_classes) -> (B, *shape)."""
        return self.layers(concatenate_labels(z, labels, self.concatenated), labels).unflatten(1, self.shape)


class MLPDiscriminator(nn.Module):
    """prod(shape) (+ num_classes) -> hidden[0] -> ... -> 1, then the layers named in `output`."""

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        hidden: list[PositiveInt],
        activation: Activation,
        negative_slope: NonNegativeFloat,
        normalization: Normalization,
        normalize: NormalizationPlace,
        dropout: DropoutRate,
        output: list[DiscriminatorOutput],
        conditioning: DiscriminatorConditioning | None = None,  # runs of earlier versions lack this key
    ) -> None:
        super().__init__()
        if output and conditioning in ("projection", "auxiliary"):
            raise UserError(
                f"architecture.discriminator.conditioning={conditioning}: must be the last layer, but "
                f"architecture.discriminator.output={output} comes after it; use output=[]"
            )
        self.concatenated = num_classes if conditioning in (None, "concatenation") else 0
        style = LayerStyle(activation, negative_slope, normalization, normalize, dropout, spatial=False)
        sizes = [prod(shape) + self.concatenated, *hidden]
        self.layers = Layers(
            *hidden_layers(sizes, style),
            style.last_of_discriminator(sizes[-1], conditioning, num_classes),
            *style.after_last(output, 1),
        )

    def forward(self, x: Tensor, labels: Tensor | None = None, classes: bool = False) -> Tensor:
        """(B, *shape), (B,) -> logits (B,); with `classes` (B, 1 + K), those of the classes after them."""
        outputs = self.layers(concatenate_labels(x.flatten(1), labels, self.concatenated), labels)
        return logits_of(outputs, classes)


class FourierDiscriminator(MLPDiscriminator):
    """An MLP on [x, cos Bx, sin Bx], which can tell apart points that are too close together for an MLP on x.

    B is random and fixed: `features` rows from N(0, scale²), so that wavelengths are about 2π / scale. Source: Tancik
    et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains" (2020).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        features: PositiveInt,
        scale: PositiveFloat,
        hidden: list[PositiveInt],
        activation: Activation,
        negative_slope: NonNegativeFloat,
        conditioning: DiscriminatorConditioning | None = None,  # runs of earlier versions lack this key
    ) -> None:
        super().__init__(
            (prod(shape) + 2 * features,),
            num_classes,
            hidden=hidden,
            activation=activation,
            negative_slope=negative_slope,
            normalization="none",
            normalize="before_activation",
            dropout=0.0,
            output=[],
            conditioning=conditioning,
        )
        self.frequencies: Tensor
        self.register_buffer("frequencies", scale * torch.randn(features, prod(shape)))

    def forward(self, x: Tensor, labels: Tensor | None = None, classes: bool = False) -> Tensor:
        """(B, *shape), (B,) -> logits (B,); with `classes` (B, 1 + K), those of the classes after them."""
        x = x.flatten(1)
        phase = x @ self.frequencies.T  # (B, features)
        return super().forward(torch.cat([x, phase.cos(), phase.sin()], dim=1), labels, classes)


class NoiseGenerator(nn.Module):
    """Returns the noise in the shape of the data. It has no parameters: only the discriminator is trained."""

    def __init__(self, latent_dim: int, shape: tuple[int, ...], num_classes: int, value_range: ValueRange) -> None:
        super().__init__()
        if latent_dim != prod(shape):
            raise UserError(
                f"architecture.latent.dim is {latent_dim}, but noise in place of a generator needs one number "
                f"for each of the data's {prod(shape)} values"
            )
        self.shape = tuple(shape)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, prod(shape)) -> (B, *shape)."""
        return z.unflatten(1, self.shape)
