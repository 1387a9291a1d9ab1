"""The fuzzer: 300 cases of it, and whether its rules and its numbering are right."""

import subprocess
import sys
from random import Random

import pytest

from tests.conftest import REPOSITORY
from tests.fuzz import commands, running, trees, values
from tests.fuzz.case import quoted
from tests.fuzz.failures import pattern_of


def fuzz(*words: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "count"), [("commands", 240), ("trees", 60)])
def test_no_case_breaks_a_rule(kind, count, environment):
    ended = fuzz("tests.fuzz", kind, "--count", str(count), environment=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.timeout(300)
def test_each_rule_catches_the_faults_that_it_is_for(environment):
    ended = fuzz("tests.fuzz.planted", environment=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("kind", ["commands", "trees"])
def test_a_case_is_a_function_of_its_number(kind, environment):
    """Also in another process, where sets have another order."""
    shown = [
        fuzz("tests.fuzz", kind, "--show", "--count", "400", environment=environment | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    ]
    assert shown[0] == shown[1]
    assert shown[0].count("\n# ") == 399


def test_a_tree_is_the_same_each_time(tmp_path):
    for number in range(0, 60, 3):
        for once in ("one", "other"):
            (tmp_path / once / "work").mkdir(parents=True)
            build = trees.make(number).build
            assert build is not None
            build(tmp_path / once / "work")
        one, other = (running.snapshot(tmp_path / once) for once in ("one", "other"))
        plain = [{path: (entry.mode, entry.content) for path, entry in tree.items()} for tree in (one, other)]
        assert plain[0] == plain[1]
        assert len(one) > 1
        for once in ("one", "other"):
            running.remove(tmp_path / once)


def test_every_kind_of_case_comes_up():
    made = [commands.make(number) for number in range(1000)]
    assert {case.command for case in made} == {"train", "sample", "export", "evaluate", "classifier", "report"}
    assert {0, 2} <= {status for case in made for status in case.expect if len(case.expect) == 1}
    assert sum(case.expect == {2} for case in made) > 400
    assert sum(case.expect == {0} for case in made) > 100
    assert all(case.as_process for case in made[49::50])
    assert 20 <= sum(case.as_process for case in made) < 60
    planted = {case.about.partition(":")[0] for case in made}
    assert {plant.__name__ for plant in commands.PLANTS} <= planted
    assert {"right", "wild", "own YAML", "own class", "letters", "cache"} <= planted


KEYS = {key: (kind, limits) for key, kind, limits in values.schema_keys()}


@pytest.mark.parametrize(
    ("key", "among", "never"),
    [
        ("trainer.steps", {"0", "-1", "1.5", "nan", "null"}, {"1", "2"}),
        ("trainer.sample_rows", {"0", "257"}, {"256", "1"}),
        ("trainer.ema_decay", {"0", "1", "true"}, {"null", "0.5"}),
        ("trainer.compile", {"1", "0"}, {"true", "false"}),
        ("trainer.precision", {"1", "null"}, {"fp32", "bf16"}),
        ("optimizer.warmup_steps", {"-1"}, {"0"}),
    ],
)
def test_wrong_values_by_hand(key, among, never):
    rng = Random(0)
    wrong = {values.wrong(*KEYS[key], rng) for _ in range(2000)}
    assert among <= wrong
    assert not never & wrong


def test_right_values_by_hand():
    rng = Random(0)
    ints = {values.right(*KEYS["trainer.sample_rows"], rng) for _ in range(500)}
    assert {float(value or "nan") for value in ints} <= set(map(float, range(1, 11)))
    assert {"1", "2.0", "3e0", "+4"} <= ints
    decays = {values.right(*KEYS["trainer.ema_decay"], rng) for _ in range(500)}
    assert "null" in decays
    assert all(value == "null" or 0 < float(value or "nan") < 1 for value in decays)


@pytest.mark.parametrize("word", ["a b", "it's", "a\nb", "\\", "caf\udce9", "größe", "$HOME", "\x01'", "", "-x", "~"])
def test_a_command_can_be_pasted(word):
    printed = subprocess.run(["bash", "-c", f"printf %s {quoted(word)}"], capture_output=True, check=True).stdout
    assert printed == word.encode(errors="surrogateescape")


def test_failures_of_one_kind_have_one_pattern():
    sentences = (
        "status 1 instead of 2; last on stderr: 'a b' in /tmp/x/3/work: seed=1",
        "status 1 instead of 2; last on stderr: 'c' in /var/y/17/work: loss=hinge",
    )
    assert len({pattern_of(sentence) for sentence in sentences}) == 1
    assert pattern_of("left behind: cache/x") != pattern_of("gone: cache/x")
