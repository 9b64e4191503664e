"""Columns of rows of one sensor that need not be written: a reader knows what they say.

Three follow from the path, 17 bytes a row. ``sensor`` is the hash of the path that the sensor was first given; ``group``
that of the group's key, which is the same where the sensor has a group to itself; ``shard`` the top six bits of ``group``.
Others say what is usual in most files: no bound, no error, no grid, no words, no times of another row. A file has one of
these columns only if it says something else in one of its rows; of the first three it has all that others follow from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.core.sensors import SHARD_BITS_EMBEDDED, U64, hashes
from headrace.store.schema import COLUMNS

FOLLOWING = ("sensor", "group", "shard")
USUAL: dict[str, float | None] = {
    "bound": 0.0, "max_error": 0.0, "rmse": 0.0, "scale": 1.0, "offset": 0.0, "times_back": 0,
    "raw_sum": None, "dictionary": None,
}  # fmt: skip
"""Of rows of samples; rollups have all the columns that are theirs."""
_SHARD_SHIFT = np.uint64(64 - SHARD_BITS_EMBEDDED)


def names_of(written: Sequence[str]) -> tuple[str, ...]:
    """Columns that a file gives: those that it has, and those that rows of one sensor can do without."""
    known: tuple[str, ...] = ()
    if "min" in written:
        known = (*FOLLOWING, *USUAL) if "quality" in written else FOLLOWING
    return (*written, *(name for name in known if name not in written))


def without_known(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The tables without those columns that a reader knows of all their rows."""
    names = tables[0].column_names
    if "sensor" not in names:
        return list(tables)
    ids = [_ids(table) for table in tables]
    dropped = [
        name for name in FOLLOWING
        if all(_is_said(name, table, of) for table, of in zip(tables, ids, strict=True))
    ]  # fmt: skip
    if "quality" in names:
        dropped += [name for name in USUAL if all(_is_usual(name, table) for table in tables)]
    return [table.drop_columns(dropped) for table in tables]


def with_known(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The columns `names` of rows whose other ones, the path among them, are there."""
    missing = [name for name in names if name not in table.column_names]
    for name in missing:
        if name in USUAL:
            column = pa.repeat(pa.scalar(USUAL[name], COLUMNS[name]), len(table))
            table = table.append_column(name, column)
    if not set(missing) <= set(USUAL):
        table = _with_following(table)
    return table.select(list(names))


def needed_for(names: Sequence[str], written: Sequence[str]) -> list[str]:
    """What has to be read of a file with the columns `written`, so that `with_known` can give `names`."""
    needed = [name for name in names if name in written]
    if not set(names) <= {*written, *USUAL}:
        needed += [name for name in ("path", "group") if name in written and name not in needed]
    return needed


def _with_following(table: pa.Table) -> pa.Table:
    of = _ids(table)
    for name in ("sensor", "group"):
        if name not in table.column_names:
            table = table.append_column(name, pa.array(of, COLUMNS[name]))
    if "shard" not in table.column_names:
        table = table.append_column("shard", pa.array(_shards(table), COLUMNS["shard"]))
    return table


def _ids(table: pa.Table) -> U64:
    return hashes(table["path"].cast(pa.binary()).to_pylist())


def _shards(table: pa.Table) -> Any:
    return (np.asarray(table["group"].to_numpy()) >> _SHARD_SHIFT).astype(np.uint16)


def _is_said(name: str, table: pa.Table, ids: U64) -> bool:
    """Whether a column is what the paths say."""
    found = np.asarray(table[name].to_numpy())
    return np.array_equal(found, _shards(table) if name == "shard" else ids)


def _is_usual(name: str, table: pa.Table) -> bool:
    column, usual = table[name], USUAL[name]
    if usual is None:
        return bool(column.null_count == len(column))
    found = np.asarray(column.to_numpy())
    return (
        not column.null_count and found.tobytes() == np.full_like(found, usual).tobytes()
    )  # -0.0 is not usual
