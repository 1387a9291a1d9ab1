"""`gan-classifier`, also `python -m gan_runner.classifier`: trains what the metrics look through."""

from gan_runner import cli


def main() -> None:
    """The console script."""
    cli.run(classifier, "classifier")


def classifier(request: cli.Request) -> int:
    """Trains the classifier that `request` asks for, and says where it is; returns the exit status."""
    from gan_runner.classification import train_classifier  # imported here: `--help` needs no torch

    print(train_classifier(request.plain))
    return cli.COMPLETED


if __name__ == "__main__":
    main()
