"""Names of jobs and directories: legal on any disk, and never the same for two different things."""

import random
import re
import string

import pytest

from gan_runner.names import LONGEST, directory_name, job_name


@pytest.mark.parametrize(
    ("swept", "name"),
    [
        ({"loss": "hinge", "seed": "0"}, "loss-hinge_seed-0"),
        ({"loss": "lsgan_probability"}, "loss-lsgan_probability"),
        ({"optimizer.generator.lr": "1e-4", "seed": "3"}, "lr-1e-4_seed-3"),
        ({"optimizer.generator.lr": "1", "optimizer.discriminator.lr": "2"}, "generator.lr-1_discriminator.lr-2"),
        ({"loss.weight": "-1"}, "weight--1"),
    ],
)
def test_a_name_that_can_be_read_is_what_is_swept(swept, name):
    assert job_name(swept) == name


@pytest.mark.parametrize(
    ("value", "begin"),
    [("a/b", "root-a-b-"), ("[r1,r2]", "root-r1-r2-"), ("'7'", "root-7-"), ("ü", "root-"), ("x" * 300, "root-xxx")],
)
def test_what_cannot_stand_as_it_is_ends_in_a_hash(value, begin):
    name = job_name({"dataset.root": value})
    assert name.startswith(begin)
    assert re.search(r"-[0-9a-f]{8}$", name)


def test_values_that_would_give_the_same_words_do_not_share_a_name():
    assert job_name({"dataset.root": "data/cats"}) != job_name({"dataset.root": "data-cats"})
    assert job_name({"a": "1_b-2", "b": "3"}) != job_name({"a": "1", "b": "2_b-3"})
    assert job_name({"seed": "7"}) != job_name({"seed": "'7'"})


def text_of(rng: random.Random) -> str:
    kinds = [
        string.ascii_letters,
        string.digits + ".",
        "ab_-",
        "a/b.~ ",
        "[]{}'\"\\,=:",
        "äλ猫\u202e",
        string.printable,
    ]
    pool = rng.choice(kinds)
    return "".join(rng.choices(pool, k=rng.choice([1, 2, 3, 8, 40, 300])))


def test_600_pairs_of_values_never_share_a_name():
    rng = random.Random(0)
    for _ in range(600):
        first, second = text_of(rng), text_of(rng)
        if rng.random() < 0.5:  # often as near as can be
            second = first.replace(first[-1], rng.choice("-_./ "))
        jobs = [{"dataset.root": one, "seed": two} for one in (first, second) for two in (first, second)]
        names = {job_name(job) for job in jobs}
        assert len(names) == len({tuple(job.values()) for job in jobs})
        for name in names:
            assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)
            assert len(name) <= LONGEST == 120


@pytest.mark.parametrize("text", ["loss-hinge_seed-0", "pattern", "a.b"])
def test_a_legal_text_is_its_own_directory_name(text):
    assert directory_name(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", ".hidden", "-m", "a b", "a/b", "ends.", "x" * 121])
def test_another_text_is_replaced_and_told_apart_by_a_hash(text):
    name = directory_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)
    assert len(name) <= LONGEST
    assert name != directory_name(text + "-")
