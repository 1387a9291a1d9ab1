import numpy as np
import pytest
from scipy import linalg

from gan_runner.errors import UserError
from gan_runner.metrics import FID, KID
from tests.metrics.conftest import digits_like, images_of, normal, seen


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
