"""The doctor: looks at both networks at the sampled steps of a run, and remembers what it found in its rows."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner.batches import draw_latent
from gan_runner.config.schema import FINDINGS
from gan_runner.datasets import ArrayDataset, Dataset
from gan_runner.health.rules import A_LOOK, BECAUSE_OF, WEIGHTED, Case, Finding, diagnose
from gan_runner.metrics.neighbours import nearest, usual_distances
from gan_runner.networks.running import apply, evaluated
from gan_runner.randomness import rng
from gan_runner.runs.logger import Row

DIRECTIONS = 10  # principal components of the data along which diversity is measured: beyond them lies mostly grain
NEIGHBOURS = 5
ORIGINALS, NUMBERS = 2000, 2**25  # training images, and numbers in them, among which the originals of copies are sought
CHUNK = 64  # samples that go through a network at once, as in a grid
NO_GRADIENT = 1e-3  # the slope of an activation that counts as none
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh)  # those that can pass no gradient


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
        self._originals: Tensor | None = None
        if isinstance(dataset, ArrayDataset) and len(dataset.shape) == 3:
            chosen = dataset.order(config.seed, 0)[: min(ORIGINALS, NUMBERS // math.prod(dataset.shape))]
            originals = dataset[chosen][0].cpu().unique(dim=0)  # one that is there twice is as near to itself as can be
            if len(originals) > 1:
                self._copies_are_within = usual_distances(originals, count).quantile(case.limits.copies)
                self._originals = originals
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
        with evaluated(discriminator), watched_units(discriminator) as of_discriminator:
            for real, fake, (_, labels) in zip(self._real.split(CHUNK), made, self._inputs, strict=True):
                both = torch.cat([real, fake]).to(device)
                apply(discriminator, both, None if labels is None else labels.repeat(2).to(device))
        samples = torch.cat(made)
        figures = self._data.compare(samples) | {
            "dead_units_generator": dead_share(of_generator),
            "dead_units_discriminator": dead_share(of_discriminator),
        }
        if self._originals is not None and samples.isfinite().all():
            distances = nearest(samples, self._originals, 1)[0]
            figures["memorised"] = float((distances <= self._copies_are_within).double().mean())
        return {f"health/{name}": value for name, value in figures.items()}

    def look(self, rows: Sequence[Row]) -> list[Finding]:
        """Takes in a run's rows up to a look; returns what it finds for the first time."""
        self.step, found = rows[-1]["step"], diagnose(rows, self.case)
        self.early = found is None
        present = {finding.name: finding for finding in found or []}
        new = [finding for name, finding in present.items() if name not in self.findings]
        for name, known in self.findings.items():
            explained = any(cause in present for cause in BECAUSE_OF.get(name, ()))  # nothing says that it is over
            gone = None if name in present else known.resolved if explained else known.resolved or self.step
            self.findings[name] = replace(known, resolved=gone)
        self.findings |= {finding.name: finding for finding in new}
        return new

    def diverged(self, step: int, evidence: str) -> Finding:
        """Takes in that a number is no longer finite, which no row can tell."""
        self.step = step
        clip = self.case.config.trainer.gradient_clip
        clips = ["trainer.gradient_clip=1"] if clip is None or clip > 1 else []
        tries = self.case.advice(*map(self.case.slower, self.case.rates), *clips)
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


Slopes = dict[tuple[nn.Module, int], Tensor]  # by activation and its number of units, of which it may have several


def dead_share(steepest: Slopes) -> float:
    """The share of units that pass (nearly) no gradient, in the layer that has most of them; 0 without layers."""
    return max((float((slopes <= NO_GRADIENT).float().mean()) for slopes in steepest.values()), default=0.0)


@contextmanager
def watched_units(network: nn.Module) -> Iterator[Slopes]:
    """While it lasts, notes the steepest slope (U,) of each unit of the activations that `network` runs.

    A unit is one feature, or one channel of a map. What follows the last linear layer is left out: there, a pixel that
    is black in all of the data is as it should be.
    """
    steepest: Slopes = {}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        units = output.flatten(2).transpose(1, 2).flatten(0, 1) if output.ndim > 2 else output  # (N, U)
        slope = units.abs()  # of ReLU it is 0 where the value is, of its smooth kin nearly so
        if isinstance(module, nn.Sigmoid):
            slope = units * (1 - units)
        elif isinstance(module, nn.Tanh):
            slope = 1 - units.square()
        key, found = (module, units.shape[1]), slope.amax(0)
        steepest[key] = torch.maximum(steepest.get(key, found), found)

    weighted = [i for i, module in enumerate(network.modules()) if isinstance(module, WEIGHTED)]
    hidden = list(network.modules())[: max(weighted, default=0)]
    hooks = [module.register_forward_hook(note) for module in hidden if isinstance(module, ACTIVATIONS)]
    try:
        yield steepest
    finally:
        for hook in hooks:
            hook.remove()
