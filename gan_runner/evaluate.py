"""`gan-evaluate`, also `python -m gan_runner.evaluate`: how near the generators of runs have come to their data."""

from gan_runner.commands import command_line
from gan_runner.config import composition
from gan_runner.status import Outcome


def main() -> None:
    """The console script."""
    command_line.run(evaluate, "evaluate")


def evaluate(request: composition.Request) -> Outcome:
    """Measures the runs that `request` names and prints the figures. Raises `UserError`."""
    from gan_runner.commands.evaluate import evaluate_runs  # imported here: `--help` needs no torch

    return Outcome(evaluate_runs(request.plain))


if __name__ == "__main__":
    main()
