"""Trains fifteen recipes and variants in two checkouts, and compares losses and weights: are they bit for bit the same?

    git worktree add /tmp/before 5999936
    python -m tests.compare_checkouts /tmp/before .          # 100 steps each on one thread: about ten minutes
    python -m tests.compare_checkouts /tmp/before --write    # the first ten steps, as tests/data/losses.json

`tests/test_unchanged.py` holds what is committed against that file. Both checkouts run by this interpreter.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch

from tests.training import write_images

DIGITS = Path(__file__).parent / "data" / "mnist"
LOSSES = Path(__file__).parent / "data" / "losses.json"
STEPS = 100
COMMON = (
    "device=cpu",
    "doctor=none",
    "metric=[]",
    "trainer.keep_checkpoints=1",
)
SMALL_CNN = ("architecture.generator.channels=8", "architecture.discriminator.channels=8", "trainer.batch_size=8")
IMAGES = ("dataset=images", "dataset.size=16", "dataset.channels=1")

# Adam's first step is the sign of the gradient, so that a rounding error in one that is nearly 0 decides the run.
CALM = ("+optimizer.generator.eps=0.001", "+optimizer.discriminator.eps=0.001")

# What each covers: see the comments. Later words win over earlier ones.
VARIANTS: dict[str, tuple[str, ...]] = {
    # batches of one, separate updates, layer norm, plain Adam
    "pattern_bce": ("experiment=pattern_bce",),
    "pattern_mse": ("experiment=pattern_mse",),
    # the default: fused Adam, a moving average, joint updates
    "default": (),
    # R1 at each step, dropout, uniform noise
    "pattern_fixed": ("experiment=pattern_fixed", "trainer.batch_size=64"),
    # Fourier features, a schedule and a warm-up, a moving average
    "ring_best": ("experiment=ring_best", "optimizer.warmup_steps=5", *CALM),
    # a paired loss, two lazy penalties, one forward for real and fake
    "grid_best": ("experiment=grid_best", "trainer.batch_size=64", *CALM),
    # a frozen generator at first, k = 5
    "theory_1d": ("experiment=theory_1d", "trainer.discriminator_steps=5", "trainer.generator_start=5"),
    # batch norm under the logit, DataParallel (on the CPU)
    "mnist_lsgan": ("experiment=mnist_lsgan", "device=data_parallel", "trainer.batch_size=64"),
    "mnist_conditional": ("experiment=mnist_conditional",),
    # convolutions and batch norm
    "mnist_cnn": ("experiment=mnist_cnn", "trainer.batch_size=16"),
    # the Wasserstein loss, its penalty, RMSprop, k = 3, reused noise, clipping
    "wasserstein": (
        *("dataset=ring", "architecture.latent.distribution=normal", "architecture.latent.dim=2"),
        *("loss=wasserstein", "regularizer=gradient_penalty", "optimizer=rmsprop", "trainer.discriminator_steps=3"),
        *("trainer.generator_noise=reused", "trainer.gradient_clip=0.5"),
    ),
    # hinge, spectral norm, projection and class-conditional batch norm
    "resnet": (*IMAGES, "architecture=resnet", "architecture.conditional=true", "loss=hinge", *SMALL_CNN),
    # least squares, batch norm in a DCGAN, a lazy penalty, an average, clipping
    "dcgan": (
        *(*IMAGES, "architecture=dcgan", "architecture.discriminator.normalization=layer", "loss=lsgan", *SMALL_CNN),
        *("regularizer=r2", "regularizer.r2.interval=4", "trainer.gradient_clip=1.0"),
    ),
    # the saturating loss, gradient descent with momentum, k = 2, separate updates, dropout
    "minimax": (
        *("experiment=vanilla_mlp_fixed", "loss=minimax", "regularizer=[]", "optimizer=sgd"),
        *("optimizer.generator.momentum=0.5", "trainer.discriminator_steps=2", "trainer.discriminator_update=separate"),
    ),
    # two processes, labels, batch norm, dropout, k = 2, a penalty at every twelfth step
    "two_processes": (
        *(*IMAGES, "architecture=mlp_dropout", "architecture.conditional=true", "architecture.generator.hidden=[16]"),
        *("architecture.generator.normalization=batch", "architecture.generator.output=[auto]"),
        *("architecture.discriminator.hidden=[16]", "architecture.discriminator.normalization=batch"),
        *("architecture.discriminator.output=[]", "regularizer=r1", "regularizer.r1.interval=24"),
        *("trainer.discriminator_steps=2", "trainer.batch_size=8", "trainer.ema_decay=0.9"),
        *("device=ddp", "device.processes=2"),
    ),
}


def words_of(variant: str, images: Path, steps: int, log_every: int) -> list[str]:
    """The overrides of a variant that trains for so many steps."""
    own = VARIANTS[variant]
    root = images if "dataset=images" in own else DIGITS
    words = [*COMMON, *own, f"trainer.steps={steps}", f"trainer.log_every={log_every}"]
    words += [f"trainer.{key}={steps}" for key in ("sample_every", "evaluate_every", "checkpoint_every")]
    if "dataset=images" in own or any(word.startswith(("experiment=mnist", "experiment=vanilla")) for word in own):
        words.append(f"dataset.root={root}")
    kept: dict[str, str] = {}
    for word in words:  # Hydra refuses the same group twice
        key = word.partition("=")[0]
        kept.pop(key, None)
        kept[key] = word
    return list(kept.values())


def losses_of(run: Path) -> list[dict[str, float]]:
    """The figures of each logged step that do not depend on the clock or the machine."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = ("loss/", "score/", "gradient_norm/", "logits/", "divergence/", "theory/")
    return [{k: float(f"{v:.9g}") for k, v in row.items() if k.startswith(figures)} for row in rows]  # of float32, all


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint: weights, buffers, moments, average."""
    (file,) = (run / "checkpoints").glob("step_*.safetensors")
    return safetensors.torch.load(file.read_bytes())


def train(checkout: Path, run: Path, words: list[str]) -> None:
    """One run of the code in `checkout`; CalledProcessError where it does not complete."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GAN_RUNNER_CACHE": str(run.parent / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "gan_runner.train", f"hydra.run.dir={run}", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(words)}\n{done.stderr}")


def difference(one: Path, other: Path) -> tuple[float, float]:
    """The largest differences of a loss and of a weight between two runs, infinite where they are not comparable."""
    losses, weights = [losses_of(run) for run in (one, other)], [weights_of(run) for run in (one, other)]
    if [row.keys() for row in losses[0]] != [row.keys() for row in losses[1]] or weights[0].keys() != weights[1].keys():
        return float("inf"), float("inf")
    of_losses = [abs(a[tag] - b[tag]) for a, b in zip(*losses, strict=True) for tag in a]
    of_weights = [float((a.double() - weights[1][name].double()).abs().max()) for name, a in weights[0].items()]
    return max(of_losses), max(of_weights)


def main() -> None:
    """Compares, or writes the fixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    fixture: dict[str, list[dict[str, float]]] = {}
    equal = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder / "images", side=16)
        for variant in arguments.only:
            steps, log_every = (10, 1) if arguments.write else (STEPS, 5)
            words = words_of(variant, images, steps, log_every)
            train(arguments.before.resolve(), folder / f"{variant}_before", words)
            if arguments.write:
                fixture[variant] = losses_of(folder / f"{variant}_before")
                continue
            train(arguments.after.resolve(), folder / f"{variant}_after", words)
            loss, weight = difference(folder / f"{variant}_before", folder / f"{variant}_after")
            equal &= loss == weight == 0
            print(f"{variant:20} losses differ by {loss:.3g}, weights by {weight:.3g}", flush=True)
    if arguments.write:
        rows = {variant: ",\n".join(json.dumps(row) for row in rows) for variant, rows in fixture.items()}
        LOSSES.write_text("{" + ",\n".join(f'"{variant}": [\n{text}]' for variant, text in rows.items()) + "}\n")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
