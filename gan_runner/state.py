"""What a step changes, by name: weights, buffers, moments, the average, penalties …  To and from a checkpoint."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner.optimizers import Optimizer, like
from gan_runner.tensor_files import Kept

NETWORKS = ("generator", "discriminator")


class NetworkState:
    """A network, the tensors that training changes, and the optimizer that does so."""

    def __init__(self, module: nn.Module, optimizer: Optimizer | None) -> None:
        self.module = module
        self._optimizer = optimizer
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters: list[Tensor] = [p for _, p in named]
        self.buffers: dict[str, Tensor] = dict(module.named_buffers())
        self._formats = [torch.contiguous_format if p.is_contiguous() else torch.channels_last for p in self.parameters]

    @property
    def is_trained(self) -> bool:
        """Whether there is anything to train."""
        return self._optimizer is not None

    @property
    def optimizer(self) -> Optimizer:
        """What updates its parameters."""
        assert self._optimizer is not None, "a network without parameters has no optimizer"
        return self._optimizer

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Its parameters and its buffers, by name."""
        return {"parameters": dict(zip(self.names, self.parameters, strict=True)), "buffers": self.buffers}

    def in_layout(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients with their parameters' layout in memory, which optimizers take for granted."""
        return [
            g if g.is_contiguous(memory_format=layout) else like(p, g)
            for g, p, layout in zip(gradients, self.parameters, self._formats, strict=True)
        ]


class MovingAverage:
    """A network's exponential moving average, w̄ ← β w̄ + (1 − β) w, which begins as the w of the first update.

    Buffers, such as the statistics of batch normalization, are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(network)
        self.decay = decay
        self.updates = 0
        self.parameters: list[Tensor] = [p for p in self.module.parameters() if p.requires_grad]
        self.buffers: dict[str, Tensor] = dict(self.module.named_buffers())

    def next_weight(self) -> float:
        """The weight of w in the update that comes now: 1 − β, and 1 the first time."""
        self.updates += 1
        return 1.0 if self.updates == 1 else 1 - self.decay

    def skip(self) -> None:
        """The update that was to come is not made."""
        self.updates -= 1

    def update(self, network: NetworkState, weight: float | Tensor) -> None:
        """Takes in the network as it is now."""
        if isinstance(weight, Tensor):  # in a compiled step, which would be compiled anew for another number
            for average, parameter in zip(self.parameters, network.parameters, strict=True):
                average.lerp_(parameter, weight.to(parameter.dtype))
        else:
            torch._foreach_lerp_(self.parameters, network.parameters, weight)
        for name, buffer in self.buffers.items():
            buffer.copy_(network.buffers[name])

    def state_dict(self) -> Kept:
        """As a checkpoint has it."""
        kept = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        return {"n_averaged": torch.tensor(self.updates), **kept}

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Goes back to what `state_dict` returned."""
        self.module.load_state_dict(_of_module(kept))
        self.updates = int(kept["n_averaged"])


class State:
    """Both networks, the average of the generator where there is one, and the newest value of each penalty."""

    def __init__(
        self, generator: NetworkState, discriminator: NetworkState, average: MovingAverage | None = None
    ) -> None:
        self.generator, self.discriminator, self.average = generator, discriminator, average
        self.penalties: dict[str, Tensor] = {}  # weighted means; a lazy one is not computed at each step
        self.adaptive: dict[str, dict[str, Tensor]] = {}  # what augmentation and penalties adapt, by key and name
        self.step = 0  # how many steps were taken
        self.members: int | None = None  # how many runs are stacked; None: this is one
        self.evolution: list[Tensor] = []  # for vectors: one sample from fixed noise at each sampled step

    def __getitem__(self, name: str) -> NetworkState:
        return {"generator": self.generator, "discriminator": self.discriminator}[name]

    def networks(self) -> Iterator[tuple[str, NetworkState]]:
        """The networks that are trained, by name."""
        return ((name, self[name]) for name in NETWORKS if self[name].is_trained)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that a step changes."""
        for network in (self.generator, self.discriminator):
            yield from network.parameters
            yield from network.buffers.values()
        for _, network in self.networks():
            for moments in network.optimizer.state_dict().values():
                yield from moments.values()
        if self.average is not None:
            yield from self.average.parameters
            yield from self.average.buffers.values()
        for numbers in self.adaptive.values():
            yield from numbers.values()

    @property
    def sampled(self) -> nn.Module:
        """The generator to sample from: the average, where there is one."""
        return self.generator.module if self.average is None else self.average.module

    def to_checkpoint(self) -> Kept:
        """Everything that the next step depends on and that is not a function of (seed, step)."""
        kept: Kept = {
            "generator": self.generator.module.state_dict(),
            "discriminator": self.discriminator.module.state_dict(),
            "optimizer": {name: network.optimizer.state_dict() for name, network in self.networks()},
            "penalties": self.penalties,
        }
        if self.average is not None:
            kept["ema"] = self.average.state_dict()
        if self.adaptive:
            kept["adaptive"] = self.adaptive
        if self.evolution:
            kept["evolution"] = torch.stack(self.evolution)
        return kept

    def load_weights(self, kept: Kept) -> None:
        """Takes the weights of a checkpoint; KeyError, RuntimeError … where they are another architecture's."""
        self.generator.module.load_state_dict(kept.get("generator", {}))
        self.discriminator.module.load_state_dict(kept["discriminator"])
        if self.average is not None and "ema" in kept:
            self.average.load_state_dict(kept["ema"])
        elif self.average is not None:  # of a run without one, from which this one is forked
            self.average.module.load_state_dict(kept.get("generator", {}))

    def load_progress(self, kept: Kept, step: int) -> None:
        """Takes the rest: moments, penalties, and the step after which it was written. Errors as of `load_weights`."""
        for name, network in self.networks():
            moments = kept.get("optimizer", {}).get(name, {})
            network.optimizer.load_state_dict({int(i): moment for i, moment in moments.items()})
        self.penalties = {name: penalty.to(self.device) for name, penalty in kept.get("penalties", {}).items()}
        for key, numbers in self.adaptive.items():
            for name, number in numbers.items():
                number.copy_(kept["adaptive"][key][name])
        self.evolution = list(kept.get("evolution", []))
        self.step = step

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.discriminator.parameters[0].device


def stack(states: Sequence[State]) -> State:
    """One state of several runs alike, whose tensors are stacked along a new first dimension.

    Its modules are those of the first run and serve as functions alone: none of them holds the stacked weights.
    """
    first = states[0]
    generator, discriminator = (_stack_networks([state[name] for state in states]) for name in NETWORKS)
    stacked = State(generator, discriminator, copy.copy(first.average))
    stacked.members, stacked.step = len(states), first.step
    stacked.adaptive = {key: _stack_named([state.adaptive[key] for state in states]) for key in first.adaptive}
    averages = [state.average for state in states if state.average is not None]
    if stacked.average is not None:
        stacked.average.parameters = _stack([average.parameters for average in averages])
        stacked.average.buffers = _stack_named([average.buffers for average in averages])
    return stacked


def _stack_networks(networks: Sequence[NetworkState]) -> NetworkState:
    stacked = copy.copy(networks[0])
    stacked.parameters = _stack([network.parameters for network in networks])
    stacked.buffers = _stack_named([network.buffers for network in networks])
    if stacked.is_trained:
        stacked._optimizer = stacked.optimizer.stack([network.optimizer for network in networks])
    return stacked


def _stack(of_members: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack([t.detach() for t in tensors]) for tensors in zip(*of_members, strict=True)]


def _stack_named(of_members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([tensors[name] for tensors in of_members]) for name in of_members[0]}


def weights_to_sample(kept: Kept) -> Kept:
    """The generator's weights in a checkpoint; those of its moving average, where there is one."""
    return _of_module(kept["ema"]) if "ema" in kept else kept["generator"]


def _of_module(kept: Mapping[str, Any]) -> Kept:
    return {name.removeprefix("module."): t for name, t in kept.items() if name.startswith("module.")}
