"""Trained networks that extract features and classes from images. Loading their files cannot execute code."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_runner.config.schema import validate
from gan_runner.console import say
from gan_runner.datasets import Dataset
from gan_runner.errors import UserError, last_line
from gan_runner.evaluation.classifier import ClassifierInfo, ClassifierNetwork
from gan_runner.metrics import Extracted, Extractor, LazyImages, Need
from gan_runner.overrides import command
from gan_runner.paths import as_path, cache_folder, write_atomically
from gan_runner.tensor_files import all_finite, parse

# Trained on one thread (OMP_NUM_THREADS=1, torch 2.14, AVX-512), by the following command. Its accuracy on MNIST's
# 10,000 test images is 99.54 %.
#   gan-classifier dataset=mnist name=digits out=gan_runner/evaluation/weights/digits.safetensors
SHIPPED = Path(__file__).parent / "weights"
SHA256 = {"digits": "73259b5319ac78bc7cd3cc13830a103042891ba4843f904b36db86d32081c1f9"}
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"

EXTRACTOR_BATCH = 128  # images that go through a network at once; more do not fit into a CPU's cache
_READ_AT_ONCE = 1024  # images that are read at once

Images = Tensor | LazyImages
Advance = Callable[[int, str], None]  # called with the number of samples done since, and a text
Extract = Callable[[Images, Extractor, Advance], Extracted]


class Classifier:
    """A classifier that `gan-classifier` made; raises `UserError` if `path` is missing, damaged or something else."""

    def __init__(self, path: Path, device: torch.device) -> None:
        content = _read(path)
        state = parse(content, path)
        try:
            self.info: ClassifierInfo = validate(ClassifierInfo, state.get("about", {}))
            with torch.device("meta"):  # takes no memory, whatever size the file claims
                network = ClassifierNetwork(self.info.shape, self.info.classes, self.info.width)
            network.load_state_dict(state.get("network", {}), assign=True)
        except (UserError, RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"evaluation.extractor={path}: is not what gan-classifier writes: {last_line(error)}"
            ) from error
        if not all_finite(network.state_dict().values()):
            raise UserError(f"evaluation.extractor={path}: holds numbers that are not finite")
        self.name, self.hash = self.info.name, hashlib.sha256(content).hexdigest()
        self.features, self.classes = network.head.in_features, self.info.classes
        self._path, self._device = path, device
        self._network = network.eval().float().to(device).to(memory_format=torch.channels_last)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises `UserError` for images (C, H, W) of another shape than it was trained on."""
        if shape != self.info.shape:
            raise UserError(
                f"evaluation.extractor={self._path}: was trained on images of the shape {self.info.shape}; "
                f"these are {shape}"
            )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.check(tuple(images.shape[1:]))
        seen = [self._network(chunk.to(self._device)) for chunk in images.float().split(EXTRACTOR_BATCH)]
        features, logits = (torch.cat(parts).cpu() for parts in zip(*seen, strict=True))
        return features, logits.argmax(1)


class PerChannel:
    """A classifier of grey images, applied to each channel by itself, as for stacked MNIST.

    Features (N, C·F) are those of all channels one after another. The class is the number whose digits are the
    channels' classes, from the first on.
    """

    def __init__(self, classifier: Classifier, channels: int) -> None:
        self.name, self.hash = f"{classifier.name}_per_channel", classifier.hash
        self.features, self.classes = classifier.features * channels, classifier.classes**channels
        self._classifier, self._channels = classifier, channels

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises `UserError` for images (C, H, W) whose channels have another shape than it was trained on."""
        self._classifier.check((1, *shape[1:]))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, classes = self._classifier(images.flatten(0, 1).unsqueeze(1))
        digits = classes.unflatten(0, (-1, self._channels))  # (N, C)
        powers = self._classifier.classes ** torch.arange(self._channels - 1, -1, -1)
        return features.reshape(len(images), -1), (digits * powers).sum(1)


class Resized:
    """A classifier of images of one size, to which it resizes those of another: generated and real ones alike."""

    def __init__(self, classifier: Classifier) -> None:
        self.name, self.hash = f"{classifier.name}_resized", classifier.hash
        self.features, self.classes = classifier.features, classifier.classes
        self._classifier = classifier

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises `UserError` for images (C, H, W) with other channels than it was trained on."""
        self._classifier.check((*shape[:1], *self._classifier.info.shape[1:]))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        size = self._classifier.info.shape[1:]
        return self._classifier(F.interpolate(images.float(), size, mode="bilinear", antialias=True))


class Inception:
    """The network of published FIDs: 2,048 features, no classes. The weights are those that torch-fidelity publishes.

    Raises `UserError` if `path` is missing, damaged or something else.
    """

    name, features, classes = "inception", 2048, 0

    def __init__(self, path: Path, device: torch.device) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        content, clean = _read(path), io.BytesIO()
        try:
            # torch-fidelity unpickles any file, so it gets a copy that holds only tensors.
            torch.save(torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"), clean)
            clean.seek(0)
            network = FeatureExtractorInceptionV3(self.name, ["2048"], feature_extractor_weights_path=clean)
        except Exception as error:  # unpickling raises almost anything, with long advice
            raise UserError(f"evaluation.extractor={path}: holds no Inception weights ({INCEPTION})") from error
        self.hash = hashlib.sha256(content).hexdigest()
        self._network, self._device = network.to(device), device

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises `UserError` for anything but grey or colour images."""
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UserError(f"evaluation.extractor: Inception looks at grey or colour images; these data are {shape}")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        self.check(tuple(images.shape[1:]))
        features = []
        for chunk in images.split(EXTRACTOR_BATCH):
            colour = (chunk.to(self._device) * 255).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
            features.append(self._network(colour)[0].cpu())
        return torch.cat(features), None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"evaluation.extractor={path}: cannot be read: {error.strerror}") from error


def extract(images: Images, extractor: Extractor, advance: Advance) -> Extracted:
    """The features and classes of the images, which are read in parts."""
    features, classes = [], []
    for part in _parts(images):
        some_features, some_classes = extractor(part)
        features.append(some_features)
        classes += [] if some_classes is None else [some_classes]
        advance(len(part), extractor.name)
    return torch.cat(features), torch.cat(classes) if classes else None


def extract_cached(images: Images, extractor: Extractor, advance: Advance) -> Extracted:
    """`extract`, but only once for the same images: the cache folder keeps the result under their hash."""
    content = hashlib.sha256(json.dumps([extractor.hash, list(images.shape)]).encode())
    for part in _parts(images):
        content.update(part.contiguous().numpy().data)
    path = cache_folder() / "features" / f"{content.hexdigest()}.safetensors"
    with suppress(OSError, safetensors.SafetensorError, KeyError):
        kept = safetensors.torch.load(path.read_bytes())
        features, classes = kept["features"], kept.get("classes")
        advance(len(images), extractor.name)
        return features, classes
    features, classes = extract(images, extractor, advance)
    kept = {"features": features} | ({} if classes is None else {"classes": classes})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(kept), shared=True)
    except OSError as error:
        say(f"warning: {path}: cannot be kept: {error.strerror}")
    return features, classes


def _parts(images: Images) -> Iterator[Tensor]:
    return (images[start : start + _READ_AT_ONCE] for start in range(0, len(images), _READ_AT_ONCE))


def find_extractor(choice: str, dataset: Dataset, device: torch.device) -> Extractor | None:
    """The extractor for the images of `dataset` that `choice` names; for "auto", None if there is none.

    "auto" is the one that ships with the package for this dataset, or else the one that `gan-classifier` has trained on
    the same images and labels. Any other choice is a file: a classifier (.safetensors) or Inception's weights (.pth).
    Raises `UserError` if the file is neither, or does not fit the data.
    """
    path = as_path("evaluation.extractor", choice)
    if choice == "auto":
        path = classifier_path(dataset) if dataset.classifier is None else SHIPPED / f"{dataset.classifier}.safetensors"
        if dataset.classifier is None and not path.exists():
            return None
    if path.suffix not in (".safetensors", ".pth"):
        raise UserError(
            f"evaluation.extractor={choice}: allowed: auto, a classifier (.safetensors), Inception's weights (.pth)"
        )
    extractor: Classifier | PerChannel | Resized | Inception
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
        elif dataset.classifier is not None and dataset.shape[1:] != extractor.info.shape[1:]:
            extractor = Resized(extractor)
    extractor.check(dataset.shape)
    return extractor


def classifier_path(dataset: Dataset) -> Path:
    """Where the classifier that was trained on this dataset is, or would be."""
    images = copy(dataset)
    images.value_range = (0.0, 1.0)  # what extractors see, so that runs with any value range share one
    return cache_folder() / "extractors" / f"{images.fingerprint()}.safetensors"


def how_to_make(dataset: Dataset, kind: Need) -> str:
    """A sentence that says how to get an extractor of this kind for `dataset`."""
    if len(dataset.shape) != 3:
        return "extractors look at images, which these data are not"
    if dataset.num_classes > 1 and not dataset.cluster_sizes:
        return f"{command('classifier')} dataset=… (with this run's dataset keys) trains an extractor, once"
    if kind == "classes":
        lack = "clusters are no labels" if dataset.cluster_sizes else "these data have no labels"
        return f"{lack}; evaluation.extractor=PATH takes a classifier of other images of this size"
    where = "github.com/toshas/torch-fidelity/releases"
    return f"evaluation.extractor=PATH takes Inception's weights: {INCEPTION} from {where}"
