"""The processes that share a run, and how they communicate. A single process takes the same path as many.

Networks stay plain modules. Before each optimizer step, the processes average the gradients in one all-reduce, as
StyleGAN does. Unlike DistributedDataParallel, this works with gradient penalties and their double backward.
"""

import importlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gan_runner.config.schema import Device
from gan_runner.errors import UserError
from gan_runner.machine.devices import choose_devices
from gan_runner.machine.launch import under_torchrun

# How long a collective waits for the other processes. All take the same step, so one that takes longer hangs. Rank 0
# alone may have more to do; the others wait for that without a limit (Gloo has no "never"). If rank 0 dies, Gloo
# notices at once, because its connections close.
STEP_LIMIT = timedelta(minutes=30)
NO_LIMIT = timedelta(days=365)

T = TypeVar("T")


class Ranks:
    """All processes of a run, seen from one of them."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"]) if under_torchrun() else 0
        self.size = int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1
        self.devices = [torch.device("cpu")]
        self._processes: list[tuple[object, int]] = []  # the machine and the number of each
        if self.size > 1:
            # This module takes the process group that exists at its first import as default arguments. Imported later
            # (torch._dynamo does so), it would keep our group and Gloo's threads alive after `leave`, and threads that
            # outlive the process abort it.
            importlib.import_module("torch.distributed.nn.functional")
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=STEP_LIMIT)
            self._patient_group: Any = dist.new_group(backend="gloo", timeout=NO_LIMIT)
            self._processes = self._from_all((_machine(), os.getpid()))

    def place(self, device: Device) -> None:
        """Chooses this process's devices; `check_device` has found that they exist."""
        self.devices = choose_devices(device, int(os.environ["LOCAL_RANK"]) if under_torchrun() else 0)

    @property
    def device(self) -> torch.device:
        """Where this process's networks are."""
        return self.devices[0]

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which writes the files."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """This process's share of a global batch."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def seed(self, seed: int) -> None:
        """Seeds what networks draw themselves (dropout) on this process's devices."""
        torch.default_generator.manual_seed(seed)  # 75 times faster than torch.manual_seed, which seeds every device
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(seed) if len(self.devices) > 1 else torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def average(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each gradient over the processes, in one all-reduce."""
        if self.size == 1:
            return list(gradients)
        means = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = means.split([gradient.numel() for gradient in gradients])
        # Copied to keep the memory format (channels-last), which a fused optimizer expects to be that of the weights.
        return [torch.empty_like(g).copy_(mean.view_as(g)) for g, mean in zip(gradients, parts, strict=True)]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each of `values` over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return flag if self.size == 1 else bool(self.mean(torch.tensor(float(flag))) > 0)

    def main_alone(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Calls `function` on rank 0 while the others wait, and return None. A `UserError` is raised on all."""
        outcome, refusal = None, None
        if self.is_main:
            try:
                outcome = function(*arguments)
            except UserError as error:
                refusal = str(error)
        if (refusal := self._from_main(refusal)) is not None:
            raise UserError(refusal)
        return outcome

    def on_main(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls `function` on rank 0 and returns its result on all processes."""
        return self._from_main(self.main_alone(function, *arguments))

    def main_first(self, function: Callable[[], T]) -> T:
        """Calls `function` on each process: on rank 0 first, so that the others find the files it makes."""
        mine = self.main_alone(function)
        return mine if self.is_main else function()  # type: ignore[return-value]

    def wait_for_main(self) -> None:
        """Waits, however long, until rank 0 calls this too. All processes call it after rank 0 has worked alone."""
        self.any_when_all_are_there(False)

    def any_when_all_are_there(self, flag: bool) -> bool:
        """As `any`, and waits however long until all processes call this.

        Meanwhile signals are answered, which in the middle of a collective they are not.
        """
        if self.size == 1:
            return flag
        found = torch.tensor(float(flag))
        reduced, pause = dist.all_reduce(found, group=self._patient_group, async_op=True), 0.001
        while not reduced.is_completed():
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
        reduced.wait()
        return bool(found > 0)

    def tell_main(self) -> None:
        """Passes the signal to stop on to rank 0, if it is on this machine: it may be at work alone for long."""
        self._tell(self._processes[:1])

    def tell_others(self) -> None:
        """Passes the signal to stop on to all other processes on this machine."""
        self._tell(self._processes)

    def _tell(self, processes: Sequence[tuple[object, int]]) -> None:
        for machine, process in processes:
            if machine == _machine() and process != os.getpid():
                with suppress(OSError):  # it has ended
                    os.kill(process, signal.SIGTERM)

    def _from_main(self, value: Any) -> Any:
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=torch.device("cpu"), group=self._patient_group)
        return values[0]

    def _from_all(self, value: T) -> list[T]:
        values = [value] * self.size
        dist.all_gather_object(values, value, group=self._patient_group)
        return values

    def leave(self) -> None:
        """Destroys the process group."""
        if self.size > 1:
            del self._patient_group  # it would keep Gloo's threads alive
            dist.destroy_process_group()


def _machine() -> tuple[str, str]:
    """The host, and its namespace of process numbers: outside of it, as in a container, they name other processes."""
    numbers = "/proc/self/ns/pid"
    return socket.gethostname(), os.readlink(numbers) if os.path.lexists(numbers) else ""
