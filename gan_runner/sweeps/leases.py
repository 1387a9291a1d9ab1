"""Which GPUs and how many threads each of several jobs may use at once."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from gan_runner.machine.processors import usable_processors


def visible_gpus() -> list[str]:
    """This machine's GPUs, as CUDA_VISIBLE_DEVICES names them: by number or UUID. CUDA is not started for that."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        names = [name.strip() for name in named.split(",")]
        end = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))  # as CUDA reads it
        return names[:end]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def gpus_wanted(config: Mapping[str, Any], gpus: Sequence[str]) -> list[str] | int:
    """The GPUs that a configuration names by number, otherwise how many of them it takes.

    The configuration may be wrong, which the job itself will say.
    """
    device = config.get("device") or {}
    kind, numbers = device.get("kind"), device.get("device_ids")
    if not gpus or kind in ("cpu", "mps"):
        return 0
    if isinstance(numbers, list) and numbers:
        return [gpus[number] for number in numbers if number in range(len(gpus))]
    processes = device.get("processes")
    several = {"ddp": processes if isinstance(processes, int) else len(gpus), "data_parallel": len(gpus)}
    return min(several.get(str(kind), 1), len(gpus))


class Leases:
    """GPUs, each of which so many jobs may share; a job has its GPUs for itself as long as there are enough."""

    def __init__(self, gpus: Sequence[str], jobs_per_gpu: int) -> None:
        self.gpus = gpus
        self._free = dict.fromkeys(gpus, jobs_per_gpu)

    def take(self, wanted: list[str] | int) -> list[str] | None:
        """The GPUs for a job: those named, or so many of those with the fewest jobs. None while they are in use."""
        least_used = sorted(self._free, key=lambda gpu: -self._free[gpu])
        chosen = least_used[:wanted] if isinstance(wanted, int) else wanted
        if any(self._free[gpu] == 0 for gpu in chosen):
            return None
        for gpu in chosen:
            self._free[gpu] -= 1
        return sorted(chosen, key=self.gpus.index)

    def give_back(self, gpus: Sequence[str]) -> None:
        """The job that had them has ended."""
        for gpu in gpus:
            self._free[gpu] += 1

    def environment(self, config: Mapping[str, Any], gpus: Sequence[str]) -> dict[str, str]:
        """What makes a job see its GPUs alone. One that names them by number sees all, so that the numbers fit."""
        return {} if not gpus or config["device"].get("device_ids") else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def threads_for_each(jobs: int) -> int | None:
    """A fair share of the processors; None, torch's own choice, for one job at a time, and where it is typed."""
    if jobs == 1 or os.environ.get("OMP_NUM_THREADS"):
        return None
    return max(1, usable_processors() // jobs)
