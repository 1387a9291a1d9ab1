import math

import numpy as np
import pytest
import torch

from gan_runner.datasets import Gaussian1D, GaussianMixture, Grid, Pattern, Ring
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


def ring(**keys: float) -> Ring:
    return Ring(**{"modes": 8, "radius": 1.0, "std": 0.01, "size": 4000, "data_seed": 0, **keys})  # type: ignore[arg-type]


def grid(**keys: float) -> Grid:
    return Grid(**{"side": 5, "spacing": 2.0, "std": 0.05, "size": 10_000, "data_seed": 0, **keys})  # type: ignore[arg-type]


def test_the_means_of_the_ring_and_of_the_grid() -> None:
    half = 0.70710678
    corners = [(1, 0), (half, half), (0, 1), (-half, half), (-1, 0), (-half, -half), (0, -1), (half, -half)]
    assert torch.allclose(ring().means, torch.tensor(corners, dtype=torch.float32), atol=1e-6)
    assert torch.allclose(ring(modes=2, radius=3.0).means, torch.tensor([[3.0, 0], [-3, 0]]), atol=1e-6)
    at = (-4.0, -2.0, 0.0, 2.0, 4.0)
    assert grid().means.tolist() == [[x, y] for x in at for y in at]
    assert grid(side=2, spacing=1.0).means.tolist() == [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]


@pytest.mark.parametrize("data", [ring(), grid()], ids=["ring", "grid"])
def test_a_mixture_has_equal_parts_of_the_spread_asked_for(data: GaussianMixture) -> None:
    batch, labels = data.batch(0, len(data), seed=0)
    assert labels is None
    assert data.value_range is None
    assert (batch.dtype, data.shape, data.num_classes) == (torch.float32, (2,), 0)
    points, means = batch.double().numpy(), data.means.double().numpy()
    distances = np.linalg.norm(points[:, None] - means, axis=2)
    # Of a Gaussian in the plane, 1 - exp(-r²/2) lies within r deviations: 0.3935 within 1, 0.9889 within 3.
    nearest = distances.min(axis=1) / data.std
    assert (nearest < 1).mean() == pytest.approx(0.3935, abs=0.025)
    assert (nearest < 3).mean() == pytest.approx(0.9889, abs=0.006)
    offsets = points - means[distances.argmin(axis=1)]
    assert np.cov(offsets.T) / data.std**2 == pytest.approx(np.eye(2), abs=0.08)
    shares = np.bincount(distances.argmin(axis=1)) / len(points)
    assert shares == pytest.approx(np.full(len(means), 1 / len(means)), rel=0.2)


def test_the_data_of_a_mixture_are_a_function_of_its_keys_and_the_run_s_seed_only_orders_them() -> None:
    points = {seed: ring().batch(0, 4000, seed)[0] for seed in (1, 2)}
    assert not torch.equal(points[1], points[2])
    assert sorted(points[1].tolist()) == sorted(points[2].tolist())
    others = [ring(), ring(data_seed=1), ring(std=0.02), ring(size=3999), ring(radius=2.0), ring(modes=7), grid()]
    assert len({data.fingerprint() for data in others}) == 7
    assert ring().fingerprint() == others[0].fingerprint()


def test_held_out_points_are_fresh_ones_of_the_same_mixture() -> None:
    data = ring()
    held_out = data.held_out()
    assert isinstance(held_out, GaussianMixture)
    assert len(held_out) == len(data)
    assert (held_out.std, held_out.means.tolist()) == (data.std, data.means.tolist())
    assert not set(map(tuple, held_out._data.tolist())) & set(map(tuple, data._data.tolist()))
    again = ring().held_out()
    assert again is not None
    assert again.fingerprint() == held_out.fingerprint()
    pattern = Pattern(6, HIGH, LOW)
    assert pattern.held_out() is pattern


def test_points_drawn_from_a_mixture_are_a_function_of_the_generator_given() -> None:
    first, second = (grid().draw(5000, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (5000, 2)
    assert not torch.equal(first, grid().draw(5000, torch.Generator().manual_seed(8)))
    # Over a grid of side 5, spacing 2: mean 0, variance 2² · (5² - 1) / 12 + 0.05² = 8.0025.
    assert first.mean(0).tolist() == pytest.approx([0, 0], abs=0.16)
    assert first.var(0).tolist() == pytest.approx([8.0025, 8.0025], rel=0.06)
