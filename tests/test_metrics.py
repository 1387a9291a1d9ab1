from math import log

import numpy as np
import pytest
import torch

from gan_runner.metrics import histogram_density, jensen_shannon, pattern_error


def test_pattern_error_counts_values_outside_and_measures_how_far():
    low, high = torch.tensor([0.8, 0.0, 0.8]), torch.tensor([1.0, 0.2, 1.0])
    samples = torch.tensor([[0.8, 0.2, 0.9], [1.5, 0.1, 0.5]])  # two of six outside, by 0.5 and 0.3
    assert pattern_error(samples, low, high) == pytest.approx((2 / 6, 0.8 / 6))
    assert pattern_error(samples[:1], low, high) == (0, 0)  # the ends of a range are inside


def test_histogram_density_is_a_density():
    samples = torch.tensor([0.1, 0.2, 0.3, 0.9, 1.1, 2.0])  # the last edge belongs to the last bin
    edges = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])
    assert histogram_density(samples, edges).tolist() == pytest.approx([1.0, 1 / 3, 1 / 3, 1 / 3])
    assert histogram_density(samples, edges).sum() * 0.5 == pytest.approx(1.0)


def test_histogram_density_is_that_of_the_mass_between_the_edges():
    density = histogram_density(torch.tensor([-5.0, 0.25, 0.75, 0.8, 9.0]), torch.tensor([0.0, 0.5, 1.0]))
    assert density.tolist() == pytest.approx([2 / 3, 4 / 3])


def test_histogram_density_agrees_with_numpy():
    values, edges = np.random.default_rng(0).normal(size=1000), np.linspace(-4, 4, 51)
    expected, _ = np.histogram(values, edges, density=True)
    assert np.allclose(histogram_density(torch.tensor(values), torch.tensor(edges)), expected)


def test_jensen_shannon_of_equal_and_of_disjoint_densities():
    p, q = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 2.0])
    assert jensen_shannon(p, p, 0.5) == 0
    assert jensen_shannon(p, q, 0.5) == pytest.approx(log(2))


def test_jensen_shannon_by_hand():
    # p = (1, 0), q = (½, ½), their middle (¾, ¼): ½ (ln 4/3) + ½ (½ ln 2/3 + ½ ln 2)
    expected = 0.5 * log(4 / 3) + 0.25 * log(2 / 3) + 0.25 * log(2)
    p, q = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.5, 0.5]).double()
    assert jensen_shannon(p, q, 1.0) == pytest.approx(expected)
    assert jensen_shannon(q, p, 1.0) == pytest.approx(expected)
    assert jensen_shannon(p / 0.1, q / 0.1, 0.1) == pytest.approx(expected)  # densities on narrower bins


def test_jensen_shannon_of_two_normals():
    # The entropy of the half-and-half mixture of N(±1, 1) has no closed form: a sum over a grid in numpy, in its
    # other form JSD = H(middle) - (H(p) + H(q)) / 2, with H of a normal in closed form, ½ ln(2πe).
    x, width = np.linspace(-12, 12, 4801, retstep=True)
    p, q = (np.exp(-((x - m) ** 2) / 2) / np.sqrt(2 * np.pi) for m in (-1, 1))
    middle = (p + q) / 2
    expected = -(middle * np.log(middle)).sum() * width - 0.5 * np.log(2 * np.pi * np.e)
    assert jensen_shannon(torch.tensor(p), torch.tensor(q), float(width)) == pytest.approx(expected, abs=1e-9)
