"""What figures of a run's health are signs of, what the likely cause is, and what to try.

A finding is a function of the rows of metrics.jsonl: a run that was killed and went on finds what an uninterrupted one
finds. `health/` figures stand in the rows of sampled steps, the looks of the doctor.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from statistics import fmean, median
from typing import Any

from torch import nn

from gan_runner.config.schema import FINDINGS, Config
from gan_runner.datasets import Dataset
from gan_runner.losses import Minimax
from gan_runner.paths import CONF
from gan_runner.runs.building import Parts
from gan_runner.runs.logger import Row

A_LOOK = "health/dead_units_discriminator"  # stands in the row of each look, and in no other
BEGINNING = 5  # logged steps that are the beginning of a run
STANDSTILL = 0.75  # what has fallen below this share of its first value is getting better
WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)

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
        return (
            f"{self.name.replace('_', ' ')} (step {self.step}): {self.evidence}. "
            f"Likely cause: {self.cause}. Try: {', or '.join(self.to_try)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Its entry in health.json."""
        return {
            "name": self.name,
            "step": self.step,
            "evidence": self.evidence,
            "cause": self.cause,
            "try": list(self.to_try),
            "resolved": self.resolved,
        }


class Case:
    """What of a run its rows do not tell; `references` are the losses where D cannot tell real from fake."""

    def __init__(self, config: Config, parts: Parts, dataset: Dataset, references: Mapping[str, float]) -> None:
        assert config.doctor is not None
        self.config, self.limits, self.references = config, config.doctor, references
        self.trains_generator = "generator" in parts.optimizers
        self.varies = self.trains_generator and config.architecture.latent.distribution != "constant"
        self.scores_are_probabilities = parts.loss.density_ratio
        self.saturating = type(parts.loss) is Minimax
        self.paired, self.regularizers = parts.loss.paired, parts.regularizers
        self.labelled, self.num_modes = dataset.num_classes > 0, dataset.num_modes
        self.spanning = activations_that_span(dataset.value_range)
        self.ends = {"generator": ending(parts.generator), "discriminator": ending(parts.discriminator)}
        self.rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in parts.optimizers.items()}

    def has_ended(self, rows: "Columns") -> bool:
        """Whether there is nothing to come after these rows."""
        return rows.step == self.config.trainer.steps

    def advice(self, *overrides: str) -> list[str]:
        """The overrides of keys that are there and have another value; a recipe's repaired twin comes first."""
        recipes, name = CONF / "experiment", self.config.name
        stems = [name, name.rpartition("_")[0]]  # mnist_cnn_fixed, pattern_fixed for pattern_bce
        twins = [f"{stem}_fixed" for stem in stems if (recipes / f"{name}.yaml").exists()]
        known = [f"experiment={twin}" for twin in twins if twin != name and (recipes / f"{twin}.yaml").exists()]
        return known + [override for override in overrides if self._is_news(override)]

    def _is_news(self, override: str) -> bool:
        key, _, value = override.partition("=")
        node: Any = self.config.model_dump()
        for part in key.split("."):
            if part not in node:
                return False
            node = node[part]
        return str(node).replace("'", "") != value

    @property
    def smoother(self) -> str:
        """The override that penalizes the discriminator's slope, or does so ten times as much."""
        weights = (f"regularizer.{name}.weight={10 * r.weight or 1:.2g}" for name, r in self.regularizers.items())
        return next(weights, "regularizer=r1")

    def slower(self, network: str) -> str:
        """The override that makes `network` learn ten times more slowly."""
        return f"optimizer.{network}.lr={self.rates[network] / 10:.2g}"


def activations_that_span(value_range: tuple[float, float] | None) -> list[str]:
    """The kinds of output activations whose range holds that of the data."""
    low, high = value_range or (-math.inf, math.inf)
    ranges = {"Sigmoid": (0, 1), "Tanh": (-1, 1), "ScaledSigmoid": (low, high)}
    return [name for name, (lowest, highest) in ranges.items() if lowest <= low and high <= highest]


def ending(network: nn.Module) -> list[str]:
    """The kinds of layers after the last linear layer or convolution, e.g. ["ReLU", "Dropout", "Sigmoid"]."""
    end: list[str] = []
    for module in network.modules():
        if isinstance(module, WEIGHTED):
            end = []
        elif not any(True for _ in module.children()):
            end.append(type(module).__name__)
    return end


class Columns(dict[str, list[float]]):
    """The values of each tag in some rows, oldest first; gathered when first asked for, for a long run has many."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__()
        self._rows = rows

    @property
    def step(self) -> float:
        """The last one."""
        return self._rows[-1]["step"]

    def __missing__(self, tag: str) -> list[float]:
        self[tag] = [row[tag] for row in self._rows if tag in row]
        return self[tag]


def diagnose(rows: Sequence[Row], case: Case) -> list[Finding] | None:
    """What is wrong at the last of `rows`, a look, and has been for a third of the run so far and `patience` looks.

    None: it is too early to tell. Samples that are wrong because of what is found first are no findings of their own.
    """
    settings, limits = case.config.trainer, case.limits
    begin, now = settings.generator_start, rows[-1]["step"]
    whole = rows[bisect_right(rows, begin, key=itemgetter("step")) :]
    looks = list(islice((row["step"] for row in reversed(whole) if A_LOOK in row), limits.patience))
    if len(looks) < limits.patience or now - begin < limits.grace * (settings.steps - begin):
        return None
    since = min(looks[-1], begin + (now - begin) * 2 // 3)
    recent = Columns(whole[bisect_left(whole, since, key=itemgetter("step")) :])
    past, found = Columns(whole), list[Finding]()
    for name, sign in SIGNS.items():
        explained = any(cause.name in BECAUSE_OF.get(name, ()) for cause in found)
        if not explained and (what := sign(case, recent, past)) is not None:
            found.append(Finding(name, now, *what))
    return found


def at_first(values: Sequence[float]) -> float:
    """The median of the first third, NaN where there is none."""
    return median(values[: len(values) // 3] or [math.nan])


def stands_above(values: Sequence[float], limit: float) -> bool:
    """Whether all values are above the limit, and no longer on their way down."""
    return bool(values) and min(values) > limit and values[-1] > STANDSTILL * values[0]


def measured(metric: str, case: Case, recent: Columns, whole: Columns) -> list[float]:
    """The values of a metric of late, at least two unless the run has ended: one does not tell where it is heading."""
    tag = f"metric/{metric}"
    values = recent[tag] if len(recent[tag]) > 1 else whole[tag][-2:]
    return values if len(values) > 1 or case.has_ended(recent) else []


def stuck_losses(case: Case, recent: Columns, whole: Columns) -> Found:
    """The mean logit of each batch is the same, real or generated, as a last batch norm makes it."""
    gaps, stds = recent["logits/gap"], recent["logits/std"]
    if not gaps or not all(gap < case.limits.stuck_gap * std for gap, std in zip(gaps, stds, strict=True)):
        return None
    evidence = (
        f"the mean logits of a real and a generated batch differ by {gaps[-1]:.1g}, while logits spread by "
        f"{stds[-1]:.2g}; the discriminator's loss stays at {fmean(recent['loss/discriminator']):.3f}"
    )
    norms = [name for name in case.ends["discriminator"] if "Norm" in name]
    layer = f"the {norms[0]} after the discriminator's last layer" if norms else "a normalization of logits"
    cause = f"{layer} gives every batch, real or generated, the same mean"
    without = case.advice("architecture.discriminator.output=[]", "architecture.discriminator.normalization=none")
    return evidence, cause, without or case.advice(case.slower("discriminator"))


def value_range(case: Case, recent: Columns, whole: Columns) -> Found:
    """A part of the data's range is out of the generator's reach."""
    *between, last = case.ends["generator"] or ["Identity"]
    if last == "Identity" or (last in case.spanning and not between):
        return None  # whatever keeps it from there, it is not its layers
    low, high = recent["health/lowest"], [-value for value in recent["health/highest"]]
    missed, side = (low, "lowest") if stands_above(low, case.limits.reach) else (high, "highest")
    if not (case.trains_generator and stands_above(missed, case.limits.reach)):
        return None
    evidence = f"the {side} generated value stays {missed[-1]:.0%} of the data's range away from the data's {side}"
    cause = "the generator's last layers do not span the data's range"
    if between:
        cause = f"{' and '.join(between)} under the generator's output activation"
    to_try = case.advice("architecture.generator.output=[auto]") or case.advice(case.slower("discriminator"))
    return evidence, cause, to_try


def discriminator_saturated(case: Case, recent: Columns, whole: Columns) -> Found:
    """The discriminator is sure of everything; where the generator's gradient has vanished, that is said."""
    real, fake = recent["score/real"], recent["score/fake"]
    if not (case.trains_generator and case.scores_are_probabilities and real):
        return None
    if median(real) < case.limits.sure or median(fake) > 1 - case.limits.sure:
        return None
    evidence = f"D(x) = {median(real):.4f} and D(G(z)) = {median(fake):.2g} (medians)"
    before, now = at_first(whole["gradient_norm/generator"]), median(recent["gradient_norm/generator"])
    if now < before * case.limits.vanished:
        evidence += f"; the norm of the generator's gradient fell from {before:.2g} to {now:.2g}"
    cause = "the discriminator has won: it learns faster than the generator can follow"
    tries = [case.smoother, case.slower("discriminator")]
    if case.saturating:
        cause += ", and the minimax loss leaves the generator no gradient against a sure discriminator"
        tries.append("loss=nonsaturating")
    return evidence, cause, case.advice(*tries)


def exploding_gradients(case: Case, recent: Columns, whole: Columns) -> Found:
    """A gradient, or the logits, have grown far beyond what they were when the run began."""
    figures = {f"the norm of the {network}'s gradient": (f"gradient_norm/{network}", network) for network in case.rates}
    figures["the spread of the logits"] = ("logits/std", "discriminator")
    for what, (tag, network) in figures.items():
        first, now = min(whole[tag][:BEGINNING], default=math.inf), median(recent[tag] or [0.0])
        if now > case.limits.explosion * max(first, 1):
            tries = [case.slower(network), case.smoother]
            cause = f"the {network}'s steps are too large, or nothing bounds the discriminator's slope"
            return f"{what} grew from {first:.2g} at first to {now:.2g} (median)", cause, case.advice(*tries)
    return None


def collapse(case: Case, recent: Columns, whole: Columns) -> Found:
    """Samples are far less diverse than the data, or miss kinds of it."""
    limits, evidence = case.limits, []
    diversity, coverage = recent["health/diversity"], recent["health/coverage"]
    if not case.varies:
        return None
    if diversity and max(diversity) < limits.diversity:
        within = " within a class" if case.config.architecture.conditional else ""
        evidence.append(f"samples vary {diversity[-1]:.2f} times as far as the data{within}")
    best = max(whole["health/coverage"], default=0.0)
    if coverage and best > limits.nowhere and max(coverage) < limits.lost * best:
        evidence.append(f"samples were near {best:.0%} of the data at best, and now are near {coverage[-1]:.0%}")
    found = measured("modes", case, recent, whole) if case.num_modes else []
    missing = [1 - modes / case.num_modes for modes in found]
    usual = median(missing or [0.0])  # once in a while a stray sample lies in a mode that is as good as lost
    if stands_above([max([usual, *missing[:1]]), usual, *missing[-1:]], limits.modes_missing):
        evidence.append(f"samples are found in {found[-1]:.0f} of the data's {case.num_modes} modes")
    for kinds, metric, limit in (("classes", "class_kl", limits.class_kl), ("modes", "reverse_kl", limits.mode_kl)):
        if metric == "class_kl" and coverage and min(coverage) > limits.covered:
            continue  # the classifier is at a loss, with grain for example: no class is missing
        if stands_above(values := measured(metric, case, recent, whole), limit):
            evidence.append(f"some {kinds} of the data are rare or missing (KL {values[-1]:.2f})")
    if not evidence:
        return None
    cause = "whatever pleases the discriminator now is worth more to the generator than variety"
    tries = [case.smoother]
    joint = case.config.trainer.discriminator_update == "joint"
    tries += ["loss=relativistic"] if joint and not case.paired else []
    tries += ["architecture.conditional=true"] if case.labelled else []
    generator, discriminator = case.rates["generator"], case.rates["discriminator"]
    if generator > 2 * discriminator:
        cause = f"the discriminator cannot follow, at a learning rate of {discriminator:.2g} to {generator:.2g}"
        tries = [f"optimizer.discriminator.lr={generator:.2g}"]
    return " and ".join(evidence), cause, case.advice(*tries)


def fixed_point(case: Case, recent: Columns, whole: Columns) -> Found:
    """The losses stand where the discriminator cannot tell real from fake, and the samples are wrong."""
    means = {name: fmean(recent[f"loss/{name}"] or [math.inf]) for name in case.references}
    near = all(
        abs(means[name] - reference) <= case.limits.tolerance * (abs(reference) or 1)
        for name, reference in case.references.items()
    )
    wrong = wrong_samples(case, recent, whole)
    if not near or wrong is None:
        return None
    evidence = f"the losses stand at their fixed point (generator {means['generator']:.3f}), and yet {wrong}"
    cause = "the discriminator has stopped telling how far off a sample is, as under sigmoids and normalization"
    tries = [case.smoother, "architecture.discriminator.normalization=none", case.slower("generator")]
    return evidence, cause, case.advice(*tries)


def wrong_samples(case: Case, recent: Columns, whole: Columns) -> str | None:
    """What shows that samples are not the data's, whatever the losses say; None where nothing does.

    While the run lasts, samples may be on their way; at its end they are what they are.
    """
    limits, error, coverage = case.limits, recent["health/mean_error"], recent["health/coverage"]
    outside, good = (measured(name, case, recent, whole) for name in ("pattern_error", "high_quality"))

    def is_wrong(values: Sequence[float], limit: float) -> bool:
        return stands_above(values, limit) or (case.has_ended(recent) and min(values, default=limit) > limit)

    if is_wrong(outside, limits.outside):
        return f"{outside[-1]:.0%} of the generated values lie outside their range"
    if is_wrong([1 - share for share in good], limits.poor):
        return f"{1 - good[-1]:.0%} of the samples lie near no mode of the data"
    if is_wrong(error, limits.mean_error):
        return f"the mean sample is {error[-1]:.1f} standard deviations of the data away"
    if case.varies and coverage and max(coverage) < limits.nowhere:
        return f"there are samples near {coverage[-1]:.0%} of the data"
    return None


def discriminator_blind(case: Case, recent: Columns, whole: Columns) -> Found:
    """The logits hardly depend on what the discriminator sees, and not because samples are right."""
    spreads, wrong = recent["logits/std"], wrong_samples(case, recent, whole)
    if not spreads or max(spreads) > case.limits.blind or wrong is None:
        return None
    evidence = f"logits of real and generated samples together spread by {spreads[-1]:.1g}, although {wrong}"
    cause = "the discriminator's units are saturated, dead or normalized away"
    tries = ["architecture.discriminator.activation=leaky_relu", "architecture.discriminator.normalization=none"]
    return evidence, cause, case.advice(*tries, case.slower("discriminator"))


def dead_units(case: Case, recent: Columns, whole: Columns) -> Found:
    """Most units of a hidden layer pass no gradient, whatever the input."""
    for network in case.rates:
        shares = recent[f"health/dead_units_{network}"]
        if stands_above(shares, case.limits.dead_units):
            evidence = f"{shares[-1]:.0%} of the units of a layer of the {network} pass no gradient for any sample"
            leaky = f"architecture.{network}.activation=leaky_relu"
            return evidence, "steps so large that units died or saturated", case.advice(case.slower(network), leaky)
    return None


def oscillation(case: Case, recent: Columns, whole: Columns) -> Found:
    """The networks take turns at winning: the discriminator is right, then fooled, then right again."""
    sides: list[str] = []
    for real, fake in zip(recent["score/real"], recent["score/fake"], strict=True):
        side = "D" if real - fake > case.limits.swing else "G" if fake - real > case.limits.swing else ""
        if side and sides[-1:] != [side]:
            sides.append(side)
    if not case.trains_generator or len(sides) - 1 < case.limits.swings:
        return None
    evidence = f"D(x) - D(G(z)) changed {len(sides) - 1} times between {case.limits.swing} and -{case.limits.swing}"
    tries = [case.slower("generator"), case.smoother]
    return evidence, "the networks circle around each other instead of settling", case.advice(*tries)


def memorisation(case: Case, recent: Columns, whole: Columns) -> Found:
    """Samples are copies of training samples."""
    shares = max(
        measured("memorised", case, recent, whole), recent["health/memorised"], key=lambda x: min(x, default=0)
    )
    if not stands_above(shares, case.limits.memorised):
        return None
    evidence = f"{shares[-1]:.0%} of the samples lie nearer to a training sample than new data do"
    cause = "too few data for networks of this size: nothing helps as much as more of them"
    return evidence, cause, case.advice(case.smoother, f"trainer.steps={max(1, int(recent.step) // 4)}")


def not_learned(case: Case, recent: Columns, whole: Columns) -> Found:
    """Samples are wrong, and nothing else tells why."""
    wrong = wrong_samples(case, recent, whole)
    if not case.trains_generator or wrong is None:
        return None
    to_try = case.advice(*map(case.slower, case.rates), f"trainer.steps={2 * case.config.trainer.steps}")
    return wrong, "none that the figures tell; steps that are too large or too few are common ones", to_try


# Causes before their consequences: the first that holds is the verdict.
SIGNS: dict[str, Callable[[Case, Columns, Columns], Found]] = {
    "stuck_losses": stuck_losses,
    "range": value_range,
    "discriminator_saturated": discriminator_saturated,
    "exploding_gradients": exploding_gradients,
    "collapse": collapse,
    "fixed_point": fixed_point,
    "discriminator_blind": discriminator_blind,
    "dead_units": dead_units,
    "oscillation": oscillation,
    "memorisation": memorisation,
    "not_learned": not_learned,
}
# Samples that are wrong because of one of these are no finding of their own.
ROOTS = ("stuck_losses", "range", "discriminator_saturated", "exploding_gradients")
BECAUSE_OF: dict[str, Sequence[str]] = {
    "collapse": ROOTS,
    "fixed_point": ROOTS,
    "discriminator_blind": ROOTS,
    "memorisation": (*ROOTS, "collapse"),
    "not_learned": FINDINGS,
}
