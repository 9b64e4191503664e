"""Warm rows: samples of single sensors as rows with full headers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.codecs.choice import ANY, CodecChoice
from headrace.codecs.origin import type_mark
from headrace.codecs.origin_coding import NO_KIND, packed
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.store.aggregates import in_units, partials_of, rounded
from headrace.store.runs import SensorSamples
from headrace.store.schema import (
    COLUMNS,
    FRAMES,
    coded,
    constant,
    schema_of,
)
from headrace.store.segment import STATISTIC_COLUMNS
from headrace.store.time_axes import TimeAxes
from headrace.store.wanted import Wanted, from_bits
from headrace.store.warm import CHUNK_SAMPLES, Chunk, Packed, encode_chunk
from headrace.store.words import Words

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

WARM = (
    "shard", "kind", "path", "group", "sensor", "column", "layout", "layout_json", "dtype", "t_min", "t_max",
    "n_frames", "n_samples", "count", "quality", "min", "max", "sum", "first", "last", "m2", "raw_sum", "scale",
    "offset", "time_codec", "times_back", "value_codec", "sibling", "sibling_2", "bound", "max_error", "rmse", "seq", "dictionary", "n_bytes",
    "payload",
)  # fmt: skip
WARM_SCHEMA = schema_of(WARM)
ERRORS = ("bound", "max_error", "rmse")
"""Header columns that say how far a row's values are from what was measured."""
_STRING_DTYPE = "u32"


@dataclass(frozen=True, slots=True, eq=False)
class _Chunks:
    """Where chunks start in the samples, and the sensor of each.

    ``flags``: classes of quality that each has. ``n_usable``: its samples that enter aggregates. ``is_marked``: not 0 where
    some of its samples have a quality other than 0.
    """

    start: I64
    sensor: I64
    flags: U8
    n_usable: I64
    is_marked: U8


@dataclass(frozen=True, slots=True, eq=False)
class ChunkRules:
    """How samples are cut and coded.

    Parameters
    ----------
    samples : of a row, at most. eps : float64[n_sensors], absolute bounds of the raw values; None is lossless.
    choices : what is said about the codecs of each sensor; None: nothing.
    """

    samples: int = CHUNK_SAMPLES
    eps: Array | None = None
    choices: Sequence[CodecChoice] | None = None

    def of_sensors(self, n: int) -> list[tuple[float, CodecChoice]]:
        """Bound and choice of each of n sensors."""
        eps = np.zeros(n) if self.eps is None else self.eps
        return list(zip(eps.tolist(), self.choices or [ANY] * n, strict=True))


_LOSSLESS = ChunkRules()


def encode_warm(
    wanted: Wanted,
    samples: SensorSamples,
    words: Words,
    seq: I64,
    rules: ChunkRules = _LOSSLESS,
    axes: TimeAxes | None = None,
) -> pa.Table:
    """Rows of sensors, by path and time.

    Parameters
    ----------
    wanted : the sensors, raw; samples : theirs, values as bits. seq : int64[n_sensors], newest journal number.
    axes : of the rows before, where these follow them.
    """
    chunks = _cut(samples, rules.samples)
    n, sensor = len(chunks.sensor), chunks.sensor
    directory = wanted.directory
    slots, columns = wanted.slot[sensor], wanted.column[sensor]
    first, last = chunks.start[:-1], chunks.start[1:]
    rows: dict[str, Any] = {
        "shard": directory.shard[slots], "kind": constant(FRAMES, n),
        "path": pa.array(wanted.paths[sensor].tolist(), pa.string()), "group": directory.group_id[slots],
        "sensor": sensor_ids(wanted, sensor), "column": columns.astype(np.int32),
        "t_min": _times(samples.ts_ns[first]), "t_max": _times(samples.ts_ns[last - 1]),
        "n_frames": (last - first).astype(np.uint32), "n_samples": (last - first).astype(np.uint32),
        "quality": chunks.flags,
        "seq": seq[sensor], "sibling": np.zeros(n, np.int32), "sibling_2": np.zeros(n, np.int32),
        "scale": by_layout(wanted, slots, columns, "scale"), "offset": by_layout(wanted, slots, columns, "offset"),
    }  # fmt: skip
    used, place = np.unique(directory.layout_index[slots], return_inverse=True)
    layouts = [directory.layouts[i] for i in used.tolist()]
    rows["layout"] = np.array([one.id for one in layouts], np.uint64)[place]
    rows["layout_json"] = coded(place.astype(np.int32), [one.to_json() for one in layouts])
    rows |= _payloads(wanted, samples, chunks, words, (rules.of_sensors(wanted.n), axes or TimeAxes()))
    rows |= _statistics(wanted, samples, chunks, words)
    return pa.Table.from_pydict({name: rows[name] for name in WARM}, schema=WARM_SCHEMA)


def _cut(samples: SensorSamples, most: int) -> _Chunks:
    """Chunks of nearly equal length, none above `most`."""
    from headrace.codecs.values import readonly
    from headrace.store.mark_kernels import look_at_marks

    length = np.diff(samples.start)
    parts = -(-length // most)
    sensor = np.repeat(samples.sensor, parts)
    first = np.repeat(samples.start[:-1], parts)
    number = np.arange(len(sensor)) - np.repeat(np.cumsum(parts) - parts, parts)
    start = first + np.repeat(length, parts) * number // np.repeat(parts, parts)
    bounds = np.append(start, len(samples)).astype(np.int64)
    flags, is_marked = np.empty(len(sensor), np.uint8), np.empty(len(sensor), np.uint8)
    n_usable = np.empty(len(sensor), np.int64)
    look_at_marks(readonly(samples.quality, np.uint8), bounds, flags, n_usable, is_marked)
    return _Chunks(bounds, sensor, flags, n_usable, is_marked)


def _payloads(
    wanted: Wanted,
    samples: SensorSamples,
    chunks: _Chunks,
    words: Words,
    settings: tuple[list[tuple[float, CodecChoice]], TimeAxes],
) -> dict[str, Any]:
    rules, axes = settings
    encoded: list[Chunk] = []
    dictionaries: list[list[str] | None] = []
    directory, lossless = wanted.directory, (0.0, ANY)
    bodies = _packed(wanted, samples, chunks, words)
    index = directory.layout_index[wanted.slot[chunks.sensor]]
    dtypes = [directory.layouts[i].dtype for i in index.tolist()]
    paths = wanted.paths[chunks.sensor].tolist()
    bounds, is_marked = itertools.pairwise(chunks.start.tolist()), chunks.is_marked.tolist()
    for i, (sensor, (a, b), one) in enumerate(zip(chunks.sensor.tolist(), bounds, bodies, strict=True)):
        bits, own_words = samples.values[a:b], None
        eps, choice = rules[sensor]
        if sensor in words.sensors:
            used, bits = np.unique(bits, return_inverse=True)
            dtypes[i], (eps, choice) = _STRING_DTYPE, lossless
            own_words = [words.list[j] for j in used.tolist()]
        dictionaries.append(own_words)
        plain = from_bits(bits.view(np.int64), numpy_dtype(dtypes[i]))
        ts_ns, quality = samples.ts_ns[a:b], samples.quality[a:b] if is_marked[i] else None
        times_of = axes.of(paths[i], ts_ns)
        encoded.append(encode_chunk(ts_ns, plain, quality, eps, choice, times_of, one))
        axes.add(encoded[-1])
    payloads, times, values, *errors = zip(*encoded, strict=True)
    scale = np.abs(by_layout(wanted, wanted.slot[chunks.sensor], wanted.column[chunks.sensor], "scale"))
    return {
        **{name: np.array(one) * scale for name, one in zip(ERRORS, errors, strict=True)}, "payload": pa.array(payloads, pa.binary()), "n_bytes": np.array([len(p) for p in payloads], np.uint32),
        "time_codec": pa.array(times).dictionary_encode(), "value_codec": pa.array(values).dictionary_encode(),
        "dtype": coded(np.array([DTYPES.index(d) for d in dtypes], np.int32), list(DTYPES)),
        "dictionary": pa.array(dictionaries, COLUMNS["dictionary"]), "times_back": np.array(axes.back[-len(encoded) :], np.uint32),
    }  # fmt: skip


def _packed(wanted: Wanted, samples: SensorSamples, chunks: _Chunks, words: Words) -> list[Packed | None]:
    """What one kernel codes of all chunks' values; None for those that it does not."""
    dtypes = [numpy_dtype(layout.dtype) for layout in wanted.directory.layouts]
    marks = np.array([type_mark(dtype) for dtype in dtypes], np.uint8)
    mark = marks[wanted.directory.layout_index[wanted.slot[chunks.sensor]]]
    mark[np.isin(chunks.sensor, np.array(sorted(words.sensors), np.int64))] = NO_KIND
    coded = packed(samples.values.view(np.uint64), chunks.start, mark)
    return [Packed(*one) if one[0] else None for one in zip(*coded, strict=True)]


def _statistics(wanted: Wanted, samples: SensorSamples, chunks: _Chunks, words: Words) -> dict[str, Any]:
    """Header columns, by the code that aggregates samples; null for 64-bit integers and strings."""
    n = len(chunks.sensor)
    count = chunks.n_usable.copy()
    out: dict[str, Array] = {name: np.zeros(n) for name in STATISTIC_COLUMNS if name != "raw_sum"}
    raw_sum = np.zeros(n, np.int64)
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
        if not is_float or (layout.dtype == "f64" and grid.is_plain):  # as they lie
            values = samples.values.view(np.float64 if is_float else np.int64)
            part = SensorSamples(np.arange(len(mine)), chunks.start, samples.ts_ns, values, samples.quality)
            found = partials_of(part, 0, spans=(chunks.start[mine], chunks.start[mine + 1]))
        else:
            part = _part(samples, chunks, mine, numpy_dtype(layout.dtype))
            values = part.values if grid.is_plain else grid.values_at(part.values, part.of_each())
            found = partials_of(replace(part, values=values), 0)
        at = mine[found.sensor]
        if not is_float:
            found = in_units(found, grid.take(found.sensor), exact=True)
            raw_sum[at], has_raw[at] = found.raw_sum, True
        has[at] = True
        count[mine] = 0
        count[at] = found.count
        names = {"min": "low", "max": "high", "sum": "sum", "first": "first", "last": "last", "m2": "squares"}
        for name, field in names.items():
            out[name][at] = getattr(found, field)
    out["m2"] = rounded(out["m2"])
    columns: dict[str, Any] = {name: pa.array(v, mask=~has) for name, v in out.items()}
    columns["raw_sum"] = pa.array(raw_sum, mask=~has_raw)
    return columns | {"count": count.astype(np.uint32)}


def _part(samples: SensorSamples, chunks: _Chunks, mine: I64, dtype: np.dtype[Any]) -> SensorSamples:
    """Some chunks, each as a sensor of its own, values as int64 or float64."""
    first, length = chunks.start[mine], chunks.start[mine + 1] - chunks.start[mine]
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(length)])
    at = np.repeat(first - start[:-1], length) + np.arange(start[-1])
    values = from_bits(samples.values[at], dtype)
    values = values.astype(np.float64 if dtype.kind == "f" else np.int64)
    return SensorSamples(np.arange(len(mine)), start, samples.ts_ns[at], values, samples.quality[at])


def by_layout(wanted: Wanted, slots: Array, columns: Array, name: str) -> Array:
    """What layouts say of columns, by an attribute that is an array of them."""
    out = np.empty(len(slots))
    index = wanted.directory.layout_index[slots]
    for one in np.unique(index).tolist():
        mine = index == one
        out[mine] = getattr(wanted.directory.layouts[one], name)[columns[mine]]
    return out


def sensor_ids(wanted: Wanted, sensor: I64) -> npt.NDArray[np.uint64]:
    """Ids of wanted sensors."""
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
