"""Which runs are one configuration, and which configurations may be compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from gan_runner.metrics import Goal
from gan_runner.names import shortest_ends
from gan_runner.sweeps.report.collect import Run, StoredFigure

# Keys that change no results, besides the seed. Data of another fingerprint are other data wherever they lie.
WITHOUT_EFFECT = ("seed", "name", "device", "resume", "trust", "dataset.root", "dataset.download")
ABSENT = "none"


@dataclass(frozen=True)
class Group:
    """Completed runs that differ in the seed alone."""

    label: str
    swept: dict[str, str]  # what sets it apart from the others
    by_seed: dict[int, Run]
    others: Sequence[Run]  # of the same configuration, that did not complete or repeat a seed

    @property
    def runs(self) -> list[Run]:
        return [*self.by_seed.values()]

    def final(self, tag: str) -> dict[int, float]:
        """The figure at the end, by seed; NaN where it is undefined."""
        return {seed: value for seed, run in self.by_seed.items() if (value := run.final(tag)) is not None}

    def best(self) -> dict[int, float]:
        """The objective at its best on the way, by seed."""
        return {seed: value for seed, run in self.by_seed.items() if (value := run.best()) is not None}


@dataclass(frozen=True)
class Comparable:
    """Configurations that were measured alike, on the same data, after as many steps."""

    conditions: dict[str, str]
    groups: list[Group]

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]

    @property
    def tags(self) -> list[str]:
        """The figures, the objective first."""
        tags = [*dict.fromkeys(tag for run in self.runs for tag in run.tags)]
        return sorted(tags, key=lambda tag: tag != self.objective)

    @property
    def objective(self) -> str | None:
        """What most runs select by."""
        found = [run.evaluation.objective.figure for run in self.runs if run.evaluation.objective is not None]
        return max(found, key=found.count) if found else None

    @property
    def selects(self) -> bool:
        """Whether the user chose the objective, so that its best value on the way counts, too."""
        return any(run.config["trainer"]["objective"] is not None for run in self.runs)

    def stored(self, tag: str) -> list[StoredFigure]:
        """A figure as the runs' evaluations have it, with all that it depends on."""
        name = tag.removeprefix("metric/")
        return [run.evaluation.figures[name] for run in self.runs if name in run.evaluation.figures]

    def samples(self, tag: str) -> list[int]:
        """How many generated samples a figure is of; a later evaluation may have had another number."""
        metric = next((figure.metric for figure in self.stored(tag)), "")
        found = [run.config["metric"].get(metric, {}).get("samples") for run in self.runs]
        return [number for number in found if isinstance(number, int)]

    def goal(self, tag: str) -> Goal | None:
        """Whether small or large is better."""
        return next((figure.goal for figure in self.stored(tag)), None)

    def perfect(self, tag: str) -> float | None:
        """What a perfect sampler would score, on average over the runs."""
        scores = [figure.perfect for figure in self.stored(tag) if figure.perfect is not None]
        return fmean(scores) if scores else None


def flat(node: Any, key: str = "") -> dict[str, Any]:
    """The leaves of a configuration by their keys; lists are leaves, as tuples, so that 1 is 1.0 in them, too."""
    if not isinstance(node, Mapping):
        return {key: _as_tuple(node)}
    return {k: v for name, child in node.items() for k, v in flat(child, f"{key}.{name}" if key else name).items()}


def _as_tuple(node: Any) -> Any:
    return tuple(map(_as_tuple, node)) if isinstance(node, list) else str(node) if isinstance(node, dict) else node


def shown(value: Any) -> str:
    """A leaf of a configuration, as one types it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def configuration(run: Run) -> frozenset[tuple[str, Any]]:
    """What runs that differ in the seed alone have in common."""
    return frozenset(settings(run).items())


def settings(run: Run) -> dict[str, Any]:
    """The keys of a run that may change its results, without its seed."""
    return {
        key: value
        for key, value in flat(run.config).items()
        if not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)
    }


def conditions(run: Run) -> dict[str, str]:
    """What two runs must share so that their figures may be compared."""
    dataset, metrics = run.config["dataset"], flat(run.config["metric"])
    evaluation = run.config["evaluation"]
    real, which = evaluation["real_samples"], evaluation.get("real", "training")  # earlier versions lack this key
    return {
        "data": f"{str(dataset.get('_target_', '')).rpartition('.')[2]} {run.origin.fingerprint[:8]}",
        "split": str(dataset.get("split", "")),
        "extractor": (run.origin.extractor or "none")[:8],
        "metrics": ", ".join(f"{key}={shown(value)}" for key, value in metrics.items() if not key.endswith("_target_")),
        "real samples": f"{'all' if real is None else real}, {which.replace('_', ' ')}",
        "steps": str(run.step) if run.step == run.steps else f"{run.step} of {run.steps}",
    }


def comparable(runs: Sequence[Run], swept: Sequence[str]) -> list[Comparable]:
    """The completed runs, in groups that may be compared; `swept` are the keys of a sweep."""
    described = describe(runs, swept)
    found: dict[tuple[Any, ...], dict[frozenset[Any], list[Run]]] = {}
    unfinished: dict[frozenset[Any], list[Run]] = {}
    for run in runs:
        if run.state == "completed":
            measured = (*conditions(run).values(), run.origin.fingerprint, run.origin.extractor)
            found.setdefault(measured, {}).setdefault(configuration(run), []).append(run)
        else:
            unfinished.setdefault(configuration(run), []).append(run)
    tables = []
    for alike in found.values():
        about = _varied([described[members[0].name] for members in alike.values()])
        groups = []
        for (config, members), told in zip(alike.items(), about, strict=True):
            newest = {run.seed: run for run in members}  # the folders' names are in the order of time
            by_seed = {seed: newest[seed] for seed in sorted(newest)}
            repeated = [run for run in members if run is not by_seed[run.seed]]
            others = [*repeated, *unfinished.get(config, ())]
            groups.append(Group(label(told) or "this configuration", told, by_seed, others))
        tables.append(Comparable(conditions(groups[0].runs[0]), groups))
    return tables


def _varied(about: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The same without the keys that have one value in all; but of one alone, all keys."""
    if len(about) == 1:
        return [*about]
    return [{k: v for k, v in told.items() if any(other[k] != v for other in about)} for told in about]


def describe(runs: Sequence[Run], swept: Sequence[str]) -> dict[str, dict[str, str]]:
    """By run, what sets its configuration apart: the keys that are `swept`, unless they do not tell all apart."""
    keys = [key for key in swept if key.partition(".")[0] not in WITHOUT_EFFECT and key not in WITHOUT_EFFECT]
    described = {run.name: {key: run.swept.get(key, ABSENT) for key in keys} for run in runs}
    different = {configuration(run) for run in runs}
    return described if len(set(map(label, described.values()))) >= len(different) else distinguish(runs)


def distinguish(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """By run, the values of the fewest keys, first of classes and then of the rest, that tell configurations apart."""
    found = {run.name: settings(run) for run in runs}
    keys = sorted({key: 0 for values in found.values() for key in values}, key=lambda key: not key.endswith("_target_"))
    chosen: list[str] = []
    apart = 1
    for key in keys:
        number = len({tuple(values.get(k, ABSENT) for k in [*chosen, key]) for values in found.values()})
        if number > apart:
            chosen, apart = [*chosen, key], number
    full = {name: {key: shown(values.get(key, ABSENT)) for key in chosen} for name, values in found.items()}
    short = {name: dict(_without_module(key, value) for key, value in about.items()) for name, about in full.items()}
    return short if len(set(map(label, short.values()))) == apart else full


def common(runs: Iterable[Run]) -> dict[str, str]:
    """The keys that have the same value in all runs."""
    first, *others = [flat(run.config) for run in runs]
    shared = {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}
    return {key: shown(value) for key, value in shared.items()}


def undefined(values: Mapping[int, float]) -> int:
    """How many of the values are."""
    return sum(not math.isfinite(value) for value in values.values())


def _without_module(key: str, value: str) -> tuple[str, str]:
    """`loss._target_` and `gan_runner.losses.LSGAN` become `loss` and `LSGAN`."""
    return (key.removesuffix("._target_"), value.rpartition(".")[2]) if key.endswith("._target_") else (key, value)


def label(about: Mapping[str, str]) -> str:
    """How a configuration is called: its keys by their shortest ends, as in the names of jobs."""
    return ", ".join(f"{key}={value}" for key, value in zip(shortest_ends(about), about.values(), strict=True))
