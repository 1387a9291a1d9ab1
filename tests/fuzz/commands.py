"""Command lines by number: right ones, such with one mistake, and wild ones."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tests.fuzz import damage, drafts, mistakes, places
from tests.fuzz.case import COMPLETED, DIVERGED, FAILED, REFUSED, Case
from tests.fuzz.drafts import Draft
from tests.fuzz.mistakes import KEYS

KIND = "commands"
PROCESS_EVERY = 50  # so many cases in a fork for one in a process of its own
Maker = Callable[[Random], dict[str, Any]]
RIGHT = {
    drafts.training: 8,
    drafts.going_on: 3,
    drafts.sampling: 2,
    drafts.exporting: 1,
    drafts.measuring: 2,
    drafts.reporting: 1,
    drafts.classifying: 2,
    drafts.printing: 3,
    drafts.sweeping: 2,
}
TO_SPOIL = {
    drafts.training: 8,
    drafts.going_on: 1,
    drafts.sampling: 3,
    drafts.exporting: 1,
    drafts.measuring: 2,
    drafts.reporting: 1,
    drafts.classifying: 2,
}
PLANTS: Mapping[mistakes.Plant, int] = {
    mistakes.key: 3,
    mistakes.missing_key: 1,
    mistakes.choice: 3,
    mistakes.group: 1,
    mistakes.value: 6,
    mistakes.component: 4,
    mistakes.data_key: 4,
    mistakes.conflict: 3,
    mistakes.grammar: 4,
    mistakes.huge: 1,
    places.input_path: 6,
    places.output_path: 2,
}
_HOSTILE = "'\"[]{}()=,:;$\\~+-*?#!@%^&|<> \t\n\x01\x7fäж写\u202e\ufeff\udcff."
_JUNK = (
    "", "''", "null", "~", "x", "[x]", "[]", "{}", "{a: b}", "${seed}", "${nope}", "???", "1", "0.5", "-1", "true",
    "nan", "'", "[", "\udcff", "a b", "2,3", "range(2)", "1e1", "${now:%Y}", "${hydra:job.name}", "\x00x"[1:], "é",
)  # fmt: skip
_OF_HYDRA = (
    "hydra.verbose", "hydra.job.chdir", "hydra.output_subdir", "hydra.job_logging", "hydra.sweep.subdir", "hydra.mode",
    "hydra.job.name", "hydra.searchpath", "hydra.job.env_set", "hydra.run.dir", "hydra.sweep.dir", "hydra.callbacks",
    "hydra/job_logging", "hydra.job.config.override_dirname.kv_sep", "hydra.launcher.jobs", "hydra.help.template",
)  # fmt: skip


def make(number: int) -> Case:
    """Case `number`: a function of the number alone."""
    rng = Random(f"{KIND}-{number}")
    makers = {
        _right: 14,
        _with_a_mistake: 56,
        _wild: 14,
        _own_yaml: 5,
        _own_class: 2,
        _letters: 5,
        _cache: 2,
        _home: 2,
        _damaged: 5,
        _streams: 1,
    }
    made = _chosen(makers, rng)(rng)
    draft: Draft = made.pop("draft")
    words = tuple(made.pop("words", draft.words))
    return Case(
        KIND,
        number,
        draft.command,
        words,
        expect=frozenset(made.pop("expect")),
        needs=tuple(sorted(draft.needs)),
        may_write=tuple(draft.may_write),
        prints_only=draft.prints_only,
        as_process=number % PROCESS_EVERY == PROCESS_EVERY - 1 or made.get("stdout") is not None,
        **made,
    )


def _chosen(weights: Mapping[Any, int], rng: Random) -> Any:
    return rng.choices([*weights], [*weights.values()])[0]


def _right(rng: Random) -> dict[str, Any]:
    chosen = _chosen(RIGHT, rng)
    return {"draft": chosen(rng), "about": f"right: {chosen.__name__}", "expect": {COMPLETED}}


def _with_a_mistake(rng: Random) -> dict[str, Any]:
    while True:
        draft, plant = _chosen(TO_SPOIL, rng)(rng), _chosen(PLANTS, rng)
        planted = plant(draft, rng)
        if planted is None:
            continue
        about, names = planted
        if "-m" not in draft.words:
            draft.may_write.clear()
        return {"draft": draft, "about": f"{plant.__name__}: {about}", "expect": {REFUSED}, "names": names}


def _wild(rng: Random) -> dict[str, Any]:
    """Letters put in at random, and random values of random keys: whatever comes of it, it is a status."""
    draft = _chosen(TO_SPOIL, rng)(rng)
    at = rng.randrange(len(draft.words) + 1)
    if rng.random() < 0.5:
        keys = [name for name, _, _ in KEYS[draft.command] if name not in ("trainer.steps", "trainer.compile")]
        key = rng.choice([*keys, *keys, *_OF_HYDRA])
        draft.words.insert(at, f"{rng.choice(['', '', '', '+', '++', '~'])}{key}={rng.choice(_JUNK)}")
    else:
        at = min(at, len(draft.words) - 1)
        word = draft.words[at]
        for _ in range(rng.choice([1, 1, 2, 5])):
            place = rng.randrange(len(word) + 1)
            word = word[:place] + rng.choice(_HOSTILE) + word[place + rng.choice([0, 0, 1]) :]
        draft.words[at] = word
    if draft.command == "train" and not draft.has("resume"):
        draft.set(trainer__steps=2)
    expect = {COMPLETED, REFUSED, DIVERGED} | ({FAILED} if draft.has("runs") else set())  # one of several runs
    return {"draft": draft, "about": f"wild: {draft.words[at]!r}", "expect": expect}


def _own_yaml(rng: Random) -> dict[str, Any]:
    draft, what, content, is_right = places.own_yaml(rng)
    return {
        "draft": draft,
        "about": f"own YAML: {what}",
        "files": {"conf/experiment/mine.yaml": content},
        "expect": {COMPLETED} if is_right else {REFUSED},
        "names": () if is_right else ("mine", "log_evry", "log_every", "hnige", "los"),
    }


def _own_class(rng: Random) -> dict[str, Any]:
    draft, what, source, statuses = places.own_class(rng)
    return {
        "draft": draft,
        "about": f"own class: {what}",
        "files": {"mine.py": source},
        "expect": statuses,
        "faults_of_user": statuses != {COMPLETED},
    }


def _letters(rng: Random) -> dict[str, Any]:
    """Names and paths that have to be taken letter for letter."""
    text = rng.choice(places.LETTERS)
    draft = Draft("train", ["trainer.steps=1", "trainer.batch_size=2", "metric=[]", "doctor=none"])
    draft.set(architecture__generator__hidden="[2]", architecture__discriminator__hidden="[2]")
    key = rng.choice(["name", "hydra.run.dir", "out"])
    if key == "out":
        draft = Draft("sample", ["run=run", "count=2"], {"run"})
    made: dict[str, Any] = {"makes": text} if key != "name" else {"keeps": {"name": text}}
    if key != "name":
        draft.may_write.append(text)
    draft.put(key, text)
    return {"draft": draft, "about": f"letters: {key}={text}", "expect": {COMPLETED}, **made}


def _cache(rng: Random) -> dict[str, Any]:
    draft = Draft("train", ["dataset=images", "dataset.root=photos", "dataset.size=8", "metric=[]"], {"photos"})
    draft.set(trainer__steps=1, trainer__batch_size=2)
    path, about = places.odd_cache(draft, rng)
    return {"draft": draft, "about": about, "expect": {REFUSED}, "environment": {"GAN_RUNNER_CACHE": path}}


def _home(rng: Random) -> dict[str, Any]:
    """No home, where one is asked for and where none is."""
    home = rng.choice([None, "", "nowhere", "@ROOT@/home"])
    command = rng.choice(["train", "sample", "report"])
    draft = {"train": Draft("train", ["trainer.steps=1", "trainer.batch_size=2", "metric=[]", "doctor=none"])}.get(
        command, Draft(command, ["run=run"], {"run"}, ["run"])
    )
    expect = {COMPLETED}
    if rng.random() < 0.5:
        draft.words[-1:] = ["resume=~/nowhere"] if command == "train" else ["run=~/nowhere"]
        draft.may_write.clear()
        expect = {REFUSED}
    return {"draft": draft, "about": f"HOME={home}", "expect": expect, "environment": {"HOME": home}}


def _damaged(rng: Random) -> dict[str, Any]:
    """A run with a damaged file: refused, or done without it."""
    draft, what, build, statuses = damage.damaged_run(rng)
    return {"draft": draft, "about": f"damaged: {what}", "expect": statuses, "build": build}


def _streams(rng: Random) -> dict[str, Any]:
    """Standard output that takes nothing ends no command."""
    words = ["trainer.steps=2", "trainer.batch_size=2", "metric=[]", "doctor=none"]
    draft = rng.choice([Draft("train", words), Draft("sample", ["run=run"], {"run"}, ["run"])])
    stdout = rng.choice(["closed", "full", "pipe"])
    return {"draft": draft, "about": f"streams: {stdout}", "expect": {COMPLETED}, "stdout": stdout}
