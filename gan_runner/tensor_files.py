"""Named tensors and plain values in one safetensors file, which cannot execute anything."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from gan_runner.errors import UserError

State = dict[str, Any]


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number in them is finite, as those of a trained network must be."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def dump(state: State) -> bytes:
    """Tensors as safetensors, plain values as JSON in the header."""
    leaves = dict(flatten(state))
    # Tied weights share memory, which the format refuses, and it wants everything contiguous: hence the copies.
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in leaves.items() if isinstance(v, Tensor)}
    values = {name: leaf for name, leaf in leaves.items() if not isinstance(leaf, Tensor)}
    return safetensors.torch.save(tensors, metadata={"values": json.dumps(values)})


def parse(content: bytes, path: Path) -> State:
    """The reverse of `dump`; `path` is for the message."""
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        values = json.loads(header.get("__metadata__", {}).get("values", "{}"))
        return _nest({**tensors, **values})
    except (safetensors.SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is no safetensors file of this program: {error}") from error


def flatten(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor and plain value in nested dicts, by its path: "optimizer/generator/0/step"."""
    for name, child in node.items():
        if isinstance(child, Mapping):
            yield from flatten(child, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", child


def _nest(leaves: Mapping[str, Any]) -> State:
    state: State = {}
    for name, leaf in leaves.items():
        node = state
        *parents, last = name.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name} is inside of what is no group")
        node[last] = leaf
    return state
