"""`gan-train`, also `python -m gan_runner.train`: plan, check, build, fit."""

from gan_runner import cli

# What follows is imported where it is used: `--help` needs no torch.


def main() -> None:
    """The console script."""
    cli.run(train, "train")


def train(request: cli.Request) -> cli.Outcome:
    """Starts the run that `request` describes, or goes on with it. Raises `UserError`."""
    from gan_runner import devices
    from gan_runner.config import check
    from gan_runner.run import work
    from gan_runner.run_directory import plan, read_objective

    ranks = devices.Ranks()
    planned = ranks.on_main(plan, request)
    config = check(planned.plain)
    devices.check_device(config.device, config.trainer.batch_size)
    if config.device.kind == "ddp" and not devices.under_torchrun():
        status = devices.launch(devices.process_count(config.device), work, (planned,))
    else:
        status = work(planned, ranks)
    completed = status == cli.COMPLETED and not planned.unique
    return cli.Outcome(status, read_objective(planned.path) if completed else None)


if __name__ == "__main__":
    main()
