"""Algorithm 1 of Goodfellow et al., "Generative Adversarial Networks" (2014), as functions of tensors.

The losses (gan_runner/game.py) are written in terms of two callables. So the same arithmetic runs in three ways, which
differ only in who takes the gradient: autograd on the modules (`by_autograd`), or torch.func on modules as functions,
compiled as one graph or for several runs at once (gan_runner/functional.py). Nothing here knows of configuration,
files, processes or clocks.
"""

from __future__ import annotations  # torch.compile cannot evaluate the annotations of inner functions

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gan_runner.game import (
    Game,
    Network,
    Terms,
    UpdateBatch,
    discriminator_terms,
    fake_terms,
    generator_terms,
    real_terms,
)
from gan_runner.state import NetworkState, State


class StepBatch(NamedTuple):
    """What one step is made of."""

    discriminator: Sequence[UpdateBatch]  # k of them
    generator: UpdateBatch | None  # None: the generator stays as it is


class Rates(NamedTuple):
    """The numbers that change from step to step: floats, or scalar tensors where the step is compiled."""

    discriminator: float | Tensor  # the learning rate
    generator: float | Tensor
    average: float | Tensor = 0.0  # 1 - β of the moving average, and 1 the first time


# How a loss is differentiated: the gradients by parameter, and what was computed on the way, detached.
TermsOf = Callable[[Game, Network, Network, UpdateBatch], Terms]
Gradients = tuple[Sequence[Tensor], Terms]
Differentiate = Callable[[Game, State, str, TermsOf, UpdateBatch], Gradients]
# One of the ways to take a step, of which only the state, the batch, the rates and whether to measure are open.
TakeStep = Callable[[State, StepBatch, Rates, bool], "tuple[State, Terms]"]


def step(
    state: State,
    batch: StepBatch,
    rates: Rates,
    game: Game,
    measure: bool = False,
    differentiate: Differentiate | None = None,
    average: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None,
) -> tuple[State, Terms]:
    """One step of Algorithm 1: k updates of the discriminator, each on a batch of its own, then one of the generator.

    Returns the state, whose tensors are updated in place, and what was computed: the logits and losses of the last
    updates, and with `measure` the norm of each network's gradient. `differentiate` is `by_autograd` unless given;
    `average` takes the mean of gradients over the processes that share the batch.
    """
    differentiate = differentiate or by_autograd

    def descend(name: str, terms_of: TermsOf, batch: UpdateBatch, learning_rate: float | Tensor) -> Terms:
        """Descends one loss by one step of the network's optimizer."""
        gradients, computed = differentiate(game, state, name, terms_of, _with_adapted(state, batch))
        with torch.no_grad():
            means = logit_means(game, computed) if state.adaptive else {}
            if average is not None:  # the means travel with the gradients
                averaged = average([*gradients, *means.values()])
                gradients, means = averaged[: len(gradients)], dict(zip(means, averaged[len(gradients) :], strict=True))
            computed |= means
            if measure or game.gradient_clip is not None:
                gradients, computed[f"gradient_norm/{name}"] = clip(gradients, game.gradient_clip, state.members)
            state[name].optimizer.update(state[name].parameters, gradients, learning_rate)
            if name == "discriminator" and game.weight_clip is not None:
                clip_weights(state.discriminator.parameters, game.weight_clip)
        return computed

    computed: Terms = {}
    for update in batch.discriminator:
        for terms_of in (real_terms, fake_terms) if game.separate else (discriminator_terms,):
            computed |= descend("discriminator", terms_of, update, rates.discriminator)
        with torch.no_grad():
            for key, numbers in state.adaptive.items():
                game.adaptive[key].adapt(numbers, computed)
    if batch.generator is not None:
        computed |= descend("generator", generator_terms, batch.generator, rates.generator)
        if state.average is not None:
            with torch.no_grad():
                state.average.update(state.generator, rates.average)
    return state, computed


def logit_means(game: Game, computed: Terms) -> Terms:
    """What an augmentation or a regularizer may adapt to: means over the batch, of each member."""
    means: Terms = {}
    if (real := computed.get("real_logits")) is not None:
        means |= {"mean/real": real.mean(-1), "mean/sign": (real - game.loss.equilibrium_logit).sign().mean(-1)}
    if (fake := computed.get("fake_logits")) is not None:
        means["mean/fake"] = fake.mean(-1)
    return means


def _with_adapted(state: State, batch: UpdateBatch) -> UpdateBatch:
    """The batch, with the numbers that have been adapted, the same for each sample."""
    if not state.adaptive:
        return batch
    adapted = {
        key: {name: number[..., None].expand(batch.z.shape[:-1]) for name, number in numbers.items()}
        for key, numbers in state.adaptive.items()
    }
    if "augmentation" in adapted:
        batch = batch._replace(strength=adapted["augmentation"]["probability"])
    return batch._replace(adapted=adapted)


# Their gradients


def by_autograd(game: Game, state: State, name: str, terms_of: TermsOf, batch: UpdateBatch) -> Gradients:
    """The gradients of a loss with respect to the parameters of network `name`, by autograd on the modules."""
    return gradients_of(game, state[name], terms_of(game, state.generator.module, state.discriminator.module, batch))


def gradients_of(game: Game, network: NetworkState, terms: Terms) -> Gradients:
    """The gradient of the loss that these terms add up to, by autograd."""
    loss, means = reduce(game, terms)
    gradients = torch.autograd.grad(loss, network.parameters, allow_unused=True, materialize_grads=True)
    return network.in_layout(gradients), computed_of(terms, means)


def reduce(game: Game, terms: Terms) -> tuple[Tensor, Terms]:
    """The loss, a scalar, and what it is the sum of: the mean of each term, of class losses and penalties weighted.

    A penalty that is applied at every `interval`-th update counts `interval` times, which makes it as strong as if it
    were applied at each (StyleGAN2, appendix B).
    """
    losses = ("discriminator_real", "discriminator_fake", "generator")
    means = {name: terms[name].mean() for name in losses if name in terms}
    loss, *others = means.values()
    for other in others:
        loss = loss + other
    if game.auxiliary_weight is not None:
        for name in ("auxiliary_real", "auxiliary_fake", "auxiliary_generator"):
            if name in terms:
                means[name] = game.auxiliary_weight * terms[name].mean()
                loss = loss + means[name]
    for name, regularizer in game.regularizers.items():
        if name in terms:
            means[name] = regularizer.weight * terms[name].mean()
            loss = loss + regularizer.interval * means[name]
    return loss, {f"loss/{name}": mean for name, mean in means.items()}


def computed_of(terms: Terms, means: Terms) -> Terms:
    """What is kept of a loss: its logits and means."""
    logits = {key: terms[key] for key in ("real_logits", "fake_logits") if key in terms}
    return {key: tensor.detach() for key, tensor in (logits | means).items()}


def clip(
    gradients: Sequence[Tensor], limit: float | None, members: int | None = None
) -> tuple[Sequence[Tensor], Tensor]:
    """Gradients scaled down to a norm of at most `limit` over all of them, and their norm before; of each member."""
    if members is not None:
        clipped, norm = torch.vmap(lambda *g: clip(g, limit))(*gradients)
        return clipped, norm
    if torch.compiler.is_compiling():  # the same, in fewer kernels
        norm = functools.reduce(torch.add, [g.square().sum() for g in gradients]).sqrt()
    else:
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    if limit is None:
        return gradients, norm
    factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
    return [gradient * factor for gradient in gradients], norm


def clip_weights(weights: Sequence[Tensor], limit: float) -> None:
    """Clamps each weight to [−limit, limit], which keeps the critic Lipschitz (Arjovsky et al. 2017, algorithm 1)."""
    for weight in weights:
        weight.clamp_(-limit, limit)


def newest_penalties(batch: StepBatch, computed: Terms) -> Terms:
    """Of what `step` computed, the penalties that were due, weighted, by name."""
    return {name: computed[f"loss/{name}"] for update in batch.discriminator for name in update.due}
