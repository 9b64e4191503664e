"""Finding rows: open segments, their headers, and what is kept of both between queries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.disk import Disk
from headrace.store.commits import SegmentInfo
from headrace.store.segment import RowHeaders, SegmentFile

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

HEADER_CACHE_BYTES = 256 << 20
_FILES_MAX = 2_048


@dataclass(frozen=True, slots=True, eq=False)
class FoundRows:
    """Rows of one segment that a query may need: their headers, and the index of each one's group."""

    file: SegmentFile
    rows: RowHeaders
    group_index: I64


@dataclass(frozen=True, slots=True, eq=False)
class _Cached:
    rows: RowHeaders
    order: npt.NDArray[np.int32]
    sorted_groups: U64

    @property
    def size_bytes(self) -> int:
        return self.rows.size_bytes + self.order.nbytes + self.sorted_groups.nbytes


class SegmentReader:
    """Opens segments and finds rows in them; keeps files and headers that were used last.

    Parameters
    ----------
    header_cache_bytes : memory that headers may take (about 100 bytes a row).
    """

    def __init__(self, disk: Disk, header_cache_bytes: int = HEADER_CACHE_BYTES) -> None:
        self._disk = disk
        self._limit = header_cache_bytes
        self._used = 0
        self._lock = threading.Lock()
        self._files: OrderedDict[str, SegmentFile] = OrderedDict()
        self._headers: OrderedDict[tuple[str, int], _Cached] = OrderedDict()

    def open(self, info: SegmentInfo) -> SegmentFile:
        """The segment, opened once. Raises `CorruptionError`, `NotFound`."""
        with self._lock:
            file = self._files.get(info.name)
            if file is not None:
                self._files.move_to_end(info.name)
                return file
        file = SegmentFile(self._disk, info)
        with self._lock:
            self._files[info.name] = file
            if len(self._files) > _FILES_MAX:
                self._files.popitem(last=False)
        return file

    def forget(self, names: set[str]) -> None:
        """Let go of segments that were deleted."""
        with self._lock:
            for name in names:
                self._files.pop(name, None)
            for key in [k for k in self._headers if k[0] in names]:
                self._used -= self._headers.pop(key).size_bytes

    def _load(self, file: SegmentFile, group: int) -> _Cached:
        key = (file.info.name, group)
        with self._lock:
            known = self._headers.get(key)
            if known is not None:
                self._headers.move_to_end(key)
                return known
        rows = file.headers(group)
        order = np.argsort(rows.group, kind="stable").astype(np.int32)
        found = _Cached(rows, order, rows.group[order])
        with self._lock:
            if key not in self._headers:
                self._headers[key] = found
                self._used += found.size_bytes
            while self._used > self._limit and len(self._headers) > 1:
                self._used -= self._headers.popitem(last=False)[1].size_bytes
        return found

    def all_headers(self, info: SegmentInfo) -> Iterator[RowHeaders]:
        """Headers of every row group. Raises as `find`."""
        file = self.open(info)
        for group in range(file.n_groups):
            yield self._load(file, group).rows

    def find(self, info: SegmentInfo, groups: U64, start_ns: int, end_ns: int) -> FoundRows | None:
        """Rows of `groups` (sorted) whose times touch [start_ns, end_ns); None where there are none.

        Raises
        ------
        CorruptionError : the segment is damaged. NotFound : it is gone.
        """
        file = self.open(info)
        first, last = file.spans
        parts: list[tuple[RowHeaders, I64]] = []
        for group in np.flatnonzero((last >= start_ns) & (first < end_ns)).tolist():
            cached = self._load(file, group)
            row, index = _match(cached, groups)
            rows = cached.rows
            inside = (rows.t_max[row] >= start_ns) & (rows.t_min[row] < end_ns)
            row, index = row[inside], index[inside]
            if len(row):
                in_order = np.argsort(row, kind="stable")
                parts.append((rows.take(row[in_order]), index[in_order]))
        if not parts:
            return None
        return FoundRows(file, _concat([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))


def _match(cached: _Cached, groups: U64) -> tuple[npt.NDArray[np.int32], I64]:
    """(row, index in `groups`) of every row of these groups: by the shorter of the two lists."""
    if len(groups) < len(cached.order):
        first = np.searchsorted(cached.sorted_groups, groups, "left")
        count = np.searchsorted(cached.sorted_groups, groups, "right") - first
        index = np.repeat(np.arange(len(groups)), count)
        at = np.repeat(first - (np.cumsum(count) - count), count) + np.arange(len(index))
        return cached.order[at], index
    at = np.searchsorted(groups, cached.sorted_groups)
    at[at == len(groups)] = 0
    hit = np.flatnonzero(groups[at] == cached.sorted_groups)
    return cached.order[hit], at[hit]


def _concat(parts: list[RowHeaders]) -> RowHeaders:
    """Rows of several row groups of one file."""
    if len(parts) == 1:
        return parts[0]
    pairs = list(dict.fromkeys(pair for p in parts for pair in p.codecs))
    codec = [np.array([pairs.index(c) for c in p.codecs], np.uint8)[p.codec] for p in parts]
    dictionary = None
    if any(p.dictionary is not None for p in parts):
        empty = [np.empty(len(p), np.object_) if p.dictionary is None else p.dictionary for p in parts]
        dictionary = np.concatenate(empty)
    names = parts[0].statistics.keys()
    fixed: dict[str, Any] = {
        "codecs": tuple(pairs), "codec": np.concatenate(codec), "dictionary": dictionary,
        "statistics": {n: np.concatenate([p.statistics[n] for p in parts]) for n in names},
    }  # fmt: skip
    arrays: dict[str, Any] = {
        n: np.concatenate([getattr(p, n) for p in parts]) for n in RowHeaders.__slots__ if n not in fixed
    }
    return RowHeaders(**arrays, **fixed)
