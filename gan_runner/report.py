"""`gan-report`, also `python -m gan_runner.report`: what a sweep, a folder of runs, or one run has come to."""

from gan_runner.commands import command_line
from gan_runner.config import composition
from gan_runner.status import Outcome


def main() -> None:
    """The console script."""
    command_line.run(report, "report")


def report(request: composition.Request) -> Outcome:
    """Writes the report that `request` asks for and prints it as Markdown. Raises `UserError`."""
    from gan_runner.commands.report import write_report  # imported here: `--help` needs no torch

    return Outcome(write_report(request.plain))


if __name__ == "__main__":
    main()
