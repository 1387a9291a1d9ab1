"""Image files, decoded once into a memory-mapped cache."""

import fcntl
import hashlib
import json
import math
import os
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor

from gan_runner.console import PAUSE, Progress, say
from gan_runner.datasets.base import first
from gan_runner.datasets.decoding import Crop, Size, decode
from gan_runner.datasets.image_files import ImageFiles
from gan_runner.errors import UserError, type_and_message
from gan_runner.heartbeat import heartbeat
from gan_runner.paths import cache_folder, write_atomically

CACHE_FORMAT = 2  # raise it when the same files give other pixels
_WORKERS = 8  # threads at most, because each may hold a large picture
_AHEAD = 4  # images for each thread that are read before their turn to be written
_POLL = 0.2  # seconds between two looks at another process's work


class _Index(BaseModel):
    """What is known of the decoded images."""

    model_config = ConfigDict(extra="forbid")

    shape: tuple[PositiveInt, ...]  # of one image: channels, height, width
    skipped: dict[str, str]  # which files could not be decoded, and why


def load(
    files: ImageFiles, names: list[str], size: Size, crop: Crop, channels: int
) -> tuple[Tensor, list[str], list[str]]:
    """Decodes `names` into images, uint8 (N, channels, height, width). Also returns their names, and those skipped.

    They are decoded once: later calls find the result in the cache folder. Why some are skipped is added to
    `files.remarks`.

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

    entry = _Entry(cache_folder(), key, len(names))
    index = entry.read_or_make(
        lambda file: _decode_into(file, files, names, partial(decode, size=size, crop=crop, channels=channels))
    )
    if index.skipped:
        reasons = first([f"{name} ({reason})" for name, reason in index.skipped.items()])
        files.remarks.append(f"why images could not be used: {reasons}")
    kept = [name for name in names if name not in index.skipped]
    mapped = np.memmap(entry.pixels, np.uint8, mode="c", shape=(len(kept), *index.shape))
    return torch.from_numpy(mapped), kept, list(index.skipped)


class _Entry:
    """The decoded images of one dataset in the cache: their bytes, and an index, which marks them as complete."""

    def __init__(self, cache: Path, key: str, count: int) -> None:
        self._cache, self._count = cache, count
        self.pixels, self._index, self._new = (cache / f"{key}.{kind}" for kind in ("pixels", "json", "new"))

    def read_or_make(self, decode_into: Callable[[IO[bytes]], _Index]) -> _Index:
        """The index; where another process is making the entry, waits for that one."""
        try:
            if (index := self._read()) is not None:
                return index
            self._cache.mkdir(parents=True, exist_ok=True)
            with _locked(self._new) as file:
                if (index := self._read()) is None:
                    index = decode_into(file)
                    file.flush()
                    os.replace(file.name, self.pixels)
                    write_atomically(self._index, index.model_dump_json().encode(), durable=False, shared=True)
                return index
        except OSError as error:
            raise UserError(
                f"the cache of decoded images in '{self._cache}' cannot be used ({error}); "
                "set GAN_RUNNER_CACHE to a folder with room"
            ) from None

    def _read(self) -> _Index | None:
        """None if there is none; if it is damaged, this is said, and it is none from now on."""
        try:
            index = _Index.model_validate_json(self._index.read_bytes())
            if self.pixels.stat().st_size == (self._count - len(index.skipped)) * math.prod(index.shape):
                return index
        except FileNotFoundError:
            return None
        except ValidationError:
            pass
        say(f"warning: the decoded images in {self.pixels} are damaged, and are decoded again")
        self._index.unlink()
        return None


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """`path`, empty and locked, until the block ends; then it is removed, unless the block has renamed it.

    Who holds it is waited for. Who was killed does not hold it any more, and what is left of it is overwritten.
    """
    file = _open_locked(path)
    try:
        file.truncate(0)
        yield file
    finally:
        if _has_name(file, file.name):
            os.unlink(file.name)
        file.close()


def _open_locked(path: Path) -> IO[bytes]:
    while True:
        file = path.open("ab")
        try:
            if not _lock(file):
                file.close()
                path.unlink(missing_ok=True)
                return path.with_suffix(f".{uuid.uuid4().hex}.new").open("xb")
            if _has_name(file, path):
                return file
            file.close()  # who held it has finished, and renamed or removed it
        except BaseException:
            file.close()
            raise


def _lock(file: IO[bytes]) -> bool:
    """Waits for the lock; False if the file system has none, where nobody can be waited for."""
    size = None
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if size is None:
                say("another process decodes the same images; waiting for it")
            if (grown := os.fstat(file.fileno()).st_size) != size:  # the other's progress is ours
                heartbeat.beat()
            size = grown
            time.sleep(_POLL)
        except OSError:
            return False


def _has_name(file: IO[bytes], path: Path | str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _decode_into(
    target: IO[bytes], files: ImageFiles, names: list[str], decode: Callable[[bytes], np.ndarray]
) -> _Index:
    """Writes the images' bytes to `target` in order."""
    first: tuple[str, tuple[int, ...]] | None = None
    skipped: dict[str, str] = {}
    progress = Progress("decoded", len(names), pause=PAUSE)
    with closing(_decode_in_order(files, names, decode)) as images, closing(progress):
        for done, (name, image) in enumerate(images, 1):
            progress.show(done, "into the cache")
            if isinstance(image, str):
                skipped[name] = image
                continue
            first = first or (name, image.shape)
            if image.shape != first[1]:
                raise UserError(
                    f"dataset.size is null, which keeps every image's size, but (channels, height, width) is "
                    f"{first[1]} in '{first[0]}' and {image.shape} in '{name}'; set dataset.size"
                )
            target.write(image.tobytes())
    if first is None or len(names) - len(skipped) < 2:
        example = next((f"; '{name}': {reason}" for name, reason in skipped.items()), "")
        raise UserError(
            f"dataset.root: {len(names) - len(skipped)} of {len(names)} images in '{files.root}' can be used, "
            f"at least 2 are needed{example}"
        )
    return _Index(shape=first[1], skipped=skipped)


def _decode_in_order(
    files: ImageFiles, names: list[str], decode: Callable[[bytes], np.ndarray]
) -> Generator[tuple[str, np.ndarray | str], None, None]:
    """Each name with its image, or with the reason why there is none; a few are decoded ahead, in threads."""
    from PIL import Image

    def attempt(name: str) -> np.ndarray | str:
        try:
            return decode(files.read(name))
        except Image.UnidentifiedImageError:  # its message tells where in memory the file was
            return "UnidentifiedImageError: it is in no format that can be decoded here"
        except MemoryError:
            raise UserError(f"dataset.root: there is not enough memory to decode '{name}'") from None
        except Exception as error:  # on a broken file, Pillow's decoders raise almost anything
            if isinstance(error, OSError) and error.errno is not None:  # the disk's: to be skipped once is not for ever
                raise UserError(f"dataset.root: '{name}' cannot be read: {error.strerror}") from None
            return type_and_message(error)

    workers = min(_WORKERS, os.cpu_count() or 1)
    ahead: deque[tuple[str, Future[np.ndarray | str]]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # about details of a file that can be decoded
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            for name in names:
                if len(ahead) == _AHEAD * workers:
                    done, image = ahead.popleft()
                    yield done, image.result()
                ahead.append((name, pool.submit(attempt, name)))
            for done, image in ahead:
                yield done, image.result()
        finally:
            pool.shutdown(cancel_futures=True)  # who is stopped does not wait for all that is ahead
