"""Rollups as derived series: what windows of 1 s, 1 min, 1 h and 1 day of a sensor hold, chunk-encoded like samples.

They are written with a day's warm partition, into files of their own that its manifest names (``rollups``), so that both
change in one step. A row is one sensor and one day. Its header is that of a warm row and is the day's window: count, min,
max, sum, first, last, m2 of all usable samples, by the code that aggregates samples; t_min and t_max are of all samples.
``time_codec`` names the resolutions that the payload has, in seconds with commas between, coarse ones first, ``value_codec``
is ``rollup``. The payload is the low half of XXH64 over what follows, as uint32, little endian, and for each resolution a
block, its length before it as a varint:

- varint: the number n of windows that have a usable sample;
- parts, each the code of a codec, a length (varint) and a body. In that order: times (the windows' numbers since midnight
  UTC, int64, by a time codec); counts (int64); min, max, first, last one behind the other (4 n values of the row's
  ``dtype``: raw values, but f64 in engineering units where floats or 64-bit values have a grid); sums (exact, int64, of
  raw integers up to 32 bits, else float64); what rounding left out of the sums (``sum_low``, float64, only where sums are
  float64); m2 (float64, rounded to 12 bits: standard deviations have four digits).

A codec's code is one byte: 0 ``const``, 1 ``origin``, 2 ``raw``, 3 ``rle``, 4 ``rice_delta {"piece": 1024}``, 5
``pco {"level": 6}``, 6 ``pco {"level": 8}``, 7 ``regular``, 8 ``delta_of_delta {"piece": 1024}``, the text being what the
columns of warm rows have; 255 stands before the length (varint) and the text of any other.

Every coarser resolution is computed from the finer, with exact sums, so it is what samples give, bit for bit; but for m2.
The day has a block of its own where the header can't hold it (64-bit integers).

**What is kept.** Of those that ``[store] resolutions`` names, a resolution of a sensor whose windows hold 8 samples or more
on average, and whose block takes no more than an eighth of what the day's chunks of the sensor take, and so the row itself;
of a day with fewer than 4,096 samples, which are decoded as fast, the day only. The day is in the header of every row.
Resolutions that a rule of the tiers asks for, and coarser ones, are kept wherever there are samples. Texts have no rollups,
nor sensors with fewer than 8 samples a day, nor days of values whose sum two floats can't hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from headrace.codecs.const import ConstCodec
from headrace.codecs.delta_of_delta import DeltaOfDeltaTime
from headrace.codecs.origin import OriginCodec, explains
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint
from headrace.codecs.pco import PcoCodec
from headrace.codecs.registry import time_codec, value_codec
from headrace.codecs.regular import RegularTime
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.select import ChosenValues, smallest, smallest_times
from headrace.core.clock import NS
from headrace.core.errors import ConfigError, CorruptionError
from headrace.core.grids import Grid
from headrace.core.layouts import DTYPES, Layout, numpy_dtype
from headrace.store.aggregates import Partials, in_units, join, partials_of, rounded
from headrace.store.grouping import DAY_NS
from headrace.store.runs import SensorSamples
from headrace.store.schema import COLUMNS, FRAMES, ROLLUP, coded, constant, schema_of
from headrace.store.segment import RowHeaders
from headrace.store.wanted import LANE_DTYPES, Lane, Wanted, from_bits, lane_of
from headrace.store.warm import codec_spec, codec_text
from headrace.store.words import Words

Array = npt.NDArray[Any]
Spans = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""From which sample on, and before which, each sensor's lie."""
I64 = npt.NDArray[np.int64]

RESOLUTIONS_NS = (NS, 60 * NS, 3_600 * NS, DAY_NS)
SAMPLES_MIN = 8
SHARE = 0.125
BLOCK_SAMPLES_MIN = 4_096
"""Fewer samples of a day are decoded in less time than a block of windows."""
M2_BITS = 12
CODECS = (
    "const", "origin", "raw", "rle", 'rice_delta {"piece": 1024}', 'pco {"level": 6}', 'pco {"level": 8}', "regular",
    'delta_of_delta {"piece": 1024}',
)  # fmt: skip
"""Codecs as the columns of warm rows name them, by their place: what is here stays where it is."""
_OTHER = 255
_PCO_FROM = 256
_ROW_BYTES = 72
"""About what a row's header takes."""
_LEAST_BYTES, _LEAST_BYTES_A_WINDOW = 40, 7
"""No block of values that change is smaller: what has less room is not tried."""
_SUM = struct.Struct("<I")
ROLLED = (
    "shard", "kind", "path", "group", "sensor", "column", "layout", "layout_json", "dtype", "t_min", "t_max", "n_frames", "n_samples",
    "count", "min", "max", "sum", "sum_low", "first", "last", "m2", "raw_sum", "scale", "offset", "time_codec",
    "value_codec", "seq", "n_bytes", "payload",
)  # fmt: skip
ROLLED_SCHEMA = schema_of(ROLLED)


# --- one block -------------------------------------------------------------------------------------------


def encode_windows(
    windows: Partials, day: int, every_ns: int, dtype: np.dtype[Any], most: float = np.inf
) -> bytes | None:
    """One sensor's windows of a day, by time, in the units of their lane; None where they take more than `most` bytes.

    Cost: 0.2 ms for 24 windows, 1 to 3 ms for 1,440.
    """
    number = (windows.window_ns - day * DAY_NS) // every_ns
    times = smallest_times(number, [RegularTime(), DeltaOfDeltaTime()])
    ends = np.concatenate([windows.low, windows.high, windows.first, windows.last])
    columns: list[Array] = [windows.count, ends.astype(dtype)]
    columns += [windows.raw_sum] if _is_raw(dtype) else [windows.sum, windows.sum_low]
    parts = [put_varint(len(windows)), _part(codec_text(times.codec), times.body)]
    for values in (*columns, rounded(windows.squares, M2_BITS)):
        chosen = _smallest(values)
        parts.append(_part(codec_text(chosen.codec), chosen.body))
        if sum(map(len, parts)) > most:
            return None
    return b"".join(parts)


def _smallest(values: Array) -> ChosenValues:
    """As `headrace.store.warm.choose_values`, with fewer trials: a block is short."""
    chosen = smallest(values, [ConstCodec()])
    if isinstance(chosen.codec, ConstCodec):
        return chosen
    is_float = values.dtype.kind == "f"
    chosen = smallest(values, [OriginCodec() if is_float else RiceDeltaCodec()], chosen)
    if len(values) < _PCO_FROM or (isinstance(chosen.codec, OriginCodec) and explains(chosen.body)):
        return chosen
    return smallest(values, [PcoCodec()], chosen)


def decode_windows(block: bytes, day: int, every_ns: int, dtype: np.dtype[Any]) -> Partials:
    """The inverse: sensor 0, times of first and last sample as wide as the window.

    Raises
    ------
    CorruptionError : it is no such block.
    """
    try:
        n, at = get_varint(block, 0)
        if not 0 < n <= DAY_NS // every_ns:
            raise ValueError(f"a day has no {n:,} windows")
        name, body, at = _next(block, at)
        number = time_codec(codec_spec(name)).unpack(body, n)
        raw = _is_raw(dtype)
        types = [np.dtype(np.int64), dtype, np.dtype(np.int64 if raw else np.float64)]
        types += [np.dtype(np.float64)] * (1 if raw else 2)
        columns = []
        for i, one in enumerate(types):
            name, body, at = _next(block, at)
            columns.append(value_codec(codec_spec(name)).unpack(body, 4 * n if i == 1 else n, one))
        if (
            at != len(block)
            or (np.diff(number) <= 0).any()
            or number[0] < 0
            or number[-1] >= DAY_NS // every_ns
        ):
            raise ValueError("its windows are not those of a day")
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"a rollup of {len(block):,} bytes can't be read: {e}") from e
    count, ends, total, *rest = columns
    lane = np.float64 if dtype.kind == "f" else (np.uint64 if dtype == np.uint64 else np.int64)
    low, high, first, last = ends.astype(lane).reshape(4, n)
    start = day * DAY_NS + number * every_ns
    zero = np.zeros(n, np.int64)
    return Partials(
        zero, start, start, start + every_ns - 1, count, low, high, first, last, total.astype(np.float64),
        total if raw else zero, total / np.maximum(count, 1), rest[-1], np.full(n, np.nan),
        np.zeros(n) if raw else rest[0],
    )  # fmt: skip


def _is_raw(dtype: np.dtype[Any]) -> bool:
    """Whether values are integers whose sums are exact integers."""
    return dtype.kind != "f" and dtype.itemsize < 8


def _part(name: str, body: bytes) -> bytes:
    known = name in CODECS
    return (bytes([CODECS.index(name)]) if known else bytes([_OTHER]) + put_sized(name.encode())) + put_sized(
        body
    )


def _next(block: bytes, at: int) -> tuple[str, bytes, int]:
    """A codec's name, a body, and where it ends. Raises ValueError."""
    if at >= len(block):
        raise ValueError("it ends early")
    code = block[at]
    if code == _OTHER:
        text, at = get_sized(block, at + 1)
        name = text.decode()
    elif code < len(CODECS):
        name, at = CODECS[code], at + 1
    else:
        raise ValueError(f"there is no codec {code}")
    body, at = get_sized(block, at)
    return name, body, at


# --- one payload -----------------------------------------------------------------------------------------


def pack_blocks(blocks: Sequence[bytes]) -> bytes:
    """Blocks behind their checksum."""
    rest = b"".join(put_sized(block) for block in blocks)
    return _SUM.pack(xxhash.xxh64_intdigest(rest) & 0xFFFFFFFF) + rest


def unpack_blocks(payload: bytes, names: str) -> dict[int, bytes]:
    """The inverse: each resolution's block, by its length in ns; `names` as ``time_codec`` has them.

    Raises
    ------
    CorruptionError : it is no such payload.
    """
    rest = payload[_SUM.size :]
    if len(payload) < _SUM.size or _SUM.unpack_from(payload)[0] != xxhash.xxh64_intdigest(rest) & 0xFFFFFFFF:
        raise CorruptionError(f"a rollup of {len(payload):,} bytes can't be read: its checksum is wrong")
    out, at = {}, 0
    for every_ns in resolutions_of(names):
        out[every_ns], at = get_sized(rest, at)
    return out


def resolutions_of(names: str) -> tuple[int, ...]:
    """Resolutions in ns, coarse ones first, of what ``time_codec`` says. Raises `CorruptionError`."""
    found = [int(name) * NS if name.isdigit() else 0 for name in names.split(",") if name]
    if not set(found) <= set(RESOLUTIONS_NS):
        raise CorruptionError(f"there are no rollups of {names!r}; a newer release wrote them")
    return tuple(sorted(found, reverse=True))


def rollup_problem(rows: RowHeaders, row: int, payload: bytes) -> str:
    """What is wrong with a row, "" for nothing: its blocks have to agree with each other and with its header.

    Raises
    ------
    CorruptionError : a block can't be read.
    """
    dtype = numpy_dtype(DTYPES[int(rows.dtype[row])])
    day, count = int(rows.t_min[row]) // DAY_NS, int(rows.count[row])
    for every_ns, block in unpack_blocks(payload, rows.codecs[int(rows.codec[row])][0]).items():
        found = decode_windows(block, day, every_ns, dtype)
        if int(found.count.sum()) != count:
            return f"its windows of {every_ns // NS} s have {int(found.count.sum()):,} samples, its header {count:,}"
    return ""


# --- a day's rows ----------------------------------------------------------------------------------------


def encode_rollups(
    wanted: Wanted,
    samples: SensorSamples,
    words: Words,
    seq: I64,
    warm: pa.Table,
    asked: I64 | None = None,
    resolutions_ns: Sequence[int] = RESOLUTIONS_NS,
) -> pa.Table | None:
    """Rollups of a day's samples, a row for each sensor that has any, by path; None where none has.

    Parameters
    ----------
    wanted, samples, words, seq : as `headrace.store.warm_rows.encode_warm` takes them, of one UTC day. warm : what it
    made of them. asked : a resolution in ns of each sensor that is kept whether it pays or not, and all coarser ones
    with it; 0 for none. Rules of the tiers may ask for some. resolutions_ns : the others that may be kept, short ones first.
    """
    asked = np.zeros(wanted.n, np.int64) if asked is None else asked
    room = {key: SHARE * n_bytes for key, n_bytes in _weights(warm).items()}
    strings = np.isin(samples.sensor, np.array(sorted(words.sensors), np.int64))
    length = np.diff(samples.start)
    layout_index = wanted.directory.layout_index[wanted.slot[samples.sensor]]
    closest = _closest(samples)
    found: list[_Rolled] = []
    for index in np.unique(layout_index).tolist():
        layout = wanted.directory.layouts[index]
        enough = (length >= SAMPLES_MIN) | (asked[samples.sensor] > 0)
        mine = np.flatnonzero((layout_index == index) & ~strings & enough)
        for lane in Lane:
            of_lane = [lane_of(layout, int(c)) is lane for c in wanted.column[samples.sensor[mine]]]
            chosen = mine[np.array(of_lane, np.bool_)]
            if len(chosen):
                found += _roll(
                    wanted, samples, chosen, (layout, lane), (room, asked, resolutions_ns, closest[chosen])
                )
    if not found:
        return None
    return _rows(wanted, sorted(found, key=lambda one: one.sensor), seq)


@dataclass(frozen=True, slots=True, eq=False)
class _Rolled:
    """One sensor's day: its window in engineering units, and its blocks."""

    sensor: int
    span: tuple[int, int]
    n_samples: int
    dtype: str
    day: Partials
    has_header: bool
    blocks: dict[int, bytes]


def _weights(warm: pa.Table) -> dict[tuple[int, int, int], int]:
    """Bytes that chunks take, by (group, layout, column)."""
    columns = [
        np.asarray(warm[name].to_numpy()).tolist() for name in ("group", "layout", "column", "n_bytes")
    ]
    out: dict[tuple[int, int, int], int] = {}
    for group, layout, column, n_bytes in zip(*columns, strict=True):
        out[group, layout, column] = out.get((group, layout, column), 0) + n_bytes
    return out


def _roll(
    wanted: Wanted,
    samples: SensorSamples,
    chosen: I64,
    of: tuple[Layout, Lane],
    rules: tuple[dict[Any, float], I64, Sequence[int], I64],
) -> list[_Rolled]:
    """Sensors (places in `samples`) of one layout and lane; `rules`: bytes that blocks may take, `asked`, `resolutions_ns`, `_closest`."""
    (layout, lane), (room, _, may_be_kept, closest) = of, rules
    sensors = samples.sensor[chosen]
    grid = layout.grid.take(wanted.column[sensors])
    dtype = numpy_dtype(layout.dtype)
    part, spans = _part_of(samples, chosen, dtype, (grid, lane))
    finest = _finest(part.ts_ns, spans, closest, may_be_kept)
    if lane is Lane.FLOAT and not (grid.is_plain and dtype.kind == "f"):
        dtype = np.dtype(np.float64)
    has_header = lane in (Lane.FLOAT, Lane.RAW)
    group = wanted.directory.group_id[wanted.slot[sensors]].tolist()
    span = samples.ts_ns[samples.start[chosen]], samples.ts_ns[samples.start[chosen + 1] - 1]
    number = int(span[0][0]) // DAY_NS
    out = []
    asked = rules[1][sensors]
    for tables, sensors_in in _windows(part, spans, finest, asked):
        days = tables[DAY_NS]
        in_header = in_units(days, grid.take(days.sensor), exact=True) if lane is Lane.RAW else days
        bounds = {every_ns: _bounds(one, sensors_in) for every_ns, one in tables.items()}
        for k, i in enumerate(sensors_in.tolist()):
            most = room[group[i], layout.id, int(wanted.column[sensors[i]])]
            if most < _ROW_BYTES and not asked[i]:
                continue
            blocks: dict[int, bytes] = {}
            for every_ns, windows in tables.items():
                a, b = bounds[every_ns][k]
                is_needed = not has_header if every_ns == DAY_NS else 0 < asked[i] <= every_ns
                least = _LEAST_BYTES + _LEAST_BYTES_A_WINDOW * (b - a)
                pays = every_ns < DAY_NS and every_ns in may_be_kept and least <= most
                if is_needed or pays:
                    mine, limit = windows.take(slice(a, b)), np.inf if is_needed else most
                    block = encode_windows(mine, number, every_ns, dtype, limit)
                    blocks |= {} if block is None else {every_ns: block}
            day = in_header.take(slice(*bounds[DAY_NS][k]))
            name, n = f"{dtype.kind}{8 * dtype.itemsize}", int(spans[1][i] - spans[0][i])
            out.append(
                _Rolled(int(sensors[i]), (int(span[0][i]), int(span[1][i])), n, name, day, has_header, blocks)
            )
    return out


def _windows(
    part: SensorSamples, spans: Spans, finest: I64, asked: I64
) -> Iterator[tuple[dict[int, Partials], I64]]:
    """Windows of sensors at every resolution that is full enough, coarser ones from finer ones; and which sensors these are.

    Sensors whose sums two floats can't hold, or that have no usable sample, are none of them.
    """
    finest = np.where((asked > 0) & ((finest == 0) | (asked < finest)), asked, finest)
    for first_ns in np.unique(finest[finest > 0]).tolist():
        mine = np.flatnonzero(finest == first_ns)
        of_mine = spans[0][mine], spans[1][mine]
        windows = partials_of(replace(part, sensor=mine), first_ns, spans=of_mine)
        lost = windows.sensor[np.isnan(windows.sum_low)]
        tables = {first_ns: windows}
        for every_ns in RESOLUTIONS_NS[RESOLUTIONS_NS.index(first_ns) + 1 :]:
            windows = join(replace(windows, window_ns=windows.window_ns // every_ns * every_ns))
            tables[every_ns] = windows
        lost = np.union1d(lost, windows.sensor[np.isnan(windows.sum_low)])
        yield tables, np.setdiff1d(windows.sensor, lost)


def _bounds(windows: Partials, sensors: I64) -> list[tuple[int, int]]:
    """Where each sensor's windows begin and end."""
    found = np.searchsorted(windows.sensor, [sensors, sensors + 1])
    return list(zip(*found.tolist(), strict=True))


def _closest(samples: SensorSamples) -> I64:
    """The shortest time between two samples of each sensor; a day where there is one only."""
    apart = np.empty(len(samples), np.int64)
    np.subtract(samples.ts_ns[1:], samples.ts_ns[:-1], out=apart[:-1])
    apart[samples.start[1:] - 1] = DAY_NS
    return np.minimum.reduceat(apart, samples.start[:-1])


def _finest(ts_ns: I64, spans: Spans, closest: I64, resolutions_ns: Sequence[int]) -> I64:
    """The finest of the resolutions of each sensor whose windows hold enough samples on average; 0 for none."""
    length = spans[1] - spans[0]
    out = np.zeros(len(length), np.int64)
    for every_ns in resolutions_ns:
        # So far apart, no window can hold enough.
        may = (out == 0) & (closest * (SAMPLES_MIN - 1) < every_ns)
        may &= (length >= BLOCK_SAMPLES_MIN) | (every_ns == DAY_NS)
        for i in np.flatnonzero(may).tolist():
            number = ts_ns[spans[0][i] : spans[1][i]] // every_ns
            n = 1 + int(np.count_nonzero(number[1:] != number[:-1]))
            out[i] = every_ns if length[i] >= SAMPLES_MIN * n else 0
    return out


def _part_of(
    samples: SensorSamples, chosen: I64, dtype: np.dtype[Any], of: tuple[Grid, Lane]
) -> tuple[SensorSamples, Spans]:
    """Some sensors' samples as their lane has them, where they lie if their bits are that; sensors are numbered anew."""
    grid, lane = of
    first, last = samples.start[chosen], samples.start[chosen + 1]
    is_plain = lane is not Lane.FLOAT or (dtype == np.float64 and grid.is_plain)
    if is_plain:
        values = samples.values.view(LANE_DTYPES[lane])
        part = SensorSamples(np.arange(len(chosen)), samples.start, samples.ts_ns, values, samples.quality)
        return part, (first, last)
    length = last - first
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(length)])
    at = np.repeat(first - start[:-1], length) + np.arange(start[-1])
    values = from_bits(samples.values[at], dtype)
    part = SensorSamples(np.arange(len(chosen)), start, samples.ts_ns[at], values, samples.quality[at])
    if not grid.is_plain:
        values = grid.values_at(values, part.of_each())
    return replace(part, values=values.astype(LANE_DTYPES[lane], copy=False)), (start[:-1], start[1:])


def _rows(wanted: Wanted, found: list[_Rolled], seq: I64) -> pa.Table:
    sensor = np.array([one.sensor for one in found], np.int64)
    directory, n = wanted.directory, len(found)
    slots, columns = wanted.slot[sensor], wanted.column[sensor].astype(np.int32)
    layouts = [directory.layout(int(slot)) for slot in slots]
    texts = [one.to_json() for one in layouts]
    words = sorted(set(texts))
    days = Partials.concat([one.day.as_type(np.dtype(np.float64)) for one in found])
    headless = ~np.array([one.has_header for one in found])
    raw = np.array([_is_raw(numpy_dtype(one.dtype)) for one in found])
    payloads = [pack_blocks([one.blocks[r] for r in sorted(one.blocks, reverse=True)]) for one in found]
    names = [",".join(str(r // NS) for r in sorted(one.blocks, reverse=True)) for one in found]
    dtypes = sorted({one.dtype for one in found})
    rows: dict[str, Any] = {
        "shard": directory.shard[slots], "kind": constant(FRAMES, n),
        "path": pa.array(wanted.paths[sensor].tolist(), pa.string()), "group": directory.group_id[slots],
        "sensor": np.array([directory.sensors(int(s))[c] for s, c in zip(slots, columns, strict=True)], np.uint64),
        "column": columns, "layout": np.array([one.id for one in layouts], np.uint64),
        "layout_json": coded(np.array([words.index(text) for text in texts], np.int32), words),
        "dtype": coded(np.array([dtypes.index(one.dtype) for one in found], np.int32), dtypes),
        "t_min": _times([one.span[0] for one in found]), "t_max": _times([one.span[1] for one in found]),
        "n_frames": np.ones(n, np.uint32), "n_samples": np.array([one.n_samples for one in found], np.uint32),
        "count": days.count.astype(np.uint32), "seq": seq[sensor],
        "scale": np.array([one.columns[c].scale for one, c in zip(layouts, columns, strict=True)]),
        "offset": np.array([one.columns[c].offset for one, c in zip(layouts, columns, strict=True)]),
        "time_codec": pa.array(names, pa.string()).dictionary_encode(), "value_codec": constant(ROLLUP, n),
        "n_bytes": np.array([len(p) for p in payloads], np.uint32), "payload": pa.array(payloads, pa.binary()),
        "raw_sum": pa.array(days.raw_sum, mask=~raw), "sum_low": pa.array(days.sum_low, mask=headless | (days.sum_low == 0.0)),
        "m2": pa.array(rounded(days.squares), mask=headless),
    }  # fmt: skip
    for name, field in (
        ("min", "low"),
        ("max", "high"),
        ("sum", "sum"),
        ("first", "first"),
        ("last", "last"),
    ):
        rows[name] = pa.array(getattr(days, field), mask=headless)
    return pa.Table.from_pydict({name: rows[name] for name in ROLLED}, schema=ROLLED_SCHEMA)


def _times(ts_ns: list[int]) -> pa.Array:
    return pa.array(np.array(ts_ns, np.int64)).cast(COLUMNS["t_min"])
