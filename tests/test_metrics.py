import importlib
import json
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
import yaml
from scipy import integrate, linalg, spatial, stats
from torch import Tensor

from gan_runner.datasets import ArrayDataset, Dataset, Gaussian1D, GaussianMixture, Pattern, StackedMNIST
from gan_runner.errors import UserError
from gan_runner.metrics import (
    FID,
    KID,
    BirthdayParadox,
    ClassBalance,
    DensityCoverage,
    JensenShannon,
    LabelAccuracy,
    ModeCoverage,
    NearestNeighbours,
    PatternError,
    PrecisionRecall,
    Samples,
    StackedModes,
    Stored,
    jensen_shannon,
    masses,
    neighbours,
    pattern_error,
)
from gan_runner.metrics.neighbours import nearest, usual_distances
from gan_runner.metrics.truth import truncated_std
from tests.conftest import REPOSITORY

CHOICES = sorted((REPOSITORY / "conf" / "metric").glob("*.yaml"))


class Pixels:
    """An extractor whose features are the pixels, and whose class is the first of them."""

    name, hash = "pixels", "0"

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.calls = 0

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return images.flatten(1), images.flatten(1)[:, 0].long()


def seen(features: object, labels: list[int] | None = None) -> Samples:
    """Samples with these features (N, F), or of these classes (N,)."""
    rows = torch.as_tensor(features).float()
    images = rows.view(len(rows), 1, 1, -1)
    return Samples(images, None if labels is None else torch.tensor(labels), Pixels(classes=10))


def images_of(num_classes: int = 0) -> Dataset:
    return ArrayDataset(torch.zeros(4, 1, 1, 2), num_classes=num_classes)


def mixture(means: list[list[float]], std: float) -> GaussianMixture:
    """A mixture by its attributes alone, whatever else the class asks for."""
    dataset = GaussianMixture.__new__(GaussianMixture)
    dataset.means, dataset.std, dataset.shape = torch.tensor(means), std, (2,)
    return dataset


def stacked() -> StackedMNIST:
    dataset = StackedMNIST.__new__(StackedMNIST)
    dataset.shape = (3, 28, 28)
    return dataset


RING = mixture([[float(np.cos(a)), float(np.sin(a))] for a in np.arange(8) * np.pi / 4], 0.01)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def digits_like(seed: int, count: int) -> np.ndarray:
    """Features as a network has them: correlated, not negative, of different sizes, one always 0. (count, 12)"""
    mix = normal(99, 6, 12) * np.linspace(0.1, 3, 12)
    features = np.maximum(normal(seed, count, 6) @ mix + 0.5, 0)
    features[:, 5] = 0
    return features.astype(np.float32)


def test_samples_that_are_not_finite_are_refused():
    values = torch.zeros(5, 1, 2, 2)
    values[1, 0, 0, 0], values[3, 0, :, 1] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 5 samples are not finite"):
        Samples(values)


def test_features_are_computed_once_and_sliced_with_the_samples():
    extractor = Pixels(10)
    samples = Samples(torch.arange(12.0).view(6, 1, 1, 2), torch.arange(6), extractor)
    before = samples[2:4]
    assert torch.equal(samples.features, samples.values.flatten(1))
    part = samples[3:5]
    assert part.labels is not None
    assert part.labels.tolist() == [3, 4]
    assert part.features.tolist() == [[6, 7], [8, 9]]
    assert part.predicted.tolist() == [6, 8]
    assert extractor.calls == 1
    assert before.features.tolist() == [[4, 5], [6, 7]]  # not computed when it was cut out
    assert extractor.calls == 2


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_every_choice_is_built_from_its_yaml_and_returns_its_figures(path):
    ((name, keys),) = yaml.safe_load(path.read_text(encoding="utf-8")).items()
    assert name == path.stem
    module, _, target = keys.pop("_target_").rpartition(".")
    metric = getattr(importlib.import_module(module), target)(**keys)
    if name == "kid":
        metric.subset_size = 20
    rng = torch.Generator().manual_seed(0)
    dataset: Dataset = images_of(10)
    values = torch.rand(60, 1, 3, 3, generator=rng) * 3
    if name == "pattern":
        dataset, values = Pattern(2, (0.8, 1.0), (0.0, 0.2)), values[:, 0, 0, :2]
    elif name == "jsd":
        dataset, values = Gaussian1D(1.0, 2.0), values[:, 0, 0, :1]
    elif name == "modes":
        dataset, values = RING, values[:, 0, 0, :2]
    elif name == "stacked_modes":
        dataset = stacked()
    made, real = (Samples(part, torch.arange(30) % 3, Pixels(10)) for part in values.split(30))
    assert metric.unfit(dataset, conditional=True) is None
    result = metric.measure(made, real, dataset)
    assert list(result) == list(metric.goals)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(isinstance(figure, float) for figure in result.values())
    picture = metric.picture(made, real, dataset)
    assert (picture is not None) == (name in {"modes", "birthday", "neighbours"})


def test_a_metric_says_for_which_data_and_generators_it_says_nothing():
    points, images = Gaussian1D(0.0, 1.0), images_of(10)
    assert PatternError(1).unfit(points, False) == "measures patterns, and Gaussian1D is not one of them"
    assert JensenShannon(1, 1).unfit(images, False) == "needs a known density of one number, and ArrayDataset has none"
    assert ModeCoverage(1, 3.0).unfit(images, False) == (
        "counts the modes of a mixture of Gaussians, and ArrayDataset is none"
    )
    assert StackedModes(1).unfit(images, False) == "counts the modes of Stacked MNIST, and ArrayDataset has others"
    assert LabelAccuracy(1).unfit(images, False) == (
        "compares samples with the labels asked for, and this generator is not conditional"
    )
    for metric in (FID(1), ClassBalance(1), LabelAccuracy(1), NearestNeighbours(1, 0.01)):
        assert "images, and those of Gaussian1D are none" in str(metric.unfit(points, True))
        assert metric.unfit(images, True) is None


def test_pattern_error_counts_values_outside_and_measures_how_far():
    low, high = torch.tensor([0.8, 0.0, 0.8]), torch.tensor([1.0, 0.2, 1.0])
    samples = torch.tensor([[0.8, 0.2, 0.9], [1.5, 0.1, 0.5]])  # two of six outside, by 0.5 and 0.3
    assert pattern_error(samples, low, high) == pytest.approx((2 / 6, 0.8 / 6))
    assert pattern_error(samples[:1], low, high) == (0, 0)  # the ends of a range are inside


def test_masses_count_every_number_and_what_lies_beyond_the_edges():
    numbers = torch.tensor([-5.0, 0.25, 0.75, 0.8, 9.0])
    p_data, p_g = masses(numbers, Gaussian1D(0.0, 1.0), torch.tensor([0.0, 0.5, 1.0]))
    assert p_g.tolist() == pytest.approx([0.2, 0.2, 0.4, 0.2])
    expected = [0.5, stats.norm.cdf(0.5) - 0.5, stats.norm.cdf(1) - stats.norm.cdf(0.5), stats.norm.sf(1)]
    assert p_data.tolist() == pytest.approx(expected)


def test_masses_agree_with_numpy():
    values, edges = np.random.default_rng(0).normal(size=1000), np.linspace(-4, 4, 51)
    expected, _ = np.histogram(values, edges)
    _, p_g = masses(torch.tensor(values), Gaussian1D(0.0, 1.0), torch.tensor(edges))
    assert np.allclose(p_g[1:-1], expected / 1000)


def test_jensen_shannon_of_equal_and_of_disjoint_distributions():
    p, q = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    assert jensen_shannon(p, p) == 0
    assert jensen_shannon(p, q) == pytest.approx(log(2))


def test_jensen_shannon_by_hand():
    # p = (1, 0), q = (½, ½), their middle (¾, ¼): ½ (ln 4/3) + ½ (½ ln 2/3 + ½ ln 2)
    expected = 0.5 * log(4 / 3) + 0.25 * log(2 / 3) + 0.25 * log(2)
    p, q = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.5, 0.5]).double()
    assert jensen_shannon(p, q) == pytest.approx(expected)
    assert jensen_shannon(q, p) == pytest.approx(expected)


def test_jensen_shannon_of_two_normals():
    # The entropy of the half-and-half mixture of N(±1, 1) has no closed form: a sum over a grid in numpy, in its
    # other form JSD = H(middle) - (H(p) + H(q)) / 2, with H of a normal in closed form, ½ ln(2πe).
    x, width = np.linspace(-12, 12, 4801, retstep=True)
    p, q = (np.exp(-((x - m) ** 2) / 2) / np.sqrt(2 * np.pi) for m in (-1, 1))
    middle = (p + q) / 2
    expected = -(middle * np.log(middle)).sum() * width - 0.5 * np.log(2 * np.pi * np.e)
    assert jensen_shannon(torch.tensor(p * width), torch.tensor(q * width)) == pytest.approx(expected, abs=1e-9)


def test_pattern_error_of_a_generator():
    made = Samples(torch.tensor([[0.9, 0.1], [0.5, 0.3]]))  # outside by 0.3 and 0.1
    result = PatternError(2).measure(made, made, Pattern(2, (0.8, 1.0), (0.0, 0.2)))
    assert result == pytest.approx({"pattern_error": 0.5, "pattern_distance": 0.1})


def test_jensen_shannon_of_the_smallest_masses():
    p, q = torch.tensor([1.0, 5e-324]).double(), torch.tensor([1.0, 0.0]).double()
    assert jensen_shannon(p, q) == 0


def test_jsd_of_a_generator_sees_what_lies_beyond_six_standard_deviations():
    dataset, metric = Gaussian1D(1.0, 2.0), JensenShannon(100_000, bins=200)
    quantiles = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000, 1.0, 2.0)
    perfect = Samples(torch.tensor(quantiles).float().unsqueeze(1))
    assert metric.measure(perfect, perfect, dataset)["jsd"] < 1e-4
    for shift in (30, 100, 1e7):
        far = Samples(perfect.values + shift)
        assert metric.measure(far, perfect, dataset)["jsd"] == pytest.approx(log(2))


def test_one_stray_sample_changes_the_jsd_by_no_more_than_itself():
    dataset, metric = Gaussian1D(0.0, 1.0), JensenShannon(10_000, bins=200)
    point = torch.full((10_000, 1), 0.3)
    stray = torch.cat([point[1:], torch.tensor([[1e6]])])
    collapsed, with_stray = (metric.measure(Samples(x), Samples(x), dataset)["jsd"] for x in (point, stray))
    assert collapsed > 0.6
    assert with_stray == pytest.approx(collapsed, abs=1e-3)


def test_modes_by_hand():
    means = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]]
    s = 0.2
    cross = [[s, 0], [-s, 0], [0, s], [0, -s], [0, 0]]  # five about the first mean, variance 2 s² / 4 an axis
    made = Samples(torch.tensor([*cross, [10.0, 0.29], [0.31, 10.0]]))  # 2.9 and 3.1 standard deviations
    result = ModeCoverage(7, radius=3.0).measure(made, made, mixture(means, std=0.1))
    p = np.array([5, 1, 1]) / 7
    assert result["modes"] == 2
    assert result["high_quality"] == pytest.approx(6 / 7)
    assert result["reverse_kl"] == pytest.approx(float((p * np.log(p * 4)).sum()))
    # A normal cut at 3 standard deviations in the plane: the mean of r² over r < 3, half of it for each axis.
    cut = sqrt((1 - exp(-4.5) * (1 + 4.5)) / (1 - exp(-4.5)))
    assert cut == pytest.approx(0.9744, abs=1e-4)
    for figure in ("spread", "spread_min", "spread_max"):  # the second mode has but one sample
        assert result[figure] == pytest.approx(s / sqrt(2) / (0.1 * cut))


def test_modes_of_a_perfect_and_of_a_narrow_sampler():
    rng, metric = torch.Generator().manual_seed(0), ModeCoverage(10_000, radius=3.0)
    mode = torch.randint(8, (10_000,), generator=rng)
    noise = torch.randn(10_000, 2, generator=rng) * 0.01
    perfect, narrow = (
        metric.measure(Samples(x), Samples(x), RING) for x in (RING.means[mode] + noise, RING.means[mode] + noise / 2)
    )
    assert perfect["modes"] == narrow["modes"] == 8
    assert perfect["high_quality"] == pytest.approx(1 - exp(-4.5), abs=0.003)
    assert perfect["reverse_kl"] < 0.001
    assert 0.95 < perfect["spread_min"] < perfect["spread"] < perfect["spread_max"] < 1.05
    assert perfect["spread"] == pytest.approx(1, abs=0.01)
    assert narrow["spread"] == pytest.approx(0.5 / 0.9744, abs=0.005)


def test_modes_of_a_generator_that_missed_them_all():
    made = Samples(torch.tensor([[0.5, 0.0], [0.6, 0.0], [0.4, 0.1]]))
    result = ModeCoverage(3, radius=3.0).measure(made, made, RING)
    assert result == {
        "modes": 0, "high_quality": 0, "reverse_kl": pytest.approx(log(8)),
        "spread": 0, "spread_min": 0, "spread_max": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("radius", "dimensions"), [(3.0, 1), (3.0, 2), (2.0, 3), (1.0, 7)])
def test_the_standard_deviation_of_a_normal_cut_to_a_ball(radius, dimensions):
    mass, _ = integrate.quad(lambda r: stats.chi.pdf(r, dimensions), 0, radius)
    square, _ = integrate.quad(lambda r: r**2 * stats.chi.pdf(r, dimensions), 0, radius)
    assert truncated_std(radius, dimensions) == pytest.approx(sqrt(square / mass / dimensions))
    if dimensions == 1:
        assert truncated_std(radius, 1) == pytest.approx(stats.truncnorm.std(-radius, radius))


def test_the_picture_of_modes_shows_good_samples_bad_ones_and_the_modes():
    good, bad = RING.means.repeat(3, 1), RING.means * 0.5
    metric = ModeCoverage(24, radius=3.0)
    pictures = [metric.picture(Samples(x), Samples(x), RING) for x in (good, bad, torch.cat([good, 1000 * bad]))]
    green, red = ((44, 160, 44), (214, 39, 40))
    counts = [[int((np.abs(p[120:].astype(int) - c).max(axis=-1) < 30).sum()) for c in (green, red)] for p in pictures]
    assert counts[0][0] > 8
    assert counts[0][1] == 0
    assert counts[1][0] == 0
    assert counts[1][1] > 8
    assert counts[2] == counts[0]  # what is far away neither shows nor shrinks the rest


def test_stacked_modes_by_hand():
    made = seen([[0.0], [999.0], [999.0], [500.0]])
    result = StackedModes(4).measure(made, made, stacked())
    assert result == pytest.approx({"modes": 3, "reverse_kl": 0.5 * log(250) + 0.5 * log(500)})


def test_fid_of_gaussians_is_the_closed_form():
    whitened = normal(0, 500, 4)
    whitened -= whitened.mean(axis=0)
    whitened = whitened @ np.linalg.inv(np.linalg.cholesky(np.cov(whitened, rowvar=False))).T
    means, stds = np.array([[0, 1, 2, 3], [0.5, 1, 1, 3]]), np.array([[1, 1, 2, 0.5], [1, 3, 2, 0.1]])
    made, real = (seen(whitened * std + mean) for mean, std in zip(means, stds, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((stds[0] - stds[1]) ** 2).sum()  # the covariances commute
    assert FID(500).measure(made, real, images_of())["fid"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("counts", [(300, 300), (60, 2000)])
def test_fid_agrees_with_scipys_matrix_root(counts):
    ours, theirs = digits_like(1, counts[0]) * 1.1, digits_like(2, counts[1])
    moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (ours.astype(float), theirs.astype(float))]
    (m1, s1), (m2, s2) = ((m, s + 1e-12 * np.eye(12)) for m, s in moments)
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * linalg.sqrtm(s1 @ s2).real)
    assert FID(1).measure(seen(ours), seen(theirs), images_of())["fid"] == pytest.approx(expected, rel=1e-3)


def test_fid_is_zero_for_the_same_samples_and_refuses_too_few():
    samples = seen(digits_like(0, 100))
    assert FID(100).measure(samples, samples, images_of())["fid"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(ValueError, match="needs at least 13 samples; there are 12 generated and 100 real ones"):
        FID(12).measure(samples[:12], samples, images_of())


def polynomial_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(float(s) * float(t) for s, t in zip(a, b, strict=True)) / len(a) + 1) ** 3

    n, pairs = len(x), [(i, j) for i in range(len(x)) for j in range(len(x))]
    within = sum(kernel(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j) / (n * (n - 1))
    return within - 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / n**2


def test_kid_is_the_unbiased_mmd_of_all_samples_where_a_subset_is_all_of_them():
    x, y = digits_like(1, 50), digits_like(2, 50)
    result = KID(50, subsets=1, subset_size=50).measure(seen(x), seen(y), images_of())["kid"]
    assert result == pytest.approx(polynomial_mmd(x, y), rel=1e-3)


def test_kid_is_the_mean_over_random_subsets():
    x, y = digits_like(1, 100), digits_like(2, 80)
    rng, parts = np.random.RandomState(0), []
    for _ in range(4):
        parts.append(polynomial_mmd(*(z[rng.choice(len(z), 30, replace=False)] for z in (x, y))))
    result = KID(100, subsets=4, subset_size=30).measure(seen(x), seen(y), images_of())["kid"]
    assert result == pytest.approx(np.mean(parts), rel=1e-3)


def test_kid_refuses_subsets_larger_than_the_samples():
    with pytest.raises(UserError, match=r"metric.kid.subset_size is 11; allowed: at most metric.kid.samples, 10"):
        KID(10, subsets=1, subset_size=11)
    with pytest.raises(ValueError, match="needs at least 30 samples; there are 100 generated and 29 real ones"):
        KID(100, 1, 30).measure(seen(normal(0, 100, 3)), seen(normal(1, 29, 3)), images_of())


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


def test_class_balance_by_hand():
    made = seen([[0.0]] * 6 + [[1.0]] * 2)
    real = seen([[0.0]] * 5 + [[1.0]] * 10 + [[3.0]] * 5)
    expected = 0.75 * log(0.75 / 0.25) + 0.25 * log(0.25 / 0.5)
    assert ClassBalance(8).measure(made, real, images_of()) == pytest.approx(
        {"class_kl": expected + log(21 / 20), "classes_found": 2}  # class 2 counts once among 21
    )


def test_class_balance_of_equal_shares_and_of_a_class_that_the_data_have_not():
    real = seen([[0.0]] * 50 + [[1.0]] * 50)
    assert ClassBalance(4).measure(seen([[0.0], [1.0]] * 2), real, images_of()) == {"class_kl": 0, "classes_found": 2}
    stray = ClassBalance(4).measure(seen([[2.0]] * 4), real, images_of())
    assert stray == pytest.approx({"class_kl": log(101), "classes_found": 0})


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
    made = Samples(levels.view(5, 1, 1, 1).expand(5, 1, 2, 2), None, Pixels(10))
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
    monkeypatch.setattr(neighbours, "CHUNK", 10)
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


def test_rows_that_stay_in_the_dataset_are_what_a_tensor_of_them_is():
    pixels = torch.arange(6 * 4, dtype=torch.uint8).view(6, 1, 2, 2) * 10
    dataset = ArrayDataset(pixels, value_range=(-1.0, 1.0))
    chosen = torch.tensor([5, 0, 3, 3])
    stored = Stored(dataset, chosen, lambda x: (x + 1) / 2)
    expected = pixels[chosen].double() / 255
    assert (len(stored), stored.shape) == (4, (4, 1, 2, 2))
    assert torch.allclose(stored[:].double(), expected, atol=1e-6)
    assert torch.allclose(stored[torch.tensor([2, 0])].double(), expected[[2, 0]], atol=1e-6)
    assert torch.allclose(stored.part(slice(1, 3))[:].double(), expected[1:3], atol=1e-6)
    made, metric = Samples(torch.rand(3, 1, 2, 2)), NearestNeighbours(3, quantile=0.5)
    assert metric.measure(made, Samples(stored), dataset) == metric.measure(made, Samples(stored[:]), dataset)
    assert np.array_equal(
        metric.picture(made, Samples(stored), dataset), metric.picture(made, Samples(stored[:]), dataset)
    )


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


def test_label_accuracy_by_hand():
    # The class seen is the first number; the second separates the samples of a class.
    made = seen([[0, 0], [0, 2], [1, 0], [1, 3], [1, 0]], labels=[0, 0, 1, 1, 0])
    real = seen([[0, 0], [0, 4], [1, 0], [1, 2], [2, 0], [2, 9]], labels=[0, 0, 1, 1, 2, 2])
    result = LabelAccuracy(5).measure(made, real, images_of(3))
    first = (2 + 1 + sqrt(5)) / 3  # the distances of (0, 0), (0, 2) and (1, 0), which was asked for as a 0
    assert result == pytest.approx({"label_accuracy": 0.8, "class_diversity": ((first + 3) / 2) / ((4 + 2) / 2)})


def test_label_accuracy_needs_two_samples_of_a_class():
    made, real = seen([[0.0], [1.0]], labels=[0, 1]), seen([[0.0], [0.0]], labels=[0, 0])
    with pytest.raises(ValueError, match="two samples of a class"):
        LabelAccuracy(2).measure(made, real, images_of(2))
