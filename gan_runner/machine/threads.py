"""How many threads a process computes with. OMP_NUM_THREADS has the last word."""

import os

import torch

from gan_runner.machine.processors import usable_processors

# In one step, of both networks' forward passes of a batch: with less work, another thread costs more than it brings.
# Measured on two cores with five architectures at 22 batch sizes: with half of it for each of two threads, most steps
# took up to a fifth longer than on one; from all of it on, they took less time.
MULTIPLY_ADDS_PER_THREAD = 2_500_000


def keep_threads(before: int | None) -> bool:
    """Computes with as many threads as a run did `before`, if it may: how sums are rounded depends on their number.

    It may not have more than its share of the processors. Returns whether it computes with that many.
    """
    if before is not None and "OMP_NUM_THREADS" not in os.environ:
        most = usable_processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(min(before, max(1, most)))
    return before in (None, torch.get_num_threads())


def choose_threads(multiply_adds: int) -> None:
    """Computes with as many threads as the work of a step pays for, and with no more than until now."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), max(1, multiply_adds // MULTIPLY_ADDS_PER_THREAD)))
