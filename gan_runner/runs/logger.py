"""The logs of a run: metrics.jsonl, the source of truth, and TensorBoard's events."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary as summaries

from gan_runner.errors import UserError
from gan_runner.paths import write_atomically
from gan_runner.pictures import png

Row = dict[str, Any]

CHART = {
    "loss": {
        "both networks": ["Multiline", ["loss/discriminator_real", "loss/discriminator_fake", "loss/generator"]],
    }
}


def read_metrics(path: Path) -> list[Row]:
    """The rows of metrics.jsonl, without a last line that a kill cut short; `UserError` for any other mistake."""
    if not path.exists():
        return []
    rows = []
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = parse_row(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, KeyError, OverflowError) as error:
            raise UserError(f"{path}: line {number} is no row of metrics") from error
    return rows


def parse_row(text: bytes | str) -> Row:
    """Figures by tag; `ValueError` where it is anything else."""
    row = json.loads(text)
    if not isinstance(row, dict) or not all(isinstance(value, int | float) for value in row.values()):
        raise ValueError
    return row


class Logger:
    """Opens the logs after `step` (0: a new run), and removes later rows, so that no step is logged twice.

    The last step of a run is always logged; when the run is extended, `scheduled` gives what its schedule would have
    logged at that step, and the rest is dropped. If `step` itself is pending, its events are written once more.
    """

    def __init__(self, directory: Path, step: int, scheduled: Callable[[Row], Row], is_pending: bool = False) -> None:
        self._path = directory / "metrics.jsonl"
        rows = (
            scheduled(row) if row["step"] == step else row for row in read_metrics(self._path) if row["step"] <= step
        )
        self.rows = [row for row in rows if len(row) > 1]
        write_atomically(self._path, b"".join(map(_line, self.rows)))
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size
        self._events = EventFile(directory, step + (not is_pending) if step else 0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a row, and before it the same values as TensorBoard scalars: with its row, all of a step is there."""
        row = {"step": step, **values}
        self._events.add(step, *(summaries.scalar(tag, value) for tag, value in values.items()))
        self.rows.append(row)
        self._append(_line(row))

    def _append(self, line: bytes) -> None:
        try:
            written = self._file.write(line)
            if written < len(line):  # a disk that is nearly full takes only a part
                self._file.write(line[written:])
        except OSError:
            os.truncate(self._path, self._size)
            raise
        self._size += len(line)

    def image(self, tag: str, picture: np.ndarray, step: int, file: Path | None = None) -> None:
        """Writes a picture (H, W, 3) uint8, also to `file`: encoding it twice would take longer than drawing it."""
        encoded = png(picture)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, encoded, durable=False)
        height, width, _ = picture.shape
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._events.add(step, Summary(value=[Summary.Value(tag=tag, image=image)]))

    def text(self, tag: str, text: str, step: int) -> None:
        """Writes Markdown to TensorBoard's text tab."""
        self._events.add(step, summaries.text(tag, text))

    def describe(self, hyperparameters: Mapping[str, Any], metrics: Iterable[str], data: str) -> None:
        """Writes what stays the same during a run: hyperparameters, names of figures, the layout of a chart, its data.

        TensorBoard's HParams tab shows both as columns, so a value that all runs have is no hyperparameter.
        """
        values = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in hyperparameters.items()}
        about = summaries.hparams(values, dict.fromkeys(metrics))
        self._events.add(0, *about, summaries.custom_scalars(CHART), summaries.text("data", data))

    def flush(self) -> None:
        """Waits until all rows are on the disk: before a checkpoint, as it must not be ahead of earlier steps' rows."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        self._events.close()


class EventFile:
    """A file of TensorBoard's events, which makes TensorBoard ignore earlier files' events from `purge_step` on.

    Unlike `SummaryWriter`, it does not write in a thread of its own: a full disk raises `OSError` at once, and events
    can be seen at once. `SummaryWriter.add_hparams` would also add a second run.
    """

    def __init__(self, directory: Path, purge_step: int) -> None:
        # TensorBoard reads files in the order of their names; two may be opened within one second.
        self._file = (directory / f"events.out.tfevents.{time.time():.6f}").open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        # TensorBoard takes this for a restart only if the run's first file has it, too.
        self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, *parts: Any) -> None:
        """Writes summaries of one step."""
        for part in parts:
            self._write(Event(step=step, summary=part))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # a full disk has been reported
            self._file.close()


def _line(row: Row) -> bytes:
    return (json.dumps(row) + "\n").encode()
