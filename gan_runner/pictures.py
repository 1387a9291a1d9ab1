"""Pictures, as (H, W, 3) uint8 arrays."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gan_runner.paths import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = np.ndarray


class Indexable(Protocol):
    """Samples (N, *shape): in memory, or read when indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Tensor, /) -> Tensor: ...


_GAP = 2  # pixels between the samples of a grid
_CELL = 12  # width of one value of a vector, in pixels


def grid(samples: Tensor, columns: int) -> Picture:
    """Samples row by row: images (N, C, H, W) in [0, 1], or vectors (N, D), each drawn as a strip."""
    if samples.ndim == 2:
        pixels = shade(samples.numpy())[:, None].repeat(_CELL, axis=1).repeat(_CELL, axis=2)
    else:
        pixels = (samples.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)
    count, height, width, _ = pixels.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * (height + _GAP), i % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet


def shade(values: np.ndarray) -> Picture:
    """(H, W) values: from black at 0 to white at 1; blue below 0, red above 1, violet for NaN."""
    gray = (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)
    picture = np.stack([gray] * 3, axis=-1)
    picture[values < 0] = (40, 80, 220)
    picture[values > 1] = (220, 50, 40)
    picture[np.isnan(values)] = (160, 40, 200)
    return picture


def png(picture: Picture) -> bytes:
    """The content of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=2)  # of 9: twice as fast, and no larger
    return buffer.getvalue()


def save(path: Path, picture: Picture) -> None:
    """Writes a PNG file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png(picture), durable=False)


def save_animation(path: Path, frames: Sequence[Picture]) -> None:
    """Writes an endless GIF of ten frames a second, whole or not at all."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=100, loop=0)
    write_atomically(path, buffer.getvalue())


def loss_chart(rows: Sequence[Mapping[str, Any]], references: Mapping[str, float]) -> Picture:
    """The losses over the steps, and their values when D cannot tell real from fake as dashed lines."""
    figure, axes = _figure()
    for tag in references:
        points = [(row["step"], row[f"loss/{tag}"]) for row in rows if f"loss/{tag}" in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=tag.replace("_", ", "), linewidth=1.2)
    for value in sorted(set(references.values())):
        axes.axhline(value, color="gray", linestyle="--", linewidth=1, label=f"D cannot tell: {value:.3f}")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(fontsize=8)
    return _draw(figure)


def metric_chart(rows: Sequence[Mapping[str, Any]], perfect: Mapping[str, tuple[float | None, str]]) -> Picture:
    """Each figure over the steps, and a labelled dashed line at the score of a perfect sampler."""
    from matplotlib.figure import Figure

    columns = min(len(perfect), 3)
    lines = -(-len(perfect) // columns)
    figure = Figure(figsize=(4 * columns, 3 * lines), dpi=100, layout="constrained")
    for place, (name, (ideal, label)) in enumerate(perfect.items(), 1):
        axes = figure.add_subplot(lines, columns, place, title=name.replace("_", " "), xlabel="step")
        points = [(row["step"], row[f"metric/{name}"]) for row in rows if f"metric/{name}" in row]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".")
        if ideal is not None:
            axes.axhline(ideal, color="gray", linestyle="--", linewidth=1, label=label)
            axes.legend(fontsize=8)
    return _draw(figure)


def evolution(vectors: np.ndarray, every: int) -> Picture:
    """One generated vector over the run, (times, D): time runs downwards and is labelled in steps."""
    figure, axes = _figure(width=4, height=6)
    times, length = vectors.shape
    extent = (0.5, length + 0.5, (times + 0.5) * every, 0.5 * every)
    axes.imshow(shade(vectors), aspect="auto", interpolation="nearest", extent=extent)
    axes.set(xlabel="position", ylabel="step", title="blue: below 0, red: above 1")
    return _draw(figure)


def real_and_generated(
    real: Indexable, real_labels: Tensor | None, fake: Tensor, fake_labels: Tensor | None, columns: int
) -> Picture:
    """Real samples on the left, generated ones on the right. With labels for both, a row is one class (at most 12)."""
    count = min(len(real), len(fake), 12 * columns)
    left, right = torch.arange(count), torch.arange(count)
    if real_labels is not None and fake_labels is not None:
        classes = fake_labels.unique()[:12]
        pairs = [[(labels == c).nonzero()[:columns, 0] for labels in (real_labels, fake_labels)] for c in classes]
        rows = [pair for pair in pairs if len(pair[0]) == len(pair[1]) == columns]
        left, right = (torch.cat(side) for side in zip(*rows, strict=True)) if rows else (left, right)
    halves = [grid(real[left], columns), grid(fake[right], columns)]
    return np.concatenate([halves[0], np.full((len(halves[0]), 8 * _GAP, 3), 255, np.uint8), halves[1]], axis=1)


def scatter(real: Tensor, fake: Tensor) -> Picture:
    """Points in the plane, (N, 2) each: real ones gray, generated ones blue."""
    figure, axes = _figure(width=5, height=5)
    axes.plot(*real.T, ".", color="0.75", markersize=3, label="data")
    axes.plot(*fake.T, ".", color="C0", markersize=3, label="generated")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="upper right", fontsize=8)
    return _draw(figure)


def theory(x: Tensor, p_data: Tensor, p_g: Tensor, d: Tensor, best: Tensor) -> Picture:
    """Both densities, the discriminator D(x), and the best one, p_data / (p_data + p_g)."""
    figure, axes = _figure()
    axes.plot(x, p_data, color="C0", label="p_data")
    axes.plot(x, p_g, color="C2", label="p_g")
    axes.set(xlabel="x", ylabel="density")
    right = axes.twinx()
    right.plot(x, best, color="C3", linestyle="--", label="D* = p_data / (p_data + p_g)")
    right.plot(x, d, color="C1", label="D")
    right.set(ylabel="D(x)", ylim=(-0.02, 1.02))
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    return _draw(figure)


def modes(points: np.ndarray, good: np.ndarray, means: np.ndarray, radius: float) -> Picture:
    """Points (N, 2), those that are `good` (N,) in another colour, and circles around the means (K, 2) of a mixture."""
    from matplotlib.patches import Circle

    figure, axes = _figure(width=6, height=6)
    for chosen, color, label in ((~good, "C3", "low quality"), (good, "C2", "high quality")):
        axes.scatter(*points[chosen].T, s=2, color=color, label=f"{label}: {chosen.sum()}")
    for mean in means:
        axes.add_patch(Circle(mean, radius, fill=False, linewidth=0.8))
    # The axes show the modes: samples far away do not zoom out.
    middle, half = (means.max(0) + means.min(0)) / 2, 0.75 * np.ptp(means, axis=0).max() + 5 * radius
    (left, bottom), (right, top) = middle - half, middle + half
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return _draw(figure)


def _figure(width: float = 8, height: float = 4.5) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    return figure, figure.add_subplot()


def _draw(figure: "Figure") -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
