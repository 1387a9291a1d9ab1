"""Pictures, as (H, W, 3) uint8 arrays."""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gan_runner.paths import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.ImageFont import FreeTypeFont

Picture = np.ndarray


class Indexable(Protocol):
    """Samples (N, *shape): in memory, or read when indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Tensor, /) -> Tensor: ...


_GAP = 2  # pixels between the samples of a grid
_CELL = 12  # width of one value of a vector, in pixels
_NAMED_SIDE = 12  # least height of a row that has a name, and least width of such a column
_FONT_SIZES = (11, 24)  # least and largest size of a name; between them a quarter of its row or column
_NAME_WIDTH = 15  # largest width of a name, in font sizes; what is longer is cut


def grid(samples: Tensor, columns: int, row_names: Sequence[str] = (), column_names: Sequence[str] = ()) -> Picture:
    """Samples row by row: images (N, C, H, W) in [0, 1], or vectors (N, D), each drawn as a strip.

    The names of the rows, one for each, stand to their left; those of the columns above them.
    """
    sheet = _tile(samples, columns, bool(row_names), bool(column_names))
    picture = _beside_names(sheet, row_names)
    if not column_names:
        return picture
    names, left = _headings(column_names, sheet.shape[1]), picture.shape[1] - sheet.shape[1]
    return np.concatenate([np.pad(names, ((0, 0), (left, 0), (0, 0)), constant_values=255), picture])


def _tile(samples: Tensor, columns: int, rows_named: bool, columns_named: bool = False) -> Picture:
    """The samples row by row. Rows and columns that have names are large enough for the text."""
    if samples.ndim == 2:
        pixels = shade(samples.numpy())[:, None].repeat(_CELL, axis=1).repeat(_CELL, axis=2)
    else:
        pixels = (samples.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)
    count, height, width, _ = pixels.shape
    rows, row_height = -(-count // columns), max(height, _NAMED_SIDE if rows_named else 0)
    column_width = max(width, _NAMED_SIDE if columns_named else 0)
    sheet = np.full((rows * (row_height + _GAP) - _GAP, columns * (column_width + _GAP) - _GAP, 3), 255, np.uint8)
    for i, image in enumerate(pixels):
        top = i // columns * (row_height + _GAP) + (row_height - height) // 2
        left = i % columns * (column_width + _GAP) + (column_width - width) // 2
        sheet[top : top + height, left : left + width] = image
    return sheet


def class_labels(numbers: Iterable[int], names: Sequence[str]) -> list[str]:
    """How to name rows or columns that are these classes: by name, or by number if the font cannot write the name."""
    return [names[n] if n < len(names) and _characters().issuperset(names[n]) else f"class {n}" for n in numbers]


def _beside_names(sheet: Picture, names: Sequence[str]) -> Picture:
    """The sheet, whose rows are equally high, to the right of the names of the rows."""
    return np.concatenate([_names(tuple(names), len(sheet)), sheet], axis=1) if names else sheet


@lru_cache(maxsize=4)  # a run draws the same names beside each of its grids
def _names(names: tuple[str, ...], height: int, to_the_right: bool = True) -> Picture:
    """The names in black on white, one in the middle of each row, at the right edge or the left."""
    from PIL import Image, ImageDraw

    pitch = (height + _GAP) / len(names)
    font = _font(pitch)
    lines = [_cut(name, lambda text: font.getlength(text) <= _NAME_WIDTH * font.size) for name in names]
    width = math.ceil(max(map(font.getlength, lines))) + 3 * _GAP
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    x, anchor = (width - 2 * _GAP, "rm") if to_the_right else (2 * _GAP, "lm")
    for row, line in enumerate(lines):
        draw.text((x, row * pitch + (pitch - _GAP) / 2), line, "black", font, anchor=anchor)
    return np.asarray(image)


def _headings(names: Sequence[str], width: int) -> Picture:
    """The names of equally wide columns; if one is wider than its column, all of them run upwards."""
    from PIL import Image, ImageDraw

    pitch = (width + _GAP) / len(names)
    font = _font(pitch)
    if max(map(font.getlength, names)) > pitch - _GAP:
        return np.rot90(_names(tuple(names), width, to_the_right=False))
    height = int(1.5 * font.size)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(names):
        draw.text((column * pitch + (pitch - _GAP) / 2, height / 2), name, "black", font, anchor="mm")
    return np.asarray(image)


def _font(pitch: float) -> "FreeTypeFont":
    """The font for the names of rows or columns that are this far apart, in pixels."""
    from PIL import ImageFont

    least, largest = _FONT_SIZES
    return ImageFont.truetype(_font_file(), min(max(least, int(pitch) // 4), largest))


def _cut(text: str, fits: Callable[[str], bool]) -> str:
    """As much of the text as fits, with an ellipsis where something is missing."""
    return next((t for t in (text, *(f"{text[:n].rstrip()}…" for n in range(len(text) - 1, 0, -1))) if fits(t)), "…")


def _font_file() -> str:
    import matplotlib

    return f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@cache
def _characters() -> frozenset[str]:
    """All that the font can write."""
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(_font_file()).get_charmap()))


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


def checked(picture: Any) -> Picture:
    """The picture; `TypeError` if what a user's own class made is none."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
        found = f"{picture.dtype}, {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise TypeError(f"a picture is an array (height, width, 3) of uint8; found {found}")
    return picture


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
        axes.ticklabel_format(axis="y", useOffset=False)  # not 0.2 where "+1e3" stands above the axis
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
    real: Indexable,
    real_labels: Tensor | None,
    fake: Tensor,
    fake_labels: Tensor | None,
    columns: int,
    class_names: Sequence[str] = (),
) -> Picture:
    """Real samples on the left, generated ones on the right. With labels for both, a row is one class (at most 12)."""
    names: list[str] = []
    count = min(len(real), len(fake), 12 * columns)
    left, right = torch.arange(count), torch.arange(count)
    if real_labels is not None and fake_labels is not None:
        classes = fake_labels.unique()[:12]
        pairs = [[(labels == c).nonzero()[:columns, 0] for labels in (real_labels, fake_labels)] for c in classes]
        rows = {int(c): p for c, p in zip(classes, pairs, strict=True) if len(p[0]) == len(p[1]) == columns}
        left, right = (torch.cat(side) for side in zip(*rows.values(), strict=True)) if rows else (left, right)
        names = class_labels(rows, class_names) if class_names else []
    halves = [_tile(side, columns, bool(names)) for side in (real[left], fake[right])]
    between = np.full((len(halves[0]), 8 * _GAP, 3), 255, np.uint8)
    return _beside_names(np.concatenate([halves[0], between, halves[1]], axis=1), names)


def scatter(real: Tensor, fake: Tensor) -> Picture:
    """Points in the plane, (N, 2) each: real ones gray, generated ones blue."""
    figure, axes = _figure(width=5, height=5)
    axes.plot(*real.T, ".", color="0.75", markersize=3, label="data")
    axes.plot(*fake.T, ".", color="C0", markersize=3, label="generated")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="upper right", fontsize=8)
    return _draw(figure)


def theory(
    x: Tensor, p_data: Tensor, p_g: Tensor, d: Tensor, best: Tensor | None = None, real_target: float = 1.0
) -> Picture:
    """Both densities, D(x), and where there is one the best D, p_data / (p_data + p_g) times `real_target`."""
    figure, axes = _figure()
    axes.plot(x, p_data, color="C0", label="p_data")
    axes.plot(x, p_g, color="C2", label="p_g")
    axes.set(xlabel="x", ylabel="density")
    right = axes.twinx()
    if best is not None:
        times = "" if real_target == 1 else f"{real_target:g} "
        right.plot(x, best, color="C3", linestyle="--", label=f"D* = {times}p_data / (p_data + p_g)")
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
