"""The whole step as one compiled graph: penalties, optimizers and moving average included; on a GPU, a CUDA graph."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gan_runner.console import log_traceback, say
from gan_runner.errors import one_line
from gan_runner.functional import by_functions
from gan_runner.state import State
from gan_runner.step import Game, Rates, StepBatch, TakeStep, Terms, newest_penalties, step


def why_not_compiled(state: State) -> str | None:
    """Why this step cannot be compiled, as the end of a sentence; None where nothing is known to speak against it."""
    for name, network in state.networks():
        if not network.optimizer.as_function:
            return f"optimizer.{name}: {network.optimizer.kind} has no form that can be compiled"
    compiler = os.environ.get("CXX", "g++")
    if state.device.type == "cpu" and not (shutil.which(compiler) or shutil.which("clang++")):
        return f"there is no C++ compiler ({compiler}) on this machine"
    return None


class CompiledStep:
    """Takes steps by one compiled graph for each kind of step; one that cannot be compiled is taken by `eagerly`.

    Steps differ in kind by the penalties that are due and by whether the generator is updated.
    """

    def __init__(
        self,
        state: State,
        game: Game,
        average: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None,
        eagerly: TakeStep,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        self.game, self.average, self.eagerly = game, average, eagerly
        self.kinds: set[Any] = set()  # that are compiled
        self.gave_up = False
        on_gpu = state.device.type == "cuda"
        # Dropout draws the same masks as in an eager step: a compiled run is the same experiment.
        options: dict[str, Any] = {"fallback_random": True, "triton.cudagraphs": on_gpu}
        torch._dynamo.config.recompile_limit = 64  # each kind of step counts as one
        self.run = torch.compile(
            step, fullgraph=True, dynamic=False, backend=backend, options=options if backend == "inductor" else None
        )
        kind = torch.float32 if state.device.type == "mps" else torch.float64
        self.rates = [torch.zeros((), dtype=kind, device=state.device) for _ in Rates._fields]
        if on_gpu:
            for tensor in state.tensors():
                torch._dynamo.mark_static_address(tensor)  # a CUDA graph writes to them where they are

    def __call__(self, state: State, batch: StepBatch, rates: Rates, measure: bool) -> tuple[State, Terms]:
        kind = (tuple(update.due for update in batch.discriminator), batch.generator is None)
        if self.gave_up:
            return self.eagerly(state, batch, rates, measure)
        if kind in self.kinds:
            return self._run(state, batch, rates)
        say("compiling the step, which takes a minute or so …")
        begun = time.perf_counter()
        try:
            taken = self._run(state, batch, rates)
        except Exception as error:
            self.gave_up = True
            say(f"warning: trainer.compile=true: the step cannot be compiled and is taken eagerly: {one_line(error)}")
            log_traceback(error)
            return self.eagerly(state, batch, rates, measure)
        say(f"compiled in {time.perf_counter() - begun:.1f} s")
        self.kinds.add(kind)
        return taken

    def _run(self, state: State, batch: StepBatch, rates: Rates) -> tuple[State, Terms]:
        for tensor, value in zip(self.rates, rates, strict=True):
            tensor.fill_(value)
        if state.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        state, computed = self.run(state, batch, Rates(*self.rates), self.game, True, by_functions, self.average)
        # A CUDA graph overwrites what it computed at the next step.
        penalties = newest_penalties(batch, computed)
        state.penalties |= {name: penalty.clone() for name, penalty in penalties.items()}
        return state, computed
