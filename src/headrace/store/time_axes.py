"""One time axis for the sensors of a device: rows of the warm tier that refer to the times of a row before them.

``times_back`` of a row says how many rows before it in its row group the one is that has its times (`headrace.store.schema`).
Rows that leave their place get their times back first (`own_times`), and share again where they end up (`share_times`).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from headrace.codecs.packing import put_varint
from headrace.core.errors import CorruptionError
from headrace.store.warm import BARE, EVEN, Chunk, parts, sealed

Array = npt.NDArray[Any]

_DEVICE_BYTES_MAX, _DEVICE_ROWS_MAX = 4 << 20, 1_024
"""Rows that share times stand in one row group: no more than half of what one may hold."""


_Known = tuple[int, Array, str]
"""A row, its times, and their codec."""
_NOBODY: _Known = (0, np.empty(0, np.int64), "")


class TimeAxes:
    """Which row has the same times as the next one: of its device, and not so far before it that they part.

    ``back``: how many rows before each row the one is that has its times; 0 for itself.
    """

    def __init__(self) -> None:
        self.back: list[int] = []
        self._device = ""
        self._rows: dict[int, _Known] = {}
        self._last, self._is_new = _NOBODY, True
        self._key, self._axis = 0, np.empty(0)
        self._size = self._first = 0

    def of(self, path: str, axis: Array) -> str | None:
        """The time codec of a row that has these times, else None; `add` says what became of the row.

        Parameters
        ----------
        path : of the row's sensor. axis : times or whatever stands for them, contiguous; kept as it is.
        """
        device = path.rpartition("/")[0]
        n_rows = len(self.back) - self._first
        if device != self._device or self._size > _DEVICE_BYTES_MAX or n_rows > _DEVICE_ROWS_MAX:
            self._device, self._rows, self._size, self._first = device, {}, 0, len(self.back)
            self._last = _NOBODY
        self._key, self._axis = 0, axis
        row, same, name = self._last
        # Mostly it is that of the sensor before.
        is_known = len(axis) > 0 and _are_same(same, axis)
        if not is_known:
            self._key = xxhash.xxh3_64_intdigest(axis.data)
            row, same, name = self._rows.get(self._key, (0, axis[:0], ""))
            is_known = len(axis) > 0 and _are_same(same, axis)
        if is_known:
            self._last = row, same, name
        # Even times have no bytes that one could refer to.
        self.back.append(len(self.back) - row if is_known and name != EVEN else 0)
        self._is_new = not is_known
        return name if is_known else None

    def add(self, chunk: Chunk) -> None:
        """The row that `of` was asked about is this one."""
        self._size += len(chunk.payload)
        if self._is_new:
            self._last = len(self.back) - 1, self._axis, chunk.time_codec
            self._rows.setdefault(self._key, self._last)


def _are_same(one: Array, other: Array) -> bool:
    """Two that are not empty."""
    return len(one) == len(other) and bool(one[0] == other[0] and (one == other).all())


def own_times(table: pa.Table) -> pa.Table:
    """Rows of whole row groups, each with its own times. Raises `CorruptionError`."""
    back = _back(table)
    if not back.any():
        return table
    payloads = table["payload"].to_pylist()
    for row in np.flatnonzero(back).tolist():
        leader = payloads[row - int(back[row])]
        first, second, _ = sound_parts(leader)
        payloads[row] = _with_times(payloads[row], leader[first:second])
    return _with(table, payloads, np.zeros(len(table), np.uint32))


def share_times(table: pa.Table) -> pa.Table:
    """Rows by path and time that have their own times, with those of a device once. Raises `CorruptionError`."""
    payloads = table["payload"].to_pylist()
    paths, names = table["path"].to_pylist(), table["time_codec"].to_pylist()
    spans = [table[name].cast(pa.int64()).to_numpy() for name in ("t_min", "t_max")]
    frames = table["n_frames"].to_numpy()
    axes = TimeAxes()
    for row, payload in enumerate(payloads):
        axis, is_bare = b"", names[row].startswith(BARE)
        if is_bare:
            first, second, _ = sound_parts(payload)
            axis = payload[first:second]
        if axis:
            axis = f"{names[row]} {frames[row]} {spans[0][row]} {spans[1][row]} ".encode() + axis
        if axes.of(paths[row], np.frombuffer(axis, np.uint8)) is not None and axes.back[-1]:
            payloads[row] = _with_times(payload, b"")
        axes.add(Chunk(payloads[row], names[row], "", 0.0))
    return _with(table, payloads, np.array(axes.back, np.uint32))


def sound_parts(payload: bytes) -> tuple[int, int, int]:
    """`headrace.store.warm.parts` of a row that may be damaged. Raises `CorruptionError`."""
    try:
        return parts(payload)
    except (ValueError, struct.error) as e:
        raise CorruptionError(f"a chunk of {len(payload):,} bytes can't be read: {e}") from e


def _with_times(payload: bytes, times: bytes) -> bytes:
    _, second, third = sound_parts(payload)
    n_values = third - second if third < len(payload) else 0
    return sealed(b"".join([put_varint(len(times)), put_varint(n_values), times, payload[second:]]))


def _back(table: pa.Table) -> npt.NDArray[np.int64]:
    if "times_back" not in table.column_names:
        return np.zeros(len(table), np.int64)
    return np.asarray(table["times_back"].fill_null(0).to_numpy()).astype(np.int64)


def _with(table: pa.Table, payloads: list[bytes], back: npt.NDArray[np.uint32]) -> pa.Table:
    sizes = np.array([len(one) for one in payloads], np.uint32)
    columns: dict[str, Any] = {"payload": payloads, "n_bytes": sizes, "times_back": back}
    for name, column in columns.items():
        place, kind = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, kind, pa.array(column, kind.type))
    return table
