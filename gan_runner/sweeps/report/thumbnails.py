"""Pictures inside a page: made smaller, as data URIs."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

LARGEST = 40_000_000  # pixels that are read; a run's own pictures are far smaller
QUALITY = 80  # of JPEG


@dataclass(frozen=True)
class Thumbnail:
    """A picture with what it shows in words."""

    source: str
    width: int
    height: int
    alt: str
    caption: str


def thumbnail(path: Path, side: int, alt: str, caption: str) -> Thumbnail | None:
    """The PNG in `path`, its longer side at most `side`; None if it is no such picture. The smaller of PNG and JPEG."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            if opened.width * opened.height > LARGEST:
                return None
            picture = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what Pillow raises for damaged files
        return None
    picture.thumbnail((side, side))
    encoded = {"jpeg": _encoded(picture, "JPEG", quality=QUALITY), "png": _encoded(picture, "PNG", compress_level=6)}
    kind = min(encoded, key=lambda name: len(encoded[name]))
    source = f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"
    return Thumbnail(source, picture.width, picture.height, alt, caption)


def _encoded(picture: Image.Image, kind: str, **settings: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def sample_files(run: Path) -> list[tuple[int, Path]]:
    """The grids of samples of a run, each with its step, in order."""
    found = [(re.fullmatch(r"step_(\d{1,15})\.png", path.name), path) for path in (run / "samples").glob("step_*.png")]
    return sorted((int(match[1]), path) for match, path in found if match)
