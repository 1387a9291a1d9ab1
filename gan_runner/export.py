"""`gan-export`, also `python -m gan_runner.export`: a run's generator as one file that needs no gan_runner."""

from gan_runner.commands import command_line
from gan_runner.config import composition
from gan_runner.status import Outcome, Status


def main() -> None:
    """The console script."""
    command_line.run(export, "export")


def export(request: composition.Request) -> Outcome:
    """Writes the file that `request` asks for, and says where. Raises `UserError`."""
    from gan_runner.commands.export import write_export  # imported here: `--help` needs no torch

    print(write_export(request.plain))
    return Outcome(Status.COMPLETED)


if __name__ == "__main__":
    main()
