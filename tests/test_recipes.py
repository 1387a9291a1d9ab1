"""Every experiment in conf/ on a little data of its kind: it says how to run it, trains, and is what the notes say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_runner.config import composition
from gan_runner.paths import CONF
from gan_runner.status import Status
from tests.training import status, train

DIGITS = Path(__file__).parent / "data" / "mnist"  # the first 200 digits of MNIST's training set
EXPERIMENTS = {path.stem: path for path in sorted((CONF / "experiment").glob("*.yaml"))}

RING_OR_GRID = {f"dataset.{key}" for key in ("_target_", "modes", "radius", "side", "spacing", "std")}

# The keys in which a recipe differs from the one it builds on.
TWINS = {
    ("vanilla_mlp", "vanilla_mlp_fixed"): {
        *("architecture.generator.output", "architecture.discriminator.output"),
        *("regularizer.r1._target_", "regularizer.r1.weight", "regularizer.r1.interval"),
    },
    ("minimax_mlp", "minimax_mlp_saturating"): {"loss._target_"},
    ("pattern_bce", "pattern_mse"): {"loss._target_", "seed"},
    ("mnist_lsgan", "mnist_lsgan_fixed"): {
        "architecture.discriminator.output",
        *("optimizer.generator.lr", "optimizer.discriminator.lr", "trainer.ema_decay"),
    },
    ("mode_collapse", "mode_collapse_fixed"): {"optimizer.discriminator.lr"},
    ("mnist_cnn", "mnist_cnn_fixed"): {
        "architecture.discriminator.normalization",
        "optimizer.generator.lr",
        "optimizer.discriminator.lr",
        "trainer.steps",
        "trainer.sample_every",
        "trainer.evaluate_every",
    },
    ("mnist_mlp", "mnist_conditional"): {
        "architecture.conditional",
        "metric.label_accuracy._target_",
        "metric.label_accuracy.samples",
    },
    ("ring_plain", "grid_plain"): RING_OR_GRID,
    ("ring_best", "grid_best"): RING_OR_GRID
    | {"loss._target_", "architecture.latent.scale", "optimizer.generator.lr", "optimizer.discriminator.lr"}
    | {f"trainer.{key}" for key in ("steps", "batch_size", "discriminator_forward")}
    | {f"regularizer.{name}.{key}" for name in ("r1", "r2") for key in ("_target_", "weight", "interval")},
    ("stacked_mnist_best", "stacked_mnist_full"): {
        *("architecture.generator.channels", "architecture.discriminator.channels"),
        *(f"regularizer.{name}.{key}" for name in ("r1", "r2") for key in ("weight", "interval")),
        *("optimizer.generator.lr", "optimizer.discriminator.lr"),
        *("trainer.steps", "trainer.ema_decay", "trainer.evaluate_every", "device.kind", "device.hold_dataset"),
    },
    ("celeba_cnn", "celeba_cnn_gelu"): {"architecture.generator.activation", "architecture.discriminator.activation"},
}
# Learning rates (generator, discriminator), betas, batch size and steps, where the notes give them.
TRAINING: dict[str, dict[str, Any]] = {
    "pattern_bce": {"lr": (0.01, 0.001), "betas": [0.9, 0.999], "batch_size": 1, "steps": 100_000},
    "minimax_mlp": {"lr": (0.01, 0.01), "betas": [0.9, 0.999]},
    "vanilla_mlp": {"batch_size": 32},
    "mnist_lsgan": {"lr": (2e-4, 2e-4), "betas": [0.5, 0.999], "batch_size": 512, "steps": 50 * (60_000 // 512)},
    "mnist_mlp": {"lr": (1e-4, 1e-4), "betas": [0.9, 0.999]},
    "mnist_cnn": {"lr": (1e-4, 1e-4), "betas": [0.9, 0.999]},
    "ring_plain": {"lr": (1e-4, 1e-4), "batch_size": 100},
    "celeba_mlp": {"lr": (1e-4, 1e-4), "betas": [0.9, 0.999]},
    "celeba_cnn": {"lr": (1e-4, 1e-4), "betas": [0.9, 0.999]},
}


def composed(*overrides: str) -> dict[str, Any]:
    return composition.plain(composition.compose(overrides, "train"))


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a configuration by their dotted keys."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {k: v for name, child in node.items() for k, v in leaves(child, f"{prefix}.{name}".lstrip(".")).items()}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images in CelebA's layout: 218 rows of 178 pixels."""
    folder = tmp_path_factory.mktemp("celeba") / "img_align_celeba"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(1, 5):
        image = noise.integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{number:06}.jpg")
    return folder.parent


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_recipe_trains_three_steps(name, faces, tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))
    words = [f"experiment={name}", "trainer.steps=3", "trainer.batch_size=2", "trainer.log_every=1", "device=cpu"]
    words += ["trainer.generator_start=0", "trainer.discriminator_steps=1", "doctor.samples=16"]
    config = composed(*words)
    words += [f"metric.{metric}.samples=100" for metric in config["metric"]]
    dataset = config["dataset"]["_target_"].rpartition(".")[2]
    roots = {"MNIST": DIGITS, "StackedMNIST": DIGITS, "CelebA": faces, "Images": faces}
    words += [f"dataset.root={roots[dataset]}"] if dataset in roots else []
    if name == "celeba_mlp":  # 47 million weights would make this a test of the disk
        words += ["architecture.generator.hidden=[3]", "architecture.discriminator.hidden=[3]"]
    run = tmp_path / "run"
    assert train(run, *words) == Status.COMPLETED
    assert status(run)["step"] == 3
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    trained = name != "pattern_discriminator"
    assert all(("loss/generator" in row) == trained for row in rows)
    assert (run / "generator.safetensors").exists() == trained
    assert (run / "samples" / "step_00000003.png").exists()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_recipe_opens_with_its_command_and_runs_under_its_name(name):
    package, command, *_ = EXPERIMENTS[name].read_text().splitlines()
    assert package == "# @package _global_"
    assert command.startswith(f"# gan-train experiment={name}")
    assert composed(f"experiment={name}")["name"] == name


@pytest.mark.parametrize("pair", TWINS, ids=" and ".join)
def test_twins_differ_in_nothing_but_what_they_compare(pair):
    one, other = (leaves(composed(f"experiment={name}")) for name in pair)
    assert {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} == TWINS[pair] | {"name"}


@pytest.mark.parametrize("name", TRAINING)
def test_a_recipe_trains_as_the_notes_do(name):
    config = composed(f"experiment={name}")
    networks = [config["optimizer"][network] for network in ("generator", "discriminator")]
    found = {
        "lr": tuple(network["lr"] for network in networks),
        "betas": networks[0]["betas"],
        "batch_size": config["trainer"]["batch_size"],
        "steps": config["trainer"]["steps"],
    }
    assert found | TRAINING[name] == found
    assert networks[0]["betas"] == networks[1]["betas"]
