"""Means over seeds with their intervals, and which differences are larger than chance. NaN stands for undefined."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

from scipy.special import stdtr, stdtrit

LEVEL = 0.95
BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Estimate:
    """A mean and half of its 95 % interval."""

    mean: float
    half_width: float | None  # None: one value has none
    n: int


@dataclass(frozen=True)
class Difference:
    """The mean of one configuration less that of another."""

    first: str
    second: str
    estimate: Estimate  # its n is the number of pairs, or the smaller of both numbers
    paired: bool
    p: float | None  # None: too few values for a test
    adjusted: float | None = None  # by Holm, for all that are tested together

    @property
    def beyond_chance(self) -> bool:
        return self.adjusted is not None and self.adjusted < 1 - LEVEL


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of the values that are defined, with Student's interval; None without any."""
    defined = [value for value in values if math.isfinite(value)]
    if not defined:
        return None
    if len(defined) == 1:
        return Estimate(defined[0], None, 1)
    half = quantile(len(defined) - 1) * stdev(defined) / math.sqrt(len(defined))
    return Estimate(fmean(defined), half, len(defined))


def quantile(freedom: float) -> float:
    """How many standard errors are half of a 95 % interval."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def differences(configurations: Mapping[str, BySeed]) -> list[Difference]:
    """Each pair of configurations compared, adjusted for the number of comparisons."""
    return holm([compare(*a, *b) for a, b in itertools.combinations(configurations.items(), 2)])


def compare(first: str, a: BySeed, second: str, b: BySeed) -> Difference:
    """Paired by the seeds that both have, if these are two or more, otherwise by Welch."""
    a, b = ({seed: value for seed, value in side.items() if math.isfinite(value)} for side in (a, b))
    shared = sorted(a.keys() & b.keys())
    if len(shared) > 1:
        return _paired(first, second, [a[seed] - b[seed] for seed in shared])
    return _welch(first, second, list(a.values()), list(b.values()))


def _paired(first: str, second: str, gaps: list[float]) -> Difference:
    found = estimate(gaps)
    assert found is not None
    error = _but_for_rounding(stdev(gaps) / math.sqrt(len(gaps)), gaps)
    # Without any spread t is infinite, even of two seeds; what is left is that all signs agree.
    p = _two_sided(found.mean / error, len(gaps) - 1) if error else 2.0 ** (1 - len(gaps)) if found.mean else 1.0
    return Difference(first, second, found, paired=True, p=p)


def _welch(first: str, second: str, a: list[float], b: list[float]) -> Difference:
    gap, n = (fmean(a) - fmean(b) if a and b else math.nan), min(len(a), len(b))
    if n < 2:
        return Difference(first, second, Estimate(gap, None, n), paired=False, p=None)
    parts = [variance(side) / len(side) for side in (a, b)]
    error = _but_for_rounding(math.sqrt(sum(parts)), [*a, *b])
    if error == 0:  # likewise: of all ways to share the values out, two set the sides apart like this
        p = 2 / math.comb(len(a) + len(b), len(a)) if gap else 1.0
        return Difference(first, second, Estimate(gap, 0.0, n), paired=False, p=p)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True))
    return Difference(
        first, second, Estimate(gap, quantile(freedom) * error, n), paired=False, p=_two_sided(gap / error, freedom)
    )


def _but_for_rounding(error: float, values: Sequence[float]) -> float:
    """`error`, or 0 if it is no more than what rounding makes of `values`."""
    return error if error > 1e-12 * max(map(abs, values)) else 0.0


def _two_sided(t: float, freedom: float) -> float:
    return float(2 * stdtr(freedom, -abs(t)))


def holm(tested: Sequence[Difference]) -> list[Difference]:
    """Adjusts the p of each: with all true differences zero, one in twenty families has any below 0.05 (Holm, 1979)."""
    ranked = sorted((d.p, place) for place, d in enumerate(tested) if d.p is not None)
    adjusted: dict[int, float] = {}
    largest = 0.0
    for rank, (p, place) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        adjusted[place] = largest
    return [
        Difference(d.first, d.second, d.estimate, d.paired, d.p, adjusted.get(place)) for place, d in enumerate(tested)
    ]
