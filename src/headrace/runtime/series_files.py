"""One sensor's samples from a file: what codecs are tried on and reconstructions are compared from.

Parquet or CSV with a column of times and a column ``value``; one file is one series. What `headrace export` writes
of one sensor is such a file, and so is what most tools write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.tables import PATH_COLUMNS
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NS
from headrace.core.errors import ConfigError, NotFound, Rejected
from headrace.runtime.times import rfc3339

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

TIME_COLUMNS = ("t_ns", "ts_ns", "ts", "time", "timestamp")
"""Names of the column of times, the first that is there; the first two are nanoseconds whatever their size."""
VALUE_COLUMN = "value"
JITTER = 0.01
"""How much a step may differ from the middle one, as a share of it, for times to be regular."""


def read_series(path: Path) -> tuple[I64, Array]:
    """Times ``ts_ns: int64[n]`` and ``values: T[n]`` of a file, in its order.

    Times are timestamps, texts as RFC 3339, or numbers since 1970, whose size tells their unit; without a zone they are
    UTC. Values of Parquet files keep their type (u16, f32 ...), those of CSV files are float64; empty cells are NaN,
    and make integers float64.

    Raises
    ------
    NotFound : there is no such file. ConfigError : it is not of one series in these columns.
    Rejected : it can't be read as what its name says, or has rows without a time.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    if path.suffix.lower() not in _READERS:
        raise ConfigError(f"{path} is neither .parquet nor .csv")
    try:
        table = _READERS[path.suffix.lower()](path)
        return _times(table, path), _values(table, path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise Rejected(f"{path} can't be read: {reason}") from e


def time_difference(one: tuple[Path, I64], other: tuple[Path, I64]) -> str:
    """A sentence on which times of two files differ and how many; empty where none does."""
    (a, a_ns), (b, b_ns) = one, other
    if np.array_equal(a_ns, b_ns):
        return ""
    if np.array_equal(np.sort(a_ns), np.sort(b_ns)):
        row = int(np.argmax(a_ns != b_ns))
        return f"{a} and {b} have the same times in another order, from row {row + 1:,} on"
    only_a, only_b = a_ns[~np.isin(a_ns, b_ns)], b_ns[~np.isin(b_ns, a_ns)]
    if not len(only_a) and not len(only_b):
        return (
            f"{a} has {len(a_ns):,} samples and {b} {len(b_ns):,} of the same times: some come more than once"
        )
    parts = [
        f"{len(only):,} of {len(whole):,} times of {name} are not in {elsewhere} (the first: {rfc3339(int(only[0]))})"
        for only, whole, name, elsewhere in ((only_a, a_ns, a, b), (only_b, b_ns, b, a))
        if len(only)
    ]
    return " and ".join(parts)


def regular_rate_hz(ts_ns: I64) -> float:
    """Samples a second of ``ts_ns: int64[n]`` that are evenly spaced.

    Raises
    ------
    ConfigError : they are not, or are fewer than two.
    """
    steps = np.diff(ts_ns)
    middle = float(np.median(steps)) if len(steps) else 0.0
    if middle <= 0:
        raise ConfigError(f"{len(ts_ns):,} samples have no rate: their times do not go on")
    uneven = np.abs(steps - middle) > JITTER * middle
    if uneven.any():
        first = rfc3339(int(ts_ns[int(np.argmax(uneven))]))
        raise ConfigError(
            f"times are not regular: {int(uneven.sum()):,} of {len(steps):,} steps differ from {middle / NS:g} s "
            f"by more than {JITTER:.0%}, the first after {first}"
        )
    return (len(ts_ns) - 1) * NS / float(ts_ns[-1] - ts_ns[0])


def _read_parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        wanted = (*TIME_COLUMNS, VALUE_COLUMN, *PATH_COLUMNS)
        found = [name for name in file.schema_arrow.names if name in wanted]
        # Columns that are not asked for stay unread; where one is missing their names are all that is needed.
        is_series = VALUE_COLUMN in found and any(name in found for name in TIME_COLUMNS)
        return file.read(columns=found) if is_series else file.schema_arrow.empty_table()


def _read_csv(path: Path) -> pa.Table:
    table = pa.csv.read_csv(path)
    if VALUE_COLUMN in table.column_names and pa.types.is_integer(table.schema.field(VALUE_COLUMN).type):
        # A CSV file has no types: whole numbers are no promise that the next ones will be.
        at = table.column_names.index(VALUE_COLUMN)
        return table.set_column(at, VALUE_COLUMN, table.column(at).cast(pa.float64()))
    return table


_READERS = {".parquet": _read_parquet, ".csv": _read_csv}


def _times(table: pa.Table, path: Path) -> I64:
    names = table.column_names
    name = next((name for name in TIME_COLUMNS if name in names), None)
    if name is None or VALUE_COLUMN not in names:
        raise ConfigError(
            f"{path} has columns {', '.join(names) or 'of no name'}; expected {VALUE_COLUMN} and one of "
            f"{', '.join(TIME_COLUMNS)}"
        )
    _check_is_one_series(table, path)
    column = table.column(name)
    if column.null_count:
        raise Rejected(f"{path} has {column.null_count:,} rows without a time in column {name}")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns")).cast(pa.int64())
    elif not (name.endswith("_ns") and pa.types.is_integer(column.type)):
        try:
            return np.array(TimeReader().read_many(tuple(column.to_pylist())), np.int64)
        except PayloadError as e:
            raise Rejected(f"{path}, column {name}: {e.detail}") from e
    return np.ascontiguousarray(column.to_numpy(), np.int64)


def _check_is_one_series(table: pa.Table, path: Path) -> None:
    for name in PATH_COLUMNS:
        if name in table.column_names:
            paths = pc.unique(table.column(name)).to_pylist()
            if len(paths) > 1:
                raise ConfigError(
                    f"{path} holds {len(paths):,} sensors ({paths[0]}, {paths[1]} ...); a series is of one"
                )


def _values(table: pa.Table, path: Path) -> Array:
    column = table.column(VALUE_COLUMN)
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    elif pa.types.is_null(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ConfigError(f"column {VALUE_COLUMN} of {path} is of type {kind}; expected numbers")
    if column.null_count and not pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    if column.null_count:
        column = column.fill_null(float("nan"))
    return np.ascontiguousarray(column.to_numpy())
