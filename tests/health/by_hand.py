"""Rows written by hand, as of runs that are well or ill, and what the rules find in them."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gan_runner.config import composition
from gan_runner.config.components import Experiment, check
from gan_runner.config.schema import Config
from gan_runner.datasets import DataFacts
from gan_runner.health.context import History, RuleContext
from gan_runner.health.doctor import Finding, diagnose
from gan_runner.runs.building import build_game, build_state

DIGITS = Path(__file__).parents[1] / "data" / "mnist"
LN2 = math.log(2)

# A healthy run: every row, and what each examination adds.
LOGGED: dict[str, Any] = {
    "loss/discriminator": 1.0,
    "loss/discriminator_real": 0.5,
    "loss/discriminator_fake": 0.5,
    "loss/generator": 1.3,
    "score/real": 0.7,
    "score/fake": 0.3,
    "gradient_norm/generator": 0.5,
    "gradient_norm/discriminator": 0.5,
    "logits/std": 1.2,
    "logits/gap": 0.9,
}
SEEN: dict[str, Any] = {
    "health/lowest": 0.0,
    "health/highest": 0.0,
    "health/mean_error": 0.2,
    "health/diversity": 0.9,
    "health/coverage": 0.8,
    "health/dead_units_generator": 0.0,
    "health/dead_units_discriminator": 0.1,
}
AT_LN2 = {f"loss/{name}": LN2 for name in ("discriminator_real", "discriminator_fake", "generator")}
MNIST = ("dataset=mnist", f"dataset.root={DIGITS}", "architecture=mlp_tanh")
NOISE = ("architecture.latent.distribution=normal",)
SIGMOID = ("architecture.generator.output=[sigmoid]",)
HIDDEN = ("dataset=mnist", f"dataset.root={DIGITS}", "architecture=mlp_dropout")  # a ReLU under the sigmoid


@cache
def experiment(*overrides: str) -> Experiment:
    return check(composition.plain(composition.compose(overrides, "train")))


def composed(*overrides: str) -> Config:
    return experiment(*overrides).config


@cache
def a_context(*overrides: str) -> RuleContext:
    chosen = experiment(*overrides)
    dataset = chosen.build("dataset")
    facts = DataFacts.of(dataset)
    game, state = build_game(chosen, dataset), build_state(chosen, facts, torch.device("cpu"))
    rates = {name: network.optimizer.learning_rate for name, network in state.networks()}
    references = {name.removeprefix("loss/"): LN2 for name in AT_LN2}
    networks = state.generator.module, state.discriminator.module
    return RuleContext(chosen.config, *networks, game, rates, dataset, references)


def a_run(changes: dict[str, Any], steps: int = 3000) -> list[dict[str, Any]]:
    """Rows each 100 steps and an examination each 500; a change is a value or a function of the step."""
    made = []
    for step in range(100, steps + 1, 100):
        row = LOGGED | (SEEN if step % 500 == 0 else {})
        row |= {tag: value for tag, value in changes.items() if tag in LOGGED or step % 500 == 0}
        made.append({"step": step} | {tag: v(step) if callable(v) else v for tag, v in row.items()})
    return made


def diagnosed(rows: Sequence[Mapping[str, Any]], context: RuleContext) -> list[Finding] | None:
    """What the rules find in rows of which the last has an examination."""
    history = History(context.config.trainer.generator_start, context.config.trainer.steps)
    for row in rows:
        history.append(row)
    return diagnose(context, history)
