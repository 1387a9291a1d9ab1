"""Which classes a configuration from a run directory may name: nothing in such a directory is executed."""

import importlib
import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from gan_runner.errors import UserError

# Allowed besides what the user trusts: components, which compute, and touch no files but the data's. Other classes of
# this package could be made to write files.
PLAIN_MODULES = (
    *(f"gan_runner.{group}" for group in ("datasets", "networks", "losses", "metrics", "regularizers", "augmentation")),
    "torch.nn",
    "torch.optim",
)


def refuse_foreign_targets(plain: Mapping[str, Any], trust: Sequence[str], where: str) -> None:
    """Refuses a configuration from a run directory if it names a class that is neither a component nor in `trust`.

    Called before anything is imported, because an import alone can run code.
    """
    packages = (*PLAIN_MODULES, *trust)
    for key, target in find_targets(plain).items():
        if not any(target.startswith(f"{package}.") for package in packages):
            trusting = shlex.quote(f"trust=[{target.partition('.')[0]}]")
            raise UserError(
                f"{where}: {key} is {target}, which is none of the components of gan_runner and torch; nothing of this "
                f"run was loaded. If you trust it, add {trusting}"
            )
        module, _, name = target.rpartition(".")
        if not target.startswith(tuple(f"{package}." for package in trust)):
            found = getattr(importlib.import_module(module), name, None) if _is_module(module) else None
            if not isinstance(found, type) or found.__module__.split(".")[0] != target.split(".")[0]:
                raise UserError(f"{where}: {key} is {target}, which is no class of that package; nothing was loaded")


def find_targets(node: Any, key: str = "") -> dict[str, str]:
    """Every `_target_` in `node`, at any depth, by its key."""
    children: Mapping[Any, Any] = (
        node if isinstance(node, Mapping) else dict(enumerate(node)) if isinstance(node, list) else {}
    )
    found = {}
    for name, child in children.items():
        path = f"{key}.{name}" if key else str(name)
        if name == "_target_":
            found[path] = str(child)
        found |= find_targets(child, path)
    return found


def foreign_packages(plain: Mapping[str, Any]) -> list[str]:
    """The packages of the user's own that a configuration names, which a later command has to trust."""
    return sorted({target.split(".")[0] for target in find_targets(plain).values()} - {"gan_runner", "torch"})


def _is_module(path: str) -> bool:
    """Whether `path` names a module, and not what a module has imported, as `gan_runner.train.os` does."""
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:
        return False
