import json

import pytest
import torch

from gan_runner.machine.processors import usable_processors
from gan_runner.machine.threads import choose_threads, keep_threads


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Eight threads and sixteen processors, nothing of which is typed."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("gan_runner.machine.threads.usable_processors", lambda: 16)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("multiply_adds", "chosen"), [(0, 1), (4_999_999, 1), (5_000_000, 2), (12_500_000, 5), (10**9, 8)]
)
def test_threads_are_as_many_as_the_work_pays_for(multiply_adds, chosen):
    choose_threads(multiply_adds)
    assert torch.get_num_threads() == chosen


@pytest.mark.parametrize(("before", "processes", "now"), [(3, 1, 3), (12, 1, 12), (32, 1, 16), (12, 2, 8), (3, 32, 1)])
def test_a_run_keeps_its_threads_as_far_as_there_are_processors(monkeypatch, before, processes, now):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert keep_threads(before) == (before == now)
    assert torch.get_num_threads() == now


def test_typed_threads_have_the_last_word(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    choose_threads(0)
    assert torch.get_num_threads() == 8
    assert not keep_threads(3)
    assert torch.get_num_threads() == 8
    assert keep_threads(8)
    assert keep_threads(None)  # a run of an earlier version does not tell


def test_a_run_says_where_it_cannot_keep_its_threads(gan_train, environment, tmp_path):
    del environment["OMP_NUM_THREADS"]

    def train(steps: int, **typed: str) -> tuple[str, int]:
        done = gan_train("hydra.run.dir=run", "device=cpu", "doctor=none", f"trainer.steps={steps}", env=typed)
        assert done.returncode == 0, done.stderr
        return done.stderr, json.loads((tmp_path / "run" / "manifest.json").read_text())["machine"]["threads"]

    said, number = train(2)
    assert number == 1  # six numbers in, one out: whatever the machine
    assert "threads" not in said
    said, number = train(4, OMP_NUM_THREADS="2")
    assert number == 2
    assert "warning: run: began with 1 threads a process and goes on with 2; its results will differ" in said
    said, number = train(6)
    assert number == min(2, usable_processors())
