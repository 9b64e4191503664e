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

from headrace.codecs.packing import get_sized, put_sized
from headrace.core.clock import NS
from headrace.core.errors import CorruptionError
from headrace.core.grids import Grid
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.store.aggregates import Partials, coarser, in_units, partials_of, rounded
from headrace.store.grouping import DAY_NS
from headrace.store.runs import SensorSamples
from headrace.store.schema import COLUMNS, FRAMES, ROLLUP, coded, constant, schema_of
from headrace.store.segment import RowHeaders
from headrace.store.wanted import LANE_DTYPES, Lane, Wanted, from_bits, lane_of
from headrace.store.warm_rows import by_layout, sensor_ids
from headrace.store.window_blocks import Table, decode_windows, encode_blocks
from headrace.store.words import Words

Array = npt.NDArray[Any]
Spans = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""From which sample on, and before which, each sensor's lie."""
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

RESOLUTIONS_NS = (NS, 60 * NS, 3_600 * NS, DAY_NS)
SAMPLES_MIN = 8
SHARE = 0.125
BLOCK_SAMPLES_MIN = 4_096
"""Fewer samples of a day are decoded in less time than a block of windows."""
_F64 = DTYPES.index("f64")
HEADED = (Lane.FLOAT, Lane.RAW)
"""Lanes whose windows a header can hold."""
_ROW_BYTES = 72
"""About what a row's header takes."""
_WINDOWS = 1 << 16
"""About how many are encoded at once."""
_LEAST_BYTES, _LEAST_BYTES_A_WINDOW = 40, 7
"""No block of values that change is smaller: what has less room is not tried."""
_SUM = struct.Struct("<I")
ROLLED = (
    "shard", "kind", "path", "group", "sensor", "column", "layout", "layout_json", "dtype", "t_min", "t_max", "n_frames", "n_samples",
    "count", "min", "max", "sum", "sum_low", "first", "last", "m2", "raw_sum", "scale", "offset", "time_codec",
    "value_codec", "seq", "n_bytes", "payload",
)  # fmt: skip
ROLLED_SCHEMA = schema_of(ROLLED)


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
    rules = _Rules(_weights(warm), asked, resolutions_ns)
    strings = np.isin(samples.sensor, np.array(sorted(words.sensors), np.int64))
    enough = (np.diff(samples.start) >= SAMPLES_MIN) | (asked[samples.sensor] > 0)
    chosen = np.flatnonzero(enough & ~strings)
    sensors = samples.sensor[chosen]
    chosen = chosen[(rules.room(wanted, sensors) >= _ROW_BYTES) | (asked[sensors] > 0)]
    lanes, blocks = _lanes(wanted, samples.sensor[chosen]), _Blocks()
    found: list[_Rolled] = []
    for lane in Lane:
        if (lanes == lane).any():
            found += _roll(wanted, samples, chosen[lanes == lane], lane, rules, blocks)
    blocks.encode()
    return _rows(wanted, found, seq) if any(len(one.sensor) for one in found) else None


@dataclass(frozen=True, slots=True, eq=False)
class _Rules:
    """What is kept: bytes of the chunks of each (group, layout, column), and what `encode_rollups` was told."""

    n_bytes: dict[tuple[int, int, int], int]
    asked: I64
    resolutions_ns: Sequence[int]

    def room(self, wanted: Wanted, sensors: I64) -> F64:
        """Bytes that a block of each sensor may take."""
        slots = wanted.slot[sensors]
        layout = np.array([one.id for one in wanted.directory.layouts], np.uint64)
        keys = (
            wanted.directory.group_id[slots],
            layout[wanted.directory.layout_index[slots]],
            wanted.column[sensors],
        )
        each = zip(*(one.tolist() for one in keys), strict=True)
        return SHARE * np.array([self.n_bytes[key] for key in each], np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Sensors of one lane, by number: their samples in its type, where each one's lie, their grids, and their rows' types."""

    samples: SensorSamples
    spans: Spans
    grid: Grid
    dtype: I64
    """Places in `DTYPES`."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rolled:
    """Sensors' days: times of the first and last sample, windows in engineering units, and blocks of each."""

    sensor: I64
    span_ns: Spans
    n_samples: I64
    dtype: I64
    day: Partials
    lane: Lane
    blocks: list[dict[int, bytes]]


def _weights(warm: pa.Table) -> dict[tuple[int, int, int], int]:
    """Bytes that chunks take, by (group, layout, column)."""
    columns = [
        np.asarray(warm[name].to_numpy()).tolist() for name in ("group", "layout", "column", "n_bytes")
    ]
    out: dict[tuple[int, int, int], int] = {}
    for group, layout, column, n_bytes in zip(*columns, strict=True):
        out[group, layout, column] = out.get((group, layout, column), 0) + n_bytes
    return out


def _lanes(wanted: Wanted, sensors: I64) -> I64:
    """The lane of each sensor's samples."""
    index, out = wanted.directory.layout_index[wanted.slot[sensors]], np.empty(len(sensors), np.int64)
    for one in np.unique(index).tolist():
        mine, layout = index == one, wanted.directory.layouts[one]
        column = wanted.column[sensors[mine]]
        used = {c: lane_of(layout, c) for c in np.unique(column).tolist()}
        out[mine] = [used[c] for c in column.tolist()]
    return out


def _roll(
    wanted: Wanted, samples: SensorSamples, chosen: I64, lane: Lane, rules: _Rules, blocks: _Blocks
) -> Iterator[_Rolled]:
    """Sensors (places in `samples`) of one lane; their `blocks` are encoded later."""
    part = _part_of(wanted, samples, chosen, lane)
    sensors, (first, last) = samples.sensor[chosen], part.spans
    asked, room = rules.asked[sensors], rules.room(wanted, sensors)
    finest = _finest(part.samples.ts_ns, part.spans, rules.resolutions_ns)
    finest = np.where((asked > 0) & ((finest == 0) | (asked < finest)), asked, finest)
    for tables, mine in _windows(part, finest):
        days = tables[DAY_NS].take(np.searchsorted(tables[DAY_NS].sensor, mine))
        if lane is Lane.RAW:
            days = in_units(days, part.grid.take(mine), exact=True)
        ts_ns = part.samples.ts_ns
        rolled = _Rolled(
            sensors[mine], (ts_ns[first[mine]], ts_ns[last[mine] - 1]), (last - first)[mine], part.dtype[mine], days, lane,
            [{} for _ in mine],
        )  # fmt: skip
        for every_ns, windows in tables.items():
            if every_ns == DAY_NS:
                most = np.full(len(mine), -np.inf if lane in HEADED else np.inf)
            else:
                is_asked = (asked[mine] > 0) & (asked[mine] <= every_ns)
                most = np.where(is_asked, np.inf, room[mine] if every_ns in rules.resolutions_ns else -np.inf)
            blocks.add(rolled, windows, mine, every_ns, most)
        yield rolled


class _Blocks:
    """Blocks of windows still to be encoded: of many sensors and resolutions at once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Table, _Rolled, I64, F64]] = []
        self._n_windows = 0

    def add(self, rolled: _Rolled, windows: Partials, mine: I64, every_ns: int, most: F64) -> None:
        """Those of sensors whose may take no more than so many bytes; some sensors at a time, by their rows' type."""
        first, last = np.searchsorted(windows.sensor, [mine, mine + 1])
        may = most >= _LEAST_BYTES + _LEAST_BYTES_A_WINDOW * (last - first)
        for dtype in np.unique(rolled.dtype[may]).tolist():
            which = np.flatnonzero(may & (rolled.dtype == dtype))
            day = int(rolled.span_ns[0][0]) // DAY_NS
            batch = np.cumsum((last - first)[which]) // _WINDOWS
            for some in np.split(which, np.flatnonzero(np.diff(batch)) + 1):
                table = Table(windows, (first[some], last[some]), every_ns, day, numpy_dtype(DTYPES[dtype]))
                self._waiting.append((table, rolled, some, most[some]))
                self._n_windows += int((last - first)[some].sum())
                if self._n_windows >= _WINDOWS:
                    self.encode()

    def encode(self) -> None:
        """Give each sensor its blocks, where they take no more than they may."""
        waiting, self._waiting, self._n_windows = self._waiting, [], 0
        found = iter(encode_blocks(*(one[0] for one in waiting)) if waiting else ())
        for table, rolled, sensors, most in waiting:
            for i, limit in zip(sensors.tolist(), most.tolist(), strict=True):
                block = next(found)
                if len(block) <= limit:
                    rolled.blocks[i][table.every_ns] = block


def _windows(part: _Part, finest: I64) -> Iterator[tuple[dict[int, Partials], I64]]:
    """Windows of sensors at every resolution that is full enough, coarser ones from finer ones; and which sensors these are.

    Sensors whose sums two floats can't hold, or that have no usable sample, are none of them.
    """
    for first_ns in np.unique(finest[finest > 0]).tolist():
        mine = np.flatnonzero(finest == first_ns)
        of_mine = part.spans[0][mine], part.spans[1][mine]
        windows = partials_of(replace(part.samples, sensor=mine), first_ns, spans=of_mine)
        lost = windows.sensor[np.isnan(windows.sum_low)]
        tables = {first_ns: windows}
        for every_ns in RESOLUTIONS_NS[RESOLUTIONS_NS.index(first_ns) + 1 :]:
            windows = coarser(windows, every_ns)
            tables[every_ns] = windows
        lost = np.union1d(lost, windows.sensor[np.isnan(windows.sum_low)])
        yield tables, np.setdiff1d(windows.sensor, lost)


def _finest(ts_ns: I64, spans: Spans, resolutions_ns: Sequence[int]) -> I64:
    """The finest of the resolutions of each sensor whose windows hold enough samples on average; 0 for none."""
    from headrace.store.aggregate_kernels import finest_windows

    out = np.zeros(len(spans[0]), np.int64)
    is_long = spans[1] - spans[0] >= BLOCK_SAMPLES_MIN
    for every_ns in resolutions_ns:
        may = (out == 0) & (is_long | (every_ns == DAY_NS))
        finest_windows(ts_ns, spans, may, every_ns, SAMPLES_MIN, out)
    return out


def _part_of(wanted: Wanted, samples: SensorSamples, chosen: I64, lane: Lane) -> _Part:
    """Some sensors' samples as their lane has them: where they lie, if their bits are that."""
    sensors, spans = samples.sensor[chosen], (samples.start[chosen], samples.start[chosen + 1])
    index = wanted.directory.layout_index[wanted.slot[sensors]]
    terms, dtypes, has_grid = (
        np.empty((3, len(sensors))),
        np.empty(len(sensors), np.int64),
        np.zeros(len(sensors), np.bool_),
    )
    of_rows = np.empty(len(sensors), np.int64)
    for one in np.unique(index).tolist():
        mine, layout = np.flatnonzero(index == one), wanted.directory.layouts[one]
        grid = layout.grid.take(wanted.column[sensors[mine]])
        terms[:, mine], has_grid[mine] = grid.terms, not grid.is_plain
        is_float = lane is Lane.FLOAT and not (grid.is_plain and layout.dtype[0] == "f")
        dtypes[mine] = DTYPES.index(layout.dtype)
        of_rows[mine] = _F64 if is_float else dtypes[mine]
    if lane is Lane.FLOAT and (has_grid.any() or (dtypes != _F64).any()):
        values = _floats(samples, spans, dtypes, terms, has_grid)
    else:
        values = samples.values.view(LANE_DTYPES[lane])
    part = SensorSamples(np.arange(len(chosen)), samples.start, samples.ts_ns, values, samples.quality)
    return _Part(part, spans, Grid(terms), of_rows)


def _floats(
    samples: SensorSamples, spans: Spans, dtypes: I64, terms: F64, has_grid: npt.NDArray[np.bool_]
) -> F64:
    """Values of some sensors in engineering units, where their samples lie; of the others nothing."""
    out = np.empty(len(samples))
    each = zip(spans[0].tolist(), spans[1].tolist(), dtypes.tolist(), has_grid.tolist(), strict=True)
    for i, (a, b, dtype, has) in enumerate(each):
        values = from_bits(samples.values[a:b], numpy_dtype(DTYPES[dtype]))
        out[a:b] = Grid(terms[:, i : i + 1]).values(values) if has else values
    return out


def _rows(wanted: Wanted, found: list[_Rolled], seq: I64) -> pa.Table:
    """Rows by path."""
    sensor = np.concatenate([one.sensor for one in found])
    order = np.argsort(sensor)
    sensor, directory, n = sensor[order], wanted.directory, len(order)

    def of_each(values: list[Any]) -> Array:
        """What the sensors of each that was found have in common."""
        return np.repeat(np.array(values), [len(one.sensor) for one in found])[order]

    def in_order(values: list[Any]) -> Array:
        return np.concatenate(values)[order]

    slots, columns = wanted.slot[sensor], wanted.column[sensor]
    used, place = np.unique(directory.layout_index[slots], return_inverse=True)
    layouts = [directory.layouts[i] for i in used.tolist()]
    days = Partials.concat([one.day.as_type(np.dtype(np.float64)) for one in found]).take(order)
    headless = of_each([one.lane not in HEADED for one in found])
    of_rows = [kept for one in found for kept in one.blocks]
    blocks = [sorted(of_rows[i].items(), reverse=True) for i in order.tolist()]
    payloads = [pack_blocks([block for _, block in one]) for one in blocks]
    names = [",".join(str(every_ns // NS) for every_ns, _ in one) for one in blocks]
    rows: dict[str, Any] = {
        "shard": directory.shard[slots], "kind": constant(FRAMES, n),
        "path": pa.array(wanted.paths[sensor].tolist(), pa.string()), "group": directory.group_id[slots],
        "sensor": sensor_ids(wanted, sensor), "column": columns.astype(np.int32),
        "layout": np.array([one.id for one in layouts], np.uint64)[place],
        "layout_json": coded(place.astype(np.int32), [one.to_json() for one in layouts]),
        "dtype": coded(in_order([one.dtype for one in found]).astype(np.int32), list(DTYPES)),
        "t_min": _times(in_order([one.span_ns[0] for one in found])), "t_max": _times(in_order([one.span_ns[1] for one in found])),
        "n_frames": np.ones(n, np.uint32), "n_samples": in_order([one.n_samples for one in found]).astype(np.uint32),
        "count": days.count.astype(np.uint32), "seq": seq[sensor],
        "scale": by_layout(wanted, slots, columns, "scale"), "offset": by_layout(wanted, slots, columns, "offset"),
        "time_codec": pa.array(names, pa.string()).dictionary_encode(), "value_codec": constant(ROLLUP, n),
        "n_bytes": np.array([len(p) for p in payloads], np.uint32), "payload": pa.array(payloads, pa.binary()),
        "raw_sum": pa.array(days.raw_sum, mask=of_each([one.lane is not Lane.RAW for one in found])),
        "sum_low": pa.array(days.sum_low, mask=headless | (days.sum_low == 0.0)),
        "m2": pa.array(rounded(days.squares), mask=headless),
    }  # fmt: skip
    ends = {"min": days.low, "max": days.high, "sum": days.sum, "first": days.first, "last": days.last}
    rows |= {name: pa.array(values, mask=headless) for name, values in ends.items()}
    return pa.Table.from_pydict({name: rows[name] for name in ROLLED}, schema=ROLLED_SCHEMA)


def _times(ts_ns: I64) -> pa.Array:
    return pa.array(ts_ns).cast(COLUMNS["t_min"])
