"""`gan-classifier`, also `python -m gan_runner.classifier`: trains a classifier that metrics take features from."""

from gan_runner.commands import command_line
from gan_runner.config import composition
from gan_runner.errors import UserError
from gan_runner.status import Outcome, Status


def main() -> None:
    """The console script."""
    command_line.run(classifier, "classifier")


def classifier(request: composition.Request) -> Outcome:
    """Trains the classifier that `request` asks for, and says where it is. Raises `UserError`."""
    for key in request.overridden:
        if key.partition(".")[0] == "metric":
            raise UserError(f"{key}: belongs to a run; a classifier is judged by its test images alone")
    from gan_runner.commands.classifier import train_classifier  # imported here: `--help` and refusals need no torch

    print(train_classifier(request.plain))
    return Outcome(Status.COMPLETED)


if __name__ == "__main__":
    main()
