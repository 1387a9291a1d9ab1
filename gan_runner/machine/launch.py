"""Starting the processes of `device=ddp` on one machine, as torchrun would.

Torch's own launchers do less for us (tried with torch 2.14). `elastic_launch` raises at SIGTERM without the workers'
exit statuses, waits for 30 s and kills what is still saving. `torch.distributed.elastic.multiprocessing` would replace
only `_wait` below, prints tracebacks of its own, and ends the workers of a killed parent on Linux alone, by a SIGINT.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from gan_runner.machine.signals import on_stop_signal

GRACE = 10.0  # seconds that the others have to end by themselves after one process has failed


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun (or `launch`) started."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(processes: int, work: Callable[..., int], arguments: Sequence[Any]) -> int:
    """Runs `work(*arguments)` in so many processes; returns the exit status of rank 0, or 1 if a process was killed.

    SIGTERM and SIGINT reach the processes as SIGTERM, a second one as SIGKILL. If one fails, the others are ended.
    """
    workers = _start(processes, work, arguments)
    asked = False

    def pass_on() -> None:
        nonlocal asked
        for worker in reversed(workers):  # rank 0 last: others may stop with it before they are told, and it ends last
            worker.kill() if asked else worker.terminate()
        asked = True

    with on_stop_signal(pass_on, once=False):
        _wait(workers)
    statuses = [worker.exitcode or 0 for worker in workers]
    return 1 if min(statuses) < 0 else statuses[0] or max(statuses)


def _start(processes: int, work: Callable[..., int], arguments: Sequence[Any]) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    context = multiprocessing.get_context("spawn")
    workers: list[BaseProcess] = []
    for rank in map(str, range(processes)):
        environment = world | {"RANK": rank, "LOCAL_RANK": rank}
        workers.append(context.Process(target=_worker, args=(environment, work, arguments)))
        workers[-1].start()
    return workers


def _wait(workers: Sequence[BaseProcess]) -> None:
    """Returns when all have ended; kills those that outlive a failed one by `GRACE` seconds."""
    alive, timeout = list(workers), None
    while alive:
        if not multiprocessing.connection.wait([worker.sentinel for worker in alive], timeout):
            for worker in alive:
                worker.kill()
        alive = [worker for worker in alive if worker.is_alive()]
        if any(worker.exitcode is not None and (worker.exitcode < 0 or worker.exitcode == 1) for worker in workers):
            timeout = GRACE  # most notice it by themselves, and rank 0 writes down what happened


def _worker(environment: dict[str, str], work: Callable[..., int], arguments: Sequence[Any]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes; the parent passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(environment["WORLD_SIZE"])))  # share the cores out
    raise SystemExit(work(*arguments))


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, so that a killed parent leaves no worker behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
