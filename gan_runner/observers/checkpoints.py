"""What a run can go on from: the newest checkpoints, the best one, and the weights to sample from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_runner.console import say
from gan_runner.observers.base import Interrupted, Moment, NotFinite, Observer
from gan_runner.observers.evaluation import BestSoFar
from gan_runner.paths import write_atomically
from gan_runner.runs import checkpoint
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.logger import Logger
from gan_runner.state import State
from gan_runner.tensor_files import all_finite, dump


@dataclass
class ReadyToSave(Observer):
    """Before a checkpoint, in all processes: no weight may be other than finite, and penalties are made the mean.

    Each process holds the penalties of its own share of a batch; a run that goes on starts from their mean.
    """

    state: State
    mean: Callable[[Tensor], Tensor]

    def __call__(self, moment: Moment) -> None:
        if moment.is_ready:
            return
        if not all_finite(p for _, network in self.state.networks() for p in network.parameters):
            raise NotFinite("a weight is not finite")
        penalties = self.state.penalties
        if penalties:
            means = self.mean(torch.stack(list(penalties.values())))
            self.state.penalties = dict(zip(penalties, means.unbind(), strict=True))
        moment.is_ready = True


@dataclass
class Checkpoints(Observer):
    """Writes checkpoints; where the disk is full, says so and goes on with the last good one, if the run may.

    A checkpoint comes before what takes long, and carries what is known of its step by then: the row of that step in
    metrics.jsonl comes when all have looked, and without it a run that goes on has them look first.
    """

    state: State
    directory: RunDirectory
    logger: Logger
    keep: int
    saved: int = 0  # the newest step that is; there is nothing to save before the first

    def begin(self, step: int) -> None:
        self.saved = step

    def __call__(self, moment: Moment) -> None:
        if moment.step == self.saved:
            return
        try:
            self.save(moment)
        except OSError as error:
            if moment.step == self.steps or isinstance(moment.ending, Interrupted):
                raise
            say(f"warning: no checkpoint at step {moment.step}: {error.strerror}; the last good one is kept")

    def save(self, moment: Moment) -> None:
        """Writes everything that belongs to this step."""
        path, step = self.directory.path, moment.step
        self.logger.flush()
        if self.state.generator.is_trained:  # before the checkpoint, after which the last step is not taken again
            weights = dump({**self.state.sampled.state_dict(), "step": step})
            write_atomically(path / "generator.safetensors", weights)
        kept = self.state.to_checkpoint() | checkpoint.pending(moment.row)
        checkpoint.save(path / "checkpoints", step, kept, self.keep, self.every)
        self.saved = step
        self.directory.write_json("status.json", {"state": "running", "step": step})


@dataclass
class KeepBest(Observer):
    """Keeps the state of a step whose figure to select by is the best so far, the newest of several as good."""

    state: State
    best: BestSoFar
    folder: Path

    def is_due(self, step: int) -> bool:
        """The extra evaluation at the last step is ignored, so that extending a run cannot change its best."""
        return step % self.every == 0

    def __call__(self, moment: Moment) -> None:
        if self.best.step != moment.step:
            return
        try:
            checkpoint.save_best(self.folder, moment.step, self.state.to_checkpoint())
        except OSError as error:
            say(f"warning: the best checkpoint, of step {moment.step}, is not kept: {error.strerror}")
