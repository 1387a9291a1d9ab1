"""`gan-sample`, also `python -m gan_runner.sample`: what a run's generator makes, from seeds and labels."""

from gan_runner.commands import command_line
from gan_runner.config import composition
from gan_runner.status import Outcome, Status


def main() -> None:
    """The console script."""
    command_line.run(sample, "sample")


def sample(request: composition.Request) -> Outcome:
    """Writes the samples that `request` asks for, and says where. Raises `UserError`."""
    from gan_runner.commands.sample import write_samples  # imported here: `--help` needs no torch

    print(write_samples(request.plain))
    return Outcome(Status.COMPLETED)


if __name__ == "__main__":
    main()
