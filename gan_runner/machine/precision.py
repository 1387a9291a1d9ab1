"""What a device makes of bf16."""

from time import perf_counter

import torch

from gan_runner.console import say

EMULATED = 1.2  # times as long as in fp32: with bf16 arithmetic it is a quarter to a half, emulated 1.3 to 800


def warn_of_emulated_bf16(device: torch.device) -> None:
    """Says what bf16 costs on a device that does not compute in it by itself, so that torch emulates it.

    That is measured, because what a processor can do is not always what torch makes use of.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return  # a small product takes as long in either
    cost = _cost_of_bf16(device)
    if cost > EMULATED:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"this machine's {device.type.upper()}"
        say(
            f"warning: trainer.precision=bf16: {name} has no bf16 arithmetic for torch to use, which emulates it: a "
            f"product of matrices takes {cost:.3g} times as long as in fp32; trainer.precision=fp32 is faster"
        )


def _cost_of_bf16(device: torch.device, side: int = 256, rounds: int = 5) -> float:
    """The time of a product of two matrices in bf16, as a multiple of that in fp32."""

    def seconds(matrix: torch.Tensor) -> float:
        begun = perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        return perf_counter() - begun

    single = torch.ones(side, side, device=device)
    half = single.bfloat16()
    pairs = [(seconds(half), seconds(single)) for _ in range(1 + rounds)][1:]  # the first one prepares kernels
    return min(in_half for in_half, _ in pairs) / min(in_single for _, in_single in pairs)
