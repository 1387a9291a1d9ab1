"""`gan-evaluate`: runs are measured afterwards, and what is found stands in a table and in the run."""

import json
from pathlib import Path

import pytest

from gan_runner.errors import UserError
from gan_runner.runs.directory import RunDirectory
from gan_runner.status import Status
from tests.evaluation.conftest import STEPS, evaluate, evaluation
from tests.training import train


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("measured") / "run"
    assert train(run, *STEPS) == Status.COMPLETED
    return run


def test_what_is_measured_afterwards_is_what_was_measured_at_the_end(measured, capsys):
    before = evaluation(measured)
    assert evaluate(f"run={measured}") == Status.COMPLETED
    after = evaluation(measured)
    assert after["figures"] == before["figures"]
    out = capsys.readouterr().out
    assert "pattern_error" in out
    assert out.splitlines()[-1] == str(measured)


def test_another_seed_and_another_number_of_samples(measured):
    assert evaluate(f"run={measured}", "metric=pattern", "metric.pattern.samples=50", "seed=3") == Status.COMPLETED
    assert evaluation(measured)["figures"]["pattern_distance"]["samples"] == 50
    assert evaluation(measured)["seed"] == 3


def test_several_runs_make_a_table(tmp_path, capsys):
    for seed in range(2):
        train(tmp_path / f"seed_{seed}", *STEPS, f"seed={seed}")
    train(tmp_path / "broken", *STEPS)
    (tmp_path / "broken" / "generator.safetensors").unlink()
    assert evaluate(f"runs={tmp_path}") == Status.FAILED
    lines = capsys.readouterr().out.splitlines()
    for seed in range(2):
        value = evaluation(tmp_path / f"seed_{seed}")["figures"]["pattern_distance"]["value"]
        assert any(f"seed_{seed}" in line and f"{value:.4g}" in line for line in lines)
    assert any("broken" in line and "not measured" in line for line in lines)
    assert any("a perfect sampler" in line for line in lines)


def test_the_table_shows_paths_as_they_are_and_what_was_not_asked_for_as_nothing(tmp_path, capsys):
    train(tmp_path / "one", *STEPS)
    (tmp_path / "one").rename(tmp_path / "one[old]")
    train(tmp_path / "other", *STEPS, "dataset=ring", "architecture=mlp_points", "metric.modes.samples=50")
    assert evaluate(f"runs={tmp_path}") == Status.COMPLETED
    one, other, perfect = (
        [cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line
    )
    figures = evaluation(tmp_path / "other")["figures"]
    assert one[0].endswith("one[old]")
    assert one[3:] == [""] * len(figures)
    assert other[1:4] == ["", "", f"{figures['modes']['value']:.4g}"]
    assert perfect[:4] == ["a perfect sampler", "0", "0", f"{figures['modes']['perfect']:.4g}"]


def test_a_damaged_evaluation_is_refused_before_the_work(tmp_path, capsys):
    train(tmp_path / "run", *STEPS)
    (tmp_path / "run" / "evaluation.json").write_text('{"objective": ')
    capsys.readouterr()
    with pytest.raises(UserError, match=r"evaluation\.json: cannot be read"):
        evaluate(f"run={tmp_path / 'run'}")
    assert capsys.readouterr().err == ""


def test_the_step_is_that_of_the_weights(tmp_path):
    """A run that failed or diverged has come further than its last save."""
    train(tmp_path / "run", *STEPS)
    (tmp_path / "run" / "status.json").write_text('{"state": "diverged", "step": 57}')
    evaluate(f"run={tmp_path / 'run'}")
    assert evaluation(tmp_path / "run")["step"] == 40


def test_a_run_at_work_is_left_to_measure_itself(tmp_path):
    run = tmp_path / "run"
    train(run, *STEPS)
    before = evaluation(run)
    directory = RunDirectory(run)
    with pytest.raises(UserError, match="is in use by another run"):
        evaluate(f"run={run}", "metric=[pattern]", "metric.pattern.samples=5")
    directory.close()
    assert evaluation(run) == before
    assert evaluate(f"run={run}") == Status.COMPLETED


def test_figures_that_cannot_be_kept_are_shown(tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    train(tmp_path / "run", *STEPS)
    monkeypatch.setattr(RunDirectory, "write_json", full)
    capsys.readouterr()
    assert evaluate(f"run={tmp_path / 'run'}") == Status.FAILED
    told = capsys.readouterr()
    assert "pattern_distance" in told.out
    assert "the evaluation is not kept: No space left on device" in told.err


def test_a_place_where_nothing_can_be_written_is_told_before_the_work(tmp_path, capsys):
    run = tmp_path / "run"
    train(run, *STEPS)
    (run / ".lock").unlink()
    (run / ".lock").mkdir()
    capsys.readouterr()
    with pytest.raises(UserError, match="nothing can be written there"):
        evaluate(f"run={run}")


def test_a_path_may_begin_at_home_or_be_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "7", *STEPS)
    for words in (["run='~/7'"], ["runs='~/7'"], ["run=7"], ["runs=[7]"]):
        assert evaluate(*words) == Status.COMPLETED


def test_other_data_than_the_run_was_trained_on_are_refused(tmp_path):
    run = tmp_path / "run"
    train(run, *STEPS)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["fingerprint"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="other data"):
        evaluate(f"run={run}")


@pytest.mark.parametrize(
    "words",
    [[], ["run=a", "runs=b"], ["runs=nowhere"], ["run=nowhere"], ["runs=[]"], ["run="], ["runs="], ["runs=['']"]],
)
def test_what_is_to_be_measured_must_be_said(words):
    with pytest.raises(UserError):
        evaluate(*words)


def test_the_traceback_of_a_metric_that_fails_is_in_the_run_s_log(tmp_path, capsys):
    train(tmp_path / "run", *STEPS)
    said_before = (tmp_path / "run" / "log.txt").read_text()
    broken = "metric={broken:{_target_:tests.judges.Broken,samples:16}}"
    assert evaluate(f"run={tmp_path / 'run'}", f"+{broken}") == Status.FAILED
    said = (tmp_path / "run" / "log.txt").read_text().removeprefix(said_before)
    assert "warning: metric broken failed: ZeroDivisionError: no such luck" in said
    assert "judges.py" in said
    assert "Traceback" not in capsys.readouterr().err
