"""Adversarial losses: arithmetic on logits that returns one term for each sample, without averaging them.

D(x) = σ(logit) is a probability. The discriminator minimizes the sum of its real and its fake term.
"""

import math
from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor


class Loss:
    """The terms of one adversarial loss. Subclasses define `real`, `fake` and `generator`, each (B,) -> (B,)."""

    equilibrium_logit: float = 0.0
    """The logit where the discriminator cannot tell real from fake."""
    real_target: float = 1.0
    """The best D(x) where p_g is 0; below 1 where labels are smoothed."""
    anchored: ClassVar[bool] = True
    """Whether a logit above `equilibrium_logit` calls a sample real; False where only differences of logits count."""
    density_ratio: ClassVar[bool] = False
    """Whether the optimal σ(logit) is p_data / (p_data + p_g), times `real_target`."""
    paired: ClassVar[bool] = False
    """Whether each term needs the logits of real and fake samples together."""

    def real(self, logits: Tensor) -> Tensor:
        """The discriminator's terms for the logits of real samples."""
        raise NotImplementedError

    def fake(self, logits: Tensor) -> Tensor:
        """The discriminator's terms for the logits of generated samples."""
        raise NotImplementedError

    def generator(self, fake_logits: Tensor) -> Tensor:
        """The generator's terms for the logits of its samples."""
        raise NotImplementedError

    def discriminator_terms(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """The real and the fake terms, (B,) each, whose sum the discriminator minimizes."""
        return self.real(real_logits), self.fake(fake_logits)

    def generator_term(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """The terms (B,) that the generator minimizes; only a paired loss reads `real_logits`."""
        return self.generator(fake_logits)


class Minimax(Loss):
    """L_D = −E log D(x) − E log(1 − D(G(z))), L_G = E log(1 − D(G(z))): the saturating loss (Goodfellow et al. 2014).

    The generator's gradient with respect to the logit is −D(G(z)): it vanishes while the discriminator wins.

    `label_smoothing` s is one-sided (Salimans et al. 2016, section 3.4): of real samples D(x) is to be 1 − s, so that
    the best D is (1 − s) p_data / (p_data + p_g).
    """

    density_ratio = True
    label_smoothing = 0.0  # of a subclass without it

    def __init__(self, label_smoothing: Annotated[float, Field(ge=0, lt=1)] | None = None) -> None:
        # Runs of earlier versions lack the key.
        self.label_smoothing = label_smoothing or 0.0
        self.real_target = 1 - self.label_smoothing
        self.equilibrium_logit = math.log(self.real_target / (1 + self.label_smoothing))

    def real(self, logits: Tensor) -> Tensor:
        """−(1 − s) log D(x) − s log(1 − D(x)), which is −log D(x) + s·l."""
        terms = F.softplus(-logits)
        return terms + self.label_smoothing * logits if self.label_smoothing else terms

    def fake(self, logits: Tensor) -> Tensor:
        """−log(1 − D(G(z)))."""
        return F.softplus(logits)

    def generator(self, fake_logits: Tensor) -> Tensor:
        """log(1 − D(G(z)))."""
        return -F.softplus(fake_logits)


class NonSaturating(Minimax):
    """L_D as in minimax, L_G = −E log D(G(z)) (Goodfellow et al. 2014, section 3)."""

    def generator(self, fake_logits: Tensor) -> Tensor:
        """−log D(G(z))."""
        return F.softplus(-fake_logits)


class LSGAN(Loss):
    """L_D = E(l(x) − 1)² + E l(G(z))², L_G = E(l(G(z)) − 1)² on the logits l (Mao et al. 2017, without its ½)."""

    equilibrium_logit = 0.5

    def real(self, logits: Tensor) -> Tensor:
        """(l(x) − 1)²."""
        return (logits - 1).square()

    def fake(self, logits: Tensor) -> Tensor:
        """l(G(z))²."""
        return logits.square()

    def generator(self, fake_logits: Tensor) -> Tensor:
        """(l(G(z)) − 1)²."""
        return (fake_logits - 1).square()


class LSGANProbability(Loss):
    """L_D = E(D(x) − 1)² + E D(G(z))², L_G = E(D(G(z)) − 1)²: least squares under a sigmoid.

    Both gradients vanish where D is sure, also where it is wrong.
    """

    density_ratio = True

    def real(self, logits: Tensor) -> Tensor:
        """(D(x) − 1)², which is σ(−l)²."""
        return F.sigmoid(-logits).square()

    def fake(self, logits: Tensor) -> Tensor:
        """D(G(z))²."""
        return F.sigmoid(logits).square()

    def generator(self, fake_logits: Tensor) -> Tensor:
        """(D(G(z)) − 1)²."""
        return F.sigmoid(-fake_logits).square()


class Wasserstein(Loss):
    """L_D = −E l(x) + E l(G(z)), L_G = −E l(G(z)) (Arjovsky et al. 2017).

    A regularizer, or clipped weights, must keep the critic l Lipschitz; without either, L_D falls without bound.
    """

    anchored = False

    def real(self, logits: Tensor) -> Tensor:
        """−l(x)."""
        return -logits

    def fake(self, logits: Tensor) -> Tensor:
        """l(G(z))."""
        return logits

    def generator(self, fake_logits: Tensor) -> Tensor:
        """−l(G(z))."""
        return -fake_logits


class Hinge(Wasserstein):
    """L_D = E max(0, 1 − l(x)) + E max(0, 1 + l(G(z))), L_G = −E l(G(z)) (Lim & Ye 2017, Miyato et al. 2018)."""

    anchored = True

    def real(self, logits: Tensor) -> Tensor:
        """max(0, 1 − l(x))."""
        return F.relu(1 - logits)

    def fake(self, logits: Tensor) -> Tensor:
        """max(0, 1 + l(G(z)))."""
        return F.relu(1 + logits)


class Relativistic(Loss):
    """L_D = E softplus(−(l(x) − l(G(z)))), L_G = E softplus(−(l(G(z)) − l(x))): RpGAN (Jolicoeur-Martineau 2019).

    With R1 and R2 it is the loss of R3GAN (Huang et al. 2024). Half of each term is reported
    as the real term, half as the fake one.
    """

    paired = True
    anchored = False

    def discriminator_terms(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Twice ½ softplus(l(G(z)) − l(x))."""
        half = F.softplus(fake_logits - real_logits) / 2
        return half, half

    def generator_term(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """softplus(l(x) − l(G(z)))."""
        assert real_logits is not None, "a paired loss needs the logits of real samples"
        return F.softplus(real_logits - fake_logits)
