"""`gan-train`, also `python -m gan_runner.train`: plan, check, build, fit."""

from gan_runner.commands import command_line
from gan_runner.config import composition
from gan_runner.status import Outcome, Status

# What follows is imported where it is used: `--help` needs no torch.


def main() -> None:
    """The console script."""
    command_line.run(train, "train")


def train(request: composition.Request) -> Outcome:
    """Starts the run that `request` describes, or goes on with it. Raises `UserError`."""
    from gan_runner.commands.train import run_training
    from gan_runner.config.components import check
    from gan_runner.health.rules import refuse_unknown
    from gan_runner.machine.devices import check_device, process_count
    from gan_runner.machine.launch import launch, under_torchrun
    from gan_runner.machine.ranks import Ranks
    from gan_runner.runs.directory import read_objective
    from gan_runner.runs.plan import make_plan, refuse_changes

    ranks = Ranks()
    plan = ranks.on_main(make_plan, request)
    experiment = check(plan.plain)
    config = experiment.config
    refuse_changes(plan)
    refuse_unknown(config.trainer.stop_on, "trainer.stop_on")
    check_device(config.device, config.trainer.batch_size)
    if config.device.kind == "ddp" and not under_torchrun():
        status = launch(process_count(config.device), run_training, (plan,))
    else:
        status = run_training(plan, ranks, experiment)
    completed = status == Status.COMPLETED and not plan.unique
    return Outcome(status, read_objective(plan.path) if completed else None)


if __name__ == "__main__":
    main()
