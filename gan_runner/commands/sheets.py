"""What `gan-sample` draws besides samples: ways from seed to seed and from class to class, and sheets of classes."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_runner import pictures
from gan_runner.config.schema import Latent
from gan_runner.errors import UserError, type_and_message
from gan_runner.runs.generator import SAMPLE_BATCH, TrainedGenerator

_ROWS = 8  # of a way from class to class: so many samples of the seed


def in_batches(generator: TrainedGenerator, z: Tensor, labels: Tensor) -> Tensor:
    """Samples (N, *shape) of any number of latents (N, dim) and labels (N,) or (N, K)."""
    chunks = zip(z.split(SAMPLE_BATCH), labels.split(SAMPLE_BATCH), strict=True)
    return torch.cat([generator(*chunk) for chunk in chunks])


def first_latents(generator: TrainedGenerator, seeds: Sequence[int]) -> Tensor:
    """The latents (S, dim) of the first sample of each seed."""
    return torch.cat([next(generator.latents(seed))[:1] for seed in seeds])


def write_interpolation(out: Path, generator: TrainedGenerator, seeds: Sequence[int], frames: int, label: int) -> None:
    """Writes interpolation.png, in which a row leads from one seed's first sample to the next's, and .gif."""
    step = frames + 1
    z = latent_path(first_latents(generator, seeds), step, generator.latent)
    samples = in_batches(generator, z, torch.full((len(z),), label))
    rows = [samples[i : i + step + 1] for i in range(0, len(samples) - 1, step)]
    pictures.save(out / "interpolation.png", pictures.grid(torch.cat(rows), step + 1))
    pictures.save_animation(out / "interpolation.gif", [pictures.grid(sample[None], 1) for sample in samples])


def write_label_interpolation(
    out: Path, generator: TrainedGenerator, seed: int, classes: Sequence[int], frames: int
) -> None:
    """Writes label_interpolation.png, in which each row leads one sample of the seed through the classes, and .gif.

    On the way, the weights of one class go down as those of the next go up. Raises `UserError` if the generator takes
    no weights.
    """
    z = next(generator.latents(seed))[:_ROWS]
    refuse_numbers_alone(generator, z, classes)
    corners = F.one_hot(torch.tensor(classes), generator.num_classes).double()
    weights = path(corners, frames + 1, torch.lerp).float()  # (T, K)
    steps = len(weights)
    samples = in_batches(generator, z.repeat_interleave(steps, dim=0), weights.repeat(len(z), 1))
    names = [""] * steps
    names[:: frames + 1] = pictures.class_labels(classes, generator.facts.class_names)
    pictures.save(out / "label_interpolation.png", pictures.grid(samples, steps, column_names=names))
    moments = [pictures.grid(samples[i::steps], len(z)) for i in range(steps)]
    pictures.save_animation(out / "label_interpolation.gif", moments)


def refuse_numbers_alone(generator: TrainedGenerator, z: Tensor, classes: Sequence[int]) -> None:
    """UserError for a generator, which may be a user's own, that makes nothing of weights over classes."""
    numbers = torch.tensor(classes).repeat_interleave(len(z))
    z = z.repeat(len(classes), 1)
    expected = in_batches(generator, z, numbers)
    try:
        found = in_batches(generator, z, F.one_hot(numbers, generator.num_classes).float())
        reason = "" if torch.allclose(found, expected, atol=1e-3) else "a class with the weight 1 is not that class"
    except Exception as error:
        reason = type_and_message(error)
    if reason:
        raise UserError(
            f"interpolate_labels: {type(generator.network).__name__} takes class numbers (B,) alone, and no weights "
            f"over the classes (B, {generator.num_classes}): {reason}"
        )


def write_sheet(out: Path, generator: TrainedGenerator, seeds: Sequence[int]) -> None:
    """Writes sheet.png: a row for the first sample of each seed, a column for each class."""
    classes = torch.arange(generator.num_classes)
    z = first_latents(generator, seeds).repeat_interleave(len(classes), dim=0)
    samples = in_batches(generator, z, classes.repeat(len(seeds)))
    rows = [f"seed {seed}" for seed in seeds]
    columns = pictures.class_labels(classes.tolist(), generator.facts.class_names)
    pictures.save(out / "sheet.png", pictures.grid(samples, len(classes), rows, columns))


def latent_path(corners: Tensor, steps: int, latent: Latent) -> Tensor:
    """Latents (steps·(K - 1) + 1, dim) on the way from each of the `corners` (K, dim) to the next.

    Normal latents follow a sphere, since nearly all of their mass is close to one; others follow straight lines.
    """
    between = spherical if latent.distribution == "normal" else torch.lerp
    return (path(corners.double() - latent.loc, steps, between) + latent.loc).float()


def path(corners: Tensor, steps: int, between: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """`steps` points on the way from each of the `corners` (K, dim) to the next, and the last one."""
    t = torch.arange(steps, dtype=torch.double).unsqueeze(1) / steps
    return torch.cat([*(between(start, end, t) for start, end in pairwise(corners)), corners[-1:]])


def spherical(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """(sin((1 - t)Ω)·start + sin(tΩ)·end) / sin Ω, with Ω the angle between the vectors (dim,), at each t (N, 1).

    Source: White, "Sampling Generative Networks" (2016), after Shoemake (1985).
    """
    angle = F.cosine_similarity(start, end, dim=0).clamp(-1, 1).acos()
    if angle.sin() < 1e-6:  # the vectors lie on one line
        return torch.lerp(start, end, t)
    return (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
