"""The effect of each swept key: its values compared, each averaged over the choices of all other keys."""

from collections.abc import Sequence
from math import isnan
from statistics import fmean

from gan_runner.sweeps.report.answer import context, in_figures
from gan_runner.sweeps.report.charts import Interval, interval_chart, style
from gan_runner.sweeps.report.groups import ABSENT, Comparable, Group
from gan_runner.sweeps.report.page import Intervals, Part, Table, Text
from gan_runner.sweeps.report.statistics import estimate


def effects(table: Comparable) -> list[Part]:
    """A table and a chart for each key that has several values here; of one key alone, the answer tells."""
    keys = dict.fromkeys(key for group in table.groups for key in group.swept)
    varied = [key for key in keys if len({group.swept.get(key, ABSENT) for group in table.groups}) > 1]
    objective = table.objective
    if len(varied) < 2 or objective is None:
        return []
    rows, charts = [], []
    for key in varied:
        found, combinations = effect(table.groups, key, objective)
        for one in found:
            at = estimate(one.values)
            rows.append([f"{key}={one.label}", in_figures(at), str(len(one.values)), str(combinations)])
        if found:
            charts.append(interval_chart(f"{objective} by {key}", found))
    if not rows:  # no combination of the other keys was run with all values of a key
        return []
    heads = ["value", "mean ± 95 %", "seeds", "combinations of the other keys"]
    how = (
        "Each value's mean over the combinations of the other keys that all of its values were run with, seed by seed."
    )
    return [Text(how), Table(heads, rows, f"{objective} ({context(table, objective)})"), Intervals(charts)]


def effect(groups: Sequence[Group], key: str, tag: str) -> tuple[list[Interval], int]:
    """By value of the key the means that its seeds have, and over how many combinations each is taken."""
    found: dict[str, dict[tuple[tuple[str, str], ...], dict[int, float]]] = {}
    for group in groups:
        others = tuple((name, value) for name, value in group.swept.items() if name != key)
        defined = {seed: value for seed, value in group.final(tag).items() if not isnan(value)}
        if defined:
            found.setdefault(group.swept.get(key, ABSENT), {})[others] = defined
    shared = set.intersection(*(set(cells) for cells in found.values())) if found else set()
    intervals: list[Interval] = []
    for value, cells in found.items():
        seeds = sorted(set.intersection(*(set(cells[others]) for others in shared))) if shared else []
        means = [fmean(cells[others][seed] for others in shared) for seed in seeds]
        if (at := estimate(means)) is not None:
            intervals.append(Interval(value, at.mean, at.half_width, means, style(len(intervals))))
    return intervals, len(shared)
