"""Which files of a folder or a zip are images, and what is said of the others."""

import os
import socket
import stat
import struct
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from gan_runner.datasets.image_files import ImageFiles
from gan_runner.errors import UserError
from tests.datasets.made_up import PNG, encoded


def put(root: Path, *names: str, content: bytes = PNG) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def zipped(path: Path, *names: str, content: bytes = PNG) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    put(tmp_path / "photos", "cat/1.png", "dog/2.png")
    return tmp_path / "photos"


ALL = ["cat/1.png", "dog/2.png"]


def found(root: Path) -> list[str]:
    return list(ImageFiles.find(root).stamps)


def remarks(root: Path) -> str:
    return "\n".join(ImageFiles.find(root).remarks)


@pytest.mark.parametrize("target", [".", "..", "{photos}", "{photos}/cat/..", "{photos}/..", "/", "/proc/self/root"])
@pytest.mark.parametrize("place", ["again", "cat/again", "cat/deeper/again"])
def test_a_link_to_a_folder_above_is_told_and_passed_over(photos: Path, target: str, place: str) -> None:
    (photos / place).parent.mkdir(exist_ok=True)
    (photos / place).symlink_to(target.format(photos=photos))
    begun = time.perf_counter()
    files = ImageFiles.find(photos)
    assert time.perf_counter() - begun < 2
    assert list(files.stamps) == ALL
    assert files.remarks == [f"links to a folder above are left out (1): '{place}'"]


def test_the_root_may_be_a_link_and_hold_one_to_itself(photos: Path) -> None:
    (photos.parent / "data").symlink_to(photos)
    (photos / "photos").symlink_to(photos)
    assert found(photos.parent / "data") == ALL
    assert "links to a folder above are left out (1): 'photos'" in remarks(photos.parent / "data")


def test_a_folder_counts_before_a_link_to_it_and_of_two_links_the_first(photos: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "3.png")
    (photos / "a link").symlink_to("dog")
    (photos / "z").symlink_to(tmp_path / "elsewhere")
    (photos / "y").symlink_to(tmp_path / "elsewhere")
    assert found(photos) == [*ALL, "y/3.png"]
    assert remarks(photos) == "links to a folder that is read already are left out (2): 'a link', 'z'"


def test_a_folder_inside_one_that_is_linked_too_is_read_once(photos: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "3.png", "inner/4.png")
    (photos / "a").symlink_to(tmp_path / "elsewhere/inner")
    (photos / "b").symlink_to(tmp_path / "elsewhere")
    assert found(photos) == ["a/4.png", "b/3.png", *ALL]
    assert remarks(photos) == "folders that are read already by another name are left out (1): 'b/inner'"


def test_folders_that_are_linked_with_each_other_end(photos: Path, tmp_path: Path) -> None:
    put(tmp_path / "one", "1.png")
    put(tmp_path / "two", "2.png")
    (tmp_path / "one/two").symlink_to(tmp_path / "two")
    (tmp_path / "two/one").symlink_to(tmp_path / "one")
    assert found(tmp_path / "one") == ["1.png", "two/2.png"]
    (photos / "eel").symlink_to(tmp_path / "two")
    assert found(photos) == [*ALL, "eel/2.png", "eel/one/1.png"]


def test_links_to_files_are_files(photos: Path, tmp_path: Path) -> None:
    put(tmp_path, "elsewhere.png")
    (photos / "cat/linked.png").symlink_to(tmp_path / "elsewhere.png")
    (photos / "cat/twice.png").symlink_to("1.png")
    files = ImageFiles.find(photos)
    assert list(files.stamps) == ["cat/1.png", "cat/linked.png", "cat/twice.png", "dog/2.png"]
    assert files.read("cat/linked.png") == PNG
    assert files.remarks == []


def test_what_would_never_end_is_not_opened(photos: Path) -> None:
    (photos / "broken.png").symlink_to("nowhere.png")
    (photos / "loop.png").symlink_to("pool.png")
    (photos / "pool.png").symlink_to("loop.png")
    os.mkfifo(photos / "pipe.png")
    (photos / "null.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(photos)  # the name of a socket may not be long
        server.bind("socket.png")
        os.chdir(here)
        assert found(photos) == ALL
    said = remarks(photos)
    assert "links that lead to no file or folder are left out (2): 'broken.png', 'null.png'" in said
    assert "pipes, sockets or devices are left out (2): 'pipe.png', 'socket.png'" in said
    assert (
        "files that cannot be read (Too many levels of symbolic links) are left out (2): 'loop.png', 'pool.png'" in said
    )


@contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions do not hold for root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[None]:
    before = {
        folder: folder.stat().st_mode for folder in (tmp_path, *tmp_path.parents) if folder.stat().st_uid == os.getuid()
    }
    for folder, mode in before.items():
        if not mode & 0o001:
            folder.chmod(mode | 0o011)
    yield
    for folder, mode in before.items():
        folder.chmod(stat.S_IMODE(mode))


@pytest.mark.usefixtures("open_to_all")
def test_a_folder_that_may_not_be_read_is_told(photos: Path) -> None:
    (photos / "dog").chmod(0)
    with as_nobody():
        files = ImageFiles.find(photos)
    assert list(files.stamps) == ["cat/1.png"]
    assert files.folders == ("cat", "dog")
    assert files.remarks == ["folders that cannot be read (Permission denied) are left out (1): 'dog'"]
    photos.chmod(0)
    with as_nobody(), pytest.raises(UserError, match=r"dataset\.root: '.*photos' cannot be read: Permission denied"):
        ImageFiles.find(photos)
    photos.chmod(0o755)


def test_a_file_that_may_not_be_read_is_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK and Path(path).name != "2.png")
    files = ImageFiles.find(photos)
    assert list(files.stamps) == ["cat/1.png"]
    assert files.folders == ("cat", "dog")
    assert files.remarks == ["files that may not be read are left out (1): 'dog/2.png'"]


def test_folders_deeper_than_a_path_may_be_long_are_told(photos: Path) -> None:
    here, names = os.getcwd(), ["deep" * 20] * 60
    os.chdir(photos)
    try:
        for name in names:
            os.mkdir(name)
            os.chdir(name)
        Path("3.png").write_bytes(PNG)
        assert found(photos) == ALL
        assert "files that cannot be read (File name too long) are left out (1): 'deepdeep" in remarks(photos)
    finally:
        os.unlink("3.png")
        for name in names:
            os.chdir("..")
            os.rmdir(name)
        os.chdir(here)


def test_names_that_cannot_be_printed_are_escaped_and_read(photos: Path) -> None:
    names = [b"caf\xe9.png", b"two\nlines.png", b"\xe6\x97\xa5\xe6\x9c\xac.png", b"no-break\xc2\xa0space.png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(photos) + b"/" + name)).write_bytes(name)
    files = ImageFiles.find(photos)
    shown = [r"caf\udce9.png", r"two\nlines.png", "日本.png", "no-break\u00a0space.png"]
    assert set(files.stamps) == {*ALL, *shown}
    assert [files.read(name) for name in shown] == names
    "\n".join(files.stamps).encode()


def test_two_names_that_become_one_are_told(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat\\1.png")
    assert found(tmp_path) == ["cat/1.png"]
    assert remarks(tmp_path) == "files whose name another has are left out (1): 'cat/1.png'"


def test_files_unpacked_with_backslashes_keep_their_folders(tmp_path: Path) -> None:
    put(tmp_path, "p\\cat\\1.png", "p\\dog\\2.png")
    files = ImageFiles.find(tmp_path)
    assert list(files.stamps) == ["p/cat/1.png", "p/dog/2.png"]
    assert files.folders == ("p", "p/cat", "p/dog")
    assert files.read("p/cat/1.png") == PNG


def test_what_is_no_image_is_counted_and_the_first_are_named(photos: Path) -> None:
    put(photos, "notes.txt", "cat/film.mpeg", "cat/plot.eps", "data.h5", "more.zip", "dataset.json", "cat/dataset.json")
    put(photos, ".hidden.png", ".thumbnails/a.png", "__MACOSX/a.png", ".hidden.txt")
    files = ImageFiles.find(photos, lists=("dataset.json",))
    assert list(files.stamps) == ALL
    assert files.remarks == ["files that are no images are left out (5): 'cat/film.mpeg', 'cat/plot.eps', 'data.h5' …"]
    assert files.read("dataset.json") == files.read("cat/dataset.json") == PNG
    assert "(7)" in ImageFiles.find(photos).remarks[0]


@pytest.mark.parametrize("end", [".jfif", ".jpe", ".JPG", ".mpo", ".tga", ".webp", ".Png", ".tif", ".jp2", ".qoi"])
def test_every_format_that_pillow_decodes_counts(tmp_path: Path, end: str) -> None:
    put(tmp_path, f"1{end}", f"2{end}")
    assert found(tmp_path) == [f"1{end}", f"2{end}"]


def test_empty_folders_are_folders(photos: Path) -> None:
    (photos / "eel/inner").mkdir(parents=True)
    (photos / ".hidden").mkdir()
    (photos / "fox.png").mkdir()
    assert ImageFiles.find(photos).folders == ("cat", "dog", "eel", "eel/inner", "fox.png")
    archive = zipped(photos.parent / "a.zip", "cat/1.png", "dog/", "eel\\", "__MACOSX/x/", "fox/notes.txt", content=b"")
    assert ImageFiles.find(archive).folders == ("cat", "dog", "eel", "fox")


ROOTS = {
    "pipe": "is neither a folder nor a readable zip: it is no file",
    "loop": "cannot be read: Too many levels of symbolic links",
    "file.txt": "is neither a folder nor a readable zip",
    "file.txt/below": "cannot be read: Not a directory",
    "nul\0": "does not exist",
    "x" * 300: "cannot be read: File name too long",
    "empty": "no images in '.*': it is empty",
    "texts": r"no images in '.*': files that are no images are left out \(1\): 'a.txt' \(allowed: \.apng, ",
    "empty.zip": "no images",
}


@pytest.mark.parametrize("name", ROOTS)
def test_what_is_no_folder_of_images_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    put(tmp_path, "file.txt", "texts/a.txt")
    (tmp_path / "empty").mkdir()
    zipped(tmp_path / "empty.zip")
    with pytest.raises(UserError, match=rf"dataset\.root: .*{ROOTS[name]}") as refused:
        ImageFiles.find(tmp_path / name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "names",
    [
        ["cat\\1.png", "dog\\2.png"],
        ["cat\\1.png", "dog/2.png"],
        [".\\cat\\1.png", "./dog/2.png"],
        ["/cat/1.png", "\\dog\\2.png"],
        ["../../cat/1.png", "..\\dog\\2.png"],
        ["cat/1.png", "dog/2.png", "__MACOSX\\cat\\._1.png", "cat\\.hidden.png", ".git/3.png", "__MACOSX/4.png"],
    ],
)
def test_a_zip_has_the_same_names_however_it_was_made(tmp_path: Path, names: list[str]) -> None:
    files = ImageFiles.find(zipped(tmp_path / "a.zip", *names))
    assert list(files.stamps) == ALL
    assert files.folders == ("cat", "dog")
    assert files.remarks == []
    assert [files.read(name) for name in ALL] == [PNG, PNG]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_a_zip_of_more_than_four_gigabytes_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, archive.open("1.png", "w", force_zip64=True) as file:
        file.write(PNG)
    assert ImageFiles.find(tmp_path / "a.zip").read("1.png") == PNG


def test_utf_8_in_a_zip_that_does_not_say_so(tmp_path: Path) -> None:
    content = zipped(tmp_path / "a.zip", "日本/1.png").read_bytes()
    at = content.index(b"PK\x01\x02") + 8
    (tmp_path / "a.zip").write_bytes(content[:6] + b"\0\0" + content[8:at] + b"\0\0" + content[at + 2 :])
    files = ImageFiles.find(tmp_path / "a.zip")
    assert list(files.stamps) == ["日本/1.png"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_are_no_files_of_their_own_are_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", b"first")
        archive.writestr("1.png", b"last")
        link = zipfile.ZipInfo("2.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "1.png")
    files = ImageFiles.find(tmp_path / "a.zip")
    assert files.read("1.png") == b"last"
    assert files.remarks == [
        "files whose name another has are left out (1): '1.png'",
        "links in a zip are left out (1): '2.png'",
    ]


def changed(path: Path, offset: int, value: bytes) -> Path:
    """The zip with other bytes in the central directory's entry of its only file."""
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02") + offset
    path.write_bytes(content[:at] + value + content[at + len(value) :])
    return path


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    files = ImageFiles.find(changed(zipped(tmp_path / "a.zip", "1.png"), 8, b"\1\0"))
    with pytest.raises(ValueError, match="it is encrypted"):
        files.read("1.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_absurdly_compressed_entry_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("1.png", bytes(2**25))
        archive.writestr("2.png", PNG)
    files = ImageFiles.find(tmp_path / "a.zip")
    with pytest.raises(ValueError, match=r"it is absurdly compressed: \d+ bytes for 33554432"):
        files.read("1.png")
    assert files.read("2.png") == PNG


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_entry_that_lies_about_its_size_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("1.png", bytes(2**25))
    files = ImageFiles.find(changed(tmp_path / "a.zip", 24, struct.pack("<I", 100)))
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        files.read("1.png")


def test_a_picture_of_one_colour_is_not_absurd(tmp_path: Path) -> None:
    content = encoded(Image.new("RGB", (2000, 2000), "red"), "BMP")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.bmp", content)
    assert ImageFiles.find(tmp_path / "a.zip").read("1.bmp") == content


def test_a_file_larger_than_any_picture_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    os.truncate(tmp_path / "1.png", 2**40)  # takes no room
    with pytest.raises(ValueError, match="it is larger than 512 MiB"):
        ImageFiles.find(tmp_path).read("1.png")
