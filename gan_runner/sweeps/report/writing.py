"""Writes a report beside what it is about. Also called at the end of a run or sweep, which guards against errors."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gan_runner.console import log_traceback, say
from gan_runner.errors import UserError, one_line
from gan_runner.paths import write_atomically
from gan_runner.sweeps.report.collect import Runs, read_one, read_several
from gan_runner.sweeps.report.groups import describe
from gan_runner.sweeps.report.page import Page, printable, to_html, to_markdown
from gan_runner.sweeps.report.run_page import run_page


@dataclass(frozen=True)
class Written:
    """A report that lies in its folder."""

    markdown: str
    page: Path
    unreadable: list[str] = field(default_factory=list)  # runs, and why


def write_run_report(path: Path) -> Written:
    """Writes report.html and report.md into the run directory `path`. Raises `UserError` and `OSError`."""
    return _write(path, run_page(read_one(path)), {})


def write_sweep_report(folder: Path) -> Written:
    """Writes report.html, report.md and report.csv into the folder of a sweep or of runs. Raises likewise."""
    from gan_runner.sweeps.report.sweep_page import sweep_page  # imported here: the report on one run needs no scipy

    runs = read_several(folder)
    return _write(folder, sweep_page(runs), {"report.csv": to_csv(runs)}, runs.unreadable)


def report_at_the_end(write: Callable[[Path], Written], path: Path) -> None:
    """Writes the report on what has just ended, which no fault of a report may harm."""
    try:
        write(path)
    except Exception as error:
        say(f"warning: {path}: there is no report on it: {one_line(error)}")
        log_traceback(error)


def _write(folder: Path, page: Page, further: dict[str, str], unreadable: Sequence[str] = ()) -> Written:
    markdown = to_markdown(page)
    files = {"report.html": to_html(page), "report.md": markdown, **further}
    for name, text in files.items():
        path = folder / name
        try:
            if path.is_symlink():
                raise UserError(f"{path}: is a link, which no run leaves; it was not overwritten")
            write_atomically(path, text.encode(), durable=False, shared=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return Written(markdown, folder / "report.html", [*unreadable])


def to_csv(runs: Runs) -> str:
    """A line for each run: its swept keys, its state, every figure at the end, the objective at its best."""
    told = {run.name: run.swept for run in runs.runs} if runs.swept else describe(runs.runs, ())
    keys = [key for swept in told.values() for key in swept]
    tags = [tag for run in runs.runs for tag in run.tags]
    heads = ["run", *keys, "seed", "state", "step", "seconds", *tags, "best objective", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(heads), restval="", lineterminator="\n")
    writer.writerow({head: _cell(head) for head in heads})
    for run in runs.runs:
        line = {"run": run.name, "seed": str(run.config.get("seed", "")), **told[run.name], "state": run.state}
        figures = {tag: value for tag in tags if (value := run.final(tag)) is not None}
        numbers = {"step": run.step, "seconds": round(run.seconds, 1), **figures, "best objective": run.best()}
        cells = {head: _cell(text) for head, text in {**line, "reason": run.reason}.items()}
        writer.writerow(cells | numbers)
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return printable(f"'{text}" if re.match(r"[=+@]|-(?!\d+(\.\d+)?(e-?\d+)?$)", text) else text)
