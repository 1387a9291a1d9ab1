"""`gan-classifier`: what it learns, where it puts it, what it refuses."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from gan_runner.classifier import main
from gan_runner.commands import classifier as classification
from gan_runner.commands.classifier import train_classifier
from gan_runner.config import composition
from gan_runner.console import Progress
from gan_runner.datasets import Images
from gan_runner.errors import UserError
from gan_runner.evaluation.classifier import ClassifierNetwork
from gan_runner.evaluation.extractors import Classifier, find_extractor
from gan_runner.status import Status
from tests.conftest import REPOSITORY, tree
from tests.datasets.made_up import idx
from tests.training import TINY
from tests.training import train as gan_train

CPU = torch.device("cpu")


def train(*overrides: str) -> Classifier:
    """What `gan-classifier` does with the overrides, in this process."""
    words = ["device=cpu", "width=4", "steps=40", "batch_size=16", *overrides]
    return Classifier(train_classifier(composition.plain(composition.compose(words, "classifier"))), CPU)


@pytest.fixture
def corners(tmp_path, monkeypatch) -> list[str]:
    """60 noisy colour images in three classes: which corner is bright."""
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    for i in range(60):
        image = noise.integers(0, 128, (8, 8, 3), np.uint8)
        rows, columns = [(slice(3), slice(3)), (slice(3), slice(5, 8)), (slice(5, 8), slice(3))][i % 3]
        image[rows, columns] = 255
        path = tmp_path / "data" / f"class_{i % 3}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return ["dataset=images", f"dataset.root={tmp_path / 'data'}", "dataset.size=8"]


def the_images(folder: Path, channels: Literal[1, 3] = 3) -> Images:
    return Images(root=str(folder / "data"), size=8, crop=None, channels=channels, value_range=(-1, 1))


def test_a_training_that_diverges_leaves_nothing(corners, tmp_path):
    with pytest.raises(UserError, match=r"lr=1e\+30: the training diverged, and nothing is kept; try lr=1e\+29"):
        train(*corners, "lr=1e30")
    assert not (tmp_path / "cache" / "extractors").exists()


def test_a_classifier_of_images_in_folders_is_found_by_every_run_on_them(corners, tmp_path, capsys):
    made = train(*corners)
    about = made.info
    assert (about.shape, made.classes, made.name) == ((3, 8, 8), 3, "classifier")
    assert (about.training_images, about.test_images) == (54, 6)
    assert about.tested_on == "a tenth of the training data, kept apart"
    assert about.accuracy == 1.0
    said = capsys.readouterr().err
    assert "100.00% of 6 test images are classified correctly (a tenth of the training data, kept apart)" in said
    assert "s left" in said

    data = the_images(tmp_path)
    found = find_extractor("auto", data, CPU)
    assert found is not None
    assert found.hash == made.hash
    images, labels = data.batch(0, 60, seed=0)
    predicted = found((images + 1) / 2)[1]
    assert labels is not None
    assert predicted is not None
    assert int(predicted.eq(labels).sum()) >= 57
    assert find_extractor("auto", the_images(tmp_path, channels=1), CPU) is None


def test_the_same_seed_gives_the_same_file(corners, tmp_path):
    outs = [f"out={tmp_path / name}.safetensors" for name in ("a", "b", "c")]
    first, again, other = (train(*corners, "steps=5", out, f"seed={i // 2}") for i, out in enumerate(outs))
    assert first.hash == again.hash != other.hash


def test_the_test_split_is_what_tells_where_there_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))
    source = REPOSITORY / "tests" / "data" / "mnist"
    for content in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        values = gzip.decompress((source / f"train-{content}.gz").read_bytes())
        header = 16 if "images" in content else 8
        array = np.frombuffer(values, np.uint8, offset=header)
        array = array.reshape(-1, 28, 28) if "images" in content else array
        (tmp_path / f"train-{content}").write_bytes(idx(array[:150]))
        (tmp_path / f"t10k-{content}").write_bytes(idx(array[150:]))
    made = train("dataset=mnist", f"dataset.root={tmp_path}", "steps=2")
    assert (made.info.tested_on, made.info.test_images, made.info.training_images) == ("held-out data", 50, 150)
    assert "evaluation.extractor=auto stays with the package's 'digits'" in capsys.readouterr().err


def test_what_it_is_tested_on_is_not_trained_on(corners, monkeypatch):
    used = {}

    def train_network(dataset, rows, settings, device):
        used["training"] = rows
        return ClassifierNetwork(dataset.shape, 3, 4)

    def accuracy(network, dataset, rows, device):
        used["test"] = rows
        return 0.5

    monkeypatch.setattr(classification, "train_network", train_network)
    monkeypatch.setattr(classification, "accuracy", accuracy)
    train(*corners)
    assert sorted(torch.cat([used["training"], used["test"]]).tolist()) == list(range(60))
    assert len(used["test"]) == 6


def test_accuracy_is_the_share_of_right_answers(corners, tmp_path):
    made = train(*corners, "steps=3")  # hardly trained: some are wrong
    data, rows = the_images(tmp_path), torch.arange(0, 60, 3)
    images, labels = data[rows]
    assert labels is not None
    expected = int((made((images + 1) / 2)[1] == labels).sum()) / 20
    assert 0 < expected < 1
    found = classification.accuracy(made._network, data, rows, CPU)
    assert found == pytest.approx(expected)


# What is refused, and what a stop leaves


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "unlabelled": ("dataset.root={flat}", "two or more classes to tell apart; these data have 0"),
        "vectors": ("dataset=pattern", "samples of the shape (6,)"),
        "too small": ("dataset.size=4", "samples of the shape (3, 4, 4)"),
        "batch": ("batch_size=55", "batch_size=55: there are 54 images to train on"),
        "key": ("stepz=5", "stepz: no such key; did you mean 'steps'?"),
        "type": ("lr=fast", "lr: found 'fast'"),
        "name of the file": ("out=a.pth", "out=a.pth: allowed: a file whose name ends in .safetensors"),
        "folder that is a file": ("out={flat}/0.png/a.safetensors", "nothing can be written to"),
        "folder that is a broken link": ("out=broken/a.safetensors", "nothing can be written to"),
        "folder that the system made": ("out=/proc/a.safetensors", "nothing can be written to '/proc'"),
        "devices": ("device=ddp", "device=ddp: this command is one process"),
        "clusters": ("dataset.clusters=2", "clusters are none; use dataset.clusters=null"),
    }.values(),
)
def test_refusals(corners, tmp_path, monkeypatch, words, said):
    (tmp_path / "flat").mkdir()
    for i, path in enumerate(sorted((tmp_path / "data" / "class_0").iterdir())[:4]):
        (tmp_path / "flat" / f"{i}.png").write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    Path("broken").symlink_to("nowhere")
    before = set(tree(tmp_path))
    with pytest.raises(UserError) as refused:
        train(*(corners if "dataset=" not in words else []), words.format(flat=tmp_path / "flat"))
    assert said in str(refused.value)
    assert {path for path in set(tree(tmp_path)) - before if not path.startswith("cache")} == set()


def test_a_classifier_that_is_there_is_not_overwritten(corners, tmp_path):
    train(*corners)
    (kept,) = (tmp_path / "cache" / "extractors").iterdir()
    (tmp_path / "precious.safetensors").write_bytes(b"weights")
    before = kept.read_bytes()
    for words in ([], [f"out={tmp_path / 'precious.safetensors'}"]):
        with pytest.raises(UserError, match="is there already, and figures rest on it; name another file, or remove"):
            train(*corners, "steps=1", *words)
    assert kept.read_bytes() == before
    assert (tmp_path / "precious.safetensors").read_bytes() == b"weights"


def test_a_run_is_not_measured_through_one_classifier_and_then_another(corners, tmp_path, capsys):
    train(*corners)
    (kept,) = (tmp_path / "cache" / "extractors").iterdir()
    first, run = kept.read_bytes(), tmp_path / "run"
    words = [*corners, *TINY, "architecture=mlp_layernorm", "architecture.generator.hidden=[4]"]
    words += ["metric=[class_balance]", "metric.class_balance.samples=50"]
    assert gan_train(run, *words, "trainer.steps=5") == Status.COMPLETED
    digest = hashlib.sha256(first).hexdigest()
    assert json.loads((run / "manifest.json").read_text())["extractor"] == digest

    kept.unlink()
    train(*corners, "steps=1")
    before = tree(run)
    capsys.readouterr()
    assert gan_train(run, *words, "trainer.steps=10") == Status.REFUSED
    said = capsys.readouterr().err
    assert f"evaluation.extractor: the run in {run} was measured through one of SHA-256 {digest[:8]}" in said
    assert tree(run) == before

    kept.write_bytes(first)
    assert gan_train(run, *words, "trainer.steps=10") == Status.COMPLETED


@pytest.fixture
def typed(corners, monkeypatch) -> Callable[..., int]:
    """`typed(*words)` is the command, on the images in three classes; returns its exit status."""

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "path", [*sys.path])
        command = ["gan-classifier", "device=cpu", "steps=20", "batch_size=8", *corners, *words]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code

    return run


def test_a_stop_leaves_nothing(typed, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "show", stop)
    assert typed() == 130
    assert not (tmp_path / "cache" / "extractors").exists()


def test_the_command_says_where_the_file_is(typed, capsys):
    assert typed() == 0
    assert Classifier(Path(capsys.readouterr().out.splitlines()[-1]), CPU).classes == 3


@pytest.mark.parametrize("words", [["metric=[fid]"], ["metric=fid", "metric.fid.samples=100"]])
def test_a_metric_is_refused_where_it_would_be_ignored(typed, tmp_path, capsys, words):
    assert typed(*words) == 2
    assert capsys.readouterr().err.startswith("error: metric: belongs to a run; a classifier is judged by its test")
    assert not (tmp_path / "cache" / "extractors").exists()


def test_help_needs_no_torch(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from gan_runner.classifier import main; main()"
    command, environment = [sys.executable, "-c", code, "--help"], os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gan-classifier dataset=fashion_mnist" in done.stdout
    assert not any(tmp_path.iterdir())
