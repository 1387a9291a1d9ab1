"""The gallery's backquery: a classifier run backwards, against the same in numpy."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gan_runner.datasets import MNIST

TESTS = Path(__file__).parent
LABELS = torch.arange(10)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("backquery", TESTS.parent / "outputs/gallery/backquery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits():
    return MNIST(variant="mnist", root=str(TESTS / "data/mnist"), split="train", download=False, value_range=(0.0, 1.0))


@pytest.fixture(scope="module")
def classifier(script, digits):
    return script.train(digits, steps=400, seed=0)


def network(*layers):
    """Linear layers of these (weight, bias), each with a sigmoid after it."""
    modules = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64).requires_grad_(False)
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))
        modules += [linear, nn.Sigmoid()]
    return nn.Sequential(*modules)


def logit(p):
    return np.log(p / (1 - p))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_undoes_the_forward_pass_where_transposed_weights_are_the_inverse(script):
    # Orthogonal weights, and biases with which image and hidden layer span 0.01 to 0.99, so that nothing is rescaled.
    rng = np.random.default_rng(0)
    first, second = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2))
    image, hidden = (np.concatenate([[0.01, 0.99], rng.uniform(0.01, 0.99, 4)]) for _ in range(2))
    bias = logit(hidden) - first @ image
    outputs = sigmoid(second @ hidden + 0.3)
    both = network((first, bias), (second, np.full(6, 0.3)))
    assert both(torch.from_numpy(image)).numpy() == pytest.approx(outputs)
    assert script.backquery(both, torch.from_numpy(outputs)[None])[0].numpy() == pytest.approx(image)


def test_other_weights_step_by_step(script):
    rng = np.random.default_rng(1)
    (first, a), (second, b) = layers = [(rng.normal(size=size), rng.normal(size=size[0])) for size in ((5, 8), (3, 5))]
    label = np.array([0.01, 0.99, 0.01])
    hidden = second.T @ (logit(label) - b)
    hidden = (hidden - hidden.min()) / (hidden.max() - hidden.min()) * 0.98 + 0.01
    image = first.T @ (logit(hidden) - a)
    image = (image - image.min()) / (image.max() - image.min()) * 0.98 + 0.01
    made = script.backquery(network(*layers), script.targets(torch.tensor([1]))[:, :3].double())
    assert made[0].numpy() == pytest.approx(image, abs=1e-6)  # the label is made in float32


def test_learns_the_digits_it_is_given(classifier, digits):
    images, labels = digits[torch.arange(len(digits))]
    assert (classifier(images).argmax(1) == labels).float().mean() > 0.9


def test_a_label_is_an_image_and_always_the_same(script, classifier):
    images = script.backquery(classifier, script.targets(torch.tensor([3, 5, 3])))
    assert images.shape == (3, 784)
    assert images.amin(1).tolist() == pytest.approx([0.01] * 3)
    assert images.amax(1).tolist() == pytest.approx([0.99] * 3)
    assert images[0].equal(images[2])
    assert not images[0].allclose(images[1], atol=0.1)
    again = script.backquery(classifier, script.targets(torch.tensor([3])))
    assert again[0].allclose(images[0])


def test_its_training_is_a_function_of_the_seed(script, classifier, digits):
    again, other = (script.train(digits, steps=400, seed=seed) for seed in (0, 1))
    assert all(map(torch.equal, classifier.parameters(), again.parameters()))
    assert not any(map(torch.equal, classifier.parameters(), other.parameters()))


def test_each_image_is_most_like_the_mean_of_its_class(script, classifier, digits):
    images, labels = digits[torch.arange(len(digits))]
    means = torch.stack([images[labels == label].flatten(1).mean(0) for label in LABELS])
    alike = script.correlations(script.backquery(classifier, script.targets(LABELS)), means)
    assert (alike.argmax(1) == LABELS).sum() >= 9


def test_distances_and_correlations_are_numpy_s(script):
    images, others = torch.rand(3, 20), torch.rand(4, 20)
    far = np.sqrt(((images.numpy()[:, None] - others.numpy()) ** 2).mean(2))
    assert script.distances(images, others).numpy() == pytest.approx(far, abs=1e-6)
    alike = np.corrcoef(images.numpy(), others.numpy())[:3, 3:]
    assert script.correlations(images, others).numpy() == pytest.approx(alike, abs=1e-6)


def test_draws_the_picture(script, classifier, digits, tmp_path):
    images, labels = digits[torch.arange(len(digits))]
    by_class = [images[labels == label].flatten(1) for label in LABELS]
    means = torch.stack([of_class.mean(0) for of_class in by_class])
    picture = tmp_path / "backquery.png"
    script.draw(script.backquery(classifier, script.targets(LABELS)), means, by_class).savefig(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
