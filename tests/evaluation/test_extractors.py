"""Extractors: the one that ships, bad files, and which one a dataset gets."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from gan_runner.config import composition
from gan_runner.datasets import MNIST, ArrayDataset
from gan_runner.errors import UserError
from gan_runner.evaluation import extractors
from gan_runner.evaluation.classifier import ClassifierNetwork
from gan_runner.evaluation.extractors import (
    Classifier,
    Inception,
    PerChannel,
    Resized,
    classifier_path,
    find_extractor,
    how_to_make,
)
from gan_runner.metrics import FID, Samples
from gan_runner.overrides import command
from gan_runner.tensor_files import dump
from tests.conftest import REPOSITORY

CPU = torch.device("cpu")
DIGITS = extractors.SHIPPED / "digits.safetensors"


@pytest.fixture(scope="module")
def digits() -> MNIST:
    root = str(REPOSITORY / "tests" / "data" / "mnist")
    return MNIST(variant="mnist", root=root, download=False, split="train", value_range=(0.0, 1.0))


@pytest.fixture(scope="module")
def images_and_labels(digits) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = digits.batch(0, len(digits), seed=0)
    return images, labels


def about(shape: tuple[int, ...] = (1, 8, 8), classes: int = 3, width: int = 2) -> dict:
    facts = {"name": "tiny", "shape": list(shape), "classes": classes, "width": width, "accuracy": 0.5}
    training = {"training_images": 9, "steps": 1, "batch_size": 2, "lr": 0.1, "augment": False, "seed": 0}
    return facts | training | {"tested_on": "held-out data", "test_images": 4, "fingerprint": "00"}


def write(path: Path, **facts) -> Path:
    """A classifier of random weights."""
    torch.manual_seed(0)
    says = about(**facts)
    network = ClassifierNetwork(tuple(says["shape"]), says["classes"], says["width"])
    path.write_bytes(dump({"about": says, "network": network.state_dict()}))
    return path


def vectors() -> ArrayDataset:
    return ArrayDataset(np.zeros((4, 2), np.float32))


def pictures(classes: int = 0, value_range: tuple[float, float] = (0, 1)) -> ArrayDataset:
    data = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), np.uint8)
    labels = torch.arange(6) % classes if classes else None
    return ArrayDataset(data, labels, value_range=value_range, num_classes=classes)


# The extractor that ships


def test_the_shipped_digits_are_small_known_and_right(digits, images_and_labels):
    images, labels = images_and_labels
    extractor = find_extractor("auto", digits, CPU)
    assert isinstance(extractor, Classifier)
    assert (extractor.name, extractor.classes) == ("digits", 10)
    assert extractor.hash == hashlib.sha256(DIGITS.read_bytes()).hexdigest() == extractors.SHA256["digits"]
    assert DIGITS.stat().st_size < 500_000
    assert extractor.info.accuracy >= 0.992
    assert extractor.info.test_images == 10_000

    features, predicted = extractor(images)
    assert features.shape == (200, 64)
    assert (features.dtype, predicted.dtype) == (torch.float32, torch.int64)
    assert (features >= 0).all()
    assert float((predicted == labels).float().mean()) >= 0.98
    assert torch.equal(features, extractor(images)[0])


@pytest.mark.parametrize("side", [32, 64])
def test_digits_of_another_size_are_resized_and_still_read(side):
    root = str(REPOSITORY / "tests" / "data" / "mnist")
    digits = MNIST(variant="mnist", root=root, download=False, split="train", value_range=(0.0, 1.0), size=side)
    extractor = find_extractor("auto", digits, CPU)
    assert isinstance(extractor, Resized)
    assert (extractor.name, extractor.hash) == ("digits_resized", extractors.SHA256["digits"])
    images, labels = digits.batch(0, len(digits), seed=0)
    assert labels is not None
    features, predicted = extractor(images)
    assert features.shape == (200, extractor.features)
    assert float((predicted == labels).float().mean()) >= 0.98


def test_the_shipped_digits_are_what_the_command_makes_by_default():
    asked = composition.plain(composition.compose(["dataset=mnist", "name=digits"], "classifier"))
    made = Classifier(DIGITS, CPU).info.model_dump()
    assert {key: made[key] for key in asked if key in made} == {key: asked[key] for key in asked if key in made}
    assert len(asked.keys() & made.keys()) == 7


def test_features_are_what_the_file_s_tensors_give(images_and_labels):
    images, _ = images_and_labels
    t = {name.removeprefix("network/"): tensor for name, tensor in safetensors.torch.load_file(DIGITS).items()}
    x = images[:20].double()
    for block, stride in enumerate([1, 2, 1, 2, 1]):
        x = F.conv2d(x, t[f"blocks.{block}.0.weight"].double(), stride=stride, padding=1)
        mean, var, gain, bias = (
            t[f"blocks.{block}.1.{name}"].double().reshape(1, -1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = ((x - mean) / (var + 1e-5).sqrt() * gain + bias).clamp_min(0)
    expected = x.mean((2, 3))
    features, predicted = Classifier(DIGITS, CPU)(images)
    assert torch.allclose(features[:20].double(), expected, rtol=1e-4, atol=1e-5)
    logits = expected @ t["head.weight"].double().T + t["head.bias"].double()
    assert torch.equal(predicted[:20], logits.argmax(1))


@pytest.mark.parametrize(
    ("shape", "last_map"),
    [((1, 8, 8), (2, 2)), ((1, 28, 28), (7, 7)), ((3, 33, 64), (5, 8)), ((3, 128, 128), (8, 8)), ((1, 9, 40), (3, 10))],
)
def test_a_network_for_any_size(shape, last_map):
    network = ClassifierNetwork(shape, classes=5, width=4).eval()
    images = torch.rand(2, *shape)
    assert network.blocks(images).shape == (2, 16, *last_map)
    features, logits = network(images)
    assert (features.shape, logits.shape) == ((2, 16), (2, 5))


def test_fid_by_the_digits_grows_as_digits_are_spoilt(images_and_labels, digits):
    images, labels = images_and_labels
    extractor = Classifier(DIGITS, CPU)
    real = Samples(images, extracted=extractor(images))

    def fid(spoilt: torch.Tensor) -> float:
        return FID(len(spoilt)).measure(Samples(spoilt, extracted=extractor(spoilt)), real, digits)["fid"]

    blurred = [fid(gaussian_blur(images, [13, 13], [width, width])) for width in (0.5, 1.0, 2.0)]
    kept = [fid(images[labels < classes]) for classes in (10, 9, 8, 7)]
    noise = fid(torch.rand(images.shape, generator=torch.Generator().manual_seed(0)))
    assert kept == sorted(kept)
    assert kept[0] < blurred[0] < blurred[1] < blurred[2] < noise / 5


# Channels that are images of their own


def test_a_classifier_that_looks_at_each_channel_by_itself(images_and_labels):
    images, _ = images_and_labels
    one = Classifier(DIGITS, CPU)
    stacked = PerChannel(one, 3)
    assert (stacked.classes, stacked.hash) == (1000, one.hash)
    features, classes = one(images[:6])
    together, numbers = stacked(images[:6].reshape(2, 3, 28, 28))
    a, b, c, d, e, f = classes.tolist()
    assert numbers.tolist() == [100 * a + 10 * b + c, 100 * d + 10 * e + f]
    assert torch.allclose(together, torch.stack([features[:3].flatten(), features[3:].flatten()]), atol=1e-5)


def test_the_number_of_two_channels_in_three_classes(tmp_path):
    one = Classifier(write(tmp_path / "c.safetensors"), CPU)
    images = torch.rand(4, 2, 8, 8)
    stacked = PerChannel(one, 2)
    first, second = one(images[:, :1])[1], one(images[:, 1:])[1]
    assert stacked.classes == 9
    assert torch.equal(stacked(images)[1], 3 * first + second)


def test_a_dataset_of_independent_channels_gets_one(tmp_path):
    data = ArrayDataset(np.zeros((4, 2, 8, 8), np.uint8), value_range=(0, 1))
    path = str(write(tmp_path / "c.safetensors"))
    with pytest.raises(UserError, match=r"\(1, 8, 8\); these are \(2, 8, 8\)"):
        find_extractor(path, data, CPU)
    data.independent_channels = True
    found = find_extractor(path, data, CPU)
    assert isinstance(found, PerChannel)
    assert found.classes == 9


# Which one a dataset gets


def test_auto_finds_the_classifier_of_these_images_whatever_the_networks_range(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path))
    data = pictures(classes=3)
    assert find_extractor("auto", data, CPU) is None
    classifier_path(data).parent.mkdir()
    write(classifier_path(data))
    assert classifier_path(data) == tmp_path / "extractors" / f"{data.fingerprint()}.safetensors"
    found = find_extractor("auto", pictures(classes=3, value_range=(-1, 1)), CPU)
    assert found is not None
    assert found.name == "tiny"
    assert find_extractor("auto", pictures(classes=2), CPU) is None
    assert find_extractor("auto", vectors(), CPU) is None


def test_what_makes_one():
    assert f"{command('classifier')} dataset=" in how_to_make(pictures(classes=3), "features")
    assert "weights-inception-2015-12-05-6726825d.pth" in how_to_make(pictures(), "features")
    assert "a classifier of other images" in how_to_make(pictures(), "classes")
    assert "images" in how_to_make(vectors(), "features")


# What is refused


def test_files_that_are_no_classifier(tmp_path):
    good = write(tmp_path / "good.safetensors").read_bytes()
    network = ClassifierNetwork((1, 8, 8), 3, 2).state_dict()
    poisoned = network | {"head.bias": torch.tensor([0.0, float("nan"), 0.0])}
    bad = {
        "damaged": (good[:-1], "is no safetensors file"),
        "empty": (b"", "is no safetensors file"),
        "foreign": (safetensors.torch.save({"weight": torch.zeros(2)}), "is not what gan-classifier writes: name"),
        "other network": (dump({"about": about(width=3), "network": network}), "not what gan-classifier writes"),
        "none": (dump({"about": about()}), "not what gan-classifier writes"),
        "huge": (dump({"about": about(width=10**8), "network": network}), "not what gan-classifier writes"),
        "shape": (dump({"about": about(shape=(8, 8)), "network": network}), "not what gan-classifier writes: shape"),
        "numbers": (dump({"about": about(), "network": poisoned}), "not finite"),
    }
    for name, (content, said) in bad.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(UserError, match=said) as refused:
            find_extractor(str(path), pictures(), CPU)
        assert str(path) in str(refused.value)
    with pytest.raises(UserError, match="No such file"):
        find_extractor(str(tmp_path / "nowhere.safetensors"), pictures(), CPU)
    with pytest.raises(UserError, match=r"evaluation\.extractor=best: allowed: auto, a classifier"):
        find_extractor("best", pictures(), CPU)


def test_images_of_another_shape(digits, tmp_path):
    extractor = Classifier(DIGITS, CPU)
    with pytest.raises(UserError, match=r"\(1, 28, 28\); these are \(3, 32, 32\)"):
        extractor(torch.zeros(2, 3, 32, 32))
    with pytest.raises(UserError, match=r"\(1, 28, 28\); these are \(1, 8, 8\)"):
        find_extractor(str(DIGITS), pictures(), CPU)
    with pytest.raises(UserError, match=r"these are \(2,\)"):
        find_extractor(str(DIGITS), vectors(), CPU)


def test_a_shipped_file_that_was_changed(digits, tmp_path, monkeypatch):
    content = bytearray(DIGITS.read_bytes())
    content[-1] ^= 1  # still a classifier
    (tmp_path / "digits.safetensors").write_bytes(content)
    monkeypatch.setattr(extractors, "SHIPPED", tmp_path)
    with pytest.raises(UserError, match="install it again"):
        find_extractor("auto", digits, CPU)


# Inception


def test_inception_from_a_file(tmp_path, monkeypatch):
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patched:  # a network of random weights
        patched.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = inception.FeatureExtractorInceptionV3("random", ["2048"])
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    extractor = find_extractor(str(path), pictures(), CPU)
    assert isinstance(extractor, Inception)
    assert (extractor.name, extractor.classes) == ("inception", 0)
    assert extractor.hash == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()  # 90 MB

    grey = torch.tensor([0.0, 0.3, 0.499, 1.0]).reshape(1, 1, 2, 2)  # in bytes 0, 76.5, 127.2, 255
    as_bytes = torch.tensor([0, 76, 127, 255], dtype=torch.uint8).reshape(1, 1, 2, 2).repeat(1, 3, 1, 1)
    features, classes = extractor(grey)
    assert classes is None
    assert features.shape == (1, 2048)
    assert torch.equal(features, network(as_bytes)[0])
    with pytest.raises(UserError, match="grey or colour"):
        extractor.check((2,))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_in_a_weights_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {"evil": Evil(), "other": {"weight": torch.zeros(2)}}.items():
        torch.save(content, f"{name}.pth")
        with pytest.raises(UserError, match=rf"{name}.pth: holds no Inception weights"):
            find_extractor(f"{name}.pth", pictures(), CPU)
    Path("text.pth").write_text("hello")
    with pytest.raises(UserError, match=r"text.pth: holds no Inception weights"):
        find_extractor("text.pth", pictures(), CPU)
    assert not Path("executed").exists()
