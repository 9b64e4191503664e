"""Columns of rows of one sensor that need not be written: a reader knows what they say.

Three follow from the path, 17 bytes a row. ``sensor`` is the hash of the path that the sensor was first given; ``group``
that of the group's key, which is the same where the sensor has a group to itself; ``shard`` the top six bits of ``group``.
``n_samples`` is ``n_frames`` where none is absent. Others say what is usual in most files: no bound, no error, no grid, no
words, no times or values of another row. A file has one of these columns only if it says something else in one of its rows; of the
first three it has all that others follow from. What some columns say in all rows alike stands once in the file's
metadata: in a file of a few long rows a column costs more than a byte of each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.sensors import SHARD_BITS_EMBEDDED, U64, hashes
from headrace.store.schema import COLUMNS, WORDS, constant

FOLLOWING = ("sensor", "group", "shard")
FRAMES, SAMPLES = "n_frames", "n_samples"
SAME = ("kind", "column", "layout", "layout_json", "dtype", "quality", "seq")
"""Columns of rows of samples that may say the same in all rows of a file."""
Same = Mapping[str, Any]
USUAL: dict[str, float | None] = {
    "bound": 0.0, "max_error": 0.0, "rmse": 0.0, "scale": 1.0, "offset": 0.0, "times_back": 0, "sibling": 0, "sibling_2": 0,
    "raw_sum": None, "dictionary": None,
}  # fmt: skip
"""Of rows of samples; rollups have all the columns that are theirs."""
_SHARD_SHIFT = np.uint64(64 - SHARD_BITS_EMBEDDED)


def same_of(said: bytes) -> dict[str, Any]:
    """What all rows of a file say, from its metadata. Raises ValueError."""
    found = json.loads(said)
    if not isinstance(found, dict) or not set(found) <= set(SAME):
        raise ValueError("its metadata say what no column holds")
    return found


def names_of(written: Sequence[str], same: Same) -> tuple[str, ...]:
    """Columns that a file gives: those that it has, and those that rows of one sensor can do without.

    ``same``: what all its rows say, as its metadata do. Its last column stays the last one, as payloads are in a file.
    """
    known: tuple[str, ...] = ()
    if "min" in written:
        is_of_samples = "quality" in written or "quality" in same
        known = (*FOLLOWING, SAMPLES, *USUAL) if is_of_samples else FOLLOWING
    return (*written[:-1], *(name for name in (*same, *known) if name not in written), *written[-1:])


def without_known(tables: Sequence[pa.Table]) -> tuple[list[pa.Table], dict[str, Any]]:
    """The tables without those columns that a reader knows of all their rows, and what it has to be told for that."""
    names = tables[0].column_names
    if "sensor" not in names:
        return list(tables), {}
    ids = [_ids(table) for table in tables]
    dropped = [
        name for name in FOLLOWING
        if all(_is_said(name, table, of) for table, of in zip(tables, ids, strict=True))
    ]  # fmt: skip
    same: dict[str, Any] = {}
    if "quality" in names:
        dropped += [name for name in USUAL if all(_is_usual(name, table) for table in tables)]
        if all(table[SAMPLES].equals(table[FRAMES]) for table in tables):
            dropped.append(SAMPLES)
        said = {name: _different(name, tables) for name in SAME}
        same = {
            name: values[0] for name, values in said.items() if len(values) == 1 and values[0] is not None
        }
    return [table.drop_columns([*dropped, *same]) for table in tables], same


def with_known(table: pa.Table, names: Sequence[str], same: Same) -> pa.Table:
    """The columns `names` of rows whose other ones, the path among them, are there."""
    missing = [name for name in names if name not in table.column_names]
    said = {**USUAL, **same}
    for name in missing:
        if name in said:
            table = table.append_column(name, _constant(name, said[name], len(table)))
        elif name == SAMPLES:
            table = table.append_column(name, table[FRAMES])
    if not set(missing) <= {*said, SAMPLES}:
        table = _with_following(table)
    return table.select(list(names))


def needed_for(names: Sequence[str], written: Sequence[str], same: Same) -> list[str]:
    """What has to be read of a file with the columns `written`, so that `with_known` can give `names`."""
    needed = [name for name in names if name in written]
    missing = {*names}.difference(written, USUAL, same)
    others = ((FRAMES,) if SAMPLES in missing else ()) + (("path", "group") if missing - {SAMPLES} else ())
    return needed + [name for name in others if name in written and name not in needed]


def _different(name: str, tables: Sequence[pa.Table]) -> list[Any]:
    """The values of a column, up to two of them."""
    found: list[Any] = []
    for table in tables:
        column = table[name].combine_chunks()
        column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        found += [one for one in pc.unique(column).to_pylist() if one not in found]
        if len(found) > 1:
            break
    return found


def _constant(name: str, value: Any, n: int) -> Any:
    """A column that says the same n times."""
    return constant(value, n) if name in WORDS else pa.repeat(pa.scalar(value, COLUMNS[name]), n)


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
