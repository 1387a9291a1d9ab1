import importlib
import json

import numpy as np
import pytest
import torch
import yaml

from gan_runner.datasets import ArrayDataset, Dataset, Gaussian1D, Pattern
from gan_runner.metrics import (
    FID,
    ClassBalance,
    JensenShannon,
    LabelAccuracy,
    LazyImages,
    ModeCoverage,
    NearestNeighbours,
    PatternError,
    Samples,
    StackedModes,
)
from tests.conftest import REPOSITORY
from tests.metrics.conftest import RING, extracted, images_of, stacked

CHOICES = sorted((REPOSITORY / "conf" / "metric").glob("*.yaml"))


def test_samples_that_are_not_finite_are_refused():
    values = torch.zeros(5, 1, 2, 2)
    values[1, 0, 0, 0], values[3, 0, :, 1] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 5 samples are not finite"):
        Samples(values)


def test_features_are_sliced_with_the_samples():
    images = torch.arange(12.0).view(6, 1, 1, 2)
    samples = Samples(images, torch.arange(6), extracted(images))
    assert torch.equal(samples.features, samples.values.flatten(1))
    part = samples[3:5]
    assert part.labels is not None
    assert part.labels.tolist() == [3, 4]
    assert part.features.tolist() == [[6, 7], [8, 9]]
    assert part.predicted.tolist() == [6, 8]


def test_samples_without_features_say_so():
    samples = Samples(torch.zeros(2, 1, 1, 2))[:1]
    for ask in (lambda: samples.features, lambda: samples.predicted):
        with pytest.raises(ValueError, match="a metric gets them where its `needs` says so"):
            ask()


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_every_choice_is_built_from_its_yaml_and_returns_its_figures(path):
    ((name, keys),) = yaml.safe_load(path.read_text(encoding="utf-8")).items()
    assert name == path.stem
    module, _, target = keys.pop("_target_").rpartition(".")
    metric = getattr(importlib.import_module(module), target)(**keys)
    if name == "kid":
        metric.subset_size = 20
    rng = torch.Generator().manual_seed(0)
    dataset: Dataset = images_of(10)
    values = torch.rand(60, 1, 3, 3, generator=rng) * 3
    if name == "pattern":
        dataset, values = Pattern(2, (0.8, 1.0), (0.0, 0.2)), values[:, 0, 0, :2]
    elif name == "jsd":
        dataset, values = Gaussian1D(1.0, 2.0), values[:, 0, 0, :1]
    elif name == "modes":
        dataset, values = RING, values[:, 0, 0, :2]
    elif name == "stacked_modes":
        dataset = stacked()
    made, real = (Samples(part, torch.arange(30) % 3, extracted(part)) for part in values.split(30))
    assert metric.why_not_applicable(dataset, conditional=True) is None
    result = metric.measure(made, real, dataset)
    assert list(result) == list(metric.goals)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(isinstance(figure, float) for figure in result.values())
    picture = metric.picture(made, real, dataset)
    assert (picture is not None) == (name in {"modes", "birthday", "neighbours"})


def test_a_metric_says_for_which_data_and_generators_it_says_nothing():
    points, images = Gaussian1D(0.0, 1.0), images_of(10)
    assert PatternError(1).why_not_applicable(points, False) == "measures patterns, and Gaussian1D is not one of them"
    assert (
        JensenShannon(1, 1).why_not_applicable(images, False)
        == "needs a known density of one number, and ArrayDataset has none"
    )
    assert ModeCoverage(1, 3.0).why_not_applicable(images, False) == (
        "counts the modes of a mixture of Gaussians, and ArrayDataset is none"
    )
    assert (
        StackedModes(1).why_not_applicable(images, False)
        == "counts the modes of Stacked MNIST, and ArrayDataset has others"
    )
    assert LabelAccuracy(1).why_not_applicable(images, False) == (
        "compares samples with the labels asked for, and this generator is not conditional"
    )
    for metric in (FID(1), ClassBalance(1), LabelAccuracy(1), NearestNeighbours(1, 0.01)):
        assert "images, and those of Gaussian1D are none" in str(metric.why_not_applicable(points, True))
        assert metric.why_not_applicable(images, True) is None


def test_rows_that_stay_in_the_dataset_are_what_a_tensor_of_them_is():
    pixels = torch.arange(6 * 4, dtype=torch.uint8).view(6, 1, 2, 2) * 10
    dataset = ArrayDataset(pixels, value_range=(-1.0, 1.0))
    chosen = torch.tensor([5, 0, 3, 3])
    stored = LazyImages(dataset, chosen)
    expected = pixels[chosen].double() / 255
    assert (len(stored), stored.shape) == (4, (4, 1, 2, 2))
    assert torch.allclose(stored[:].double(), expected, atol=1e-6)
    assert torch.allclose(stored[torch.tensor([2, 0])].double(), expected[[2, 0]], atol=1e-6)
    assert torch.allclose(stored.part(slice(1, 3))[:].double(), expected[1:3], atol=1e-6)
    made, metric = Samples(torch.rand(3, 1, 2, 2)), NearestNeighbours(3, quantile=0.5)
    assert metric.measure(made, Samples(stored), dataset) == metric.measure(made, Samples(stored[:]), dataset)
    assert np.array_equal(
        metric.picture(made, Samples(stored), dataset), metric.picture(made, Samples(stored[:]), dataset)
    )
