"""Draws backquery.png: python outputs/gallery/backquery.py DIRECTORY_OF_MNIST.

Images from a network before there were GANs: a classifier of digits, run backwards from a label. The sigmoids are
undone by their inverse, the weights by their transpose. Source: Rashid, "Make Your Own Neural Network" (2016).
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from gan_runner.datasets import MNIST, ArrayDataset
from gan_runner.networks.layers import LayerStyle
from gan_runner.networks.mlp import hidden_layers
from gan_runner.pictures import grid

BATCH = 10
LOW, HIGH = 0.01, 0.99  # in place of 0 and 1, which a sigmoid never reaches, so that its inverse is finite
SIGMOIDS = LayerStyle(
    activation="sigmoid",
    negative_slope=0.0,
    normalization="none",
    normalize="before_activation",
    dropout=0.0,
    spatial=False,
)


def train(data: ArrayDataset, steps: int, seed: int) -> nn.Sequential:
    """A classifier 784→200→10, sigmoids after both layers, trained on the squared error by plain gradient descent."""
    torch.manual_seed(seed)
    classifier = nn.Sequential(nn.Flatten(), *hidden_layers([784, 200], SIGMOIDS), nn.Linear(200, 10), nn.Sigmoid())
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1.0)
    for step in range(steps):
        images, labels = data.batch(step, size=BATCH, seed=seed)
        loss = (classifier(images) - targets(labels)).square().sum(1).mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.requires_grad_(False)


def targets(labels: Tensor) -> Tensor:
    """One-hot labels (B,) -> (B, 10), HIGH for the class and LOW for the others."""
    return LOW + (HIGH - LOW) * F.one_hot(labels, 10)


def backquery(classifier: nn.Sequential, outputs: Tensor) -> Tensor:
    """Runs the classifier backwards: outputs (B, K) in (0, 1) -> images (B, D).

    A transpose is not an inverse: what it gives is rescaled to what the sigmoid below can have put out.
    """
    values = outputs
    for layer in reversed(classifier):
        if isinstance(layer, nn.Sigmoid):
            values = values.logit()
        elif isinstance(layer, nn.Linear):
            values = rescaled((values - layer.bias) @ layer.weight)
    return values


def rescaled(values: Tensor) -> Tensor:
    """Each row of (B, D), shifted and stretched so that it spans [LOW, HIGH]."""
    low, high = values.aminmax(dim=1, keepdim=True)
    return LOW + (HIGH - LOW) * (values - low) / (high - low)


def distances(images: Tensor, others: Tensor) -> Tensor:
    """(B, D), (K, D) -> root mean square of the difference of their pixels (B, K)."""
    return torch.cdist(images, others) / images.shape[1] ** 0.5


def correlations(images: Tensor, others: Tensor) -> Tensor:
    """(B, D), (K, D) -> correlation of their pixels (B, K): 1 where only brightness and contrast differ."""
    images, others = (F.normalize(x - x.mean(1, keepdim=True)) for x in (images, others))
    return images @ others.T


def draw(images: Tensor, means: Tensor, digits: list[Tensor]) -> Figure:
    """The ten images (10, D) above the class means (10, D); how alike they are, and how far apart."""
    figure = Figure(figsize=(11, 7.5), dpi=80, layout="constrained")
    axes = figure.subplot_mosaic([["images", "images"], ["correlation", "distance"]], height_ratios=[1, 1.8])
    axes["images"].imshow(grid(torch.cat([images, means]).reshape(20, 1, 28, 28), columns=10))
    axes["images"].set(xticks=[], yticks=[14, 44], yticklabels=["backquery", "class mean"])

    alike = correlations(images, means).numpy()
    axes["correlation"].imshow(alike, cmap="RdBu_r", vmin=-1, vmax=1)
    for (label, other), value in np.ndenumerate(alike):
        axes["correlation"].text(other, label, f"{value:z.1f}", ha="center", va="center", fontsize=8)
    axes["correlation"].set(xticks=range(10), xlabel="mean of class", yticks=range(10), ylabel="backquery of label")
    axes["correlation"].set_title("correlation of the pixels")

    away = distances(images, means)
    to_others = away.masked_fill(torch.eye(10, dtype=torch.bool), torch.inf).amin(1)
    real = [distances(of_class, means[label, None])[:, 0].numpy() for label, of_class in enumerate(digits)]
    chart = axes["distance"]
    chart.boxplot(real, whis=(5, 95), showfliers=False, positions=range(10), widths=0.6)
    chart.plot(away.diag(), "o", label="backquery to the mean of its class")
    chart.plot(to_others, "x", label="backquery to the nearest other mean")
    chart.plot([], [], "k-", label="real digits to the mean of their class, 5 to 95 %")
    chart.set(xlabel="label", ylim=(0, None), title="distance, root mean square of a pixel")
    chart.legend(fontsize=8, loc="lower right")
    return figure


def main(root: str) -> None:
    """Trains classifiers for one epoch and for five, prints how their images compare, and draws those of the first."""
    data = MNIST(variant="mnist", root=root, split="train", download=False, value_range=(0.0, 1.0))
    images, labels = data[torch.arange(len(data))]
    test_images, test_labels = data.held_out()[torch.arange(10_000)]
    digits = [images[labels == label].flatten(1) for label in range(10)]
    means = torch.stack([of_class.mean(0) for of_class in digits])
    for measure in (distances, correlations):
        real = [measure(of_class, means)[:, label].mean() for label, of_class in enumerate(digits)]
        print(f"real digits, {measure.__name__} to the mean of their class: {min(real):.2f} to {max(real):.2f}")
    far = torch.stack([distances(x, mean[None]).quantile(0.95) for x, mean in zip(digits, means, strict=True)])

    asked = torch.arange(10)
    for epochs, seed in product((1, 5), range(5)):
        classifier = train(data, epochs * len(data) // BATCH, seed)
        made = backquery(classifier, targets(asked))
        away, alike = distances(made, means), correlations(made, means)
        right = (classifier(test_images).argmax(1) == test_labels).float().mean()
        recognised, nearest, most_alike = (
            int((found == asked).sum()) for found in (classifier(made).argmax(1), away.argmin(1), alike.argmax(1))
        )
        to_own, like_own = away.diag(), alike.diag()
        print(
            f"epochs {epochs}, seed {seed}: {right:.1%} of the test digits right, {recognised} of its own ten images; "
            f"distances {to_own.min():.2f} to {to_own.max():.2f}, mean {to_own.mean():.2f}, {nearest} nearest to their "
            f"own mean, {int((to_own > far).sum())} further from it than 95 % of the real digits; "
            f"correlations {like_own.min():.2f} to {like_own.max():.2f}, mean {like_own.mean():.2f}, "
            f"{most_alike} highest with their own",
            flush=True,
        )
        if (epochs, seed) == (1, 0):
            draw(made, means, digits).savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main(sys.argv[1])
