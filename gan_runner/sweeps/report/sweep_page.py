"""The report on several runs: which configuration is better, by how much, and how sure that is."""

from collections import Counter
from collections.abc import Sequence

from gan_runner.console import rounded
from gan_runner.sweeps.report.answer import answer_sections, best_first, by_label, some
from gan_runner.sweeps.report.charts import Series, line_chart, style
from gan_runner.sweeps.report.collect import AT_WORK, Run, Runs, StoredFinding
from gan_runner.sweeps.report.effects import effects
from gan_runner.sweeps.report.groups import Comparable, Group, common, comparable, configuration, describe, label
from gan_runner.sweeps.report.page import Charts, Page, Part, Pictures, Section, Table, Text
from gan_runner.sweeps.report.run_page import command, has_content, made_with, values_over_steps
from gan_runner.sweeps.report.search import found_by_search
from gan_runner.sweeps.report.statistics import estimate
from gan_runner.sweeps.report.thumbnails import Thumbnail, sample_files, thumbnail

SIDE = 280  # of a grid of samples, in pixels
CELLS = 60  # of the grid of grids
CURVES = ("metric/", "loss/")
STATES = ("completed", "running", "waiting", "interrupted", "pruned", "failed", "diverged", "refused")


def sweep_page(runs: Runs) -> Page:
    """The answer first; what it rests on below."""
    tables = [best_first(table) for table in comparable(runs.runs, runs.swept)]
    sections = []
    if any(run.state in AT_WORK for run in runs.runs):
        sections.append(Section("Where it stands", at_work(runs.runs)))
    sections.append(Section("The search", found_by_search(runs.folder)))
    for table in tables:
        heading = conditions_in_words(table, tables)
        sections += answer_sections(table, heading)
        sections.append(Section(f"Learning curves{heading}", curves(table)))
        sections.append(Section(f"The effect of each swept key{heading}", effects(table)))
    sections += [
        Section("Samples", samples(tables)),
        Section("Not completed", not_completed(runs)),
        Section("Health", health(runs.runs)),
        Section("All runs", [all_runs(runs.runs)], long=True),
        Section("Common to all: configuration", shared_keys(runs.runs), long=True),
        Section("Common to all: commit, versions, data", made_with([r for r in runs.runs if r.rows])),
        Section("Command", command(runs.command)),
    ]
    return Page(
        runs.folder.resolve().name,
        [counted(runs), *lead(runs, tables)],
        [section for section in sections if any(map(has_content, section.parts))],
    )


def counted(runs: Runs) -> str:
    """How many runs there are, by state."""
    states = Counter(run.state for run in runs.runs)
    order = sorted(states, key=lambda state: STATES.index(state) if state in STATES else len(STATES))
    told = [f"{states[state]} {state}" for state in order]
    told += [f"{len(runs.unreadable)} cannot be read"] if runs.unreadable else []
    total = len(runs.runs) + len(runs.unreadable)
    return f"{total:,} run{'s' * (total != 1)}: {', '.join(told)}."


def lead(runs: Runs, tables: Sequence[Comparable]) -> list[str]:
    """What the answer leaves out, and where to look for it, if there is not one alone."""
    if not tables:
        return ["No run has completed, so that there is nothing to compare."]
    told, described = [], describe(runs.runs, runs.swept)
    answered = {configuration(run) for table in tables for run in table.runs}
    missing = dict.fromkeys(label(described[r.name]) for r in runs.runs if configuration(r) not in answered)
    if missing:
        told.append(f"None has completed of {some([*missing])}.")
    if len(tables) > 1:
        what = ", ".join(sorted({name for table in tables for name in differing(table, tables)}))
        told.append(
            f"They are not all comparable ({what}), and stand in {len(tables)} tables, none averaged with another."
        )
    return told


def differing(table: Comparable, tables: Sequence[Comparable]) -> dict[str, str]:
    """The conditions of a table that are not those of all."""
    return {n: v for n, v in table.conditions.items() if v and any(other.conditions[n] != v for other in tables)}


def conditions_in_words(table: Comparable, tables: Sequence[Comparable]) -> str:
    """For the headings of a table that is not the only one."""
    told = [f"{name} {value}" for name, value in differing(table, tables).items()]
    return f" ({'; '.join(told)})" if told else ""


def at_work(runs: Sequence[Run]) -> list[Part]:
    """The jobs that run now: how far they are."""
    rows = []
    for run in runs:
        if run.state == "running":
            objective = run.evaluation.objective
            value = run.final(objective.figure) if objective is not None else None
            told = "" if objective is None else f"{objective.figure} {rounded(value)}"
            rows.append([run.name, f"{run.step:,} of {run.steps:,}" if run.steps else "", _time(run.seconds), told])
    waiting = sum(run.state == "waiting" for run in runs)
    heads = ["running", "step", "time", "so far"]
    return [Text(f"Waiting: {waiting:,}."), *([Table(heads, rows)] if rows else [])]


def _time(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 60 else f"{seconds:.1f} s"


def curves(table: Comparable) -> list[Part]:
    """Means over the seeds with their 95 % intervals, the objective first."""
    logged = dict.fromkeys(tag for run in table.runs for row in run.rows for tag in row if tag.startswith(CURVES))
    tags = sorted(logged, key=lambda tag: (tag != table.objective, not tag.startswith("metric/")))
    series = {tag: [mean_curve(group, tag) for group in table.groups] for tag in tags}
    charts = [line_chart(tag, series[tag], table.perfect(tag), "a perfect sampler") for tag in tags]
    legend = [(group.label, style(number)) for number, group in enumerate(table.groups)]
    drawn = Charts([chart for chart in charts if chart is not None], legend)
    several = any(len(group.runs) > 1 for group in table.groups)
    return [*([Text("Lines are means over the seeds, bands their 95 % intervals.")] if several else []), drawn]


def mean_curve(group: Group, tag: str) -> Series:
    """The mean over the seeds at each step that all of them logged."""
    found = [values_over_steps(run, tag) for run in group.runs]
    shared = sorted(set(found[0]).intersection(*found[1:])) if found else []
    means, halves = {}, {}
    for step in shared:
        at = estimate([values[step] for values in found])
        if at is not None:
            means[step] = at.mean
            if at.half_width is not None:
                halves[step] = at.half_width
    reach = [values[step] for values in found for step in shared]
    return Series(group.label, means, halves, (min(reach), max(reach)) if reach else ())


def samples(tables: Sequence[Comparable]) -> list[Part]:
    """One grid for each configuration, of its first seed."""
    groups = [group for table in tables for group in table.groups]
    found = [picture for group in groups[:CELLS] if (picture := _newest(group)) is not None]
    more = len(groups) - CELLS
    return [*([Text(f"… and of {more:,} more configurations.")] if more > 0 else []), Pictures(found)]


def _newest(group: Group) -> Thumbnail | None:
    run = group.runs[0]
    files = sample_files(run.path)
    if not files:
        return None
    step, path = files[-1]
    told = f"{group.label}, seed {run.seed}, step {step:,}"
    return thumbnail(path, SIDE, f"Samples of {told}", told)


def not_completed(runs: Runs) -> list[Part]:
    """The jobs that ended otherwise, and why."""
    ended = [run for run in runs.runs if run.state not in ("completed", *AT_WORK)]
    rows = [[run.name, run.state, f"{run.step:,}", run.reason or "no reason is recorded"] for run in ended]
    rows += [["", "cannot be read", "", reason] for reason in runs.unreadable]
    return [Table(["run", "state", "step", "why"], rows)] if rows else []


def health(runs: Sequence[Run]) -> list[Part]:
    """The doctor's verdicts, and what it found in the runs that are not well."""
    verdicts = by_label((run.health.verdict.replace("_", " "), run.name) for run in runs if run.health.verdict)
    if not verdicts:
        return []
    told = "; ".join(f"{verdict}: {len(names):,}" for verdict, names in verdicts.items())
    present = [(run, found) for run in runs for found in run.health.findings if found.resolved is None]
    where = by_label((found.name, run.name) for run, found in present)
    examples = {found.name: found for _, found in reversed(present)}  # the first of each
    rows = [
        [name.replace("_", " "), f"{len(names):,}", *_example(examples[name]), some(names)]
        for name, names in where.items()
    ]
    findings = [Table(["finding", "runs", "for example", "likely cause", "in"], rows)] if rows else []
    return [Text(f"Verdicts: {told}."), *findings]


def _example(found: StoredFinding) -> list[str]:
    return [f"{found.evidence} (step {found.step:,})", found.cause]


def all_runs(runs: Sequence[Run]) -> Table:
    """A line for each run."""
    rows = []
    for run in runs:
        best = run.best()
        told = "" if best is None else rounded(best)
        rows.append([run.name, run.state, f"{run.step:,}", _time(run.seconds), run.health.verdict, told])
    return Table(["run", "state", "step", "time", "health", "objective at its best"], rows)


def shared_keys(runs: Sequence[Run]) -> list[Part]:
    """The keys that have the same value in all runs."""
    configured = [run for run in runs if run.config]
    rows = [[key, value] for key, value in common(configured).items()] if configured else []
    return [Table(["key", "value"], rows)] if rows else []
