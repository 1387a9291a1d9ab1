"""Starting the processes of `device=ddp` on one machine, as torchrun would.

Torch's own launchers did not fit (tried with torch 2.14). At SIGTERM, `elastic_launch` loses the exit statuses of the
workers, and kills after 30 s what is still saving. `torch.distributed.elastic.multiprocessing` would replace only
`_wait`, prints tracebacks of its own, and ends the workers of a killed parent only on Linux, by SIGINT.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from gan_runner.machine.signals import INTERRUPTED, interrupt, on_stop_signal
from gan_runner.streams import lasting_streams

GRACE = 10.0  # seconds: after one process has failed, the others are killed if they still run


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun (or `launch`) started."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(processes: int, function: Callable[..., int], arguments: Sequence[Any]) -> int:
    """Runs `function(*arguments)` in so many processes. Returns rank 0's exit status, or 1 if a process was killed.

    A signal to stop is passed to the processes as SIGTERM, a second one as SIGKILL. If one fails, the others end.
    """
    workers = _start(processes, function, arguments)
    signalled = False

    def pass_on() -> None:
        nonlocal signalled
        for worker in reversed(workers):  # rank 0 last: the others stop when it stops, so they must know before
            worker.kill() if signalled else worker.terminate()
        signalled = True

    with on_stop_signal(pass_on, once=False):
        _wait(workers)
    statuses = [worker.exitcode or 0 for worker in workers]
    return 1 if min(statuses) < 0 else statuses[0] or max(statuses)


def _start(processes: int, function: Callable[..., int], arguments: Sequence[Any]) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    context = multiprocessing.get_context("spawn")
    workers: list[BaseProcess] = []
    threads = max(1, torch.get_num_threads() // processes)  # share them
    for rank in map(str, range(processes)):
        environment = world | {"RANK": rank, "LOCAL_RANK": rank}
        workers.append(context.Process(target=_worker, args=(environment, threads, function, arguments)))
        workers[-1].start()
    return workers


def _wait(workers: Sequence[BaseProcess]) -> None:
    """Waits until all have ended; kills those that still run `GRACE` seconds after one has failed."""
    alive, timeout = list(workers), None
    while alive:
        if not multiprocessing.connection.wait([worker.sentinel for worker in alive], timeout):
            for worker in alive:
                worker.kill()
        alive = [worker for worker in alive if worker.is_alive()]
        if any(code is not None and (code < 0 or code in (1, INTERRUPTED)) for code in (w.exitcode for w in workers)):
            timeout = GRACE  # most notice the failure themselves, and rank 0 records it


def _worker(environment: dict[str, str], threads: int, function: Callable[..., int], arguments: Sequence[Any]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes; the parent passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    status = INTERRUPTED
    with suppress(KeyboardInterrupt), lasting_streams(), on_stop_signal(interrupt, once=True):
        status = function(*arguments)
    raise SystemExit(status)


def _end_with_parent() -> None:
    """Ends this process when its parent has ended, so that a killed parent leaves no worker behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
