"""Warm rows: samples of single sensors as rows with full headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.core.quality import USABLE_BELOW
from headrace.store.aggregates import in_units, partials_of, rounded
from headrace.store.runs import SensorSamples
from headrace.store.schema import (
    COLUMNS,
    FRAMES,
    HAS_BAD,
    HAS_GOOD,
    HAS_UNCERTAIN,
    coded,
    constant,
    schema_of,
)
from headrace.store.segment import STATISTIC_COLUMNS
from headrace.store.wanted import Wanted, from_bits
from headrace.store.warm import CHUNK_SAMPLES, Chunk, encode_chunk
from headrace.store.words import Words

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

WARM = (
    "shard", "kind", "path", "group", "sensor", "column", "layout", "layout_json", "dtype", "t_min", "t_max",
    "n_frames", "n_samples", "count", "quality", "min", "max", "sum", "sum_low", "first", "last", "m2", "raw_sum",
    "scale", "offset", "time_codec", "times_back", "value_codec", "bound", "seq", "dictionary", "n_bytes", "payload",
)  # fmt: skip
WARM_SCHEMA = schema_of(WARM)
_FLAG_OF_CLASS = np.array([HAS_GOOD, HAS_UNCERTAIN, HAS_BAD, 0], np.uint8)
_STRING_DTYPE = "u32"
_DEVICE_BYTES_MAX, _DEVICE_ROWS_MAX = 4 << 20, 1_024
"""Rows that share times stand in one row group: no more than half of what one may hold."""


@dataclass(frozen=True, slots=True, eq=False)
class _Chunks:
    """Where chunks start in the samples, and the sensor of each."""

    start: I64
    sensor: I64


def encode_warm(
    wanted: Wanted,
    samples: SensorSamples,
    words: Words,
    seq: I64,
    *,
    chunk_samples: int = CHUNK_SAMPLES,
    eps: Array | None = None,
    choices: Sequence[CodecChoice] | None = None,
) -> pa.Table:
    """Rows of sensors, by path and time.

    Parameters
    ----------
    wanted : the sensors, raw; samples : theirs, values as bits. seq : int64[n_sensors], newest journal number.
    chunk_samples : of a row, at most. eps : float64[n_sensors], absolute bounds; None is lossless. choices : what is
    said about the codecs of each sensor.
    """
    chunks = _cut(samples, chunk_samples)
    n, sensor = len(chunks.sensor), chunks.sensor
    directory = wanted.directory
    slots, columns = wanted.slot[sensor], wanted.column[sensor]
    first, last = chunks.start[:-1], chunks.start[1:]
    rows: dict[str, Any] = {
        "shard": directory.shard[slots], "kind": constant(FRAMES, n),
        "path": pa.array(wanted.paths[sensor].tolist(), pa.string()), "group": directory.group_id[slots],
        "sensor": _sensor_ids(wanted, sensor), "column": columns.astype(np.int32),
        "t_min": _times(samples.ts_ns[first]), "t_max": _times(samples.ts_ns[last - 1]),
        "n_frames": (last - first).astype(np.uint32), "n_samples": (last - first).astype(np.uint32),
        "quality": np.bitwise_or.reduceat(_FLAG_OF_CLASS[samples.quality >> 6], first),
        "seq": seq[sensor],
        "scale": _by_layout(wanted, slots, columns, "scale"), "offset": _by_layout(wanted, slots, columns, "offset"),
    }  # fmt: skip
    used, place = np.unique(directory.layout_index[slots], return_inverse=True)
    layouts = [directory.layouts[i] for i in used.tolist()]
    rows["layout"] = np.array([one.id for one in layouts], np.uint64)[place]
    rows["layout_json"] = coded(place.astype(np.int32), [one.to_json() for one in layouts])
    eps = np.zeros(wanted.n) if eps is None else eps
    choices = [ANY] * wanted.n if choices is None else choices
    rows |= _payloads(wanted, samples, chunks, words, list(zip(eps.tolist(), choices, strict=True)))
    rows |= _statistics(wanted, samples, chunks, words)
    return pa.Table.from_pydict({name: rows[name] for name in WARM}, schema=WARM_SCHEMA)


def _cut(samples: SensorSamples, most: int) -> _Chunks:
    """Chunks of nearly equal length, none above `most`."""
    length = np.diff(samples.start)
    parts = -(-length // most)
    sensor = np.repeat(samples.sensor, parts)
    first = np.repeat(samples.start[:-1], parts)
    number = np.arange(len(sensor)) - np.repeat(np.cumsum(parts) - parts, parts)
    start = first + np.repeat(length, parts) * number // np.repeat(parts, parts)
    return _Chunks(np.append(start, len(samples)).astype(np.int64), sensor)


def _payloads(
    wanted: Wanted,
    samples: SensorSamples,
    chunks: _Chunks,
    words: Words,
    rules: list[tuple[float, CodecChoice]],
) -> dict[str, Any]:
    encoded: list[Chunk] = []
    dtypes: list[str] = []
    dictionaries: list[list[str] | None] = []
    directory = wanted.directory
    axes = _TimeAxes()
    for sensor, a, b in zip(
        chunks.sensor.tolist(), chunks.start[:-1].tolist(), chunks.start[1:].tolist(), strict=True
    ):
        dtype = directory.layout(int(wanted.slot[sensor])).dtype
        bits = samples.values[a:b]
        if sensor in words.sensors:
            used, bits = np.unique(bits, return_inverse=True)
            dtype = _STRING_DTYPE
            dictionaries.append([words.list[i] for i in used.tolist()])
        else:
            dictionaries.append(None)
        plain = from_bits(bits.astype(np.int64), numpy_dtype(dtype))
        eps, choice = (0.0, ANY) if sensor in words.sensors else rules[sensor]
        ts_ns, quality = samples.ts_ns[a:b], samples.quality[a:b]
        times_of = axes.of(str(wanted.paths[sensor]), ts_ns)
        encoded.append(encode_chunk(ts_ns, plain, quality, eps, choice, times_of))
        axes.add(encoded[-1])
        dtypes.append(dtype)
    payloads, times, values, bounds = zip(*encoded, strict=True)
    return {
        "bound": np.array(bounds), "payload": pa.array(payloads, pa.binary()), "n_bytes": np.array([len(p) for p in payloads], np.uint32),
        "time_codec": pa.array(times).dictionary_encode(), "value_codec": pa.array(values).dictionary_encode(),
        "dtype": coded(np.array([DTYPES.index(d) for d in dtypes], np.int32), list(DTYPES)),
        "dictionary": pa.array(dictionaries, COLUMNS["dictionary"]), "times_back": np.array(axes.back, np.uint32),
    }  # fmt: skip


class _TimeAxes:
    """Which row has the same times as the next one: of its device, and not so far before it that they part.

    ``back``: how many rows before each row the one is that has its times; 0 for itself.
    """

    def __init__(self) -> None:
        self.back: list[int] = []
        self._device = ""
        self._rows: dict[int, tuple[int, I64, str]] = {}
        self._key, self._ts_ns = 0, np.empty(0, np.int64)
        self._size = self._first = 0

    def of(self, path: str, ts_ns: I64) -> str | None:
        """The time codec of a row that has these times, else None; `add` says what became of the row."""
        device = path.rpartition("/")[0]
        if (
            device != self._device
            or self._size > _DEVICE_BYTES_MAX
            or len(self.back) - self._first > _DEVICE_ROWS_MAX
        ):
            self._device, self._rows, self._size, self._first = device, {}, 0, len(self.back)
        self._key, self._ts_ns = xxhash.xxh3_64_intdigest(ts_ns.tobytes()), ts_ns
        row, same, name = self._rows.get(self._key, (0, ts_ns[:0], ""))
        is_known = np.array_equal(same, ts_ns)
        self.back.append(len(self.back) - row if is_known else 0)
        return name if is_known else None

    def add(self, chunk: Chunk) -> None:
        """The row that `of` was asked about is this one."""
        self._size += len(chunk.payload)
        self._rows.setdefault(self._key, (len(self.back) - 1, self._ts_ns, chunk.time_codec))


def _statistics(wanted: Wanted, samples: SensorSamples, chunks: _Chunks, words: Words) -> dict[str, Any]:
    """Header columns, by the code that aggregates samples; null for 64-bit integers and strings."""
    n = len(chunks.sensor)
    count = np.add.reduceat((samples.quality < USABLE_BELOW).astype(np.int64), chunks.start[:-1])
    out: dict[str, Array] = {name: np.zeros(n) for name in STATISTIC_COLUMNS if name != "raw_sum"}
    raw_sum = np.zeros(n, np.int64)
    sum_low = np.zeros(n)
    has, has_raw = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    layout_index = wanted.directory.layout_index[wanted.slot[chunks.sensor]]
    strings = np.isin(chunks.sensor, np.array(sorted(words.sensors), np.int64))
    for index in np.unique(layout_index).tolist():
        layout = wanted.directory.layouts[index]
        mine = np.flatnonzero((layout_index == index) & ~strings)
        is_float = layout.dtype[0] == "f"
        if not len(mine) or (layout.dtype[1:] == "64" and not is_float):
            continue
        column = wanted.column[chunks.sensor[mine]]
        grid = layout.grid.take(column)
        part = _part(samples, chunks, mine, numpy_dtype(layout.dtype))
        if is_float:
            values = part.values if grid.is_plain else grid.values_at(part.values, part.of_each())
            part = SensorSamples(part.sensor, part.start, part.ts_ns, values, part.quality)
        found = partials_of(part, 0)
        at = mine[found.sensor]
        if not is_float:
            found = in_units(found, grid.take(found.sensor), exact=True)
            raw_sum[at], has_raw[at] = found.raw_sum, True
        sum_low[at] = found.sum_low
        has[at] = True
        count[mine] = 0
        count[at] = found.count
        names = {"min": "low", "max": "high", "sum": "sum", "first": "first", "last": "last", "m2": "squares"}
        for name, field in names.items():
            out[name][at] = getattr(found, field)
    out["m2"] = rounded(out["m2"])
    columns: dict[str, Any] = {name: pa.array(v, mask=~has) for name, v in out.items()}
    columns["raw_sum"] = pa.array(raw_sum, mask=~has_raw)
    columns["sum_low"] = pa.array(sum_low, mask=sum_low == 0.0)
    return columns | {"count": count.astype(np.uint32)}


def _part(samples: SensorSamples, chunks: _Chunks, mine: I64, dtype: np.dtype[Any]) -> SensorSamples:
    """Some chunks, each as a sensor of its own, values as int64 or float64."""
    first, length = chunks.start[mine], chunks.start[mine + 1] - chunks.start[mine]
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(length)])
    at = np.repeat(first - start[:-1], length) + np.arange(start[-1])
    values = from_bits(samples.values[at], dtype)
    values = values.astype(np.float64 if dtype.kind == "f" else np.int64)
    return SensorSamples(np.arange(len(mine)), start, samples.ts_ns[at], values, samples.quality[at])


def _by_layout(wanted: Wanted, slots: Array, columns: Array, name: str) -> Array:
    out = np.empty(len(slots))
    index = wanted.directory.layout_index[slots]
    for one in np.unique(index).tolist():
        mine = index == one
        out[mine] = getattr(wanted.directory.layouts[one], name)[columns[mine]]
    return out


def _sensor_ids(wanted: Wanted, sensor: I64) -> npt.NDArray[np.uint64]:
    ids: dict[int, npt.NDArray[np.uint64]] = {}
    out = np.empty(len(sensor), np.uint64)
    for i, one in enumerate(sensor.tolist()):
        slot = int(wanted.slot[one])
        if slot not in ids:
            ids[slot] = wanted.directory.sensors(slot)
        out[i] = ids[slot][wanted.column[one]]
    return out


def _times(ts_ns: I64) -> pa.Array:
    return pa.array(ts_ns).cast(COLUMNS["t_min"])
