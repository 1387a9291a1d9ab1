"""What the doctor finds in rows written by hand and in small runs, and that watching changes nothing."""

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from gan_runner.commands.status import Status
from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.config.schema import FINDINGS, Config
from gan_runner.datasets import DataFacts
from gan_runner.health.doctor import Anatomy, Doctor, dead_share, watched_units
from gan_runner.health.rules import SIGNS, Case, diagnose, ending
from gan_runner.runs.building import build_dataset, build_parts
from tests.training import INTRICATE, newest_state, rows, status, train, write_images

DIGITS = Path(__file__).parent / "data" / "mnist"
LN2 = math.log(2)

# A healthy run: every row, and what each look adds.
LOGGED: dict[str, Any] = {
    "loss/discriminator": 1.0,
    "loss/discriminator_real": 0.5,
    "loss/discriminator_fake": 0.5,
    "loss/generator": 1.3,
    "score/real": 0.7,
    "score/fake": 0.3,
    "gradient_norm/generator": 0.5,
    "gradient_norm/discriminator": 0.5,
    "logits/std": 1.2,
    "logits/gap": 0.9,
}
SEEN: dict[str, Any] = {
    "health/lowest": 0.0,
    "health/highest": 0.0,
    "health/mean_error": 0.2,
    "health/diversity": 0.9,
    "health/coverage": 0.8,
    "health/dead_units_generator": 0.0,
    "health/dead_units_discriminator": 0.1,
}
AT_LN2 = {f"loss/{name}": LN2 for name in ("discriminator_real", "discriminator_fake", "generator")}
MNIST = ("dataset=mnist", f"dataset.root={DIGITS}", "architecture=mlp_tanh")
NOISE = ("architecture.latent.distribution=normal",)
SIGMOID = ("architecture.generator.output=[sigmoid]",)
HIDDEN = ("dataset=mnist", f"dataset.root={DIGITS}", "architecture=mlp_dropout")  # a ReLU under the sigmoid


@cache
def composed(*overrides: str) -> Config:
    return check(composition.plain(composition.compose(overrides, "train"))).config


@cache
def a_case(*overrides: str) -> Case:
    config = composed(*overrides)
    dataset = build_dataset(config)
    parts = build_parts(config, DataFacts.of(dataset), torch.device("cpu"))
    return Case(config, parts, dataset, {name.removeprefix("loss/"): LN2 for name in AT_LN2})


def a_run(changes: dict[str, Any], steps: int = 3000) -> list[dict[str, Any]]:
    """Rows each 100 steps and looks each 500; a change is a value or a function of the step."""
    made = []
    for step in range(100, steps + 1, 100):
        row = LOGGED | (SEEN if step % 500 == 0 else {})
        row |= {tag: value for tag, value in changes.items() if tag in LOGGED or step % 500 == 0}
        made.append({"step": step} | {tag: v(step) if callable(v) else v for tag, v in row.items()})
    return made


def turns(high: float, low: float) -> Callable[[int], float]:
    return lambda step: high if step // 100 % 2 else low


ILL: dict[str, tuple[str, dict[str, Any], tuple[str, ...], str]] = {
    "last batch norm": (
        "stuck_losses",
        {"logits/gap": 1e-8},
        ("dataset=pattern", "architecture=mlp_batchnorm"),
        "BatchNorm1d",
    ),
    "relu under the sigmoid": (
        "range",
        {"health/lowest": 0.5},
        HIDDEN,
        "ReLU and Dropout",
    ),
    "no white": ("range", {"health/highest": -0.5}, (*MNIST, "dataset.value_range=[0.0,2.0]", *SIGMOID), "50%"),
    "no black": ("range", {"health/lowest": 0.5}, (*MNIST, "dataset.value_range=[-1.0,1.0]", *SIGMOID), "50%"),
    "sure discriminator": (
        "discriminator_saturated",
        {"score/real": 0.9999, "score/fake": 1e-5, "gradient_norm/generator": lambda step: 10.0 ** (-step / 500)},
        (*MNIST, "loss=minimax"),
        "minimax",
    ),
    "one sample": ("collapse", {"health/diversity": 0.05}, NOISE, "0.05"),
    "ever fewer kinds": ("collapse", {"health/coverage": lambda step: 0.8 - step / 5000}, NOISE, "70%"),
    "few classes": ("collapse", {"metric/class_kl": 1.1, "health/coverage": 0.4}, MNIST, "1.1"),
    "uneven modes": ("collapse", {"metric/reverse_kl": 0.6}, NOISE, "modes"),
    "a stray sample in a missing mode": (
        "collapse",
        {"metric/modes": lambda step: 8.0 if step == 2500 else 7.0},
        ("dataset=ring", *NOISE),
        "7 of the data's 8 modes",
    ),
    "missing modes": ("collapse", {"metric/modes": 7.0}, ("dataset=ring", *NOISE), "7 of the data's 8 modes"),
    "imbalance": (
        "collapse",
        {"health/diversity": 0.05},
        (*NOISE, "optimizer.discriminator.lr=2e-6"),
        "2e-06 to 0.0002",
    ),
    "ln 2, elsewhere": ("fixed_point", AT_LN2 | {"health/mean_error": 4.0}, (), "4.0 standard deviations"),
    "ln 2, wrong pattern": ("fixed_point", AT_LN2 | {"metric/pattern_error": 0.96}, (), "96%"),
    "constant logits": ("discriminator_blind", {"logits/std": 1e-5, "health/mean_error": 4.0}, (), "1e-05"),
    "dead generator": (
        "dead_units",
        {"health/dead_units_generator": 0.8},
        MNIST,
        "80% of the units of a layer of the g",
    ),
    "dead discriminator": ("dead_units", {"health/dead_units_discriminator": 0.8}, MNIST, "discriminator"),
    "growing gradient": (
        "exploding_gradients",
        {"gradient_norm/discriminator": lambda step: 10.0 ** (step / 500)},
        (),
        "discriminator",
    ),
    "turns": ("oscillation", {"score/real": turns(0.9, 0.1), "score/fake": turns(0.1, 0.9)}, (), "changed"),
    "four turns": (
        "oscillation",
        {
            "score/real": lambda step: 0.9 if step // 300 % 2 else 0.1,
            "score/fake": lambda step: 0.1 if step // 300 % 2 else 0.9,
        },
        (),
        "changed 4 times",
    ),
    "something else": ("not_learned", {"health/mean_error": 4.0}, (), "4.0 standard deviations"),
    "near no mode": ("not_learned", {"metric/high_quality": 0.2}, NOISE, "80% of the samples lie near no mode"),
    "nowhere near the data": (
        "not_learned",
        {"health/coverage": lambda step: 0.03 if step < 1000 else 0.004},
        NOISE,
        "samples near 0% of the data",
    ),
    "far away, with nothing that keeps it there": (
        "not_learned",
        {"health/lowest": 0.5, "health/mean_error": 4.0},
        ("dataset=ring", *NOISE),
        "4.0 standard deviations",
    ),
    "copies that nobody measures": ("memorisation", {"health/memorised": 0.4}, MNIST, "40%"),
    "copies": ("memorisation", {"metric/memorised": 0.6}, (), "60%"),
}

WELL: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nothing": ({}, ()),
    "ln 2 with right samples": (AT_LN2, ()),
    "constant logits with right samples": ({"logits/std": 1e-5}, ()),
    "a discriminator ahead": ({"score/real": 0.95, "score/fake": 0.04}, ()),
    "a discriminator that was sure at first": (
        {
            "score/real": lambda step: 0.9999 if step < 1000 else 0.9,
            "score/fake": lambda step: 1e-4 if step < 1000 else 0.1,
        },
        (),
    ),
    "a critic without probabilities": ({"score/real": 1.0, "score/fake": 0.0}, ("loss=wasserstein",)),
    "diversity on its way up": ({"health/diversity": lambda step: step / 5000}, NOISE),
    "a range on its way down": ({"health/lowest": lambda step: 900 / step}, ()),
    "ln 2, samples on their way": (AT_LN2 | {"health/mean_error": lambda step: 6000 / step}, ()),
    "coverage that wavers": ({"health/coverage": turns(0.6, 0.8)}, NOISE),
    "a mode that is missed once": (
        {"metric/modes": lambda step: 7.0 if step == 2000 else 8.0},
        ("dataset=ring", *NOISE),
    ),
    "a mode that is found late": ({"metric/modes": lambda step: 7.0 if step < 1500 else 8.0}, ("dataset=ring", *NOISE)),
    "modes that are found one after the other": (
        {"metric/modes": lambda step: min(8.0, 1 + step // 500)},
        ("dataset=ring", *NOISE),
    ),
    "nearly all modes, not quite even": (
        {"metric/modes": 24.0, "metric/reverse_kl": 0.3},
        ("dataset=grid", *NOISE),
    ),
    "classes on their way": (
        {"metric/class_kl": lambda step: 2 - step / 2000, "health/coverage": lambda step: 0.2 + step / 10000},
        MNIST,
    ),
    "a classifier at a loss": ({"metric/class_kl": 2.3}, MNIST),
    "a constant input cannot vary": ({"health/diversity": 0.0, "health/coverage": 0.03}, ()),
    "larger gradients": ({"gradient_norm/generator": lambda step: 1 + step / 100}, ()),
    "batches that differ by chance": ({"logits/gap": lambda step: 0.01 * (step // 100 % 7)}, ()),
    "turns of the scores around one half": ({"score/real": turns(0.6, 0.45), "score/fake": turns(0.45, 0.6)}, ()),
    "a span that is not used yet": (
        {"health/lowest": 0.3, "health/highest": -0.3},
        (*MNIST, "architecture=mlp_layernorm"),
    ),
    "grains far beyond the data": ({"health/lowest": -1.0}, ()),
    "a discriminator that finds all fakes and few real ones": ({"score/real": 0.6, "score/fake": 1e-5}, ()),
    "a gradient that was nearly nothing at first": (
        {"gradient_norm/generator": lambda step: 0.01 if step <= 500 else 50.0},
        (),
    ),
    "three turns": (
        {
            "score/real": lambda step: 0.9 if step // 350 % 2 else 0.1,
            "score/fake": lambda step: 0.1 if step // 350 % 2 else 0.9,
        },
        (),
    ),
    "no generator": (
        {"score/real": 0.9999, "score/fake": 1e-5, "health/mean_error": 6.0, "health/lowest": 0.5},
        ("experiment=pattern_discriminator", "trainer.steps=3000"),
    ),
    "turns without a generator": (
        {"score/real": turns(0.9, 0.1), "score/fake": turns(0.1, 0.9)},
        ("experiment=pattern_discriminator", "trainer.steps=3000"),
    ),
}


@pytest.mark.parametrize("name", ILL)
def test_it_finds_what_is_wrong_and_why(name):
    expected, changes, overrides, told = ILL[name]
    (finding,) = diagnose(a_run(changes), a_case(*overrides)) or []
    assert (finding.name, finding.step, finding.resolved) == (expected, 3000, None)
    assert told in f"{finding.evidence} {finding.cause}"


@pytest.mark.parametrize("name", ILL)
def test_what_it_says_to_try_can_be_typed_and_is_new(name):
    _, changes, overrides, _ = ILL[name]
    (finding,) = diagnose(a_run(changes), a_case(*overrides)) or []
    assert finding.to_try
    for override in finding.to_try:
        assert composed(*overrides, override) != composed(*overrides), override


@pytest.mark.parametrize("name", WELL)
def test_it_does_not_cry_wolf(name):
    changes, overrides = WELL[name]
    run, case = a_run(changes), a_case(*overrides)
    for end, row in enumerate(run, 1):
        if "health/lowest" in row:
            assert diagnose(run[:end], case) == ([] if row["step"] >= 1500 else None), row["step"]


@pytest.mark.parametrize(
    ("overrides", "too_early", "enough"),
    [
        ((), 1000, 1500),  # two looks
        (("trainer.steps=8000",), 2000, 2500),  # less than 0.3 of the run
        (("trainer.generator_start=1600",), 2500, 3000),  # two looks since the generator trains
    ],
)
def test_it_does_not_judge_too_early(overrides, too_early, enough):
    case, ill = a_case(*HIDDEN, *overrides), {"health/lowest": 0.5}
    assert diagnose(a_run(ill, steps=too_early), case) is None
    assert [finding.name for finding in diagnose(a_run(ill, steps=enough), case) or []] == ["range"]


def test_samples_on_their_way_are_wrong_where_the_run_ends():
    run, case = a_run({"metric/high_quality": lambda step: 0.68 * step / 4000}, steps=4000), a_case(*NOISE)
    assert diagnose(run[:-5], case) == []
    assert [finding.name for finding in diagnose(run, case) or []] == ["not_learned"]


def test_one_evaluation_tells_only_at_the_end():
    poor = {"metric/high_quality": lambda step: 0.2 if step == 3000 else 1.0}
    run = [{k: v for k, v in row.items() if k[:6] != "metric" or row["step"] == 3000} for row in a_run(poor)]
    assert diagnose(run, a_case(*NOISE)) == []
    (finding,) = diagnose(run, a_case(*NOISE, "trainer.steps=3000")) or []
    assert (finding.name, finding.evidence) == ("not_learned", "80% of the samples lie near no mode of the data")


def test_three_looks_are_not_enough_where_they_are_less_than_a_third_of_the_run():
    run = a_run({"health/diversity": lambda step: 0.05 if step >= 5000 else 0.9}, steps=7000)
    case = a_case(*NOISE)
    ends = {row["step"]: diagnose(run[:end], case) for end, row in enumerate(run, 1) if "health/lowest" in row}
    assert ends[6000] == ends[6500] == []  # 3 and 4 looks
    assert [finding.name for finding in ends[7000] or []] == ["collapse"]  # from 4667 on


def test_one_bad_look_at_the_end_is_no_finding():
    run = a_run({"health/mean_error": lambda step: 1.2 if step == 3000 else 0.2})
    assert diagnose(run, a_case("trainer.steps=3000")) == []


@pytest.mark.parametrize(
    ("changes", "overrides", "to_try"),
    [
        ({"health/diversity": 0.05}, NOISE, ["regularizer=r1", "loss=relativistic"]),
        ({"health/diversity": 0.05}, (*NOISE, "loss=relativistic"), ["regularizer=r1"]),
        ({"health/diversity": 0.05}, (*NOISE, "trainer.discriminator_update=separate"), ["regularizer=r1"]),
        (
            {"health/diversity": 0.05},
            (*NOISE, "optimizer.discriminator.lr=0.00011"),
            ["regularizer=r1", "loss=relativistic"],
        ),
        (
            {"health/diversity": 0.05},
            (*NOISE, "optimizer.discriminator.lr=0.00009"),
            ["optimizer.discriminator.lr=0.0002"],
        ),
        (
            {"health/diversity": 0.05},
            (*MNIST, *NOISE),
            ["regularizer=r1", "loss=relativistic", "architecture.conditional=true"],
        ),
        (
            {"logits/gap": 0.0},
            (*MNIST, "architecture.discriminator.normalization=layer"),
            ["architecture.discriminator.normalization=none"],
        ),
        (
            {"logits/gap": 0.0},
            (*MNIST, "architecture.discriminator.normalization=none"),
            ["optimizer.discriminator.lr=2e-05"],
        ),
    ],
)
def test_what_it_says_to_try_exactly(changes, overrides, to_try):
    (finding,) = diagnose(a_run(changes), a_case(*overrides)) or []
    assert finding.to_try == to_try


def test_whether_the_generator_s_gradient_has_vanished_is_told():
    sure = {"score/real": 0.9999, "score/fake": 1e-5}
    (with_gradient,) = diagnose(a_run(sure), a_case(*MNIST)) or []
    (without,) = diagnose(a_run(sure | {"gradient_norm/generator": lambda s: 10.0 ** (-s / 500)}), a_case(*MNIST)) or []
    assert "gradient" not in with_gradient.evidence
    assert "the norm of the generator's gradient fell from 0.082 to 1e-05" in without.evidence


def test_a_gradient_is_held_against_the_least_of_the_first():
    explodes = {"gradient_norm/generator": lambda step: {100: 2.0}.get(step, 5.0) if step <= 500 else 250.0}
    (finding,) = diagnose(a_run(explodes), a_case()) or []
    assert finding.evidence == "the norm of the generator's gradient grew from 2 at first to 2.5e+02 (median)"


def test_consequences_are_not_found_beside_their_cause():
    copies = {"health/diversity": 0.02, "health/memorised": 0.9}
    assert [finding.name for finding in diagnose(a_run(copies), a_case(*MNIST, *NOISE)) or []] == ["collapse"]
    blind = {"health/lowest": 0.5, "logits/std": 1e-5, "health/mean_error": 4.0}
    assert [finding.name for finding in diagnose(a_run(blind), a_case(*HIDDEN)) or []] == ["range"]
    grey = {"health/lowest": 0.5, "health/diversity": 0.02, "health/mean_error": 4.0}
    assert [finding.name for finding in diagnose(a_run(AT_LN2 | grey), a_case(*HIDDEN)) or []] == ["range"]
    assert [finding.name for finding in diagnose(a_run(grey), a_case(*MNIST)) or []] == ["collapse"]


def test_every_finding_has_its_name_in_the_order_of_the_verdict():
    assert ("divergence", *SIGNS) == FINDINGS
    assert {finding for finding, *_ in ILL.values()} == set(SIGNS)


def test_a_repaired_twin_comes_first():
    case = a_case("experiment=mnist_lsgan", f"dataset.root={DIGITS}", "trainer.batch_size=8")
    (finding,) = diagnose(a_run({"logits/gap": 0.0}), case) or []
    assert finding.to_try == ["experiment=mnist_lsgan_fixed", "architecture.discriminator.output=[]"]


def test_a_repaired_twin_is_not_sent_to_itself():
    case = a_case("experiment=mnist_lsgan_fixed", f"dataset.root={DIGITS}", "trainer.batch_size=8")
    assert case.advice("loss=hinge") == ["loss=hinge"]


def test_a_penalty_that_is_there_is_to_be_stronger():
    for overrides, penalty in [
        ((), "regularizer=r1"),
        (("regularizer=r2", "regularizer.r2.weight=0.5"), "regularizer.r2.weight=5"),
    ]:
        (finding,) = diagnose(a_run({"health/memorised": 0.4}), a_case(*MNIST, *overrides)) or []
        assert finding.to_try == [penalty, "trainer.steps=750"]


def test_what_healed_is_kept_as_resolved_and_is_not_the_verdict():
    doctor = Doctor(case := a_case(*NOISE), build_dataset(case.config), [])
    run = a_run({"health/diversity": lambda step: 0.05 if step < 2000 or step > 3500 else 0.9}, steps=6000)
    said = []
    for end, row in enumerate(run, 1):
        if "health/lowest" in row:
            said += doctor.look(run[:end])
            by_step = doctor.report()
            (entry,) = by_step["findings"] or [{"resolved": "none yet"}]
            expected = {1000: "none yet", 1500: None, 2000: 2000, 3000: 2000, 6000: None}
            assert entry["resolved"] == expected.get(row["step"], entry["resolved"]), row["step"]
            healthy = "too early to tell" if row["step"] < 1500 else "healthy"
            assert by_step["verdict"] == ("collapse" if entry["resolved"] is None else healthy)
    assert [(finding.name, finding.step) for finding in said] == [("collapse", 1500)]
    again = Doctor(case, build_dataset(case.config), run)
    assert again.report() == doctor.report()


def test_what_another_finding_explains_later_has_not_healed():
    late = {tag: lambda step: LN2 if step > 1500 else 1.0 for tag in AT_LN2}
    doctor, run = Doctor(case := a_case(), build_dataset(case.config), []), a_run(late | {"health/mean_error": 4.0})
    for end, row in enumerate(run, 1):
        if "health/lowest" in row:
            doctor.look(run[:end])
    found = [(finding.name, finding.step, finding.resolved) for finding in doctor.findings.values()]
    assert found == [("not_learned", 1500, None), ("fixed_point", 2500, None)]
    assert doctor.report()["verdict"] == "fixed_point"


def test_a_clip_is_not_loosened():
    for overrides, expected in [
        ((), True),
        (("trainer.gradient_clip=2",), True),
        (("trainer.gradient_clip=0.1",), False),
    ]:
        doctor = Doctor(case := a_case(*overrides), build_dataset(case.config), [])
        assert ("trainer.gradient_clip=1" in doctor.diverged(3, "loss/generator is nan").to_try) == expected


# Its figures


def test_figures_of_points_against_numpy():
    noise = np.random.default_rng(0)
    real = noise.normal(size=(40, 3)) * [3.0, 2.0, 1.0] + [1.0, 0.0, -1.0]
    made = noise.normal(size=(40, 3)) * [1.5, 2.0, 0.5] + [1.0, 2.0, -1.0]
    found = Anatomy(torch.tensor(real), None).compare(torch.tensor(made))
    axes = np.linalg.eigh(np.cov(real.T))[1]  # columns
    spreads = [(points @ axes).std(0) for points in (real, made)]
    distances = np.linalg.norm(real[:, None] - real[None], axis=2)
    radii = np.sort(distances, axis=1)[:, 5]  # the first is the point itself
    nearest = np.linalg.norm(real[:, None] - made[None], axis=2).min(1)
    span = real.max() - real.min()
    assert found == pytest.approx(
        {
            "lowest": (made.min() - real.min()) / span,
            "highest": (made.max() - real.max()) / span,
            "mean_error": np.sqrt(((made.mean(0) - real.mean(0)) ** 2).mean() / real.var(0, ddof=1).mean()),
            "diversity": np.prod(spreads[1] / spreads[0]) ** (1 / 3),
            "coverage": (nearest <= radii).mean(),
        }
    )


def test_diversity_of_labelled_data_is_within_a_class():
    labels = torch.arange(200) % 2
    real = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) + 10 * labels.unsqueeze(1)
    centres = torch.stack([real[labels == 0].mean(0), real[labels == 1].mean(0)])[labels]
    one_for_each_class = centres + 0.01 * (real - centres)
    assert Anatomy(real, labels).compare(one_for_each_class)["diversity"] == pytest.approx(0.01, rel=1e-3)
    assert Anatomy(real, None).compare(one_for_each_class)["diversity"] > 0.05


def test_figures_that_data_without_spread_leave_undefined_are_left_out():
    assert set(Anatomy(torch.ones(20, 2), None).compare(torch.ones(20, 2))) == {"coverage"}


def test_data_that_repeat_themselves_are_covered_by_what_is_near_them():
    few = torch.arange(12.0).unsqueeze(1) * torch.tensor([1.0, 0.0])
    real = few.repeat(5, 1)  # five epochs of a small dataset
    assert Anatomy(real, None).compare(real + 0.1)["coverage"] == 1
    assert Anatomy(real, None).compare(real + 100)["coverage"] == 0


@pytest.mark.parametrize(("noise", "expected"), [(0.0, 1.0), (1e-3, 1.0), (1.0, 0.0)])
def test_copies_of_training_images_are_noticed(noise, expected):
    case = a_case(*MNIST)
    dataset = build_dataset(case.config)
    parts = build_parts(case.config, DataFacts.of(dataset), torch.device("cpu"))
    images = iter(range(10))

    def generate(z: Tensor, labels: Tensor | None) -> Tensor:
        made, _ = dataset.batch(next(images), len(z), seed=1)
        return made + noise * torch.randn(made.shape, generator=torch.Generator().manual_seed(0))

    seen = Doctor(case, dataset, []).examine(generate, parts.generator, parts.discriminator)
    assert seen["health/memorised"] == expected


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

    monkeypatch.setattr(f"gan_runner.health.doctor.Anatomy.{place}", fail)
    assert train(tmp_path / "run", *CANNOT_REACH, "trainer.steps=40") == Status.COMPLETED
    assert capsys.readouterr().err.count("the doctor fails, and is sent away: ZeroDivisionError: no such luck") == 1
    monkeypatch.undo()
    assert train(tmp_path / "alone", *CANNOT_REACH, "trainer.steps=40", "doctor=none") == Status.COMPLETED
    watched, alone = newest_state(tmp_path / "run"), newest_state(tmp_path / "alone")
    assert all(torch.equal(watched[name], value) for name, value in alone.items() if isinstance(value, torch.Tensor))


def test_dead_units_are_counted_by_hand():
    first, second, last = nn.Linear(2, 4), nn.Linear(4, 2), nn.Linear(2, 1)
    network = nn.Sequential(first, nn.ReLU(), second, nn.Tanh(), last, nn.Sigmoid())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first.bias.copy_(torch.tensor([-1.0, -1.0, -1.0, 1.0]))  # three of four are 0
        second.bias.copy_(torch.tensor([20.0, 0.5]))  # one of two is 1
        last.bias.fill_(50.0)  # the output may be constant
    with watched_units(network) as slopes:
        assert dead_share(slopes) == 0.0
        network(torch.randn(8, 2))
    dead = [dead_share({layer: steepest}) for layer, steepest in slopes.items()]
    assert dead == [0.75, 0.5]
    assert dead_share(slopes) == 0.75  # that of the worst layer
    with torch.no_grad():
        first.bias.fill_(1.0)
    network(torch.randn(8, 2))
    assert dead_share(slopes) == 0.75  # it watches no longer


def test_a_unit_that_wakes_for_some_samples_is_not_dead():
    """Samples go through in parts, and each part puts another half of the units to sleep."""
    first = nn.Linear(2, 2, bias=False)
    network = nn.Sequential(first, nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        first.weight.copy_(torch.eye(2))
    with watched_units(network) as slopes:
        network(torch.tensor([[1.0, -1.0]]))
        assert dead_share(slopes) == 0.5
        network(torch.tensor([[-1.0, 1.0]]))
    assert dead_share(slopes) == 0.0


def test_a_channel_is_dead_where_it_is_dead_everywhere():
    first = nn.Conv2d(1, 2, 1)
    network = nn.Sequential(first, nn.ReLU(), nn.Conv2d(2, 1, 1))
    first.load_state_dict({"weight": torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), "bias": torch.tensor([-1.0, 0.0])})
    images = torch.zeros(3, 1, 4, 4)
    images[1, 0, 2, 2] = 1.0  # one position of one image is enough for the second
    with watched_units(network) as slopes:
        network(images)
    assert dead_share(slopes) == 0.5


def test_the_layers_after_the_last_weights_are_told():
    parametrized = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))
    assert ending(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Sigmoid())) == [
        "ReLU",
        "Sigmoid",
    ]
    assert ending(nn.Sequential(nn.ReLU(), parametrized, nn.Tanh()))[-1] == "Tanh"


# In a run

CANNOT_REACH = (
    *("experiment=vanilla_mlp", f"dataset.root={DIGITS}", "trainer.log_every=5", "trainer.sample_every=10"),
    *("trainer.checkpoint_every=30", "trainer.batch_size=8", "metric=[]", "device=cpu"),
)


def health(run: Path) -> dict[str, Any]:
    return json.loads((run / "health.json").read_text())


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
    assert train(tmp_path / "halves", *CANNOT_REACH, "trainer.steps=55") == Status.COMPLETED  # a look out of turn
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


def test_the_looks_of_a_run_stand_in_rows_of_their_schedule(tmp_path):
    assert train(tmp_path / "run", "trainer.steps=40", "trainer.sample_every=20", "device=cpu") == Status.COMPLETED
    looks = [row["step"] for row in rows(tmp_path / "run") if "health/dead_units_discriminator" in row]
    assert looks == [20, 40]
