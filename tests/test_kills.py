import random

from tests import kills


def test_ten_kills_of_many_kinds_of_runs_lose_nothing():
    seed = random.SystemRandom().randrange(10**6)
    names = ["ring", "conditional", "images", "average", "sampling", "measuring"]
    assert kills.kill(10, seed, names) == []
