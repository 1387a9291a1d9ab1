"""The doctor's rules: when a run has gone wrong, why, most likely, and what to try."""

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from torch import nn

from gan_runner.errors import UserError, did_you_mean
from gan_runner.health.context import History, RuleContext
from gan_runner.health.figures import split_at_last_weights
from gan_runner.losses import Minimax

FIRST_VALUES = 5  # how many logged values show what was normal at first
STANDSTILL = 0.75  # a value below this share of its first one is getting better

Diagnosis = tuple[str, str, list[str]] | None  # evidence, likely cause, what to try


def stays_above(values: np.ndarray, limit: float) -> bool:
    """Whether all values are above the limit, and not falling."""
    return len(values) > 0 and bool(values.min() > limit and values[-1] > STANDSTILL * values[0])


def wrong_samples(context: RuleContext, history: History) -> str | None:
    """The evidence that samples differ from the data, whatever the losses are, or None.

    Before the end of the run, samples that are getting better do not count.
    """
    limits, coverage = context.limits, history.recent("health/coverage")
    outside, poor = history.measured("pattern_error"), 1 - history.measured("high_quality")
    away = history.recent("health/mean_error")
    signs = (
        (outside, limits.outside, "{:.0%} of the generated values lie outside their range"),
        (poor, limits.poor, "{:.0%} of the samples lie near no mode of the data"),
        (away, limits.mean_error, "the mean sample is {:.1f} standard deviations of the data away"),
    )
    at_the_end = history.step == history.steps
    for values, limit, sign in signs:
        if stays_above(values, limit) or (at_the_end and len(values) and values.min() > limit):
            return sign.format(values[-1])
    if context.samples_vary and len(coverage) and coverage.max() < limits.nowhere:
        return f"there are samples near {coverage[-1]:.0%} of the data"
    return None


def last_layers(network: nn.Module) -> list[str]:
    """The kinds of layers after the last linear layer or convolution, e.g. ["ReLU", "Dropout", "Sigmoid"]."""
    _, after = split_at_last_weights(network)
    return [type(module).__name__ for module in after if next(module.children(), None) is None]


def stuck_losses(context: RuleContext, history: History) -> Diagnosis:
    """Real and generated batches have the same mean logit, as after a batch norm of the logits."""
    gaps, stds = history.recent("logits/gap"), history.recent("logits/std")
    if not len(gaps) or not (gaps < context.limits.stuck_gap * stds).all():
        return None
    evidence = (
        f"the mean logits of a real and a generated batch differ by {gaps[-1]:.1g}, while logits spread by "
        f"{stds[-1]:.2g}; the discriminator's loss stays at {fmean(history.recent('loss/discriminator')):.3f}"
    )
    norms = [name for name in last_layers(context.discriminator) if "Norm" in name]
    layer = f"the {norms[0]} after the discriminator's last layer" if norms else "a normalization of logits"
    cause = f"{layer} gives every batch, real or generated, the same mean"
    without = context.advice("architecture.discriminator.output=[]", "architecture.discriminator.normalization=none")
    return evidence, cause, without or context.advice(context.lower_rate("discriminator"))


def value_range(context: RuleContext, history: History) -> Diagnosis:
    """The generator cannot reach a part of the data's range, because of its last layers."""
    missed = {"lowest": history.recent("health/lowest"), "highest": -history.recent("health/highest")}
    side = next((side for side, values in missed.items() if stays_above(values, context.limits.reach)), None)
    if side is None or not context.trains_generator:
        return None
    *between, last = last_layers(context.generator) or ["Identity"]
    low, high = context.dataset.value_range or (-math.inf, math.inf)
    lowest, highest = {"Sigmoid": (0, 1), "Tanh": (-1, 1), "ScaledSigmoid": (low, high)}.get(last, (math.inf, math.inf))
    if last == "Identity" or (lowest <= low and high <= highest and not between):
        return None  # the layers are not the reason
    distance = f"{missed[side][-1]:.0%} of the data's range"
    evidence = f"the {side} generated value stays {distance} away from the data's {side}"
    under = f"{' and '.join(between)} under the generator's output activation"
    cause = under if between else "the generator's last layers do not span the data's range"
    auto = context.advice("architecture.generator.output=[auto]")
    return evidence, cause, auto or context.advice(context.lower_rate("discriminator"))


def discriminator_saturated(context: RuleContext, history: History) -> Diagnosis:
    """The discriminator is sure of all samples; the evidence says if the generator's gradient has vanished."""
    sure, scores = context.limits.sure, history.recent("score/real")
    if not (context.trains_generator and context.game.loss.density_ratio and len(scores)):
        return None
    real, fake = np.median(scores), np.median(history.recent("score/fake"))
    if real < sure * context.game.loss.real_target or fake > 1 - sure:
        return None
    evidence = f"D(x) = {real:.4f} and D(G(z)) = {fake:.2g} (medians)"
    norms = history.all_values("gradient_norm/generator")
    before, now = norms[: len(norms) // 3], np.median(history.recent("gradient_norm/generator"))
    if len(before) and now < (first := np.median(before)) * context.limits.vanished:
        evidence += f"; the norm of the generator's gradient fell from {first:.2g} to {now:.2g}"
    cause = "the discriminator has won: it learns faster than the generator can follow"
    tries = [context.stronger_penalty, context.lower_rate("discriminator")]
    if type(context.game.loss) is Minimax:
        cause += ", and the minimax loss leaves the generator no gradient against a sure discriminator"
        tries.append("loss=nonsaturating")
    return evidence, cause, context.advice(*tries)


def exploding_gradients(context: RuleContext, history: History) -> Diagnosis:
    """A gradient, or the spread of the logits, has become far larger than it was at first."""
    figures = {f"the norm of the {name}'s gradient": (f"gradient_norm/{name}", name) for name in context.learning_rates}
    figures["the spread of the logits"] = ("logits/std", "discriminator")
    for what, (tag, network) in figures.items():
        values, first = history.recent(tag), min(history.all_values(tag)[:FIRST_VALUES], default=math.inf)
        limit = context.limits.explosion * max(first, 1)
        if values.max(initial=0.0) > limit and (now := np.median(values)) > limit:  # the maximum first: it is faster
            cause = f"the {network}'s steps are too large, or nothing bounds the discriminator's slope"
            to_try = context.advice(context.lower_rate(network), context.stronger_penalty)
            return f"{what} grew from {first:.2g} at first to {now:.2g} (median)", cause, to_try
    return None


def collapse(context: RuleContext, history: History) -> Diagnosis:
    """Samples are far less diverse than the data."""
    evidence = list(missing_variety(context, history)) if context.samples_vary else []
    if not evidence:
        return None
    cause = "whatever pleases the discriminator now is worth more to the generator than variety"
    tries = [context.stronger_penalty]
    adapts = context.game.augmentation is not None and context.game.augmentation.adapts
    can_pair = not (context.game.loss.paired or context.game.separate or adapts)
    tries += ["loss=relativistic"] if can_pair else []
    labelled = context.dataset.num_classes and context.config.trainer.packing == 1
    tries += ["architecture.conditional=true"] if labelled else []
    generator, discriminator = context.learning_rates["generator"], context.learning_rates["discriminator"]
    if generator > 2 * discriminator:
        cause = f"the discriminator cannot follow, at a learning rate of {discriminator:.2g} to {generator:.2g}"
        tries = [f"optimizer.discriminator.lr={generator:.2g}"]
    return " and ".join(evidence), cause, context.advice(*tries)


def missing_variety(context: RuleContext, history: History) -> Iterator[str]:
    """The evidence that samples are less diverse than the data."""
    limits, diversity, coverage = context.limits, history.recent("health/diversity"), history.recent("health/coverage")
    if len(diversity) and diversity.max() < limits.diversity:
        within = " within a class" if context.config.architecture.conditional else ""
        yield f"samples vary {diversity[-1]:.2f} times as far as the data{within}"
    best = max(history.all_values("health/coverage"), default=0.0)
    if len(coverage) and best > limits.nowhere and coverage.max() < limits.lost * best:
        yield f"samples were near {best:.0%} of the data at best, and now are near {coverage[-1]:.0%}"
    num_modes = context.dataset.num_modes
    if num_modes and len(modes := history.measured("modes")):
        missing = 1 - modes / num_modes
        usual = np.median(missing)  # a stray sample may lie in a lost mode now and then
        if stays_above(np.array([max(usual, missing[0]), usual, missing[-1]]), limits.modes_missing):
            yield f"samples are found in {modes[-1]:.0f} of the data's {num_modes} modes"
    for kinds, metric, limit in (("classes", "class_kl", limits.class_kl), ("modes", "reverse_kl", limits.mode_kl)):
        if metric == "class_kl" and len(coverage) and coverage.min() > limits.covered:
            continue  # no class is missing: the classifier errs, for example because of noise in the images
        if stays_above(values := history.measured(metric), limit):
            yield f"some {kinds} of the data are rare or missing (KL {values[-1]:.2f})"


def fixed_point(context: RuleContext, history: History) -> Diagnosis:
    """The losses say that the discriminator cannot tell real from fake, and yet the samples are wrong."""
    if context.game.weight_clip is not None or (wrong := wrong_samples(context, history)) is None:
        return None  # clipped weights keep all logits small
    losses = {name: history.recent(f"loss/{name}") for name in context.reference_losses}
    means = {name: fmean(values) if len(values) else math.inf for name, values in losses.items()}
    limit = context.limits.tolerance
    if not all(abs(means[name] - loss) <= limit * (abs(loss) or 1) for name, loss in context.reference_losses.items()):
        return None
    evidence = f"the losses stand at their fixed point (generator {means['generator']:.3f}), and yet {wrong}"
    cause = "the discriminator has stopped telling how far off a sample is, as under sigmoids and normalization"
    tries = [context.stronger_penalty, "architecture.discriminator.normalization=none", context.lower_rate("generator")]
    return evidence, cause, context.advice(*tries)


def discriminator_blind(context: RuleContext, history: History) -> Diagnosis:
    """The logits hardly depend on the input, although the samples are wrong."""
    spreads = history.recent("logits/std")
    if context.game.weight_clip is not None:  # clipped weights keep all logits small
        return None
    if not len(spreads) or spreads.max() > context.limits.blind or not (wrong := wrong_samples(context, history)):
        return None
    evidence = f"logits of real and generated samples together spread by {spreads[-1]:.1g}, although {wrong}"
    cause = "the discriminator's units are saturated, dead or normalized away"
    tries = ["architecture.discriminator.activation=leaky_relu", "architecture.discriminator.normalization=none"]
    return evidence, cause, context.advice(*tries, context.lower_rate("discriminator"))


def dead_units(context: RuleContext, history: History) -> Diagnosis:
    """Most units of a hidden layer pass no gradient for any input."""
    for network in context.learning_rates:
        shares = history.recent(f"health/dead_units_{network}")
        if stays_above(shares, context.limits.dead_units):
            evidence = f"{shares[-1]:.0%} of the units of a layer of the {network} pass no gradient for any sample"
            to_try = context.advice(context.lower_rate(network), f"architecture.{network}.activation=leaky_relu")
            return evidence, "steps so large that units died or saturated", to_try
    return None


def oscillation(context: RuleContext, history: History) -> Diagnosis:
    """The networks take turns at winning."""
    swing, lead = context.limits.swing, history.recent("score/real") - history.recent("score/fake")
    turns = np.count_nonzero(np.diff(np.sign(lead[abs(lead) > swing])))
    if not context.trains_generator or turns < context.limits.swings:
        return None
    evidence = f"D(x) - D(G(z)) changed {turns} times between {swing} and -{swing}"
    to_try = context.advice(context.lower_rate("generator"), context.stronger_penalty)
    return evidence, "the networks circle around each other instead of settling", to_try


def memorisation(context: RuleContext, history: History) -> Diagnosis:
    """Samples are copies of training samples."""
    candidates = history.measured("memorised"), history.recent("health/memorised")
    shares = max(candidates, key=lambda values: values.min() if len(values) else 0.0)
    if not stays_above(shares, context.limits.memorised):
        return None
    evidence = f"{shares[-1]:.0%} of the samples lie nearer to a training sample than new data do"
    cause = "too few data for networks of this size: nothing helps as much as more of them"
    is_plain = context.config.augmentation is None and len(context.dataset.shape) == 3  # it is for images
    augment = ["augmentation=diffaugment"] if is_plain else []
    return (
        evidence,
        cause,
        context.advice(*augment, context.stronger_penalty, f"trainer.steps={max(1, history.step // 4)}"),
    )


def not_learned(context: RuleContext, history: History) -> Diagnosis:
    """Samples are wrong, and no other rule says why."""
    if not context.trains_generator or (wrong := wrong_samples(context, history)) is None:
        return None
    lower_rate = map(context.lower_rate, context.learning_rates)
    to_try = context.advice(*lower_rate, f"trainer.steps={2 * context.config.trainer.steps}")
    return wrong, "none that the figures tell; steps that are too large or too few are common ones", to_try


class Rule(NamedTuple):
    """How a finding is made, and which other findings explain it, so that it is left out beside them."""

    find: Callable[[RuleContext, History], Diagnosis]
    explained_by: Sequence[str] = ()


CAUSES = ("stuck_losses", "range", "discriminator_saturated", "exploding_gradients")
# Causes before their consequences: the first that holds is the verdict.
RULES = {
    "stuck_losses": Rule(stuck_losses),
    "range": Rule(value_range),
    "discriminator_saturated": Rule(discriminator_saturated),
    "exploding_gradients": Rule(exploding_gradients),
    "collapse": Rule(collapse, CAUSES),
    "fixed_point": Rule(fixed_point, CAUSES),
    "discriminator_blind": Rule(discriminator_blind, CAUSES),
    "dead_units": Rule(dead_units),
    "oscillation": Rule(oscillation),
    "memorisation": Rule(memorisation, (*CAUSES, "collapse")),
}
# Only if nothing else is found.
RULES["not_learned"] = Rule(not_learned, tuple(RULES))
FINDINGS = ("divergence", *RULES)


def refuse_unknown(names: Sequence[str], key: str) -> None:
    """Raises `UserError` if one of `names`, the value of `key`, is not the name of a finding."""
    for name in names:
        if name not in FINDINGS:
            raise UserError(f"{key}: found {name!r}; {did_you_mean(name, FINDINGS)}")
