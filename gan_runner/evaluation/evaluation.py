"""How near a generator has come to its data, and beside each figure what a perfect sampler would score.

An evaluation draws its own noise, looks at the generator in eval mode, and settles every number of samples before it
begins. A metric that fails is reported, and ends nothing.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sized
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gan_runner.batches import draw_latent
from gan_runner.config.components import find_component
from gan_runner.config.schema import Config
from gan_runner.console import Progress, rounded, say
from gan_runner.datasets import ArrayDataset, DataFacts, Dataset
from gan_runner.errors import UserError, did_you_mean
from gan_runner.evaluation.extractors import find_extractor, how_to_make
from gan_runner.metrics import Extractor, Goal, Metric, Need, Rows, Samples, Stored
from gan_runner.paths import cache_folder, write_atomically
from gan_runner.pictures import Picture, beside
from gan_runner.randomness import rng

Generate = Callable[[Tensor, Tensor | None], Tensor]  # latents, labels -> samples in the data's own units, on the CPU

_CHUNK = 2**22  # numbers in a chunk of generated samples
_LOOK = 1024  # images that the extractor looks at between two signs of progress
_COLUMNS = 8  # of each half of the picture of real and generated samples


@dataclass(frozen=True)
class Figure:
    """A number and all that it depends on."""

    metric: str
    value: float  # NaN where the samples leave it undefined
    perfect: float | None  # the same of held-out data in place of generated samples
    goal: Goal | None
    samples: int
    real_samples: int
    perfect_samples: int
    held_out: str
    extractor: str | None
    extractor_hash: str | None

    @property
    def perfect_sampler(self) -> str:
        """`perfect` in words, with its N where there were fewer held-out samples than generated ones."""
        if self.perfect is None:
            return ""
        fewer = "" if self.perfect_samples == self.samples else f" at N {self.perfect_samples:,}"
        return f"a perfect sampler {rounded(self.perfect)}{fewer}"


@dataclass
class Report:
    """What an evaluation found."""

    figures: dict[str, Figure] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # by metric
    pictures: dict[str, Picture] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """The figures as the logger wants them; what is undefined is left out."""
        return {f"metric/{name}": f.value for name, f in self.figures.items() if math.isfinite(f.value)}

    def to_json(self) -> dict[str, Any]:
        """The content of evaluation.json; null for what is undefined."""
        figures = {
            name: {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(f).items()}
            for name, f in self.figures.items()
        }
        return {"figures": figures, "failures": self.failures}


class Evaluation:
    """A dataset with the metrics to hold a generator against it; what concerns real data alone is computed once.

    Raises `UserError` where a metric says nothing about this dataset. Metrics that want an extractor where there is
    none are left out, which is said with the command that makes one.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device) -> None:
        config = getattr(config, "config", config)
        self.dataset = dataset
        self._config = config
        self._facts = DataFacts.of(dataset)
        self.extractor: Extractor | None = None
        self._first = cache(lambda side, count: side[:count])
        self._perfect: dict[str, dict[str, float]] = {}
        self._done = 0
        self._progress: Progress | None = None
        metrics: dict[str, Metric] = {name: find_component(config, f"metric.{name}").build() for name in config.metric}
        for name, metric in metrics.items():
            if reason := metric.unfit(dataset, config.architecture.conditional):
                raise UserError(f"metric.{name}: {reason}")
        if config.evaluation.extractor != "auto" or any(metric.needs for metric in metrics.values()):
            self.extractor = find_extractor(config.evaluation.extractor, dataset, device)
        classes = self.extractor.classes if self.extractor is not None else 0
        if classes and dataset.num_classes and classes != dataset.num_classes:
            raise UserError(
                f"evaluation.extractor: tells {classes} classes apart; these data have {dataset.num_classes}"
            )
        seen = (None, "features" if self.extractor is not None else None, "classes" if classes else None)
        blind = [name for name, metric in metrics.items() if metric.needs not in seen]
        if blind:
            kind: Need = "classes" if all(metrics[name].needs == "classes" for name in blind) else "features"
            say(f"warning: left out for want of an extractor: {', '.join(blind)}; {how_to_make(dataset, kind)}")
        self.metrics = {name: metric for name, metric in metrics.items() if name not in blind}
        self._check_figures()
        self._check_numbers()

    def _check_figures(self) -> None:
        """UserError where two metrics compute a figure of one name: one of them would be lost."""
        owners: dict[str, str] = {}
        for name, metric in self.metrics.items():
            for figure in metric.goals:
                if figure in owners:
                    raise UserError(f"metric.{name}: computes '{figure}', and so does metric.{owners[figure]}")
                owners[figure] = name

    def _check_numbers(self) -> None:
        """UserError where a metric would have too few samples at each evaluation because a key says so."""
        limit = self._config.evaluation.real_samples
        for name, metric in self.metrics.items():
            least = metric.least(self.extractor.features if self.extractor is not None else 0)
            if metric.samples < least:
                raise UserError(f"metric.{name}.samples is {metric.samples}; allowed: at least {least}")
            if limit is not None and limit < least and metric.against != "none":
                raise UserError(f"evaluation.real_samples is {limit}; metric.{name} needs at least {least}")

    @property
    def goals(self) -> dict[str, Goal | None]:
        """Every figure that is computed, and which way is better."""
        return {figure: goal for metric in self.metrics.values() for figure, goal in metric.goals.items()}

    def __call__(self, generate: Generate, seed: int, with_pictures: bool, part_of: Progress | None = None) -> Report:
        """Measures what `generate` makes of the noise that belongs to `seed`, perhaps as a part of other work."""
        report = Report()
        if not self.metrics:
            return report
        self._done, self._progress = 0, None
        try:
            self._progress = Progress("evaluated", self._work(), part_of=part_of)
            made = self._draw(generate, seed)
        except Exception as error:
            report.failures = dict.fromkeys(self.metrics, _one_line(error))
            say(f"warning: nothing could be measured: {_one_line(error)}")
        else:
            self._measure(report, made, with_pictures)
        finally:
            if self._progress is not None:
                self._progress.close()
        return report

    def _measure(self, report: Report, made: Samples, with_pictures: bool) -> None:
        """Adds to `report` what each metric says of the samples `made`, or why it fails."""
        first = cache(lambda count: made[:count])
        real = self._real.samples
        for name, metric in self.metrics.items():
            part, (truth, ideal, reference) = first(metric.samples), self._parts_of_real(metric)
            extractor = self.extractor if metric.needs else None
            self._advance(0, name)
            try:
                found = metric.measure(part, truth, self.dataset)
                best = self._score_of_perfect(name, metric, ideal, reference)
                for figure, value in found.items():
                    report.figures[figure] = Figure(
                        metric=name,
                        value=float(value),
                        perfect=best.get(figure),
                        goal=metric.goals[figure],
                        samples=len(part),
                        real_samples=len(truth),
                        perfect_samples=len(ideal),
                        held_out=self._real.whence,
                        extractor=extractor.name if extractor else None,
                        extractor_hash=extractor.hash if extractor else None,
                    )
                if with_pictures and (picture := metric.picture(part, truth, self.dataset)) is not None:
                    report.pictures[name] = picture
            except Exception as error:
                report.failures[name] = _one_line(error)
                say(f"warning: metric {name} failed: {report.failures[name]}")
            self._advance(metric.samples, name)
        if with_pictures and self._facts.is_image:
            try:
                report.pictures["samples"] = beside(real.rows, real.labels, made.values, made.labels, _COLUMNS)
            except Exception as error:
                say(f"warning: no picture of real samples beside generated ones: {_one_line(error)}")

    def _parts_of_real(self, metric: Metric) -> tuple[Samples, Samples, Samples]:
        """What a metric sees of the real, the ideal and the reference samples.

        One for all metrics and evaluations that want as many, so that its features are found once.
        """
        real = self._real
        truth, reference = (self._first(side, _wanted(metric, len(side))) for side in (real.samples, real.reference))
        return truth, self._first(real.ideal, metric.samples), reference

    def _work(self) -> int:
        """How many samples there are to draw, to look at (by the extractor) and to measure, each metric's apart."""
        looking = {name: metric for name, metric in self.metrics.items() if metric.needs}
        made = {metric.samples for metric in looking.values()}
        real = {
            id(part): len(part)
            for name, metric in looking.items()
            for part in self._parts_of_real(metric)[: 1 if name in self._perfect else 3]
            if not part.is_seen
        }
        samples = [metric.samples for metric in self.metrics.values()]
        return max(samples) + sum(samples) + sum(made) + sum(real.values())

    def _advance(self, count: int, text: str) -> None:
        self._done += count
        if self._progress is not None:
            self._progress.show(self._done, text)

    def _draw(self, generate: Generate, seed: int) -> Samples:
        """As many samples as any metric wants; a conditional generator is asked for the data's labels."""
        count = max(metric.samples for metric in self.metrics.values())
        real, labels = self._real.samples, None
        if self._config.architecture.conditional and real.labels is not None:
            labels = real.labels.repeat(-(-count // len(real)))[:count]
        chunk, noise, made = max(1, _CHUNK // math.prod(self._facts.shape)), rng(seed, "evaluation"), []
        for start in range(0, count, chunk):
            z = draw_latent(self._config.architecture.latent, min(chunk, count - start), noise)
            made.append(generate(z, None if labels is None else labels[start : start + chunk]))
            self._advance(len(z), "sampling")
        extractor = self.extractor and Looking(self.extractor, self._advance, remembers=False)
        return Samples(torch.cat(made), labels, extractor)

    @cached_property
    def _real(self) -> "Real":
        wanted = max(metric.samples for metric in self.metrics.values())
        knows = all(metric.against != "all" for metric in self.metrics.values())
        limit = self._config.evaluation.real_samples
        held_out = self.dataset.held_out()
        if held_out is not None:
            most = wanted if knows and (limit is None or wanted < limit) else limit
            whence = "fresh samples" if held_out is self.dataset else "data held out from training"
            real = self._take(self.dataset, most, wanted, 0)
            return Real(real, self._take(held_out, wanted, wanted, 1), real, whence)
        real = self._take(self.dataset, limit, 2 * wanted, 0)
        half = len(real) // 2
        return Real(real, real[half:], real[:half], "half of the training data, held against the other half")

    def _take(self, dataset: Dataset, most: int | None, wanted: int, seed: int) -> Samples:
        """Up to `most` samples of a finite dataset, in an order of their own; `wanted` of one without end."""
        look = self.extractor and Looking(self.extractor, self._advance, remembers=True)
        if isinstance(dataset, ArrayDataset) and self._facts.is_image:  # there may be more than fit into memory
            indices = dataset.order(seed, 0)[:most]
            labels = None if dataset.labels is None else dataset.labels[indices].cpu()
            return Samples(Stored(dataset, indices, self._facts.in_data_units), labels, look)
        count = min(most or len(dataset), len(dataset)) if isinstance(dataset, Sized) else wanted
        values, labels = dataset.batch(0, count, seed)
        return Samples(self._facts.in_data_units(values.cpu()), None if labels is None else labels.cpu(), look)

    def _score_of_perfect(self, name: str, metric: Metric, ideal: Samples, real: Samples) -> dict[str, float]:
        """The metric's figures of held-out data; none where there are too few of them."""
        if name not in self._perfect:
            try:
                self._perfect[name] = metric.measure(ideal, real, self.dataset)
            except Exception as error:
                say(f"warning: metric {name} cannot tell what a perfect sampler would score: {_one_line(error)}")
                self._perfect[name] = {}
        return self._perfect[name]


@dataclass(frozen=True)
class Real:
    """Real samples, and those that stand for a perfect generator's."""

    samples: Samples  # what generated samples are held against
    ideal: Samples
    reference: Samples  # what `ideal` is held against: the same, or where it is itself a part of them, the rest
    whence: str  # `ideal` comes


class Looking:
    """An extractor that tells how far it has come, as `advance(count, text)`.

    One that `remembers` looks only once at images it meets again, in this run or another: the real ones.
    """

    def __init__(self, extractor: Extractor, advance: Callable[[int, str], None], remembers: bool) -> None:
        self.name, self.hash, self.classes = extractor.name, extractor.hash, extractor.classes
        self._extractor, self._advance, self._remembers = extractor, advance, remembers

    def __call__(self, images: Rows) -> tuple[Tensor, Tensor | None]:
        """As the extractor itself; kept in the cache folder under the hash of what goes into it."""
        if not self._remembers:
            return self._look(images)
        content = hashlib.sha256(json.dumps([self.hash, list(images.shape)]).encode())
        for chunk in _chunks(images):
            content.update(chunk.contiguous().numpy().data)
        path = cache_folder() / "features" / f"{content.hexdigest()}.safetensors"
        try:
            kept = safetensors.torch.load(path.read_bytes())
            features, classes = kept["features"], kept.get("classes")
            self._advance(len(images), self.name)
            return features, classes
        except (OSError, safetensors.SafetensorError, KeyError):
            features, classes = self._look(images)
        kept = {"features": features} | ({} if classes is None else {"classes": classes})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, safetensors.torch.save(kept))
        except OSError as error:
            say(f"warning: {path}: cannot be kept: {error.strerror}")
        return features, classes

    def _look(self, images: Rows) -> tuple[Tensor, Tensor | None]:
        features, classes = [], []
        for chunk in _chunks(images):
            seen, kinds = self._extractor(chunk)
            features.append(seen)
            classes += [] if kinds is None else [kinds]
            self._advance(len(chunk), self.name)
        return torch.cat(features), torch.cat(classes) if classes else None


def _chunks(images: Rows) -> Iterator[Tensor]:
    return (images[start : start + _LOOK] for start in range(0, len(images), _LOOK))


def _wanted(metric: Metric, real: int) -> int:
    """How many of so many real samples the metric is to see."""
    return {"all": real, "as many": min(metric.samples, real), "none": 0}[metric.against]


def choose_objective(evaluation: Evaluation, wanted: str | None) -> tuple[str, Goal] | None:
    """The figure by which the best checkpoint is chosen, and which way is better: the first one unless told.

    Raises `UserError` where `wanted` is not computed, or has no better or worse.
    """
    goals = {f"metric/{name}": goal for name, goal in evaluation.goals.items() if goal is not None}
    if wanted is None:
        return next(iter(goals.items()), None)
    if wanted not in goals:
        computed = did_you_mean(wanted, goals) if goals else "this run computes no metric"
        raise UserError(f"trainer.objective={wanted}: no such figure; {computed}")
    return wanted, goals[wanted]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
