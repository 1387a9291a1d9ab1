"""`gan-classifier`, also `python -m gan_runner.classifier`: trains what the metrics look through."""

from gan_runner import cli
from gan_runner.errors import UserError


def main() -> None:
    """The console script."""
    cli.run(classifier, "classifier")


def classifier(request: cli.Request) -> cli.Outcome:
    """Trains the classifier that `request` asks for, and says where it is. Raises `UserError`."""
    for key in request.typed:
        if key.partition(".")[0] == "metric":
            raise UserError(f"{key}: belongs to a run; a classifier is judged by its test images alone")
    from gan_runner.classification import train_classifier  # imported here: `--help` and refusals need no torch

    print(train_classifier(request.plain))
    return cli.Outcome(cli.COMPLETED)


if __name__ == "__main__":
    main()
