"""What is said of data, and that what is said changes nothing that depends on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from gan_runner.datasets import (
    MNIST,
    ArrayDataset,
    DataFacts,
    Dataset,
    Distribution,
    Gaussian1D,
    Grid,
    Images,
    Pattern,
    Ring,
    StackedMNIST,
    about_data,
    describe,
)
from tests.conftest import REPOSITORY
from tests.datasets.made_up import idx

DIGITS = str(REPOSITORY / "tests" / "data" / "mnist")


class Coin(Distribution):
    """A user's class, which knows nothing of names."""

    def __init__(self, bias: float) -> None:
        super().__init__((1,), (0.0, 1.0), num_classes=2)
        self.bias = torch.tensor(bias)

    def draw(self, count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        heads = torch.rand(count, 1, generator=rng) < self.bias
        return heads.float(), heads.squeeze(1).long()


def array(*shape: int, labels: list[int] | None = None, **keys: object) -> ArrayDataset:
    data = torch.zeros(*shape, dtype=torch.uint8)
    chosen = None if labels is None else torch.tensor(labels)
    return ArrayDataset(data, chosen, value_range=(0, 1), **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        (Pattern(length=6, high=(0.8, 1.0), low=(0.0, 0.2)), "points of dimension 6, drawn anew for each batch"),
        (Gaussian1D(0.0, 1.0), "points of dimension 1, drawn anew for each batch"),
        (Ring(modes=8, radius=1.0, std=0.1, size=1200, data_seed=0), "1,200 points of dimension 2, 8 modes"),
        (Grid(side=5, spacing=2.0, std=0.1, size=50, data_seed=0), "50 points of dimension 2, 25 modes"),
        (Coin(0.25), "points of dimension 1, drawn anew for each batch; classes 0, 1"),
        (array(4, 3, 8, 6), "4 images, 8×6, 3 channels; no labels"),
        (array(4, 2, 8, 6), "4 arrays 2×8×6"),
        (
            array(4, 1, 8, 8, labels=[0, 2, 2, 2], num_classes=3, class_names=["cat", "dog", "2"], num_files=5),
            "4 images of 5 files, 8×8, 1 channel; classes 0 = cat (1), 1 = dog (0), 2 (3)",
        ),
        (
            array(2, 1, 8, 8, labels=[0, 999], num_classes=1000),
            "2 images, 8×8, 1 channel; classes 0 (1), 1 (0), 2 (0), 3 (0), 4 (0), 5 (0), 6 (0), 7 (0), 8 (0), 9 (0), "
            "10 (0), 11 (0) … and 988 more",
        ),
    ],
)
def test_one_line_says_what_the_data_are(dataset: Dataset, line: str) -> None:
    assert describe(dataset) == line
    assert about_data(dataset) == [f"data: {line}"]


def test_digits_and_clothes_have_their_names(tmp_path: Path) -> None:
    keys = {"root": DIGITS, "download": False, "split": "train", "value_range": (0.0, 1.0)}
    digits = MNIST(variant="mnist", **keys)  # type: ignore[arg-type]
    assert digits.class_names == tuple("0123456789")
    assert digits.labels is not None
    assert digits.class_counts() == np.bincount(digits.labels.numpy(), minlength=10).tolist()
    assert describe(digits).startswith(
        f"{len(digits):,} images, 28×28, 1 channel; classes 0 ({digits.class_counts()[0]:,}"
    )
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((10, 28, 28), np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(10, dtype=np.uint8)))
    clothes = MNIST(variant="fashion_mnist", **{**keys, "root": str(tmp_path)})  # type: ignore[arg-type]
    # github.com/zalandoresearch/fashion-mnist, "Labels"
    assert [clothes.class_names[n] for n in (0, 1, 5, 7, 9)] == [
        "T-shirt/top",
        "Trouser",
        "Sandal",
        "Sneaker",
        "Ankle boot",
    ]
    stacked = StackedMNIST(size=2000, data_seed=0, **keys)  # type: ignore[arg-type]
    assert describe(stacked) == "2,000 images, 28×28, 3 channels, 1,000 modes; no labels"
    assert stacked.class_names == ()


def test_names_must_fit_the_classes() -> None:
    with pytest.raises(ValueError, match="2 class_names for 3 classes"):
        array(2, 1, 8, 8, labels=[0, 1], num_classes=3, class_names=["cat", "dog"])
    with pytest.raises(ValidationError, match="2 class_names for 3 classes"):
        DataFacts(shape=(1,), value_range=None, num_classes=3, class_names=("cat", "dog"))


def test_names_take_one_line_each() -> None:
    data = array(2, 1, 8, 8, labels=[0, 1], num_classes=2, class_names=["a\nb", "\x1b[31mred\u202e می\u200cخواهم"])
    assert data.class_names == ("a\\nb", "\\x1b[31mred\\u202e می\u200cخواهم")


# As computed by an earlier version, which knew nothing of names: a run of it must go on.
@pytest.mark.parametrize(
    ("dataset", "fingerprint"),
    [
        (
            Pattern(length=6, high=(0.8, 1.0), low=(0.0, 0.2)),
            "22996e4d0917c0d0bddcb4eb9583d016ae42dc8cfc44ddbba54c396564949fc7",
        ),
        (Gaussian1D(0.0, 1.0), "57e6450e618df7b4c71f419a27f1617eb8269b40d41f9cb2eb43593a3558519d"),
        (Coin(0.25), "68b78e2e59b19caadc2537053e2856e1173637a633ed26c52c556dc740a0bd9b"),
    ],
)
def test_distributions_have_the_fingerprints_that_they_always_had(dataset: Dataset, fingerprint: str) -> None:
    assert dataset.fingerprint() == fingerprint


@pytest.mark.parametrize(
    ("classes", "keys", "fingerprint"),
    [
        (["cat", "dog", "eel"], {}, "174eab19da92bde90d873ceb02c2048cf106a93d873a94117716edf92e38cfea"),
        (
            [str(n) for n in range(12)],
            {"class_order": "text"},
            "58ea01ce7c81235e2e5231b2ca268a35ac65e00aec7d11b3c958d78aa1bb3d01",
        ),
    ],
)
def test_folders_have_the_fingerprints_that_they_always_had(
    tmp_path: Path, classes: list[str], keys: dict[str, str], fingerprint: str
) -> None:
    for number, name in enumerate(f"{name}/{i}.png" for name in classes for i in "ab"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(tmp_path / name)
    if keys:
        (tmp_path / "empty").mkdir()  # earlier versions gave it no number
    data = Images(root=str(tmp_path), size=None, crop=None, channels=3, value_range=(0.0, 1.0), **keys)  # type: ignore[arg-type]
    assert data.fingerprint() == fingerprint
