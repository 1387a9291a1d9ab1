"""Augmentations: what the discriminator sees in place of real and generated samples, in every update of both networks.

Each is a function of samples and of random numbers that it is given, differentiable in the samples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from gan_runner.errors import UserError

Numbers = Iterator[Tensor]  # random numbers, one a sample (B,) each time
Range = tuple[float, float]


class Augmentation:
    """A random change of each sample. Subclasses say how many numbers a sample takes, and define `__call__`."""

    uniforms: int = 0  # in [0, 1)
    normals: int = 0  # of mean 0 and standard deviation 1
    adapts: ClassVar[Sequence[str]] = ()
    """The numbers, 0 at first, that `adapt` changes. If there are any, the strength is the one called "probability"."""

    def strength(self, step: int) -> float:
        """How strong it is at `step` = 1, 2, … unless it adapts."""
        return 1.0

    def adapt(self, state: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> None:
        """Changes `state`, after an update of the discriminator; "mean/sign" is that of its logits of real samples."""

    def __call__(self, x: Tensor, drawn: Tensor, strength: Tensor) -> Tensor:
        """(B, *shape), the uniform and then the normal numbers (B, uniforms + normals), (B,) -> (B, *shape)."""
        raise NotImplementedError


class InstanceNoise(Augmentation):
    """x + σ (1 − t / steps) ε with ε ~ N(0, 1), at t = 0, 1, … (Sønderby et al. 2017, Arjovsky & Bottou 2017).

    Noise gives two distributions the common support without which a discriminator can tell them apart entirely.
    """

    def __init__(self, std: PositiveFloat, steps: PositiveInt, shape: Sequence[int]) -> None:
        self.std, self.steps, self.normals = std, steps, math.prod(shape)

    def strength(self, step: int) -> float:
        """It falls to 0 over `steps`."""
        return max(0.0, 1 - (step - 1) / self.steps)

    def __call__(self, x: Tensor, drawn: Tensor, strength: Tensor) -> Tensor:
        return x + self.std * (strength[:, None] * drawn).view_as(x)


class ImageAugmentation(Augmentation):
    """An augmentation of images (C, H, W), which `change` sees in the papers' range of values, [−1, 1]."""

    def __init__(self, shape: Sequence[int], value_range: Range | None) -> None:
        if len(shape) != 3:
            raise UserError(
                f"augmentation: {type(self).__name__} needs images (channels, height, width), but the dataset's shape "
                f"is {tuple(shape)}; choose instance_noise or none"
            )
        low, high = value_range or (-1.0, 1.0)
        self.middle, self.half = (low + high) / 2, (high - low) / 2

    def __call__(self, x: Tensor, drawn: Tensor, strength: Tensor) -> Tensor:
        uniform, normal = drawn.split([self.uniforms, self.normals], dim=1)
        changed = self.change((x - self.middle) / self.half, iter(uniform.unbind(1)), iter(normal.unbind(1)), strength)
        return changed * self.half + self.middle

    def change(self, x: Tensor, uniform: Numbers, normal: Numbers, strength: Tensor) -> Tensor:
        """The images (B, C, H, W), changed."""
        raise NotImplementedError


def refuse_repeated(policy: Sequence[str]) -> None:
    """UserError for a policy that names a change twice."""
    if twice := [name for name in policy if policy.count(name) > 1]:
        raise UserError(f"augmentation.policy: found {twice[0]} twice; allowed: each once")


class DiffAugment(ImageAugmentation):
    """Differentiable augmentation (Zhao et al. 2020): each image is changed by all that the policy names, in turn."""

    def __init__(
        self,
        policy: Annotated[list[Literal["color", "translation", "cutout"]], Field(min_length=1)],
        shape: Sequence[int],
        value_range: Range | None,
    ) -> None:
        super().__init__(shape, value_range)
        refuse_repeated(policy)
        changes = {"color": (jitter_color, 3), "translation": (translate, 2), "cutout": (cut_out, 2)}
        self.policy = [changes[name][0] for name in policy]
        self.uniforms = sum(changes[name][1] for name in policy)

    def change(self, x: Tensor, uniform: Numbers, normal: Numbers, strength: Tensor) -> Tensor:
        for change in self.policy:
            x = change(x, uniform)
        return x


def jitter_color(x: Tensor, uniform: Numbers) -> Tensor:
    """Brightness ± 0.5, saturation (the distance from grey) times 0 … 2, contrast times 0.5 … 1.5."""
    x = x + _per_image(next(uniform) - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + _per_image(2 * next(uniform)) * (x - grey)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + _per_image(next(uniform) + 0.5) * (x - mean)


def translate(x: Tensor, uniform: Numbers) -> Tensor:
    """By a whole number of pixels, up to an eighth of each side; what comes into view is 0."""
    for dim in (2, 3):
        side = x.shape[dim]
        most = int(side / 8 + 0.5)
        shift = (next(uniform) * (2 * most + 1)).floor().long() - most
        source = torch.arange(side, device=x.device) - shift[:, None]  # (B, side)
        source = source[:, None, :, None] if dim == 2 else source[:, None, None, :]
        inside = (source >= 0) & (source < side)
        x = x.gather(dim, source.clamp(0, side - 1).expand(x.shape)) * inside
    return x


def cut_out(x: Tensor, uniform: Numbers) -> Tensor:
    """Sets a rectangle of half the sides to 0; it may reach over the edge, as its middle is anywhere in the image."""
    inside = torch.ones_like(x[:, :1], dtype=torch.bool)
    for dim in (2, 3):
        side = x.shape[dim]
        size = int(side / 2 + 0.5)
        begin = (next(uniform) * (side + 1 - size % 2)).floor().long() - size // 2
        distance = torch.arange(side, device=x.device) - begin[:, None]  # (B, side)
        distance = distance[:, None, :, None] if dim == 2 else distance[:, None, None, :]
        inside = inside & (distance >= 0) & (distance < size)
    return x * ~inside


class ADA(ImageAugmentation):
    """Adaptive discriminator augmentation (Karras et al. 2020): each change is made with probability p.

    p follows the sign of D's logits of real samples, whose mean r nears 1 where D overfits: every `interval` updates it
    rises if r is above `target`, and falls if r is below. One change is batch size · `interval` / `images`, so that p
    needs `images` real images to go from 0 to 1.
    """

    adapts = ("probability", "sign", "updates")

    def __init__(
        self,
        policy: Annotated[list[Literal["blit", "geometry", "color"]], Field(min_length=1)],
        target: Annotated[float, Field(gt=-1, lt=1)],
        interval: PositiveInt,
        images: PositiveInt,
        shape: Sequence[int],
        value_range: Range | None,
        batch_size: int,
    ) -> None:
        super().__init__(shape, value_range)
        refuse_repeated(policy)
        if "color" in policy and shape[0] not in (1, 3):
            raise UserError(
                f"augmentation.policy: color needs images of 1 or 3 channels, but the dataset's have {shape[0]}; "
                "leave it out"
            )
        self.policy, self.target, self.interval = policy, target, interval
        self.change_of_p = batch_size * interval / images
        self.uniforms = 7 * len(policy)
        self.normals = sum({"blit": 0, "geometry": 4, "color": 3}[name] for name in policy)

    def adapt(self, state: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> None:
        p, signs, updates = (state[name] for name in self.adapts)
        signs += means["mean/sign"]
        updates += 1
        due = updates == self.interval
        excess = (signs / self.interval - self.target).round(
            decimals=5
        )  # so that a tie is one on any number of processes
        change = self.change_of_p * excess.sign()
        p.copy_(torch.where(due, (p + change).clamp(0, 1), p))
        signs *= ~due
        updates *= ~due

    def change(self, x: Tensor, uniform: Numbers, normal: Numbers, strength: Tensor) -> Tensor:
        height, width = x.shape[2:]
        source = torch.eye(3, dtype=x.dtype, device=x.device)
        if "blit" in self.policy:
            source = source @ blit(uniform, strength, height, width)
        if "geometry" in self.policy:
            source = source @ move(uniform, normal, strength, height, width)
        if source.ndim == 3:
            x = resample(x, source)
        return recolor(x, uniform, normal, strength) if "color" in self.policy else x


# The changes of ADA, each made with probability p (B,). Of a geometric one they return the matrix (B, 3, 3) of its
# inverse, which is as likely as itself: from where each pixel is taken, in pixels (x, y, 1) from the middle.


def blit(uniform: Numbers, p: Tensor, height: int, width: int) -> Tensor:
    """A mirror image, a rotation by 0, 90, 180 or 270°, a translation by whole pixels up to an eighth of each side."""
    mirrored = _chosen(p, uniform, (2 * next(uniform)).floor(), 0.0)
    quarters = _chosen(p, uniform, (4 * next(uniform)).floor(), 0.0)
    moved = next(uniform) < p
    x, y = ((side / 8 * (2 * next(uniform) - 1)).round() * moved for side in (width, height))
    return _scaling(1 - 2 * mirrored, 1.0) @ _rotation(math.pi / 2 * quarters) @ _translation(x, y)


def move(uniform: Numbers, normal: Numbers, p: Tensor, height: int, width: int) -> Tensor:
    """A scaling by 2^n, n ~ N(0, 0.2²), of both axes and of one against the other, any rotation, any translation.

    A rotation before the unequal scaling, and one after it, give it any axes; p is the probability of one at least.
    """
    p_of_each = 1 - (1 - p).sqrt()
    size = _chosen(p, uniform, torch.exp2(0.2 * next(normal)), 1.0)
    before = _chosen(p_of_each, uniform, math.pi * (2 * next(uniform) - 1), 0.0)
    aspect = _chosen(p, uniform, torch.exp2(0.2 * next(normal)), 1.0)
    after = _chosen(p_of_each, uniform, math.pi * (2 * next(uniform) - 1), 0.0)
    moved = next(uniform) < p
    x, y = (side / 8 * next(normal) * moved for side in (width, height))
    turned = _scaling(size, size) @ _rotation(before) @ _scaling(aspect, 1 / aspect) @ _rotation(after)
    return turned @ _translation(x, y)


def resample(x: Tensor, source: Tensor) -> Tensor:
    """Takes each pixel from where `source` says, between pixels bilinearly; around it the image is mirrored."""
    height, width = x.shape[2:]
    down, right = (torch.arange(side, dtype=x.dtype, device=x.device) - (side - 1) / 2 for side in (height, width))
    rows = source[:, :2, :, None, None].unbind(1)  # (B, 3, 1, 1) each
    places = [
        (row[:, 0] * right + row[:, 1] * down[:, None] + row[:, 2]) * 2 / side  # from one edge, -1, to the other, 1
        for row, side in zip(rows, (width, height), strict=True)
    ]
    return F.grid_sample(x, torch.stack(places, dim=-1), padding_mode="reflection", align_corners=False)


def recolor(x: Tensor, uniform: Numbers, normal: Numbers, p: Tensor) -> Tensor:
    """Brightness + 0.2 n, contrast times 2^(n / 2), luma inverted, hue turned by any angle, saturation times 2^n.

    Luma lies along the grey axis (1, 1, 1), hue is the angle around it, saturation the distance from it: a grey image
    has luma alone.
    """
    brightness = _chosen(p, uniform, 0.2 * next(normal), 0.0)
    contrast = _chosen(p, uniform, torch.exp2(0.5 * next(normal)), 1.0)
    inverted = _chosen(p, uniform, (2 * next(uniform)).floor(), 0.0)
    angle = _chosen(p, uniform, math.pi * (2 * next(uniform) - 1), 0.0)
    saturation = _chosen(p, uniform, torch.exp2(next(normal)), 1.0)
    x = _per_image(contrast) * (x + _per_image(brightness))
    luma = x.mean(dim=1, keepdim=True)
    chroma = x - luma
    quarter = (chroma.roll(1, dims=1) - chroma.roll(-1, dims=1)) / math.sqrt(3)  # turned by 90°: axis × chroma
    turned = _per_image(angle.cos()) * chroma + _per_image(angle.sin()) * quarter
    return _per_image(1 - 2 * inverted) * luma + _per_image(saturation) * turned


def _chosen(p: Tensor, uniform: Numbers, value: Tensor, otherwise: float) -> Tensor:
    """`value` with probability p."""
    return torch.where(next(uniform) < p, value, otherwise)


def _per_image(number: Tensor) -> Tensor:
    return number[:, None, None, None]


def _scaling(x: Tensor, y: Tensor | float) -> Tensor:
    return _matrix([x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0])


def _rotation(angle: Tensor) -> Tensor:
    cosine, sine = angle.cos(), angle.sin()
    return _matrix([cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0])


def _translation(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0])


def _matrix(*rows: Sequence[Tensor | float]) -> Tensor:
    """(B, 3, 3) from elements (B,) or of all samples."""
    like = next(element for row in rows for element in row if isinstance(element, Tensor))
    full = [[e if isinstance(e, Tensor) else torch.full_like(like, e) for e in row] for row in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in full], dim=-2)
