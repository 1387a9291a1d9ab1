"""Draws fid.png, the FID of real digits as they are spoilt: python outputs/gallery/fid.py MNIST_ROOT."""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from gan_runner.datasets import MNIST
from gan_runner.evaluation.extractors import find_extractor
from gan_runner.metrics import FID, Samples

N = 10_000
data = MNIST(variant="mnist", root=sys.argv[1], split="train", download=False, value_range=(0.0, 1.0))
extractor = find_extractor("auto", data, torch.device("cpu"))
shuffled = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
(digits, labels), (reference, _), (test, _) = data[shuffled[:N]], data[shuffled[N : 2 * N]], data.held_out()[:N]
real = Samples(reference, extracted=extractor(reference))


def fid(images: Tensor) -> float:
    """Of images (N, 1, 28, 28) against real digits that are not among them."""
    figure = FID(N).measure(Samples(images, extracted=extractor(images)), real, data)["fid"]
    print(f"{figure:.3g}", flush=True)
    return figure


widths = [0.3, 0.5, 0.7, 1.0, 1.5, 2.0]
kept = [9, 8, 7, 6, 5]
curves = {
    "width of a Gaussian blur, in pixels": (widths, [fid(gaussian_blur(digits, [13, 13], [w, w])) for w in widths]),
    "classes of the ten that are left": (kept, [fid(digits[labels < classes]) for classes in kept]),
}
levels = {
    "noise": fid(torch.rand(digits.shape, generator=torch.Generator().manual_seed(0))),
    "the test set": fid(test),
    "unspoilt": fid(digits),
}

figure = Figure(figsize=(9, 3.6), dpi=80, layout="constrained")
for axes, (label, (x, y)) in zip(figure.subplots(1, 2, sharey=True), curves.items(), strict=True):
    axes.plot(x, y, "o-")
    for name, level in levels.items():
        axes.axhline(level, linestyle=":", color="gray", linewidth=1)
        axes.annotate(name, (x[-1], level), fontsize=8, ha="right", va="top" if name == "the test set" else "bottom")
    axes.set(xlabel=label, yscale="log")
    axes.grid(alpha=0.3)
axes.invert_xaxis()
figure.axes[0].set_ylabel(f"FID by the digit classifier, N = {N:,}")
figure.savefig(Path(__file__).with_suffix(".png"))
