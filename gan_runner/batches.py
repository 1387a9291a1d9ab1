"""What a step is given: real samples, noise and labels, as functions of (seed, step, rank)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gan_runner.augmentation import Augmentation
from gan_runner.config.schema import Latent
from gan_runner.datasets import Dataset
from gan_runner.game import UpdateBatch
from gan_runner.randomness import rng
from gan_runner.regularizers import Regularizer
from gan_runner.state import State
from gan_runner.step import Rates, StepBatch


def draw_latent(latent: Latent, count: int, noise: torch.Generator) -> Tensor:
    """Inputs for the generator, (count, latent.dim), on the CPU."""
    if latent.distribution == "constant":
        return torch.full((count, latent.dim), latent.loc)
    draw = torch.randn if latent.distribution == "normal" else torch.rand
    return latent.loc + latent.scale * draw(count, latent.dim, generator=noise)


def draw_labels(num_classes: int, cluster_sizes: Sequence[int], count: int, noise: torch.Generator) -> Tensor:
    """Class numbers (count,) on the CPU: clusters by their size, other classes equally often."""
    if not cluster_sizes:
        return torch.randint(num_classes, (count,), generator=noise)
    ends = torch.tensor(cluster_sizes).cumsum(0)
    return torch.searchsorted(ends, torch.randint(int(ends[-1]), (count,), generator=noise), right=True)


@dataclass(frozen=True)
class Batches:
    """Draws the batches of one process. Each is a slice of the global batch, which does not depend on their number."""

    dataset: Dataset
    latent: Latent
    num_classes: int  # that the networks are conditioned on, 0: none
    regularizers: Mapping[str, Regularizer]
    augmentation: Augmentation | None
    pairs: bool  # whether the generator's loss sees real samples
    seed: int
    size: int  # of the global batch
    share: slice  # this process's part of it
    device: torch.device
    discriminator_steps: int  # k
    reuse_noise: bool  # the generator's update takes the noise of the last update of the discriminator
    generator_start: float  # the generator stays as it is up to this step
    seed_networks: Callable[[int], None]  # seeds what networks draw themselves (dropout) in a step

    def at(self, step: int) -> StepBatch:
        """The batches of `step` = 1, 2, …: k for the discriminator, one for the generator. Seeds the networks, too."""
        self.seed_networks(step)
        noise, k = self._noise(step), self.discriminator_steps
        augmented = self._augmented(step)
        without_real = not self.pairs  # then the generator's loss sees no real samples
        numbers = range((step - 1) * k, step * k)
        updates = [augmented(self._for_discriminator(number, *next(noise))) for number in numbers]
        last = updates[-1]
        if step <= self.generator_start:
            return StepBatch(updates, None)
        if self.reuse_noise:
            return StepBatch(updates, augmented(last._replace(uniform=None, due=()), without_real))
        z, fake_labels = next(noise)
        return StepBatch(updates, augmented(UpdateBatch(last.real, z, last.real_labels, fake_labels), without_real))

    def _for_discriminator(self, number: int, z: Tensor, fake_labels: Tensor | None) -> UpdateBatch:
        """The batch of the discriminator's update `number` = 0, 1, …"""
        real, labels = self.dataset.batch(number, self.size, self.seed, self.share)
        real = self._to_device(real)
        labels = self._to_device(labels) if self.num_classes and labels is not None else None
        due = tuple(name for name, r in self.regularizers.items() if number % r.interval == 0)
        return UpdateBatch(real, z, labels, fake_labels, self._uniform(number, due) if due else None, due)

    def _uniform(self, number: int, due: tuple[str, ...]) -> Tensor:
        """Random numbers for the penalties that are due, which share them."""
        most = max(self.regularizers[name].uniforms for name in due)
        return self._mine(torch.rand(self.size, most, generator=rng(self.seed, "uniform", number)))

    def _augmented(self, step: int) -> Callable[..., UpdateBatch]:
        """Adds to one update of `step` after another what its augmentation needs: fresh numbers for each sample."""
        augmentation = self.augmentation
        if augmentation is None:
            return lambda update, without_real=False: update
        numbers = rng(self.seed, "augmentation", step)
        strength = self._mine(torch.full((self.size,), augmentation.strength(step)))

        def drawn() -> Tensor:
            uniform = torch.rand(self.size, augmentation.uniforms, generator=numbers)
            normal = torch.randn(self.size, augmentation.normals, generator=numbers)
            return self._mine(torch.cat([uniform, normal], dim=1))

        def add(update: UpdateBatch, without_real: bool = False) -> UpdateBatch:
            fake, real = drawn(), None if without_real else drawn()
            return update._replace(real_drawn=real, fake_drawn=fake, strength=strength)

        return add

    def _noise(self, step: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Latents, and labels drawn at random, for one update of `step` after another."""
        while self.latent.distribution == "constant" and not self.num_classes:
            yield self._constant.clone(), None  # a network may work in place
        noise = rng(self.seed, "noise", step)
        while True:
            z = self._mine(draw_latent(self.latent, self.size, noise))
            labels = None
            if self.num_classes:
                drawn = draw_labels(self.num_classes, self.dataset.cluster_sizes, self.size, noise)
                labels = self._mine(drawn)
            yield z, labels

    @cached_property
    def _constant(self) -> Tensor:
        return self._mine(draw_latent(self.latent, self.size, rng(self.seed)))

    def _mine(self, tensor: Tensor) -> Tensor:
        """This process's part of what was drawn for all, on its device."""
        return self._to_device(tensor[self.share])

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class Schedule:
    """The learning rates of both networks over a run, and the weight of the newest weights in the moving average."""

    kind: str  # constant, or linear or cosine, which fall to 0 at the end of the run
    warmup_steps: int  # over which the rates rise linearly
    steps: int
    generator_start: int
    state: State

    def __call__(self, step: int) -> Rates:
        """Those of `step` = 1 … steps."""
        factor = learning_rate_factor(self.kind, self.warmup_steps, step, self.steps)
        rates = {name: network.optimizer.learning_rate * factor for name, network in self.state.networks()}
        average = self.state.average if step > self.generator_start else None
        weight = 0.0 if average is None else average.next_weight()
        return Rates(rates["discriminator"], rates.get("generator", 0.0), weight)


def learning_rate_factor(schedule: str, warmup_steps: int, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at `step` (1 … steps)."""
    progress = (step - 1) / steps
    factor = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[schedule]
    return factor * min(1.0, step / (warmup_steps + 1))
