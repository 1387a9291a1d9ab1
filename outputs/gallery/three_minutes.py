"""What three minutes of training make of digits: python outputs/gallery/three_minutes.py MNIST_ROOT [SEED ...].

Each recipe trains for 180 seconds from its first step on, in turn, with nothing else running. One that has not come to
its end by then is stopped, and saves itself. FIDs are by the digit classifier, 10,000 samples against the 10,000 test
digits.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

RECIPES = ("mnist_fast", "mnist_fast_conditional", "peer_gan", "peer_dcgan")
SECONDS = 180.0
ROOT, *SEEDS = sys.argv[1:]
TO = Path("outputs/three_minutes")
PYTHON = [sys.executable, "-m"]


def train(recipe: str, seed: str) -> Path:
    """Trains for three minutes; returns the run's directory."""
    run = TO / f"{recipe}-{seed}"
    words = [f"experiment={recipe}", f"dataset.root={ROOT}", f"seed={seed}", "metric=[]", f"hydra.run.dir={run}"]
    process = subprocess.Popen(
        [*PYTHON, "gan_runner.train", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (
        (run / "log.txt").exists() and "from step 0" in (run / "log.txt").read_text()
    ):
        time.sleep(0.01)
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
    if process.returncode not in (0, 75):
        raise SystemExit(f"{recipe}: exit status {process.returncode}; see {run}/log.txt")
    return run


def measure(run: Path) -> None:
    """Prints how far the run came, and its FID."""
    words = [f"run={run}", "metric=fid", "evaluation.real=held_out"]
    subprocess.run(
        [*PYTHON, "gan_runner.evaluate", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    fid = json.loads((run / "evaluation.json").read_text())["figures"]["fid"]
    step = json.loads((run / "status.json").read_text())["step"]
    print(
        f"{run.name:26} {step:7,} steps  FID {fid['value']:7.3f}  (a perfect sampler {fid['perfect']:.3f})", flush=True
    )


for seed in SEEDS or ["0", "1", "2"]:
    for recipe in RECIPES:
        measure(train(recipe, seed))
