"""A table of both networks, and a check that they fit the data and each other."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from gan_runner.errors import UserError
from gan_runner.networks.running import apply, pack
from gan_runner.state import State


@dataclass(frozen=True)
class Layer:
    """One layer that a batch has passed."""

    name: str
    output: str  # its shape, without the batch
    parameters: int
    multiply_adds: int  # of the whole batch; 0 for other layers than linear ones and convolutions


@dataclass(frozen=True)
class Summary:
    """Both networks, layer by layer, and how much work they are."""

    table: str
    multiply_adds: int  # of one sample on its way through both


def summarize(
    generator: nn.Module,
    discriminator: nn.Module,
    shape: tuple[int, ...],
    z: Tensor,
    labels: Tensor | None,
    packing: int = 1,
) -> Summary:
    """The layers of both networks with shapes and parameter counts, for a batch of latents `z` (B, latent_dim).

    Raises `UserError` if a network cannot take such a batch, or returns a wrong shape.
    """
    fake, layers = _traced("generator", generator, z, labels)
    _expect("generator", tuple(fake.shape), (len(z), *shape), "samples")
    logits, more_layers = _traced("discriminator", discriminator, pack(fake, packing), labels)
    _expect("discriminator", tuple(logits.shape), (len(z) // packing,), "one logit a sample")
    counted = sum(layer.multiply_adds for layer in [*layers, *more_layers]) // len(z)
    at_least = parameter_count(generator) + parameter_count(discriminator)  # of layers that are of no known kind
    table = _table({"generator": (generator, layers), "discriminator": (discriminator, more_layers)})
    return Summary(table, max(counted, at_least))


def parameter_count(network: nn.Module) -> int:
    """How many numbers the network's parameters hold."""
    return sum(p.numel() for p in network.parameters())


def memory(state: State) -> dict[str, float]:
    """The MiB of the parameters, and of the state of the optimizers."""
    moments = [m for _, network in state.networks() for m in network.optimizer.state_dict().values()]
    held: dict[str, list[Tensor]] = {
        "parameters": [p for network in (state.generator, state.discriminator) for p in network.module.parameters()],
        "optimizer_state": [v for of_parameter in moments for v in of_parameter.values() if isinstance(v, Tensor)],
    }
    return {name: sum(t.numel() * t.element_size() for t in tensors) / 2**20 for name, tensors in held.items()}


def _traced(name: str, network: nn.Module, inputs: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Layer]]:
    """What a copy of `network` returns, whose running statistics change in its place, and the layers that it passed."""
    trial = copy.deepcopy(network).train()
    layers: list[Layer] = []

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            shape, kind = " × ".join(map(str, output.shape[1:])), f"{name} {type(module).__name__}".strip()
            layers.append(Layer(kind, shape, parameter_count(module), _multiply_adds(module, inputs[0], output)))

    for layer_name, module in trial.named_modules():
        # A layer with a parametrized weight (spectral norm) has children of its own, but is still one layer.
        is_layer = not any(True for _ in module.children()) or hasattr(module, "parametrizations")
        if is_layer and ".parametrizations." not in f".{layer_name}.":
            module.register_forward_hook(partial(record, layer_name))
    try:
        with torch.no_grad():
            output = apply(trial, inputs, labels)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        given, hint = " × ".join(map(str, inputs.shape)), ""
        if labels is not None and isinstance(error, TypeError):
            given, hint = f"{given} with labels", "; does it need architecture.conditional=false?"
        raise UserError(
            f"architecture.{name}: {type(network).__name__} cannot take a batch of shape {given}: {error}{hint}"
        ) from error
    if not isinstance(output, Tensor):
        raise UserError(f"architecture.{name}: returned {type(output).__name__}, a tensor is needed")
    return output, layers


def _multiply_adds(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Of a batch in a linear layer or a convolution: each number of the output takes one row of the weight.

    In a transposed convolution, each number of the input does.
    """
    if not isinstance(module, nn.Linear | _ConvNd):
        return 0
    return (inputs if isinstance(module, _ConvTransposeNd) else output).numel() * module.weight[0].numel()


def _expect(name: str, found: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    if found != expected:
        raise UserError(f"architecture.{name}: returned the shape {found}, where {what} need {expected}")


def _table(networks: dict[str, tuple[nn.Module, list[Layer]]]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table("network", "layer", "output", box=None, pad_edge=False)
    table.add_column("parameters", justify="right")
    for name, (network, layers) in networks.items():
        for layer in layers:
            table.add_row(name, layer.name, layer.output, f"{layer.parameters:,}" if layer.parameters else "")
        mib = sum(p.numel() * p.element_size() for p in network.parameters()) / 2**20
        table.add_row(f"[bold]{name}[/]", "", f"{mib:,.2f} MiB", f"{parameter_count(network):,}", end_section=True)
    console = Console(width=100, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
