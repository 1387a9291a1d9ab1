"""`gan-sample`: samples of a run's generator as an array, a grid, single images, interpolations and sheets.

Only the run directory is needed, on any machine.
"""

import io
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any
from unicodedata import normalize

import numpy as np
import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from gan_runner import pictures
from gan_runner.batches import draw_labels
from gan_runner.commands.sheets import write_interpolation, write_label_interpolation, write_sheet
from gan_runner.config.schema import Device, Section, validate
from gan_runner.console import say
from gan_runner.datasets.base import Folder, first, in_one_line
from gan_runner.errors import UserError
from gan_runner.machine.devices import one_device
from gan_runner.paths import as_path, write_atomically
from gan_runner.randomness import rng
from gan_runner.runs.generator import SAMPLE_BATCH, Checkpoint, TrainedGenerator, load_generator

NAMES_SHOWN = 20  # of classes, in a message
ClassName = Annotated[str, Field(min_length=1)]  # or a class's number
_GRID_LIMIT = 1024  # samples in grid.png
_MOST_FRAMES = 1000  # between two seeds or classes, because those of all of them are in memory at once


class SampleSettings(Section):
    """What to sample, from which run, and where to write it."""

    run: Folder
    count: PositiveInt
    checkpoint: Checkpoint
    label: ClassName | None
    seed: NonNegativeInt
    truncation: Annotated[FiniteFloat, Field(gt=0)] | None
    out: str | None
    columns: PositiveInt
    images: bool
    interpolate: Annotated[list[NonNegativeInt], Field(min_length=2)] | None
    interpolate_labels: Annotated[list[ClassName], Field(min_length=2)] | None
    sheet: Annotated[list[NonNegativeInt], Field(min_length=1)] | None
    frames: Annotated[int, Field(ge=0, le=_MOST_FRAMES)]
    trust: list[str]
    device: Device


def write_samples(plain: Mapping[str, Any]) -> Path:
    """Writes the samples that the configuration `plain` asks for; returns the folder.

    If the configuration or the run is wrong, raises `UserError` and leaves nothing behind.
    """
    settings = validate(SampleSettings, plain)
    run = as_path("run", settings.run)
    generator = load_generator(run, settings.trust, one_device(settings.device), settings.checkpoint)
    generator = replace(generator, truncation=settings.truncation)
    refuse_what_contradicts(settings, generator)
    label = None if settings.label is None else find_class("label", settings.label, generator, settings.run)
    classes = [find_class("interpolate_labels", n, generator, settings.run) for n in settings.interpolate_labels or []]
    out = as_path("out", settings.out) if settings.out is not None else run / "sampled"
    shape = (settings.count, *generator.facts.shape)
    try:
        refuse_what_does_not_fit(shape, out)
        with _made_aside(out) as aside:
            write_atomically(aside / "samples.npy", npy(shape, draw_samples(generator, settings, label)))
            samples = np.load(aside / "samples.npy", mmap_mode="r")  # there may be more than fit into memory
            shown = torch.tensor(samples[:_GRID_LIMIT])
            names = row_names(generator, -(-len(shown) // settings.columns)) if label is None else []
            pictures.save(aside / "grid.png", pictures.grid(shown, settings.columns, names))
            for i in range(settings.count if settings.images else 0):
                pictures.save(aside / "images" / f"{i:06}.png", pictures.grid(torch.tensor(samples[i : i + 1]), 1))
            if settings.interpolate is not None:
                write_interpolation(aside, generator, settings.interpolate, settings.frames, label or 0)
            if classes:
                write_label_interpolation(aside, generator, settings.seed, classes, settings.frames)
            if settings.sheet is not None:
                write_sheet(aside, generator, settings.sheet)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror or error}") from error
    if settings.label is not None and label is not None:
        say(f"label={in_one_line(settings.label)}: class {generator.facts.class_name(label)!r}, number {label}")
    return out


def refuse_what_contradicts(settings: SampleSettings, generator: TrainedGenerator) -> None:
    """Raises `UserError` for what this generator, or another key, rules out."""
    if settings.truncation is not None and generator.latent.distribution != "normal":
        raise UserError(
            f"truncation={settings.truncation:g}: the latents of {settings.run} are {generator.latent.distribution}; "
            f"only normal ones can be truncated"
        )
    if settings.sheet is not None and not generator.num_classes:
        raise UserError(f"sheet={settings.sheet}: the generator of {settings.run} is unconditional")
    if settings.sheet is not None and settings.label is not None:
        raise UserError(f"sheet={settings.sheet}: shows every class, and label={settings.label} asks for one alone")


def refuse_what_does_not_fit(shape: tuple[int, ...], out: Path) -> None:
    """Raises `UserError` if so many samples do not fit on the disk, before it is full."""
    folder = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    needed, free = 4 * math.prod(shape), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"count={shape[0]}: samples.npy would take {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free "
            f"in '{folder}'"
        )


@contextmanager
def _made_aside(out: Path) -> Iterator[Path]:
    """A folder whose files go to `out` at the end of the block; without that end, `out` is as it was before."""
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    aside = out / ".new"
    shutil.rmtree(aside, ignore_errors=True)  # of a kill
    try:
        aside.mkdir()
        yield aside
        for file in [file for file in aside.rglob("*") if file.is_file()]:
            target = out / file.relative_to(aside)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
        missing = []
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):  # something else was put there meanwhile
            for folder in missing:
                folder.rmdir()


def find_class(key: str, label: str, generator: TrainedGenerator, run: str) -> int:
    """The number of the class with this name, or else with this number. Raises `UserError`."""
    if not generator.num_classes:
        raise UserError(f"{key}={label}: the generator of {run} is unconditional")
    numbers = [str(number) for number in range(generator.num_classes)]
    names = list(generator.facts.class_names) or numbers
    wanted = in_one_line(label)
    # Some systems write é in file names as two characters, and a keyboard as one.
    alike = [normalize("NFC", name) for name in names]
    for known, spelling in ((names, wanted), (alike, normalize("NFC", wanted)), (numbers, wanted)):
        if spelling in known:
            return known.index(spelling)
    allowed = f"the generator of {run} has the classes 0 to {numbers[-1]}"
    if names != numbers:
        near = get_close_matches(wanted, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        allowed += f"; {hint}(their names: {first(names, NAMES_SHOWN)})"
    raise UserError(f"{key}={label}: {allowed}")


def row_names(generator: TrainedGenerator, rows: int) -> list[str]:
    """The class of each row of the grid; nothing of an unconditional generator, or of clusters, which are mixed."""
    is_mixed = not generator.num_classes or generator.facts.cluster_sizes
    numbers = [] if is_mixed else [row % generator.num_classes for row in range(rows)]
    return pictures.class_labels(numbers, generator.facts.class_names)


def draw_samples(generator: TrainedGenerator, settings: SampleSettings, label: int | None) -> Iterator[Tensor]:
    """`count` samples in batches; no sample depends on the count.

    Without a label, each row of the grid is a class; clusters are mixed, each as frequent as in the data.
    """
    starts, noise = range(0, settings.count, SAMPLE_BATCH), rng(settings.seed, "clusters")
    for start, z in zip(starts, generator.latents(settings.seed), strict=False):
        row = torch.arange(start, start + SAMPLE_BATCH) // settings.columns
        if label is not None:
            labels = torch.full_like(row, label)
        elif sizes := generator.facts.cluster_sizes:
            labels = draw_labels(generator.num_classes, sizes, SAMPLE_BATCH, noise)
        else:
            labels = row % max(generator.num_classes, 1)
        yield generator(z, labels)[: settings.count - start]


def npy(shape: tuple[int, ...], chunks: Iterable[Tensor]) -> Iterator[bytes]:
    """The content of a .npy file, in parts: a float32 array of this shape, made up of the chunks."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    for chunk in chunks:
        yield chunk.numpy().astype("<f4").tobytes()
