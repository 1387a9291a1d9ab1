"""Rows as columns, and that a long history is taken up in linear time."""

from collections.abc import Iterator
from typing import Any

import pytest

from gan_runner.health.context import EXAMINED, History
from gan_runner.health.doctor import Doctor
from tests.health.by_hand import NOISE, a_context, a_run


def test_only_rows_after_the_beginning_count_and_recent_ones_from_a_step_on():
    history = History(begin=2, steps=6)
    for step in range(1, 7):
        history.append({"step": step, "every": 10.0 * step} | ({EXAMINED: 0.0, "even": step} if step % 2 == 0 else {}))
    history.since = 5
    assert history.step == 6
    assert list(history.all_values("every")) == [30.0, 40.0, 50.0, 60.0]
    assert history.recent("every").tolist() == [50.0, 60.0]
    assert list(history.all_values("even")) == [4.0, 6.0]
    assert history.recent("even").tolist() == [6.0]
    assert history.recent("never").tolist() == list(history.all_values("never")) == []
    assert list(history.examined(1)) == [6]
    assert list(history.examined(3)) == [4, 6]


class CountedRow(dict[str, Any]):
    """Counts how often anyone looks into a row."""

    seen = 0

    def __getitem__(self, tag: str) -> Any:
        CountedRow.seen += 1
        return super().__getitem__(tag)

    def __contains__(self, tag: object) -> bool:
        CountedRow.seen += 1
        return super().__contains__(tag)

    def __iter__(self) -> Iterator[str]:
        CountedRow.seen += 1
        return super().__iter__()

    def items(self) -> Any:
        CountedRow.seen += 1
        return super().items()


@pytest.mark.parametrize("changes", [{}, {"health/diversity": 0.05}], ids=["well", "ill"])
def test_each_row_of_a_resumed_run_is_read_once(monkeypatch, changes):
    context = a_context(*NOISE, "trainer.steps=12000")

    def reads(steps: int) -> int:
        monkeypatch.setattr(CountedRow, "seen", 0)
        rows = [CountedRow(row) for row in a_run(changes, steps)]
        assert Doctor(context, rows).step == steps
        return CountedRow.seen

    assert reads(12000) == 2 * reads(6000)


def test_rows_come_while_a_rule_s_values_are_kept():
    history = History(begin=0, steps=6)
    history.append({"step": 1, "tag": 1.0})
    kept = history.recent("tag")
    history.append({"step": 2, "tag": 2.0})
    assert kept.tolist() == [1.0]
