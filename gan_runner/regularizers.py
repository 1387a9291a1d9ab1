"""Gradient penalties of the discriminator, one for each sample; the loss gets their mean times `weight`.

As in the papers, D(x) is the logit here, and no normalization in D may mix the samples of a batch.

They are computed in fp32 even under autocast, because squared gradients leave the range of half precision.
"""

from typing import NamedTuple, Protocol

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn


class DiscriminatorFunction(Protocol):
    """A discriminator as a function of tensors."""

    def __call__(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, *shape), (B,) -> logits (B,)."""

    def input_gradient(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The gradient of the sum of all logits with respect to `x`, of its shape."""


Discriminator = nn.Module | DiscriminatorFunction


class Batch(NamedTuple):
    """What a regularizer gets."""

    real: Tensor  # (B, *shape)
    real_labels: Tensor | None  # (B,), None where the discriminator is unconditional
    fake: Tensor  # (B, *shape)
    fake_labels: Tensor | None
    uniform: Tensor  # (B,) random numbers in [0, 1)


class Regularizer:
    """A penalty, added to the discriminator's loss at every `interval`-th update, `weight · interval` times."""

    def __init__(self, weight: NonNegativeFloat, interval: PositiveInt) -> None:
        self.weight, self.interval = weight, interval

    def __call__(self, discriminator: Discriminator, batch: Batch) -> Tensor:
        """The penalties (B,), without `weight`."""
        raise NotImplementedError


class GradientPenalty(Regularizer):
    """E(‖∇D(x̂)‖ − 1)² at x̂ = u·x + (1 − u)·G(z): the penalty of WGAN-GP (Gulrajani et al. 2017).

    x̂ carries the label of its real sample.
    """

    def __call__(self, discriminator: Discriminator, batch: Batch) -> Tensor:
        """A sample whose gradient is zero contributes 1 and no gradient."""
        u = batch.uniform.view(-1, *[1] * (batch.real.ndim - 1))  # (B, 1, ...)
        mixed = u * batch.real + (1 - u) * batch.fake
        gradient = input_gradient(discriminator, mixed, batch.real_labels)
        # vector_norm, unlike the root of a sum of squares, has a finite (sub)gradient at zero.
        return (torch.linalg.vector_norm(gradient, dim=1) - 1).square()


class R1(Regularizer):
    """½ E‖∇D(x)‖² at the real samples; its weight is the γ of Mescheder et al. 2018."""

    def __call__(self, discriminator: Discriminator, batch: Batch) -> Tensor:
        return input_gradient(discriminator, batch.real, batch.real_labels).square().sum(dim=1) / 2


class R2(Regularizer):
    """½ E‖∇D(G(z))‖² at the generated samples; its weight is the γ of Mescheder et al. 2018."""

    def __call__(self, discriminator: Discriminator, batch: Batch) -> Tensor:
        return input_gradient(discriminator, batch.fake, batch.fake_labels).square().sum(dim=1) / 2


def input_gradient(discriminator: Discriminator, x: Tensor, labels: Tensor | None) -> Tensor:
    """The gradient of the sum of all logits with respect to each sample, flat (B, D). It can be differentiated again.

    Unless batch normalization mixes the samples, it is the gradient of each sample's own logit. In a compiled step, the
    discriminator is not a module and computes the gradient itself.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.detach()
        x = x if x.dtype == torch.float64 else x.float()
        if not isinstance(discriminator, nn.Module):
            return discriminator.input_gradient(x, labels).flatten(1)
        x.requires_grad_()
        logits = discriminator(x) if labels is None else discriminator(x, labels)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    assert gradient.requires_grad, "the gradient lost its graph, so the penalty would train nothing"
    return gradient.flatten(1)
