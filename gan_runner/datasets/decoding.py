"""Which image formats are taken, and how one file's content becomes pixels."""

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from PIL import Image

Size = PositiveInt | tuple[PositiveInt, PositiveInt] | None  # the side of a square, or [height, width]; None: unchanged
Crop = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt] | None  # top, bottom, left, right

# What Pillow opens, but not as a picture or not by itself. Its stubs, which have no decoder, tell themselves.
_UNFIT = {
    "EPS",  # starts Ghostscript on a stranger's file
    "FITS",  # measurements, whose zero and scale Pillow ignores
    "IPTC",  # opens what it contains as any format, EPS too
    "MPEG",  # is recognised, never decoded
}
_CODECS = {"AVIF": "avif", "JPEG": "jpg", "JPEG2000": "jpg_2000", "PNG": "zlib", "WEBP": "webp"}  # may be left out
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose 16 bits Pillow may store in 32; elsewhere, 32 bits are 32 bits
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF's tags
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the last two


@cache
def formats() -> list[str]:
    """The formats, as Pillow names them, that it decodes here by itself."""
    from PIL import Image, ImageFile, features

    Image.init()

    def is_decoded(name: str) -> bool:
        factory: Any = Image.OPEN[name][0]
        is_stub = isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
        return not is_stub and name not in _UNFIT and (name not in _CODECS or bool(features.check(_CODECS[name])))

    named = set(Image.EXTENSION.values())
    return [name for name in Image.ID if name in named and is_decoded(name)]


@cache
def extensions() -> frozenset[str]:
    """The endings of the names of image files, such as ".png"."""
    taken = formats()
    from PIL import Image

    opened_as = {"MPO": "JPEG"}  # a photograph in several versions, of which JPEG's decoder takes the first
    return frozenset(end for end, name in Image.EXTENSION.items() if opened_as.get(name, name) in taken)


def decode(content: bytes, size: Size, crop: Crop, channels: int) -> np.ndarray:
    """One file's image as uint8 (channels, height, width), see `load`; any exception if that fails.

    Of a file with several pictures, such as an animation, this is the first.
    """
    from PIL import Image, ImageOps

    opened = Image.open(io.BytesIO(content), formats=formats())
    tags = dict(getattr(opened, "tag_v2", {}))
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise ValueError("it has signed integers, of which nothing says what is black and white")
    image: Image.Image = ImageOps.exif_transpose(opened)
    if image.mode[0] in "IF":  # integers of more than eight bits, and floating point
        image = Image.fromarray(_eight_bits(image, opened.format, tags))
    if image.mode in ("La", "LAB"):  # these are converted in two steps
        image = image.convert({"La": "LA", "LAB": "RGB"}[image.mode])
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


def _eight_bits(image: "Image.Image", format: str | None, tags: dict[int, Any]) -> np.ndarray:
    """The grey values of an image with more than eight bits, as uint8 (H, W); Pillow itself would clip them.

    16 bits keep the upper eight. Floating-point values are 0 (black) to 1 (white). What the white of any others is,
    nothing in the file says, and the image's own extremes must not decide it: they differ from image to image.
    """
    values = np.asarray(image)
    if image.mode == "F":
        if not ((values >= 0) & (values <= 1)).all():  # so with NaN
            found = f"{values.min():g} to {values.max():g}"
            raise ValueError(f"its floating-point values are {found}; allowed: 0 (black) to 1 (white)")
        grey = np.rint(values * 255).astype(np.uint8)
    elif image.mode == "I" and format not in _SIXTEEN_BITS:
        raise ValueError("it has 32-bit integers, of which nothing says what is white; allowed: 8 or 16 bits")
    else:
        grey = (values >> (tags.get(_BITS, (16,))[0] - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow heeds only up to eight bits
        grey = 255 - grey
    if isinstance(see_through := image.info.get("transparency"), int):
        grey = np.where(values == see_through, np.uint8(255), grey)
    return grey
