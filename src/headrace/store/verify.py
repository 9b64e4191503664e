"""Is a store sound? Everything in it is read, decoded and compared with what was said of it.

Of every segment: its size and footer against the commit or manifest that names it, the checksum of each page, the
checksum of each payload, and every payload decoded: times, number of samples and, in warm rows, the aggregates must be
what the row's header says; those of a lossy row, whose header is of what was measured, as near as its bound allows.
Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from headrace.codecs.block import decode_block
from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, HeadraceError, NotFound
from headrace.core.grids import Grid
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.core.quality import Quality, usable
from headrace.store.aggregates import in_units, partials_of
from headrace.store.commits import SegmentInfo
from headrace.store.decoding import SharedTimes, SiblingValues, decode_row
from headrace.store.manifests import HOT_FOLDER, ROLLUP_FOLDER
from headrace.store.query import Store
from headrace.store.resolutions import rollup_problem
from headrace.store.runs import SensorSamples
from headrace.store.schema import BLOCK, ROLLUP
from headrace.store.segment import RowHeaders, SegmentFile
from headrace.store.view import StoreView
from headrace.store.warm import unknown_codec

Array = npt.NDArray[Any]
Tell = Callable[[int, int, str], None]
"""Told before each segment: its number, how many there are, its name."""
_HEADER_FIELDS = {
    "min": "low",
    "max": "high",
    "sum": "sum",
    "first": "first",
    "last": "last",
    "m2": "squares",
}


@dataclass(frozen=True, slots=True)
class Harm:
    """Something that is not as it was written."""

    name: str
    sentence: str


@dataclass(slots=True)
class Verification:
    """What was read, and what is damaged."""

    n_segments: int = 0
    n_rows: int = 0
    n_samples: int = 0
    size_bytes: int = 0
    harms: list[Harm] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.harms


def verify_store(disk: Disk, store: Store, tell: Tell = lambda i, n, name: None) -> Verification:
    """Read all live segments of a store.

    Cost: about 0.1 ms a row and 10 ns a sample; memory for one segment.
    """
    found = Verification()
    view = store.refresh()
    found.harms += [Harm("commits and manifests", sentence) for sentence in view.damaged]
    infos = _named(view)
    for number, info in enumerate(infos.values()):
        tell(number + 1, len(infos), info.name)
        found.n_segments += 1
        found.size_bytes += info.size_bytes
        try:
            verify_segment_rows(disk, info, found)
        except NotFound:
            if info.name in _named(store.refresh()):
                found.harms.append(Harm(info.name, "it is missing; restore it from a backup"))
        except HeadraceError as e:
            found.harms.append(Harm(info.name, str(e)))
    return found


def _named(view: StoreView) -> dict[str, SegmentInfo]:
    """All files that count, by name."""
    span = -(2**63), 2**63 - 1
    return {source.info.name: source.info for source in (*view.sources(*span), *view.rollups(*span))}


def verify_segment_rows(disk: Disk, info: SegmentInfo, found: Verification) -> None:
    """Read one segment; what is wrong goes to `found`. Raises `CorruptionError` where it can't be opened."""
    data = disk.read(info.name)
    file = SegmentFile(disk, info, data)
    file.table()  # every page against its checksum
    digest = info.name.rpartition("-")[2].removesuffix(".parquet")
    if not info.name.startswith(HOT_FOLDER) and xxhash.xxh3_64_hexdigest(data) != digest:
        found.harms.append(Harm(info.name, "its content is not what its name says; restore it from a backup"))
    n_rows = n_samples = 0
    others = SharedTimes(), SiblingValues()
    for group in range(file.n_groups):
        rows = file.headers(group)
        grid, errors = _grids(file, group), _errors(file, group, len(rows))
        n_rows += len(rows)
        n_samples += int(rows.n_samples.sum())
        for row in range(len(rows)):
            problem = _row_problem(file, (rows, row), grid, float(errors[row]), others)
            if problem:
                name = f"row {row} of row group {group} ({_whose(file, group, row)})"
                found.harms.append(Harm(info.name, f"{name}: {problem}"))
    if (n_rows, n_samples) != (info.n_rows, info.n_samples):
        text = f"it has {n_rows:,} rows of {n_samples:,} samples, what names it says {info.n_rows:,} of {info.n_samples:,}"
        found.harms.append(Harm(info.name, text))
    found.n_rows += n_rows
    found.n_samples += 0 if info.name.startswith(ROLLUP_FOLDER) else n_samples


def _whose(file: SegmentFile, group: int, row: int) -> str:
    """The path of a row's sensor; hot rows have those of their group by its id."""
    table = file.row_group(group, ("path",))
    return f"group {int(file.headers(group).group[row]):016x}" if table is None else str(table["path"][row])


def _grids(file: SegmentFile, group: int) -> Grid | None:
    """The grids of warm rows."""
    table = file.row_group(group, ("scale", "offset"))
    if table is None:
        return None
    scale, offset = (table[n].fill_null(d).to_pylist() for n, d in (("scale", 1.0), ("offset", 0.0)))
    return Grid.of(zip(scale, offset, strict=True))


def _errors(file: SegmentFile, group: int, n: int) -> Array:
    """How far values of each row may be from what its header was made from: float64[n], 0 where it is lossless."""
    names = [name for name in ("max_error", "bound") if name in file.names]
    table: pa.Table = file.row_group(group, names) if names else {}
    out: Array = np.full(n, np.nan)
    for name in names:
        column = np.asarray(table[name].cast("float64").to_numpy())
        out = np.where(np.isnan(out), column, out)
    out[np.isnan(out)] = 0.0
    return out


def _row_problem(
    file: SegmentFile,
    of: tuple[RowHeaders, int],
    grid: Grid | None,
    error: float,
    others: tuple[SharedTimes, SiblingValues],
) -> str:
    """What is wrong with a row; "" for nothing. `error` : how far its values may be from the original."""
    rows, row = of
    data, _ = file.payloads(rows.offset[row : row + 1], rows.n_bytes[row : row + 1])
    dtype = numpy_dtype(DTYPES[int(rows.dtype[row])])
    codecs = rows.codecs[int(rows.codec[row])]
    if codecs[1] != ROLLUP and unknown_codec(codecs):
        return f"it was written by the codec {unknown_codec(codecs)!r}; install the package that adds it"
    try:
        if codecs[1] == ROLLUP:
            return rollup_problem(rows, row, data.tobytes())
        if codecs[1] == BLOCK:
            ts_ns, values, quality = decode_block(data.tobytes(), dtype)
        else:
            times, siblings = others[0].read(file, rows, row), others[1].read(file, rows, row)
            n = int(rows.n_frames[row])
            span = int(rows.t_min[row]), int(rows.t_max[row])
            ts_ns, values, quality = decode_row(data.tobytes(), codecs, dtype, n, span, times, siblings)
    except CorruptionError as e:
        return f"its payload can't be decoded: {e}"
    marks = np.zeros(values.shape, np.uint8) if quality is None else quality
    n_there = int(np.count_nonzero(marks < Quality.ABSENT))
    pairs: list[tuple[str, Any, Any, float]] = [
        ("first time", int(rows.t_min[row]), int(ts_ns.min()), 0.0), ("last time", int(rows.t_max[row]), int(ts_ns.max()), 0.0),
        ("number of samples", int(rows.n_samples[row]), n_there, 0.0),
    ]  # fmt: skip
    if grid is not None and rows.column[row] >= 0 and "sum" in rows.statistics:
        found = _aggregates(rows, row, (ts_ns, values, marks), grid.take([row]))
        each = {"count": 0.0, "sum": error * n_there, "m2": error * n_there**0.5}
        pairs += [(what, says, has, each.get(what, error)) for what, says, has in found]
    wrong = [
        f"its {what} is {has!r}, its header says {says!r}"
        for what, says, has, error in pairs
        if not _same(what, says, has, error)
    ]
    return "; ".join(wrong[:3])


def _aggregates(
    rows: RowHeaders, row: int, data: tuple[Array, Array, Array], grid: Grid
) -> list[tuple[str, Any, Any]]:
    """(what, header, computed anew) of a warm row's statistics, by the code that wrote them."""
    ts_ns, values, marks = data
    is_float = values.dtype.kind == "f"
    if (values.dtype.itemsize == 8 and not is_float) or (
        rows.dictionary is not None and rows.dictionary[row] is not None
    ):
        return []
    plain = values.astype(np.float64 if is_float else np.int64)
    if is_float:
        plain = plain if grid.is_plain else grid.values(plain)
    one = SensorSamples(np.zeros(1, np.int64), np.array([0, len(ts_ns)]), ts_ns, plain, marks)
    parts = partials_of(one, 0)
    if not len(parts):
        return [("count", int(rows.count[row]), int(np.count_nonzero(usable(marks) & (values == values))))]
    if not is_float:
        parts = in_units(parts, grid, exact=True)
    says = {name: float(rows.statistics[name][row]) for name in _HEADER_FIELDS}
    has = {name: float(getattr(parts, attribute)[0]) for name, attribute in _HEADER_FIELDS.items()}
    return [
        ("count", int(rows.count[row]), int(parts.count[0])),
        *((n, says[n], has[n]) for n in _HEADER_FIELDS),
    ]


def _same(what: str, says: Any, has: Any, error: float) -> bool:
    """Whether the header is right; `error`: how far the numbers may be apart because values are, of m2 their roots."""
    if what == "m2":
        # The distance of the roots is at most that of the samples from their original: both are norms.
        near = error > 0.0 and abs(says**0.5 - has**0.5) <= error * (1.0 + 1e-6)
        return near or bool(np.isclose(says, has, rtol=1e-7, atol=0.0))
    if isinstance(says, float):
        return bool(np.isclose(says, has, rtol=1e-12, atol=error * (1.0 + 1e-9), equal_nan=True))
    return bool(says == has)
