"""Faults planted into the product, each of which a rule has to catch: `python -m tests.fuzz.planted`."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gan_runner.datasets import ArrayDataset
from tests.fuzz import running, trees
from tests.fuzz.__main__ import check
from tests.fuzz.case import Case
from tests.fuzz.world import Inputs

LIMIT = 8.0
RIGHT = ("trainer.steps=1", "trainer.batch_size=2", "metric=[]", "doctor=none", "device=cpu")
TRAINING = Case("planted", 0, "train", RIGHT, "right", frozenset({0}))
MISTAKE = Case("planted", 1, "train", (*RIGHT[:-1], "device=cuda"), "no GPU", frozenset({2}), ("device",))
PHOTOS = Case(
    "planted",
    2,
    "train",
    ("dataset=images", "dataset.root=photos", "dataset.size=8", *RIGHT),
    "photos",
    frozenset({0}),
    needs=("photos",),
)
TREE = next(case for case in map(trees.make, range(1000)) if case.about == "classes" and case.expect == {0})
ON_TRAINING = "gan_runner.commands.train.train"


def _before(target: str, action: Callable[[], Any]) -> Any:
    """A patch: `action` is called before the function."""
    module, _, name = target.rpartition(".")
    original = getattr(sys.modules[module], name)

    def replaced(*arguments: Any, **keywords: Any) -> Any:
        action()
        return original(*arguments, **keywords)

    return patch(target, replaced)


def _samples(change: Callable[[Any, Any], Any]) -> Any:
    """A patch: the samples and labels of a finite data set are changed."""
    original = ArrayDataset.__getitem__
    return patch.object(ArrayDataset, "__getitem__", lambda self, chosen: change(*original(self, chosen)))


class Another(Exception):
    """No mistake of the user is one."""


def _say_twice() -> None:
    sys.stderr.write("by the way\n")


FAULTS: dict[str, tuple[Case, Callable[[], Any], str]] = {
    "a mistake that nobody catches": (
        MISTAKE,
        lambda: patch("gan_runner.commands.command_line.UserError", Another),
        "shows_no_traceback",
    ),
    "a mistake that nobody notices": (
        MISTAKE,
        lambda: patch("gan_runner.machine.devices.check_device", lambda *_: None),
        "has_the_right_status",
    ),
    "a mistake of two lines": (
        MISTAKE,
        lambda: _before("gan_runner.machine.devices.check_device", _say_twice),
        "tells_a_mistake_in_one_line",
    ),
    "a folder left behind": (
        MISTAKE,
        lambda: _before("gan_runner.machine.devices.check_device", lambda: os.mkdir("outputs")),
        "leaves_nothing_after_a_mistake",
    ),
    "a message that names nothing": (
        MISTAKE,
        lambda: patch("gan_runner.commands.command_line.say", lambda _: print("error: no such thing", file=sys.stderr)),
        "names_the_mistake",
    ),
    "an input that is changed": (
        PHOTOS,
        lambda: _before(ON_TRAINING, lambda: os.chmod("photos/cat/0.png", 0o600)),
        "touches_nothing_else",
    ),
    "a file elsewhere": (
        TRAINING,
        lambda: _before(ON_TRAINING, lambda: Path("../home/notes").touch()),
        "writes_nowhere_else",
    ),
    "half a file in the cache": (
        TRAINING,
        lambda: _before(ON_TRAINING, lambda: Path("../cache/.new.tmp").touch()),
        "leaves_no_half_made_file",
    ),
    "a hang": (TRAINING, lambda: _before(ON_TRAINING, lambda: time.sleep(1000)), "ends_in_time"),
    "a crash": (TRAINING, lambda: _before(ON_TRAINING, os.abort), "ends_in_time"),
    "a process left behind": (
        TRAINING,
        lambda: _before(ON_TRAINING, lambda: subprocess.Popen(["sleep", "1000"], start_new_session=True)),
        "leaves_no_process",
    ),
    "a warning of Python's": (
        TRAINING,
        lambda: _before(ON_TRAINING, lambda: sys.stderr.write("x.py:1: FutureWarning: soon\n")),
        "is_silent_otherwise",
    ),
    "a training that leaves no weights": (
        TRAINING,
        lambda: patch("gan_runner.observers.checkpoints.write_atomically", lambda *_, **__: None),
        "a_completed_training_has_its_files",
    ),
    "darker pixels": (TREE, lambda: _samples(lambda x, y: (x * 0.9, y)), "uses_the_right_images"),
    "labels in another order": (TREE, lambda: _samples(lambda x, y: (x, y.flip(0))), "uses_the_right_images"),
    "an image that is lost": (
        TREE,
        lambda: patch.object(ArrayDataset, "__len__", lambda data: data.labels.numel() - 1),
        "uses_the_right_images",
    ),
}  # fmt: skip


def main() -> int:
    """Runs each case as it is, then with its fault; the exit status is 1 if a rule is wrong about one."""
    scratch = Path(tempfile.mkdtemp(prefix="planted"))
    wrong = []
    os.environ["MPLCONFIGDIR"] = str(scratch / "matplotlib")
    with ExitStack() as held:
        held.callback(running.remove, scratch)
        running.warm_up()
        inputs = Inputs(scratch / "inputs")
        inputs.make(running.train)
        for case in (TRAINING, MISTAKE, PHOTOS, TREE):
            _, found = check(case, inputs, scratch / f"right-{case.number}", LIMIT)
            wrong += [f"nothing is wrong with '{case.about}': {rule}: {sentence}" for rule, sentence in found]
        for name, (case, plant, expected) in FAULTS.items():
            with plant():
                _, found = check(case, inputs, scratch / name, LIMIT)
            if not any(rule.startswith(expected) for rule, _ in found):
                wrong.append(f"{name}: {expected} does not catch it, found {found}")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
