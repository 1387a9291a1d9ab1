"""Losses, scores and gradient norms, in all processes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gan_runner.game import Game
from gan_runner.observers.base import Moment, NotFinite, Observer
from gan_runner.state import State


@dataclass
class Losses(Observer):
    """Adds the step's losses to the row, as means over the processes. Raises `NotFinite` in all of them."""

    state: State
    game: Game
    mean: Callable[[Tensor], Tensor]

    def __call__(self, moment: Moment) -> None:
        figures = self.figures(moment.computed)
        values = self.mean(torch.stack([figure.float().reshape(()) for figure in figures.values()])).tolist()
        for tag, value in zip(figures, values, strict=True):
            if not math.isfinite(value):
                raise NotFinite(f"{tag} is {value}")
            moment.row[tag] = value

    def figures(self, computed: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is logged, by tag, still on the device."""
        real, fake = computed["real_logits"], computed["fake_logits"]
        penalties = self.state.penalties
        tags = [f"loss/{kind}_{of}" for kind in ("discriminator", "auxiliary") for of in ("real", "fake")]
        of_discriminator = {tag: computed[tag] for tag in tags if tag in computed}
        of_discriminator |= {f"loss/{name}": penalties[name] for name in self.game.regularizers if name in penalties}
        total = torch.stack([term.float() for term in of_discriminator.values()]).sum()
        figures = {"loss/discriminator": total, **of_discriminator}
        figures |= {tag: computed[tag] for tag in ("loss/generator", "loss/auxiliary_generator") if tag in computed}
        figures |= {"score/real": real.sigmoid().mean(), "score/fake": fake.sigmoid().mean()}
        if self.game.loss.density_ratio and self.game.loss.real_target == 1 and self.game.packing == 1:
            # V = E log D(x) + E log(1 - D(G(z))) <= -log 4 + 2 JSD, with equality at the best D (Goodfellow, Theorem 1)
            value = logsigmoid(real).mean() + logsigmoid(-fake).mean()
            figures["divergence/jsd_estimate"] = (value + math.log(4)) / 2
        figures |= {tag: norm for tag, norm in computed.items() if tag.startswith("gradient_norm/")}
        if (adapted := self.state.adaptive.get("augmentation")) is not None:
            figures |= {"augmentation/sign": computed["mean/sign"], "augmentation/probability": adapted["probability"]}
        logits = torch.cat([real, fake])
        return figures | {"logits/std": logits.std(), "logits/gap": (real.mean() - fake.mean()).abs()}
