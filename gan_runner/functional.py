"""The step's gradients by torch.func, on modules as functions: what can be compiled as one graph, or stacked."""

from __future__ import annotations  # torch.compile cannot evaluate the annotations of inner functions

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gan_runner.game import Game, Terms, UpdateBatch
from gan_runner.state import NETWORKS, State
from gan_runner.step import Gradients, TermsOf, computed_of, reduce

Tensors = dict[str, dict[str, dict[str, Tensor]]]  # by network, "parameters" or "buffers", and name


def by_functions(game: Game, state: State, name: str, terms_of: TermsOf, batch: UpdateBatch) -> Gradients:
    """As `gan_runner.step.by_autograd`, by `torch.func.grad`."""
    gradients, computed, buffers = _functional_gradients(game, state, name, terms_of, tensors_of(state), batch)
    _copy_buffers(state, buffers)
    return gradients, computed


def by_members(game: Game, state: State, name: str, terms_of: TermsOf, batch: UpdateBatch) -> Gradients:
    """The same for R runs whose tensors are stacked along a first dimension, and whose batches are, too."""

    def of_one(tensors: Tensors, drawn: dict[str, Any]) -> tuple[list[Tensor], Terms, Tensors]:
        return _functional_gradients(game, state, name, terms_of, tensors, batch._replace(**drawn))

    drawn = {key: value for key, value in batch._asdict().items() if isinstance(value, Tensor | dict)}
    gradients, computed, buffers = torch.vmap(of_one, randomness="different")(tensors_of(state), drawn)
    _copy_buffers(state, buffers)
    return state[name].in_layout(gradients), computed


def tensors_of(state: State) -> Tensors:
    """Both networks' parameters and buffers."""
    return {name: state[name].tensors() for name in NETWORKS}


def _functional_gradients(
    game: Game, state: State, name: str, terms_of: TermsOf, tensors: Tensors, batch: UpdateBatch
) -> tuple[list[Tensor], Terms, Tensors]:
    def loss_of(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[Terms, Tensors]]:
        held = {network: dict(kinds) for network, kinds in tensors.items()}
        held[name]["parameters"] = parameters
        networks = {network: NetworkFunction(state[network].module, **kinds) for network, kinds in held.items()}
        terms = terms_of(game, networks["generator"], networks["discriminator"], batch)
        loss, means = reduce(game, terms)
        buffers = {network: {"buffers": function.buffers} for network, function in networks.items()}
        return loss, (computed_of(terms, means), buffers)

    gradients, (computed, buffers) = torch.func.grad(loss_of, has_aux=True)(tensors[name]["parameters"])
    return list(gradients.values()), computed, buffers


class NetworkFunction:
    """A module as a function of its parameters and buffers. What it writes to its buffers it keeps as new ones."""

    def __init__(self, module: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        self.module, self.parameters, self.buffers = module, parameters, buffers

    def __call__(self, x: Tensor, labels: Tensor | None = None, **keywords: Any) -> Tensor:
        """The module's output for `x`, of an unconditional one without labels."""
        self.buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        inputs = (x,) if labels is None else (x, labels)
        return functional_call(self.module, (self.parameters, self.buffers), inputs, keywords)

    def input_gradient(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """As `gan_runner.regularizers.input_gradient`, before it is flattened."""
        before = self.buffers

        def total(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            self.buffers = before
            return self(x, labels).sum(), self.buffers

        gradient, self.buffers = torch.func.grad(total, has_aux=True)(x)
        return gradient


@torch.no_grad()
def _copy_buffers(state: State, buffers: Tensors) -> None:
    for network, kinds in buffers.items():
        for key, buffer in state[network].buffers.items():
            buffer.copy_(kinds["buffers"][key])
