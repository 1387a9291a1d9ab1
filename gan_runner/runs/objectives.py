"""What each network descends, per sample, as functions of tensors: modules, so that several GPUs can share a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner.config.schema import Trainer as Settings
from gan_runner.networks.running import apply
from gan_runner.regularizers import Batch
from gan_runner.runs.building import Parts


class Objective(nn.Module):
    """Both networks and the loss they play for, in the precision asked for and compiled where asked."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        super().__init__()
        self.generator, self.discriminator = parts.generator, parts.discriminator
        self.loss, self.regularizers = parts.loss, parts.regularizers
        self.precision = settings.precision
        self.concatenated = settings.discriminator_forward == "concatenated"
        run: Callable[..., Any] = torch.compile(apply) if settings.compile else apply
        self.run = run

    def generate(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """G(z), (B, *shape)."""
        with self.autocast(z):
            return self.run(self.generator, z, labels).float()

    def judge(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The logits of `x`, (B,)."""
        with self.autocast(x):
            return self.run(self.discriminator, x, labels).float()

    def autocast(self, x: Tensor) -> torch.autocast:
        """bf16 for the networks; losses, penalties and weights stay in fp32."""
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16")


class DiscriminatorObjective(Objective):
    """The discriminator's terms on a batch of real samples and one of latents."""

    def forward(
        self,
        real: Tensor,
        real_labels: Tensor | None,
        z: Tensor,
        fake_labels: Tensor | None,
        uniform: Tensor | None,
        sides: Sequence[str],
        penalties: Sequence[str],
    ) -> dict[str, Tensor]:
        """The terms of the `sides` ("real", "fake"), their logits and the unweighted `penalties`, (B,) each."""
        terms: dict[str, Tensor] = {}
        if "fake" in sides:
            with torch.no_grad():
                fake = self.generate(z, fake_labels)
        if "real" in sides and "fake" in sides and self.concatenated:
            labels = None if real_labels is None or fake_labels is None else torch.cat([real_labels, fake_labels])
            terms["real_logits"], terms["fake_logits"] = self.judge(torch.cat([real, fake]), labels).chunk(2)
        else:
            if "real" in sides:
                terms["real_logits"] = self.judge(real, real_labels)
            if "fake" in sides:
                terms["fake_logits"] = self.judge(fake, fake_labels)
        if "real" in sides and "fake" in sides:
            real_term, fake_term = self.loss.discriminator_terms(terms["real_logits"], terms["fake_logits"])
            terms |= {"discriminator_real": real_term, "discriminator_fake": fake_term}
        elif "real" in sides:
            terms["discriminator_real"] = self.loss.real(terms["real_logits"])
        else:
            terms["discriminator_fake"] = self.loss.fake(terms["fake_logits"])
        for name in penalties:
            # The uncompiled discriminator: a compiled one has no double backward.
            assert uniform is not None
            batch = Batch(real, real_labels, fake, fake_labels, uniform)
            terms[name] = self.regularizers[name](self.discriminator, batch).expand(len(real))
        return terms


class GeneratorObjective(Objective):
    """The generator's term on a batch of latents."""

    def forward(
        self, real: Tensor, real_labels: Tensor | None, z: Tensor, fake_labels: Tensor | None
    ) -> dict[str, Tensor]:
        """The term "generator", (B,); real samples are looked at by a paired loss alone."""
        real_logits = None
        if self.loss.paired:
            with torch.no_grad():
                real_logits = self.judge(real, real_labels)
        fake_logits = self.judge(self.generate(z, fake_labels), fake_labels)
        return {"generator": self.loss.generator_term(fake_logits, real_logits)}
