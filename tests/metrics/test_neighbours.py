from math import sqrt

import numpy as np
import pytest
import torch
from scipy import spatial

from gan_runner.metrics import BirthdayParadox, DensityCoverage, NearestNeighbours, PrecisionRecall, Samples, neighbours
from gan_runner.metrics.neighbours import nearest, usual_distances
from tests.metrics.conftest import digits_like, extracted, images_of, normal, seen


def radius(points: np.ndarray, i: int, k: int) -> float:
    return sorted(float(np.linalg.norm(points[i] - other)) for j, other in enumerate(points) if j != i)[k - 1]


def balls(points: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
    """Whether point i lies in the ball about centre j, (N, M)."""
    radii = [radius(centres, j, k) for j in range(len(centres))]
    return np.array([[np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)] for p in points])


def test_precision_and_recall_agree_with_naive_loops():
    made, real = normal(1, 60, 4) + 1.5, normal(2, 50, 4)
    result = PrecisionRecall(60, neighbours=3).measure(seen(made), seen(real), images_of())
    expected = {
        "precision": balls(made, real, 3).any(axis=1).mean(),
        "recall": balls(real, made, 3).any(axis=1).mean(),
    }
    assert result == pytest.approx(expected, rel=1e-3)
    assert expected["precision"] != expected["recall"]
    assert all(0.1 < share < 0.9 for share in expected.values())


def test_density_and_coverage_agree_with_naive_loops():
    made, real = digits_like(1, 60) * 0.8 + 0.1, digits_like(2, 50)
    result = DensityCoverage(60, neighbours=5).measure(seen(made), seen(real), images_of())
    inside = balls(made, real, 5)
    assert result == pytest.approx({"coverage": inside.any(axis=0).mean(), "density": inside.sum() / (5 * 60)})


def test_density_and_coverage_of_fresh_data_are_as_derived():
    # More than one chunk. Coverage: the k nearest of 2N − 1 points about one of them are all real with 1/2 each.
    made, real = seen(normal(0, 1200, 3)), seen(normal(1, 1200, 3))
    result = DensityCoverage(1200, neighbours=5).measure(made, real, images_of())
    assert result == pytest.approx({"coverage": 1 - 2**-5, "density": 1}, abs=0.03)


def test_neighbours_are_too_few():
    four = seen(normal(0, 4, 3))
    for metric in (PrecisionRecall(4, neighbours=4), DensityCoverage(4, neighbours=4)):
        with pytest.raises(ValueError, match="needs at least 5 samples"):
            metric.measure(four, four, images_of())


def test_the_birthday_estimate_finds_the_size_of_a_discrete_support():
    rng, support = np.random.default_rng(0), normal(5, 5000, 8)
    made, real = (seen(support[rng.integers(5000, size=2000)]) for _ in range(2))
    estimate = BirthdayParadox(2000, quantile=0.01).measure(made, real, images_of())["support_size"]
    collisions = 2000 * 1999 / 2 / 5000  # expected, about 400, so that their error is 5 %
    assert estimate == pytest.approx(5000, rel=3 / sqrt(collisions))


def test_the_birthday_estimate_by_hand():
    real = seen([[0.0], [1.0], [3.0], [6.0], [10.0]])  # to the nearest other: 1, 1, 2, 3, 4; the median is 2
    made = seen([[0.0], [2.0], [4.0], [9.0]])  # two pairs of six are within 2
    assert BirthdayParadox(4, quantile=0.5).measure(made, real, images_of()) == {"support_size": 3}
    apart = seen([[0.0], [5.0], [10.0]])
    assert BirthdayParadox(3, quantile=0.5).measure(apart, real, images_of()) == {"support_size": 3}  # 3 · 2 / 2


def test_the_picture_of_the_birthday_paradox_begins_with_the_nearest_pair():
    levels = torch.tensor([0.0, 0.9, 0.3, 0.5, 0.51])
    images = levels.view(5, 1, 1, 1).expand(5, 1, 2, 2)
    made = Samples(images, None, extracted(images))
    picture = BirthdayParadox(5, quantile=0.5).picture(made, made, images_of())
    assert picture[0, :4, 0].tolist() == [128, 128, 130, 130]
    assert picture[0, 6:10, 0].tolist() == [76, 76, 128, 128]  # 0.3 has 0.5 as its nearest; once, not twice


def test_copies_are_found_among_generated_images():
    real = torch.tensor(normal(0, 600, 1, 4, 4)).float()
    made = torch.cat([real[100:130], torch.tensor(normal(1, 70, 1, 4, 4)).float()])
    result = NearestNeighbours(100, quantile=0.05).measure(Samples(made), Samples(real), images_of())
    flat = real.flatten(1).double().numpy()
    evenly = np.arange(100) * 599 // 99  # a hundred of the 600, from the first to the last
    between = spatial.distance.cdist(flat[evenly], flat)
    between[np.arange(100), evenly] = np.inf
    found = spatial.distance.cdist(made.flatten(1).double().numpy(), flat).min(axis=1)
    threshold = np.quantile(between.min(axis=1), 0.05)
    assert result["memorised"] == pytest.approx((found <= threshold).mean())
    assert 0.3 < result["memorised"] < 0.5
    medians = [float(torch.tensor(x).median()) for x in (found, between.min(axis=1))]  # torch's: the lower middle
    assert result["nearest_distance"] == pytest.approx(medians[0] / medians[1], rel=1e-3)


@pytest.mark.parametrize("own", [False, True])
def test_neighbours_are_found_block_by_block(monkeypatch, own):
    """Against scipy, in blocks of ten others, of which the last is smaller than the neighbours wanted."""
    monkeypatch.setattr(neighbours, "POINTS_AT_ONCE", 10)
    monkeypatch.setattr(neighbours, "BLOCK", 10)
    others, points = normal(0, 43, 3), normal(1, 25, 3)
    itself = np.arange(25) * 42 // 24
    points = others[itself] if own else points
    distances = spatial.distance.cdist(points, others)
    if own:
        distances[np.arange(25), itself] = np.inf
    order = distances.argsort(axis=1)[:, :5]
    found, which = nearest(torch.tensor(points), torch.tensor(others), 5, torch.tensor(itself) if own else None)
    assert which.tolist() == order.tolist()
    assert found.numpy() == pytest.approx(np.take_along_axis(distances, order, axis=1))


def test_fresh_data_are_memorised_as_often_as_the_quantile_says():
    real, made = (Samples(torch.tensor(normal(seed, 3000, 1, 2, 2)).float()) for seed in (0, 1))
    result = NearestNeighbours(3000, quantile=0.01).measure(made, real, images_of())
    assert result["memorised"] == pytest.approx(0.01, abs=3 * sqrt(2 * 0.01 / 3000))
    assert result["nearest_distance"] == pytest.approx(1, abs=0.05)


def test_images_that_are_there_twice_hide_no_copies():
    """By the distances between different ones: those of 0, 0, 1 and 3 are 1, 1, 1 and 2."""
    line = torch.tensor([0.0, 0.0, 1.0, 3.0]).view(4, 1)
    assert usual_distances(line, 4).tolist() == [1.0, 1.0, 1.0, 2.0]
    real = torch.tensor(normal(0, 1000, 1, 4, 4)).float()
    real[:50] = real[50:100]
    copies = real[200:300] + 1e-5
    figures = NearestNeighbours(100, quantile=0.01).measure(Samples(copies), Samples(real), images_of())
    assert figures["memorised"] == 1.0
    ten = seen(real[200:210].flatten(1).repeat(50, 1) + 1e-5)
    birthday = BirthdayParadox(500, quantile=0.01).measure(ten, seen(real.flatten(1)[:500]), images_of())
    assert birthday["support_size"] == pytest.approx(500 * 499 / (2 * 10 * 50 * 49 / 2), rel=0.01)
    with pytest.raises(ValueError, match="all real samples are alike"):
        usual_distances(torch.ones(5, 2), 5)


def test_the_picture_of_neighbours_begins_with_the_copy_and_its_original():
    real = Samples(torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]).view(6, 1, 1, 1))
    made = Samples(torch.tensor([0.5, 0.8]).view(2, 1, 1, 1))
    picture = NearestNeighbours(2, quantile=0.5).picture(made, real, images_of())
    assert picture[0, :2, 0].tolist() == [204, 204]
    assert sorted(picture[0, 2:4, 0].tolist()) == [153, 255]
    assert picture[0, 4:6, 0].tolist() == [102, 51]
    assert picture[0, 8, 0] == 128  # on the right the first sample
