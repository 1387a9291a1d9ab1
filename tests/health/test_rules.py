"""What the rules find in rows written by hand, and that they do not cry wolf."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from gan_runner.health.rules import FINDINGS, RULES, last_layers
from gan_runner.networks.spectral import spectral_norm
from tests.health.by_hand import AT_LN2, DIGITS, HIDDEN, MNIST, NOISE, SIGMOID, a_context, a_run, composed, diagnosed


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
    (finding,) = diagnosed(a_run(changes), a_context(*overrides)) or []
    assert (finding.name, finding.step, finding.resolved) == (expected, 3000, None)
    assert told in f"{finding.evidence} {finding.cause}"


@pytest.mark.parametrize("name", ILL)
def test_what_it_says_to_try_can_be_typed_and_is_new(name):
    _, changes, overrides, _ = ILL[name]
    (finding,) = diagnosed(a_run(changes), a_context(*overrides)) or []
    assert finding.to_try
    for override in finding.to_try:
        assert composed(*overrides, override) != composed(*overrides), override


@pytest.mark.parametrize("name", WELL)
def test_it_does_not_cry_wolf(name):
    changes, overrides = WELL[name]
    run, context = a_run(changes), a_context(*overrides)
    for end, row in enumerate(run, 1):
        if "health/lowest" in row:
            assert diagnosed(run[:end], context) == ([] if row["step"] >= 1500 else None), row["step"]


@pytest.mark.parametrize(
    ("overrides", "too_early", "enough"),
    [
        ((), 1000, 1500),  # two examinations
        (("trainer.steps=8000",), 2000, 2500),  # less than 0.3 of the run
        (("trainer.generator_start=1600",), 2500, 3000),  # two examinations since the generator trains
    ],
)
def test_it_does_not_judge_too_early(overrides, too_early, enough):
    context, ill = a_context(*HIDDEN, *overrides), {"health/lowest": 0.5}
    assert diagnosed(a_run(ill, steps=too_early), context) is None
    assert [finding.name for finding in diagnosed(a_run(ill, steps=enough), context) or []] == ["range"]


def test_samples_on_their_way_are_wrong_where_the_run_ends():
    run, context = a_run({"metric/high_quality": lambda step: 0.68 * step / 4000}, steps=4000), a_context(*NOISE)
    assert diagnosed(run[:-5], context) == []
    assert [finding.name for finding in diagnosed(run, context) or []] == ["not_learned"]


def test_one_evaluation_tells_only_at_the_end():
    poor = {"metric/high_quality": lambda step: 0.2 if step == 3000 else 1.0}
    run = [{k: v for k, v in row.items() if k[:6] != "metric" or row["step"] == 3000} for row in a_run(poor)]
    assert diagnosed(run, a_context(*NOISE)) == []
    (finding,) = diagnosed(run, a_context(*NOISE, "trainer.steps=3000")) or []
    assert (finding.name, finding.evidence) == ("not_learned", "80% of the samples lie near no mode of the data")


def test_three_examinations_are_not_enough_where_they_are_less_than_a_third_of_the_run():
    run = a_run({"health/diversity": lambda step: 0.05 if step >= 5000 else 0.9}, steps=7000)
    context = a_context(*NOISE)
    ends = {row["step"]: diagnosed(run[:end], context) for end, row in enumerate(run, 1) if "health/lowest" in row}
    assert ends[6000] == ends[6500] == []  # 3 and 4 examinations
    assert [finding.name for finding in ends[7000] or []] == ["collapse"]  # from 4667 on


@pytest.mark.parametrize("changes", [{"logits/std": 1e-5}, AT_LN2])
def test_small_logits_of_clipped_weights_are_no_finding(changes):
    run = a_run(changes | {"health/mean_error": 4.0})
    (found,) = diagnosed(run, a_context()) or []
    assert found.name in ("discriminator_blind", "fixed_point")
    (found,) = diagnosed(run, a_context("trainer.weight_clip=0.01")) or []
    assert found.name == "not_learned"


def test_one_bad_examination_at_the_end_is_no_finding():
    run = a_run({"health/mean_error": lambda step: 1.2 if step == 3000 else 0.2})
    assert diagnosed(run, a_context("trainer.steps=3000")) == []


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
        ({"health/diversity": 0.05}, (*NOISE, "regularizer=lecam"), ["regularizer=[lecam,r1]", "loss=relativistic"]),
        (
            {"health/diversity": 0.05},
            (*MNIST, *NOISE, "augmentation=ada"),
            ["regularizer=r1", "architecture.conditional=true"],
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
    (finding,) = diagnosed(a_run(changes), a_context(*overrides)) or []
    assert finding.to_try == to_try


def test_whether_the_generator_s_gradient_has_vanished_is_told():
    sure = {"score/real": 0.9999, "score/fake": 1e-5}
    (with_gradient,) = diagnosed(a_run(sure), a_context(*MNIST)) or []
    vanishing = {"gradient_norm/generator": lambda step: 10.0 ** (-step / 500)}
    (without,) = diagnosed(a_run(sure | vanishing), a_context(*MNIST)) or []
    assert "gradient" not in with_gradient.evidence
    assert "the norm of the generator's gradient fell from 0.082 to 1e-05" in without.evidence


def test_a_discriminator_whose_labels_are_smoothed_is_sure_at_less():
    run = a_run({"score/real": 0.8999, "score/fake": 1e-5})
    assert diagnosed(run, a_context(*MNIST)) == []
    (finding,) = diagnosed(run, a_context(*MNIST, "loss.label_smoothing=0.1")) or []
    assert finding.name == "discriminator_saturated"


def test_what_packs_cannot_be_is_not_advised():
    (finding,) = diagnosed(a_run({"health/diversity": 0.05}), a_context(*MNIST, *NOISE, "trainer.packing=2")) or []
    assert finding.to_try == ["regularizer=r1", "loss=relativistic"]


def test_a_gradient_is_held_against_the_least_of_the_first():
    explodes = {"gradient_norm/generator": lambda step: {100: 2.0}.get(step, 5.0) if step <= 500 else 250.0}
    (finding,) = diagnosed(a_run(explodes), a_context()) or []
    assert finding.evidence == "the norm of the generator's gradient grew from 2 at first to 2.5e+02 (median)"


def test_consequences_are_not_found_beside_their_cause():
    copies = {"health/diversity": 0.02, "health/memorised": 0.9}
    assert [finding.name for finding in diagnosed(a_run(copies), a_context(*MNIST, *NOISE)) or []] == ["collapse"]
    blind = {"health/lowest": 0.5, "logits/std": 1e-5, "health/mean_error": 4.0}
    assert [finding.name for finding in diagnosed(a_run(blind), a_context(*HIDDEN)) or []] == ["range"]
    grey = {"health/lowest": 0.5, "health/diversity": 0.02, "health/mean_error": 4.0}
    assert [finding.name for finding in diagnosed(a_run(AT_LN2 | grey), a_context(*HIDDEN)) or []] == ["range"]
    assert [finding.name for finding in diagnosed(a_run(grey), a_context(*MNIST)) or []] == ["collapse"]


def test_every_finding_has_its_name_in_the_order_of_the_verdict():
    assert ("divergence", *RULES) == FINDINGS
    assert {finding for finding, *_ in ILL.values()} == set(RULES)


def test_a_repaired_twin_comes_first():
    context = a_context("experiment=mnist_lsgan", f"dataset.root={DIGITS}", "trainer.batch_size=8")
    (finding,) = diagnosed(a_run({"logits/gap": 0.0}), context) or []
    assert finding.to_try == ["experiment=mnist_lsgan_fixed", "architecture.discriminator.output=[]"]


def test_a_repaired_twin_is_not_sent_to_itself():
    context = a_context("experiment=mnist_lsgan_fixed", f"dataset.root={DIGITS}", "trainer.batch_size=8")
    assert context.advice("loss=hinge") == ["loss=hinge"]


def test_a_penalty_that_is_there_is_to_be_stronger_and_an_augmentation_is_not_to_be_another():
    for overrides, to_try in [
        ((), ["augmentation=diffaugment", "regularizer=r1"]),
        (("regularizer=r2", "regularizer.r2.weight=0.5", "augmentation=ada"), ["regularizer.r2.weight=5"]),
    ]:
        (finding,) = diagnosed(a_run({"health/memorised": 0.4}), a_context(*MNIST, *overrides)) or []
        assert finding.to_try == [*to_try, "trainer.steps=750"]


def test_the_layers_after_the_last_weights_are_told():
    assert last_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Sigmoid())) == [
        "ReLU",
        "Sigmoid",
    ]
    for normalized in (spectral_norm, nn.utils.parametrizations.spectral_norm):
        assert last_layers(nn.Sequential(nn.ReLU(), normalized(nn.Linear(2, 2)), nn.Tanh())) == ["Tanh"]
