"""The doctor: figures of a run's health, what they are signs of, and what to try.

Its figures stand in the rows of metrics.jsonl (`health/` at sampled steps, its looks; `logits/` at logged ones), and
what it finds is a function of these rows: a run that was killed and went on finds what an uninterrupted one finds.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, repeat
from operator import itemgetter
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner import cli
from gan_runner.build import Parts, apply, draw_latent
from gan_runner.config import FINDINGS, Config
from gan_runner.datasets import ArrayDataset, Dataset
from gan_runner.logger import Row
from gan_runner.losses import Minimax
from gan_runner.metrics import NearestNeighbours, Samples
from gan_runner.randomness import rng

A_LOOK = "health/dead_units_discriminator"  # stands in the row of each look, and in no other
DIRECTIONS = 10  # principal components of the data along which diversity is measured: beyond them lies mostly grain
NEIGHBOURS = 5
ORIGINALS, NUMBERS = 2000, 2**25  # training images, and numbers in them, among which the originals of copies are sought
CHUNK = 64  # samples that go through a network at once, as in a grid
NO_GRADIENT = 1e-3  # the slope of an activation that counts as none
BEGINNING = 5  # logged steps that are the beginning of a run
STANDSTILL = 0.75  # what has fallen below this share of its first value is getting better
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh)  # those that can pass no gradient
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
        self.paired = parts.loss.paired
        self.labelled, self.num_modes = dataset.num_classes > 0, dataset.num_modes
        self.ends = {"generator": ending(parts.generator), "discriminator": ending(parts.discriminator)}
        self.rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in parts.optimizers.items()}

    def advice(self, *overrides: str) -> list[str]:
        """The overrides of keys that are there and have another value; a recipe's repaired twin comes first."""
        recipes = cli.CONF / "experiment"
        stems = [
            self.config.name,
            self.config.name.rpartition("_")[0],
        ]  # mnist_cnn_fixed, pattern_fixed for pattern_bce
        twins = [f"{stem}_fixed" for stem in stems if (recipes / f"{self.config.name}.yaml").exists()]
        known = [f"experiment={twin}" for twin in twins if (recipes / f"{twin}.yaml").exists()]
        return known + [override for override in overrides if self._is_news(override)]

    def _is_news(self, override: str) -> bool:
        key, _, value = override.partition("=")
        node: Any = self.config.model_dump()
        for part in key.split("."):
            if part not in node:
                return False
            node = node[part]
        return not node if key == "regularizer" else str(node).replace("'", "") != value

    def slower(self, network: str) -> str:
        """The override that makes `network` learn ten times more slowly."""
        return f"optimizer.{network}.lr={self.rates[network] / 10:.2g}"


def ending(network: nn.Module) -> list[str]:
    """The kinds of layers after the last linear layer or convolution, e.g. ["ReLU", "Dropout", "Sigmoid"]."""
    end: list[str] = []
    for module in network.modules():
        if isinstance(module, WEIGHTED):
            end = []
        elif not any(True for _ in module.children()):
            end.append(type(module).__name__)
    return end


# What is seen


class Doctor:
    """Looks at both networks at the sampled steps of a run, and remembers what it found."""

    def __init__(self, case: Case, dataset: Dataset, rows: Sequence[Row]) -> None:
        self.case = case
        self.step, self.early = 0, True
        self.findings: dict[str, Finding] = {}
        config, count = case.config, case.limits.samples
        size = config.trainer.batch_size
        batches = [dataset.batch(number, size, config.seed) for number in range(math.ceil(count / size))]
        self._real = torch.cat([samples.cpu() for samples, _ in batches])[:count]
        self._labels: Tensor | None = None
        if config.architecture.conditional:
            self._labels = torch.cat([labels.cpu() for _, labels in batches if labels is not None])[:count]
        z = draw_latent(config.architecture.latent, count, rng(config.seed, "health"))
        parts = repeat(None) if self._labels is None else self._labels.split(CHUNK)
        self._inputs = list(zip(z.split(CHUNK), parts, strict=False))
        self._data = Anatomy(self._real, self._labels)
        self._dataset, self._originals = dataset, None
        if isinstance(dataset, ArrayDataset) and len(dataset.shape) == 3:
            chosen = dataset.order(config.seed, 0)[: min(ORIGINALS, NUMBERS // math.prod(dataset.shape))]
            self._originals = Samples(dataset[chosen][0].cpu())
        for end, row in enumerate(rows, 1):  # of the run that goes on
            if A_LOOK in row:
                self.look(rows[:end])

    @torch.no_grad()
    def examine(
        self, generate: Callable[[Tensor, Tensor | None], Tensor], generator: nn.Module, discriminator: nn.Module
    ) -> Row:
        """The figures of one look; `generate` applies `generator` in eval mode. Touches no weight, buffer or stream."""
        device = next(discriminator.parameters()).device
        with watched_units(generator) as of_generator:
            made = [generate(z, labels) for z, labels in self._inputs]
        discriminator.eval()
        with watched_units(discriminator) as of_discriminator:
            for real, fake, (_, labels) in zip(self._real.split(CHUNK), made, self._inputs, strict=True):
                both = torch.cat([real, fake]).to(device)
                apply(discriminator, both, None if labels is None else labels.repeat(2).to(device))
        discriminator.train()
        samples = torch.cat(made)
        figures = self._data.compare(samples) | {
            "dead_units_generator": max(of_generator, default=0.0),
            "dead_units_discriminator": max(of_discriminator, default=0.0),
        }
        if self._originals is not None and len(self._originals) > 1 and samples.isfinite().all():
            metric = NearestNeighbours(len(self._real), self.case.limits.copies)
            found = metric.measure(Samples(samples), self._originals, self._dataset)
            figures["memorised"] = found["memorised"]
        return {f"health/{name}": value for name, value in figures.items()}

    def look(self, rows: Sequence[Row]) -> list[Finding]:
        """Takes in a run's rows up to a look; returns what it finds for the first time."""
        self.step, found = rows[-1]["step"], diagnose(rows, self.case)
        self.early = found is None
        present = {finding.name: finding for finding in found or []}
        new = [finding for name, finding in present.items() if name not in self.findings]
        for name, known in self.findings.items():
            gone = known.resolved or self.step
            self.findings[name] = replace(known, resolved=None if name in present else gone)
        self.findings |= {finding.name: finding for finding in new}
        return new

    def diverged(self, step: int, evidence: str) -> Finding:
        """Takes in that a number is no longer finite, which no row can tell."""
        self.step = step
        tries = self.case.advice(*map(self.case.slower, self.case.rates), "trainer.gradient_clip=1")
        self.findings["divergence"] = Finding("divergence", step, evidence, "steps that are too large", tries)
        return self.findings["divergence"]

    @property
    def present(self) -> list[str]:
        """The findings that hold, causes before their consequences."""
        return [name for name in FINDINGS if name in self.findings and self.findings[name].resolved is None]

    def report(self) -> dict[str, Any]:
        """The content of health.json."""
        verdict = [*self.present, "too early to tell" if self.early else "healthy"][0]
        return {
            "step": self.step,
            "verdict": verdict,
            "findings": [finding.to_json() for finding in self.findings.values()],
        }


class Anatomy:
    """What real samples (N, *shape) are like, to hold generated ones against; of `labels` (N,) each class by itself."""

    def __init__(self, real: Tensor, labels: Tensor | None) -> None:
        self._labels = labels
        values = real.flatten(1)
        self._lowest, self._highest, self._mean = values.min(), values.max(), values.mean(0)
        self._std = values.std(0).square().mean().sqrt()
        self._directions = torch.linalg.svd(values - self._mean, full_matrices=False).Vh[:DIRECTIONS].T
        self._spread = self._spread_of(self._project(values))
        self._distinct = self._project(values.unique(dim=0))  # a small dataset repeats itself, nearest to itself
        neighbours = min(NEIGHBOURS + 1, len(self._distinct))
        self._radii = torch.cdist(self._distinct, self._distinct).kthvalue(neighbours, dim=1).values

    def compare(self, made: Tensor) -> Row:
        """Figures of as many generated samples; those that are undefined (for data without spread) are left out."""
        values = made.flatten(1)
        points = self._project(values)
        span = self._highest - self._lowest
        figures = {
            "lowest": (values.min() - self._lowest) / span,  # in the data's span: > 0 where the lowest is not reached
            "highest": (values.max() - self._highest) / span,  # < 0 likewise
            "mean_error": (values.mean(0) - self._mean).square().mean().sqrt() / self._std,  # in standard deviations
            # The geometric mean over directions of standard deviations, generated over real.
            "diversity": (self._spread_of(points) / self._spread).clamp_min(1e-6).log().mean().exp(),
            # The share of real samples with a generated one nearer than their neighbours (coverage, Naeem et al. 2020).
            "coverage": (torch.cdist(self._distinct, points).amin(1) <= self._radii).float().mean(),
        }
        return {name: value for name, figure in figures.items() if math.isfinite(value := float(figure))}

    def _project(self, values: Tensor) -> Tensor:
        """(N, D) -> (N, K): along the data's directions."""
        return (values - self._mean) @ self._directions

    def _spread_of(self, points: Tensor) -> Tensor:
        """The standard deviation (K,) of points (N, K), within their classes where there are any."""
        if self._labels is not None:
            sums = torch.zeros(int(self._labels.max()) + 1, points.shape[1]).index_add_(0, self._labels, points)
            points = points - (sums / self._labels.bincount().clamp_min(1).unsqueeze(1))[self._labels]
        return points.std(0)


@contextmanager
def watched_units(network: nn.Module) -> Iterator[list[float]]:
    """While it lasts, notes for each activation that `network` runs the share of its units that pass no gradient.

    A unit is one feature, or one channel of a map; it is dead where its slope is (nearly) 0 for all of a batch. What
    follows the last linear layer is left out: there, a pixel that is black in all of the data is as it should be.
    """
    shares: list[float] = []

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        units = output.flatten(2).transpose(1, 2).flatten(0, 1) if output.ndim > 2 else output  # (N, U)
        slope = units.abs()  # of ReLU and its smooth kin it is 0 where the value is
        if isinstance(module, nn.Sigmoid):
            slope = units * (1 - units)
        elif isinstance(module, nn.Tanh):
            slope = 1 - units.square()
        shares.append(float((slope.amax(0) <= NO_GRADIENT).float().mean()))

    weighted = [i for i, module in enumerate(network.modules()) if isinstance(module, WEIGHTED)]
    hidden = list(network.modules())[: max(weighted, default=0)]
    hooks = [module.register_forward_hook(note) for module in hidden if isinstance(module, ACTIVATIONS)]
    try:
        yield shares
    finally:
        for hook in hooks:
            hook.remove()


# What it means


class Columns(dict[str, list[float]]):
    """The values of each tag in some rows, oldest first; gathered when first asked for, for a long run has many."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__()
        self._rows = rows

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


def measured(metric: str, recent: Columns, whole: Columns) -> list[float]:
    """The values of a metric of late, at least two: before a second one nobody knows where it is heading."""
    tag = f"metric/{metric}"
    values = recent[tag] if len(recent[tag]) > 1 else whole[tag][-2:]
    return values if len(values) > 1 else []


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
    return evidence, cause, case.advice("architecture.discriminator.output=[]")


def value_range(case: Case, recent: Columns, whole: Columns) -> Found:
    """A part of the data's range is out of the generator's reach."""
    *between, last = case.ends["generator"] or ["Identity"]
    if last == "Identity":
        return None  # whatever keeps it from there, it is not its layers
    low, high = recent["health/lowest"], [-value for value in recent["health/highest"]]
    missed, side = (low, "lowest") if stands_above(low, case.limits.reach) else (high, "highest")
    if not (case.trains_generator and stands_above(missed, case.limits.reach)):
        return None
    if not between and case.varies and max(recent["health/diversity"], default=1.0) < case.limits.diversity:
        return None  # one and the same grey sample reaches neither end: that is collapse
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
    tries = [case.slower("discriminator"), "architecture.discriminator.normalization=layer", "regularizer=r1"]
    if case.saturating:
        cause += ", and the minimax loss leaves the generator no gradient against a sure discriminator"
        tries.insert(0, "loss=nonsaturating")
    return evidence, cause, case.advice(*tries)


def exploding_gradients(case: Case, recent: Columns, whole: Columns) -> Found:
    """A gradient, or the logits of an unbounded loss, have grown far beyond what they were when the run began."""
    figures = {f"the norm of the {network}'s gradient": (f"gradient_norm/{network}", network) for network in case.rates}
    figures["the spread of the logits"] = ("logits/std", "discriminator")
    for what, (tag, network) in figures.items():
        first, now = min(whole[tag][:BEGINNING], default=math.inf), median(recent[tag] or [0.0])
        if now > case.limits.explosion * max(first, 1):
            tries = ["regularizer=r1", case.slower(network), "trainer.gradient_clip=1"]
            cause = f"the {network}'s steps are too large, or nothing bounds the discriminator's slope"
            return f"{what} grew from {first:.2g} to {now:.2g} (medians)", cause, case.advice(*tries)
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
    found = measured("modes", recent, whole) if case.num_modes else []
    if stands_above([1 - modes / case.num_modes for modes in found], limits.modes_missing):
        evidence.append(f"samples are found in {found[-1]:.0f} of the data's {case.num_modes} modes")
    for kinds, metric, limit in (("classes", "class_kl", limits.class_kl), ("modes", "reverse_kl", limits.mode_kl)):
        if stands_above(values := measured(metric, recent, whole), limit):
            evidence.append(f"some {kinds} of the data are rare or missing (KL {values[-1]:.2f})")
    if not evidence:
        return None
    rates, tries = case.rates, ["regularizer=r1"]
    tries += [] if case.paired else ["loss=relativistic"]
    tries += ["architecture.conditional=true"] if case.labelled else []
    cause = "whatever pleases the discriminator now is worth more to the generator than variety"
    if rates["generator"] > rates["discriminator"]:
        ratio = rates["generator"] / rates["discriminator"]
        cause = f"the generator's learning rate is {ratio:.3g} times the discriminator's, which cannot follow"
        tries.insert(0, f"optimizer.discriminator.lr={rates['generator']:.2g}")
    tries.append(case.slower("generator"))
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
    tries = ["regularizer=r1", "architecture.discriminator.normalization=none", case.slower("generator")]
    return evidence, cause, case.advice(*tries)


def wrong_samples(case: Case, recent: Columns, whole: Columns) -> str | None:
    """What shows that samples are not the data's, whatever the losses say; None where nothing does."""
    limits, error, coverage = case.limits, recent["health/mean_error"], recent["health/coverage"]
    outside, poor = (measured(name, recent, whole) for name in ("pattern_error", "high_quality"))
    if stands_above(outside, limits.outside):
        return f"{outside[-1]:.0%} of the generated values lie outside their range"
    if stands_above([1 - share for share in poor], limits.poor):
        return f"{1 - poor[-1]:.0%} of the samples lie near no mode of the data"
    if stands_above(error, limits.mean_error):
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
    tries = [case.slower("generator"), "regularizer=r1"]
    return evidence, "the networks circle around each other instead of settling", case.advice(*tries)


def memorisation(case: Case, recent: Columns, whole: Columns) -> Found:
    """Samples are copies of training samples."""
    shares = max((measured("memorised", recent, whole), recent["health/memorised"]), key=lambda x: min(x, default=0.0))
    if not stands_above(shares, case.limits.memorised):
        return None
    evidence = f"{shares[-1]:.0%} of the samples lie nearer to a training sample than new data do"
    to_try = case.advice(f"trainer.steps={case.config.trainer.steps // 2}")
    return evidence, "too few data for networks of this size, or for so many steps", to_try


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
