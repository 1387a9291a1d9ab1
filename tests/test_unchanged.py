"""This version computes what earlier ones computed, and reads what they left.

`tests/compare_checkouts.py` made the losses, with commit 5999936, and compares whole runs bit for bit on one machine.
`tests/data/old_run` is a run of 20 steps by that commit, without its pictures and events; `old_run_expected.json` has
what that commit sampled from it (`count=4`) and logged when it went on to step 40.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gan_runner.runs.directory import read_run
from tests.compare_checkouts import LOSSES, VARIANTS, losses_of, words_of
from tests.training import rows, status, write_images

DATA = Path(__file__).parent / "data"
EXPECTED = json.loads((DATA / "old_run_expected.json").read_text())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_ten_steps_have_the_losses_that_they_always_had(variant, typed, tmp_path):
    words = words_of(variant, write_images(tmp_path / "images", side=16), steps=10, log_every=1)
    ended = typed(f"hydra.run.dir={tmp_path / 'run'}", *words)
    assert ended.status == 0, ended.err
    found, expected = losses_of(tmp_path / "run"), json.loads(LOSSES.read_text())[variant]
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True), 1):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5), step


@pytest.fixture
def old_run(tmp_path):
    """A copy of the old run, to be changed."""
    return shutil.copytree(DATA / "old_run", tmp_path / "old_run")


def test_a_run_of_an_earlier_version_goes_on(old_run, typed):
    ended = typed(f"resume={old_run}", "trainer.steps=40", "device=cpu")
    assert ended.status == 0, ended.err
    logged = [row for row in rows(old_run) if row["step"] > 20]
    for ours, theirs in zip(logged, EXPECTED["rows"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def without_newer_keys(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as the first version wrote it."""
    old = {name: dict(value) if isinstance(value, dict) else value for name, value in config.items()}
    for name in ("augmentation", "observer"):
        del old[name]
    for section, names in {
        "dataset": ("size", "samples", "samples_seed", "clusters"),
        "trainer": ("packing", "weight_clip", "auxiliary_weight"),
        "evaluation": ("real",),
        "loss": ("label_smoothing",),
    }.items():
        for name in names:
            del old[section][name]
    return old


def test_a_run_on_digits_and_a_sweep_of_an_earlier_version_go_on_by_their_own_commands(gan_train):
    words = [
        *("dataset=mnist", f"dataset.root={DATA / 'mnist'}", "architecture=mlp_layernorm", "metric=[]", "doctor=none")
    ]
    words += ["trainer.batch_size=4", "device=cpu"]
    sweep = Path("outputs/sweep/sweep.json")
    for command, run in (
        ([*words, "hydra.run.dir=run"], Path("run")),
        (["-m", *words, "name=sweep", "seed=3,4"], Path("outputs/sweep/seed-4")),
    ):
        assert gan_train(*command, "trainer.steps=2").returncode == 0
        for path in run.parent.glob(f"{run.name[:-1]}?/config.yaml"):
            path.write_text(yaml.safe_dump(without_newer_keys(yaml.safe_load(path.read_text()))))
        if sweep.exists():
            content = json.loads(sweep.read_text())
            for job in content["jobs"].values():
                job["config"] = without_newer_keys(job["config"])
            sweep.write_text(json.dumps(content))
        ended = gan_train(*command, "trainer.steps=4")
        assert ended.returncode == 0, ended.stderr
        assert status(run)["step"] == 4


def test_a_run_of_an_earlier_version_goes_on_by_its_own_command(old_run, typed):
    words = json.loads((old_run / "manifest.json").read_text())["command"][2:]
    words = [word for word in words if not word.startswith("trainer.steps")]
    ended = typed(f"hydra.run.dir={old_run}", *words, "trainer.steps=25")
    assert ended.status == 0, ended.err
    assert rows(old_run)[-1]["step"] == 25


def test_the_keys_of_later_versions_are_added_at_every_depth(old_run):
    assert read_run(old_run, [], "run")["trainer"]["auxiliary_weight"] == 1.0


def test_a_run_of_an_earlier_version_is_sampled(old_run, typed, tmp_path):
    ended = typed(f"run={old_run}", "count=4", f"out={tmp_path / 'out'}", "device=cpu", command="sample")
    assert ended.status == 0, ended.err
    assert np.load(tmp_path / "out" / "samples.npy") == pytest.approx(np.array(EXPECTED["samples"]), abs=1e-6)


def test_a_run_of_an_earlier_version_is_evaluated(old_run, typed):
    before = json.loads((old_run / "evaluation.json").read_text())
    ended = typed(f"run={old_run}", "device=cpu", command="evaluate")
    assert ended.status == 0, ended.err
    after = json.loads((old_run / "evaluation.json").read_text())
    assert after["figures"].keys() == before["figures"].keys()
    for name, figure in before["figures"].items():
        assert after["figures"][name]["value"] == pytest.approx(figure["value"], abs=1e-4), name
