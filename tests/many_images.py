"""Makes a folder of many small images, and measures how they are found, decoded, kept and left.

    python -m tests.many_images FOLDER [COUNT]

FOLDER/images is made unless it is there; FOLDER/cache is emptied. 100,000 images take 2 minutes on two cores.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import REPOSITORY

CLASSES = 10
SIDE = 32
LOAD = f"""
import resource, sys, time
from pathlib import Path
from gan_runner.datasets.image_cache import load
from gan_runner.datasets.image_files import ImageFiles

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

begun, before = time.perf_counter(), peak()
files = ImageFiles.find(Path(sys.argv[1]))
found = time.perf_counter()
pixels = load(files, list(files.stamps), {SIDE}, None, 3)[0]
loaded = time.perf_counter()
print(f"{{len(pixels):,}} images of {{len(files.stamps):,}}: found in {{found - begun:.1f}} s, "
      f"loaded in {{loaded - found:.1f}} s, {{peak():.0f}} MiB at the peak, {{before:.0f}} of them before")
"""


def make(folder: Path, count: int) -> None:
    """JPEGs and PNGs of smooth noise, in folders of classes."""
    random = np.random.default_rng(0)
    for number in range(CLASSES):
        (folder / f"class {number}").mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        name = f"{number:07}.{('jpg', 'png')[number % 2]}"
        coarse.resize((SIDE, SIDE)).save(folder / f"class {number % CLASSES}" / name)


def main() -> None:
    folder, count = Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    images, cache = folder / "images", folder / "cache"
    environment = os.environ | {"GAN_RUNNER_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)}
    if not images.is_dir():
        begun = time.perf_counter()
        make(images, count)
        print(f"{count:,} images made in {time.perf_counter() - begun:.0f} s", flush=True)
    shutil.rmtree(cache, ignore_errors=True)

    train = [sys.executable, "-m", "gan_runner.train", "dataset=images", f"dataset.root={images}", "name=many"]
    process = subprocess.Popen([*train, f"dataset.size={SIDE}"], env=environment, cwd=folder, stderr=subprocess.PIPE)
    while not any(cache.glob("*.new")):
        time.sleep(0.1)
    time.sleep(3)
    begun = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    left = [path.suffix for path in cache.iterdir()]
    print(
        f"TERM answered in {time.perf_counter() - begun:.1f} s, status {process.returncode}, left: {left}", flush=True
    )

    shutil.rmtree(cache)
    for which in ("first", "second"):
        print(f"{which} start:", end=" ", flush=True)
        subprocess.run([sys.executable, "-c", LOAD, str(images)], env=environment, check=True)
    print(f"cache: {sum(path.stat().st_size for path in cache.iterdir()) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
