"""Metrics as TensorBoard reads them: a run's rows as scalars in an event file, kept up to date while it trains.

The format is TFRecord: length, its masked CRC-32C, an Event in protobuf's wire format, its masked CRC-32C. An Event has
wall_time (1, double), step (2, varint), file_version (3, string), summary (5) and session_log (7); see
tensorflow/core/util/event.proto.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c

from stages.store.errors import UserError
from stages.store.files import disk_errors
from stages.store.rundir import RunDir
from workbench.follow import RowFollower

NOT_METRICS = ("step", "time", "rewind_to")
START = 1
"""SessionLog.START: events written before it that are beyond its step no longer count."""


class EventFile:
    """One run's event file, written anew, and then followed."""

    def __init__(self, run: RunDir, folder: Path) -> None:
        self.run = run
        self._rows = RowFollower(run.metrics)
        self._folder = folder
        self._file: BinaryIO | None = None
        self._time = 0.0

    def update(self) -> int:
        """Write what has come since the last call. Returns the number of rows. WorkFailed when the disk is full."""
        with disk_errors(self._folder):
            return self._update()

    def _update(self) -> int:
        written = 0
        while True:
            chunk = self._rows.read()
            if chunk.restarted and self._file is not None:
                self.close()
            if chunk.rewind_to is not None:
                self._write(event(self._time, int(chunk.rewind_to) + 1, session=START))
            for row in chunk.rows:
                if scalars := _scalars(row):
                    self._time = float(row.get("time", self._time))
                    self._write(event(self._time, int(row.get("step", 0)), scalars=scalars))
                    written += 1
            if not chunk.more:
                break
        if self._file is not None:
            self._file.flush()
        return written

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with disk_errors(self._folder):
                file.close()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._open()
            self._file.write(record(event(self._time, 0, version="brain.Event:2")))
        self._file.write(record(data))

    def _open(self) -> BinaryIO:
        """The file, empty; one that an earlier export left is replaced, or TensorBoard would show both."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in self._folder.glob("events.out.tfevents.*.workbench"):
                old.unlink()
            return (self._folder / f"events.out.tfevents.{self.run.id}.workbench").open("wb")
        except OSError as error:
            raise UserError(f"{self._folder} cannot be written: {error.strerror}.", "Choose another folder.") from error


def event(
    wall_time: float, step: int, *, scalars: dict[str, float] | None = None, version: str = "", session: int = 0
) -> bytes:
    """An Event in protobuf's wire format."""
    data = b"\x09" + struct.pack("<d", wall_time) + b"\x10" + _varint(step)
    if version:
        data += _field(0x1A, version.encode())
    if scalars:
        values = (_field(0x0A, tag.encode()) + b"\x15" + _single(value) for tag, value in scalars.items())
        data += _field(0x2A, b"".join(_field(0x0A, value) for value in values))
    if session:
        data += _field(0x3A, b"\x08" + _varint(session))
    return data


def _single(value: float) -> bytes:
    """A number in single precision; what is too large for that is infinite, as TensorBoard shows it."""
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, value))


def record(data: bytes) -> bytes:
    """A TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in row.items()
        if key not in NOT_METRICS and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _field(key: int, data: bytes) -> bytes:
    return bytes([key]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
