"""The doctor: examines both networks at the sampled steps of a run, and keeps its findings.

They depend on the rows of metrics.jsonl alone, so a resumed run finds the same as an uninterrupted one.
"""

import itertools
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner.batches import draw_latent
from gan_runner.health.context import EXAMINED, History, RuleContext
from gan_runner.health.figures import DataStatistics, TrainingImages, dead_share, recorded_slopes
from gan_runner.health.rules import FINDINGS, RULES
from gan_runner.networks.running import apply, eval_mode, pack
from gan_runner.randomness import rng

BATCH = 64  # samples that go through a network at once


@dataclass(frozen=True)
class Finding:
    """What is wrong with a run, and the evidence."""

    name: str  # one of FINDINGS
    step: int  # when it was found
    evidence: str  # figures at that step
    cause: str  # the likely one
    to_try: Sequence[str]  # overrides, each to be tried by itself
    resolved: int | None = None  # the step from which it no longer held

    def __str__(self) -> str:
        sign = f"{self.name.replace('_', ' ')} (step {self.step}): {self.evidence}"
        return f"{sign}. Likely cause: {self.cause}. Try: {', or '.join(map(shlex.quote, self.to_try))}"

    def to_json(self) -> dict[str, Any]:
        """Its entry in health.json."""
        found = {"name": self.name, "step": self.step, "evidence": self.evidence, "cause": self.cause}
        return {**found, "try": list(self.to_try), "resolved": self.resolved}


def diagnose(context: RuleContext, history: History) -> list[Finding] | None:
    """What has been wrong for the last `patience` examinations and a third of the run so far; None: too early to tell.

    A rule is skipped if an earlier finding explains what it would find.
    """
    limits, begin, now = context.limits, history.begin, history.step
    examined = history.examined(limits.patience)
    if len(examined) < limits.patience or now - begin < limits.grace * (context.config.trainer.steps - begin):
        return None
    history.since = min(examined[0], begin + (now - begin) * 2 // 3)
    findings: list[Finding] = []
    for name, rule in RULES.items():
        explained = any(finding.name in rule.explained_by for finding in findings)
        if not explained and (found := rule.find(context, history)) is not None:
            findings.append(Finding(name, now, *found))
    return findings


class Doctor:
    """Examines both networks, and knows all findings of a run and which of them still hold.

    `rows` are those that a resumed run already has.
    """

    def __init__(self, context: RuleContext, rows: Iterable[Mapping[str, Any]]) -> None:
        self.context = context
        self.step, self.too_early = 0, True
        self.findings: dict[str, Finding] = {}
        config, size, packing = context.config, context.config.trainer.batch_size, context.config.trainer.packing
        count = context.limits.samples - context.limits.samples % packing  # in whole packs, as each part of them
        batches = [context.dataset.batch(number, size, config.seed) for number in range(math.ceil(count / size))]
        real = torch.cat([samples.cpu() for samples, _ in batches])[:count]
        classes = None
        if config.architecture.conditional:
            classes = torch.cat([labels.cpu() for _, labels in batches if labels is not None])[:count]
        at_once = BATCH - BATCH % packing
        z = draw_latent(config.architecture.latent, count, rng(config.seed, "health")).split(at_once)
        labels = itertools.repeat(None, len(z)) if classes is None else classes.split(at_once)
        self._inputs = list(zip(z, labels, real.split(at_once), strict=True))
        self._data = DataStatistics(real, classes)
        self._images = TrainingImages(context.dataset, config.seed, count, context.limits.copies)
        self._history = History(config.trainer.generator_start, config.trainer.steps)
        for row in rows:
            self.add(row)

    @torch.no_grad()
    def examine(
        self, generate: Callable[[Tensor, Tensor | None], Tensor], generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, float]:
        """The figures of one examination, which belong in the step's row.

        `generate` applies `generator` in eval mode. No weight, buffer or random state changes.
        """
        device = next(discriminator.parameters()).device
        with eval_mode(generator), recorded_slopes(generator) as of_generator:
            batches = [generate(z, labels) for z, labels, _ in self._inputs]
        with eval_mode(discriminator), recorded_slopes(discriminator) as of_discriminator:
            for fake, (_, labels, real) in zip(batches, self._inputs, strict=True):
                both = pack(torch.cat([real, fake]), self.context.config.trainer.packing).to(device)
                apply(discriminator, both, None if labels is None else labels.repeat(2).to(device))
        samples = torch.cat(batches)
        dead = {"generator": dead_share(of_generator), "discriminator": dead_share(of_discriminator)}
        figures = self._data.compare(samples) | {f"dead_units_{name}": share for name, share in dead.items()}
        figures |= self._images.compare(samples)
        return {f"health/{name}": value for name, value in figures.items()}

    def add(self, row: Mapping[str, Any]) -> list[Finding]:
        """Adds the next row of the run. If the networks were examined in it, returns the findings that are new."""
        self._history.append(row)
        if EXAMINED not in row:
            return []
        self.step, found = row["step"], diagnose(self.context, self._history)
        self.too_early = found is None
        present = {finding.name: finding for finding in found or []}
        new = [finding for name, finding in present.items() if name not in self.findings]
        for name, known in self.findings.items():
            explained = name in RULES and any(cause in present for cause in RULES[name].explained_by)
            if name in present:
                self.findings[name] = replace(known, resolved=None)
            elif known.resolved is None and not explained:  # explained by another finding, it may still hold
                self.findings[name] = replace(known, resolved=self.step)
        self.findings |= {finding.name: finding for finding in new}
        return new

    def diverged(self, step: int, evidence: str) -> Finding:
        """Adds the finding that a number is no longer finite, which no row shows and no rule finds."""
        context, clip = self.context, self.context.config.trainer.gradient_clip
        clips = ["trainer.gradient_clip=1"] if clip is None or clip > 1 else []
        to_try = context.advice(*map(context.lower_rate, context.learning_rates), *clips)
        finding = Finding("divergence", step, evidence, "steps that are too large", to_try)
        self.step, self.findings["divergence"] = step, finding
        return finding

    @property
    def present(self) -> list[str]:
        """The findings that hold, causes before their consequences."""
        return [name for name in FINDINGS if name in self.findings and self.findings[name].resolved is None]

    def report(self) -> dict[str, Any]:
        """The content of health.json."""
        verdict = [*self.present, "too early to tell" if self.too_early else "healthy"][0]
        findings = [finding.to_json() for finding in self.findings.values()]
        return {"step": self.step, "verdict": verdict, "findings": findings}
