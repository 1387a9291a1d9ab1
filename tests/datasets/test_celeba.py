import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_runner.datasets import CelebA
from gan_runner.datasets.image_files import ImageFiles
from gan_runner.errors import UserError

NAMES = [f"{number:06}.jpg" for number in range(1, 7)]
PARTITION = dict(zip(NAMES, [0, 0, 1, 1, 2, 2], strict=True))
SMILING = dict(zip(NAMES, [1, -1, -1, 1, 1, -1], strict=True))
CROP = (45, 173, 25, 153)


def celeba(root: Path, **keys: Any) -> CelebA:
    defaults = {"split": "all", "attribute": None, "crop": CROP, "size": None, "value_range": (0.0, 1.0)}
    return CelebA(root=str(root), **{**defaults, **keys})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CelebA as it is distributed, with six faces of 218 rows and 178 columns."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    rows, columns = np.indices((218, 178), np.uint8)
    for number, name in enumerate(NAMES):
        face = np.stack([rows, columns, np.full_like(rows, 40 * number)], axis=-1)
        Image.fromarray(face).save(folder / "img_align_celeba" / name, quality=95)
    partition = [f"{name} {part}" for name, part in PARTITION.items()]
    (folder / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    attributes = [f"{name} -1  {smiling}" for name, smiling in SMILING.items()]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["6", "Bald Smiling ", *attributes]) + "\n")
    return folder


def decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).transpose(2, 0, 1)


def test_the_crop_is_exactly_rows_45_to_173_and_columns_25_to_153(root: Path) -> None:
    data = celeba(root)
    assert data.shape == (3, 128, 128)
    assert data.num_classes == 0
    assert len(data) == 6
    for image, name in zip(data._data.numpy(), NAMES, strict=True):
        assert np.array_equal(image, decoded(root / "img_align_celeba" / name)[:, 45:173, 25:153])
    # The faces say which row and column each pixel is, up to JPEG's loss.
    red, green = data._data[0, 0].int(), data._data[0, 1].int()
    assert abs(int(red[0].float().mean()) - 45) <= 2
    assert abs(int(red[-1].float().mean()) - 172) <= 2
    assert abs(int(green[:, 0].float().mean()) - 25) <= 2
    assert abs(int(green[:, -1].float().mean()) - 152) <= 2


def test_without_a_crop_the_whole_image_is_kept(root: Path) -> None:
    assert celeba(root, crop=None).shape == (3, 218, 178)
    assert celeba(root, size=64).shape == (3, 64, 64)


def test_every_layout_is_the_same_data(root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        for name in NAMES:
            archive.write(root / "img_align_celeba" / name, f"img_align_celeba/{name}")
    for name in ("list_eval_partition.txt", "list_attr_celeba.txt"):
        shutil.copy(root / name, tmp_path)
    loose = tmp_path / "loose"
    shutil.copytree(root / "img_align_celeba", loose)
    for name in ("list_eval_partition.txt", "list_attr_celeba.txt"):
        shutil.copy(root / name, loose)
    roots = [root, root / "img_align_celeba", tmp_path, tmp_path / "img_align_celeba.zip", loose]
    keys = {"split": "train", "attribute": "Smiling"}
    assert len({celeba(each, **keys).fingerprint() for each in roots}) == 1


@pytest.mark.parametrize(("split", "first"), [("train", 0), ("valid", 2), ("test", 4)])
def test_splits_follow_the_official_partition(root: Path, split: str, first: int) -> None:
    data = celeba(root, split=split)
    assert len(data) == 2
    blue = data._data[:, 2].float().mean(dim=(1, 2)).tolist()
    assert blue == pytest.approx([40 * first, 40 * (first + 1)], abs=2)


def test_held_out_from_training_is_the_test_partition(root: Path) -> None:
    held_out = celeba(root, split="train", attribute="Smiling", size=64).held_out()
    assert held_out is not None
    expected = celeba(root, split="test", attribute="Smiling", size=64)
    assert held_out.fingerprint() == expected.fingerprint()
    assert [celeba(root, split=split).held_out() for split in ("all", "valid", "test")] == [None, None, None]


def test_a_part_of_the_faces_may_have_none_to_hold_out(root: Path) -> None:
    for name in NAMES[4:]:
        (root / "img_align_celeba" / name).unlink()
    assert celeba(root, split="train").held_out() is None
    with pytest.raises(UserError, match=r"dataset\.root: 0 of 0 images in .* can be used, at least 2 are needed"):
        celeba(root, split="test")


def test_an_attribute_labels_the_faces(root: Path) -> None:
    data = celeba(root, attribute="Smiling")
    assert data.num_classes == 2
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 0, 1, 1, 0]
    bald = celeba(root, attribute="Bald", split="test")
    assert bald.labels is not None
    assert bald.labels.tolist() == [0, 0]


def test_labels_skip_the_faces_that_cannot_be_decoded(root: Path) -> None:
    (root / "img_align_celeba" / NAMES[0]).write_bytes(b"not a face")
    data = celeba(root, attribute="Smiling")
    assert data.skipped == [NAMES[0]]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1, 1, 0]


def test_an_unknown_attribute_is_answered_with_the_nearest(root: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.attribute: no 'smiling'; did you mean 'Smiling'"):
        celeba(root, attribute="smiling")


def test_lists_are_needed_only_where_used(root: Path) -> None:
    (root / "list_eval_partition.txt").unlink()
    (root / "list_attr_celeba.txt").unlink()
    assert len(celeba(root)) == 6
    with pytest.raises(UserError, match=r"dataset\.split=train needs .*list_eval_partition\.txt"):
        celeba(root, split="train")
    with pytest.raises(UserError, match=r"dataset\.attribute=Smiling needs .*list_attr_celeba\.txt"):
        celeba(root, attribute="Smiling")


@pytest.mark.parametrize("line", ["", f"{NAMES[3]}", f"{NAMES[3]} 7"])
def test_a_list_without_a_valid_entry_for_a_face_is_refused(root: Path, line: str) -> None:
    path = root / "list_eval_partition.txt"
    path.write_text(path.read_text().replace(f"{NAMES[3]} 1", line))
    with pytest.raises(UserError, match=r"list_eval_partition\.txt has no valid entry for '000004\.jpg' .*0, 1, 2"):
        celeba(root, split="train")


def test_an_empty_list_of_attributes_is_refused(root: Path) -> None:
    (root / "list_attr_celeba.txt").write_text("")
    with pytest.raises(UserError, match=r"dataset\.attribute: no 'Smiling'.*none"):
        celeba(root, attribute="Smiling")


def test_a_missing_celeba_is_answered_with_what_goes_where(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        celeba(tmp_path / "nowhere")
    for part in ("nowhere", "img_align_celeba.zip", "list_eval_partition.txt", "list_attr_celeba.txt", "https://"):
        assert part in str(refused.value)


def test_a_list_that_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, **_: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(
        UserError, match=r"needs the file '.*list_eval_partition\.txt', which cannot be read: Permission"
    ):
        celeba(root, split="train")


def test_lists_beside_the_faces_are_not_left_out(root: Path) -> None:
    for name in (image_list for image_list in root.iterdir() if image_list.is_file()):
        shutil.copy(name, root / "img_align_celeba")
    (root / "img_align_celeba" / "notes.txt").touch()
    (root / "img_align_celeba" / "again").symlink_to("..")
    files = ImageFiles.find(root / "img_align_celeba", lists=("list_eval_partition.txt", "list_attr_celeba.txt"))
    assert [remark for remark in files.remarks if "list_" in remark] == []
    assert len(files.remarks) == 2
    assert len(celeba(root / "img_align_celeba")) == 6
