"""Penalties of the discriminator, one for each sample; the loss gets their mean times `weight`.

As in the papers, D(x) is the logit here, and no normalization in D may mix the samples of a batch.

Those of gradients are computed in fp32 even under autocast: squared gradients leave the range of half precision.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, ClassVar, NamedTuple, Protocol

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn


class DiscriminatorFunction(Protocol):
    """A discriminator as a function of tensors."""

    def __call__(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, *shape), (B,) -> logits (B,)."""

    def input_gradient(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The gradient of the sum of all logits with respect to `x`, of its shape."""


Discriminator = nn.Module | DiscriminatorFunction


class Batch(NamedTuple):
    """What a regularizer gets. Under packing, a sample is a pack, which has as many random numbers as its samples."""

    real: Tensor  # (B, *shape)
    real_labels: Tensor | None  # (B,), None where the discriminator is unconditional
    fake: Tensor  # (B, *shape)
    fake_labels: Tensor | None
    uniform: Tensor  # (B, uniforms) random numbers in [0, 1)
    real_logits: Tensor | None = None  # (B,), None where real and fake samples are taken in turn
    fake_logits: Tensor | None = None
    adapted: Mapping[str, Tensor] = MappingProxyType({})  # the numbers that it adapts, scalars


class Regularizer:
    """A penalty, added to the discriminator's loss at every `interval`-th update, `weight · interval` times."""

    uniforms: int = 0  # how many random numbers it takes for each sample
    paired: ClassVar[bool] = False
    """Whether it needs the logits of real and fake samples together."""
    adapts: ClassVar[Sequence[str]] = ()
    """The numbers, 0 at first, that `adapt` changes."""

    def __init__(self, weight: NonNegativeFloat, interval: PositiveInt) -> None:
        self.weight, self.interval = weight, interval

    def __call__(self, discriminator: Discriminator, batch: Batch) -> Tensor:
        """The penalties (B,), without `weight`."""
        raise NotImplementedError

    def adapt(self, state: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> None:
        """Changes `state`, after an update of the discriminator; "mean/real" and "mean/fake" are of its logits."""


class GradientPenalty(Regularizer):
    """E(‖∇D(x̂)‖ − 1)² at x̂ = u·x + (1 − u)·G(z): the penalty of WGAN-GP (Gulrajani et al. 2017).

    x̂ carries the label of its real sample.
    """

    uniforms = 1

    def __call__(self, discriminator: Discriminator, batch: Batch) -> Tensor:
        """A sample whose gradient is zero contributes 1 and no gradient."""
        u = batch.uniform[:, 0].view(-1, *[1] * (batch.real.ndim - 1))  # (B, 1, ...)
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


class DRAGAN(Regularizer):
    """E(‖∇D(x̂)‖ − 1)² around the real samples, at x̂ = x + α·scale·σ·u (Kodali et al. 2017).

    α is a number for each sample and u one for each of its values, all uniform in [0, 1), as in the authors' code; σ is
    the standard deviation of the data. x̂ carries the label of x.
    """

    def __init__(
        self,
        weight: NonNegativeFloat,
        interval: PositiveInt,
        scale: PositiveFloat,
        shape: Sequence[int],
        data_std: float,
    ) -> None:
        super().__init__(weight, interval)
        self.reach = scale * data_std
        self.uniforms = 1 + math.prod(shape)

    def __call__(self, discriminator: Discriminator, batch: Batch) -> Tensor:
        numbers = batch.uniform.unflatten(1, (-1, self.uniforms))  # (B, 1, uniforms), or of each sample of a pack
        noise = numbers[..., :1] * numbers[..., 1:]
        around = batch.real + self.reach * noise.reshape(batch.real.shape)
        gradient = input_gradient(discriminator, around, batch.real_labels)
        return (torch.linalg.vector_norm(gradient, dim=1) - 1).square()


class LeCam(Regularizer):
    """E(D(x) − α_F)² + E(D(G(z)) − α_R)², for little data (Tseng et al. 2021, arXiv:2104.03310, equation 7).

    α_R and α_F are moving averages of the logits of real and of fake samples: α ← decay · α + (1 − decay) · mean. The
    authors' code squares max(0, D(x) − α_F) and max(0, α_R − D(G(z))), with averages that include this update, and
    begins later in the run.
    """

    paired = True
    adapts = ("real", "fake")

    def __init__(
        self, weight: NonNegativeFloat, interval: PositiveInt, decay: Annotated[float, Field(ge=0, lt=1)]
    ) -> None:
        super().__init__(weight, interval)
        self.decay = decay

    def __call__(self, discriminator: Discriminator, batch: Batch) -> Tensor:
        """By the averages of the updates before."""
        assert batch.real_logits is not None
        assert batch.fake_logits is not None
        of_real = (batch.real_logits - batch.adapted["fake"]).square()
        return of_real + (batch.fake_logits - batch.adapted["real"]).square()

    def adapt(self, state: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> None:
        for name in self.adapts:
            state[name].lerp_(means[f"mean/{name}"].to(state[name].dtype), 1 - self.decay)


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
