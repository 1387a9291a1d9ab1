"""Named tensors and plain values in one safetensors file. Loading such a file cannot execute code."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from gan_runner.errors import UserError

Kept = dict[str, Any]  # nested dicts of tensors and plain values


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number in the tensors is finite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def dump(kept: Kept) -> bytes:
    """The content of the file: tensors as safetensors, plain values as JSON in its header."""
    leaves = dict(flatten(kept))
    # Copies, because the format refuses tensors that share memory (tied weights) or are not contiguous.
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in leaves.items() if isinstance(v, Tensor)}
    values = {name: leaf for name, leaf in leaves.items() if not isinstance(leaf, Tensor)}
    return safetensors.torch.save(tensors, metadata={"values": json.dumps(values)})


def parse(content: bytes, path: Path) -> Kept:
    """The reverse of `dump`; `path` is for the error message."""
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        values = json.loads(header.get("__metadata__", {}).get("values", "{}"))
        return _nest({**tensors, **values})
    except (safetensors.SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is no safetensors file of this program: {error}") from error


def flatten(node: Mapping[Any, Any], prefix: str = "", separator: str = "/") -> Iterator[tuple[str, Any]]:
    """Every tensor and plain value in nested dicts, by its path, e.g. "optimizer/generator/0/step"."""
    for name, child in node.items():
        if isinstance(child, Mapping):
            yield from flatten(child, f"{prefix}{name}{separator}", separator)
        else:
            yield f"{prefix}{name}", child


def _nest(leaves: Mapping[str, Any]) -> Kept:
    kept: Kept = {}
    for name, leaf in leaves.items():
        node = kept
        *parents, last = name.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name} lies below a value")
        node[last] = leaf
    return kept
