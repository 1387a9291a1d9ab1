import math

import pytest
import torch

from gan_runner.datasets import Gaussian1D, Pattern
from gan_runner.errors import UserError

HIGH, LOW = (0.8, 1.0), (0.0, 0.2)


def test_the_pattern_alternates_and_starts_high() -> None:
    data = Pattern(6, HIGH, LOW)
    batch, labels = data.batch(0, 10_000, seed=0)
    assert labels is None
    assert batch.dtype == torch.float32
    assert batch.shape == (10_000, 6)
    assert data.shape == (6,)
    assert data.value_range == (0.0, 1.0)
    assert batch[:, ::2].min() >= 0.8
    assert batch[:, ::2].max() <= 1.0
    assert batch[:, 1::2].min() >= 0.0
    assert batch[:, 1::2].max() <= 0.2
    # Uniform: mean in the middle, standard deviation width / sqrt(12), each to four standard errors.
    assert torch.allclose(batch.mean(0), torch.tensor([0.9, 0.1] * 3), atol=4 * 0.2 / math.sqrt(12 * 10_000))
    assert torch.allclose(batch.std(0), torch.full((6,), 0.2 / math.sqrt(12)), rtol=0.03)


def test_the_values_of_a_pattern_are_independent() -> None:
    batch, _ = Pattern(6, HIGH, LOW).batch(0, 10_000, seed=0)
    assert (torch.corrcoef(batch.T) - torch.eye(6)).abs().max() < 0.05


def test_bounds_of_a_pattern() -> None:
    lowest, highest = Pattern(5, (0.5, 2.0), (-1.0, 0.25)).bounds()
    assert lowest.tolist() == [0.5, -1.0, 0.5, -1.0, 0.5]
    assert highest.tolist() == [2.0, 0.25, 2.0, 0.25, 2.0]


def test_the_value_range_of_a_pattern_spans_both_ranges() -> None:
    assert Pattern(2, (0.5, 2.0), (-1.0, 0.25)).value_range == (-1.0, 2.0)


@pytest.mark.parametrize(
    ("high", "low"), [((1.0, 0.8), LOW), (HIGH, (0.2, 0.0)), ((0.1, 1.0), LOW), ((0.2, 1.0), LOW), (LOW, HIGH)]
)
def test_reversed_and_overlapping_ranges_are_refused(high: tuple[float, float], low: tuple[float, float]) -> None:
    with pytest.raises(UserError, match=r"dataset\.low is .* dataset\.high is"):
        Pattern(6, high, low)


def test_patterns_are_told_apart_by_their_fingerprints() -> None:
    patterns = [Pattern(6, HIGH, LOW), Pattern(7, HIGH, LOW), Pattern(6, (0.7, 1.0), LOW), Pattern(6, HIGH, (0.1, 0.2))]
    assert len({pattern.fingerprint() for pattern in patterns}) == 4
    assert Pattern(6, (0.8, 1), (0, 0.2)).fingerprint() == patterns[0].fingerprint()


def test_gaussian_density_against_its_closed_form() -> None:
    data = Gaussian1D(mean=1.0, std=2.0)
    # N(1, 4) at its mean is 1 / (2 sqrt(2 pi)) = 0.19947114, a deviation away exp(-1/2) of that, two exp(-2).
    expected = torch.tensor([0.19947114, 0.12098536, 0.12098536, 0.02699548])
    assert torch.allclose(data.density(torch.tensor([1.0, 3.0, -1.0, 5.0])), expected, rtol=1e-6)
    grid = torch.linspace(-19, 21, 4001)
    assert torch.trapezoid(data.density(grid), grid).item() == pytest.approx(1, abs=1e-6)
    assert data.density(torch.zeros(5, 1)).shape == (5, 1)


def test_gaussian_samples_have_its_moments() -> None:
    data = Gaussian1D(mean=1.0, std=2.0)
    batch, labels = data.batch(0, 40_000, seed=0)
    assert labels is None
    assert batch.shape == (40_000, 1)
    assert data.shape == (1,)
    assert data.value_range is None
    assert batch.mean().item() == pytest.approx(1, abs=0.04)
    assert batch.std().item() == pytest.approx(2, rel=0.02)
    within = ((batch - 1).abs() < 2).float().mean().item()
    assert within == pytest.approx(0.6827, abs=0.01)
    assert data.fingerprint() == Gaussian1D(1, 2).fingerprint() != Gaussian1D(1, 3).fingerprint()
