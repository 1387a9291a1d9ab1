"""Run directories with one damaged file, and the commands that read them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz.case import COMPLETED, FAILED, REFUSED
from tests.fuzz.drafts import Draft

FILES = (
    "config.yaml", "status.json", "manifest.json", "metrics.jsonl", "evaluation.json", "health.json", "log.txt",
    "generator.safetensors", "checkpoints", "samples", "summary.txt", "checkpoints/*", "checkpoints/best.safetensors",
)  # fmt: skip
Damage = Callable[[Path], object]


def _other_values(path: Path) -> None:
    """JSON of the same keys with values of other types."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: [None] for key in content} if isinstance(content, dict) else [1]))


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _instead(make: Damage) -> Damage:
    def replace(path: Path) -> None:
        _remove(path)
        make(path)

    return replace


OF_ANY: dict[str, Damage] = {
    "gone": _remove,
    "a folder": _instead(lambda path: path.mkdir()),
    "a pipe": _instead(os.mkfifo),
    "a link": _instead(lambda path: path.symlink_to("/dev/null")),
    "unreadable": lambda path: path.chmod(0),
}
OF_FILES: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "the last byte gone": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": _flipped,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "noise": lambda path: path.write_bytes(bytes(range(256))),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0\1\2"),
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "a number": lambda path: path.write_text("5\n"),
    "null": lambda path: path.write_text("null\n"),
    "braces": lambda path: path.write_text("{}\n"),
    "not a number": lambda path: path.write_text('{"step": NaN, "state": "completed"}\n'),
    "deep": lambda path: path.write_text("[" * 100_000),
    "huge": lambda path: path.write_text('{"step": 1e999, "wall_seconds": 1e999, "data": 1}\n'),
    "read-only": lambda path: path.chmod(0o444),
}
COMMANDS = {
    "train": (["resume=run", "trainer.steps=5"], ["resume=stopped"], ["hydra.run.dir=run"]),
    "sample": (["run=run", "count=2"], ["run=labelled", "count=2", "checkpoint=best"]),
    "export": (["run=run"], ["run=labelled", "format=onnx"]),
    "evaluate": (["run=run"], ["runs=run"], ["run=run", "metric=[pattern]", "metric.pattern.samples=5"]),
    "report": (["run=run"], ["runs=run"]),
}


def damaged_run(rng: Random) -> tuple[Draft, str, Callable[[Path], None], set[int]]:
    """The command line, what is damaged, what damages it, and the right statuses."""
    command = rng.choice(sorted(COMMANDS))
    words = rng.choice(COMMANDS[command])
    run = next(word.partition("=")[2] for word in words if word.startswith(("run", "resume", "hydra.run.dir")))
    name = rng.choice(FILES)
    table = OF_ANY if name in ("checkpoints", "samples") else OF_FILES | OF_ANY
    what = rng.choice(sorted(table) if not name.endswith((".json", ".jsonl")) else [*sorted(table), "other values"])
    damage = table.get(what, _other_values)

    def build(work: Path) -> None:
        for path in sorted((work / run).glob(name))[:1]:
            if what != "other values" or name != "metrics.jsonl":
                damage(path)

    draft = Draft(command, [*words], {run} | ({"photos"} if run == "labelled" else set()), [run])
    if command == "export":
        draft.may_write = ["generator.pt2", "generator.onnx"]
    statuses = {COMPLETED, REFUSED}
    if words[0].startswith("runs") or what == "unreadable":  # one of several runs; a disk that takes nothing
        statuses.add(FAILED)
    return draft, f"{name}: {what}", build, statuses
