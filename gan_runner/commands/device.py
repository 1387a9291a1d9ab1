"""The device of the commands that are one process."""

import torch

from gan_runner.config.schema import Device
from gan_runner.errors import UserError
from gan_runner.machine.devices import Ranks, check_device


def find_device(device: Device) -> torch.device:
    """The one device to compute on; refuses those that are several."""
    if device.kind in ("data_parallel", "ddp"):
        raise UserError(f"device={device.kind}: this command is one process on one device; use auto, cpu, cuda or mps")
    check_device(device, batch_size=1)
    torch.backends.cudnn.deterministic = True  # transposed convolutions are not by themselves
    ranks = Ranks()
    ranks.place(device)
    return ranks.device
