"""`gan-classifier`: trains a classifier from which metrics take features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_runner.config.components import component
from gan_runner.config.schema import Device, validate
from gan_runner.console import say
from gan_runner.datasets import ArrayDataset, DataFacts, Dataset, about_data
from gan_runner.errors import UserError
from gan_runner.evaluation.classifier import (
    SMALLEST_SIDE,
    ClassifierInfo,
    TrainingSettings,
    accuracy,
    split,
    train_network,
)
from gan_runner.evaluation.extractors import classifier_path
from gan_runner.machine.devices import one_device
from gan_runner.paths import as_path, refuse_unwritable, write_atomically
from gan_runner.tensor_files import all_finite, dump


class ClassifierSettings(TrainingSettings):
    """What to train on, how, and where to write the result."""

    out: str | None
    dataset: dict[str, Any]
    device: Device


def train_classifier(plain: Mapping[str, Any]) -> Path:
    """Trains the classifier that the configuration `plain` asks for; returns its file.

    If the configuration or the data are wrong, raises `UserError` and leaves nothing behind.
    """
    # A dataset's YAML also chooses metrics, for runs.
    settings = validate(ClassifierSettings, {key: value for key, value in plain.items() if key != "metric"})
    device = one_device(settings.device)
    dataset = build_labelled_images(settings.dataset)
    out = classifier_path(dataset) if settings.out is None else as_path("out", settings.out)
    refuse_unwritable(out, ".safetensors", "figures rest on it")
    parts = split(dataset, settings.seed)
    if settings.batch_size > len(parts.indices):
        most = f"there are {len(parts.indices)} images to train on"
        raise UserError(f"batch_size={settings.batch_size}: {most}; allowed: at most as many")

    for line in about_data(dataset):
        say(line)
    network = train_network(dataset, parts.indices, settings, device)
    if not all_finite(network.state_dict().values()):
        raise UserError(f"lr={settings.lr:g}: the training diverged, and nothing is kept; try lr={settings.lr / 10:g}")

    about = ClassifierInfo(
        **settings.model_dump(include=set(TrainingSettings.model_fields)),
        shape=dataset.shape,
        classes=dataset.num_classes,
        accuracy=accuracy(network, parts.test, parts.test_indices, device),
        tested_on=parts.tested_on,
        test_images=len(parts.test_indices),
        training_images=len(parts.indices),
        fingerprint=dataset.fingerprint(),
    )
    say(f"{about.accuracy:.2%} of {about.test_images} test images are classified correctly ({about.tested_on})")
    if settings.out is None and dataset.classifier is not None:
        say(f"evaluation.extractor=auto stays with the package's '{dataset.classifier}'; this one is {out}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, dump({"about": about.model_dump(), "network": network.state_dict()}))
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror or error}") from error
    return out


def build_labelled_images(node: Mapping[str, Any]) -> ArrayDataset:
    """The dataset that `node` describes; raises `UserError` if it is no images, or has fewer than two classes."""
    dataset = component("dataset", node, Dataset).build(labels_wanted=True)
    images = isinstance(dataset, ArrayDataset) and DataFacts.of(dataset).is_image
    if not images or min(dataset.shape[1:]) < SMALLEST_SIDE:
        raise UserError(
            f"dataset: found samples of the shape {dataset.shape}; a classifier needs a finite number of grey or "
            f"colour images with sides of at least {SMALLEST_SIDE}"
        )
    if dataset.cluster_sizes:
        raise UserError(
            f"dataset.clusters={dataset.num_classes}: a classifier needs labels to learn, and clusters are none; "
            "use dataset.clusters=null"
        )
    if dataset.num_classes < 2:
        raise UserError(
            f"dataset: a classifier needs two or more classes to tell apart; these data have {dataset.num_classes}"
        )
    return dataset
