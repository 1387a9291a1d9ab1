"""How processes communicate, over gloo on the CPU."""

import multiprocessing
import os
import time
from datetime import timedelta
from typing import Any

import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.machine import ranks as ranks_module
from gan_runner.machine.compiling import CompiledStep
from gan_runner.machine.ranks import Ranks
from gan_runner.step import step
from tests.machine.world import environments
from tests.test_step import Run


def together(processes: int, work, method: str = "fork") -> list[int | None]:
    """The exit codes of so many processes in which `work(ranks)` is called.

    A fork of a process whose threads have computed may crash as soon as it computes much itself: "spawn" is for such
    work, which is a function of this module then.
    """
    context: Any = multiprocessing.get_context(method)
    started = [context.Process(target=at_work, args=(work, environment)) for environment in environments(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        process.kill()
    return [process.exitcode for process in started]


def at_work(work, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    ranks = Ranks()
    work(ranks)
    ranks.leave()


def test_the_shares_make_up_the_batch():
    shares = []
    for rank in range(3):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, 3
        shares += list(range(12))[ranks.part(12)]
    assert shares == list(range(12))


def test_a_world_of_one_says_what_it_is_told():
    ranks = Ranks()
    values = torch.tensor([1.0, 2.0])
    assert ranks.is_main
    assert torch.equal(ranks.mean(values), values)
    assert ranks.any(True)
    assert not ranks.any(False)
    assert ranks.on_main(max, 1, 2) == 2
    (same,) = ranks.average([values])
    assert same is values
    ranks.wait_for_main()


def test_gradients_are_averaged_and_keep_their_memory_format():
    def work(ranks: Ranks) -> None:
        channels_last = torch.arange(48.0).view(2, 2, 3, 4).to(memory_format=torch.channels_last)
        scalar = torch.ones(1, requires_grad=True)
        (expanded,) = torch.autograd.grad((scalar.expand(5) * ranks.rank).sum(), scalar)
        ours = [channels_last * (ranks.rank + 1), torch.full((3,), float(ranks.rank)), expanded.expand(5)]
        image, vector, numbers = ranks.average(ours)
        assert torch.equal(image, channels_last * 2)  # the mean of 1, 2 and 3 times
        assert image.stride() == channels_last.stride()
        assert torch.equal(vector, torch.ones(3))
        assert torch.equal(numbers, torch.full((5,), 5.0))
        assert torch.equal(ours[1], torch.full((3,), float(ranks.rank)))  # what was handed over is left alone

    assert together(3, work) == [0, 0, 0]


def test_a_refusal_on_rank_0_reaches_all():
    def refuse() -> None:
        raise UserError("not this one")

    def work(ranks: Ranks) -> None:
        with pytest.raises(UserError, match="not this one"):
            ranks.main_alone(refuse)
        assert ranks.main_alone(lambda: ranks.rank) == (0 if ranks.is_main else None)
        assert ranks.on_main(lambda: "of rank 0") == "of rank 0"
        assert ranks.main_first(lambda: ranks.rank) == ranks.rank

    assert together(2, work) == [0, 0]


@pytest.fixture
def short_limit(monkeypatch):
    monkeypatch.setattr(ranks_module, "STEP_LIMIT", timedelta(seconds=1))


def test_a_step_has_a_time_limit(short_limit):
    def work(ranks: Ranks) -> None:
        if ranks.is_main:
            time.sleep(3)
        else:
            with pytest.raises(RuntimeError, match="Timed out"):
                ranks.any(True)

    assert together(2, work) == [0, 0]


def test_work_of_rank_0_alone_has_none(short_limit):
    def work(ranks: Ranks) -> None:
        if ranks.is_main:
            time.sleep(3)
        ranks.wait_for_main()
        ranks.on_main(time.sleep, 3)
        assert ranks.any(ranks.is_main)

    assert together(2, work) == [0, 0]


def test_whoever_waits_for_rank_0_notices_that_it_died():
    def work(ranks: Ranks) -> None:
        if ranks.is_main:
            os._exit(9)
        with pytest.raises(RuntimeError, match=r"[Cc]onnection"):
            ranks.wait_for_main()

    begun = time.monotonic()
    assert together(2, work) == [9, 0]
    assert time.monotonic() - begun < 20


def compile_in_rank_0_alone(ranks: Ranks) -> None:
    torch.set_num_threads(1)
    words = ("dataset=ring", "trainer.batch_size=8", "regularizer=r1", "regularizer.r1.interval=2", "device=cpu")
    run = Run(*words, ranks=ranks)

    def eagerly(state, batch, rates, measure):
        return step(state, batch, rates, run.game, measure, average=ranks.average)

    def backend(graph, inputs, **_):
        if not ranks.is_main:
            raise RuntimeError("no space left")
        return graph

    take_step = CompiledStep(run.state, run.game, ranks, eagerly, backend)
    for number in (1, 2, 3):
        take_step(run.state, run.batch(number), run.schedule(number), True)
    assert take_step.gave_up
    weights = torch.cat([weight.detach().flatten() for weight in run.state.discriminator.parameters])
    torch.testing.assert_close(ranks.mean(weights.clone()), weights, rtol=0, atol=1e-12)  # both have all gradients


def test_what_one_process_cannot_compile_all_take_eagerly():
    """Else whoever compiles the next kind of step would wait for the one that does not."""
    assert together(2, compile_in_rank_0_alone, "spawn") == [0, 0]
