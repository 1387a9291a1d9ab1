"""What updates weights beside the optimizers: their moving average, learning rates over time, moments that return."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage(nn.Module):
    """A network's exponential moving average, w̄ ← β w̄ + (1 − β) w, which begins as the w of the first update.

    Buffers, such as the statistics of batch normalization, are copied. torch's `AveragedModel` does the same, but looks
    for the weights again at each update: up to a tenth of a small network's step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network)
        self.n_averaged: Tensor
        self.register_buffer("n_averaged", torch.tensor(0))  # on the CPU: a GPU would be waited for at each step
        self._average = get_ema_multi_avg_fn(decay)
        self._averages: list[Tensor] = list(self.module.parameters())
        self._weights: list[Tensor] = list(network.parameters())
        self._buffers_of_both = list(zip(self.module.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the network as it is now."""
        if self.n_averaged:
            self._average(self._averages, self._weights, self.n_averaged)
        else:
            torch._foreach_copy_(self._averages, self._weights)
        for copied, buffer in self._buffers_of_both:
            copied.copy_(buffer)
        self.n_averaged += 1


def learning_rate_factor(schedule: str, warmup_steps: int, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at `step` (1 … steps)."""
    progress = (step - 1) / steps
    factor = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[schedule]
    return factor * min(1.0, step / (warmup_steps + 1))


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Gives each moment its parameter's layout in memory; raises `ValueError` where one cannot belong to it.

    Fused optimizers walk parameter and moment side by side without a look at strides (channels-last weights) or shapes.
    """
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
            elif optimizer.defaults.get("fused") and (name != "step" or moment.dim()):
                raise ValueError(f"{name} of shape {tuple(moment.shape)} for a weight of {tuple(parameter.shape)}")
