from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from gan_runner.datasets import Gaussian1D, Pattern
from gan_runner.metrics import JensenShannon, ModeCoverage, PatternError, Samples, jensen_shannon, masses, pattern_error
from gan_runner.metrics.truth import truncated_std
from tests.metrics.conftest import RING, mixture


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
