"""Run directories and sweeps that nobody trained, so that every number in them is known."""

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gan_runner.config import composition

FIGURE = {"metric": "pattern", "perfect": 0.1, "goal": "min", "samples": 1000, "real_samples": 1000}
FIGURE |= {"perfect_samples": 1000, "held_out": "fresh samples", "extractor": "digits", "extractor_hash": "ab" * 32}


@functools.cache
def composed(*overrides: str) -> dict[str, Any]:
    return composition.plain(composition.compose(overrides, "train"))


def config(*overrides: str, seed: int = 0) -> dict[str, Any]:
    return copy.deepcopy(composed(*overrides)) | {"seed": seed}


def make_run(
    path: Path,
    finals: Mapping[str, float | None],
    *overrides: str,
    seed: int = 0,
    fingerprint: str = "f" * 64,
    extractor: str | None = "e" * 64,
    status: Mapping[str, Any] | None = None,
    health: Mapping[str, Any] | None = None,
) -> Path:
    """A run that logged at 50 and 100 steps of 100, at the end the `finals`; a figure that is None was undefined."""
    plain = config("trainer.steps=100", *overrides, seed=seed)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    defined = {f"metric/{name}": value for name, value in finals.items() if value is not None}
    rows = [
        {"step": 50, "loss/generator": 1.0 + seed, "loss/discriminator": 2.0, **dict.fromkeys(defined, 50.0)},
        {"step": 100, "loss/generator": 0.5 + seed, "loss/discriminator": 1.5, "time/seconds": 2.0, **defined},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    objective = next(iter(finals), None)
    evaluation: dict[str, Any] = {"step": 100, "failures": {}}
    evaluation["figures"] = {name: FIGURE | {"value": value} for name, value in finals.items()}
    if objective is not None:
        best = {"figure": f"metric/{objective}", "goal": "min", "value": finals[objective], "step": 100}
        evaluation["objective"] = best
    files = {
        "evaluation.json": evaluation,
        "status.json": status or {"state": "completed", "step": 100, "message": None},
        "health.json": health or {"step": 100, "verdict": "healthy", "findings": []},
        "manifest.json": {
            "versions": {"torch": "9.8.7"},
            "git_commit": "c0ffee" * 6,
            "command": ["/usr/bin/gan-train", "-m", "loss=lsgan,hinge"],
            "data": {"fingerprint": fingerprint},
            "extractor": extractor,
            "wall_seconds": 2.5,
        },
    }
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    return path


def make_sweep(folder: Path, finals: Mapping[str, Mapping[int, float | None]], *overrides: str) -> Path:
    """A run for each loss and seed, with its `fid` at the end, and their sweep.json."""
    jobs = {}
    for loss, by_seed in finals.items():
        for seed, value in by_seed.items():
            name = f"loss-{loss}_seed-{seed}"
            make_run(folder / name, {"fid": value}, f"loss={loss}", *overrides, seed=seed)
            jobs[name] = job({"loss": loss, "seed": str(seed)}, "completed", 100)
    return write_sweep(folder, jobs)


def job(swept: Mapping[str, str], state: str, step: int, reason: str | None = None) -> dict[str, Any]:
    choices = [f"{key}={value}" for key, value in swept.items() if key != "seed"]
    plain = config("trainer.steps=100", *choices, seed=int(swept.get("seed", 0)))
    about = {"swept": swept, "overrides": [], "config": plain}
    return about | {"state": state, "step": step, "seconds": 2.0, "attempts": 1, "reason": reason}


def write_sweep(folder: Path, jobs: Mapping[str, Any]) -> Path:
    command = ["gan-train", "-m", "loss=lsgan,hinge", "seed=0,1,2"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps({"command": command, "swept": ["loss", "seed"], "jobs": jobs}))
    return folder
