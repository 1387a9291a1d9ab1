"""Checkpoints: named tensors in safetensors files, written whole or not at all. Loading one cannot execute code.

A file is called `step_<step>-<hash>.safetensors`, where the hash is the beginning of the SHA-256 of its content, as in
torch.hub: one rename publishes a checkpoint and the means to verify it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from gan_runner.errors import UserError
from gan_runner.paths import write_atomically
from gan_runner.tensor_files import Kept, dump, parse

BEST = "best.safetensors"
_NAME = re.compile(r"step_\d{8,}-[0-9a-f]{16}\.safetensors")


def pending(row: Mapping[str, float]) -> Kept:
    """What a checkpoint carries of its step's row, as letters: a name such as "loss/real" would be taken for two."""
    return {"pending": torch.frombuffer(bytearray(json.dumps(row), "ascii"), dtype=torch.uint8)}


def save(directory: Path, step: int, kept: Kept, keep: int, every: int = 1) -> Path:
    """Writes `kept` and removes all but the newest `keep` checkpoints.

    One that was written out of turn, because the run was to stop, goes before any that `every` so many steps has one:
    the run that goes on has the same in the end as one that was never stopped.
    """
    directory.mkdir(exist_ok=True)
    content = dump(kept)
    path = directory / f"step_{step:08d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    write_atomically(path, content)
    in_turn = [old for old in checkpoints(directory) if step_of(old) % every == 0 and old != path]
    for old in {*checkpoints(directory)} - {*[*in_turn, path][-keep:]}:
        old.unlink()
    for incomplete in directory.glob(".*.tmp"):  # of a kill
        incomplete.unlink()
    return path


def save_best(directory: Path, step: int, kept: Kept) -> None:
    """Writes `kept` as the best checkpoint, in place of the last one."""
    directory.mkdir(exist_ok=True)
    write_atomically(directory / BEST, dump({**kept, "step": step}))


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, oldest first."""
    named = [path for path in directory.glob("step_*.safetensors") if _NAME.fullmatch(path.name)]
    return sorted(named, key=step_of)


def step_of(path: Path) -> int:
    """The step after which the checkpoint was written."""
    return int(path.stem.removeprefix("step_").partition("-")[0])


def load_newest(directory: Path) -> tuple[int, Kept, list[Path]]:
    """Step and state of the newest intact checkpoint (0 and {} if there was none), and the newer, damaged ones."""
    damaged: list[Path] = []
    for path in reversed(checkpoints(directory)):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest().startswith(path.stem.partition("-")[2]):
            return step_of(path), parse(content, path), damaged
        damaged.append(path)
    if damaged:
        raise UserError(f"{directory}: every checkpoint in it is damaged ({', '.join(p.name for p in damaged)})")
    return 0, {}, damaged
