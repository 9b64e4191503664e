"""The columns of a segment: one row is one encoded run, with a header that any Parquet tool can read.

============ ============ ==================================================================================
column       type         meaning
============ ============ ==================================================================================
shard        uint16       shard of the group
kind         string       ``frames``: accepted in time order; ``overlay``: came late, wins over frames of its seq
path         string       group (``#`` and its part behind it, where it has one), or sensor of a warm row
group        uint64       xxh3 of the group's key
sensor       uint64       id of the one sensor of a warm row
column       int32        the one column of the layout that the row holds; -1: all of them
layout       uint64       id of the layout
layout_json  string       the layout itself: names, kinds, units, grid, labels
dtype        string       value type: u8 ... f64
t_min, t_max timestamp    first and last time, ns UTC
n_frames     uint32       times in the row
n_samples    uint32       values that are there (quality not absent)
count        uint32       values that are usable (good or uncertain, not NaN in warm rows)
quality      uint8        what occurs: 1 good, 2 uncertain, 4 bad, 8 absent
min ... m2   float64      of the usable values, engineering units (warm rows): min, max, sum, first, last, and
                          m2, the sum of squared differences from the mean, rounded to 24 bits
sum_low      float64      what rounding `sum` left out, so that both together are the exact sum; null for 0, NaN where
                          two floats can't hold it (rollups of floats)
raw_sum      int64        exact sum of the raw integers (warm rows of integers up to 32 bits)
scale,offset float64      the grid: engineering value = raw * scale + offset (warm rows), as below
time_codec   string       how times are coded; ``block``, ``wave``: in one payload with the values
times_back   uint32       so many rows before it in its row group is the row whose payload has its times, which are the
                          same (sensors of one device); 0: they are in its own
value_codec  string       how values are coded; behind ``sibling `` stands how, once they are predicted from those of other rows
sibling      int32        so many rows behind it in its row group, before it where negative, is the row whose values its own are
                          predicted from (sensors of one device); 0: none
sibling_2    int32        the same of a second one
bound        float64      largest error against the original that was allowed so far, in engineering units as the
                          next two; 0 where lossless
max_error    float64      no value is further from the original (0 where lossless; null: not further than `bound`)
rmse         float64      the root mean square of these errors is not larger (as above)
seq          int64        newest journal number in the row: of two versions of a sample the higher wins
arrival      timestamp    when the newest batch in the row arrived
dictionary   list<string> words that the values are codes of, for string signals
n_bytes      uint32       bytes of the payload
payload      binary       the encoded run
============ ============ ==================================================================================

Columns that say nothing in a tier are left out of its files; a reader takes them as null. What a reader
knows without them is left out too (`headrace.store.known_columns`). A row never spans two UTC days, in the cold tier two
partitions of 30. How scale and offset are applied, to the last bit, is said in `headrace.core.grids`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

VERSION = b"1"
FRAMES, OVERLAY = "frames", "overlay"
KINDS = (FRAMES, OVERLAY)
BLOCK, WAVE, ROLLUP = "block", "wave", "rollup"
HAS_GOOD, HAS_UNCERTAIN, HAS_BAD, HAS_ABSENT = 1, 2, 4, 8

_TIME = pa.timestamp("ns", "UTC")
COLUMNS: dict[str, Any] = {
    "shard": pa.uint16(), "kind": pa.string(), "path": pa.string(), "group": pa.uint64(),
    "sensor": pa.uint64(), "column": pa.int32(), "layout": pa.uint64(), "layout_json": pa.string(),
    "dtype": pa.string(), "t_min": _TIME, "t_max": _TIME, "n_frames": pa.uint32(), "n_samples": pa.uint32(),
    "count": pa.uint32(), "quality": pa.uint8(), "min": pa.float64(), "max": pa.float64(),
    "sum": pa.float64(), "sum_low": pa.float64(), "first": pa.float64(), "last": pa.float64(), "m2": pa.float64(),
    "raw_sum": pa.int64(), "scale": pa.float64(), "offset": pa.float64(), "time_codec": pa.string(), "times_back": pa.uint32(),
    "value_codec": pa.string(), "sibling": pa.int32(), "sibling_2": pa.int32(), "bound": pa.float64(), "max_error": pa.float64(), "rmse": pa.float64(), "seq": pa.int64(), "arrival": _TIME,
    "dictionary": pa.list_(pa.string()), "n_bytes": pa.uint32(), "payload": pa.binary(),
}  # fmt: skip

WORDS = ("kind", "layout_json", "dtype", "time_codec", "value_codec")
"""Columns with few different values: built and written as dictionaries."""

SIBLINGS = ("sibling", "sibling_2")
"""Columns that say which rows a row's values are predicted from."""

STATISTICS = ("shard", "t_min", "t_max", "path")
"""Columns whose Parquet statistics are written: what readers prune by."""

HEADER = tuple(name for name in COLUMNS if name not in ("payload", "layout_json"))
"""What a reader loads of each row before it knows which payloads it needs."""


def schema_of(names: tuple[str, ...]) -> pa.Schema:
    """The Arrow schema of some columns, in that order; words as dictionaries."""
    fields = []
    for name in names:
        kind = pa.dictionary(pa.int32(), pa.string()) if name in WORDS else COLUMNS[name]
        fields.append(pa.field(name, kind, nullable=name != "payload"))
    return pa.schema(fields)


def constant(word: str, n: int) -> pa.DictionaryArray:
    """One word n times."""
    return coded(np.zeros(n, np.int32), [word])


def coded(index: npt.NDArray[np.int32], words: list[str]) -> pa.DictionaryArray:
    """``words[index]`` without a string for each row."""
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(words, pa.string()))
