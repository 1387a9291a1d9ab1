"""The training of the classifiers that metrics look through."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from gan_runner.commands.sample import find_device
from gan_runner.config.components import component
from gan_runner.config.schema import Device, Section, validate
from gan_runner.console import Progress, in_short, say
from gan_runner.datasets import ArrayDataset, DataFacts, Dataset
from gan_runner.errors import UserError
from gan_runner.evaluation.extractors import SMALLEST_SIDE, About, Network, cached
from gan_runner.paths import write_atomically
from gan_runner.randomness import derive, rng
from gan_runner.runs.checkpoint import all_finite, dump

_SHOWN_EVERY = 20  # steps
_CHUNK = 500  # test images at once


class Training(Section):
    """What to train on, how, and where to keep the result."""

    name: str
    seed: NonNegativeInt
    steps: PositiveInt
    batch_size: PositiveInt
    lr: Annotated[PositiveFloat, FiniteFloat]
    width: PositiveInt
    augment: bool
    out: str | None
    dataset: dict[str, Any]
    device: Device


def train_classifier(plain: Mapping[str, Any]) -> Path:
    """Trains the classifier that the configuration `plain` asks for, and returns the file that it is in.

    Raises `UserError`, and leaves nothing behind, where the configuration or the data are not what they must be.
    """
    settings = validate(Training, {key: value for key, value in plain.items() if key != "metric"})  # a run's business
    device = find_device(settings.device)
    dataset = build_labelled_images(settings.dataset)
    out = cached(dataset) if settings.out is None else Path(settings.out).expanduser()
    refuse_place(out)

    test, rows, tested_on = dataset.held_out(), torch.arange(len(dataset)), "held-out data"
    if isinstance(test, ArrayDataset):
        test_rows = torch.arange(len(test))
    else:
        shuffled = torch.randperm(len(dataset), generator=rng(settings.seed, "held out"))
        test, tested_on = dataset, "a tenth of the training data, kept apart"
        test_rows, rows = shuffled.tensor_split([max(1, len(dataset) // 10)])
    if settings.batch_size > len(rows):
        raise UserError(f"batch_size is {settings.batch_size}; there are {len(rows)} images to train on")

    network = fit(dataset, rows, settings, device)
    if not all_finite(network.state_dict().values()):
        raise UserError(f"lr={settings.lr:g}: the training diverged, and nothing is kept; try lr={settings.lr / 10:g}")
    right = accuracy(network, test, test_rows, device)
    about = About(
        **settings.model_dump(exclude={"dataset", "device", "out"}),
        shape=dataset.shape,
        classes=dataset.num_classes,
        accuracy=right,
        tested_on=tested_on,
        test_images=len(test_rows),
        training_images=len(rows),
        fingerprint=dataset.fingerprint(),
    )
    say(f"{right:.2%} of {len(test_rows)} test images are classified rightly ({tested_on})")
    if settings.out is None and dataset.classifier is not None:
        say(f"evaluation.extractor=auto stays with the package's '{dataset.classifier}'; this one is {out}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, dump({"about": about.model_dump(), "network": network.state_dict()}))
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror or error}") from error
    return out


def build_labelled_images(node: Mapping[str, Any]) -> ArrayDataset:
    """The dataset that `node` describes; UserError where there is nothing to tell apart, or no images to look at."""
    dataset = component("dataset", node, Dataset).build()
    images = isinstance(dataset, ArrayDataset) and DataFacts.of(dataset).is_image
    if not images or min(dataset.shape[1:]) < SMALLEST_SIDE:
        raise UserError(
            f"dataset: found samples of the shape {dataset.shape}; a classifier needs a finite number of grey or "
            f"colour images with sides of at least {SMALLEST_SIDE}"
        )
    if dataset.num_classes < 2:
        raise UserError(
            f"dataset: a classifier needs two or more classes to tell apart; these data have {dataset.num_classes}"
        )
    return dataset


def refuse_place(out: Path) -> None:
    """UserError where a file cannot be written to `out`, which is better known before minutes of training."""
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if out.suffix != ".safetensors" or out.is_dir():
        raise UserError(f"out={out}: allowed: a file whose name ends in .safetensors")
    if out.exists():
        raise UserError(f"out={out}: is there already, and figures rest on it; name another file, or remove this one")
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(f"out={out}: nothing can be written to '{folder}'")


def fit(dataset: ArrayDataset, rows: Tensor, settings: Training, device: torch.device) -> Network:
    """A network trained on those `rows` of the dataset: on one machine's CPU, a function of its arguments alone."""
    torch.manual_seed(derive(settings.seed, "classifier"))
    facts, steps, size = DataFacts.of(dataset), settings.steps, settings.batch_size
    network = Network(facts.shape, dataset.num_classes, settings.width).to(device)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps + 1)
    progress = Progress("step", steps)
    try:
        for step in range(steps):
            epoch, position = divmod(step, len(rows) // size)
            if position == 0:
                order = rows[torch.randperm(len(rows), generator=rng(settings.seed, "order", epoch))]
            images, labels = dataset[order[position * size : (position + 1) * size]]
            assert labels is not None
            images = facts.in_data_units(images)
            if settings.augment:
                images = augmented(images, rng(settings.seed, "augment", step))
            loss = F.cross_entropy(network(images.to(device))[1], labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % _SHOWN_EVERY == 0:
                progress.show(step + 1, in_short({"loss/classifier": float(loss.detach())}))
    finally:
        progress.close()
    return network


def augmented(images: Tensor, chance: torch.Generator) -> Tensor:
    """Each of the images (B, C, H, W) turned by up to 0.2 rad, resized by up to 15 % and moved by about a tenth."""
    angle, size, right, down = torch.rand(4, len(images), generator=chance) * 2 - 1  # (B,) each, in [-1, 1]
    cos, sin = ((0.2 * angle).cos() * (1 + 0.15 * size)), ((0.2 * angle).sin() * (1 + 0.15 * size))
    rows = [torch.stack([cos, -sin, 0.2 * right], 1), torch.stack([sin, cos, 0.2 * down], 1)]  # sides are 2 long
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def accuracy(network: Network, dataset: ArrayDataset, rows: Tensor, device: torch.device) -> float:
    """The share of those `rows` of the dataset that the network classifies rightly."""
    network.eval()
    right = 0
    for chunk in rows.split(_CHUNK):
        images, labels = dataset[chunk]
        assert labels is not None
        _, logits = network(DataFacts.of(dataset).in_data_units(images).to(device))
        right += int((logits.argmax(1).cpu() == labels).sum())
    return right / len(rows)
