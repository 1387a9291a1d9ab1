import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from gan_runner.datasets import MNIST, StackedMNIST
from gan_runner.errors import UserError
from tests.datasets.made_up import idx

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def write(folder: Path, prefix: str = "train", gzipped: bool = False, images: bytes = b"", labels: bytes = b"") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"images-idx3": images or idx(IMAGES), "labels-idx1": labels or idx(LABELS)}
    for name, content in contents.items():
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if gzipped else ''}"
        path.write_bytes(gzip.compress(content) if gzipped else content)


def mnist(root: Path, **keys: Any) -> MNIST:
    defaults = {"variant": "mnist", "download": False, "split": "train", "value_range": (0.0, 1.0)}
    return MNIST(root=str(root), **{**defaults, **keys})


def assert_is_the_data(data: MNIST) -> None:
    assert data.shape == (1, 28, 28)
    assert data.num_classes == 10
    assert data.value_range == (0.0, 1.0)
    assert data.skipped == []
    batch, labels = data.batch(0, 12, seed=0)
    assert labels is not None
    found = {(image.numpy().tobytes(), int(label)) for image, label in zip(batch, labels, strict=True)}
    scaled = IMAGES.astype(np.float32) / np.float32(255)
    assert found == {(image.tobytes(), int(label)) for image, label in zip(scaled, LABELS, strict=True)}


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("layout", [".", "MNIST/raw"])
def test_plain_and_gzipped_files_in_both_layouts(tmp_path: Path, gzipped: bool, layout: str) -> None:
    write(tmp_path / layout, gzipped=gzipped)
    assert_is_the_data(mnist(tmp_path))


def test_fashion_and_digits_share_a_root_in_torchvision_s_layout(tmp_path: Path) -> None:
    write(tmp_path / "FashionMNIST/raw")
    assert_is_the_data(mnist(tmp_path, variant="fashion_mnist"))
    with pytest.raises(UserError, match="MNIST/raw"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("variant", "other", "split", "first"),
    [
        ("fashion_mnist", "mnist", "train", "504192131435"),
        ("fashion_mnist", "mnist", "test", "721041495906"),
        ("mnist", "fashion_mnist", "train", "900302725509"),
        ("mnist", "fashion_mnist", "test", "921161465745"),
    ],
)
def test_files_of_the_other_variant_are_refused(
    tmp_path: Path, variant: str, other: str, split: str, first: str
) -> None:
    labels = np.array([int(digit) for digit in first], np.uint8)
    prefix = {"train": "train", "test": "t10k"}[split]
    write(tmp_path, prefix=prefix, labels=idx(labels))
    file = tmp_path / f"{prefix}-labels-idx1-ubyte"
    with pytest.raises(UserError, match=f"^dataset.root: '{file}' belongs to {other}, not to .* type dataset={other}"):
        mnist(tmp_path, variant=variant, split=split)
    assert len(mnist(tmp_path, variant=other, split=split)) == 12


def test_only_the_files_of_the_split_are_needed(tmp_path: Path) -> None:
    write(tmp_path, prefix="t10k")
    assert_is_the_data(mnist(tmp_path, split="test"))
    with pytest.raises(UserError, match="train-images-idx3-ubyte and train-labels-idx1-ubyte not found"):
        mnist(tmp_path)


def test_a_missing_file_is_named_with_the_folders_and_the_key_that_fetches_it(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError) as refused:
        mnist(tmp_path)
    for part in ("dataset.root: train-labels", str(tmp_path), "MNIST/raw", "dataset.download=true"):
        assert part in str(refused.value)
    assert "train-images" not in str(refused.value)


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_truncated_file_is_refused_with_its_bytes(tmp_path: Path, gzipped: bool) -> None:
    write(tmp_path, gzipped=gzipped, images=idx(IMAGES)[:-100])
    expected = 16 + 12 * 28 * 28
    with pytest.raises(UserError, match=rf"train-images.* holds {expected - 100} bytes, expected {expected}"):
        mnist(tmp_path)


def test_a_download_cut_short_is_refused(tmp_path: Path) -> None:
    write(tmp_path, gzipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"train-images.* is damaged: .* expected 9424"):
        mnist(tmp_path)


def test_of_a_file_that_unpacks_without_end_no_more_than_a_part_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, gzipped=True, images=idx(IMAGES) + bytes(10**6))
    monkeypatch.setattr("gan_runner.datasets.mnist._MOST_BYTES", 10_000)
    with pytest.raises(UserError, match=r"train-images.* is damaged: it holds 10000 bytes, expected 9424"):
        mnist(tmp_path)


@pytest.mark.parametrize("length", [0, 3, 10])
def test_a_file_shorter_than_its_header_is_refused(tmp_path: Path, length: int) -> None:
    write(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES)[:length])
    with pytest.raises(UserError, match="train-images"):
        mnist(tmp_path)


def test_bytes_too_many_are_refused(tmp_path: Path) -> None:
    write(tmp_path, labels=idx(LABELS) + b"\0")
    with pytest.raises(UserError, match=r"train-labels.* holds 21 bytes, expected 20"):
        mnist(tmp_path)


def test_another_magic_is_refused(tmp_path: Path) -> None:
    write(tmp_path, images=b"<html>403 Forbidden</html>")
    with pytest.raises(
        UserError, match=r"train-images.* is not an IDX file of 3 .*'3c 68 74 6d', expected '00 00 08 03'"
    ):
        mnist(tmp_path)


def test_corrupt_compression_is_refused(tmp_path: Path) -> None:
    write(tmp_path, gzipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[5000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-images.* cannot be read"):
        mnist(tmp_path)


def test_images_and_labels_must_agree(tmp_path: Path) -> None:
    write(tmp_path, labels=idx(LABELS[:11]))
    with pytest.raises(UserError, match=r"has 12 images, but .* 11 labels"):
        mnist(tmp_path)


def test_a_label_above_nine_is_refused(tmp_path: Path) -> None:
    write(tmp_path, labels=idx(LABELS + 1))
    with pytest.raises(UserError, match=r"train-labels.* label 10"):
        mnist(tmp_path)


def test_where_the_files_lie_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "here")
    write(tmp_path / "there/MNIST/raw", gzipped=True)
    assert mnist(tmp_path / "here").fingerprint() == mnist(tmp_path / "there").fingerprint()


def test_download_fetches_what_is_missing_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(root: str, download: bool) -> None:
        calls.append(root)
        write(Path(root, "FashionMNIST/raw"))

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fetch)
    for _ in range(2):
        assert_is_the_data(mnist(tmp_path / "data", variant="fashion_mnist", download=True))
    assert len(calls) == 1
    assert os.listdir(tmp_path / "data") == ["FashionMNIST"]


def test_a_download_that_fails_is_one_sentence_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(root: str, download: bool) -> None:
        write(Path(root, "MNIST/raw"), images=b"half")
        raise RuntimeError("Error downloading:\nno network")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    with pytest.raises(UserError, match=r"dataset\.download=true.*Error downloading: no network") as refused:
        mnist(tmp_path, download=True)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_values_reach_the_range_asked_for(tmp_path: Path) -> None:
    write(tmp_path)
    batch, _ = mnist(tmp_path, value_range=(-1.0, 1.0)).batch(0, 12, seed=0)
    assert (batch.min(), batch.max()) == (torch.tensor(-1.0), torch.tensor(1.0))


def stacked(root: Path, **keys: Any) -> StackedMNIST:
    defaults = {"download": False, "split": "train", "value_range": (0.0, 1.0), "size": 500, "data_seed": 0}
    return StackedMNIST(root=str(root), **{**defaults, **keys})


def digits_in(data: StackedMNIST) -> np.ndarray:
    """Which of IMAGES is in each channel of each image, (N, 3)."""
    index = {image.tobytes(): i for i, image in enumerate(IMAGES.astype(np.float32) / np.float32(255))}
    batch = data.batch(0, len(data), seed=0)[0].numpy()
    return np.array([[index[channel.tobytes()] for channel in image] for image in batch])


def test_each_channel_of_stacked_mnist_is_a_digit_of_its_own(tmp_path: Path) -> None:
    write(tmp_path)
    data = stacked(tmp_path)
    assert (data.shape, len(data), data.num_classes, data.num_modes) == ((3, 28, 28), 500, 0, 1000)
    assert data.independent_channels
    batch, labels = data.batch(0, 7, seed=0)
    assert labels is None
    assert (batch.dtype, batch.shape) == (torch.float32, (7, 3, 28, 28))
    digits = digits_in(data)
    for channel in digits.T:  # each of the 12 about 500 / 12 = 42 times, to four standard deviations
        assert np.bincount(channel, minlength=12) == pytest.approx(np.full(12, 500 / 12), abs=25)
    # Independent of each other: two channels agree in a twelfth of the images, all three hardly ever alike.
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (digits[:, one] == digits[:, other]).mean() == pytest.approx(1 / 12, abs=0.05)


def test_stacked_mnist_holds_each_digit_once(tmp_path: Path) -> None:
    write(tmp_path)
    assert stacked(tmp_path, size=100_000)._data.numel() == 12 * 28 * 28


def test_what_stacked_mnist_is_made_of_is_in_its_fingerprint(tmp_path: Path) -> None:
    write(tmp_path)
    kinds: list[dict[str, Any]] = [{}, {"data_seed": 1}, {"size": 499}, {"value_range": (-1.0, 1.0)}]
    assert len({stacked(tmp_path, **keys).fingerprint() for keys in kinds}) == 4
    data = stacked(tmp_path)
    data.batch(0, 5, seed=3)
    assert data.fingerprint() == stacked(tmp_path).fingerprint()


def test_held_out_are_the_test_images_where_they_are(tmp_path: Path) -> None:
    write(tmp_path)
    assert mnist(tmp_path).held_out() is None
    assert stacked(tmp_path).held_out() is None
    write(tmp_path, prefix="t10k", images=idx(255 - IMAGES))
    held_out = mnist(tmp_path, value_range=(-1.0, 1.0)).held_out()
    assert isinstance(held_out, MNIST)
    assert (held_out.value_range, held_out._data.shape) == ((-1.0, 1.0), (12, 1, 28, 28))
    assert held_out._data.squeeze(1).numpy().tobytes() == (255 - IMAGES).tobytes()
    assert held_out.held_out() is None
    triples = stacked(tmp_path).held_out()
    assert isinstance(triples, StackedMNIST)
    assert (len(triples), triples.held_out()) == (26_000, None)
    assert triples._data.squeeze(1).numpy().tobytes() == (255 - IMAGES).tobytes()


def test_digits_have_a_classifier_and_clothes_have_none(tmp_path: Path) -> None:
    write(tmp_path)
    assert mnist(tmp_path).classifier == stacked(tmp_path).classifier == "digits"
    assert mnist(tmp_path, variant="fashion_mnist").classifier is None
    assert not mnist(tmp_path).independent_channels


def test_images_and_those_held_out_are_resized(tmp_path: Path) -> None:
    """To twice the size bilinearly: between two pixels, a quarter of one and three quarters of the other."""
    write(tmp_path)
    write(tmp_path, prefix="t10k")
    data = mnist(tmp_path, size=56)
    assert data.shape == (1, 56, 56)
    held_out = data.held_out()
    assert held_out is not None
    assert held_out.shape == (1, 56, 56)
    row, across = data._data[0, 0, 27].double(), torch.from_numpy(IMAGES[0].astype(float))
    down = 0.75 * across[13] + 0.25 * across[14]
    assert float(row[20]) == pytest.approx(float(0.25 * down[9] + 0.75 * down[10]), abs=0.51)
    assert float(row[21]) == pytest.approx(float(0.75 * down[10] + 0.25 * down[11]), abs=0.51)
    assert torch.equal(mnist(tmp_path, size=28)._data, mnist(tmp_path)._data)
