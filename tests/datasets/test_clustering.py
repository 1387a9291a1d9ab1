"""Clusters of images, and how often each is drawn."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gan_runner.batches import draw_labels
from gan_runner.datasets import ArrayDataset, Images, describe
from gan_runner.datasets.clustering import clusters
from gan_runner.errors import UserError
from gan_runner.randomness import rng
from tests.training import write_images


def tracks(channels: int = 1, side: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of a bar that is anywhere along the upper edge or along the lower one, and which (0, 1)."""
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 8, (600, channels, side, side), generator=noise, dtype=torch.uint8)
    edge = torch.arange(600) % 3 % 2  # 400 above, 200 below
    height, width = side // 4, side // 2
    places = torch.randint(0, side - width, (600,), generator=noise)
    for image, below, x in zip(images, edge.tolist(), places.tolist(), strict=True):
        y = side - height if below else 0
        image[:, y : y + height, x : x + width] = 240
    return images, edge


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 33), (1, 14)])
def test_a_cluster_is_a_chain_of_images_whose_ends_are_far_apart(channels: int, side: int) -> None:
    images, edge = tracks(channels, side)
    across = images[:, 0].float().flatten(1)
    same = torch.cdist(across, across)[edge[:, None] == edge].max()
    other = torch.cdist(across, across)[edge[:, None] != edge].min()
    assert same > 0.9 * other  # the ends of a chain are as far apart as the chains
    found = clusters(images, 2)
    assert torch.equal(found, edge) or torch.equal(found, 1 - edge)


def test_every_number_of_threads_finds_the_same() -> None:
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6000, 1, 28, 28), generator=noise, dtype=torch.uint8)  # of no kind: all is close
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(clusters(images, 20))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert set(found[0].tolist()) == set(range(20))


def test_as_many_clusters_as_images_and_fewer_kinds_than_clusters() -> None:
    images, _ = tracks()
    assert sorted(clusters(images[:30], 30).tolist()) == [*range(30)]
    assert clusters(images[:1].repeat(9, 1, 1, 1), 4).tolist() == [0] * 9
    two = images[:2].repeat_interleave(5, 0)
    assert clusters(two, 3).tolist() in ([0] * 5 + [1] * 5, [1] * 5 + [0] * 5)


def test_where_nothing_is_between_them_the_nearest_become_one() -> None:
    """Twelve greys, which no image is between: 0 and 1 steps apart in four groups of three."""
    greys = torch.tensor([0, 8, 16, 60, 68, 76, 130, 138, 146, 236, 244, 252], dtype=torch.uint8)
    images = greys.repeat(50)[:, None, None, None].expand(-1, 1, 28, 28)
    found = clusters(images, 4).view(50, 4, 3)
    assert (found == found[:1, :, :1]).all()
    assert sorted(found[0, :, 0].tolist()) == [0, 1, 2, 3]


def test_they_are_the_classes_of_the_data_in_place_of_labels() -> None:
    images, edge = tracks()
    plain = ArrayDataset(images, torch.zeros(600), value_range=(0, 1), num_classes=1)
    data = ArrayDataset(images, torch.zeros(600), value_range=(0, 1), num_classes=1, clusters=2)
    assert data.num_classes == 2
    assert data.class_names == ("cluster 0", "cluster 1")
    assert sorted(data.cluster_sizes) == [200, 400]
    assert list(data.cluster_sizes) == data.class_counts()
    assert describe(data) == "600 images, 28×28, 1 channel; 2 clusters of 200 to 400"
    assert data.fingerprint() != plain.fingerprint()
    assert plain.cluster_sizes == ()
    assert data.labels is not None
    assert len({*zip(data.labels.tolist(), edge.tolist(), strict=True)}) == 2
    with pytest.raises(UserError, match=r"dataset\.clusters is 601; allowed: at most 600"):
        ArrayDataset(images, value_range=(0, 1), clusters=601)
    for other in (images.float(), images.flatten(1)):
        with pytest.raises(ValueError, match="clusters are made of uint8 images"):
            ArrayDataset(other, value_range=(0, 1), clusters=2)


def test_folders_of_images_need_no_labels_for_clusters(tmp_path: Path) -> None:
    """Not even where labels are wanted: none is left out, and folders that are no classes are not refused."""
    root = write_images(tmp_path / "data")
    (root / "class_0").rename(root / "train")
    (root / "class_1").rename(root / "val")
    next((root / "class_2").iterdir()).rename(root / "loose.png")
    (root / "empty").mkdir()
    keys: dict[str, Any] = {"size": None, "crop": None, "channels": 1, "value_range": (0, 1), "labels_wanted": True}
    assert sum(Images(root=str(root), clusters=3, **keys).cluster_sizes) == 50


def test_classes_are_drawn_by_their_weight() -> None:
    drawn = draw_labels(4, (0, 100, 0, 300), 100_000, rng(0)).bincount(minlength=4).tolist()
    assert drawn[0] == drawn[2] == 0
    assert drawn[1] == pytest.approx(25_000, abs=5 * (100_000 * 0.25 * 0.75) ** 0.5)
    assert set(draw_labels(2, (1, 1), 100, rng(0)).tolist()) == {0, 1}
    equally = draw_labels(5, (), 64, rng(3))
    assert torch.equal(equally, torch.randint(5, (64,), generator=rng(3)))
