"""Running a network of any family."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def apply(network: Callable[..., Any], inputs: Tensor, labels: Tensor | None, **keywords: Any) -> Any:
    """The output of a network, a module or a function. An unconditional one need not have a parameter for labels."""
    return network(inputs, **keywords) if labels is None else network(inputs, labels, **keywords)


def pack(x: Tensor, packing: int) -> Tensor:
    """So many samples in a row as one input (PacGAN, Lin et al. 2018): (B, C, ...) -> (B / m, m·C, ...)."""
    return x if packing == 1 else x.reshape(len(x) // packing, packing * x.shape[1], *x.shape[2:])


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Puts the network in eval mode inside the block."""
    if not network.training:  # switching takes as long as running a small network
        yield
        return
    network.eval()
    try:
        yield
    finally:
        network.train()


@torch.no_grad()
def generate(generator: nn.Module, z: Tensor, labels: Tensor | None, device: torch.device) -> Tensor:
    """The output (float32, on the CPU) of a generator on `device` in eval mode, for inputs on the CPU."""
    with eval_mode(generator):
        return apply(generator, z.to(device), None if labels is None else labels.to(device)).float().cpu()
