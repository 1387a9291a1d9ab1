import signal

import pytest

from gan_runner.machine.signals import on_stop_signal

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, *WARNINGS])
def test_a_signal_calls_the_handler(number, once):
    told = []
    with on_stop_signal(lambda: told.append(number), once=once):
        signal.raise_signal(number)
    assert told == [number]


def test_a_second_one_has_its_usual_effect():
    with on_stop_signal(lambda: None, once=True):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_one_that_comes_late_does_not_change_how_a_process_ends():
    """A process that was told twice may have stopped when the second signal reaches it."""
    with on_stop_signal(lambda: None, once=False):
        signal.raise_signal(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGINT, *WARNINGS):
        signal.raise_signal(number)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("order", [(*WARNINGS, signal.SIGTERM), (signal.SIGTERM, *WARNINGS), (signal.SIGUSR2,) * 2])
def test_what_a_scheduler_sends_one_after_the_other_is_one_request(once, order):
    told = []
    with on_stop_signal(lambda: told.append("stop"), once=once):
        for number in order:
            signal.raise_signal(number)
    assert told == ["stop"]


def test_a_signal_after_warnings_and_another_is_a_second_one():
    told = []
    with on_stop_signal(lambda: told.append("stop"), once=False):
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
    assert told == ["stop", "stop"]


def test_after_warnings_the_second_other_signal_has_its_usual_effect():
    with on_stop_signal(lambda: None, once=True):
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("once", [True, False])
def test_nothing_has_changed_where_none_came(once):
    before = signal.getsignal(signal.SIGTERM)
    with on_stop_signal(lambda: None, once=once):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_ignored_stays_ignored():
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
        with on_stop_signal(pytest.fail, once=True):
            signal.raise_signal(number)
