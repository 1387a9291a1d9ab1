"""Image files from a folder or a zip, decoded once into a memory-mapped cache."""

import hashlib
import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from gan_runner.errors import UserError
from gan_runner.paths import cache_folder

Size = PositiveInt | tuple[PositiveInt, PositiveInt] | None  # the side of a square, or [height, width]; None: unchanged
Crop = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt] | None  # top, bottom, left, right

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CACHE_FORMAT = 1  # raise it when `decode` changes the pixels of the same file
CHUNK = 512  # images decoded between two writes to the cache


@dataclass(frozen=True)
class ImageFiles:
    """The images in a folder, at any depth, or in a zip; without hidden files, `__MACOSX` and other extensions.

    `stamps` has, for each relative name in sorted order, two numbers that change when the file does.
    """

    root: Path
    archive: zipfile.ZipFile | None
    stamps: dict[str, tuple[int, int]]
    folders: tuple[str, ...] = ()  # all that are not hidden, also empty ones
    remarks: list[str] = field(default_factory=list)  # what else is there, in sentences

    @classmethod
    def find(cls, root: Path, lists: Sequence[str] = ()) -> "ImageFiles":
        """The images in `root`, beside which `lists` may lie; `UserError` if it is not a folder or zip of images."""
        archive = None
        if root.is_dir():
            walk = list(os.walk(root, followlinks=True))  # clusters assemble datasets from links
            files = (Path(folder, name) for folder, _, names in walk for name in names)
            stats = {file.relative_to(root).as_posix(): file.stat() for file in files if file.exists()}
            folders = {Path(folder, name).relative_to(root).as_posix() for folder, names, _ in walk for name in names}
            stamps = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
        elif root.exists():
            try:
                archive = zipfile.ZipFile(root)
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"dataset.root: '{root}' is neither a folder nor a readable zip: {error}") from None
            stamps = {info.filename: (info.file_size, info.CRC) for info in archive.infolist() if not info.is_dir()}
            named = [PurePosixPath(name) for name in archive.namelist()]
            folders = {p.as_posix() for path in named for p in path.parents if p.parts}
            folders |= {path.as_posix() for path, info in zip(named, archive.infolist(), strict=True) if info.is_dir()}
        else:
            raise UserError(f"dataset.root: '{root}' does not exist; allowed: a folder or a .zip of images")

        images = {name: stamps[name] for name in sorted(stamps) if _is_image(PurePosixPath(name))}
        if not images:
            raise UserError(f"dataset.root: no images in '{root}' (allowed: {', '.join(EXTENSIONS)})")
        return cls(root, archive, images, tuple(sorted(f for f in folders if not _is_hidden(PurePosixPath(f)))))

    def read(self, name: str) -> bytes:
        """The file's content; any exception if it is damaged."""
        return self.archive.read(name) if self.archive else (self.root / name).read_bytes()


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in EXTENSIONS and not _is_hidden(path)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def load(
    files: ImageFiles, names: list[str], size: Size, crop: Crop, channels: int
) -> tuple[Tensor, list[str], list[str]]:
    """Decodes `names` into images, uint8 (N, channels, height, width). Also returns their names, and those skipped.

    They are decoded once: later calls find the result in the cache folder.

    First `crop` takes rows top:bottom and columns left:right; then the largest centred part with the proportions of
    `size` is resized to it. Images are rotated by their EXIF data, and transparent ones get a white background. Raises
    `UserError` if fewer than two images can be decoded, or if they differ in size and `size` is None.
    """
    if crop is not None and not (crop[0] < crop[1] and crop[2] < crop[3]):
        raise UserError(
            f"dataset.crop is {list(crop)}; allowed: [top, bottom, left, right], top < bottom, left < right"
        )
    options = (size if size is None or isinstance(size, int) else list(size), crop and list(crop), channels)
    stamped = [(name, *files.stamps[name]) for name in names]
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, str(files.root.resolve()), options, stamped]).encode()).hexdigest()

    cache = cache_folder()
    pixels, index = cache / f"{key}.pixels", cache / f"{key}.json"
    if not (pixels.exists() and index.exists()):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as aside:
                new_pixels, new_index = Path(aside, "pixels"), Path(aside, "index")
                with new_pixels.open("wb") as file:
                    facts = _decode_into(file, files, names, lambda content: decode(content, size, crop, channels))
                new_index.write_text(json.dumps(facts))
                os.replace(new_pixels, pixels)
                os.replace(new_index, index)  # last, because it marks the entry as complete
        except OSError as error:
            raise UserError(
                f"the cache of decoded images in '{cache}' cannot be written ({error}); "
                "set GAN_RUNNER_CACHE to a folder with room"
            ) from None

    try:
        facts = json.loads(index.read_text())
        skipped = set(facts["skipped"])
        kept = [name for name in names if name not in skipped]
        mapped = np.memmap(pixels, np.uint8, mode="c", shape=(len(kept), *facts["shape"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} and its .pixels: are damaged ({error}); remove them to decode again") from error
    return torch.from_numpy(mapped), kept, facts["skipped"]


def _decode_into(
    target: IO[bytes], files: ImageFiles, names: list[str], decode: Callable[[bytes], np.ndarray]
) -> dict[str, list]:
    """Writes the images' bytes to `target` in order; returns one image's "shape" and the names "skipped"."""
    from rich.console import Console
    from rich.progress import Progress

    def attempt(name: str) -> np.ndarray | str:
        try:
            return decode(files.read(name))
        except Exception as error:  # on a broken file, Pillow's decoders raise almost anything
            return f"{type(error).__name__}: {error}"

    first: tuple[str, tuple[int, ...]] | None = None
    failures: dict[str, str] = {}
    console = Console(stderr=True)
    with Progress(console=console, disable=not sys.stderr.isatty()) as progress, ThreadPoolExecutor() as pool:
        task = progress.add_task("Decoding images", total=len(names))
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            for name, image in zip(chunk, pool.map(attempt, chunk), strict=True):
                progress.advance(task)
                if isinstance(image, str):
                    failures[name] = image
                    continue
                first = first or (name, image.shape)
                if image.shape != first[1]:
                    raise UserError(
                        f"dataset.size is null, which keeps every image's size, but (channels, height, width) is "
                        f"{first[1]} in '{first[0]}' and {image.shape} in '{name}'; set dataset.size"
                    )
                target.write(image.tobytes())
    if first is None or len(names) - len(failures) < 2:
        example = next((f"; '{name}': {reason}" for name, reason in failures.items()), "")
        raise UserError(
            f"dataset.root: {len(names) - len(failures)} of {len(names)} images in '{files.root}' can be used, "
            f"at least 2 are needed{example}"
        )
    return {"shape": list(first[1]), "skipped": list(failures)}


def decode(content: bytes, size: Size, crop: Crop, channels: int) -> np.ndarray:
    """One file's image as uint8 (channels, height, width), see `load`; any exception if that fails."""
    from PIL import Image, ImageOps

    image: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.mode.startswith("I"):  # 16 bits, which Pillow may store in 32: keep the upper eight
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB" if channels == 3 else "L")
    if crop is not None:
        top, bottom, left, right = crop
        if bottom > image.height or right > image.width:
            raise ValueError(f"height {image.height} and width {image.width} are too small for dataset.crop")
        image = image.crop((left, top, right, bottom))
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)  # (H, W) or (H, W, C)
    return np.atleast_3d(pixels).transpose(2, 0, 1)
