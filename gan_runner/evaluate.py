"""`gan-evaluate`, also `python -m gan_runner.evaluate`: how near the generators of runs have come to their data."""

from gan_runner import cli


def main() -> None:
    """The console script."""
    cli.run(evaluate, "evaluate")


def evaluate(request: cli.Request) -> cli.Outcome:
    """Measures the runs that `request` names and prints the figures. Raises `UserError`."""
    from gan_runner.evaluating import evaluate_runs  # imported here: `--help` needs no torch

    return cli.Outcome(evaluate_runs(request.plain))


if __name__ == "__main__":
    main()
