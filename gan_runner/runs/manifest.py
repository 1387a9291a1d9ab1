"""What a run was made with, for whoever has to make it again."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat

from gan_runner import __version__
from gan_runner.config.schema import validate
from gan_runner.runs.directory import read_json

_PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "tensorboard", "numpy", "safetensors")


class Manifest(BaseModel):
    """What of manifest.json a run that goes on takes up; one that was stopped at once has none."""

    model_config = ConfigDict(frozen=True)

    data: dict[str, Any] = {}
    extractor: str | None = None  # the hash of what its metrics look through
    wall_seconds: NonNegativeFloat = 0.0

    @classmethod
    def of(cls, run: Path) -> "Manifest":
        """That of the run in `run`. Raises `UserError`."""
        path = run / "manifest.json"
        manifest: Manifest = validate(cls, read_json(path), str(path))
        return manifest


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
    """The commit this package is run from, with "-dirty" where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
