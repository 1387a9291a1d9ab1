"""The inputs of cases: data sets and runs, made once and copied; and paths of odd kinds, made for each."""

import gzip
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.datasets.made_up import idx
from tests.fuzz.case import Case

SIDE = 16
CLASSES = ("cat", "dog", "owl")
RUN = (
    "trainer.steps=4",
    "trainer.batch_size=4",
    "trainer.checkpoint_every=2",
    "trainer.log_every=2",
    "metric.pattern.samples=20",
    "architecture.generator.hidden=[4]",
    "architecture.discriminator.hidden=[4]",
    "device=cpu",
)
LABELLED = (
    "dataset=images",
    "dataset.root=photos",
    f"dataset.size={SIDE}",
    "architecture=mlp_conditional",
    "architecture.generator.hidden=[4]",
    "architecture.discriminator.hidden=[4]",
    "trainer.steps=4",
    "trainer.batch_size=4",
    "trainer.checkpoint_every=2",
    "metric=[neighbours]",
    "metric.neighbours.samples=4",
    "device=cpu",
)
Train = Callable[[list[str], Path], None]


class Inputs:
    """What cases need, by name, in a folder from which it is copied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, train: Train) -> None:
        """Makes the data sets and runs; `train` runs a training in a folder."""
        self.folder.mkdir()
        _photos(self.folder / "photos")
        _flat(self.folder / "flat")
        _zip(self.folder / "photos.zip", self.folder / "photos")
        _digits(self.folder / "digits")
        _faces(self.folder / "faces")
        train([*RUN, "hydra.run.dir=run"], self.folder)
        train([*LABELLED, "hydra.run.dir=labelled"], self.folder)
        for seed in (1, 2):
            shutil.copytree(self.folder / "run", self.folder / "runs" / f"seed-{seed}")
            _change_config(self.folder / "runs" / f"seed-{seed}", "seed", seed)
        shutil.copytree(self.folder / "run", self.folder / "stopped")
        _stop(self.folder / "stopped")
        shutil.rmtree(self.folder / "outputs", ignore_errors=True)

    def lay_out(self, case: Case, work: Path) -> None:
        """Puts what the case needs into its working directory."""
        for name in case.needs:
            if name in ODD:
                ODD[name](work / name)
            elif (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, work / name, symlinks=True)
            else:
                shutil.copy2(self.folder / name, work / name)
        for name, content in case.files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if case.build is not None:
            case.build(work)


def _photos(folder: Path) -> None:
    noise = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(4 + label):
            pixels = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def _flat(folder: Path) -> None:
    noise = np.random.default_rng(1)
    folder.mkdir()
    for i in range(10):
        pixels = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def _zip(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))


def _digits(folder: Path) -> None:
    noise = np.random.default_rng(2)
    folder.mkdir()
    for prefix, count in (("train", 40), ("t10k", 20)):
        images = noise.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), mtime=0))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))


def _faces(folder: Path) -> None:
    noise = np.random.default_rng(3)
    names = [f"{i:06}.jpg" for i in range(1, 13)]
    (folder / "img_align_celeba").mkdir(parents=True)
    for name in names:
        Image.fromarray(noise.integers(0, 256, (218, 178, 3), dtype=np.uint8)).save(folder / "img_align_celeba" / name)
    parts = [f"{name} {i // 4}" for i, name in enumerate(names)]
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    signs = [f"{name} {1 if i % 2 else -1} 1" for i, name in enumerate(names)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["12", "Smiling Bald", *signs]) + "\n")


def _change_config(run: Path, key: str, value: int) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {key: value}, sort_keys=False))


def _stop(run: Path) -> None:
    """Makes it a run that was stopped at step 4 of 8."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["steps"] = 8
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run / "status.json").write_text(json.dumps({"state": "interrupted", "step": 4, "message": None}))


def _locked(path: Path) -> None:
    path.mkdir()
    (path / "inside.png").write_bytes(b"")
    path.chmod(0)


def _read_only(path: Path) -> None:
    path.mkdir()
    path.chmod(0o555)


def _full(path: Path) -> None:
    """A folder with a file of the user's in it."""
    path.mkdir()
    (path / "notes.txt").write_text("mine\n")


ODD: dict[str, Callable[[Path], object]] = {
    "file.txt": lambda path: path.write_text("no run, no image\n"),
    "empty": lambda path: path.mkdir(),
    "full": _full,
    "loop": lambda path: path.symlink_to("loop"),
    "broken": lambda path: path.symlink_to("nowhere_at_all"),
    "pipe": os.mkfifo,
    "locked": _locked,
    "read_only": _read_only,
}
