import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_runner.datasets import ArrayDataset, Distribution
from gan_runner.errors import UserError


def numbered(count: int = 10) -> ArrayDataset:
    """Vectors and labels that are their own index."""
    index = torch.arange(count)
    return ArrayDataset(index.float().unsqueeze(1), index, num_classes=count)


class Coin(Distribution):
    """A user's distribution: heads or tails, with labels."""

    def __init__(self, bias: float) -> None:
        super().__init__((1,), (0.0, 1.0), num_classes=2)
        self.bias = torch.tensor(bias)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        heads = torch.rand(count, 1, generator=rng) < self.bias
        return heads.float(), heads.squeeze(1).long()


def test_an_epoch_visits_every_sample_once_and_the_next_in_another_order() -> None:
    data = numbered(10)
    epochs = [torch.cat([data.batch(5 * epoch + i, 2, seed=0)[0] for i in range(5)]) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch.flatten().tolist()) == list(range(10))
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


def test_the_incomplete_last_batch_of_an_epoch_is_dropped() -> None:
    data = numbered(10)
    epoch = torch.cat([data.batch(i, 4, seed=0)[0] for i in range(2)])
    assert len(epoch.unique()) == 8
    following = torch.cat([data.batch(i, 4, seed=0)[0] for i in (2, 3)])
    assert len(following.unique()) == 8


def test_a_batch_is_a_function_of_its_arguments() -> None:
    data = numbered(10)
    before = {number: data.batch(number, 3, seed=1)[0] for number in (7, 0, 3)}
    for number, batch in before.items():
        assert torch.equal(numbered(10).batch(number, 3, seed=1)[0], batch)
    assert not torch.equal(data.batch(0, 10, seed=1)[0], data.batch(0, 10, seed=2)[0])


def test_labels_stay_with_their_samples() -> None:
    samples, labels = numbered(10).batch(1, 5, seed=0)
    assert labels is not None
    assert labels.dtype == torch.int64
    assert torch.equal(samples.squeeze(1).long(), labels)


@pytest.mark.parametrize("data", [numbered(12), Coin(0.5)], ids=["array", "distribution"])
def test_parts_make_up_the_global_batch(data: ArrayDataset | Distribution) -> None:
    samples, labels = data.batch(4, 6, seed=3)
    parts = [data.batch(4, 6, 3, slice(start, start + 2)) for start in (0, 2, 4)]
    assert torch.equal(torch.cat([part[0] for part in parts]), samples)
    assert labels is not None
    assert torch.equal(torch.cat([part[1] for part in parts if part[1] is not None]), labels)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_bytes_become_exactly_the_value_range(value_range: tuple[float, float]) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    data = ArrayDataset(images, torch.zeros(256), value_range=value_range, num_classes=1)
    batch = data.batch(0, 256, seed=0)[0].flatten().sort().values
    low, high = value_range
    expected = np.arange(256, dtype=np.float32) / np.float32(255) * np.float32(high - low) + np.float32(low)
    assert batch.dtype == torch.float32
    assert batch[0] == low
    assert batch[-1] == high
    assert np.array_equal(batch.numpy(), expected)
    assert data.shape == (1, 1, 1)


def test_a_batch_does_not_touch_the_data() -> None:
    data = ArrayDataset(torch.zeros(4, 2), value_range=None)
    data.batch(0, 4, seed=0)[0].add_(1)
    assert torch.equal(data.batch(0, 4, seed=0)[0], torch.zeros(4, 2))


def test_more_than_the_dataset_in_a_batch_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer\.batch_size is 11.* 10 samples"):
        numbered(10).batch(0, 11, seed=0)


def test_mistakes_in_an_array_dataset_are_named() -> None:
    with pytest.raises(UserError, match=r"dataset\.value_range is \[1\.0, 0\.0\]"):
        ArrayDataset(torch.zeros(2, 1), value_range=(1, 0))
    with pytest.raises(ValueError, match="value_range"):
        ArrayDataset(torch.zeros(2, 1, 1, 1, dtype=torch.uint8))
    with pytest.raises(ValueError, match="1 labels for 2 samples"):
        ArrayDataset(torch.zeros(2, 1), torch.zeros(1), num_classes=1)
    with pytest.raises(ValueError, match="num_classes is 1"):
        ArrayDataset(torch.zeros(2, 1), torch.ones(2), num_classes=1)


def test_a_fingerprint_changes_with_data_labels_and_range_only() -> None:
    data, labels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.array([0, 1, 0, 1])
    prints = [
        ArrayDataset(data, labels, value_range=(0, 1), num_classes=2),
        ArrayDataset(data + 1, labels, value_range=(0, 1), num_classes=2),
        ArrayDataset(data, 1 - labels, value_range=(0, 1), num_classes=2),
        ArrayDataset(data, labels, value_range=(-1, 1), num_classes=2),
        ArrayDataset(data.reshape(2, 2, 1, 1), labels[:2], value_range=(0, 1), num_classes=2),
    ]
    assert len({data.fingerprint() for data in prints}) == 5
    assert len(prints[0].fingerprint()) == 64
    again = ArrayDataset(data.copy(), torch.tensor(labels), value_range=[0.0, 1.0], num_classes=2)
    assert again.fingerprint() == prints[0].fingerprint()


def test_a_distribution_is_known_by_its_parameters_alone() -> None:
    coin = Coin(0.25)
    before = coin.fingerprint()
    coin.batch(0, 4, seed=0)
    assert coin.fingerprint() == before == Coin(0.25).fingerprint() != Coin(0.5).fingerprint()


def test_batches_of_a_distribution_differ_by_number_and_seed() -> None:
    batches = [Coin(0.5).batch(number, 64, seed)[0] for number, seed in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert torch.equal(batches[0], batches[3])
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


def test_importing_the_datasets_is_cheap() -> None:
    heavy = "{'torchvision', 'matplotlib', 'PIL', 'rich', 'hydra'}"
    code = f"import sys, gan_runner.datasets; sys.exit(', '.join({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == "\n"


def numbered_part(samples: int, seed: int = 0) -> ArrayDataset:
    index = torch.arange(10)
    return ArrayDataset(index.float().unsqueeze(1), index, num_classes=10, samples=samples, samples_seed=seed)


def test_a_part_is_chosen_by_its_seed_alone_without_repetition() -> None:
    batches = [numbered_part(4, seed=3).batch(0, 4, seed=run)[0].flatten().tolist() for run in (0, 9)]
    assert sorted(batches[0]) == sorted(batches[1])
    assert len(set(batches[0])) == 4
    parts = {tuple(numbered_part(4, seed)._data.flatten().tolist()) for seed in range(20)}
    assert len(parts) > 15
    assert {number for part in parts for number in part} == set(range(10))


def test_a_part_is_other_data_with_its_labels_and_is_told() -> None:
    part = numbered_part(4)
    samples, labels = part.batch(0, 4, seed=0)
    assert labels is not None
    assert torch.equal(samples.flatten().long(), labels)
    assert (len(part), sum(part.class_counts())) == (4, 4)
    assert len({numbered().fingerprint(), part.fingerprint(), numbered_part(4, seed=1).fingerprint()}) == 3
    lost = [repr(str(number)) for number in range(10) if number not in labels]
    assert part.remarks == [
        "4 of 10 are used, chosen at random by dataset.samples_seed=0",
        f"nothing of these classes is among them (6): {', '.join(lost[:5])} …",
    ]
    assert numbered_part(10).fingerprint() == numbered().fingerprint()


def test_a_part_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"dataset\.samples is 11; allowed: at most 10"):
        numbered_part(11)
