"""From a checked configuration to the objects it describes; facts about the data go to the networks here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner.config import Architecture, Config, Latent, Section, find_component
from gan_runner.datasets import Dataset
from gan_runner.errors import UserError
from gan_runner.losses import Loss
from gan_runner.randomness import derive
from gan_runner.regularizers import Regularizer


class Facts(Section):
    """What networks must know of the data; kept in manifest.json, so that sampling needs no dataset."""

    shape: tuple[int, ...]  # (C, H, W) for images, (D,) for vectors
    value_range: tuple[float, float] | None  # of the values that the networks see; None: unbounded
    num_classes: int  # 0: unlabelled

    @classmethod
    def of(cls, dataset: Dataset) -> "Facts":
        """The facts of a dataset."""
        return cls(shape=dataset.shape, value_range=dataset.value_range, num_classes=dataset.num_classes)

    @property
    def is_image(self) -> bool:
        """Whether samples are (C, H, W) with one or three channels."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    def in_data_units(self, samples: Tensor) -> Tensor:
        """Samples as the data's owner knows them: images in [0, 1] whatever the networks use, vectors as they are."""
        if not self.is_image or self.value_range is None:
            return samples.float()
        low, high = self.value_range
        return ((samples.float() - low) / (high - low)).clamp(0, 1)


@dataclass
class Parts:
    """Everything that a training is made of, besides the loop."""

    generator: nn.Module
    discriminator: nn.Module
    loss: Loss
    regularizers: dict[str, Regularizer]
    optimizers: dict[str, torch.optim.Optimizer]  # by the name of the network; none for one without parameters


def build_dataset(config: Config) -> Dataset:
    """The dataset, read and checked."""
    return find_component(config, "dataset").build()


def build_generator(config: Config, facts: Facts) -> nn.Module:
    """The generator for data of these facts, on the CPU, initialised by the seed alone."""
    torch.manual_seed(derive(config.seed, "generator"))
    return find_component(config, "architecture.generator").build(
        latent_dim=config.architecture.latent.dim,
        shape=facts.shape,
        num_classes=labels_wanted(config.architecture, facts),
        value_range=facts.value_range,
    )


def build_parts(config: Config, facts: Facts, device: torch.device) -> Parts:
    """Networks, loss, regularizers and optimizers, on `device`."""
    generator = build_generator(config, facts)
    torch.manual_seed(derive(config.seed, "discriminator"))
    discriminator = find_component(config, "architecture.discriminator").build(
        shape=facts.shape,
        num_classes=labels_wanted(config.architecture, facts),
        value_range=facts.value_range,
    )
    networks = {"generator": generator, "discriminator": discriminator}
    optimizers = {}
    for name, network in networks.items():
        # Channels-last convolutions are faster on CPUs and GPUs alike; other layers do not notice.
        network.to(device, memory_format=torch.channels_last)
        if any(True for _ in network.parameters()):
            optimizers[name] = find_component(config, f"optimizer.{name}").build(params=list(network.parameters()))
    if "discriminator" not in optimizers:
        raise UserError("architecture.discriminator: has no parameters to train")
    regularizers = {name: find_component(config, f"regularizer.{name}").build() for name in config.regularizer}
    return Parts(generator, discriminator, find_component(config, "loss").build(), regularizers, optimizers)


def labels_wanted(architecture: Architecture, facts: Facts) -> int:
    """The number of classes the networks are conditioned on, 0 for none; refuses to condition on labels not there."""
    if architecture.conditional and not facts.num_classes:
        raise UserError("architecture.conditional=true: this dataset has no labels to condition on")
    return facts.num_classes if architecture.conditional else 0


def draw_latent(latent: Latent, count: int, noise: torch.Generator) -> Tensor:
    """Inputs for the generator, (count, latent.dim), on the CPU."""
    if latent.distribution == "constant":
        return torch.full((count, latent.dim), latent.loc)
    draw = torch.randn if latent.distribution == "normal" else torch.rand
    return latent.loc + latent.scale * draw(count, latent.dim, generator=noise)


@contextmanager
def evaluated(network: nn.Module) -> Iterator[None]:
    """The network in eval mode while it lasts, however it ends."""
    network.eval()
    try:
        yield
    finally:
        network.train()


def apply(network: nn.Module, inputs: Tensor, labels: Tensor | None) -> Any:
    """The network's output; an unconditional network need not know of labels."""
    return network(inputs) if labels is None else network(inputs, labels)
