"""Decoded once, and what happens if that is interrupted, damaged or done twice at once."""

import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_runner.datasets import image_cache
from gan_runner.datasets.image_cache import load
from gan_runner.datasets.image_files import ImageFiles
from gan_runner.errors import UserError
from tests.conftest import REPOSITORY
from tests.datasets.made_up import encoded, picture, save


def loaded(root: Path, size: Any = None, crop: Any = None, channels: int = 3) -> np.ndarray:
    """All images as bytes (N, H, W, C), in the order of their names."""
    files = ImageFiles.find(root)
    return load(files, list(files.stamps), size, crop, channels)[0].permute(0, 2, 3, 1).numpy()


@pytest.fixture
def flat(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Three images b, a, c in a folder, and their pixels in the order of their names."""
    contents = np.stack([picture() for _ in range(3)])
    for name, content in zip("abc", contents, strict=True):
        save(tmp_path / "flat" / f"{name}.png", content)
    return tmp_path / "flat", contents


def kinds(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.iterdir())


def test_images_are_decoded_once(flat: tuple[Path, np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, contents = flat
    loaded(root)
    assert kinds(cache) == [".json", ".pixels"]
    monkeypatch.setattr(image_cache, "decode", lambda *_, **__: pytest.fail("decoded again"))
    assert np.array_equal(loaded(root), contents)


def test_however_the_root_is_written_it_is_the_same_entry(flat: tuple[Path, np.ndarray], cache: Path) -> None:
    root, contents = flat
    (root.parent / "link").symlink_to(root)
    for same in (root, root.parent / "link", root.parent / "flat" / ".." / "flat", Path(os.path.relpath(root))):
        assert np.array_equal(loaded(same), contents)
    assert kinds(cache) == [".json", ".pixels"]


def test_the_cache_follows_files_and_preprocessing(flat: tuple[Path, np.ndarray]) -> None:
    root, contents = flat
    assert loaded(root, size=4).shape == (3, 4, 4, 3)
    assert loaded(root, crop=(0, 2, 0, 2)).shape == (3, 2, 2, 3)
    assert loaded(root, channels=1).shape == (3, 8, 8, 1)
    loaded(root)
    replacement = 255 - contents[1]
    stat = (root / "b.png").stat()
    save(root / "b.png", replacement)
    os.utime(root / "b.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert np.array_equal(loaded(root)[1], replacement)
    save(root / "d.png", picture())
    assert len(loaded(root)) == 4
    (root / "a.png").unlink()
    assert len(loaded(root)) == 3


def test_what_is_skipped_is_told_with_the_reason_each_time(flat: tuple[Path, np.ndarray]) -> None:
    root, contents = flat
    (root / "b.png").write_text("no picture")
    (root / "d.tif").write_bytes(encoded(Image.fromarray(np.full((8, 8), 7.0, np.float32)), "TIFF"))
    for _ in range(2):
        files = ImageFiles.find(root)
        pixels, kept, skipped = load(files, list(files.stamps), None, None, 3)
        assert np.array_equal(pixels.permute(0, 2, 3, 1), contents[[0, 2]])
        assert (kept, skipped) == (["a.png", "c.png"], ["b.png", "d.tif"])
        assert files.remarks == [
            "why images could not be used: "
            "'b.png' (UnidentifiedImageError: it is in no format that can be decoded here), "
            "'d.tif' (ValueError: its floating-point values are 7 to 7; allowed: 0 (black) to 1 (white))"
        ]


@pytest.mark.parametrize(("pixels", "reason"), [(101, "DecompressionBombWarning"), (201, "DecompressionBombError")])
def test_a_picture_of_absurd_size_is_skipped(
    flat: tuple[Path, np.ndarray], pixels: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = flat
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (pixels, 1)).save(root / "d.png")
    files = ImageFiles.find(root)
    assert load(files, list(files.stamps), None, None, 3)[2] == ["d.png"]
    assert f"'d.png' ({reason}: " in files.remarks[0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), "'b.png' cannot be read: Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), "'b.png' cannot be read: Stale file handle"),
        (MemoryError(), "not enough memory to decode 'b.png'"),
    ],
)
def test_a_fault_of_the_machine_is_not_kept_as_one_of_the_file(
    flat: tuple[Path, np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    root, contents = flat
    original = ImageFiles.read

    def read(files: ImageFiles, name: str) -> bytes:
        if name == "b.png":
            raise error
        return original(files, name)

    with monkeypatch.context() as patched:
        patched.setattr(ImageFiles, "read", read)
        with pytest.raises(UserError, match=rf"dataset\.root: .*{said}"):
            loaded(root)
    assert list(cache.iterdir()) == []
    assert np.array_equal(loaded(root), contents)


def test_half_a_cache_entry_is_none(flat: tuple[Path, np.ndarray], cache: Path) -> None:
    root, contents = flat
    loaded(root)
    for suffix in (".json", ".pixels"):
        next(cache.glob(f"*{suffix}")).unlink()
        assert np.array_equal(loaded(root), contents)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".pixels", b"short"), (".pixels", b""), (".json", b"{"), (".json", b'{"shape": [3, 8, 8]}'), (".json", b"\xff")],
)
def test_a_damaged_cache_entry_is_told_and_made_again(
    flat: tuple[Path, np.ndarray], cache: Path, capsys: pytest.CaptureFixture[str], suffix: str, content: bytes
) -> None:
    root, contents = flat
    loaded(root)
    next(cache.glob(f"*{suffix}")).write_bytes(content)
    assert np.array_equal(loaded(root), contents)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "damaged, and are decoded again" in said
    assert np.array_equal(loaded(root), contents)
    assert capsys.readouterr().err == ""


def test_the_pixels_may_be_changed_without_changing_the_cache(flat: tuple[Path, np.ndarray]) -> None:
    root, contents = flat
    loaded(root)[:] = 0
    assert np.array_equal(loaded(root), contents)


def test_a_cache_that_cannot_be_written_is_named(
    flat: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=rf"{tmp_path / 'file'}.*GAN_RUNNER_CACHE"):
        loaded(flat[0])


def test_a_full_disk_is_named_and_leaves_nothing(flat: tuple[Path, np.ndarray], cache: Path) -> None:
    """A limit on the size of files stands for the full disk; the file is written in parts of a few KiB."""
    root, _ = flat
    save(root / "d.png", picture(200, 200))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"File too large.*GAN_RUNNER_CACHE"):
            loaded(root, size=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_ends_the_work_leaves_nothing(
    flat: tuple[Path, np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    class Progress(image_cache.Progress):
        def show(self, done: int, text: str) -> None:
            if done == 2:
                assert kinds(cache) == [".new"]
                raise error

    root, contents = flat
    with monkeypatch.context() as patched:
        patched.setattr(image_cache, "Progress", Progress)
        with pytest.raises(error):
            loaded(root)
    assert list(cache.iterdir()) == []
    assert np.array_equal(loaded(root), contents)


LOAD = """
import sys, time
from pathlib import Path
from gan_runner.datasets import image_cache
from gan_runner.datasets.image_files import ImageFiles
files = ImageFiles.find(Path(sys.argv[1]))
go, original = Path(sys.argv[2]), image_cache.decode
def decode(*a, **k):
    while not go.exists():
        time.sleep(0.1)
    return original(*a, **k)
image_cache.decode = decode
print("begins", flush=True)
print(image_cache.load(files, list(files.stamps), None, None, 3)[0].long().sum().item())
"""


def start(root: Path, go: str, environment: dict[str, str], cache: Path) -> "subprocess.Popen[str]":
    """A process that loads `root`, but decodes nothing before the file `go` beside it exists."""
    command = [sys.executable, "-c", LOAD, str(root), str(root.parent / go)]
    process = subprocess.Popen(
        command, env=environment | {"GAN_RUNNER_CACHE": str(cache)}, cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process


def wait_until(happens: Any) -> None:
    begun = time.monotonic()
    while not happens():
        assert time.monotonic() - begun < 30
        time.sleep(0.01)


@pytest.fixture
def many(tmp_path: Path) -> tuple[Path, int]:
    """Sixty images, and the sum of their pixels."""
    contents = [picture() for _ in range(60)]
    for number, content in enumerate(contents):
        save(tmp_path / "many" / f"{number:02}.png", content)
    return tmp_path / "many", int(np.sum(contents, dtype=np.int64))


def test_what_a_kill_leaves_is_used_again(many: tuple[Path, int], cache: Path, environment: dict[str, str]) -> None:
    root, total = many
    process = start(root, "never", environment, cache)
    wait_until(lambda: any(cache.glob("*.new")))
    process.kill()
    process.communicate()
    left = next(cache.iterdir())
    left.write_bytes(b"what was written so far" * 10_000)
    assert loaded(root).sum() == total
    assert kinds(cache) == [".json", ".pixels"]


def test_an_interrupt_is_answered_at_once(many: tuple[Path, int], cache: Path, environment: dict[str, str]) -> None:
    process = start(many[0], "go", environment, cache)
    wait_until(lambda: any(cache.glob("*.new")))
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    (many[0].parent / "go").touch()  # what is being decoded is decoded
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert "KeyboardInterrupt" in error
    assert list(cache.iterdir()) == []


WAITING = "another process decodes the same images; waiting for it\n"


def test_a_second_process_waits_for_the_first(many: tuple[Path, int], cache: Path, environment: dict[str, str]) -> None:
    root, total = many
    first = start(root, "go", environment, cache)
    wait_until(lambda: any(cache.glob("*.new")))
    others = [start(root, "never", environment, cache) for _ in range(2)]
    for process in others:
        assert process.stderr is not None
        assert process.stderr.readline() == WAITING
    (root.parent / "go").touch()
    for process in (first, *others):
        assert process.communicate(timeout=60) == (f"{total}\n", "")
    assert kinds(cache) == [".json", ".pixels"]


def test_a_second_process_goes_on_where_the_first_is_killed(
    many: tuple[Path, int], cache: Path, environment: dict[str, str]
) -> None:
    root, total = many
    first = start(root, "never", environment, cache)
    wait_until(lambda: any(cache.glob("*.new")))
    second = start(root, ".", environment, cache)
    assert second.stderr is not None
    assert second.stderr.readline() == WAITING
    first.kill()
    first.communicate()
    assert second.communicate(timeout=60) == (f"{total}\n", "")
    assert kinds(cache) == [".json", ".pixels"]


def test_without_locks_nobody_is_waited_for(
    flat: tuple[Path, np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert np.array_equal(loaded(flat[0]), flat[1])
    assert kinds(cache) == [".json", ".pixels"]


def test_the_index_says_why(flat: tuple[Path, np.ndarray], cache: Path) -> None:
    (flat[0] / "a.png").write_bytes(b"")
    loaded(flat[0])
    index = json.loads(next(cache.glob("*.json")).read_text())
    assert index["shape"] == [3, 8, 8]
    assert list(index["skipped"]) == ["a.png"]
