"""Devices and ranks: which device a process computes on, and what processes that share a batch say to each other.

One process and many take the same path. Networks stay plain modules: the processes average the gradients in one
all-reduce before each optimizer step (as StyleGAN does), which is indifferent to penalties and double backward.
"""

import importlib
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gan_runner.config.schema import Device
from gan_runner.console import say
from gan_runner.errors import UserError

PATIENCE = 10.0  # seconds

T = TypeVar("T")


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun (or `launch`) started."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def check_device(device: Device, batch_size: int) -> None:
    """Refuses a device this machine has not, and a batch that the processes cannot share."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    have = ", ".join(f"{i}: {torch.cuda.get_device_name(i)}" for i in range(gpus)) or "no CUDA GPU"
    if device.kind == "cuda" and not gpus:
        raise UserError(f"device=cuda: this machine has {have}; use device=cpu or device=auto")
    if device.kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: this machine has no Apple GPU; use device=cpu or device=auto")
    missing = [i for i in device.device_ids or [] if i >= gpus]
    if missing:
        raise UserError(f"device.device_ids={device.device_ids}: {missing[0]} is not there; this machine has {have}")
    if device.device_ids is not None and (
        not device.device_ids or len(set(device.device_ids)) < len(device.device_ids)
    ):
        raise UserError(f"device.device_ids={device.device_ids}: at least one GPU is needed, each named once")
    if device.device_ids is not None and device.kind in ("cpu", "mps"):
        raise UserError(f"device.device_ids={device.device_ids}: device={device.kind} has no numbered devices")
    if device.kind != "ddp" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"device={device.kind}: torchrun started {os.environ['WORLD_SIZE']} processes; to share a run: device=ddp"
        )
    if device.kind != "ddp":
        return
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


class Ranks:
    """The processes that share this run, seen from one of them; a run of one process is a world of size 1."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"]) if under_torchrun() else 0
        self.size = int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1
        self.device = torch.device("cpu")
        self.data_parallel_ids: list[int] = []
        if self.size > 1:
            # The default arguments of this module are the process group there is when it is first imported (by an
            # optimizer, through torch._dynamo). They would keep it alive in `leave`, and Gloo's threads with it, which
            # abort a process that they outlive.
            importlib.import_module("torch.distributed.nn.functional")
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")

    def place(self, device: Device) -> None:
        """Chooses this process's device; `check_device` has found it to be there."""
        if device.kind in ("cuda", "auto", "data_parallel", "ddp") and torch.cuda.is_available():
            ids = device.device_ids or list(range(torch.cuda.device_count()))
            local_rank = int(os.environ["LOCAL_RANK"]) if under_torchrun() else 0
            self.device = torch.device("cuda", ids[local_rank])
            torch.cuda.set_device(self.device)
            self.data_parallel_ids = ids if device.kind == "data_parallel" else []
        elif device.kind in ("mps", "auto") and torch.backends.mps.is_available():
            self.device = torch.device("mps")
        elif device.kind == "data_parallel":
            say("device=data_parallel: this machine has no CUDA GPU; running on the CPU")

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and speaks for the others."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """This process's share of a global batch."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def seed(self, seed: int) -> None:
        """Seeds what lives inside a network (dropout) on this process's device."""
        torch.default_generator.manual_seed(seed)  # 75 times faster than torch.manual_seed, which seeds every device
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(seed) if self.data_parallel_ids else torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces each gradient by its mean over the processes, in one all-reduce."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        means = self.mean(torch.cat([g.flatten() for g in gradients]))
        for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each of `values` over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in any process."""
        return flag if self.size == 1 else bool(self.mean(torch.tensor(float(flag))) > 0)

    def main_alone(self, work: Callable[..., T], *arguments: Any) -> T | None:
        """What `work` returns on the main process, None on the others, which wait; all raise what it refuses."""
        outcome, refusal = None, None
        if self.is_main:
            try:
                outcome = work(*arguments)
            except UserError as error:
                refusal = str(error)
        if (refusal := self._from_main(refusal)) is not None:
            raise UserError(refusal)
        return outcome

    def on_main(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` returns on the main process, on all of them."""
        return self._from_main(self.main_alone(work, *arguments))

    def main_first(self, work: Callable[[], T]) -> T:
        """What `work` returns on each process; the main one goes first, so that the others find its files."""
        mine = self.main_alone(work)
        return mine if self.is_main else work()  # type: ignore[return-value]

    def _from_main(self, value: Any) -> Any:
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def leave(self) -> None:
        """Ends the conversation with the other processes."""
        if self.size > 1:
            dist.destroy_process_group()


def launch(processes: int, work: Callable[..., int], arguments: Sequence[Any]) -> int:
    """Runs `work(*arguments)` in so many processes, as torchrun would, and returns the main one's exit status.

    SIGTERM and SIGINT are passed on as SIGTERM (a terminal sends its Ctrl-C to all of them at once, so the workers
    ignore that one), a second one as SIGKILL; if one process dies, the others are ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    workers = []
    for rank in range(processes):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        worker = context.Process(target=_worker, args=(environment, work, arguments))
        worker.start()
        workers.append(worker)

    asked = False

    def forward(*_: Any) -> None:
        nonlocal asked
        for worker in workers:
            worker.kill() if asked else worker.terminate()
        asked = True

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        alive, patience = list(workers), None
        while alive:
            if not multiprocessing.connection.wait([w.sentinel for w in alive], patience):
                for worker in alive:
                    worker.kill()
            alive = [w for w in alive if w.is_alive()]
            if any(w.exitcode is not None and (w.exitcode < 0 or w.exitcode == 1) for w in workers):
                patience = PATIENCE  # they mostly notice by themselves, and the main one can say what happened
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    statuses = [w.exitcode or 0 for w in workers]
    return next((1 for status in statuses if status < 0), statuses[0] or max(statuses))


def _worker(environment: dict[str, str], work: Callable[..., int], arguments: Sequence[Any]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(environment["WORLD_SIZE"])))  # share the cores out
    raise SystemExit(work(*arguments))


def _end_with_parent() -> None:
    """Leaves no worker behind where the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def peak_memory(device: torch.device) -> int:
    """The most memory in use so far, in bytes: the GPU's where there is one, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
