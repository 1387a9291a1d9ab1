"""What becomes of findings over a run, and that watching changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner.health.doctor import Doctor
from gan_runner.status import Status
from tests.health.by_hand import AT_LN2, DIGITS, LN2, NOISE, a_context, a_run
from tests.training import INTRICATE, newest_state, rows, status, train, write_images


def test_what_healed_is_kept_as_resolved_and_is_not_the_verdict():
    doctor = Doctor(context := a_context(*NOISE), [])
    run = a_run({"health/diversity": lambda step: 0.05 if step < 2000 or step > 3500 else 0.9}, steps=6000)
    said = []
    for row in run:
        said += doctor.add(row)
        if "health/lowest" in row:
            by_step = doctor.report()
            (entry,) = by_step["findings"] or [{"resolved": "none yet"}]
            expected = {1000: "none yet", 1500: None, 2000: 2000, 3000: 2000, 6000: None}
            assert entry["resolved"] == expected.get(row["step"], entry["resolved"]), row["step"]
            healthy = "too early to tell" if row["step"] < 1500 else "healthy"
            assert by_step["verdict"] == ("collapse" if entry["resolved"] is None else healthy)
    assert [(finding.name, finding.step) for finding in said] == [("collapse", 1500)]
    again = Doctor(context, run)
    assert again.report() == doctor.report()


def test_what_another_finding_explains_later_has_not_healed():
    late = {tag: lambda step: LN2 if step > 1500 else 1.0 for tag in AT_LN2}
    doctor = Doctor(a_context(), [])
    run = a_run(late | {"health/mean_error": 4.0})
    for row in run:
        doctor.add(row)
    found = [(finding.name, finding.step, finding.resolved) for finding in doctor.findings.values()]
    assert found == [("not_learned", 1500, None), ("fixed_point", 2500, None)]
    assert doctor.report()["verdict"] == "fixed_point"


def test_a_clip_is_not_loosened():
    for overrides, expected in [
        ((), True),
        (("trainer.gradient_clip=2",), True),
        (("trainer.gradient_clip=0.1",), False),
    ]:
        doctor = Doctor(a_context(*overrides), [])
        assert ("trainer.gradient_clip=1" in doctor.diverged(3, "loss/generator is nan").to_try) == expected


# In a run

CANNOT_REACH = (
    *("experiment=vanilla_mlp", f"dataset.root={DIGITS}", "trainer.log_every=5", "trainer.sample_every=10"),
    *("trainer.checkpoint_every=30", "trainer.batch_size=8", "metric=[]", "device=cpu"),
)


def health(run: Path) -> dict[str, Any]:
    return json.loads((run / "health.json").read_text())


@pytest.mark.parametrize(("times", "metric"), [(2, "neighbours"), (6, "")])
def test_training_images_that_are_there_again_are_no_trouble(tmp_path, capsys, times, metric):
    root = write_images(tmp_path / "images")
    for file in list(root.rglob("*.png")):
        for i in range(1, times):
            (file.parent / f"{i}_{file.name}").write_bytes(file.read_bytes())
    words = ("dataset=images", f"dataset.root={root}", "dataset.size=8", "dataset.channels=1", "architecture=mlp_tanh")
    every = ("trainer.batch_size=4", "trainer.steps=20", "trainer.sample_every=5", "device=cpu")
    metrics = (f"metric=[{metric}]", *([f"metric.{metric}.samples=20"] if metric else []))
    assert train(tmp_path / "run", *words, *every, *metrics) == Status.COMPLETED
    assert "warning" not in capsys.readouterr().err
    assert rows(tmp_path / "run")[-1]["health/memorised"] == 0
    assert health(tmp_path / "run")["step"] == 20


@pytest.mark.parametrize("place", ["__init__", "compare"])
def test_what_fails_in_the_doctor_ends_no_training(tmp_path, capsys, monkeypatch, place):
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(f"gan_runner.health.figures.DataStatistics.{place}", fail)
    assert train(tmp_path / "run", *CANNOT_REACH, "trainer.steps=40") == Status.COMPLETED
    assert (
        capsys.readouterr().err.count(
            "the doctor failed and is off for the rest of this run: ZeroDivisionError: no such luck"
        )
        == 1
    )
    monkeypatch.undo()
    assert train(tmp_path / "alone", *CANNOT_REACH, "trainer.steps=40", "doctor=none") == Status.COMPLETED
    watched, alone = newest_state(tmp_path / "run"), newest_state(tmp_path / "alone")
    assert all(torch.equal(watched[name], value) for name, value in alone.items() if isinstance(value, torch.Tensor))


def test_a_generator_that_cannot_reach_black_is_found_once(tmp_path, capfd):
    run = tmp_path / "run"
    assert train(run, *CANNOT_REACH, "trainer.steps=60") == Status.COMPLETED
    found = health(run)
    assert (found["step"], found["verdict"]) == (60, "range")
    entry = found["findings"][0]
    assert entry.keys() == {"name", "step", "evidence", "cause", "try", "resolved"}
    assert (entry["name"], entry["step"], entry["resolved"]) == ("range", 30, None)
    assert "ReLU" in entry["cause"]
    assert entry["try"] == ["experiment=vanilla_mlp_fixed", "architecture.generator.output=[auto]"]
    assert capfd.readouterr().err.count("doctor: range (step 30)") == 1
    events = EventAccumulator(str(run))
    events.Reload()
    (text,) = events.Tensors("health/range/text_summary")
    assert text.step == 30
    assert entry["evidence"] in text.tensor_proto.string_val[0].decode()


def test_a_discriminator_that_wins_is_found(tmp_path):
    words = ("experiment=minimax_mlp", f"dataset.root={DIGITS}", "trainer.steps=200", "trainer.sample_every=20")
    assert train(tmp_path / "run", *words, "metric=[]", "device=cpu") == Status.COMPLETED
    assert health(tmp_path / "run")["verdict"] == "discriminator_saturated"


def test_a_run_ends_in_the_same_weights_watched_or_not(tmp_path):
    data = f"dataset.root={write_images(tmp_path / 'data')}"
    for choice in ("default", "none"):
        run = tmp_path / choice
        assert train(run, *INTRICATE, data, "trainer.steps=40", f"doctor={choice}") == Status.COMPLETED
    watched, alone = newest_state(tmp_path / "default"), newest_state(tmp_path / "none")
    assert watched.keys() == alone.keys()
    for name, value in alone.items():
        assert torch.equal(value, watched[name]) if isinstance(value, torch.Tensor) else value == watched[name], name
    told = [{k: v for k, v in row.items() if not k.startswith("health/")} for row in rows(tmp_path / "default")]
    assert told == rows(tmp_path / "none")
    assert not (tmp_path / "none" / "health.json").exists()


def test_a_run_that_went_on_has_found_the_same_and_does_not_repeat_itself(tmp_path, capfd):
    assert train(tmp_path / "whole", *CANNOT_REACH, "trainer.steps=80") == Status.COMPLETED
    assert (
        train(tmp_path / "halves", *CANNOT_REACH, "trainer.steps=55") == Status.COMPLETED
    )  # an examination out of turn
    capfd.readouterr()
    assert train(tmp_path / "halves", *CANNOT_REACH, "trainer.steps=80") == Status.COMPLETED
    assert "doctor: range" not in capfd.readouterr().err
    assert health(tmp_path / "halves") == health(tmp_path / "whole")
    assert rows(tmp_path / "halves") == rows(tmp_path / "whole")


def test_a_run_stops_on_a_finding_and_has_saved(tmp_path, capfd):
    run = tmp_path / "run"
    assert train(run, *CANNOT_REACH, "trainer.steps=60", "trainer.stop_on=[collapse,range]") == Status.DIVERGED
    assert status(run)["state"] == "diverged"
    assert status(run)["step"] == 30
    assert "range" in status(run)["message"]
    assert len(list((run / "checkpoints").iterdir())) == 1
    assert health(run)["verdict"] == "range"
    before = newest_state(run)
    assert train(run, *CANNOT_REACH, "trainer.steps=60", "trainer.stop_on=[collapse,range]") == Status.DIVERGED
    assert status(run)["step"] == 30
    assert newest_state(run).keys() == before.keys()


def test_numbers_that_are_not_finite_are_a_finding(tmp_path):
    words = (
        "optimizer=sgd",
        "optimizer.discriminator.lr=1e30",
        "trainer.steps=20",
        "trainer.log_every=1",
        "device=cpu",
    )
    assert train(tmp_path / "run", *words) == Status.DIVERGED
    found = health(tmp_path / "run")
    assert found["verdict"] == "divergence"
    assert "optimizer.discriminator.lr=1e+29" in found["findings"][0]["try"]


def test_a_misspelt_finding_is_refused(refused):
    assert "did you mean 'collapse'" in refused("trainer.stop_on=[colapse]")
    assert "doctor=default" in refused("trainer.stop_on=[collapse]", "doctor=none")


def test_the_examinations_of_a_run_stand_in_rows_of_their_schedule(tmp_path):
    assert train(tmp_path / "run", "trainer.steps=40", "trainer.sample_every=20", "device=cpu") == Status.COMPLETED
    examined = [row["step"] for row in rows(tmp_path / "run") if "health/dead_units_discriminator" in row]
    assert examined == [20, 40]
