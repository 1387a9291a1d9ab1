"""Small pictures, and files to put them in."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RANDOM = np.random.default_rng(0)


def picture(height: int = 8, width: int = 8) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The content of a file."""
    image.save(file := io.BytesIO(), format, **options)
    return file.getvalue()


PNG = encoded(Image.fromarray(picture()))


def idx(array: np.ndarray) -> bytes:
    """A file in MNIST's format, written independently of the reader."""
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def tiff(data: bytes, size: int, *, bits: int, order: str, photometric: int = 1, sample_format: int = 1) -> bytes:
    """A square TIFF by the letter of its specification (Adobe, revision 6.0): a header, one directory, the data."""
    tags = {256: size, 257: size, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 10 * 12 + 4, 277: 1, 278: size}
    tags |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return header + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + data
