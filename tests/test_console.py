"""What is said while work is under way: lines with the time left in a log, bars on a terminal."""

import io
import sys

import pytest

from gan_runner import console
from gan_runner.console import Progress, progress_text, rounded


class Clock:
    """Stands where it is put."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(console.time, "perf_counter", lambda: self.now)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_twenty_lines_with_the_time_left_at_the_pace_so_far(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress("step", 4000, done=1000)  # a run that goes on
    for step in range(1001, 4001):
        clock.now += 1 / 128
        progress.show(step, "D 1.2")
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 15
    assert lines[0] == "step 1200/4000  D 1.2  22 s left"
    assert lines[-1] == "step 4000/4000  D 1.2  0 s left"


def test_a_part_says_nothing_while_it_is_short(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    whole = Progress("step", 100)
    part = Progress("evaluated", 1000, parent=whole)
    for done in range(0, 1001, 10):
        clock.now += 0.1
        part.show(done, "fid")
    part.close()
    assert capsys.readouterr().err == ""
    part = Progress("evaluated", 1000, parent=whole)
    for done in range(0, 1001, 10):
        clock.now += 1.0
        part.show(done, "fid")
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 6  # in a hundred seconds
    assert lines[0].startswith("evaluated 140/1000  fid  ")


def test_a_terminal_gets_a_bar_for_the_whole_and_one_for_its_part_while_it_lasts(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    whole = Progress("step", 100)
    whole.show(40, "D 1.2")
    part = Progress("evaluated", 1000, parent=whole)
    part.show(500, "fid")
    assert [(task.fields["unit"], task.completed, task.description) for task in whole._bar.tasks] == [
        ("step", 40, "D 1.2"),
        ("evaluated", 500, "fid"),
    ]
    part.close()
    assert [task.fields["unit"] for task in whole._bar.tasks] == ["step"]
    whole.close()
    assert "40/100" in terminal.getvalue()


def test_a_row_in_short_is_what_changes_and_matters():
    row = {"loss/discriminator": 1.23456, "score/real": 0.5, "memory/peak_mib": 300.0}
    assert progress_text(row) == "D 1.235  D(x) 0.5"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (0.0, "0"),
        (25.0, "25"),
        (-1.23456, "-1.235"),
        (1000.0, "1,000"),
        (60077.4, "60,077"),
        (3.14159e-6, "3.142e-06"),
        (1e30, "1e+30"),
        (float("inf"), "inf"),
    ],
)
def test_a_number_is_as_long_as_it_has_to_be(value, shown):
    assert rounded(value) == shown


def test_work_that_is_usually_short_is_told_of_only_where_it_is_not(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress("decoded", 1000, pause=15.0)
    for done in range(1, 1001):
        clock.now += 1 / 8
        progress.show(done, "into the cache")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8  # in 125 seconds
    assert lines[0] == "decoded 120/1000  into the cache  110 s left"


def test_a_terminal_has_one_bar_at_a_time(monkeypatch):
    """rich refuses a second one, or draws over the first."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    whole = Progress("step", 100)
    part = Progress("decoded", 10)  # knows nothing of the other
    assert part._bar is whole._bar
    part.show(5, "into the cache")
    whole._bar.refresh()
    assert "decoded" in terminal.getvalue()
    part.close()
    whole.show(50, "D 1.2")
    whole.close()
    alone = Progress("decoded", 10)
    assert alone._bar is not whole._bar
    alone.close()
