"""Checkpoints: named tensors in safetensors files, written whole or not at all. Loading one cannot execute code.

A file is called `step_<step>-<hash>.safetensors`, where the hash is the beginning of the SHA-256 of its content, as in
torch.hub: one rename publishes a checkpoint and the means to verify it.
"""

import hashlib
import re
from pathlib import Path

from gan_runner.errors import UserError
from gan_runner.paths import make_durable, write_atomically
from gan_runner.tensor_files import State, dump, parse

BEST = "best.safetensors"
_NAME = re.compile(r"step_\d{8,}-[0-9a-f]{16}\.safetensors")


def save(directory: Path, step: int, state: State, keep: int) -> Path:
    """Writes `state`, nested dicts of tensors and plain values, and removes all but the newest `keep` checkpoints."""
    directory.mkdir(exist_ok=True)
    make_durable(directory / BEST)
    content = dump(state)
    path = directory / f"step_{step:08d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    write_atomically(path, content)
    for old in [*checkpoints(directory)[:-keep], *directory.glob(".*.tmp")]:  # and files that a kill left incomplete
        old.unlink()
    return path


def save_best(directory: Path, step: int, state: State) -> None:
    """Writes `state` as the best checkpoint, in place of the last one.

    The next `save` makes it durable: a run that loses it resumes from before, and finds the same best again.
    """
    directory.mkdir(exist_ok=True)
    write_atomically(directory / BEST, dump({**state, "step": step}), durable=False)


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, oldest first."""
    named = [path for path in directory.glob("step_*.safetensors") if _NAME.fullmatch(path.name)]
    return sorted(named, key=step_of)


def step_of(path: Path) -> int:
    """The step after which the checkpoint was written."""
    return int(path.stem.removeprefix("step_").partition("-")[0])


def load_newest(directory: Path) -> tuple[int, State, list[Path]]:
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
