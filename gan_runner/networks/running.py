"""Running a network, whatever its family."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def apply(network: Callable[..., Any], inputs: Tensor, labels: Tensor | None) -> Any:
    """The output of a network, a module or a function; an unconditional one need not know of labels."""
    return network(inputs) if labels is None else network(inputs, labels)


@contextmanager
def evaluated(network: nn.Module) -> Iterator[None]:
    """The network in eval mode while it lasts, however it ends."""
    if not network.training:  # it is already, for more than one call: switching takes as long as a small network
        yield
        return
    network.eval()
    try:
        yield
    finally:
        network.train()


@torch.no_grad()
def generate(generator: nn.Module, z: Tensor, labels: Tensor | None, device: torch.device) -> Tensor:
    """What the generator, which is on `device`, makes of CPU inputs in eval mode: float32, on the CPU."""
    with evaluated(generator):
        return apply(generator, z.to(device), None if labels is None else labels.to(device)).float().cpu()
