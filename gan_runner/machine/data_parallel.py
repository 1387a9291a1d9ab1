"""A step on several GPUs of one process: nn.DataParallel as one more way to take the gradient."""

from collections.abc import Sequence

import torch
from torch import nn

from gan_runner.state import State
from gan_runner.step import Differentiate, Game, Gradients, Terms, TermsOf, UpdateBatch, gradients_of


class Replica(nn.Module):
    """Both networks in one module, so that each GPU gets a copy of both, and penalties are computed inside of it."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.generator, self.discriminator = state.generator.module, state.discriminator.module

    def forward(self, terms_of: TermsOf, game: Game, batch: UpdateBatch) -> Terms:
        """The terms of this GPU's part of the batch, which DataParallel gathers."""
        return terms_of(game, self.generator, self.discriminator, batch)


def by_data_parallel(state: State, devices: Sequence[torch.device | int]) -> Differentiate:
    """`gan_runner.step.by_autograd` with each batch shared out over these devices."""
    parallel = nn.DataParallel(Replica(state), device_ids=list(devices))

    def differentiate(game: Game, state: State, name: str, terms_of: TermsOf, batch: UpdateBatch) -> Gradients:
        return gradients_of(game, state[name], parallel(terms_of, game, batch))

    return differentiate
