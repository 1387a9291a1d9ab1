"""Image files of one colour each, in many formats: what a reader has to find in them is known beforehand."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from random import Random

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
Make = Callable[[Colour, tuple[int, int]], tuple[bytes, Colour]]  # a file of this colour and size, and what it comes to
LEVELS = (30, 100, 170, 240)
COLOURS: list[Colour] = [(r, g, b) for r, g, b in product(LEVELS, repeat=3) if not r == g == b]
SIZES = ((1, 1), (1, 1000), (1000, 1), (3, 5), (16, 16), (17, 8), (64, 2), (8, 8), (33, 31))  # width, height


@dataclass(frozen=True)
class Picture:
    """The content of a file, and the colour that it has to come to; None if it cannot be used."""

    ending: str
    content: bytes
    colour: Colour | None


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """The image as a file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _plain(form: str, **options: object) -> Make:
    return lambda colour, size: (saved(Image.new("RGB", size, colour), form, **options), colour)


def _frames(form: str, **options: object) -> Make:
    """An animation, whose first picture counts."""

    def make(colour: Colour, size: tuple[int, int]) -> tuple[bytes, Colour]:
        first, other = Image.new("RGB", size, colour), Image.new("RGB", size, (0, 0, 0))
        return saved(first, form, save_all=True, append_images=[other, other], **options), colour

    return make


def _grey(values: Callable[[int], np.ndarray | Image.Image], form: str) -> Make:
    def make(colour: Colour, size: tuple[int, int]) -> tuple[bytes, Colour]:
        grey = colour[0] // 10 * 8 + 4  # no grey of another kind
        made = values(grey)
        image = made if isinstance(made, Image.Image) else Image.fromarray(made)
        return saved(image.resize(size, Image.Resampling.NEAREST), form), (grey, grey, grey)

    return make


def _see_through(colour: Colour, size: tuple[int, int]) -> tuple[bytes, Colour]:
    """Half of it is the white behind it."""
    mixed = tuple(round(c * 128 / 255 + 255 * 127 / 255) for c in colour)
    return saved(Image.new("RGBA", size, (*colour, 128)), "PNG"), mixed  # type: ignore[return-value]


def _palette(colour: Colour, size: tuple[int, int]) -> tuple[bytes, Colour]:
    image = Image.new("P", size, 5)
    image.putpalette([0, 0, 0] * 5 + [*colour] + [9, 9, 9] * 250)
    return saved(image, "PNG"), colour


def _cmyk(form: str) -> Make:
    def make(colour: Colour, size: tuple[int, int]) -> tuple[bytes, Colour]:
        c, m, y = (255 - value for value in colour)
        return saved(Image.new("CMYK", size, (c, m, y, 0)), form, quality=100), colour

    return make


def _white(form: str) -> Make:
    return lambda colour, size: (saved(Image.new("1", size, 1), form), (255, 255, 255))


# Endings and how their files are made; each gives the content and the right colour.
FORMATS: dict[str, tuple[str, Make]] = {
    "PNG": (".png", _plain("PNG")),
    "PNG, upper case": (".PNG", _plain("PNG")),
    "JPEG": (".jpg", _plain("JPEG", quality=95)),
    "JPEG, .jpeg": (".jpeg", _plain("JPEG", quality=95)),
    "JPEG, .JPG": (".JPG", _plain("JPEG", quality=95)),
    "JPEG, .jfif": (".jfif", _plain("JPEG", quality=95)),
    "JPEG, .jpe": (".jpe", _plain("JPEG", quality=95)),
    "JPEG, CMYK": (".jpg", _cmyk("JPEG")),
    "BMP": (".bmp", _plain("BMP")),
    "GIF": (".gif", _plain("GIF")),
    "GIF, animated": (".gif", _frames("GIF")),
    "TIFF": (".tif", _plain("TIFF")),
    "TIFF, LZW": (".tiff", _plain("TIFF", compression="tiff_lzw")),
    "TIFF, pages": (".tiff", _frames("TIFF")),
    "TIFF, CMYK": (".tif", _cmyk("TIFF")),
    "TIFF, 16 bits": (".tif", _grey(lambda g: np.full((4, 4), g * 257, np.uint16), "TIFF")),
    "TIFF, float": (".tif", _grey(lambda g: np.full((4, 4), g / 255, np.float32), "TIFF")),
    "WebP": (".webp", _plain("WEBP", lossless=True)),
    "WebP, animated": (".webp", _frames("WEBP", lossless=True)),
    "PPM": (".ppm", _plain("PPM")),
    "PGM": (".pgm", _grey(lambda g: np.full((4, 4), g, np.uint8), "PPM")),
    "PBM": (".pbm", _white("PPM")),
    "JPEG 2000": (".jp2", _plain("JPEG2000")),
    "TGA": (".tga", _plain("TGA")),
    "PCX": (".pcx", _plain("PCX")),
    "SGI": (".sgi", _plain("SGI")),
    "QOI": (".qoi", _plain("QOI")),
    "DIB": (".dib", _plain("DIB")),
    "AVIF": (".avif", _plain("AVIF", quality=100)),
    "PNG, grey": (".png", _grey(lambda g: np.full((4, 4), g, np.uint8), "PNG")),
    "PNG, 16 bits": (".png", _grey(lambda g: np.full((4, 4), g * 257, np.uint16), "PNG")),
    "PNG, 1 bit": (".png", _white("PNG")),
    "PNG, see-through": (".png", _see_through),
    "PNG, palette": (".png", _palette),
    "PNG, called JPEG": (".jpg", _plain("PNG")),
    "JPEG, called PNG": (".png", _plain("JPEG", quality=95)),
    "GIF, called BMP": (".bmp", _plain("GIF")),
}
CODECS = {"WebP": "webp", "WebP, animated": "webp", "JPEG 2000": "jpg_2000", "AVIF": "avif"}
COMMON = ("PNG", "PNG", "PNG", "JPEG", "BMP", "GIF")
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
UNUSABLE: dict[str, Callable[[Random], tuple[str, bytes]]] = {
    "empty": lambda rng: (".png", b""),
    "text": lambda rng: (".png", b"this is no picture\n" * 5),
    "noise": lambda rng: (".jpg", rng.randbytes(300)),
    "cut PNG": lambda rng: (".png", _cut(saved(Image.new("RGB", (40, 40), (1, 2, 3)), "PNG"))),
    "cut JPEG": lambda rng: (".jpg", _cut(saved(_noise(rng), "JPEG"))),
    "cut GIF": lambda rng: (".gif", _cut(saved(_noise(rng), "GIF"))),
    "cut BMP": lambda rng: (".bmp", _cut(saved(Image.new("RGB", (40, 40)), "BMP"))),
    "only a header": lambda rng: (".png", saved(Image.new("RGB", (9, 9)), "PNG")[:30]),
    "EPS called PNG": lambda rng: (".png", _EPS),
    "TIFF, floats beyond 1": lambda rng: (".tif", saved(Image.fromarray(np.full((4, 4), 300, np.float32)), "TIFF")),
    "TIFF, not a number": lambda rng: (".tif", saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")),
    "a zip": lambda rng: (".png", b"PK\x05\x06" + bytes(18)),
    "a bomb": lambda rng: (".png", _bomb()),
}


def picture(rng: Random, number: int, common: bool = False) -> Picture:
    """A picture whose colour no other number has."""
    name = rng.choice(COMMON if common else sorted(FORMATS))
    ending, make = FORMATS[name]
    size = rng.choice(SIZES)
    content, colour = make(COLOURS[number % len(COLOURS)], size)
    return Picture(ending, content, colour)


def damaged(rng: Random) -> Picture:
    """A file that is called a picture, and cannot be used."""
    ending, content = UNUSABLE[rng.choice(sorted(UNUSABLE))](rng)
    return Picture(ending, content, None)


def _noise(rng: Random) -> Image.Image:
    return Image.fromarray(np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (40, 40), np.uint8))


def _bomb() -> bytes:
    """A PNG that says of itself that it has 50,000 × 50,000 pixels."""
    content = saved(Image.new("L", (9, 9)), "PNG")
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]
