"""`gan-train`: one run from its first file to its last, in each of its processes."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import torch

from gan_runner.commands.observing import in_turn, watch_from_main, watch_from_others
from gan_runner.commands.record import Record, data_as_markdown
from gan_runner.commands.training import (
    Measures,
    Training,
    check_networks,
    prepare_dataset,
    refuse_other_data,
    refuse_other_measures,
    restore,
)
from gan_runner.config.components import Experiment, check
from gan_runner.console import LogFile, logged, say, say_traceback
from gan_runner.datasets import Dataset
from gan_runner.errors import UserError, one_line
from gan_runner.heartbeat import heartbeat
from gan_runner.loop import fit
from gan_runner.machine.launch import under_torchrun
from gan_runner.machine.precision import warn_of_emulated_bf16
from gan_runner.machine.ranks import Ranks
from gan_runner.machine.signals import on_stop_signal
from gan_runner.machine.threads import choose_threads, keep_threads
from gan_runner.observers.base import Diverged, Interrupted, Observers, Row
from gan_runner.overrides import command, override
from gan_runner.runs.building import build_dataset
from gan_runner.runs.directory import RunDirectory, read_json
from gan_runner.runs.manifest import Manifest
from gan_runner.runs.plan import Plan, place_of_data
from gan_runner.runs.summary import Summary
from gan_runner.status import Status
from gan_runner.stopping import stopping


def run_training(plan: Plan, ranks: Ranks | None = None, experiment: Experiment | None = None) -> int:
    """The whole of a run, in each of its processes; returns the exit status."""
    ranks = ranks or Ranks()
    with logged() as log, ExitStack() as held:
        held.callback(ranks.leave)
        try:
            return _run(plan, experiment or check(plan.plain), ranks, log, held)
        except UserError as error:
            say(f"error: {error}")
            return Status.REFUSED
        except OSError as error:  # a full disk, most likely
            say(f"error: {error}")
            return Status.FAILED
        except (MemoryError, RuntimeError, OverflowError) as error:
            if not lacks_memory(error):
                raise
            say(f"error: this does not fit into memory: {one_line(error)}")
            return Status.REFUSED


def _run(plan: Plan, experiment: Experiment, ranks: Ranks, log: LogFile, held: ExitStack) -> int:
    ranks.place(experiment.config.device)
    if experiment.config.trainer.precision == "bf16":
        warn_of_emulated_bf16(ranks.device)
    directory = None
    # A run that is there is claimed at once; a new one gets its directory when nothing can refuse it any more.
    if plan.continues:
        if ranks.on_main(already_completed, plan, experiment):
            return Status.COMPLETED
        directory = ranks.main_alone(claim, held, plan)
    before = Manifest.of(plan.path) if plan.continues else Manifest()
    dataset = ranks.main_first(lambda: find_dataset(plan, experiment, before, ranks.device))
    training = Training.of(experiment, dataset, ranks)
    measures = ranks.main_alone(Measures.of, experiment, dataset, ranks.device)
    own_periods = ranks.on_main(lambda: measures.own_periods if measures is not None else {})
    summary = check_networks(training)
    set_threads(plan, training, summary, held)
    fingerprint = ranks.on_main(dataset.fingerprint)
    ranks.main_alone(refuse_other_measures, plan, measures)
    pending = restore(training, plan, fingerprint)
    with answering_signals(ranks):
        ranks.any(False)  # nothing is on the disk before all processes can be interrupted
        if not plan.continues:
            directory = ranks.main_alone(claim, held, plan)
        if directory is None or measures is None:
            status, _ = train(training, watch_from_others(training, own_periods.values()), pending)
            return status
        record = Record(directory, training, measures, plan, fingerprint)
        record.begin(summary.table)
        log.open(directory.path / "log.txt")  # config.yaml is there now, without which the directory is no run
        watch = watch_from_main(training, measures, directory, pending is not None)
        if not training.state.step:
            watch.logger.describe(plan.typed, measures.figures, data_as_markdown(dataset))
        if pending is not None:
            pending = in_turn({**pending, "step": training.state.step}, training, own_periods)
            del pending["step"]
        return record.end(*train(training, watch.observers, pending), watch)


@contextmanager
def answering_signals(ranks: Ranks) -> Iterator[None]:
    """Signals ask to stop until the block ends; a second one has its usual effect.

    Not in one of several processes: a scheduler may signal them all, and whoever started them passes its signal on. So
    each may be told twice, even after it has stopped; whoever started them ends those that do not stop.
    """

    def answer() -> None:
        if not stopping.asked:
            with suppress(RuntimeError):  # this may be in the middle of another message
                say("stopping as soon as all is saved; once more to stop at once")
            ranks.tell_main()
        stopping.ask()

    stopping.begin()
    with on_stop_signal(answer, once=not under_torchrun()):
        yield


def claim(held: ExitStack, plan: Plan) -> RunDirectory:
    """The locked directory of the run, until `held` is closed."""
    directory = RunDirectory(plan.path) if plan.continues else RunDirectory.create(plan.path, plan.unique)
    return held.enter_context(closing(directory))


def set_threads(plan: Plan, training: Training, summary: Summary, held: ExitStack) -> None:
    """Computes with a number of threads that fits the networks, or that a run began with, until `held` is closed."""
    held.callback(torch.set_num_threads, torch.get_num_threads())
    before = Manifest.of(plan.path).threads if plan.continues else None
    if before is None and training.ranks.device.type == "cpu":
        choose_threads(summary.multiply_adds * training.settings.batch_size // training.ranks.size)
    if not keep_threads(before):
        say(
            f"warning: {plan.path}: began with {before} threads a process and goes on with "
            f"{torch.get_num_threads()}; its results will differ in the last bits"
        )


def already_completed(plan: Plan, experiment: Experiment) -> bool:
    """True, with a message, if the run is complete. Its data are read only if another place of them was typed.

    Raises `UserError` if those are other data.
    """
    path, steps = plan.path, experiment.config.trainer.steps
    status = read_json(path / "status.json")
    if status.get("state") != "completed" or status.get("step") != steps:
        return False
    if plan.has_other_place_of_data:
        dataset = build_dataset(experiment, Manifest.of(path))
        refuse_other_data(plan, dataset, dataset.fingerprint())
    say(f"{path}: is completed ({steps} steps) and left as it is; a larger trainer.steps extends it")
    print(path)
    return True


def find_dataset(plan: Plan, experiment: Experiment, before: Manifest, device: torch.device) -> Dataset:
    """The dataset, as `prepare_dataset` makes it; where its data are gone, the refusal says how to point to them."""
    try:
        return prepare_dataset(experiment, before, device)
    except UserError as error:
        place = place_of_data(plan.plain)
        if not plan.continues or place is None or place.exists():
            raise
        again = f"{command('train')} {override('resume', plan.path)} dataset.root=…"
        raise UserError(f"{error}. If the data of the run are elsewhere now: {again}") from error


def train(training: Training, observers: Observers, pending: Row | None) -> tuple[Status, str | None]:
    """Runs the loop; whatever ends it becomes an exit status and a message."""
    state, settings, status = training.state, training.settings, Status.COMPLETED
    ended: BaseException | None = None
    try:
        with heartbeat.steps(lambda: state.step):
            fit(
                state,
                settings.steps,
                training.batches,
                training.schedule,
                training.take_step,
                observers,
                settings.log_every,
                pending,
            )
    except Interrupted as error:
        status, ended = Status.INTERRUPTED, error
    except Diverged as error:
        status, ended = Status.DIVERGED, error
    except (Exception, SystemExit) as error:  # a user's class that calls sys.exit has failed, whatever the status
        status, ended = Status.FAILED, error
        if not isinstance(error, OSError):  # a disk is the user's; anything else is ours, or the user's own class
            say_traceback(error)
    for observer in observers:
        observer.end(ended)
    if status in (Status.COMPLETED, Status.INTERRUPTED):
        return status, None
    assert ended is not None
    reason = f"sys.exit({ended.code}) was called" if isinstance(ended, SystemExit) else one_line(ended)
    message = f"after step {state.step}: {ended if status == Status.DIVERGED else reason}"
    say(f"error: {status.name.lower()} {message}")
    return status, message


def lacks_memory(error: Exception) -> bool:
    """Whether it says that there is not enough of it, on whatever device."""
    lacking = ("can't allocate memory", "size calculation overflowed")
    is_told = any(words in str(error) for words in lacking)
    return is_told or isinstance(error, MemoryError | OverflowError | torch.OutOfMemoryError)
