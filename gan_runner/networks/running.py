"""Running a network, whatever its family."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def apply(network: nn.Module, inputs: Tensor, labels: Tensor | None) -> Any:
    """The network's output; an unconditional network need not know of labels."""
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
