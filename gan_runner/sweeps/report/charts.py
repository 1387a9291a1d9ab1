"""Charts as shapes in a picture of fixed size, which the page draws as SVG: colours are its, numbers are ours."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gan_runner.console import rounded

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 342, 10, 192  # where the axes are
LABEL = 52  # characters that fit beside an interval
ROW = 32  # height of a row of intervals
POINTS = 80  # of a curve; a screen shows no more, and a page stays small
COLORS, DASHES = 8, 3  # how many each; beyond, colours come again with another dash
LOGARITHMIC_FROM = 50  # how many times the smallest value the largest is

Tick = tuple[float, str]  # where, and what is written there
Values = dict[int, float]  # by step


@dataclass(frozen=True)
class Series:
    """A curve over the steps, and perhaps an interval around it."""

    label: str
    values: Values
    half_widths: Values = field(default_factory=dict)
    reach: tuple[float, ...] = ()  # further values that the axis shows, though they are no curve


@dataclass(frozen=True)
class Shape:
    """What the page draws of a series: SVG paths."""

    label: str
    style: str
    line: str
    band: str


@dataclass(frozen=True)
class Chart:
    """Curves with their axes."""

    title: str
    alt: str
    shapes: list[Shape]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    reference: float | None = None  # the height of a dashed line
    reference_label: str = ""
    legend: bool = False  # its own; else several charts share one

    @property
    def entries(self) -> list[tuple[str, str]]:
        """The legend: label and style."""
        return [(shape.label, shape.style) for shape in self.shapes]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, and the values that it is made of."""

    label: str
    mean: float
    half_width: float | None
    values: Sequence[float]
    style: str


@dataclass(frozen=True)
class Row:
    """What the page draws of an interval."""

    label: str
    style: str
    y: float
    mean: float
    low: float
    high: float
    dots: list[float]


@dataclass(frozen=True)
class IntervalChart:
    """Intervals one below the other."""

    title: str
    alt: str
    rows: list[Row]
    x_ticks: list[Tick]
    height: float


def style(number: int) -> str:
    """The class of the page's style for the series of this number."""
    return f"c{number % COLORS} d{number // COLORS % DASHES}"


@dataclass(frozen=True)
class Axis:
    """Values between `low` and `high`, drawn between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is; those far outside come to lie just outside."""
        if self.logarithmic:
            share = math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, -1.0), 2.0) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[Tick]:
        """Round values, about five of them, or powers of ten."""
        if self.logarithmic:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [(self(10.0**n), f"{10.0**n:g}") for n in powers[:: max(1, len(powers) // 4)]]
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        unit *= next((factor for factor in (1, 2, 5) if factor * unit >= rough), 10)
        first, last = math.ceil(self.low / unit - 1e-9), math.floor(self.high / unit + 1e-9)
        return [(self(n * unit), f"{n * unit:.6g}") for n in range(first, last + 1)]


def axis(values: Iterable[float], start: float, end: float, may_be_logarithmic: bool = True) -> Axis:
    """An axis that shows all of the values, logarithmic if they are of several orders of magnitude."""
    finite = [value for value in values if abs(value) < 1e100]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if may_be_logarithmic and low > 1e-100 and high > LOGARITHMIC_FROM * low:
        room = (high / low) ** 0.04
        return Axis(low / room, high * room, start, end, logarithmic=True)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(low - room, high + room, start, end)


def line_chart(
    title: str,
    series: Sequence[Series],
    reference: float | None = None,
    name: str = "",
    legend: bool = False,
) -> Chart | None:
    """The series over the steps, None if there is nothing to draw. The axis shows all curves, if not all of a band.

    A dashed line is at the `reference` of that `name`, where it leaves the curves enough of the height.
    """
    steps = sorted({step for one in series for step in one.values})
    if not steps:
        return None
    values = [value for one in series for value in (*one.values.values(), *one.reach)]
    y, dashed = axis(values, BOTTOM, TOP), None
    if reference is not None:
        both = axis([*values, reference], BOTTOM, TOP)
        taken = abs(both(max(values)) - both(min(values)))
        if taken == 0 or taken > (BOTTOM - TOP) / 3:
            y, dashed = both, both(reference)
    x = Axis(min(steps[0], 0), max(steps[-1], 1), LEFT, RIGHT)
    shapes = [_shape(one, style(number), x, y) for number, one in enumerate(series) if one.values]
    last = "; ".join(f"{s.label} {rounded(s.values[max(s.values)])}" for s in series[:COLORS] if s.values)
    return Chart(
        title=title,
        alt=f"{title} over {steps[-1]:,} steps; at the end: {last}",
        shapes=shapes,
        x_ticks=[(at, _short(label)) for at, label in x.ticks],
        y_ticks=y.ticks,
        reference=dashed,
        reference_label="" if reference is None else f"{'dashed: ' * (dashed is not None)}{name} {rounded(reference)}",
        legend=legend,
    )


def _shape(series: Series, look: str, x: Axis, y: Axis) -> Shape:
    steps = thinned(sorted(series.values))
    line = _path([(x(step), y(series.values[step])) for step in steps])
    wide = [step for step in steps if step in series.half_widths]
    upper = [(x(step), y(series.values[step] + series.half_widths[step])) for step in wide]
    lower = [(x(step), y(series.values[step] - series.half_widths[step])) for step in reversed(wide)]
    return Shape(series.label, look, line, f"{_path([*upper, *lower])}Z" if wide else "")


def thinned(steps: Sequence[int]) -> list[int]:
    """At most `POINTS` of the steps, evenly, with the first and the last."""
    if len(steps) <= POINTS:
        return [*steps]
    return [steps[round(number * (len(steps) - 1) / (POINTS - 1))] for number in range(POINTS)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:  # a line of no length is drawn as a dot, by its round ends
        points = [*points, *points]
    return "M" + "L".join(f"{px:g} {py:g}" for px, py in points)


def _short(label: str) -> str:
    """A step in few characters."""
    value = float(label)
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def interval_chart(title: str, intervals: Sequence[Interval]) -> IntervalChart:
    """The intervals in rows. The axis shows all values, if not all of an interval, which may be far wider."""
    height = ROW * len(intervals) + 26
    shown = [value for one in intervals for value in (one.mean, *one.values)]
    spread = max(shown) - min(shown)
    shown += [
        min(max(one.mean + sign * (one.half_width or 0.0), min(shown) - spread), max(shown) + spread)
        for one in intervals
        for sign in (-1, 1)
    ]
    x = axis(shown, 12, WIDTH - 12, may_be_logarithmic=False)
    rows = []
    for number, one in enumerate(intervals):
        low, high = (x(one.mean + sign * (one.half_width or 0.0)) for sign in (-1, 1))
        dots = [x(value) for value in one.values]
        label = one.label if len(one.label) <= LABEL else f"{one.label[: LABEL - 1]}…"
        rows.append(Row(label, one.style, ROW * (number + 0.5), x(one.mean), low, high, dots))
    told = "; ".join(f"{one.label} {rounded(one.mean)}" for one in intervals)
    return IntervalChart(title, f"{title}: {told}", rows, x.ticks, height)
