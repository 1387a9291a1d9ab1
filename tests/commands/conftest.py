"""Two runs that commands take samples from, measure and export: labelled images, and vectors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import REPOSITORY

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
CLASSES, SIDE, LATENT = 3, 4, 5


def command(module: str, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", f"gan_runner.{module}", *words]
    environment = ENVIRONMENT | {"GAN_RUNNER_CACHE": str(cwd / "cache")}
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120)


def train(folder: Path, *overrides: str) -> Path:
    done = command("train", "device=cpu", f"hydra.run.dir={folder / 'run'}", *overrides, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="session")
def trained_conditional(tmp_path_factory) -> Path:
    """A run on images in three classes, in [-1, 1], with normal latents, dropout, and an average of the generator."""
    folder, noise = tmp_path_factory.mktemp("conditional"), np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / "data" / f"class_{label}").mkdir(parents=True)
        for i in range(4):
            pixels = noise.integers(0, 256, (SIDE, SIDE), np.uint8)
            Image.fromarray(pixels).save(folder / "data" / f"class_{label}" / f"{i}.png")
    return train(
        folder,
        *("dataset=images", f"dataset.root={folder / 'data'}", "dataset.size=null", "dataset.channels=1"),
        *("dataset.value_range=[-1,1]", "architecture=mlp_conditional", "architecture.generator.output=[auto]"),
        *("architecture.generator.hidden=[16]", "architecture.generator.dropout=0.5"),
        *(f"architecture.latent.dim={LATENT}", "optimizer.generator.lr=0.05"),
        *("trainer.steps=6", "trainer.batch_size=4", "trainer.ema_decay=0.9"),
    )


@pytest.fixture(scope="session")
def trained_clusters(tmp_path_factory) -> Path:
    """A run on three dark images and nine bright ones, conditioned on two clusters of them."""
    folder, noise = tmp_path_factory.mktemp("clusters"), np.random.default_rng(0)
    (folder / "data").mkdir()
    for i in range(12):
        pixels = noise.integers(0, 40, (SIDE, SIDE), np.uint8) + (200 if i % 4 else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "data" / f"{i}.png")
    return train(
        folder,
        *("dataset=images", f"dataset.root={folder / 'data'}", "dataset.size=null", "dataset.channels=1"),
        *("dataset.clusters=2", "architecture=mlp_conditional", "architecture.generator.output=[auto]"),
        *("architecture.generator.hidden=[16]", f"architecture.latent.dim={LATENT}", "optimizer.generator.lr=0.05"),
        *("trainer.steps=6", "trainer.batch_size=4", "trainer.ema_decay=null", "metric=[]"),
    )


@pytest.fixture(scope="session")
def trained_pattern(tmp_path_factory) -> Path:
    """A run on vectors of six values, with uniform latents and without labels."""
    uniform = ("architecture.latent.distribution=uniform", "architecture.latent.dim=6")
    return train(tmp_path_factory.mktemp("pattern"), "trainer.steps=3", *uniform)


@pytest.fixture
def conditional(trained_conditional, tmp_path) -> Path:
    """A copy of that run elsewhere, whose data are out of reach."""
    run = shutil.copytree(trained_conditional, tmp_path / "elsewhere" / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["dataset"]["root"] = str(tmp_path / "not_here")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@pytest.fixture
def pattern(trained_pattern, tmp_path) -> Path:
    return shutil.copytree(trained_pattern, tmp_path / "pattern")
