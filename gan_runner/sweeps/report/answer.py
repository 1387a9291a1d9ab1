"""The answer of a sweep: each figure's mean and interval for each configuration, and the differences that count."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gan_runner.console import rounded
from gan_runner.metrics import Goal
from gan_runner.sweeps.report.charts import Interval, interval_chart, style
from gan_runner.sweeps.report.groups import Comparable, Group, undefined
from gan_runner.sweeps.report.page import Intervals, Part, Section, Table, Text
from gan_runner.sweeps.report.statistics import Difference, Estimate, differences, estimate

BEST = "at its best on the way"
NAMES = 4  # that are told one by one
DIFFERENCES = 10  # that are shown unasked
BySeed = Mapping[int, float]


def answer_sections(table: Comparable, heading: str) -> list[Section]:
    """The objective, and below it the other figures."""
    objective = table.objective
    first: list[Part] = []
    if objective is not None:
        finals = {group.label: group.final(objective) for group in table.groups}
        first += figure_parts(table, objective, finals, objective)
        best = {group.label: group.best() for group in table.groups}
        if table.selects and best != finals:  # trainer.objective is set: the run is used as it was at its best
            first += figure_parts(table, objective, best, f"{objective}, {BEST}")
    else:
        first.append(Text("These runs measure nothing, so that nothing tells which is better."))
    others: list[Part] = []
    for tag in table.tags:
        if tag != objective:
            others += figure_parts(table, tag, {g.label: g.final(tag) for g in table.groups}, tag)
    return [Section(f"Answer{heading}", first), *([Section(f"Other figures{heading}", others)] if others else [])]


def best_first(table: Comparable) -> Comparable:
    """The same, its configurations in the order of the objective."""
    if table.objective is None:
        return table
    groups = {group.label: group for group in table.groups}
    finals = {label: group.final(table.objective) for label, group in groups.items()}
    return replace(table, groups=[groups[label] for label in ranked(finals, table.goal(table.objective))])


def figure_parts(table: Comparable, tag: str, values: Mapping[str, BySeed], title: str) -> list[Part]:
    """One figure: in a sentence, in a table, as intervals, and every comparison."""
    goal = table.goal(tag)
    styles = {group.label: style(number) for number, group in enumerate(table.groups)}
    groups = {group.label: group for group in table.groups}
    values = {label: values[label] for label in ranked(values, goal)}
    compared = differences(values)
    rows = [_row(groups[label], by_seed, goal) for label, by_seed in values.items()]
    heads = ["configuration", "mean ± 95 %", "n", "best seed", "worst seed", "left out"]
    if goal is None:
        heads[3:5] = ["lowest", "highest"]
    parts: list[Part] = [
        Text(in_words(title, values, compared, goal)),
        Table(heads, rows, f"{title} ({context(table, tag)})"),
    ]
    intervals = [
        Interval(label, found.mean, found.half_width, [*filter(math.isfinite, by_seed.values())], styles[label])
        for label, by_seed in values.items()
        if (found := estimate([*by_seed.values()])) is not None
    ]
    if len({one.mean for one in intervals}) > 1:
        parts.append(Intervals([interval_chart(title, intervals)]))
    return [*parts, *difference_tables(title, compared, folded=tag != table.objective)]


def difference_tables(title: str, compared: Sequence[Difference], folded: bool) -> list[Table]:
    """All that were tested; of many, those that count come first in a table of their own."""
    tested = sorted((d for d in compared if d.p is not None), key=lambda d: d.adjusted or 0.0)
    sure = [d for d in tested if d.beyond_chance]
    heads = ["difference", "first less second", "p", "p (Holm)", "n", "larger than chance?"]
    many = len(tested) > DIFFERENCES
    tables = []
    if many and sure and not folded:
        name = f"Differences of {title} that are larger than chance: {len(sure)} of {len(tested)}"
        tables.append(Table(heads, [_difference(d) for d in sure], name))
    if tested:
        name = f"Differences of {title}: {len(tested)} compared"
        tables.append(Table(heads, [_difference(d) for d in tested], name, folded=folded or many))
    return tables


def ranked(values: Mapping[str, BySeed], goal: Goal | None) -> list[str]:
    """The configurations, best first; those without a value last."""
    means = {label: found.mean if (found := estimate([*v.values()])) else math.inf for label, v in values.items()}
    return sorted(
        values, key=lambda label: -means[label] if goal == "max" and means[label] < math.inf else means[label]
    )


def _row(group: Group, values: BySeed, goal: Goal | None) -> list[str]:
    found = estimate([*values.values()])
    by_value = sorted((value, seed) for seed, value in values.items() if math.isfinite(value))
    ends = [f"{rounded(value)} (seed {seed})" for value, seed in (by_value[:1] + by_value[-1:])] or ["", ""]
    if goal == "max":
        ends.reverse()
    return [group.label, in_figures(found), str(found.n if found else 0), *ends, left_out(group, values)]


def left_out(group: Group, values: BySeed) -> str:
    """What the mean does not count, and why."""
    reasons = [f"{len(names)} {state}" for state, names in by_label((r.state, r.name) for r in group.others).items()]
    reasons = [reason.replace("completed", "repeated") for reason in reasons]
    missing = len(group.by_seed) - len(values)
    reasons += [f"{undefined(values)} undefined"] if undefined(values) else []
    return ", ".join([*reasons, *([f"{missing} not measured"] if missing else [])])


def in_figures(found: Estimate | None) -> str:
    """A mean with the half width of its interval, if it has one."""
    if found is None:
        return "undefined"
    return rounded(found.mean) if found.half_width is None else f"{rounded(found.mean)} ± {rounded(found.half_width)}"


def _difference(found: Difference) -> list[str]:
    assert found.p is not None
    assert found.adjusted is not None
    how = f"{found.estimate.n} pairs" if found.paired else f"{found.estimate.n} or more each"
    verdict = "yes" if found.beyond_chance else "not told apart"
    p = [f"{value:.2g}" for value in (found.p, found.adjusted)]
    return [f"{found.first} − {found.second}", in_figures(found.estimate), *p, how, verdict]


def in_words(title: str, values: Mapping[str, BySeed], compared: list[Difference], goal: Goal | None) -> str:
    """Which configuration comes first, and before which others it does so by more than chance."""
    found = {label: at for label, by_seed in values.items() if (at := estimate([*by_seed.values()])) is not None}
    if not found:
        return f"{title} is undefined for every run."
    first, *others = found
    told = f"{first} with {in_figures(found[first])} (n {found[first].n})"
    if not others:
        return f"{title}: {told}."
    if len({at.mean for at in found.values()}) == 1:
        return f"{title}: {rounded(found[first].mean)} in every configuration."
    tested = [d for d in compared if d.p is not None]
    if goal is None:
        apart = sum(d.beyond_chance for d in tested)
        return f"{title}: from {first} to {others[-1]}; {apart} of {len(tested)} differences are larger than chance."
    behind = {d.second: d.beyond_chance for d in tested if d.first == first}  # all pairs are in this order
    sure = [label for label in others if behind.get(label)]
    unsure = [label for label in others if behind.get(label) is False]
    untested = [label for label in others if label not in behind]
    sentences = [f"{title}: {told} comes first."]
    sentences += [f"Its lead is larger than chance over {some(sure)}."] if sure else []
    sentences += [f"It is not told apart from {some(unsure)}."] if unsure else []
    sentences += [f"Too few seeds tell whether it differs from {some(untested)}."] if untested else []
    return " ".join(sentences)


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many others there are."""
    shown = [*names] if len(names) <= NAMES else [*names[: NAMES - 1], f"{len(names) - NAMES + 1} others"]
    return " and ".join(filter(None, ["; ".join(shown[:-1]), shown[-1]]))


def context(table: Comparable, tag: str) -> str:
    """What a figure is to be held against, and what it depends on."""
    told = [{"min": "smaller is better", "max": "larger is better", None: "neither is better"}[table.goal(tag)]]
    perfect, found = table.perfect(tag), table.stored(tag)
    told += [] if perfect is None else [f"a perfect sampler {rounded(perfect)}"]
    told += list(dict.fromkeys(f"N {number:,}" for number in table.samples(tag)))
    told += list(dict.fromkeys(f"{f.extractor} {(f.extractor_hash or '')[:8]}" for f in found if f.extractor))
    return "; ".join(told)


def by_label(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The second of each pair, under the first."""
    found: dict[str, list[str]] = {}
    for label, name in pairs:
        found.setdefault(label, []).append(name)
    return found
