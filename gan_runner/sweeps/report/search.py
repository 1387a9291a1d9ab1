"""What a search has found, for the report on its jobs."""

from collections.abc import Sequence
from pathlib import Path

from gan_runner.console import rounded
from gan_runner.sweeps.findings import Findings, Tried, read_findings
from gan_runner.sweeps.report.page import Part, Table, Text


def found_by_search(folder: Path) -> Sequence[Part]:
    """The best trial, how much each key matters, and all trials; nothing if the jobs are no search's."""
    found = read_findings(folder)
    if found is None:
        return []
    shares = [[key, typed, _share(found, key)] for key, typed in found.space.items()]
    trials = sorted(found.trials, key=lambda trial: _rank(found, trial))
    rows = [
        [str(one.number), *(one.values.get(key, "") for key in found.space), one.state, rounded(one.value)]
        for one in trials
    ]
    return [
        Text(_in_words(found)),
        Table(["key", "searched", "importance"], shares),
        Table(["trial", *found.space, "state", found.figure or "figure"], rows, f"{len(rows):,} trials", folded=True),
    ]


def _in_words(found: Findings) -> str:
    begun = f"{len(found.trials):,} of {found.settings.trials:,} trials ({found.settings.sampler})"
    best = found.best_trial
    if best is None:
        return f"{begun}; none has come to its end with a figure."
    chosen = ", ".join(f"{key}={value}" for key, value in best.values.items())
    return f"{begun}; the best is trial {best.number} with {found.figure} {rounded(best.value)}: {chosen}."


def _share(found: Findings, key: str) -> str:
    return f"{100 * found.importances[key]:.0f} %" if key in found.importances else "not known"


def _rank(found: Findings, trial: Tried) -> tuple[bool, bool, float]:
    """Completed trials first, the best before others."""
    value = trial.value if trial.value is not None else 0.0
    return trial.state != "completed", trial.value is None, -value if found.goal == "max" else value
