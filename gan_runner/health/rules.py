"""The doctor's rules: what figures are a sign of, what the likely cause is, and what to try.

A finding is a function of the rows of metrics.jsonl: a run that was killed and resumed finds what an uninterrupted one
finds.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from gan_runner.errors import UserError, did_you_mean
from gan_runner.health.context import History, RuleContext
from gan_runner.health.figures import split_at_last_weights
from gan_runner.losses import Minimax

BEGINNING = 5  # logged steps that are the beginning of a run
STANDSTILL = 0.75  # what has fallen below this share of its first value is getting better

Found = tuple[str, str, list[str]] | None  # evidence, likely cause, what to try


@dataclass(frozen=True)
class Finding:
    """What is wrong, since when, and what makes the doctor think so."""

    name: str  # one of FINDINGS
    step: int  # at which it was found
    evidence: str  # the figures, as they were then
    cause: str  # the likely one
    to_try: Sequence[str]  # overrides to type, each by itself
    resolved: int | None = None  # the step at which it held no more

    def __str__(self) -> str:
        sign = f"{self.name.replace('_', ' ')} (step {self.step}): {self.evidence}"
        return f"{sign}. Likely cause: {self.cause}. Try: {', or '.join(self.to_try)}"

    def to_json(self) -> dict[str, Any]:
        """Its entry in health.json."""
        told = {"name": self.name, "step": self.step, "evidence": self.evidence, "cause": self.cause}
        return {**told, "try": list(self.to_try), "resolved": self.resolved}


def diagnose(context: RuleContext, rows: History) -> list[Finding] | None:
    """What is wrong at the last row, an examination, and has been for `patience` of them and a third of the run so far.

    None: it is too early to tell. A rule is not asked where a finding explains what it would find.
    """
    limits, begin, now = context.limits, rows.begin, rows.step
    examined = rows.examined(limits.patience)
    if len(examined) < limits.patience or now - begin < limits.grace * (context.config.trainer.steps - begin):
        return None
    rows.since = min(examined[0], begin + (now - begin) * 2 // 3)
    findings: list[Finding] = []
    for name, rule in RULES.items():
        explained = any(finding.name in rule.explained_by for finding in findings)
        if not explained and (found := rule.find(context, rows)) is not None:
            findings.append(Finding(name, now, *found))
    return findings


def divergence(context: RuleContext, step: int, evidence: str) -> Finding:
    """The finding that no rule makes: a number is no longer finite."""
    clip = context.config.trainer.gradient_clip
    clips = ["trainer.gradient_clip=1"] if clip is None or clip > 1 else []
    to_try = context.advice(*map(context.slower, context.learning_rates), *clips)
    return Finding("divergence", step, evidence, "steps that are too large", to_try)


def stands_above(values: np.ndarray, limit: float) -> bool:
    """Whether all values are above the limit, and no longer on their way down."""
    return len(values) > 0 and bool(values.min() > limit and values[-1] > STANDSTILL * values[0])


def wrong_samples(context: RuleContext, rows: History) -> str | None:
    """What shows that samples are not the data's, whatever the losses say; None where nothing does.

    While the run lasts, samples may be on their way; at its end they are what they are.
    """
    limits, coverage = context.limits, rows.recent("health/coverage")
    figures = rows.measured("pattern_error"), 1 - rows.measured("high_quality"), rows.recent("health/mean_error")
    signs = (
        (limits.outside, "{:.0%} of the generated values lie outside their range"),
        (limits.poor, "{:.0%} of the samples lie near no mode of the data"),
        (limits.mean_error, "the mean sample is {:.1f} standard deviations of the data away"),
    )
    at_the_end = rows.step == rows.steps
    for values, (limit, sign) in zip(figures, signs, strict=True):
        if stands_above(values, limit) or (at_the_end and len(values) and values.min() > limit):
            return sign.format(values[-1])
    if context.samples_vary and len(coverage) and coverage.max() < limits.nowhere:
        return f"there are samples near {coverage[-1]:.0%} of the data"
    return None


def last_layers(network: nn.Module) -> list[str]:
    """The kinds of layers after the last linear layer or convolution, e.g. ["ReLU", "Dropout", "Sigmoid"]."""
    _, after = split_at_last_weights(network)
    return [type(module).__name__ for module in after if next(module.children(), None) is None]


def stuck_losses(context: RuleContext, rows: History) -> Found:
    """The mean logit of each batch is the same, real or generated, as a last batch norm makes it."""
    gaps, stds = rows.recent("logits/gap"), rows.recent("logits/std")
    if not len(gaps) or not (gaps < context.limits.stuck_gap * stds).all():
        return None
    evidence = (
        f"the mean logits of a real and a generated batch differ by {gaps[-1]:.1g}, while logits spread by "
        f"{stds[-1]:.2g}; the discriminator's loss stays at {fmean(rows.recent('loss/discriminator')):.3f}"
    )
    norms = [name for name in last_layers(context.discriminator) if "Norm" in name]
    layer = f"the {norms[0]} after the discriminator's last layer" if norms else "a normalization of logits"
    cause = f"{layer} gives every batch, real or generated, the same mean"
    without = context.advice("architecture.discriminator.output=[]", "architecture.discriminator.normalization=none")
    return evidence, cause, without or context.advice(context.slower("discriminator"))


def value_range(context: RuleContext, rows: History) -> Found:
    """A part of the data's range is out of the generator's reach, because of its last layers."""
    missed = {"lowest": rows.recent("health/lowest"), "highest": -rows.recent("health/highest")}
    side = next((side for side, values in missed.items() if stands_above(values, context.limits.reach)), None)
    if side is None or not context.trains_generator:
        return None
    *between, last = last_layers(context.generator) or ["Identity"]
    low, high = context.dataset.value_range or (-math.inf, math.inf)
    lowest, highest = {"Sigmoid": (0, 1), "Tanh": (-1, 1), "ScaledSigmoid": (low, high)}.get(last, (math.inf, math.inf))
    if last == "Identity" or (lowest <= low and high <= highest and not between):
        return None  # whatever keeps it from there, it is not its layers
    distance = f"{missed[side][-1]:.0%} of the data's range"
    evidence = f"the {side} generated value stays {distance} away from the data's {side}"
    cause = "the generator's last layers do not span the data's range"
    if between:
        cause = f"{' and '.join(between)} under the generator's output activation"
    to_try = context.advice("architecture.generator.output=[auto]") or context.advice(context.slower("discriminator"))
    return evidence, cause, to_try


def discriminator_saturated(context: RuleContext, rows: History) -> Found:
    """The discriminator is sure of everything; where the generator's gradient has vanished, that is said."""
    sure, scores = context.limits.sure, rows.recent("score/real")
    if not (context.trains_generator and context.loss.density_ratio and len(scores)):
        return None
    if (real := np.median(scores)) < sure or (fake := np.median(rows.recent("score/fake"))) > 1 - sure:
        return None
    evidence = f"D(x) = {real:.4f} and D(G(z)) = {fake:.2g} (medians)"
    norms = rows.whole("gradient_norm/generator")
    before, now = norms[: len(norms) // 3], np.median(rows.recent("gradient_norm/generator"))
    if len(before) and now < (first := np.median(before)) * context.limits.vanished:
        evidence += f"; the norm of the generator's gradient fell from {first:.2g} to {now:.2g}"
    cause = "the discriminator has won: it learns faster than the generator can follow"
    tries = [context.smoother, context.slower("discriminator")]
    if type(context.loss) is Minimax:
        cause += ", and the minimax loss leaves the generator no gradient against a sure discriminator"
        tries.append("loss=nonsaturating")
    return evidence, cause, context.advice(*tries)


def exploding_gradients(context: RuleContext, rows: History) -> Found:
    """A gradient, or the logits, have grown far beyond what they were when the run began."""
    figures = {f"the norm of the {name}'s gradient": (f"gradient_norm/{name}", name) for name in context.learning_rates}
    figures["the spread of the logits"] = ("logits/std", "discriminator")
    for what, (tag, network) in figures.items():
        values, first = rows.recent(tag), min(rows.whole(tag)[:BEGINNING], default=math.inf)
        limit = context.limits.explosion * max(first, 1)
        if values.max(initial=0.0) > limit and (now := np.median(values)) > limit:  # a median takes longer
            cause = f"the {network}'s steps are too large, or nothing bounds the discriminator's slope"
            to_try = context.advice(context.slower(network), context.smoother)
            return f"{what} grew from {first:.2g} at first to {now:.2g} (median)", cause, to_try
    return None


def collapse(context: RuleContext, rows: History) -> Found:
    """Samples are far less diverse than the data, or miss kinds of it."""
    evidence = list(missing_variety(context, rows)) if context.samples_vary else []
    if not evidence:
        return None
    cause = "whatever pleases the discriminator now is worth more to the generator than variety"
    tries = [context.smoother]
    joint = context.config.trainer.discriminator_update == "joint"
    tries += ["loss=relativistic"] if joint and not context.loss.paired else []
    tries += ["architecture.conditional=true"] if context.dataset.num_classes else []
    generator, discriminator = context.learning_rates["generator"], context.learning_rates["discriminator"]
    if generator > 2 * discriminator:
        cause = f"the discriminator cannot follow, at a learning rate of {discriminator:.2g} to {generator:.2g}"
        tries = [f"optimizer.discriminator.lr={generator:.2g}"]
    return " and ".join(evidence), cause, context.advice(*tries)


def missing_variety(context: RuleContext, rows: History) -> Iterator[str]:
    """Each sign that samples are less diverse than the data."""
    limits, diversity, coverage = context.limits, rows.recent("health/diversity"), rows.recent("health/coverage")
    if len(diversity) and diversity.max() < limits.diversity:
        within = " within a class" if context.config.architecture.conditional else ""
        yield f"samples vary {diversity[-1]:.2f} times as far as the data{within}"
    best = max(rows.whole("health/coverage"), default=0.0)
    if len(coverage) and best > limits.nowhere and coverage.max() < limits.lost * best:
        yield f"samples were near {best:.0%} of the data at best, and now are near {coverage[-1]:.0%}"
    num_modes = context.dataset.num_modes
    if num_modes and len(modes := rows.measured("modes")):
        missing = 1 - modes / num_modes
        usual = np.median(missing)  # once in a while a stray sample lies in a mode that is as good as lost
        if stands_above(np.array([max(usual, missing[0]), usual, missing[-1]]), limits.modes_missing):
            yield f"samples are found in {modes[-1]:.0f} of the data's {num_modes} modes"
    for kinds, metric, limit in (("classes", "class_kl", limits.class_kl), ("modes", "reverse_kl", limits.mode_kl)):
        if metric == "class_kl" and len(coverage) and coverage.min() > limits.covered:
            continue  # the classifier is at a loss, with grain for example: no class is missing
        if stands_above(values := rows.measured(metric), limit):
            yield f"some {kinds} of the data are rare or missing (KL {values[-1]:.2f})"


def fixed_point(context: RuleContext, rows: History) -> Found:
    """The losses stand where the discriminator cannot tell real from fake, and the samples are wrong."""
    if (wrong := wrong_samples(context, rows)) is None:
        return None
    losses = {name: rows.recent(f"loss/{name}") for name in context.reference_losses}
    means = {name: fmean(values) if len(values) else math.inf for name, values in losses.items()}
    limit = context.limits.tolerance
    if not all(abs(means[name] - loss) <= limit * (abs(loss) or 1) for name, loss in context.reference_losses.items()):
        return None
    evidence = f"the losses stand at their fixed point (generator {means['generator']:.3f}), and yet {wrong}"
    cause = "the discriminator has stopped telling how far off a sample is, as under sigmoids and normalization"
    tries = [context.smoother, "architecture.discriminator.normalization=none", context.slower("generator")]
    return evidence, cause, context.advice(*tries)


def discriminator_blind(context: RuleContext, rows: History) -> Found:
    """The logits hardly depend on what the discriminator sees, and not because samples are right."""
    spreads = rows.recent("logits/std")
    if not len(spreads) or spreads.max() > context.limits.blind or not (wrong := wrong_samples(context, rows)):
        return None
    evidence = f"logits of real and generated samples together spread by {spreads[-1]:.1g}, although {wrong}"
    cause = "the discriminator's units are saturated, dead or normalized away"
    tries = ["architecture.discriminator.activation=leaky_relu", "architecture.discriminator.normalization=none"]
    return evidence, cause, context.advice(*tries, context.slower("discriminator"))


def dead_units(context: RuleContext, rows: History) -> Found:
    """Most units of a hidden layer pass no gradient, whatever the input."""
    for network in context.learning_rates:
        shares = rows.recent(f"health/dead_units_{network}")
        if stands_above(shares, context.limits.dead_units):
            evidence = f"{shares[-1]:.0%} of the units of a layer of the {network} pass no gradient for any sample"
            to_try = context.advice(context.slower(network), f"architecture.{network}.activation=leaky_relu")
            return evidence, "steps so large that units died or saturated", to_try
    return None


def oscillation(context: RuleContext, rows: History) -> Found:
    """The networks take turns at winning: the discriminator is right, then fooled, then right again."""
    swing, lead = context.limits.swing, rows.recent("score/real") - rows.recent("score/fake")
    turns = np.count_nonzero(np.diff(np.sign(lead[abs(lead) > swing])))
    if not context.trains_generator or turns < context.limits.swings:
        return None
    evidence = f"D(x) - D(G(z)) changed {turns} times between {swing} and -{swing}"
    to_try = context.advice(context.slower("generator"), context.smoother)
    return evidence, "the networks circle around each other instead of settling", to_try


def memorisation(context: RuleContext, rows: History) -> Found:
    """Samples are copies of training samples."""
    candidates = rows.measured("memorised"), rows.recent("health/memorised")
    shares = max(candidates, key=lambda values: values.min() if len(values) else 0.0)
    if not stands_above(shares, context.limits.memorised):
        return None
    evidence = f"{shares[-1]:.0%} of the samples lie nearer to a training sample than new data do"
    cause = "too few data for networks of this size: nothing helps as much as more of them"
    return evidence, cause, context.advice(context.smoother, f"trainer.steps={max(1, rows.step // 4)}")


def not_learned(context: RuleContext, rows: History) -> Found:
    """Samples are wrong, and nothing else tells why."""
    if not context.trains_generator or (wrong := wrong_samples(context, rows)) is None:
        return None
    slower = map(context.slower, context.learning_rates)
    to_try = context.advice(*slower, f"trainer.steps={2 * context.config.trainer.steps}")
    return wrong, "none that the figures tell; steps that are too large or too few are common ones", to_try


class Rule(NamedTuple):
    """How something is found, and which other findings explain it, so that it is none of its own."""

    find: Callable[[RuleContext, History], Found]
    explained_by: Sequence[str] = ()


ROOTS = ("stuck_losses", "range", "discriminator_saturated", "exploding_gradients")
# Causes before their consequences: the first that holds is the verdict.
RULES = {
    "stuck_losses": Rule(stuck_losses),
    "range": Rule(value_range),
    "discriminator_saturated": Rule(discriminator_saturated),
    "exploding_gradients": Rule(exploding_gradients),
    "collapse": Rule(collapse, ROOTS),
    "fixed_point": Rule(fixed_point, ROOTS),
    "discriminator_blind": Rule(discriminator_blind, ROOTS),
    "dead_units": Rule(dead_units),
    "oscillation": Rule(oscillation),
    "memorisation": Rule(memorisation, (*ROOTS, "collapse")),
}
# Only where nothing else is found.
RULES["not_learned"] = Rule(not_learned, tuple(RULES))
FINDINGS = ("divergence", *RULES)


def refuse_unknown(names: Sequence[str], key: str) -> None:
    """UserError where one of `names`, the value of `key`, is nothing that can be found."""
    for name in names:
        if name not in FINDINGS:
            raise UserError(f"{key}: found {name!r}; {did_you_mean(name, FINDINGS)}")
