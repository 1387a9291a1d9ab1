"""What a run writes while it trains: metrics.jsonl, the source of truth, and TensorBoard's events beside it."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from gan_runner.checkpoint import write_atomically
from gan_runner.errors import UserError

Row = dict[str, Any]

CHART = {
    "loss": {
        "both networks": ["Multiline", ["loss/discriminator_real", "loss/discriminator_fake", "loss/generator"]],
    }
}


def read_metrics(path: Path) -> list[Row]:
    """The rows of metrics.jsonl; a last line that a kill cut short is left out. Raises `UserError` for anything else."""
    if not path.exists():
        return []
    rows = []
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: line {number} is no row of metrics") from error
    return rows


class Logger:
    """Opens the logs after `step` (0: a new run), cut back to it, so that no step stands in them twice.

    The last step of a run is logged out of turn; `in_turn` gives what a longer run would have logged at that step.
    """

    def __init__(self, directory: Path, step: int, in_turn: Callable[[Row], Row]) -> None:
        self._path = directory / "metrics.jsonl"
        rows = (in_turn(row) if row["step"] == step else row for row in read_metrics(self._path) if row["step"] <= step)
        self.rows = [row for row in rows if len(row) > 1]
        write_atomically(self._path, b"".join(map(_line, self.rows)))
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size
        # TensorBoard drops what an earlier writer wrote from purge_step on, but only counts a writer as a restart if
        # the first one had a purge_step too; hence 0 in a new run.
        self._events = SummaryWriter(str(directory), purge_step=step + 1 if step else 0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row, and the same values as TensorBoard scalars."""
        row = {"step": step, **values}
        self.rows.append(row)
        for tag, value in values.items():
            self._events.add_scalar(tag, value, step)
        self._append(_line(row))

    def _append(self, line: bytes) -> None:
        try:
            written = self._file.write(line)
            if written < len(line):  # a disk that fills up takes a part of it
                self._file.write(line[written:])
        except OSError:
            os.truncate(self._path, self._size)
            raise
        self._size += len(line)

    def image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """A picture, (H, W, 3) uint8."""
        self._events.add_image(tag, picture, step, dataformats="HWC")

    def describe(self, config: Mapping[str, Any]) -> None:
        """What does not change during a run: hyperparameters, the layout of the loss chart."""
        values = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in _dotted(config)}
        # add_hparams would make a second run beside this one: its three summaries go into the same file instead.
        for summary in hparams(values, {"loss/generator": None, "loss/discriminator": None}):
            self._events.file_writer.add_summary(summary)
        self._events.add_custom_scalars(CHART)

    def flush(self) -> None:
        """Everything logged so far is on the disk; called before a checkpoint, which must not be ahead of the logs."""
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        """Ends the logs."""
        self._file.close()
        self._events.close()


def _line(row: Row) -> bytes:
    return (json.dumps(row) + "\n").encode()


def _dotted(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, child in node.items():
        found += _dotted(child, f"{prefix}{name}.") if isinstance(child, Mapping) else [(f"{prefix}{name}", child)]
    return found
