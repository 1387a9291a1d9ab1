"""Which device a process computes on, and whether this machine has it."""

import os
import resource
import sys

import torch

from gan_runner.config.schema import Device
from gan_runner.console import say
from gan_runner.errors import UserError
from gan_runner.machine.launch import under_torchrun


def check_device(device: Device, batch_size: int) -> None:
    """Raises `UserError` if the machine lacks the device, or the processes cannot share the batch evenly."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    have = ", ".join(f"{i}: {torch.cuda.get_device_name(i)}" for i in range(gpus)) or "no CUDA GPU"
    if device.kind == "cuda" and not gpus:
        raise UserError(f"device=cuda: this machine has {have}; use device=cpu or device=auto")
    if device.kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: this machine has no Apple GPU; use device=cpu or device=auto")
    if device.device_ids is not None:
        missing = [i for i in device.device_ids if i >= gpus]
        if missing:
            raise UserError(
                f"device.device_ids={device.device_ids}: {missing[0]} is not there; this machine has {have}"
            )
        if not device.device_ids or len(set(device.device_ids)) < len(device.device_ids):
            raise UserError(f"device.device_ids={device.device_ids}: at least one GPU is needed, each named once")
        if device.kind in ("cpu", "mps"):
            raise UserError(f"device.device_ids={device.device_ids}: device={device.kind} has no numbered devices")
    if device.kind == "ddp":
        _check_processes(device, batch_size, gpus, have)
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"device={device.kind}: torchrun started {os.environ['WORLD_SIZE']} processes; to share a run: device=ddp"
        )


def _check_processes(device: Device, batch_size: int, gpus: int, have: str) -> None:
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun() else process_count(device)
    if gpus and here > len(device.device_ids or range(gpus)):
        raise UserError(f"device.processes={here}: more processes than GPUs; this machine has {have}")
    if device.sync_batchnorm and not gpus:
        raise UserError(f"device.sync_batchnorm=true: works on GPUs alone; this machine has {have}")
    world = int(os.environ["WORLD_SIZE"]) if under_torchrun() else here
    if batch_size % world:
        raise UserError(f"trainer.batch_size={batch_size}: {world} processes cannot share it evenly; use a multiple")


def process_count(device: Device) -> int:
    """How many processes `device=ddp` starts on this machine when torchrun does not."""
    return device.processes or len(device.device_ids or []) or torch.cuda.device_count() or 1


def choose_devices(device: Device, local_rank: int = 0) -> list[torch.device]:
    """The devices that this process computes on; only DataParallel has several, and the networks are on the first.

    `check_device` has found that they exist. Each process of this machine makes its GPU the current one.
    """
    if device.kind in ("cuda", "auto", "data_parallel", "ddp") and torch.cuda.is_available():
        gpus = [torch.device("cuda", i) for i in device.device_ids or range(torch.cuda.device_count())]
        torch.cuda.set_device(gpus[local_rank])
        return gpus if device.kind == "data_parallel" else [gpus[local_rank]]
    if device.kind in ("mps", "auto") and torch.backends.mps.is_available():
        return [torch.device("mps")]
    if device.kind == "data_parallel":
        say("device=data_parallel: this machine has no CUDA GPU; running on the CPU")
    return [torch.device("cpu")]


def one_device(device: Device) -> torch.device:
    """The device of a command that is one process on one device; raises `UserError` for several."""
    if device.kind in ("data_parallel", "ddp"):
        raise UserError(f"device={device.kind}: this command is one process on one device; use auto, cpu, cuda or mps")
    check_device(device, batch_size=1)
    torch.backends.cudnn.deterministic = True  # by default, transposed convolutions are not
    return choose_devices(device)[0]


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, in bytes: of the GPU if `device` is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
