"""Algorithm 1 of Goodfellow et al., "Generative Adversarial Networks" (2014), as functions of tensors.

Both losses are written in terms of two callables, generator(z[, labels]) -> samples and discriminator(x[, labels]) ->
logits. So the same arithmetic runs in three ways, which differ only in who takes the gradient: autograd on the modules
(`by_autograd`), or torch.func on modules as functions, compiled as one graph or for several runs at once
(gan_runner/functional.py). Nothing here knows of configuration, files, processes or clocks.
"""

from __future__ import annotations  # torch.compile cannot evaluate the annotations of inner functions

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.augmentation import Augmentation
from gan_runner.losses import Loss
from gan_runner.networks.running import apply
from gan_runner.regularizers import Batch, DiscriminatorFunction, Regularizer
from gan_runner.state import NetworkState, State

Network: TypeAlias = "nn.Module | DiscriminatorFunction"
Terms = dict[str, Tensor]  # of a loss, one for each sample (B,), and the logits that they come from


class UpdateBatch(NamedTuple):
    """What one update is made of; labels are None where the networks are unconditional."""

    real: Tensor  # (B, *shape)
    z: Tensor  # (B, latent_dim)
    real_labels: Tensor | None = None  # (B,)
    fake_labels: Tensor | None = None  # (B,)
    uniform: Tensor | None = None  # (B,) in [0, 1), for the penalties; None where none is due
    due: tuple[str, ...] = ()  # the penalties of this update
    real_drawn: Tensor | None = None  # (B, …) random numbers for the augmentation; None where it takes none
    fake_drawn: Tensor | None = None
    strength: Tensor | None = None  # (B,) of the augmentation


class StepBatch(NamedTuple):
    """What one step is made of."""

    discriminator: Sequence[UpdateBatch]  # k of them
    generator: UpdateBatch | None  # None: the generator stays as it is


class Rates(NamedTuple):
    """What changes from step to step and is no data: floats, or scalar tensors where the step is compiled."""

    discriminator: float | Tensor  # the learning rate
    generator: float | Tensor
    average: float | Tensor = 0.0  # 1 - β of the moving average, and 1 the first time


@dataclass(frozen=True)
class Game:
    """What the two networks play for."""

    loss: Loss
    regularizers: Mapping[str, Regularizer] = field(default_factory=dict)
    augmentation: Augmentation | None = None  # of all that the discriminator sees
    separate: bool = False  # one optimizer step each on real and fake samples, not one on both
    concatenated: bool = False  # real and fake samples go through the discriminator as one batch
    auxiliary_weight: float | None = None  # of the class losses; None: the discriminator does not tell classes
    precision: torch.dtype = torch.float32  # of the networks; losses and penalties stay in fp32
    gradient_clip: float | None = None  # the largest norm of a network's gradient


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
        gradients, computed = differentiate(game, state, name, terms_of, _with_probability(state, batch))
        with torch.no_grad():
            adapts = state.adaptive and "real_logits" in computed
            if adapts:
                sign = (computed["real_logits"] - game.loss.equilibrium_logit).sign().mean(-1)
                gradients = [*gradients, sign]  # it travels with them
            if average is not None:
                gradients = average(gradients)
            if adapts:
                *gradients, computed["augmentation/sign"] = gradients
            if measure or game.gradient_clip is not None:
                gradients, computed[f"gradient_norm/{name}"] = clip(gradients, game.gradient_clip, state.members)
            state[name].optimizer.update(state[name].parameters, gradients, learning_rate)
        return computed

    computed: Terms = {}
    for update in batch.discriminator:
        for terms_of in (real_terms, fake_terms) if game.separate else (discriminator_terms,):
            computed |= descend("discriminator", terms_of, update, rates.discriminator)
        if game.augmentation is not None and state.adaptive:
            with torch.no_grad():
                game.augmentation.adapt(state.adaptive, computed["augmentation/sign"])
    if batch.generator is not None:
        computed |= descend("generator", generator_terms, batch.generator, rates.generator)
        if state.average is not None:
            with torch.no_grad():
                state.average.update(state.generator, rates.average)
    return state, computed


def _with_probability(state: State, batch: UpdateBatch) -> UpdateBatch:
    """The batch, with the probability that an augmentation that adapts has come to as its strength."""
    if not state.adaptive:
        return batch
    strength = state.adaptive["probability"][..., None].expand(batch.z.shape[:-1])  # the same for all samples
    return batch._replace(strength=strength)


# Both losses


def discriminator_terms(game: Game, generator: Network, discriminator: Network, batch: UpdateBatch) -> Terms:
    """The terms of the discriminator's loss on real and fake samples, the penalties that are due, and the logits."""
    real, fake = _real(game, batch), _fake(game, generator, batch)
    if game.concatenated:
        labels = None
        if batch.real_labels is not None and batch.fake_labels is not None:
            labels = torch.cat([batch.real_labels, batch.fake_labels])
        of_real, of_fake = _discriminate(game, discriminator, torch.cat([real, fake]), labels).chunk(2)
    else:
        of_real = _discriminate(game, discriminator, real, batch.real_labels)
        of_fake = _discriminate(game, discriminator, fake, batch.fake_labels)
    real_logits, real_classes = _split(game, of_real, batch.real_labels, "real")
    fake_logits, fake_classes = _split(game, of_fake, batch.fake_labels, "fake")
    real_term, fake_term = game.loss.discriminator_terms(real_logits, fake_logits)
    terms = {"real_logits": real_logits, "fake_logits": fake_logits}
    terms |= {"discriminator_real": real_term, "discriminator_fake": fake_term} | real_classes | fake_classes
    return terms | _penalties(game, discriminator, batch, real, fake)


def real_terms(game: Game, generator: Network, discriminator: Network, batch: UpdateBatch) -> Terms:
    """The half of the discriminator's loss on real samples."""
    of_real = _discriminate(game, discriminator, _real(game, batch), batch.real_labels)
    logits, classes = _split(game, of_real, batch.real_labels, "real")
    return {"real_logits": logits, "discriminator_real": game.loss.real(logits)} | classes


def fake_terms(game: Game, generator: Network, discriminator: Network, batch: UpdateBatch) -> Terms:
    """The half of the discriminator's loss on fake samples, and the penalties that are due."""
    fake = _fake(game, generator, batch)
    of_fake = _discriminate(game, discriminator, fake, batch.fake_labels)
    logits, classes = _split(game, of_fake, batch.fake_labels, "fake")
    terms = {"fake_logits": logits, "discriminator_fake": game.loss.fake(logits)} | classes
    return terms | _penalties(game, discriminator, batch, _real(game, batch), fake)


def generator_terms(game: Game, generator: Network, discriminator: Network, batch: UpdateBatch) -> Terms:
    """The terms of the generator's loss; only a paired loss looks at real samples."""
    real_logits = None
    if game.loss.paired:
        with torch.no_grad():
            real_logits = _run(game, discriminator, _real(game, batch), batch.real_labels)
    fake = _augment(game, batch, _run(game, generator, batch.z, batch.fake_labels), batch.fake_drawn)
    of_fake = _discriminate(game, discriminator, fake, batch.fake_labels)
    fake_logits, classes = _split(game, of_fake, batch.fake_labels, "generator")
    return {"generator": game.loss.generator_term(fake_logits, real_logits)} | classes


def _real(game: Game, batch: UpdateBatch) -> Tensor:
    """The real samples, as the discriminator sees them."""
    return _augment(game, batch, batch.real, batch.real_drawn)


def _fake(game: Game, generator: Network, batch: UpdateBatch) -> Tensor:
    """Generated samples, as the discriminator sees them in its own update."""
    with torch.no_grad():
        return _augment(game, batch, _run(game, generator, batch.z, batch.fake_labels), batch.fake_drawn)


def _augment(game: Game, batch: UpdateBatch, samples: Tensor, drawn: Tensor | None) -> Tensor:
    if game.augmentation is None:
        return samples
    assert drawn is not None
    assert batch.strength is not None
    return game.augmentation(samples, drawn, batch.strength)


def _discriminate(game: Game, discriminator: Network, inputs: Tensor, labels: Tensor | None) -> Tensor:
    """The logits (B,), or of a discriminator that tells the classes (B, 1 + K): the logit and those of the classes."""
    return _run(game, discriminator, inputs, labels, **({} if game.auxiliary_weight is None else {"classes": True}))


def _split(game: Game, outputs: Tensor, labels: Tensor | None, of: str) -> tuple[Tensor, Terms]:
    """The logits (B,), and where classes are told −log P(label) for each sample: AC-GAN (Odena et al. 2017)."""
    if game.auxiliary_weight is None:
        return outputs, {}
    assert labels is not None
    return outputs[:, 0], {f"auxiliary_{of}": F.cross_entropy(outputs[:, 1:], labels, reduction="none")}


def _run(game: Game, network: Network, inputs: Tensor, labels: Tensor | None, **keywords: bool) -> Tensor:
    if game.precision == torch.float32:
        return apply(network, inputs, labels, **keywords)
    with torch.autocast(inputs.device.type, game.precision):
        return apply(network, inputs, labels, **keywords).float()


def _penalties(game: Game, discriminator: Network, batch: UpdateBatch, real: Tensor, fake: Tensor) -> Terms:
    if not batch.due:
        return {}
    assert batch.uniform is not None
    samples = Batch(real, batch.real_labels, fake, batch.fake_labels, batch.uniform)
    return {name: game.regularizers[name](discriminator, samples) for name in batch.due}


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


def newest_penalties(batch: StepBatch, computed: Terms) -> Terms:
    """Of what `step` computed, the penalties that were due, weighted, by name."""
    return {name: computed[f"loss/{name}"] for update in batch.discriminator for name in update.due}
