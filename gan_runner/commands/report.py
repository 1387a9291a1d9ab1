"""`gan-report`: writes report.html beside one run or several, and prints the report as Markdown."""

from collections.abc import Mapping
from typing import Any

from gan_runner.config.schema import Section, validate
from gan_runner.console import say
from gan_runner.datasets.base import Folder
from gan_runner.errors import UserError
from gan_runner.paths import as_path
from gan_runner.status import Status
from gan_runner.sweeps.report.writing import write_run_report, write_sweep_report


class ReportSettings(Section):
    """What to report on."""

    run: Folder | None
    runs: Folder | None


def write_report(plain: Mapping[str, Any]) -> int:
    """Writes the report that the configuration `plain` asks for, prints it, and returns the exit status.

    Raises `UserError`; but of several runs, one that cannot be read is reported, and the others are counted.
    """
    settings = validate(ReportSettings, plain)
    if settings.run is not None and settings.runs is None:
        report = write_run_report(as_path("run", settings.run))
    elif settings.runs is not None and settings.run is None:
        report = write_sweep_report(as_path("runs", settings.runs))
    else:
        raise UserError("run: name one run directory with run=…, or a folder of runs, such as a sweep's, with runs=…")
    print(report.markdown)
    for reason in report.unreadable:
        say(f"error: {reason}")
    say(f"written: {report.page}")
    return Status.FAILED if report.unreadable else Status.COMPLETED
