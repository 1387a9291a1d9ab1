"""From a checked configuration to what is trained; the facts about the data go to the networks here."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gan_runner.augmentation import Augmentation
from gan_runner.batches import Batches, Schedule
from gan_runner.config.components import Component, Experiment
from gan_runner.config.schema import Architecture
from gan_runner.console import say
from gan_runner.datasets import DataFacts, Dataset
from gan_runner.errors import UserError
from gan_runner.game import Game, Terms
from gan_runner.machine.compiling import CompiledStep, why_not_compiled
from gan_runner.machine.data_parallel import by_data_parallel
from gan_runner.machine.ranks import Ranks
from gan_runner.networks.layers import MinibatchStddev
from gan_runner.optimizers import Optimizer, make_optimizer
from gan_runner.randomness import derive
from gan_runner.regularizers import Regularizer
from gan_runner.runs.manifest import Manifest
from gan_runner.state import MovingAverage, NetworkState, State
from gan_runner.step import Rates, StepBatch, TakeStep, by_autograd, newest_penalties, step

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_dataset(experiment: Experiment, before: Manifest) -> Dataset:
    """The dataset, with the class numbers that it had `before`, in a run that goes on or is measured."""
    wanted = experiment.config.architecture.conditional
    dataset: Dataset = experiment.build("dataset", labels_wanted=wanted, class_order=before.class_order)
    return dataset


def build_generator(component: Component, architecture: Architecture, facts: DataFacts, seed: int) -> nn.Module:
    """The generator for data of these facts, on the CPU, initialised by the seed alone."""
    torch.manual_seed(derive(seed, "generator"))
    return component.build(
        latent_dim=architecture.latent.dim,
        shape=facts.shape,
        num_classes=labels_wanted(architecture, facts),
        value_range=facts.value_range,
    )


def build_state(experiment: Experiment, facts: DataFacts, device: torch.device) -> State:
    """Both networks as they are before the first step, with their optimizers, on `device`."""
    config, components = experiment.config, experiment.components
    generator = build_generator(components["architecture.generator"], config.architecture, facts, config.seed)
    torch.manual_seed(derive(config.seed, "discriminator"))
    discriminator = experiment.build(
        "architecture.discriminator",
        shape=(config.trainer.packing * facts.shape[0], *facts.shape[1:]),
        num_classes=labels_wanted(config.architecture, facts),
        value_range=facts.value_range,
    )
    networks = {"generator": generator, "discriminator": discriminator}
    states = {}
    if config.device.sync_batchnorm:
        networks = {name: nn.SyncBatchNorm.convert_sync_batchnorm(module) for name, module in networks.items()}
    for name, module in networks.items():
        # Channels-last convolutions are faster on CPUs and GPUs alike; other layers do not notice.
        module.to(device, memory_format=torch.channels_last)
        parameters = [p for p in module.parameters() if p.requires_grad]
        optimizer = build_optimizer(components[f"optimizer.{name}"], parameters) if parameters else None
        states[name] = NetworkState(module, optimizer)
    if not states["discriminator"].is_trained:
        raise UserError("architecture.discriminator: has no parameters to train")
    average, decay = None, config.trainer.ema_decay
    if decay is not None and states["generator"].is_trained:
        average = MovingAverage(networks["generator"], decay)
    state = State(states["generator"], states["discriminator"], average)
    for key, component in components.items():
        if issubclass(component.cls, Augmentation | Regularizer) and component.cls.adapts:
            state.adaptive[key] = {name: torch.zeros((), device=device) for name in component.cls.adapts}
    return state


def build_optimizer(component: Component, parameters: Sequence[nn.Parameter]) -> Optimizer:
    """The optimizer of one network; what its class refuses becomes a `UserError`."""
    try:
        return make_optimizer(component.cls, component.values, list(parameters))
    except (TypeError, ValueError, OverflowError) as error:
        raise component.refusal(error) from error


def build_game(experiment: Experiment, dataset: Dataset) -> Game:
    """Loss, penalties, augmentation and how they are applied."""
    facts = DataFacts.of(dataset)
    trainer, discriminator = experiment.config.trainer, experiment.components["architecture.discriminator"]
    augmentation = None
    if "augmentation" in experiment.components:
        augmentation = experiment.build(
            "augmentation", shape=facts.shape, value_range=facts.value_range, batch_size=trainer.batch_size
        )
    return Game(
        loss=experiment.build("loss"),
        regularizers=build_regularizers(experiment, dataset),
        augmentation=augmentation,
        packing=trainer.packing,
        separate=trainer.discriminator_update == "separate",
        concatenated=trainer.discriminator_forward == "concatenated",
        auxiliary_weight=trainer.auxiliary_weight if discriminator.values.get("conditioning") == "auxiliary" else None,
        precision=PRECISIONS[trainer.precision],
        gradient_clip=trainer.gradient_clip,
        weight_clip=trainer.weight_clip,
    )


def build_regularizers(experiment: Experiment, dataset: Dataset) -> dict[str, Regularizer]:
    """The penalties, by name; the spread of the data is measured where one of them asks for it."""
    components = experiment.group("regularizer")
    facts: dict[str, Any] = {"shape": dataset.shape}
    if any(component.takes("data_std") for component in components.values()):
        facts["data_std"] = measure_std(dataset, experiment.config.trainer.batch_size)
    return {name: component.build(**facts) for name, component in components.items()}


def measure_std(dataset: Dataset, batch_size: int) -> float:
    """The standard deviation of all values of a thousand samples or so, the same for every seed and process."""
    batches = (dataset.batch(number, batch_size, seed=0)[0] for number in range(math.ceil(1000 / batch_size)))
    mean, square = torch.tensor([[x.double().mean(), x.double().square().mean()] for x in batches]).mean(0)
    return math.sqrt(max(0.0, float(square - mean.square())))  # rounding may leave less than 0


def build_batches(experiment: Experiment, dataset: Dataset, game: Game, state: State, ranks: Ranks) -> Batches:
    """This process's batches."""
    config, trainer = experiment.config, experiment.config.trainer
    refuse_split_packs(trainer.batch_size, trainer.packing, ranks)
    refuse_split_groups(state.discriminator.module, trainer.batch_size, trainer.packing, ranks)
    return Batches(
        dataset=dataset,
        latent=config.architecture.latent,
        num_classes=labels_wanted(config.architecture, DataFacts.of(dataset)),
        regularizers=game.regularizers,
        augmentation=game.augmentation,
        pairs=game.loss.paired,
        seed=config.seed,
        size=trainer.batch_size,
        share=ranks.part(trainer.batch_size),
        device=ranks.device,
        discriminator_steps=trainer.discriminator_steps,
        reuse_noise=trainer.generator_noise == "reused",
        generator_start=trainer.generator_start if state.generator.is_trained else math.inf,
        seed_networks=lambda step: ranks.seed(derive(config.seed, "network", step, ranks.rank)),
    )


def refuse_split_packs(batch_size: int, packing: int, ranks: Ranks) -> None:
    """UserError where a process or a device would have a part of a pack."""
    parts, shared = _parts(ranks)
    if packing > 1 and batch_size % (parts * packing):
        raise UserError(
            f"trainer.packing={packing}: found trainer.batch_size={batch_size}; allowed: a multiple of "
            f"{parts * packing}{shared}"
        )


def refuse_split_groups(discriminator: nn.Module, batch_size: int, packing: int, ranks: Ranks) -> None:
    """Groups of samples that the discriminator compares must not depend on how many processes share a batch."""
    parts, shared = _parts(ranks)
    for group in (module.group for module in discriminator.modules() if isinstance(module, MinibatchStddev)):
        if batch_size % (parts * group * packing):
            packs = f", with {packing} samples in an input" if packing > 1 else ""
            raise UserError(
                f"architecture.discriminator.minibatch_stddev={group}: found trainer.batch_size={batch_size}; "
                f"allowed: a multiple of {parts * group * packing}{packs}{shared}"
            )


def _parts(ranks: Ranks) -> tuple[int, str]:
    """In how many parts a batch is computed, and how to say so."""
    parts = ranks.size * len(ranks.devices)
    return parts, f" on {parts} devices" if parts > 1 else ""


def build_schedule(experiment: Experiment, state: State) -> Schedule:
    """The learning rates of both networks over the run."""
    optimizer, trainer = experiment.config.optimizer, experiment.config.trainer
    return Schedule(optimizer.schedule, optimizer.warmup_steps, trainer.steps, trainer.generator_start, state)


def build_take_step(experiment: Experiment, game: Game, state: State, ranks: Ranks) -> TakeStep:
    """The step in the way that the configuration asks for."""
    average = ranks.average if ranks.size > 1 else None
    gradients = by_autograd if len(ranks.devices) == 1 else by_data_parallel(state, ranks.devices)

    def eagerly(state: State, batch: StepBatch, rates: Rates, measure: bool) -> tuple[State, Terms]:
        state, computed = step(state, batch, rates, game, measure, gradients, average)
        state.penalties |= newest_penalties(batch, computed)
        return state, computed

    if not experiment.config.trainer.compile:
        return eagerly
    reason = why_not_compiled(state)
    if ranks.any(reason is not None):
        reason = reason or "another process cannot compile it"
        say(f"warning: trainer.compile=true: {reason}; the step is taken eagerly")
        return eagerly
    return CompiledStep(state, game, ranks, eagerly)


def labels_wanted(architecture: Architecture, facts: DataFacts) -> int:
    """The number of classes the networks are conditioned on, 0 for none; refuses to condition on labels not there."""
    if architecture.conditional and not facts.num_classes:
        raise UserError("architecture.conditional=true: this dataset has no labels to condition on")
    return facts.num_classes if architecture.conditional else 0
