"""What a step applies to parameters and gradients: torch's optimizers as functions, and any other by its own `step()`.

As a function, an optimizer can be compiled into the step, and costs less: making an object of torch.optim imports
torch._dynamo (2 s), and its bookkeeping in Python takes a fifth of a small network's step. The arithmetic is torch's.
"""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

Moments = dict[str, list[Tensor]]  # by name, one for each parameter
# As in torch's state_dict()["state"]: by the number of the parameter, then by name. Under -1, -2, … stands what an
# optimizer keeps of its first, second, … group of parameters.
StateOf = dict[int, dict[str, Any]]


class Optimizer(ABC):
    """Updates parameters in place."""

    kind: str  # the class that was chosen
    learning_rate: float  # as configured, before any schedule
    as_function: ClassVar[bool]  # whether it can be compiled and stacked

    @abstractmethod
    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        """One step down the gradients."""

    @abstractmethod
    def stack(self, members: Sequence["Optimizer"]) -> "Optimizer":
        """One optimizer of the stacked parameters of several runs; TypeError where it is no function."""

    @abstractmethod
    def state_dict(self) -> StateOf:
        """What the next update depends on."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[int, Mapping[str, Any]]) -> None:
        """Goes back to what `state_dict` returned; ValueError or KeyError where it belongs to other parameters."""


class OwnStep(Optimizer):
    """Any class of torch.optim, or of a user's own, by its `step()`."""

    as_function = False

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.kind = optimizer, type(optimizer).__name__
        self.learning_rate = optimizer.param_groups[0]["lr"]

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        with torch.enable_grad():  # as its author expects
            self.optimizer.step()

    def stack(self, members: Sequence[Optimizer]) -> Optimizer:
        raise TypeError(f"{self.kind} is no function of tensors, which could be stacked")

    def state_dict(self) -> StateOf:
        state: StateOf = {**self.optimizer.state_dict()["state"]}
        for number, group in enumerate(self.optimizer.param_groups):  # Schedule-Free counts there, Prodigy adapts
            numbers = {name: value for name, value in group.items() if isinstance(value, int | float | Tensor)}
            state[-1 - number] = {name: value for name, value in numbers.items() if name != "lr"}
        return state

    def load_state_dict(self, state: Mapping[int, Mapping[str, Any]]) -> None:
        of_parameters = {number: moments for number, moments in state.items() if number >= 0}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": of_parameters})
        for number, group in enumerate(self.optimizer.param_groups):
            for name, value in state.get(-1 - number, {}).items():  # a checkpoint of an earlier version has none
                group[name] = value.to(group["params"][0].device) if isinstance(value, Tensor) else value
        for parameter, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                    moments[name] = like(parameter, moment)
                elif self.optimizer.defaults.get("fused") and (name != "step" or moment.dim()):
                    raise ValueError(f"{name} of shape {tuple(moment.shape)} for a weight of {tuple(parameter.shape)}")


class AsFunction(Optimizer):
    """One of torch's optimizers as a function of its hyperparameters, the keywords of the class."""

    as_function = True
    counts_steps: ClassVar[bool]

    def __init__(self, parameters: Sequence[Tensor], **hyperparameters: Any) -> None:
        self.kind = type(self).__name__
        self.learning_rate = hyperparameters.pop("lr")
        self.hyperparameters = hyperparameters
        self.moments: Moments = {name: [torch.zeros_like(p) for p in parameters] for name in self.names()}
        self.steps: list[Tensor] = []
        if self.counts_steps:
            fused = bool(hyperparameters.get("fused"))
            self.steps = [torch.zeros((), dtype=torch.float32, device=p.device if fused else "cpu") for p in parameters]

    @abstractmethod
    def names(self) -> list[str]:
        """The moments of a parameter, by torch's names."""

    def stack(self, members: Sequence[Optimizer]) -> Optimizer:
        stacked = copy.copy(self)
        stacked.moments = {}
        of_members = [member.moments for member in members if isinstance(member, AsFunction)]
        for name in self.moments:
            alike = zip(*(moments[name] for moments in of_members), strict=True)
            stacked.moments[name] = [torch.stack(tensors) for tensors in alike]
        stacked.steps = [step.clone() for step in self.steps]  # the same for all: they take their steps together
        return stacked

    def state_dict(self) -> StateOf:
        state: StateOf = {i: {"step": step} for i, step in enumerate(self.steps)}
        for name, moments in self.moments.items():
            for i, moment in enumerate(moments):
                state.setdefault(i, {})[name] = moment
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[int, Mapping[str, Any]]) -> None:
        for name, held in {"step": self.steps, **self.moments}.items():
            for i in state:
                found, moment = state[i][name], held[i]
                if found.shape != moment.shape:
                    raise ValueError(f"{name} of shape {tuple(found.shape)} for a weight of {tuple(moment.shape)}")
                moment.copy_(found)
        for i, step in enumerate(self.steps):
            if state and i not in state:  # of a weight that torch's own optimizer has never seen a gradient of
                step.copy_(self.steps[min(state)])

    def count_on(self, device: torch.device) -> None:
        """Counts the steps on the device of the parameters, where a compiled step needs the numbers."""
        self.steps = [step.to(device) for step in self.steps]

    def choices(self) -> dict[str, Any]:
        """How torch is to compute it: as configured, or in a compiled step by what can be compiled."""
        if torch.compiler.is_compiling():
            return {"foreach": False, "fused": False, "capturable": True}
        return {key: self.hyperparameters[key] for key in ("foreach", "fused") if key in self.hyperparameters}


class Adam(AsFunction):
    """Adam (Kingma & Ba 2015)."""

    counts_steps = True
    compute: ClassVar[Callable[..., None]] = staticmethod(adam)
    fused: ClassVar[Callable[..., None]] = staticmethod(torch._fused_adam_)

    def __init__(self, parameters: Sequence[Tensor], **hyperparameters: Any) -> None:
        super().__init__(parameters, **hyperparameters)
        self.numbers = {key: hyperparameters[key] for key in ("amsgrad", "weight_decay", "eps", "maximize")}
        self.numbers["beta1"], self.numbers["beta2"] = hyperparameters["betas"]
        # All at once by the kernel itself, which `compute` comes to as well, but only after a while.
        alike = len({(p.device, p.dtype) for p in parameters}) == 1
        self.at_once = bool(hyperparameters["fused"]) and alike

    def names(self) -> list[str]:
        return ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * self.hyperparameters["amsgrad"]

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        moments = self.moments["exp_avg"], self.moments["exp_avg_sq"], self.moments.get("max_exp_avg_sq", [])
        tensors = (list(parameters), list(gradients), *moments)
        if torch.compiler.is_compiling():
            self.update_compiled(tensors, learning_rate)
        elif self.at_once:
            torch._foreach_add_(self.steps, 1)
            self.fused(*tensors, self.steps, lr=learning_rate, **self.numbers)
        else:
            self.compute(*tensors, self.steps, lr=learning_rate, **self.numbers, **self.choices())

    def update_compiled(self, tensors: Sequence[list[Tensor]], learning_rate: float | Tensor) -> None:
        """The same in a compiled step, where 1 - β₂ ** step is a tensor: in fp32 it would be off by 1e-4 at first."""
        own, beta1, beta2 = self.hyperparameters, self.numbers["beta1"], self.numbers["beta2"]
        if own["amsgrad"] or own["maximize"] or own["weight_decay"]:
            steps = [self.steps[0].double() for _ in self.steps]
            self.compute(*tensors, steps, lr=learning_rate, **self.numbers, **self.choices())
            step = steps[0]
        else:
            # Both bias corrections are the same for all weights; stacked, they are not computed again for each.
            step = self.steps[0].double() + 1
            corrections = torch.cat([(learning_rate / (1 - beta1**step)).view(1), (1 - beta2**step).sqrt().view(1)])
            for parameter, gradient, mean, square in zip(*tensors[:4], strict=True):
                rate, root = corrections.to(parameter.dtype)
                mean.lerp_(gradient, 1 - beta1)
                square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                parameter.sub_(rate * mean / (square.sqrt() / root + own["eps"]))
        for counted in self.steps:
            counted.copy_(step)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    compute = staticmethod(adamw)
    fused = staticmethod(torch._fused_adamw_)


class RMSprop(AsFunction):
    """RMSprop (Hinton 2012)."""

    counts_steps = True

    def names(self) -> list[str]:
        own = self.hyperparameters
        return ["square_avg"] + ["momentum_buffer"] * (own["momentum"] > 0) + ["grad_avg"] * own["centered"]

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        keys = ("alpha", "eps", "weight_decay", "momentum", "centered", "maximize")
        keywords = {key: self.hyperparameters[key] for key in keys} | self.choices()
        keywords.pop("fused", None)  # torch has no such kernel for it
        squares, means, buffers = (self.moments.get(name, []) for name in ("square_avg", "grad_avg", "momentum_buffer"))
        rmsprop(list(parameters), list(gradients), squares, means, buffers, self.steps, lr=learning_rate, **keywords)


class SGD(AsFunction):
    """Gradient descent, with momentum or without."""

    counts_steps = False

    def names(self) -> list[str]:
        return ["momentum_buffer"] * (self.hyperparameters["momentum"] > 0)

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        keys = ("weight_decay", "momentum", "dampening", "nesterov", "maximize")
        keywords = {key: self.hyperparameters[key] for key in keys} | self.choices()
        keywords.pop("capturable", None)  # nothing is counted on the CPU
        buffers: list[Tensor | None] = [*self.moments.get("momentum_buffer", [None] * len(parameters))]
        sgd(list(parameters), list(gradients), buffers, lr=learning_rate, **keywords)


FUNCTIONS: dict[type, type[AsFunction]] = {
    torch.optim.Adam: Adam,
    torch.optim.AdamW: AdamW,
    torch.optim.RMSprop: RMSprop,
    torch.optim.SGD: SGD,
}
# Where one of these is set, the class's own step is taken. (Momentum that is damped begins with a bare gradient.)
ONLY_BY_OWN_STEP = ("capturable", "differentiable", "dampening", "decoupled_weight_decay")


def make_optimizer(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], parameters: list[Tensor]) -> Optimizer:
    """The optimizer `cls` with the keywords `values`, as a function where it has one. ValueError for a bad value."""
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items() if name != "params"}
    hyperparameters = {**defaults, **values}
    as_function = FUNCTIONS.get(cls)
    if as_function is None or any(hyperparameters.get(key) for key in ONLY_BY_OWN_STEP):
        return OwnStep(cls(parameters, **values))
    try:
        cls(_unread(), **values)  # checks its values, and then looks at the parameters
    except _ValuesAreGood:
        return as_function(parameters, **hyperparameters)
    raise AssertionError(f"{cls.__name__} did not look at its parameters")


class _ValuesAreGood(Exception):
    pass


def _unread() -> Iterator[Tensor]:
    raise _ValuesAreGood
    yield


def like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A copy of the tensor with the parameter's layout in memory.

    Fused optimizers walk parameter, gradient and moment side by side without a look at strides (channels-last weights).
    """
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
