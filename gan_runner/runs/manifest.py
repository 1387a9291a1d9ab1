"""manifest.json: what a run was made with, so that it can be repeated."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt

from gan_runner import __version__
from gan_runner.config.schema import validate
from gan_runner.runs.directory import read_json

_PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "tensorboard", "numpy", "safetensors")


class Manifest(BaseModel):
    """The part of manifest.json that a resumed run reads; a run that was stopped at once has no such file."""

    model_config = ConfigDict(frozen=True)

    data: dict[str, Any] = {}
    extractor: str | None = None  # its hash
    wall_seconds: NonNegativeFloat = 0.0
    machine: dict[str, Any] = {}

    @classmethod
    def of(cls, run: Path) -> "Manifest":
        """Reads the manifest of the run in `run`. Raises `UserError`."""
        path = run / "manifest.json"
        manifest: Manifest = validate(cls, read_json(path), str(path))
        return manifest

    @property
    def class_order(self) -> Literal["number", "text"]:
        """How folders of images got their class numbers: earlier versions took the order of the text, and said nothing.

        A run that goes on keeps its numbers.
        """
        return "text" if self.data and self.data.get("class_order", "text") == "text" else "number"

    @property
    def threads(self) -> int | None:
        """With how many threads each process of the run computed."""
        threads: int | None = validate(
            PositiveInt | None, self.machine.get("threads"), "manifest.json: machine.threads"
        )
        return threads


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Versions, source and machine."""
    return {
        "versions": {"gan_runner": __version__, "python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
        "git_commit": git_commit(),
        "command": sys.argv,
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "processes": processes,
            "threads": torch.get_num_threads(),
        },
    }


def git_commit() -> str | None:
    """The commit of this package, with "-dirty" if files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
