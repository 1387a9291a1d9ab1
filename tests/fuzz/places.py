"""Paths, names, environments, YAML and classes of the user's own, of every kind."""

from random import Random

from tests.fuzz.case import COMPLETED, FAILED, REFUSED
from tests.fuzz.drafts import Draft
from tests.fuzz.mistakes import Planted

NO_UTF8 = "ph\udcff\udcfe"
NOWHERE = (
    "nowhere", "nowhere/at/all", "file.txt", "file.txt/x", "loop", "loop/x", "broken", "pipe", "locked", "locked/x",
    "~nobodyhere/x", "", "x" * 300, "y/" * 3000, NO_UTF8, f"{NO_UTF8}/z", "/dev/null", "/dev/null/x", "/dev/zero",
    "/proc/nowhere", "a b", "a=b", "lr=0.1,x", "[a]", "{a}", "a(b)", "1.10", "2026_11_25", "007", "1e3", "true", "nan",
    "${nope}", "$HOME/nowhere", "a\nb", "a\tb", "'x'", '"x"', "it's", "größe", "данные", "写真", "\u202ex", "empty",
    "http://x.invalid/y.zip", "s3://bucket/x", "C:\\photos", "photos.zi", "-x", "*", "?", "#x", "a;b", "full", "%s",
    "@@", "a:b", "\\", "a\\,b", "null/", "...", "\x7f", "\x01",
)  # fmt: skip
UNWRITABLE = (
    "file.txt", "file.txt/x", "loop", "loop/x", "pipe", "locked", "locked/x", "read_only/x", "~nobodyhere/x", "x" * 300,
    "y/" * 3000, "/dev/null", "/dev/null/x", "/proc/nowhere/x", "/dev/full", "broken/x", "file.txt/../y",
)  # fmt: skip
# Names that a disk takes, and that are to be taken letter for letter.
LETTERS = (
    "1.10", "2026_11_25", "007", "1e3", "true", "nan", "None", "0x1F", "1_000", "2024", "a b", "größe",
    "данные", "写真", "lr=0.1", "[a]", "{a}", "a(b)", "it's", 'say "x"', "a;b", "a&b", "#x", "%s", "a:b",
    "*", "x!", "-x", "a\\b", "+1", "0.0", "1.", "off", "inf", "x#y", "a'b\"c", "(", ")", "a=", "=a", "a]b",
)  # fmt: skip
ODD_INPUTS = ("file.txt", "loop", "broken", "pipe", "locked", "read_only", "empty", "full")


def _odd_needs(path: str) -> set[str]:
    return {name for name in ODD_INPUTS if path.split("/", maxsplit=1)[0] == name}


def input_path(draft: Draft, rng: Random) -> Planted:
    """A path from which nothing can be read."""
    keys = {
        "train": ["resume", "fork_from", "dataset.root", "--config-dir", "evaluation.extractor"],
        "sample": ["run"],
        "export": ["run"],
        "evaluate": ["run", "runs", "dataset.root", "evaluation.extractor"],
        "classifier": ["dataset.root"],
        "report": ["run", "runs"],
    }
    key, path = rng.choice(keys[draft.command]), rng.choice(NOWHERE)
    draft.needs |= _odd_needs(path)
    if key == "dataset.root" and draft.command == "train":
        draft.words[:] = [
            "trainer.steps=2",
            "trainer.batch_size=2",
            f"dataset={rng.choice(['images', 'mnist', 'celeba'])}",
        ]
    elif key == "dataset.root" and draft.command == "evaluate":
        if draft.value("run") != "labelled":
            return None
    elif key in ("resume", "fork_from"):
        draft.words[:] = [word for word in draft.words if word.partition("=")[0] not in ("resume", "hydra.run.dir")]
    elif key in ("run", "runs"):
        draft.words[:] = [word for word in draft.words if word.partition("=")[0] not in ("run", "runs")]
    elif key == "evaluation.extractor" and not draft.has("dataset"):
        return None
    if key == "--config-dir" and path in ("empty", "full"):
        return None
    if path == "" and key in ("--config-dir", "evaluation.extractor"):
        return None  # an empty folder of configurations is the current one; an empty extractor is a mistake of its own
    draft.put(key, path)
    return f"no such input: {key}={path[:40]!r}", (key.split(".")[-1].lstrip("-"),)


def output_path(draft: Draft, rng: Random) -> Planted:
    """A path to which nothing can be written."""
    keys = {"train": ["hydra.run.dir"], "sample": ["out"], "export": ["out"], "classifier": ["out"]}
    if draft.command not in keys or draft.has("resume"):
        return None
    key, path = rng.choice(keys[draft.command]), rng.choice(UNWRITABLE)
    draft.needs |= _odd_needs(path)
    endings = {"classifier": ".safetensors", "export": ".pt2" if draft.value("format") != "onnx" else ".onnx"}
    if path.endswith(("/x", "/y")):
        path += endings.get(draft.command, "")
    if path == "/dev/null" and draft.command == "classifier":
        return None
    draft.put(key, path)
    return f"cannot be written: {key}={path[:40]!r}", ()


BAD_CACHES = ("file.txt", "file.txt/x", "loop", "read_only/c", "~nobodyhere/c", "/proc/nowhere", "/dev/null/c")


def odd_cache(draft: Draft, rng: Random) -> tuple[str, str]:
    """A value of GAN_RUNNER_CACHE that is of no use, and what to need for it."""
    path = rng.choice(BAD_CACHES)
    draft.needs |= _odd_needs(path)
    return path, f"cache: {path}"


GLOBAL = b"# @package _global_\n"
RIGHT_YAML = {
    "plain": GLOBAL + b"trainer:\n  log_every: 1\n",
    "CRLF": b"# @package _global_\r\ntrainer:\r\n  log_every: 1\r\n",
    "comments": GLOBAL + b"# mine\n\n# steps\ntrainer: {log_every: 1}  # so\n",
    "defaults": GLOBAL + b"defaults:\n  - override /loss: hinge\n  - _self_\ntrainer: {log_every: 1}\n",
    "document": b"# @package _global_\n---\ntrainer:\n  log_every: 1\n",
    "UTF-8": GLOBAL + "trainer:  # größer\n  log_every: 1\n".encode(),
}
WRONG_YAML = {
    "only a header": GLOBAL,
    "empty": b"",
    "a header that is not the first line": b"# mine\n" + GLOBAL + b"trainer:\n  log_every: 1\n",
    "no header": b"trainer:\n  log_every: 1\n",
    "misspelt header": b"# @pakage _global_\ntrainer:\n  log_every: 1\n",
    "Latin-1": GLOBAL + "trainer:  # größer\n  log_every: 1\n".encode("latin-1"),
    "tab": GLOBAL + b"trainer:\n\tlog_every: 1\n",
    "no colon": GLOBAL + b"trainer:\n  log_every 1\n",
    "duplicate keys": GLOBAL + b"trainer:\n  log_every: 1\n  log_every: 2\n",
    "a list": GLOBAL + b"- trainer\n- log_every\n",
    "a scalar": GLOBAL + b"trainer\n",
    "a number": GLOBAL + b"5\n",
    "open bracket": GLOBAL + b"trainer: {log_every: 1\n",
    "open quote": GLOBAL + b"name: 'x\n",
    "unknown key": GLOBAL + b"trainer:\n  log_evry: 1\n",
    "unknown choice": GLOBAL + b"defaults:\n  - override /loss: hnige\n",
    "unknown group": GLOBAL + b"defaults:\n  - override /los: hinge\n",
    "defaults no list": GLOBAL + b"defaults: hinge\n",
    "wrong type": GLOBAL + b"trainer:\n  log_every: often\n",
    "interpolation": GLOBAL + b"trainer:\n  log_every: ${nope}\n",
    "python": GLOBAL + b"trainer: !!python/object/apply:os.system ['touch x']\n",
    "NUL": GLOBAL + b"trainer:\n  log_every: 1\0\n",
    "itself": GLOBAL + b"defaults:\n  - mine\n",
    "UTF-16": "# @package _global_\ntrainer:\n  log_every: 1\n".encode("utf-16"),
    "control": GLOBAL + b'name: "x\x07"\n\x02\n',
    "two documents": GLOBAL + b"trainer:\n  log_every: 1\n---\ntrainer:\n  log_every: 2\n",
    "indentation": GLOBAL + b"trainer:\n  log_every: 1\n steps: 2\n",
    "anchor": GLOBAL + b"trainer: *steps\n",
    "JSON lines": b'{"a": 1}\n{"b": 2}\n',
}
SHOWN: tuple[list[str], ...] = (
    [],
    [],
    [],
    ["--cfg", "job"],
    ["--cfg", "job", "--resolve"],
    ["--info", "defaults"],
    ["--info", "all"],
    ["-m"],
)


def own_yaml(rng: Random) -> tuple[Draft, str, bytes, bool]:
    """An experiment of the user's own: the command line, what it is, its content, and whether it is right."""
    is_right = rng.random() < 0.25
    table = RIGHT_YAML if is_right else WRONG_YAML
    what = rng.choice(sorted(table))
    shown = rng.choice(SHOWN if what not in ("wrong type", "interpolation", "unknown key") else [[]])
    draft = Draft("train", [*shown, "--config-dir=conf", "experiment=mine", "trainer.steps=2", "trainer.batch_size=4"])
    draft.set(metric__pattern__samples=10)
    if shown == ["-m"]:
        draft.words += ["seed=0,1", "hydra.launcher.dry_run=true"]
    draft.prints_only = bool(shown)
    return draft, what, table[what], is_right


MODULE = """
import torch
from gan_runner.datasets import ArrayDataset
from gan_runner.losses import NonSaturating
{top}

class Mine(NonSaturating):
    def __init__(self):
        {init}

    def real(self, logits):
        {real}
        return super().real(logits)
"""
OWN_CLASSES = {
    "right": ({}, {COMPLETED}),
    "a fault in a step": ({"real": "raise ValueError('mine')"}, {FAILED}),
    "a fault of many lines": ({"real": "raise RuntimeError('mine\\nis\\nbroken')"}, {FAILED}),
    "an assertion": ({"real": "assert False"}, {FAILED}),
    "exit in a step": ({"real": "raise SystemExit(0)"}, {FAILED}),
    "a fault without text": ({"real": "raise KeyError"}, {FAILED}),
    "recursion": ({"real": "return self.real(logits)"}, {FAILED}),
    "refuses": ({"init": "raise ValueError('mine')"}, {REFUSED}),
    "lacks a module": ({"top": "import not_there_at_all"}, {REFUSED}),
    "syntax": ({"top": "def ("}, {REFUSED, FAILED}),
    "a fault at import": ({"top": "1 / 0"}, {REFUSED, FAILED}),
    "a fault in init": ({"init": "[][1]"}, {REFUSED, FAILED}),
    "wrong shape": ({"real": "return logits.sum()"}, {REFUSED, FAILED, COMPLETED}),
    "none": ({"real": "return None"}, {REFUSED, FAILED}),
    "text": ({"real": "return 'x'"}, {REFUSED, FAILED}),
    "exit at import": ({"top": "raise SystemExit(3)"}, {REFUSED, FAILED}),
    "exit in init": ({"init": "raise SystemExit(3)"}, {REFUSED, FAILED}),
}  # fmt: skip


def own_class(rng: Random) -> tuple[Draft, str, bytes, set[int]]:
    """A loss of the user's own: the command line, what it does, its module, and the right statuses."""
    what = rng.choice(sorted(OWN_CLASSES))
    parts, statuses = OWN_CLASSES[what]
    source = MODULE.format(**({"top": "", "init": "pass", "real": "pass"} | parts))
    draft = Draft("train", ["loss._target_=mine.Mine", "trainer.steps=2", "trainer.batch_size=4", "doctor=none"])
    draft.set(metric__pattern__samples=10)
    return draft, what, source.encode(), statuses
