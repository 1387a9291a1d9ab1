"""Both losses, one term for each sample.

They are written in terms of two callables, generator(z[, labels]) -> samples and discriminator(x[, labels]) -> logits,
so that the same arithmetic can be differentiated in several ways (gan_runner/step.py, gan_runner/functional.py).
"""

from __future__ import annotations  # torch.compile cannot evaluate the annotations of inner functions

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.augmentation import Augmentation
from gan_runner.losses import Loss
from gan_runner.networks.running import apply, pack
from gan_runner.regularizers import Batch, DiscriminatorFunction, Regularizer

Network: TypeAlias = "nn.Module | DiscriminatorFunction"
Terms = dict[str, Tensor]  # of a loss, one for each sample (B,), and the logits that they come from
Seen = tuple[Tensor, "Tensor | None"]  # what the discriminator sees, and its logits where they are known


class UpdateBatch(NamedTuple):
    """What one update is made of; labels are None where the networks are unconditional."""

    real: Tensor  # (B, *shape)
    z: Tensor  # (B, latent_dim)
    real_labels: Tensor | None = None  # (B,)
    fake_labels: Tensor | None = None  # (B,)
    uniform: Tensor | None = None  # (B, n) in [0, 1), for the penalties; None where none is due
    due: tuple[str, ...] = ()  # the penalties of this update
    real_drawn: Tensor | None = None  # (B, …) random numbers for the augmentation; None where it takes none
    fake_drawn: Tensor | None = None
    strength: Tensor | None = None  # (B,) of the augmentation
    adapted: dict[str, dict[str, Tensor]] | None = None  # the adapted numbers by key and name, each repeated to (B,)


@dataclass(frozen=True)
class Game:
    """The loss, the penalties, the augmentation, and how they are applied."""

    loss: Loss
    regularizers: Mapping[str, Regularizer] = field(default_factory=dict)
    augmentation: Augmentation | None = None  # of all that the discriminator sees
    packing: int = 1  # how many samples are one input of the discriminator
    separate: bool = False  # one optimizer step each on real and fake samples, not one on both
    concatenated: bool = False  # real and fake samples go through the discriminator as one batch
    auxiliary_weight: float | None = None  # of the class losses; None: the discriminator does not tell classes
    precision: torch.dtype = torch.float32  # of the networks; losses and penalties stay in fp32
    gradient_clip: float | None = None  # the largest norm of a network's gradient
    weight_clip: float | None = None  # each weight of the discriminator is kept within ± this

    @property
    def adaptive(self) -> dict[str, Augmentation | Regularizer]:
        """What adapts to the discriminator's logits, by its key in the configuration."""
        parts: dict[str, Augmentation | Regularizer] = {
            f"regularizer.{name}": r for name, r in self.regularizers.items()
        }
        if self.augmentation is not None:
            parts["augmentation"] = self.augmentation
        return {key: part for key, part in parts.items() if part.adapts}


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
    return terms | _penalties(game, discriminator, batch, (real, real_logits), (fake, fake_logits))


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
    return terms | _penalties(game, discriminator, batch, (_real(game, batch), None), (fake, logits))


def generator_terms(game: Game, generator: Network, discriminator: Network, batch: UpdateBatch) -> Terms:
    """The terms of the generator's loss; only a paired loss looks at real samples."""
    real_logits = None
    if game.loss.paired:
        with torch.no_grad():
            real_logits = _run(game, discriminator, _real(game, batch), batch.real_labels)
    fake = _shown(game, batch, _run(game, generator, batch.z, batch.fake_labels), batch.fake_drawn)
    of_fake = _discriminate(game, discriminator, fake, batch.fake_labels)
    fake_logits, classes = _split(game, of_fake, batch.fake_labels, "generator")
    return {"generator": game.loss.generator_term(fake_logits, real_logits)} | classes


def _real(game: Game, batch: UpdateBatch) -> Tensor:
    """The real samples, as the discriminator sees them."""
    return _shown(game, batch, batch.real, batch.real_drawn)


def _fake(game: Game, generator: Network, batch: UpdateBatch) -> Tensor:
    """Generated samples, as the discriminator sees them in its own update."""
    with torch.no_grad():
        return _shown(game, batch, _run(game, generator, batch.z, batch.fake_labels), batch.fake_drawn)


def _shown(game: Game, batch: UpdateBatch, samples: Tensor, drawn: Tensor | None) -> Tensor:
    """What the discriminator sees of samples: each augmented by itself, then packed."""
    if game.augmentation is not None:
        assert drawn is not None
        assert batch.strength is not None
        samples = game.augmentation(samples, drawn, batch.strength)
    return pack(samples, game.packing)


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


def _penalties(game: Game, discriminator: Network, batch: UpdateBatch, real: Seen, fake: Seen) -> Terms:
    """The penalties (B,) that are due, by name."""
    penalties: Terms = {}
    for name in batch.due:
        assert batch.uniform is not None
        regularizer, adapted = game.regularizers[name], (batch.adapted or {}).get(f"regularizer.{name}", {})
        samples = Batch(
            real=real[0],
            real_labels=batch.real_labels,
            fake=fake[0],
            fake_labels=batch.fake_labels,
            uniform=pack(batch.uniform[:, : regularizer.uniforms], game.packing),
            real_logits=real[1],
            fake_logits=fake[1],
            adapted={key: number[0] for key, number in adapted.items()},
        )
        penalties[name] = regularizer(discriminator, samples)
    return penalties
