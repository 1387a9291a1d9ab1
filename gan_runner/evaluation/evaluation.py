"""How close generated samples are to the data: the figures of all metrics, each with a perfect sampler's score.

An evaluation draws its own noise, so it does not change the training. Features are extracted once, and metrics get
slices of them. A metric that fails is reported; the others go on.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from gan_runner import pictures
from gan_runner.batches import draw_latent
from gan_runner.config.components import Experiment
from gan_runner.console import Progress, log_traceback, say
from gan_runner.datasets import DataFacts, Dataset
from gan_runner.errors import UserError, did_you_mean, type_and_message
from gan_runner.evaluation.extractors import Extract, extract, extract_cached, find_extractor, how_to_make
from gan_runner.evaluation.reference import TRAINING, ReferenceSamples, read_reference
from gan_runner.evaluation.report import Figure, Report
from gan_runner.metrics import Extractor, Goal, Metric, Samples
from gan_runner.randomness import rng
from gan_runner.stopping import stopping

Generate = Callable[[Tensor, Tensor | None], Tensor]  # z, labels -> samples in the data's own units, on the CPU

_GENERATED_AT_ONCE = 2**22  # numbers in a batch of generated samples
_COLUMNS = 8  # in each half of the picture of real and generated samples


class Evaluation:
    """The metrics of a run, and its dataset; whatever depends on real data alone is computed once.

    Raises `UserError` if a metric does not apply to this dataset. If there is no extractor, metrics that need one are
    left out, with a warning that says how to make one.
    """

    def __init__(self, experiment: Experiment, dataset: Dataset, device: torch.device) -> None:
        self.dataset = dataset
        self._config = experiment.config
        self._facts = DataFacts.of(dataset)
        self._perfect: dict[str, dict[str, float]] = {}  # a perfect sampler's figures, by metric
        self._progress: Progress | None = None
        self._done = 0  # samples, for `_progress`
        if self._config.evaluation.real == "held_out" and dataset.held_out() is None:
            raise UserError("evaluation.real=held_out: nothing is held out from these data; use training")
        metrics: dict[str, Metric] = {name: found.build() for name, found in experiment.group("metric").items()}
        for name, metric in metrics.items():
            if reason := metric.why_not_applicable(dataset, self._config.architecture.conditional):
                raise UserError(f"metric.{name}: {reason}")
        self.extractor: Extractor | None = None
        choice = self._config.evaluation.extractor
        if choice != "auto" or any(metric.needs for metric in metrics.values()):
            self.extractor = find_extractor(choice, dataset, device)
        self.metrics, self.left_out = _measurable(metrics, self.extractor, dataset)
        if self.left_out:
            say(f"warning: {self.left_out}")
        _check_metrics(self.metrics, self.extractor, self._config.evaluation.real_samples)

    @property
    def goals(self) -> dict[str, Goal | None]:
        """Every figure, and whether small or large is better."""
        return {figure: goal for metric in self.metrics.values() for figure, goal in metric.goals.items()}

    def __call__(self, generate: Generate, seed: int, with_pictures: bool, parent: Progress | None = None) -> Report:
        """Measures the samples that `generate` makes from the noise of `seed`."""
        report, self._progress, self._done = Report(), None, 0
        if not self.metrics:
            return report
        try:
            with _survived("nothing could be measured", report.failures, self.metrics):
                counts, to_extract = [metric.samples for metric in self.metrics.values()], self._to_extract()
                self._progress = Progress("evaluated", max(counts) + sum(to_extract) + sum(counts), parent=parent)
                generated = self._generate(max(counts), generate, seed)
            if not report.failures:
                self._measure_all(generated, to_extract, report, with_pictures)
        finally:
            if self._progress is not None:
                self._progress.close()
        return report

    @cached_property
    def _reference(self) -> ReferenceSamples:
        settings = self._config.evaluation
        return read_reference(
            self.dataset, self.metrics.values(), settings.real_samples, against_held_out=settings.real == "held_out"
        )

    def _is_against_held_out(self, metric: Metric) -> bool:
        return self._config.evaluation.real == "held_out" and not metric.seeks_copies

    def _to_extract(self) -> tuple[int, int, int]:
        """How many generated, training and held-out samples still need features."""
        needing, reference = [metric for metric in self.metrics.values() if metric.needs], self._reference
        generated, training, held_out = 0, 0, 0
        for metric in needing:
            generated = max(generated, metric.samples)
            if self._is_against_held_out(metric):
                of_training, of_held_out = metric.samples, metric.real_count(len(reference.held_out))
            else:
                of_training, of_held_out = metric.real_count(len(reference.training)), metric.samples
            training = max(training, min(of_training, len(reference.training)))
            held_out = max(held_out, min(of_held_out, len(reference.held_out)))
        is_known = reference.training.extracted, reference.held_out.extracted
        return generated, 0 if is_known[0] else training, 0 if is_known[1] else held_out

    def _advance(self, count: int, text: str) -> None:
        stopping.leave_if_asked()
        self._done += count
        if self._progress is not None:
            self._progress.show(self._done, text)

    def _generate(self, count: int, generate: Generate, seed: int) -> Samples:
        """Generated samples; a conditional generator gets the labels of real samples."""
        real, labels = self._reference.training, None
        if self._config.architecture.conditional and real.labels is not None:
            labels = real.labels.repeat(-(-count // len(real)))[:count]
        batch, noise, batches = max(1, _GENERATED_AT_ONCE // math.prod(self._facts.shape)), rng(seed, "evaluation"), []
        for start in range(0, count, batch):
            z = draw_latent(self._config.architecture.latent, min(batch, count - start), noise)
            batches.append(generate(z, None if labels is None else labels[start : start + batch]))
            self._advance(len(z), "sampling")
        return Samples(torch.cat(batches), labels)

    def _with_features(self, samples: Samples, count: int, extract: Extract) -> Samples:
        """The samples, with features of the first `count`."""
        if not count or self.extractor is None:
            return samples
        return replace(samples, extracted=extract(samples[:count].data, self.extractor, self._advance))

    def _measure_all(
        self, generated: Samples, to_extract: tuple[int, int, int], report: Report, with_pictures: bool
    ) -> None:
        reference, needing = self._reference, [name for name, metric in self.metrics.items() if metric.needs]
        with _survived(f"metrics {', '.join(needing)} failed", report.failures, needing):
            generated = self._with_features(generated, to_extract[0], extract)
            reference.training = self._with_features(reference.training, to_extract[1], extract_cached)
            reference.held_out = self._with_features(reference.held_out, to_extract[2], extract_cached)
        for name, metric in self.metrics.items():
            if name not in report.failures:
                self._measure(name, metric, generated, report, with_pictures)
        if with_pictures and self._facts.is_image:
            with _survived("no picture of real samples beside generated ones"):
                sides = (reference.training.data, reference.training.labels, generated.values, generated.labels)
                report.pictures["samples"] = pictures.real_and_generated(*sides, _COLUMNS, self._facts.class_names)

    def _measure(self, name: str, metric: Metric, generated: Samples, report: Report, with_pictures: bool) -> None:
        """Adds the metric's figures to `report`, or why it failed."""
        reference, extractor = self._reference, self.extractor if metric.needs else None
        sides = [(reference.training, TRAINING), (reference.held_out, reference.origin)]
        (compared, which), (other, which_other) = sides[::-1] if self._is_against_held_out(metric) else sides
        samples, real = self._slices(metric, generated, compared)
        self._advance(0, name)
        with _survived(f"metric {name} failed", report.failures, [name]):
            values, perfect = metric.measure(samples, real, self.dataset), self._perfect_figures(name, metric)
            for figure, value in values.items():
                report.figures[figure] = Figure(
                    metric=name,
                    value=float(value),
                    perfect=perfect.get(figure),
                    goal=metric.goals[figure],
                    samples=len(samples),
                    real_samples=len(real),
                    real=which,
                    perfect_samples=min(metric.samples, len(other)),
                    held_out=which_other,
                    extractor=extractor.name if extractor else None,
                    extractor_hash=extractor.hash if extractor else None,
                )
            if with_pictures and (picture := metric.picture(samples, real, self.dataset)) is not None:
                report.pictures[name] = pictures.checked(picture)
        self._advance(metric.samples, name)

    def _slices(self, metric: Metric, samples: Samples, real: Samples) -> tuple[Samples, Samples]:
        """What a metric gets of both; features only if it needs them."""
        samples, real = samples[: metric.samples], real[: metric.real_count(len(real))]
        if metric.needs or self.extractor is None:
            return samples, real
        return replace(samples, extracted=None), replace(real, extracted=None)

    def _perfect_figures(self, name: str, metric: Metric) -> dict[str, float]:
        """A perfect sampler's figures: those of other real samples. None if there are too few."""
        if name not in self._perfect:
            training, held_out = self._reference.training, self._reference.held_out
            if self._is_against_held_out(metric):
                other, real = self._slices(metric, training, held_out)
            else:
                other, real = self._slices(metric, held_out, training[: self._reference.training_for_held_out])
            self._perfect[name] = {}
            with _survived(f"metric {name} cannot tell what a perfect sampler would score"):
                self._perfect[name] = metric.measure(other, real, self.dataset)
        return self._perfect[name]


def _measurable(
    metrics: dict[str, Metric], extractor: Extractor | None, dataset: Dataset
) -> tuple[dict[str, Metric], str]:
    """The metrics that get the features or classes they need, and a sentence about the others, if there are any."""
    classes = extractor.classes if extractor is not None else 0
    if classes and dataset.num_classes and classes != dataset.num_classes and not dataset.cluster_sizes:
        raise UserError(f"evaluation.extractor: tells {classes} classes apart; these data have {dataset.num_classes}")
    available = {None, "features" if extractor is not None else None, "classes" if classes else None}
    lacking = {name: metric.needs for name, metric in metrics.items() if metric.needs not in available}
    left_out = ""
    if lacking:
        how = how_to_make(dataset, "classes" if set(lacking.values()) == {"classes"} else "features")
        left_out = f"left out for want of an extractor: {', '.join(lacking)}; {how}"
    return {name: metric for name, metric in metrics.items() if name not in lacking}, left_out


def _check_metrics(metrics: dict[str, Metric], extractor: Extractor | None, limit: int | None) -> None:
    """Raises `UserError` if two metrics compute the same figure, or a metric gets too few samples."""
    owners: dict[str, str] = {}
    for name, metric in metrics.items():
        for figure in metric.goals:
            if figure in owners:
                raise UserError(f"metric.{name}: computes '{figure}', and so does metric.{owners[figure]}")
            owners[figure] = name
        needed = metric.min_samples(extractor.features if extractor is not None else 0)
        if metric.samples < needed:
            raise UserError(f"metric.{name}.samples is {metric.samples}; allowed: at least {needed}")
        if limit is not None and limit < needed and metric.against != "none":
            raise UserError(f"evaluation.real_samples is {limit}; metric.{name} needs at least {needed}")


@contextmanager
def _survived(what: str, failures: dict[str, str] | None = None, names: Iterable[str] = ()) -> Iterator[None]:
    """Says in one line what failed and why, logs the traceback, and adds the reason to the failures of `names`."""
    try:
        yield
    except Exception as error:
        say(f"warning: {what}: {type_and_message(error)}")
        log_traceback(error)
        if failures is not None:
            failures |= dict.fromkeys(names, type_and_message(error))


def choose_objective(evaluation: Evaluation, wanted: str | None) -> tuple[str, Goal] | None:
    """The figure that chooses the best checkpoint, `wanted` or the first, and whether small or large is better.

    Raises `UserError` if `wanted` is not computed, or if neither small nor large is better.
    """
    goals = {f"metric/{name}": goal for name, goal in evaluation.goals.items() if goal is not None}
    if wanted is None:
        return next(iter(goals.items()), None)
    if wanted not in goals:
        computed = did_you_mean(wanted, goals) if goals else evaluation.left_out or "this run computes no metric"
        raise UserError(f"trainer.objective={wanted}: no such figure; {computed}")
    return wanted, goals[wanted]
