"""What the tests of the runner share: a command line to type, and tiny data."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]

GanTrain = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path_factory) -> dict[str, str]:
    """An environment in which a process uses one core, no GPU and no cache but its own."""
    return os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GAN_RUNNER_CACHE": str(tmp_path_factory.getbasetemp() / "cache"),
    }


@pytest.fixture
def gan_train(tmp_path, monkeypatch, environment) -> GanTrain:
    """`gan_train("trainer.steps=5", …)` runs `python -m gan_runner.train` in the empty `tmp_path`.

    Returns what ended; keywords go to `subprocess.run` (`env` adds to the environment).
    """
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, env: dict[str, str] | None = None, **keywords: Any) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "gan_runner.train", *overrides]
        settings = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120} | keywords
        return subprocess.run(command, env=environment | (env or {}), check=False, **settings)

    return run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tests that fork: a fork has none of its parent's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Ended:
    """What a command came to."""

    status: int
    out: str
    err: str


@pytest.fixture
def typed(tmp_path, tmp_path_factory, monkeypatch, capfd) -> Iterator[Callable[..., Ended]]:
    """`typed("trainer.steps=5", …)` is `gan_train` inside this process, which saves the seconds of an import.

    `command="sample"` types another of the commands.
    """
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command puts the current directory there
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads, modules = torch.get_num_threads(), set(sys.modules)
    torch.set_num_threads(1)

    def run(*words: str, command: str = "train") -> Ended:
        monkeypatch.setattr(sys, "argv", [f"gan-{command}", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            importlib.import_module(f"gan_runner.{command}").main()
        assert isinstance(stopped.value.code, int)
        return Ended(stopped.value.code, *capfd.readouterr())

    yield run
    torch.set_num_threads(threads)
    for name in set(sys.modules) - modules:  # a user's own classes, of the same name in another test
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file in `folder` by its path there, and every directory as one that holds b""."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.fixture
def refused(typed) -> Callable[..., str]:
    """`refused(*words)` is the one line that refuses them: status 2, nothing printed, no file made or changed."""

    def run(*words: str, command: str = "train") -> str:
        before = tree(Path.cwd().parent)
        ended = typed(*words, command=command)
        assert (ended.status, ended.out) == (2, ""), ended
        assert ended.err.startswith("error: ")
        assert ended.err.count("\n") == 1, ended.err
        assert tree(Path.cwd().parent) == before
        return ended.err.strip()

    return run
