"""Which files are images, and what their pixels are; the values are worked out with numpy."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from gan_runner.datasets.decoding import decode, extensions, formats
from tests.datasets.made_up import encoded, picture, tiff

SIXTEEN = np.linspace(0, 65535, 16).round().astype(np.uint16).reshape(4, 4)  # from black to white
UPPER = SIXTEEN // 256  # its upper eight bits: 0, 17, 34 … 255
UNIT = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)  # the same, as floating point


def grey(content: bytes) -> np.ndarray:
    return decode(content, None, None, 1)[0]


def colour(content: bytes) -> np.ndarray:
    return decode(content, None, None, 3).transpose(1, 2, 0)


def test_what_pillow_decodes_by_itself_counts_and_nothing_else() -> None:
    taken = {".jfif", ".jpe", ".mpo", ".tga", ".qoi", ".ico", ".psd", ".pfm", ".png", ".jpg", ".tiff", ".bmp", ".gif"}
    assert taken <= extensions()
    refused = {".h5", ".hdf", ".grib", ".bufr", ".wmf", ".emf", ".mpg", ".mpeg", ".eps", ".ps", ".pdf", ".palm"}
    assert not (refused | {".fits", ".iim"}) & extensions()


@pytest.mark.parametrize(("codec", "end"), [("webp", ".webp"), ("avif", ".avif"), ("jpg_2000", ".jp2")])
def test_a_format_counts_only_where_its_codec_is_there(codec: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (end in extensions()) == features.check(codec)
    monkeypatch.setattr(features, "check", lambda _: False)
    without = formats.__wrapped__()
    assert {"WEBP", "AVIF", "JPEG2000", "JPEG", "PNG"}.isdisjoint(without)
    assert {"BMP", "TIFF"} <= set(without)


def test_a_stranger_cannot_start_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    content = encoded(Image.fromarray(picture()), "EPS")
    with pytest.raises(Image.UnidentifiedImageError):
        grey(content)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("format", ["PNG", "JPEG2000", "TIFF"])
def test_sixteen_bits_keep_the_upper_eight(format: str) -> None:
    assert np.array_equal(grey(encoded(Image.fromarray(SIXTEEN), format)), UPPER)
    assert np.array_equal(colour(encoded(Image.fromarray(SIXTEEN), format)), np.stack([UPPER] * 3, 2))


@pytest.mark.parametrize("white", [1023, 65535])
def test_a_pgm_says_what_is_white(white: int) -> None:
    values = np.linspace(0, white, 16).round().astype(">u2")
    expected = values.astype(float) / white * 65535 // 256
    assert np.abs(grey(b"P5 4 4 %d\n" % white + values.tobytes()).ravel() - expected).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_of_more_than_eight_bits_keep_their_range_in_either_byte_order(order: str) -> None:
    sixteen, unit = SIXTEEN.astype(f"{order}u2").tobytes(), UNIT.astype(f"{order}f4").tobytes()
    assert np.array_equal(grey(tiff(sixteen, 4, bits=16, order=order)), UPPER)
    assert np.array_equal(grey(tiff(unit, 4, bits=32, order=order, sample_format=3)), UPPER)


def test_a_tiff_of_twelve_bits_is_not_black() -> None:
    twelve = np.linspace(0, 4095, 16).round().astype(int)
    pairs = zip(twelve[::2], twelve[1::2], strict=True)
    packed = b"".join(int(first << 12 | second).to_bytes(3, "big") for first, second in pairs)
    assert np.array_equal(grey(tiff(packed, 4, bits=12, order="<")).ravel(), twelve // 16)


def test_white_is_zero_where_a_tiff_says_so() -> None:
    sixteen = SIXTEEN.astype("<u2").tobytes()
    assert np.array_equal(grey(tiff(sixteen, 4, bits=16, order="<", photometric=0)), 255 - UPPER)
    unit = UNIT.astype("<f4").tobytes()
    assert np.array_equal(grey(tiff(unit, 4, bits=32, order="<", photometric=0, sample_format=3)), 255 - UPPER)
    assert np.array_equal(
        grey(tiff(bytes(range(16)), 4, bits=8, order="<", photometric=0)).ravel(), 255 - np.arange(16)
    )


@pytest.mark.parametrize(
    "values", [UNIT * 255, UNIT - 0.5, UNIT * np.nan, UNIT / 0.99, np.where(UNIT > 0.9, np.inf, UNIT)]
)
def test_floating_point_beyond_0_to_1_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"floating-point values are .* to .*; allowed: 0 \(black\) to 1 \(white\)"):
        grey(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"))


def test_a_floating_point_pfm_is_scaled() -> None:
    assert np.array_equal(grey(b"Pf 4 4\n-1.0\n" + UNIT[::-1].tobytes()), UPPER)  # from the lowest row up


@pytest.mark.parametrize("highest", [1, 255, 65535, 2**31 - 1])
def test_integers_of_32_bits_are_refused(highest: int) -> None:
    values = (UNIT.astype(np.float64) * highest).astype(np.int32)
    with pytest.raises(ValueError, match="signed integers, of which nothing says what is black and white"):
        grey(encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(ValueError, match="32-bit integers, of which nothing says what is white"):
        grey(tiff(values.astype("<u4").tobytes(), 4, bits=32, order="<"))


@pytest.mark.parametrize("bits", [8, 16])
def test_signed_integers_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="signed integers"):
        grey(tiff(np.full(16, -1, f"<i{bits // 8}").tobytes(), 4, bits=bits, order="<", sample_format=2))


COLOURS = np.array([[[200, 100, 50], [0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
LUMA = COLOURS @ np.array([0.299, 0.587, 0.114])  # ITU-R 601


@pytest.mark.parametrize(
    ("mode", "format", "loss"),
    [("CMYK", "TIFF", 0), ("CMYK", "JPEG", 4), ("YCbCr", "TIFF", 2), ("RGB", "JPEG", 4)],
)
def test_other_kinds_of_colour_become_rgb(mode: str, format: str, loss: int) -> None:
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" and mode == "RGB" else {}
    content = encoded(Image.fromarray(COLOURS).convert(mode), format, **options)
    assert Image.open(io.BytesIO(content)).mode in (mode, "RGB")  # before Pillow 12, its TIFFs of YCbCr are RGB
    assert np.abs(colour(content) - COLOURS.astype(int)).max() <= loss
    assert np.abs(grey(content) - LUMA).max() <= loss + 1


def test_lab_becomes_rgb() -> None:
    """Red of sRGB is L* 54.29, a* 80.80, b* 69.89 under the light D50 (Lindbloom)."""
    lab = np.array([[[round(54.29 * 2.55), 81, 70], [255, 0, 0], [0, 0, 0]]], np.uint8)
    content = encoded(Image.fromarray(lab, "LAB"), "TIFF")
    assert Image.open(io.BytesIO(content)).mode == "LAB"
    assert np.abs(colour(content) - np.array([[[255, 0, 0], [255, 255, 255], [0, 0, 0]]])).max() <= 5
    assert np.abs(grey(content) - np.array([[76, 255, 0]])).max() <= 5


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_what_is_transparent_lies_on_white(format: str) -> None:
    grey_alpha = Image.fromarray(np.array([[[100, 255], [100, 0], [100, 128]]], np.uint8))
    content = encoded(grey_alpha, format, **({"lossless": True} if format == "WEBP" else {}))
    half = 100 * 128 / 255 + 255 * (1 - 128 / 255)
    assert np.abs(grey(content) - [[100, 255, half]]).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP"])
def test_a_palette_may_be_transparent(format: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2, 2]], np.uint8), "P")
    image.putpalette([200, 100, 0, 10, 20, 30, 90, 90, 90])
    if format == "WEBP":
        image.info["transparency"] = 1
        image = image.convert("RGBA")
    content = encoded(image, format, transparency=1, lossless=True)
    assert colour(content).tolist() == [[[200, 100, 0], [255, 255, 255], [90, 90, 90], [90, 90, 90]]]


def test_one_grey_of_sixteen_bits_may_be_transparent() -> None:
    expected = UPPER.copy()
    expected[0, 1] = 255
    assert np.array_equal(grey(encoded(Image.fromarray(SIXTEEN), transparency=int(SIXTEEN[0, 1]))), expected)


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "WEBP", "MPO"])
def test_of_several_pictures_the_first_is_taken(format: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(first, format, save_all=True, append_images=[second], **options)
    assert (colour(content) == 255).all()


def test_bits_are_black_and_white() -> None:
    for format in ("PNG", "TIFF", "BMP", "PPM"):
        bits = Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1")
        assert grey(encoded(bits, format)).tolist() == [[0, 255, 0]]


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_half_a_file_is_refused(format: str, part: float) -> None:
    content = encoded(Image.fromarray(picture(32, 32)), format)
    with pytest.raises((OSError, SyntaxError, EOFError, ValueError)):
        grey(content[: int(part * len(content))])
