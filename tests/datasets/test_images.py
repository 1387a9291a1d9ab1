import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_runner.datasets import Images
from gan_runner.errors import UserError
from tests.datasets.made_up import picture, save


def images(root: Path, **keys: Any) -> Images:
    return Images(root=str(root), **{"size": None, "crop": None, "channels": 3, "value_range": (0.0, 1.0), **keys})


def pixels(data: Images) -> np.ndarray:
    """All images as bytes (N, H, W, C), in the order of their names."""
    return data._data.permute(0, 2, 3, 1).numpy()


@pytest.fixture
def flat(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Three images b, a, c in a folder, and their pixels in the order of their names."""
    contents = np.stack([picture() for _ in range(3)])
    for name, content in zip("abc", contents, strict=True):
        save(tmp_path / "flat" / f"{name}.png", content)
    return tmp_path / "flat", contents


def test_a_flat_folder_has_no_labels(flat: tuple[Path, np.ndarray]) -> None:
    root, contents = flat
    data = images(root)
    assert len(data) == 3
    assert data.shape == (3, 8, 8)
    assert data.num_classes == 0
    assert data.skipped == []
    assert np.array_equal(pixels(data), contents)
    batch, labels = data.batch(0, 2, seed=0)
    assert labels is None
    assert batch.shape == (2, 3, 8, 8)
    assert batch.dtype == torch.float32


def test_sub_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("dog/1.png", "dog/deeper/2.png", "cat/3.png", "eel/4.png"):
        save(tmp_path / name, picture())
    data = images(tmp_path)
    assert data.num_classes == 3
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1, 2]


def test_a_single_folder_around_the_images_is_no_class(flat: tuple[Path, np.ndarray]) -> None:
    root, _ = flat
    assert images(root.parent).num_classes == 0
    assert images(root.parent).fingerprint() == images(root).fingerprint()


@pytest.mark.parametrize("names", [("1.png", "2.png"), ("cat/1.png", "dog/2.png"), ("all/cat/1.png", "all/dog/2.png")])
def test_a_zip_is_as_good_as_its_folder(tmp_path: Path, names: tuple[str, str]) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in names:
            save(tmp_path / "folder" / name, picture())
            archive.write(tmp_path / "folder" / name, name)
        archive.writestr("__MACOSX/._1.png", b"resource fork")
        archive.writestr("cat/folder.png/", b"")
    folder, zipped = images(tmp_path / "folder"), images(tmp_path / "images.zip")
    assert len(zipped) == 2
    assert zipped.num_classes == (2 if "cat" in names[0] else 0)
    assert zipped.skipped == []
    assert zipped.fingerprint() == folder.fingerprint()


def test_linked_folders_are_followed(flat: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    root, contents = flat
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "class").symlink_to(root, target_is_directory=True)
    assert np.array_equal(pixels(images(tmp_path / "linked")), contents)


def test_every_kind_of_image_becomes_colour(tmp_path: Path) -> None:
    grey = np.full((4, 4), 100, np.uint8)
    save(tmp_path / "1_grey.png", grey)
    save(tmp_path / "2_16_bit.png", grey.astype(np.uint16) * 256 + 255)
    colours = Image.fromarray(np.full((4, 4, 3), (10, 20, 30), np.uint8))
    colours.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "3_palette.png")
    half = np.full((4, 4, 4), (200, 100, 0, 255), np.uint8)
    half[:, :2, 3] = 0
    save(tmp_path / "4_transparent.png", half)
    save(tmp_path / "5_bits.png", np.array([[0, 255] * 2] * 4, np.uint8), "1")
    save(tmp_path / "6_cmyk.tiff", np.full((4, 4, 3), (255, 0, 0), np.uint8), "CMYK")
    Image.fromarray(grey).save(tmp_path / "7_transparent_grey.png", transparency=100)
    save(tmp_path / "8_16_bit.tiff", grey.astype(np.uint16) * 256)
    one, two, three, four, five, six, seven, eight = pixels(images(tmp_path))
    for same in (one, two, eight):
        assert (same == 100).all()
    assert (three == (10, 20, 30)).all()
    assert (four[:, 2:] == (200, 100, 0)).all()
    assert (four[:, :2] == 255).all()
    assert five[0, :, 0].tolist() == [0, 255, 0, 255]
    assert (six == (255, 0, 0)).all()
    assert (seven == 255).all()


def test_one_channel_is_luma(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.png", np.full((4, 4, 3), (255, 0, 0), np.uint8))
    data = images(tmp_path, channels=1)
    assert data.shape == (1, 4, 4)
    assert (pixels(data) == 76).all()  # ITU-R 601: 0.299 · 255


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    content = picture(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    for name in "ab":
        Image.fromarray(content).save(tmp_path / f"{name}.png", exif=exif)
    assert np.array_equal(pixels(images(tmp_path))[0], np.rot90(content, -1))


def test_a_crop_takes_exactly_its_rows_and_columns(flat: tuple[Path, np.ndarray]) -> None:
    root, contents = flat
    data = images(root, crop=(1, 6, 2, 8))
    assert data.shape == (3, 5, 6)
    assert np.array_equal(pixels(data), contents[:, 1:6, 2:8])


def test_a_size_cuts_the_centre_of_a_wide_image(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.png", np.repeat(np.arange(12, dtype=np.uint8)[None, :, None] * 10, 6, 0).repeat(3, 2))
    assert np.array_equal(pixels(images(tmp_path, size=6))[0, 0, :, 0], np.arange(3, 9) * 10)
    assert np.array_equal(pixels(images(tmp_path, size=(6, 10)))[0, 0, :, 0], np.arange(1, 11) * 10)


def test_shrinking_averages_rather_than_picks(tmp_path: Path) -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    for name in "ab":
        save(tmp_path / f"{name}.png", checks.astype(np.uint8))
    shrunk = pixels(images(tmp_path, size=8))
    assert np.abs(shrunk.astype(int) - 127.5).max() < 5


def test_images_of_any_proportions_get_one_size(tmp_path: Path) -> None:
    for name, size in {"a": (30, 20), "b": (7, 50), "c": (3, 3)}.items():
        save(tmp_path / f"{name}.jpg", picture(*size))
    assert images(tmp_path, size=16).shape == (3, 16, 16)
    assert images(tmp_path, size=[12, 16]).shape == (3, 12, 16)


def test_sizes_that_differ_need_a_size(flat: tuple[Path, np.ndarray]) -> None:
    root, _ = flat
    save(root / "d.png", picture(5, 9))
    with pytest.raises(UserError, match=r"dataset\.size is null.*\(3, 8, 8\) in 'a\.png' and \(3, 5, 9\) in 'd\.png'"):
        images(root)


@pytest.mark.parametrize("crop", [(5, 5, 0, 4), (0, 4, 3, 2)])
def test_an_empty_crop_is_refused(flat: tuple[Path, np.ndarray], crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(UserError, match=r"dataset\.crop is \["):
        images(flat[0], crop=crop)


def test_what_cannot_be_decoded_is_skipped_by_name(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/3.png", "dog/5.png"):
        save(tmp_path / name, picture(16, 16))
    save(tmp_path / "cat/small.png", picture(9, 16))
    (tmp_path / "cat/2.png").write_bytes(b"not an image")
    whole = (tmp_path / "cat/3.png").read_bytes()
    (tmp_path / "dog/4.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dog/empty.jpg").touch()
    for _ in range(2):  # decoded, and from the cache
        data = images(tmp_path, crop=(0, 10, 0, 10))
        assert data.skipped == ["cat/2.png", "cat/small.png", "dog/4.png", "dog/empty.jpg"]
        assert data.labels is not None
        assert data.labels.tolist() == [0, 0, 1]


def test_a_corrupt_member_of_a_zip_is_skipped(tmp_path: Path) -> None:
    contents = [picture() for _ in range(3)]
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name, content in zip("abc", contents, strict=True):
            save(tmp_path / f"{name}.png", content)
            archive.write(tmp_path / f"{name}.png", f"{name}.png")
    damaged = bytearray((tmp_path / "images.zip").read_bytes())
    damaged[damaged.index(b"IDAT") + 20] ^= 0xFF
    (tmp_path / "images.zip").write_bytes(damaged)
    data = images(tmp_path / "images.zip")
    assert data.skipped == ["a.png"]
    assert np.array_equal(pixels(data), np.stack(contents[1:]))


def test_fewer_than_two_usable_images_are_refused_with_a_reason(tmp_path: Path, cache: Path) -> None:
    save(tmp_path / "a.png", picture())
    (tmp_path / "b.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"1 of 2 images .* can be used, at least 2 are needed; 'b\.png': Unidentified"):
        images(tmp_path)
    with pytest.raises(UserError, match=r"0 of 2 images .*'a\.png': .* too small for dataset\.crop"):
        images(tmp_path, crop=(0, 9, 0, 9))
    assert list(cache.iterdir()) == []


def test_roots_that_are_no_image_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    for name, problem in {"empty": "no images", "broken.zip": "neither", "nowhere": "does not exist"}.items():
        with pytest.raises(UserError, match=rf"dataset\.root: .*{problem}") as refused:
            images(tmp_path / name)
        assert str(tmp_path / name) in str(refused.value)
