"""From a checked configuration to the objects it describes; facts about the data go to the networks here."""

from dataclasses import dataclass

import torch
from torch import nn

from gan_runner.config.components import find_component
from gan_runner.config.schema import Architecture, Config
from gan_runner.datasets import DataFacts, Dataset
from gan_runner.errors import UserError
from gan_runner.losses import Loss
from gan_runner.randomness import derive
from gan_runner.regularizers import Regularizer


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


def build_generator(config: Config, facts: DataFacts) -> nn.Module:
    """The generator for data of these facts, on the CPU, initialised by the seed alone."""
    torch.manual_seed(derive(config.seed, "generator"))
    return find_component(config, "architecture.generator").build(
        latent_dim=config.architecture.latent.dim,
        shape=facts.shape,
        num_classes=labels_wanted(config.architecture, facts),
        value_range=facts.value_range,
    )


def build_parts(config: Config, facts: DataFacts, device: torch.device) -> Parts:
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


def labels_wanted(architecture: Architecture, facts: DataFacts) -> int:
    """The number of classes the networks are conditioned on, 0 for none; refuses to condition on labels not there."""
    if architecture.conditional and not facts.num_classes:
        raise UserError("architecture.conditional=true: this dataset has no labels to condition on")
    return facts.num_classes if architecture.conditional else 0
