"""The gradient on several GPUs of one process, by nn.DataParallel."""

from collections.abc import Sequence

import torch
from torch import nn

from gan_runner.game import Game, Terms, UpdateBatch
from gan_runner.state import State
from gan_runner.step import Differentiate, Gradients, TermsOf, gradients_of


class Replica(nn.Module):
    """Both networks in one module, so that each GPU gets a copy of both and computes its penalties inside `forward`."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.generator, self.discriminator = state.generator.module, state.discriminator.module

    def forward(self, terms_of: TermsOf, game: Game, batch: UpdateBatch) -> Terms:
        """The terms of one GPU's part of the batch; DataParallel gathers them."""
        return terms_of(game, self.generator, self.discriminator, batch)


def by_data_parallel(state: State, devices: Sequence[torch.device | int]) -> Differentiate:
    """A `gan_runner.step.by_autograd` that splits each batch over the devices."""
    parallel = nn.DataParallel(Replica(state), device_ids=list(devices))

    def differentiate(game: Game, state: State, name: str, terms_of: TermsOf, batch: UpdateBatch) -> Gradients:
        return gradients_of(game, state[name], parallel(terms_of, game, batch))

    return differentiate
