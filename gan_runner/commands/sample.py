"""`gan-sample`: samples of a run's generator as an array, a grid, single images and interpolations.

Only the run directory is needed, on any machine.
"""

import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from unicodedata import normalize

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from gan_runner import pictures
from gan_runner.config.schema import Device, Latent, Section, validate
from gan_runner.console import say
from gan_runner.datasets.base import Folder, first, in_one_line
from gan_runner.errors import UserError
from gan_runner.machine.devices import one_device
from gan_runner.paths import as_path, write_atomically
from gan_runner.runs.generator import SAMPLE_BATCH, Checkpoint, TrainedGenerator, load_generator

NAMES_SHOWN = 20  # of classes, in a message
_GRID_LIMIT = 1024  # samples in grid.png


class SampleSettings(Section):
    """What to sample, from which run, and where to write it."""

    run: Folder
    count: PositiveInt
    checkpoint: Checkpoint
    label: Annotated[str, Field(min_length=1)] | None  # a class's name or number
    seed: NonNegativeInt
    out: str | None
    columns: PositiveInt
    images: bool
    interpolate: Annotated[list[NonNegativeInt], Field(min_length=2)] | None
    frames: NonNegativeInt
    trust: list[str]
    device: Device


def write_samples(plain: Mapping[str, Any]) -> Path:
    """Writes the samples that the configuration `plain` asks for; returns the folder.

    If the configuration or the run is wrong, raises `UserError` and leaves nothing behind.
    """
    settings = validate(SampleSettings, plain)
    run = as_path("run", settings.run)
    generator = load_generator(run, settings.trust, one_device(settings.device), settings.checkpoint)
    label = None if settings.label is None else find_class(settings.label, generator, settings.run)
    out = as_path("out", settings.out) if settings.out is not None else run / "sampled"
    try:
        with _made_aside(out) as aside:
            shape = (settings.count, *generator.facts.shape)
            write_atomically(aside / "samples.npy", npy(shape, draw_samples(generator, settings, label)))
            samples = np.load(aside / "samples.npy", mmap_mode="r")  # there may be more than fit into memory
            shown = torch.tensor(samples[:_GRID_LIMIT])
            names = row_names(generator, -(-len(shown) // settings.columns)) if label is None else []
            pictures.save(aside / "grid.png", pictures.grid(shown, settings.columns, names))
            for i in range(settings.count if settings.images else 0):
                pictures.save(aside / "images" / f"{i:06}.png", pictures.grid(torch.tensor(samples[i : i + 1]), 1))
            if settings.interpolate is not None:
                write_interpolation(aside, generator, settings, settings.interpolate, label or 0)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror or error}") from error
    if settings.label is not None and label is not None:
        say(f"label={in_one_line(settings.label)}: class {generator.facts.class_name(label)!r}, number {label}")
    return out


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


def find_class(label: str, generator: TrainedGenerator, run: str) -> int:
    """The number of the class with this name, or else with this number. Raises `UserError`."""
    if not generator.num_classes:
        raise UserError(f"label={label}: the generator of {run} is unconditional")
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
    raise UserError(f"label={label}: {allowed}")


def row_names(generator: TrainedGenerator, rows: int) -> list[str]:
    """The class of each row of the grid; nothing of an unconditional generator."""
    numbers = [row % generator.num_classes for row in range(rows)] if generator.num_classes else []
    return pictures.class_labels(numbers, generator.facts.class_names)


def draw_samples(generator: TrainedGenerator, settings: SampleSettings, label: int | None) -> Iterator[Tensor]:
    """`count` samples in batches; no sample depends on the count. Without a label, each row of the grid is a class."""
    starts = range(0, settings.count, SAMPLE_BATCH)
    for start, z in zip(starts, generator.latents(settings.seed), strict=False):
        row = torch.arange(start, start + SAMPLE_BATCH) // settings.columns
        labels = row % max(generator.num_classes, 1) if label is None else torch.full_like(row, label)
        yield generator(z, labels)[: settings.count - start]


def npy(shape: tuple[int, ...], chunks: Iterable[Tensor]) -> Iterator[bytes]:
    """The content of a .npy file, in parts: a float32 array of this shape, made up of the chunks."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    for chunk in chunks:
        yield chunk.numpy().astype("<f4").tobytes()


def write_interpolation(
    out: Path, generator: TrainedGenerator, settings: SampleSettings, seeds: Sequence[int], label: int
) -> None:
    """Writes interpolation.png, in which a row leads from one seed's first sample to the next's, and .gif."""
    step = settings.frames + 1
    corners = torch.cat([next(generator.latents(seed))[:1] for seed in seeds])
    z = latent_path(corners, step, generator.latent)
    labels = torch.full((len(z),), label)
    chunks = zip(z.split(SAMPLE_BATCH), labels.split(SAMPLE_BATCH), strict=True)
    samples = torch.cat([generator(*chunk) for chunk in chunks])
    rows = [samples[i : i + step + 1] for i in range(0, len(samples) - 1, step)]
    pictures.save(out / "interpolation.png", pictures.grid(torch.cat(rows), step + 1))
    pictures.save_animation(out / "interpolation.gif", [pictures.grid(sample[None], 1) for sample in samples])


def latent_path(corners: Tensor, steps: int, latent: Latent) -> Tensor:
    """Latents (steps·(K - 1) + 1, dim) on the way from each of the `corners` (K, dim) to the next.

    Normal latents follow a sphere, since nearly all of their mass is close to one; others follow straight lines.
    """
    between = spherical if latent.distribution == "normal" else torch.lerp
    centred = corners.double() - latent.loc
    t = torch.arange(steps, dtype=torch.double).unsqueeze(1) / steps
    legs = [between(start, end, t) for start, end in pairwise(centred)]
    return (torch.cat([*legs, centred[-1:]]) + latent.loc).float()


def spherical(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """(sin((1 - t)Ω)·start + sin(tΩ)·end) / sin Ω, with Ω the angle between the vectors (dim,), at each t (N, 1).

    Source: White, "Sampling Generative Networks" (2016), after Shoemake (1985).
    """
    angle = torch.nn.functional.cosine_similarity(start, end, dim=0).clamp(-1, 1).acos()
    if angle.sin() < 1e-6:  # the vectors lie on one line
        return torch.lerp(start, end, t)
    return (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
