import signal

import pytest


@pytest.fixture(autouse=True)
def signals_as_before():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests that run in the background ignore
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
