"""The report on one run."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from gan_runner.config import composition
from gan_runner.console import rounded
from gan_runner.sweeps.report.charts import Chart, Series, line_chart
from gan_runner.sweeps.report.collect import Run, StoredData, StoredEvaluation, StoredFigure, StoredFinding
from gan_runner.sweeps.report.groups import flat, shown
from gan_runner.sweeps.report.page import Charts, Code, Page, Part, Pictures, Section, Table, Text
from gan_runner.sweeps.report.thumbnails import Thumbnail, sample_files, thumbnail

SIDE = 320  # of a grid of samples, in pixels
LARGE_SIDE = 640  # of a picture of an evaluation
TIMES = 6  # at which samples are shown
CLASSES = 100  # in a table
NOT_SHOWN = ("name", "resume", "trust", "device.kind")  # that these differ from the defaults tells nothing
FAMILIES = ("loss", "score", "gradient_norm")  # whose figures share a chart
OTHERS = ("divergence/", "theory/", "observer/")


def run_page(run: Run) -> Page:
    """The verdict first, then figures, curves and pictures, last what the run was made with."""
    sections = [
        Section("Figures", figures(run)),
        Section("Health", health(run.health.findings)),
        Section("Curves", [Charts(curves(run))]),
        Section("Samples over the run", [Pictures(samples(run))]),
        Section("Pictures", [Pictures(evaluation_pictures(run))]),
        Section("Data", data(run.data)),
        Section("Changed from the defaults", changes(run)),
        Section("Made with", made_with([run])),
        Section("Command", command(run.origin.command)),
    ]
    return Page(run.name, lead(run), [section for section in sections if any(map(has_content, section.parts))])


def has_content(part: Part) -> bool:
    """Whether there is anything to show."""
    if isinstance(part, Charts):
        return bool(part.charts)
    return not isinstance(part, Pictures) or bool(part.pictures)


def lead(run: Run) -> list[str]:
    """How it ended, and what the doctor makes of it."""
    reached = f"{run.step:,} of {run.steps:,} steps" if run.steps is not None else f"{run.step:,} steps"
    ended = f"{run.state.capitalize()}: {reached} in {rounded(run.seconds)} s"
    sentences = [f"{ended}; {run.reason}." if run.reason else f"{ended}."]
    if run.health.verdict:
        sentences.append(f"The doctor's verdict: {run.health.verdict.replace('_', ' ')}.")
    if (objective := run.evaluation.objective) is not None:
        best = "is undefined" if objective.value is None else f"was best with {rounded(objective.value)}"
        sentences.append(f"{objective.figure} {best} at step {objective.step:,}.")
    return sentences


def figures(run: Run) -> list[Part]:
    """The newest evaluation, each figure beside a perfect sampler's."""
    heads, rows = figure_table(run.evaluation, f"at step {run.evaluation.step:,}")
    return [Table(heads, rows)] if rows else []


def figure_table(evaluation: StoredEvaluation, when: str = "value") -> tuple[list[str], list[list[str]]]:
    """Heads, and a row for each figure with all that it depends on."""
    heads = ["figure", when, "a perfect sampler", "better", "N", "real", "perfect sampler from", "extractor"]
    rows = [[name, *_cells(figure)] for name, figure in evaluation.figures.items()]
    return heads, rows + [[name, "failed", reason, *[""] * 5] for name, reason in evaluation.failures.items()]


def _cells(figure: StoredFigure) -> list[str]:
    fewer = "" if figure.perfect_samples == figure.samples else f" (N {figure.perfect_samples:,})"
    return [
        "undefined" if figure.value is None else rounded(figure.value),
        "" if figure.perfect is None else f"{rounded(figure.perfect)}{fewer}",
        {"min": "lower", "max": "higher", None: ""}[figure.goal],
        f"{figure.samples:,}",
        f"{figure.real_samples:,} {figure.real}" if figure.real_samples else "the truth",
        figure.held_out,
        f"{figure.extractor} {(figure.extractor_hash or '')[:8]}" if figure.extractor else "",
    ]


def health(findings: Sequence[StoredFinding]) -> list[Part]:
    """What the doctor found."""
    rows = [
        [
            found.name.replace("_", " "),
            f"{found.step:,}",
            "it still holds" if found.resolved is None else f"until step {found.resolved:,}",
            found.evidence,
            found.cause,
            ", or ".join(map(shlex.quote, found.to_try)),
        ]
        for found in findings
    ]
    return [Table(["finding", "step", "", "evidence", "likely cause", "to try"], rows)] if rows else []


def curves(run: Run) -> list[Chart]:
    """A chart for each figure, and one for what belongs together, such as the losses."""
    tags = list(dict.fromkeys(tag for row in run.rows for tag in row))
    charts = [_chart(run, tag, [tag]) for tag in run.tags]
    for family in FAMILIES:
        charts.append(_chart(run, family.replace("_", " "), [t for t in tags if t.startswith(f"{family}/")]))
    charts += [_chart(run, tag, [tag]) for tag in tags if tag.startswith(OTHERS)]
    return [chart for chart in charts if chart is not None]


def _chart(run: Run, title: str, tags: Sequence[str]) -> Chart | None:
    series = [Series(tag.rpartition("/")[2].replace("_", " "), values_over_steps(run, tag)) for tag in tags]
    perfect = run.evaluation.figures.get(title.removeprefix("metric/"), StoredFigure()).perfect
    return line_chart(title, series, perfect, "a perfect sampler", legend=len(series) > 1)


def values_over_steps(run: Run, tag: str) -> dict[int, float]:
    """The values of a figure that can be drawn, by step."""
    return {row["step"]: float(row[tag]) for row in run.rows if tag in row and abs(row[tag]) < 1e100}


def samples(run: Run) -> list[Thumbnail]:
    """Grids of samples, from the first to the last."""
    files = sample_files(run.path)
    last = len(files) - 1
    chosen = [files[place] for place in sorted({round(n * last / (TIMES - 1)) for n in range(TIMES)})] if files else []
    return _existing(
        thumbnail(path, SIDE, f"Samples of {run.name} at step {step:,}", f"step {step:,}") for step, path in chosen
    )


def evaluation_pictures(run: Run) -> list[Thumbnail]:
    """What the evaluation drew, and the evolution of a generated vector."""
    paths = [*sorted((run.path / "evaluation").glob("*.png")), *run.path.glob("evolution.png")]
    return _existing(thumbnail(path, LARGE_SIDE, f"{path.stem} of {run.name}", path.stem) for path in paths)


def _existing(found: Iterable[Thumbnail | None]) -> list[Thumbnail]:
    return [picture for picture in found if picture is not None]


def data(stored: StoredData) -> list[Part]:
    """What the data are, what of them was not used, and their classes."""
    skipped = [f"images that could not be used are left out ({stored.skipped:,})"] if stored.skipped else []
    told = [stored.description, *stored.remarks] if stored.description else []
    return [*map(Text, told + skipped), *class_table(stored.class_names, stored.class_counts)]


def class_table(names: Sequence[str], counts: Sequence[int]) -> list[Part]:
    """The first classes by number and name, with how many samples each has, if that is known."""
    rows = [[str(number), name] for number, name in enumerate(names[:CLASSES])]
    for row, count in zip(rows, counts, strict=False):
        row.append(f"{count:,}")
    if len(names) > CLASSES:
        rows.append(["…", f"{len(names) - CLASSES:,} more, in manifest.json", ""])
    heads = ["number", "class", *(["samples"] if counts else [])]
    return [Table(heads, [[*row, ""][: len(heads)] for row in rows])] if rows else []


def changes(run: Run) -> list[Part]:
    """The keys that are not as in the default run, with its values beside them."""
    defaults = flat(composition.plain(composition.compose([], "train")))
    rows = [
        [key, shown(value), shown(defaults[key]) if key in defaults else ""]
        for key, value in flat(run.config).items()
        if key not in NOT_SHOWN and (key not in defaults or defaults[key] != value)
    ]
    return [Table(["key", "here", "default"], rows)] if rows else [Text("Nothing.")]


def made_with(runs: Sequence[Run]) -> list[Part]:
    """Commit, versions, machine and data: each value once, if the runs differ."""
    facts: dict[str, list[str]] = {}
    for origin, its_data in ((run.origin, run.data) for run in runs):
        told = {"commit": origin.git_commit or "not known", "data": its_data.description}
        told |= {"fingerprint of the data": origin.fingerprint[:16]}
        told |= {"extractor": origin.extractor[:16]} if origin.extractor else {}
        told |= {"device": str(origin.machine.get("device", "")), "threads": str(origin.machine.get("threads", ""))}
        told |= {f"parameters of the {name}": f"{count:,}" for name, count in origin.parameters.items()}
        for name, value in (told | origin.versions).items():
            facts.setdefault(name, []).append(value)
    rows = [[name, ", ".join(dict.fromkeys(filter(None, values)))] for name, values in facts.items()]
    return [Table(["", "value"], [row for row in rows if row[1]])] if rows else []


def command(words: Sequence[str]) -> list[Part]:
    """What was typed."""
    if not words:
        return []
    program = "gan-train" if Path(words[0]).name == "train.py" else Path(words[0]).name
    return [Code(shlex.join([program, *words[1:]]))]
