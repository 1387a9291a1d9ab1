"""Who may import whom: rooms (a file or folder of the package) import from lower floors alone, and no circle exists."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "gan_runner"
FLOORS = (  # from the ground up
    {"__init__", "errors", "heartbeat", "names", "randomness", "status", "stopping", "streams"},
    {"overrides", "paths"},
    {"console"},
    {"tables", "tensor_files", "optimizers", "pictures"},
    {"losses", "regularizers", "augmentation", "networks", "datasets"},
    {"metrics", "state", "game"},
    {"config", "step"},
    {"batches", "functional"},
    {"health", "evaluation", "machine"},
    {"runs"},
    {"observers"},
    {"loop", "sweeps"},
    {"commands"},
    {"train", "sample", "export", "evaluate", "classifier", "report"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = {".".join(p.relative_to(REPOSITORY).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")}
LEAVES: dict[str, set[str]] = {
    "datasets": {
        f"gan_runner.{room}"
        for room in ("paths", "overrides", "datasets", "errors", "randomness", "console", "heartbeat")
    },
    "networks": {"gan_runner.networks", "gan_runner.errors"},
    "losses": set(),
    "regularizers": set(),
    "augmentation": {"gan_runner.errors"},
}
NOT_FOR_LEAVES = ("hydra", "omegaconf", "torch.optim", "torch.utils.tensorboard", "torch.distributed", "logging")
WITHOUT_TORCH = (
    "commands/command_line",
    "commands/sweep",
    "config/composition",
    "errors",
    "console",
    "paths",
    "train",
    "report",
)


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def of_package(path: Path) -> set[str]:
    return {name for name in imported(path) if name.split(".")[0] == "gan_runner"}


def files_imported(path: Path) -> set[str]:
    """The files of the package that a file imports; from a folder, its __init__."""
    found = set()
    for name in of_package(path):
        candidates = (name, f"{name}.__init__", name.rpartition(".")[0], f"{name.rpartition('.')[0]}.__init__")
        found.add(next(candidate for candidate in candidates if candidate in FILES))
    return found


def room(file: str) -> str:
    return file.split(".")[1]


def source_files(module: str) -> list[Path]:
    package = PACKAGE / module
    return sorted(package.glob("*.py")) if package.is_dir() else [PACKAGE / f"{module}.py"]


def test_every_room_has_a_floor():
    assert {room(file) for file in FILES} == FLOOR.keys()


@pytest.mark.parametrize("file", sorted(FILES))
def test_imports_go_down(file):
    for other in files_imported(FILES[file]):
        same, lower = room(other) == room(file), FLOOR[room(other)] < FLOOR[room(file)]
        assert same or lower, f"{file} imports {other}"


def test_there_is_no_circle():
    TopologicalSorter({file: files_imported(path) for file, path in FILES.items()}).prepare()


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_know_nothing_of_the_runner(leaf):
    for path in source_files(leaf):
        strangers = {n for n in of_package(path) if not n.startswith(tuple(f"{a}." for a in LEAVES[leaf]))}
        assert strangers == set(), path
        assert {n for n in imported(path) if n.startswith(NOT_FOR_LEAVES)} == set(), path


def test_train_is_a_table_of_contents():
    assert len((PACKAGE / "train.py").read_text().splitlines()) <= 50


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_help_needs_is_imported_without_torch(module):
    top = ast.parse((PACKAGE / f"{module}.py").read_text())
    top.body = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "torch" not in ast.unparse(top)


def test_nobody_imports_the_commands():
    for path in PACKAGE.rglob("*.py"):
        for command in ("train", "sample", "export", "classifier"):
            assert f"gan_runner.{command}.main" not in imported(path)
            assert f"gan_runner.{command}" not in imported(path)


def test_only_the_ranks_module_speaks_to_other_processes():
    speakers = {path.stem for path in PACKAGE.rglob("*.py") if "torch.distributed" in imported(path)}
    assert speakers == {"ranks"}


def test_nothing_unpickles():
    for path in PACKAGE.rglob("*.py"):
        assert imported(path).isdisjoint({"pickle", "dill", "joblib", "cloudpickle"})
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        called = {ast.unparse(call.func) for call in calls}
        assert called.isdisjoint({"yaml.load", "eval", "exec", "hydra.utils.instantiate"})
        loads = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "torch.load"]
        assert all("weights_only=True" in load for load in loads)
