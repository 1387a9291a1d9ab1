"""Trained networks that tell what is in an image, for the metrics, from files that cannot execute anything."""

import hashlib
import io
import math
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from gan_runner.config.schema import Section, validate
from gan_runner.datasets import Dataset
from gan_runner.errors import UserError
from gan_runner.metrics import Extractor, Need
from gan_runner.paths import cache_folder
from gan_runner.runs.checkpoint import all_finite, parse

# Made on one thread (OMP_NUM_THREADS=1, torch 2.14, AVX-512); right on 99.54 % of MNIST's 10,000 test images:
#   gan-classifier dataset=mnist name=digits out=gan_runner/weights/digits.safetensors
SHIPPED = Path(__file__).parent / "weights"
SHA256 = {"digits": "73259b5319ac78bc7cd3cc13830a103042891ba4843f904b36db86d32081c1f9"}
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"

_CHUNK = 128  # images looked at at once: what a CPU's cache holds
SMALLEST_SIDE = 8  # pixels, of an image that can be classified


class About(Section):
    """What a classifier's file says of it."""

    name: str
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=3, max_length=3)]  # (C, H, W) of its images
    classes: PositiveInt
    width: PositiveInt
    accuracy: float  # the share of test images that it classifies rightly
    tested_on: str
    test_images: PositiveInt
    training_images: PositiveInt
    fingerprint: str  # of the training data
    steps: PositiveInt
    batch_size: PositiveInt
    lr: float
    augment: bool
    seed: int


class Network(nn.Module):
    """Convolutions over ever smaller maps, the mean of the last ones as features, and a linear layer to the classes.

    Maps are halved at least twice, and until the shorter side is at most 8; channels go from `width` to 4·`width`.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, width: int) -> None:
        super().__init__()
        channels, *sides = shape
        halvings = max(2, math.ceil(math.log2(min(sides) / SMALLEST_SIDE)))
        widths = [width * min(2**i, 4) for i in range(halvings + 1)]
        blocks = [_block(channels, width, stride=1)]
        for before, after in pairwise(widths):
            blocks += [_block(before, after, stride=2), _block(after, after, stride=1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [0, 1] -> features (B, 4·width), which are not negative, and logits (B, classes)."""
        features = self.blocks(images).mean((2, 3))
        return features, self.head(features)


def _block(channels: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Classifier:
    """A classifier that `gan-classifier` made. UserError where `path` is missing, damaged or something else."""

    def __init__(self, path: Path, device: torch.device) -> None:
        content = _read(path)
        state = parse(content, path)
        try:
            self.about: About = validate(About, state.get("about", {}))
            with torch.device("meta"):  # whatever size a file claims to need
                network = Network(self.about.shape, self.about.classes, self.about.width)
            network.load_state_dict(state.get("network", {}), assign=True)
        except (UserError, RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"evaluation.extractor={path}: is not what gan-classifier writes: {reason}") from error
        if not all_finite(network.state_dict().values()):
            raise UserError(f"evaluation.extractor={path}: holds numbers that are not finite")
        self.name, self.hash = self.about.name, hashlib.sha256(content).hexdigest()
        self.features, self.classes = network.head.in_features, self.about.classes
        self._path, self._device = path, device
        self._network = network.eval().float().to(device).to(memory_format=torch.channels_last)

    def check(self, shape: tuple[int, ...]) -> None:
        """UserError for images (C, H, W) of another shape than it was trained on."""
        if shape != self.about.shape:
            raise UserError(
                f"evaluation.extractor={self._path}: was trained on images of the shape {self.about.shape}; "
                f"these are {shape}"
            )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `Extractor` says; UserError for images of another shape."""
        self.check(tuple(images.shape[1:]))
        seen = [self._network(chunk.to(self._device)) for chunk in images.float().split(_CHUNK)]
        features, logits = (torch.cat(parts).cpu() for parts in zip(*seen, strict=True))
        return features, logits.argmax(1)


class PerChannel:
    """A classifier of grey images that looks at each channel by itself, as for stacked MNIST.

    Features (N, C·F) are those of the first channel, then those of the next …; the class is the number whose digits
    are the channels' classes, the first channel's the most significant.
    """

    def __init__(self, classifier: Classifier, channels: int) -> None:
        self.name, self.hash = f"{classifier.name}_per_channel", classifier.hash
        self.features, self.classes = classifier.features * channels, classifier.classes**channels
        self._classifier, self._channels = classifier, channels

    def check(self, shape: tuple[int, ...]) -> None:
        """UserError for images (C, H, W) whose channels are not what the classifier was trained on."""
        self._classifier.check((1, *shape[1:]))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `Extractor` says; UserError for channels of another shape."""
        features, classes = self._classifier(images.flatten(0, 1).unsqueeze(1))
        digits = classes.unflatten(0, (-1, self._channels))  # (N, C)
        worth = self._classifier.classes ** torch.arange(self._channels - 1, -1, -1)
        return features.reshape(len(images), -1), (digits * worth).sum(1)


class Inception:
    """The network of the published FIDs: 2,048 features, no classes; weights as torch-fidelity publishes them.

    UserError where `path` is missing, damaged or something else.
    """

    name, features, classes = "inception", 2048, 0

    def __init__(self, path: Path, device: torch.device) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        content, clean = _read(path), io.BytesIO()
        try:
            # torch-fidelity unpickles whatever it is given; it gets a copy of what holds nothing but tensors.
            torch.save(torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"), clean)
            clean.seek(0)
            network = FeatureExtractorInceptionV3(self.name, ["2048"], feature_extractor_weights_path=clean)
        except Exception as error:  # there is no end to what unpickling raises, nor to the advice that it gives
            raise UserError(f"evaluation.extractor={path}: holds no Inception weights ({INCEPTION})") from error
        self.hash = hashlib.sha256(content).hexdigest()
        self._network, self._device = network.to(device), device

    def check(self, shape: tuple[int, ...]) -> None:
        """UserError for what is no grey or colour image."""
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UserError(f"evaluation.extractor: Inception looks at grey or colour images; these data are {shape}")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        """As `Extractor` says; grey images become colour ones. UserError for what is no image."""
        self.check(tuple(images.shape[1:]))
        features = []
        for chunk in images.split(_CHUNK):
            colour = (chunk.to(self._device) * 255).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
            features.append(self._network(colour)[0].cpu())
        return torch.cat(features), None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"evaluation.extractor={path}: cannot be read: {error.strerror}") from error


def find_extractor(choice: str, dataset: Dataset, device: torch.device) -> Extractor | None:
    """The extractor for the images of `dataset`: what `choice` names, or for "auto" what there is, or None.

    "auto" is the one that ships with the package for this dataset, else the one that `gan-classifier` has trained on
    these very images and labels. Any other choice is a file: a classifier (.safetensors) or Inception's weights (.pth).
    UserError where the file is not one of these, or does not fit the data.
    """
    path = Path(choice).expanduser()
    if choice == "auto":
        path = cached(dataset) if dataset.classifier is None else SHIPPED / f"{dataset.classifier}.safetensors"
        if dataset.classifier is None and not path.exists():
            return None
    if path.suffix not in (".safetensors", ".pth"):
        raise UserError(
            f"evaluation.extractor={choice}: allowed: auto, a classifier (.safetensors), Inception's weights (.pth)"
        )
    extractor: Classifier | PerChannel | Inception
    if path.suffix == ".pth":
        extractor = Inception(path, device)
    else:
        extractor = Classifier(path, device)
        if path.parent == SHIPPED and extractor.hash != SHA256[path.stem]:
            raise UserError(
                f"evaluation.extractor={path}: is not the file that this version was shipped with; install it again"
            )
        if dataset.independent_channels:
            extractor = PerChannel(extractor, dataset.shape[0])
    extractor.check(dataset.shape)
    return extractor


def cached(dataset: Dataset) -> Path:
    """Where the classifier that was trained on this dataset is, or would be."""
    images = copy(dataset)
    images.value_range = (0.0, 1.0)  # extractors see [0, 1] whatever networks see, so that all runs share one
    return cache_folder() / "extractors" / f"{images.fingerprint()}.safetensors"


def how_to_make(dataset: Dataset, kind: Need) -> str:
    """One sentence: what makes an extractor of that kind for `dataset`, for which "auto" finds none."""
    if len(dataset.shape) != 3:
        return "extractors look at images, which these data are not"
    if dataset.num_classes > 1:
        return "python -m gan_runner.classifier dataset=… (with this run's dataset keys) trains an extractor, once"
    if kind == "classes":
        return "these data have no labels; evaluation.extractor=PATH takes a classifier of other images of this size"
    where = "github.com/toshas/torch-fidelity/releases"
    return f"evaluation.extractor=PATH takes Inception's weights: {INCEPTION} from {where}"
