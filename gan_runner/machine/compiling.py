"""The whole step as one compiled graph: penalties, optimizers and moving average included; on a GPU, a CUDA graph."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import torch

from gan_runner.console import log_traceback, say
from gan_runner.errors import one_line
from gan_runner.functional import by_functions
from gan_runner.game import Game, Terms
from gan_runner.heartbeat import heartbeat
from gan_runner.machine.ranks import Ranks
from gan_runner.optimizers import AsFunction
from gan_runner.state import State
from gan_runner.step import Rates, StepBatch, TakeStep, newest_penalties, step
from gan_runner.stopping import Left, stopping


def why_not_compiled(state: State) -> str | None:
    """Why this step cannot be compiled, as the end of a sentence; None where nothing is known to speak against it."""
    if torch._dynamo.config.disable:
        return "torch.compile is switched off by TORCHDYNAMO_DISABLE"
    for name, network in state.networks():
        if not network.optimizer.as_function:
            return f"optimizer.{name}: {network.optimizer.kind} has no form that can be compiled"
    compiler = os.environ.get("CXX", "g++")
    if state.device.type == "cpu" and not (shutil.which(compiler) or shutil.which("clang++")):
        return f"there is no C++ compiler ({compiler}) on this machine"
    return None


COMPILERS = ("cc1plus", "clang")  # what works behind g++ and clang++
Compiled = Callable[..., tuple[State, Terms]]  # `step`, as one graph


class CompiledStep:
    """Takes steps by one compiled graph for each kind of step; one that cannot be compiled is taken by `eagerly`.

    Steps differ in kind by the penalties that are due and by whether the generator is updated.
    """

    def __init__(
        self,
        state: State,
        game: Game,
        ranks: Ranks,
        eagerly: TakeStep,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        self.game, self.ranks, self.eagerly = game, ranks, eagerly
        self.average = ranks.average if ranks.size > 1 else None
        self.kinds: dict[Any, Compiled] = {}
        self.gave_up = False
        on_gpu = state.device.type == "cuda"
        # Dropout draws the same masks as in an eager step: a compiled run is the same experiment.
        options: dict[str, Any] = {"guard_filter_fn": _may_change}
        if backend == "inductor":
            options |= {"fallback_random": True, "triton.cudagraphs": on_gpu, "size_asserts": False}
        self.compile = partial(torch.compile, fullgraph=True, dynamic=False, backend=backend, options=options)
        kind = torch.float32 if state.device.type == "mps" else torch.float64
        # Not scalars: torch takes those of fp64 for numbers, finds that it cannot, and traces the step once more.
        self.rates = [torch.zeros(1, dtype=kind, device=state.device) for _ in Rates._fields]
        self.newest_rates = Rates(0.0, 0.0)
        if on_gpu:
            for _, network in state.networks():
                assert isinstance(network.optimizer, AsFunction)
                network.optimizer.count_on(state.device)
            for tensor in state.tensors():
                torch._dynamo.mark_static_address(tensor)  # a CUDA graph writes to them where they are

    def __call__(self, state: State, batch: StepBatch, rates: Rates, measure: bool) -> tuple[State, Terms]:
        kind = (tuple(update.due for update in batch.discriminator), batch.generator is None)
        if self.gave_up:
            return self.eagerly(state, batch, rates, measure)
        if kind in self.kinds:
            return self._run(self.kinds[kind], state, batch, rates)
        say("compiling the step, which takes a minute or so …")
        begun = time.perf_counter()
        try:
            with heartbeat.long_work(), _may_leave_until_compiled(self.ranks):
                compiled = self.compile(_copy_of(step))
                taken = self._run(compiled, state, batch, rates)
        except (MemoryError, torch.OutOfMemoryError):
            raise  # perhaps in the middle of the step, which must not be taken again
        except Left:
            _end_compilers()
            if state.average is not None and batch.generator is not None:
                state.average.skip()  # the rates of this step count it
            raise
        except Exception as error:  # before anything is computed; torch has many kinds of them
            self.gave_up = True
            say(f"warning: trainer.compile=true: the step cannot be compiled and is taken eagerly: {one_line(error)}")
            log_traceback(error)
            taken = self.eagerly(state, batch, rates, measure)
        else:
            say(f"compiled in {time.perf_counter() - begun:.1f} s")
            self.kinds[kind] = compiled
        self.gave_up = self.ranks.any(self.gave_up)  # they compile the next kind of step together, or not at all
        return taken

    def _run(self, run: Compiled, state: State, batch: StepBatch, rates: Rates) -> tuple[State, Terms]:
        if rates != self.newest_rates:
            for tensor, value in zip(self.rates, rates, strict=True):
                tensor.fill_(value)
            self.newest_rates = rates
        if state.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        state, computed = run(state, batch, Rates(*self.rates), self.game, True, by_functions, self.average)
        # A CUDA graph overwrites what it computed at the next step.
        penalties = newest_penalties(batch, computed)
        state.penalties |= {name: penalty.clone() for name, penalty in penalties.items()}
        return state, computed


@contextmanager
def _may_leave_until_compiled(ranks: Ranks) -> Iterator[None]:
    """A stop may leave the block as long as one of the processes compiles: then all of them leave it.

    Whoever has compiled waits for the others before it takes the step, and hears whether one was asked to stop.
    """
    leave: bool | None = None  # None: the others have not been asked yet

    def meet() -> bool:
        nonlocal leave
        if leave is None:
            stopping.stay()
            if stopping.asked:
                ranks.tell_others()
            leave = ranks.any_when_all_are_there(stopping.asked)
        return leave

    def compiled(_: Any) -> None:
        """Called by torch, also while an error or a stop that has ended the compilation is being raised."""
        if meet() and sys.exc_info()[0] is None:
            raise Left  # torch counts the compilation as unfinished, in a process that ends

    callbacks = torch._dynamo.callback.callback_handler
    callbacks.register_end_callback(compiled)
    try:
        with stopping.may_leave():
            yield
    except BaseException:
        if meet():
            raise Left from None
        raise
    finally:
        callbacks.remove_end_callback(compiled)


def _may_change(guards: Sequence[Any]) -> list[bool]:
    """Which of the conditions for a graph torch is to check at each step: numbers that a module may change.

    Each graph serves one kind of step of one state, whose tensors stay what they are: the other 2,000 hold anyway.
    """
    return [guard.has_value and isinstance(guard.value, int | float | str) for guard in guards]


def _end_compilers() -> None:
    """Ends the compilers that torch has started, for which it would wait. Not a linker: it would leave half a file."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,comm="], capture_output=True, text=True, check=False).stdout
    processes = [line.split(maxsplit=2) for line in listed.splitlines()]
    ours = {str(os.getpid())}
    for _ in processes:  # until no more are found
        found = ours | {pid for pid, parent, _ in processes if parent in ours}
        if found == ours:
            break
        ours = found
    for pid, _, name in processes:
        if pid in ours and Path(name).name.startswith(COMPILERS):
            with suppress(OSError):  # it has ended
                os.kill(int(pid), signal.SIGTERM)


def _copy_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with a code object of its own, to which torch attaches what it compiles."""
    copied = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied
