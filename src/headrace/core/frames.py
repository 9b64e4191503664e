"""Frames: what flows. One frame is one instant of one group; a `FrameBatch` holds many, as columns.

Nothing on the way from a device to the disk makes a Python object for each sample. A batch has one shape
and one value type; its values stay in the source's own type until someone needs floats:

* *dense*: every column of the group has a value: ``values[F, D]``;
* *sparse*: the columns that changed: ``values[N]`` with ``column[N]``, frame f owns ``start[f]:start[f+1]``;
* *wave*: n values at a rate that is a fraction (Hz): ``values[N]``, ``rate_num[F] / rate_den[F]``.

Groups are named by their slot in the `SensorDirectory`. Batches are frozen: the arrays are read-only views.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import CorruptionError
from headrace.core.layouts import DTYPES, dtype_name, numpy_dtype

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]

# version, shape, dtype, flags, width, frames, values, arrival, sequence, origin bytes, dictionary bytes
_HEADER = struct.Struct("<BBBBIIQqqHxxI")
_VERSION, _VERSION_PACKED = 1, 2
_HAS_QUALITY, _HAS_VALUE_TS, _HAS_DICTIONARY, _PACKED_TIMES, _PACKED_SLOTS = 1, 2, 4, 8, 16
_PACKED_FROM_FRAMES = 512
# Columns in the order of their bytes: the type each must have (None: any value type), and one entry a what.
_COLUMNS: dict[str, tuple[Any, str]] = {
    "ts_ns": (np.int64, "frame"), "start": (np.int64, "edge"), "value_ts_ns": (np.int64, "value"),
    "rate_num": (np.int64, "frame"), "rate_den": (np.int64, "frame"), "values": (None, "value"),
    "slot": (np.uint32, "frame"), "column": (np.uint16, "value"), "quality": (np.uint8, "value"),
}  # fmt: skip


class Shape(IntEnum):
    """The three shapes of a frame."""

    DENSE = 0
    SPARSE = 1
    WAVE = 2


_DENSE = Shape.DENSE  # which Python looks for in the enumeration's class each time, for 0.2 us
_EACH = frozenset({"slot", "ts_ns", "values"})
_SPARSE, _WAVE = _EACH | {"start", "column"}, _EACH | {"start", "rate_num", "rate_den"}
# Columns that a shape needs, and those that it may have.
_NEEDED = {
    Shape.DENSE: (_EACH, _EACH | {"quality"}),
    Shape.SPARSE: (_SPARSE, _SPARSE | {"quality", "value_ts_ns"}),
    Shape.WAVE: (_WAVE, _WAVE | {"quality"}),
}


@dataclass(frozen=True, slots=True)
class Samples:
    """The flat view: one row a sample, for user functions and tools.

    ``sensor: uint64[n]``, ``ts_ns: int64[n]``, ``value: T[n]`` (engineering units; 64-bit integers without
    a grid stay integers), ``quality: uint8[n]``.
    """

    sensor: npt.NDArray[np.uint64]
    ts_ns: I64
    value: Array
    quality: U8


@dataclass(frozen=True, slots=True, eq=False)
class FrameBatch:
    """Frames of one shape and one value type, as columns.

    Parameters
    ----------
    shape : dense, sparse or wave.
    slot : uint32[F], the group of each frame by its slot in the directory.
    ts_ns : int64[F], source time of each frame (of its first value for a wave); `NO_TIME` until normalised.
    values : T[F, D] (dense) or T[N] (sparse, wave), in the source's own type.
    quality : uint8, shaped as `values`; None means all good.
    start : int64[F + 1], where each frame's values start (sparse, wave).
    column : uint16[N], which column each value belongs to (sparse).
    value_ts_ns : int64[N], time of each value where it differs from its frame's (sparse).
    rate_num, rate_den : int64[F], values a second as a fraction (wave).
    dictionary : strings that integer values are codes of, for string signals.
    arrival_ns : when the batch arrived at the adapter.
    origin : the adapter instance; sequence : its running number of the batch.
    """

    shape: Shape
    slot: U32
    ts_ns: I64
    values: Array
    quality: U8 | None = None
    start: I64 | None = None
    column: U16 | None = None
    value_ts_ns: I64 | None = None
    rate_num: I64 | None = None
    rate_den: I64 | None = None
    dictionary: tuple[str, ...] | None = None
    arrival_ns: int = 0
    origin: str = ""
    sequence: int = -1

    @classmethod
    def dense(
        cls, slot: U32, ts_ns: I64, values: Array, quality: U8 | None = None, **rest: Any
    ) -> FrameBatch:
        """A dense batch; `values` is T[F, D]."""
        slot, ts_ns, values, quality = _frozen(slot, ts_ns, values, quality)
        return cls(_DENSE, slot, ts_ns, values, quality, **rest)

    @classmethod
    def sparse(cls, slot: U32, ts_ns: I64, values: Array, start: I64, column: U16, **rest: Any) -> FrameBatch:
        """A sparse batch; frame f has ``values[start[f]:start[f + 1]]`` in columns ``column[...]``."""
        slot, ts_ns, values, start, column = _frozen(slot, ts_ns, values, start, column)
        return cls(Shape.SPARSE, slot, ts_ns, values, start=start, column=column).with_(**rest)

    @classmethod
    def wave(
        cls, slot: U32, ts_ns: I64, values: Array, start: I64, rate: tuple[I64, I64], **rest: Any
    ) -> FrameBatch:
        """A wave batch; frame f has ``values[start[f]:start[f + 1]]`` from ``ts_ns[f]`` at ``rate`` (num, den)."""
        slot, ts_ns, values, start, num, den = _frozen(slot, ts_ns, values, start, *rate)
        return cls(Shape.WAVE, slot, ts_ns, values, start=start, rate_num=num, rate_den=den).with_(**rest)

    @property
    def n_frames(self) -> int:
        """Number of frames, F."""
        return len(self.slot)

    @property
    def n_values(self) -> int:
        """Number of values, absent ones included."""
        return int(self.values.size)

    @property
    def width(self) -> int:
        """Columns of a dense batch, D; 0 for the other shapes."""
        return int(self.values.shape[1]) if self.shape is Shape.DENSE else 0

    @property
    def dtype(self) -> str:
        """Name of the value type: ``u16``, ``f64``, ..."""
        return dtype_name(self.values.dtype)

    @property
    def n_samples(self) -> int:
        """Number of samples: values that are not absent."""
        if self.quality is None:
            return self.n_values
        return int(np.count_nonzero(self.quality < 0xC0))

    @property
    def size_bytes(self) -> int:
        """Bytes of all columns."""
        return sum(column.nbytes for _, column in self._columns())

    def with_(self, **changes: Any) -> FrameBatch:
        """A copy with some fields changed; new arrays become read-only."""
        for key, value in changes.items():
            if isinstance(value, np.ndarray):
                changes[key] = _frozen(value)[0]
        new = object.__new__(FrameBatch)  # `dataclasses.replace` takes three times as long
        for name in _FIELDS:
            _set_field(new, name, changes.pop(name) if name in changes else getattr(self, name))
        if changes:
            raise TypeError(f"a batch has no {', '.join(changes)}")
        return new

    def take(self, index: npt.NDArray[np.intp]) -> FrameBatch:
        """The frames at `index`, in that order (copies)."""
        one: dict[str, Any] = {"slot": self.slot[index], "ts_ns": self.ts_ns[index]}
        if self.shape is Shape.DENSE:
            one["values"] = self.values.take(index, axis=0)
            if self.quality is not None:
                one["quality"] = self.quality.take(index, axis=0)
            return self.with_(**one)
        assert self.start is not None
        count = np.diff(self.start)[index]
        start = np.zeros(len(index) + 1, np.int64)
        np.cumsum(count, out=start[1:])
        at = np.repeat(self.start[index] - start[:-1], count) + np.arange(start[-1])
        one.update(values=self.values[at], start=start)
        for name in ("quality", "column", "value_ts_ns"):
            if getattr(self, name) is not None:
                one[name] = getattr(self, name)[at]
        for name in ("rate_num", "rate_den"):
            if getattr(self, name) is not None:
                one[name] = getattr(self, name)[index]
        return self.with_(**one)

    def slice(self, first: int, last: int) -> FrameBatch:
        """Frames ``first:last`` without a copy of the values."""
        one: dict[str, Any] = {"slot": self.slot[first:last], "ts_ns": self.ts_ns[first:last]}
        if self.shape is Shape.DENSE:
            one["values"] = self.values[first:last]
            if self.quality is not None:
                one["quality"] = self.quality[first:last]
            return self.with_(**one)
        assert self.start is not None
        a, b = int(self.start[first]), int(self.start[last])
        one.update(values=self.values[a:b], start=self.start[first : last + 1] - a)
        for name in ("quality", "column", "value_ts_ns"):
            if getattr(self, name) is not None:
                one[name] = getattr(self, name)[a:b]
        for name in ("rate_num", "rate_den"):
            if getattr(self, name) is not None:
                one[name] = getattr(self, name)[first:last]
        return self.with_(**one)

    def split(self, key: npt.NDArray[np.integer[Any]], n_keys: int) -> tuple[FrameBatch, I64]:
        """Sort frames by `key` (stable) and say where each key starts: one split a batch.

        Returns
        -------
        The batch with frames in key order, and ``start: int64[n_keys + 1]``: frames ``start[k]:start[k + 1]``
        have key k. Where the frames are in order already nothing is copied.
        """
        start = np.zeros(n_keys + 1, np.int64)
        np.cumsum(np.bincount(key, minlength=n_keys), out=start[1:])
        if len(key) < 2 or not (key[1:] < key[:-1]).any():
            return self, start
        small = key.astype(np.uint16) if n_keys <= 65_536 else key
        return self.take(np.argsort(small, kind="stable")), start

    @staticmethod
    def concat(batches: Sequence[FrameBatch]) -> FrameBatch:
        """One batch of all frames, in order; shape, value type, width and dictionary must agree.

        Origin, sequence and arrival are those of the first.
        """
        first = batches[0]
        if len(batches) == 1:
            return first
        one: dict[str, Any] = {}
        for name in ("slot", "ts_ns", "values", "column", "rate_num", "rate_den"):
            if getattr(first, name) is not None:
                one[name] = np.concatenate([getattr(b, name) for b in batches])
        if first.start is not None:
            count = np.concatenate([np.diff(b.start) for b in batches if b.start is not None])
            one["start"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
        if any(b.quality is not None for b in batches):
            one["quality"] = np.concatenate(
                [np.zeros(b.values.shape, np.uint8) if b.quality is None else b.quality for b in batches]
            )
        if any(b.value_ts_ns is not None for b in batches):
            one["value_ts_ns"] = np.concatenate([b.value_times() for b in batches])
        return first.with_(**one)

    @property
    def kind_key(self) -> tuple[Shape, str, int, tuple[str, ...] | None]:
        """What batches must have in common to be one batch: shape, value type, width, dictionary."""
        return self.shape, self.dtype, self.width, self.dictionary

    def value_times(self) -> I64:
        """Time of each value: int64, flat in the order of ``values.reshape(-1)``."""
        if self.shape is Shape.DENSE:
            return np.repeat(self.ts_ns, self.width)
        if self.value_ts_ns is not None:
            return self.value_ts_ns
        assert self.start is not None
        count = np.diff(self.start)
        ts_ns = np.repeat(self.ts_ns, count)
        if self.shape is Shape.SPARSE:
            return ts_ns
        assert self.rate_num is not None
        assert self.rate_den is not None
        step = np.arange(self.n_values) - np.repeat(self.start[:-1], count)
        return ts_ns + wave_offsets_ns(step, np.repeat(self.rate_num, count), np.repeat(self.rate_den, count))

    # --- bytes: the form on links and in the journal -------------------------------------------------

    def _columns(self) -> Iterator[tuple[str, Array]]:
        for name in _COLUMNS:
            column = getattr(self, name)
            if column is not None:
                yield name, column

    def to_buffers(self) -> list[bytes | memoryview]:
        """The batch as buffers to write one after the other; every column starts at a multiple of 8 bytes."""
        words = b"" if self.dictionary is None else json.dumps(self.dictionary).encode()
        origin = self.origin.encode()
        flags = (_HAS_QUALITY if self.quality is not None else 0) | (
            _HAS_VALUE_TS if self.value_ts_ns is not None else 0
        )
        flags |= _HAS_DICTIONARY if self.dictionary is not None else 0
        packed = self._packed()
        flags |= _PACKED_TIMES if "ts_ns" in packed else 0
        flags |= _PACKED_SLOTS if "slot" in packed else 0
        head = _HEADER.pack(
            _VERSION_PACKED if packed else _VERSION, self.shape, DTYPES.index(self.dtype), flags, self.width, self.n_frames, self.n_values,
            self.arrival_ns, self.sequence, len(origin), len(words),
        )  # fmt: skip
        text = head + origin + words
        out: list[bytes | memoryview] = [text + bytes(-len(text) % 8)]
        for name, column in self._columns():
            data: bytes | memoryview | None = packed.get(name)
            if data is None:
                kind = _COLUMNS[name][0] or numpy_dtype(self.dtype)
                data = np.ascontiguousarray(column, kind).reshape(-1).view(np.uint8).data
            out.append(data)
            if len(data) % 8:
                out.append(bytes(-len(data) % 8))
        return out

    def _packed(self) -> dict[str, bytes]:
        """Columns of many frames that are smaller than they are long; format version 2."""
        if self.n_frames < _PACKED_FROM_FRAMES:
            return {}
        from headrace.core.frame_packing import pack_slots, pack_times

        tried = {"ts_ns": pack_times(self.ts_ns), "slot": pack_slots(self.slot)}
        return {name: data for name, data in tried.items() if data is not None}

    def to_bytes(self) -> bytes:
        """The batch as one byte string; see `to_buffers`."""
        return b"".join(self.to_buffers())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> FrameBatch:
        """The inverse of `to_bytes`; the columns are views of `data`.

        Raises
        ------
        CorruptionError : the bytes are not a batch.
        """
        try:
            batch = cls._parse(memoryview(data).toreadonly())
            batch.check_columns()
            return batch
        except (struct.error, ValueError, IndexError, OverflowError, RecursionError) as e:
            raise CorruptionError(f"{len(data):,} bytes are not a frame batch: {e}") from e

    @classmethod
    def _parse(cls, data: memoryview) -> FrameBatch:
        version, *codes, arrival_ns, sequence, n_origin, n_words = _HEADER.unpack_from(data)
        shape_code, dtype_code, flags, width, n_frames, n_values = codes
        if version not in (_VERSION, _VERSION_PACKED):
            raise ValueError(f"version {version}, this program reads {_VERSION} and {_VERSION_PACKED}")
        shape, dtype = Shape(shape_code), numpy_dtype(DTYPES[dtype_code])
        at = _HEADER.size
        origin = str(data[at : at + n_origin], "utf-8")
        at += n_origin
        dictionary = _parse_dictionary(data[at : at + n_words]) if flags & _HAS_DICTIONARY else None
        at += n_words
        at += -at % 8

        def column(kind: Any, n: int, present: bool) -> Any:
            nonlocal at
            if not present:
                return None
            array = np.frombuffer(data, kind, n, at)
            at += array.nbytes + -array.nbytes % 8
            return array

        def by_frame(flag: int, kind: Any, unpack: Callable[[memoryview, int], tuple[Any, int]]) -> Any:
            nonlocal at
            if not flags & flag:
                return column(kind, n_frames, True)
            array, n_bytes = unpack(data[at:], n_frames)
            at += n_bytes + -n_bytes % 8
            return _frozen(array)[0]

        from headrace.core.frame_packing import unpack_slots, unpack_times

        ragged = shape is not Shape.DENSE
        if not ragged and n_values != n_frames * width:
            raise ValueError(f"{n_frames} frames of {width} columns are not {n_values} values")
        ts_ns = by_frame(_PACKED_TIMES, np.int64, unpack_times)
        start = column(np.int64, n_frames + 1, ragged)
        value_ts_ns = column(np.int64, n_values, bool(flags & _HAS_VALUE_TS))
        rate_num = column(np.int64, n_frames, shape is Shape.WAVE)
        rate_den = column(np.int64, n_frames, shape is Shape.WAVE)
        values = column(dtype, n_values, True)
        slot = by_frame(_PACKED_SLOTS, np.uint32, unpack_slots)
        columns = column(np.uint16, n_values, shape is Shape.SPARSE)
        quality = column(np.uint8, n_values, bool(flags & _HAS_QUALITY))
        if not ragged:
            values = values.reshape(n_frames, width)
            quality = None if quality is None else quality.reshape(n_frames, width)
        if at != len(data):
            raise ValueError(f"it ends after {at:,} bytes")
        return cls(
            shape, slot, ts_ns, values, quality, start, columns, value_ts_ns, rate_num, rate_den,
            dictionary, arrival_ns, origin, sequence,
        )  # fmt: skip

    def check_columns(self) -> None:
        """Make sure that columns from outside fit together.

        Raises
        ------
        ValueError : a column is missing, has another type or length, or frames overlap.
        """
        needed, allowed = _NEEDED[self.shape]
        found = dict(self._columns())
        if not needed <= found.keys() <= allowed:
            raise ValueError(f"{self.shape.name.lower()} frames with columns {', '.join(found)}")
        if self.dtype not in DTYPES or self.values.ndim != (2 if self.shape is Shape.DENSE else 1):
            raise ValueError(f"values are {self.values.dtype}{self.values.shape}")
        lengths = {"frame": (self.n_frames,), "edge": (self.n_frames + 1,), "value": self.values.shape}
        for name, column in found.items():
            kind, per = _COLUMNS[name]
            if (kind is not None and column.dtype != kind) or column.shape != lengths[per]:
                raise ValueError(f"{name} is {column.dtype}{column.shape}, expected {lengths[per]}")
        if self.start is not None and not _covers(self.start, self.n_values):
            raise ValueError(f"frames do not cover {self.n_values} values one after the other")
        if any((found[name] < 1).any() for name in ("rate_num", "rate_den") if name in found):
            raise ValueError("a rate is not above 0")


def _covers(start: I64, n_values: int) -> bool:
    return bool(start[0] == 0 and start[-1] == n_values and (start[1:] >= start[:-1]).all())


def _parse_dictionary(data: memoryview) -> tuple[str, ...]:
    words = json.loads(bytes(data))
    if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        raise ValueError("the dictionary is not a list of words")
    return tuple(words)


def wave_offsets_ns(step: I64, num: I64, den: I64) -> I64:
    """Nanoseconds from a wave's first value to its `step`-th at ``num / den`` values a second, exact to 1 ns.

    ``num * den`` must stay below 9e9, or the product leaves 64 bits.
    """
    whole = step // num
    return whole * den * 1_000_000_000 + (step - whole * num) * den * 1_000_000_000 // num


_FIELDS = tuple(field.name for field in fields(FrameBatch))
_set_field = object.__setattr__


def _frozen(*arrays: Any) -> list[Any]:
    """Read-only views of `arrays`; None stays None."""
    out = []
    for array in arrays:
        if array is not None:
            array = array.view()
            array.setflags(False)  # by its place: NumPy takes as long to look at a name as for the rest
        out.append(array)
    return out
