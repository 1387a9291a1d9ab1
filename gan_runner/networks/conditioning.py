"""The ways in which labels reach a network.

A generator concatenates them to its noise, or has gains and biases of its batch norms for each class. A discriminator
concatenates them to its input, compares them with its features (projection), or learns to tell them (auxiliary).

Labels are class numbers (B,), int64. A generator also takes weights over the classes (B, K), float: what it makes of
0.3 cat and 0.7 dog lies between both. A row with 1 for one class gives what the number of that class gives.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.errors import UserError

# In a network's keys, None is the way of its family: what it did before there was a choice.
GeneratorConditioning = Literal["concatenation", "batch_norm"]
DiscriminatorConditioning = Literal["concatenation", "projection", "auxiliary"]


def concatenate_labels(x: Tensor, labels: Tensor | None, num_classes: int) -> Tensor:
    """Adds one-hot labels to x as features: (B, C, ...) -> (B, C + num_classes, ...) (Mirza & Osindero 2014)."""
    if num_classes == 0:
        return x
    assert labels is not None, "a conditional network needs labels"
    weights = labels if labels.is_floating_point() else F.one_hot(labels, num_classes)  # (B, K)
    maps = weights.to(x.dtype).reshape(*weights.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, maps], dim=1)


class ClassEmbedding(nn.Embedding):
    """A vector for each class; for weights over the classes, the weighted sum of their vectors."""

    def forward(self, labels: Tensor) -> Tensor:
        """(B,) or (B, K) -> (B, F)."""
        assert labels is not None, "a conditional network needs labels"
        return labels @ self.weight if labels.is_floating_point() else super().forward(labels)


class ClassBatchNorm(nn.Module):
    """Batch norm whose gain and bias are looked up by class (Dumoulin et al. 2017, arXiv:1610.07629)."""

    def __init__(self, features: int, num_classes: int, spatial: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False) if spatial else nn.BatchNorm1d(features, affine=False)
        self.gain = ClassEmbedding(num_classes, features)
        self.bias = ClassEmbedding(num_classes, features)
        nn.init.normal_(self.gain.weight, mean=1.0, std=0.02)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, C, ...), (B,) or (B, K) -> (B, C, ...)."""
        shape = (*x.shape[:2], *[1] * (x.ndim - 2))
        return self.norm(x) * self.gain(labels).view(shape) + self.bias(labels).view(shape)


class Projection(nn.Module):
    """ψ·φ(x) + b + ⟨embed(y), φ(x)⟩, the last layer of Miyato & Koyama 2018 (arXiv:1802.05637)."""

    def __init__(self, linear: nn.Module, embed: nn.Module) -> None:
        super().__init__()
        self.linear, self.embed = linear, embed

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """(B, F), (B,) -> (B, 1)."""
        return self.linear(features) + (self.embed(labels) * features).sum(dim=1, keepdim=True)


class Layers(nn.Sequential):
    """A sequence of layers, of which some want the labels as well."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The output of the last layer."""
        for layer in self:
            x = layer(x, labels) if isinstance(layer, ClassBatchNorm | Projection) else layer(x)
        return x


def logits_of(outputs: Tensor, classes: bool) -> Tensor:
    """Of a discriminator's outputs (B, 1 + K) the first, its logits (B,); with `classes` all of them."""
    return outputs if classes else outputs[:, 0]


def split_labels(conditioning: GeneratorConditioning | None, num_classes: int) -> tuple[int, int]:
    """How many labels are concatenated to the noise, and for how many classes batch norms have gains and biases."""
    return (0, num_classes) if conditioning == "batch_norm" else (num_classes, 0)


def refuse_nothing_to_condition(layers: nn.Module, in_norms: int) -> None:
    """UserError for a generator that is to be conditioned by batch norms and has none."""
    if in_norms and not any(isinstance(module, ClassBatchNorm) for module in layers.modules()):
        raise UserError(
            "architecture.generator.conditioning=batch_norm: this generator has no batch norm; "
            "use architecture.generator.normalization=batch, or concatenation"
        )
