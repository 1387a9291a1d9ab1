"""What three minutes of training make of digits: python outputs/gallery/three_minutes.py MNIST_ROOT [SEED ...].

Each recipe trains in turn, with nothing else running, and is stopped 180 seconds after its start if it has not come to
its end by then: reading the data and finding clusters count. FIDs are by the digit classifier, 10,000 samples against
the 10,000 test digits.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

RECIPES = {
    "mnist_fast_conditional": [],
    "mnist_fast": [],
    "mnist_fast without clusters": [
        *("dataset.clusters=null", "architecture.conditional=false"),
        *("architecture.generator.conditioning=null", "architecture.discriminator.conditioning=null"),
        "trainer.steps=13000",
    ],
    "peer_gan": [],
    "peer_dcgan": [],
}
SECONDS = 180.0
ROOT, *SEEDS = sys.argv[1:]
TO = Path("outputs/three_minutes")
PYTHON = [sys.executable, "-m"]


def train(recipe: str, seed: str) -> Path:
    """Trains for three minutes at most; returns the run's directory."""
    run = TO / f"{recipe.replace(' ', '_')}-{seed}"
    words = [
        f"experiment={recipe.partition(' ')[0]}",
        *RECIPES[recipe],
        f"dataset.root={ROOT}",
        f"seed={seed}",
        "metric=[]",
    ]
    if run.exists():
        raise SystemExit(f"{run} is there already; remove it")
    process = subprocess.Popen(
        [*PYTHON, "gan_runner.train", *words, f"hydra.run.dir={run}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
    status = run / "status.json"  # and not the exit status: the signal may come when all is done
    if not status.exists() or json.loads(status.read_text())["state"] not in ("completed", "interrupted"):
        raise SystemExit(f"{recipe}: exit status {process.returncode}; see {run}/log.txt")
    return run


def measure(run: Path) -> None:
    """Prints how far the run came, and its FID."""
    words = [f"run={run}", "metric=[fid,class_balance]", "evaluation.real=held_out"]
    subprocess.run(
        [*PYTHON, "gan_runner.evaluate", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    figures = json.loads((run / "evaluation.json").read_text())["figures"]
    step = json.loads((run / "status.json").read_text())["step"]
    seconds = json.loads((run / "manifest.json").read_text())["wall_seconds"]
    print(
        f"{run.name:30} {step:7,} steps in {seconds:3.0f} s  FID {figures['fid']['value']:7.3f}  (a perfect sampler "
        f"{figures['fid']['perfect']:.3f})  class KL {figures['class_kl']['value']:.4f}",
        flush=True,
    )


for seed in SEEDS or ["0", "1", "2"]:
    for recipe in RECIPES:
        measure(train(recipe, seed))
