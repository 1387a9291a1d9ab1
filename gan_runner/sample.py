"""`gan-sample`, also `python -m gan_runner.sample`: what a run's generator makes, from seeds and labels."""

from gan_runner import cli


def main() -> None:
    """The console script."""
    cli.run(sample, "sample")


def sample(request: cli.Request) -> cli.Outcome:
    """Writes the samples that `request` asks for, and says where. Raises `UserError`."""
    from gan_runner.sampling import write_samples  # imported here: `--help` needs no torch

    print(write_samples(request.plain))
    return cli.Outcome(cli.COMPLETED)


if __name__ == "__main__":
    main()
