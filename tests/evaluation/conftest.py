"""Measuring runs in the tests' own process."""

import json
from pathlib import Path

from gan_runner.commands.evaluate import evaluate_runs
from gan_runner.config import composition
from tests.training import TINY

STEPS = ("trainer.steps=40", "trainer.evaluate_every=10", "trainer.checkpoint_every=20", *TINY)


def evaluation(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def evaluate(*overrides: str) -> int:
    return evaluate_runs(composition.plain(composition.compose(["device=cpu", *map(str, overrides)], "evaluate")))
