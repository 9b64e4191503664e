"""Finding rows: open segments, their headers, and what is kept of both between queries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.disk import Disk
from headrace.store.commits import SegmentInfo
from headrace.store.segment import RARE, REFERENCE, RowHeaders, SegmentFile, joined_payloads

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

HEADER_CACHE_BYTES = 256 << 20
FOOTER_CACHE_BYTES = 64 << 20
_FILES_MAX = 2_048


@dataclass(frozen=True, slots=True, eq=False)
class FoundRows:
    """Rows that a query may need: their headers, and the index of each one's group.

    ``files`` they are in, ``file_number`` which of them each row is in; None where there is one file.
    """

    files: tuple[SegmentFile, ...]
    rows: RowHeaders
    group_index: I64
    file_number: npt.NDArray[np.int32] | None = None

    def take(self, index: npt.NDArray[Any]) -> FoundRows:
        """The rows at `index`."""
        number = None if self.file_number is None else self.file_number[index]
        return FoundRows(self.files, self.rows.take(index), self.group_index[index], number)

    def file_of(self, row: int) -> SegmentFile:
        """The segment that a row is in."""
        return self.files[0 if self.file_number is None else int(self.file_number[row])]

    def payloads(self, index: I64) -> tuple[npt.NDArray[np.uint8], I64]:
        """Payloads of the rows at `index`, one behind the other, and where each starts."""
        offset, n_bytes = self.rows.offset[index], self.rows.n_bytes[index]
        if self.file_number is None:
            return self.files[0].payloads(offset, n_bytes)
        numbers = self.file_number[index]
        first = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
        each = zip(first.tolist(), [*first[1:].tolist(), len(numbers)], strict=True)
        return joined_payloads((self.files[int(numbers[a])], offset[a:b], n_bytes[a:b]) for a, b in each)

    @classmethod
    def join(cls, parts: Sequence[FoundRows]) -> FoundRows:
        """Rows of several segments, to be decoded together; without their statistics."""
        if len(parts) == 1:
            return parts[0]
        numbers = [np.full(len(p.rows), n, np.int32) for n, p in enumerate(parts)]
        rows = _concat([replace(p.rows, statistics={}) for p in parts])
        files = tuple(p.files[0] for p in parts)
        return cls(files, rows, np.concatenate([p.group_index for p in parts]), np.concatenate(numbers))


@dataclass(frozen=True, slots=True, eq=False)
class _Cached:
    """Headers of a row group; its groups in order, and where the rows of each start in `order`."""

    rows: RowHeaders
    order: npt.NDArray[np.int32]
    groups: U64
    start: npt.NDArray[np.int32]

    @classmethod
    def of(cls, rows: RowHeaders) -> _Cached:
        order = np.argsort(rows.group, kind="stable").astype(np.int32)
        ordered = rows.group[order]
        new = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
        first = np.flatnonzero(new).astype(np.int32)
        return cls(rows, order, ordered[first], np.append(first, len(ordered)).astype(np.int32))

    @property
    def size_bytes(self) -> int:
        return self.rows.size_bytes + self.order.nbytes + self.groups.nbytes + self.start.nbytes


class SegmentReader:
    """Opens segments and finds rows in them; keeps files and headers that were used last.

    Parameters
    ----------
    header_cache_bytes : memory that headers may take (about 100 bytes a row). footer_cache_bytes : memory that
    the footers of open files may take.
    """

    def __init__(
        self,
        disk: Disk,
        header_cache_bytes: int = HEADER_CACHE_BYTES,
        footer_cache_bytes: int = FOOTER_CACHE_BYTES,
    ) -> None:
        self._disk = disk
        self._limit, self._footer_limit = header_cache_bytes, footer_cache_bytes
        self._used = self._footers_used = 0
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
            if info.name not in self._files:
                self._files[info.name] = file
                self._footers_used += file.footer_bytes
            while len(self._files) > 1 and (
                len(self._files) > _FILES_MAX or self._footers_used > self._footer_limit
            ):
                self._footers_used -= self._files.popitem(last=False)[1].footer_bytes
        return file

    @property
    def cached_bytes(self) -> int:
        """Memory that headers and footers take."""
        return self._used + self._footers_used

    def forget(self, names: set[str]) -> None:
        """Let go of segments that were deleted."""
        with self._lock:
            for name in names:
                file = self._files.pop(name, None)
                self._footers_used -= 0 if file is None else file.footer_bytes
            for key in [k for k in self._headers if k[0] in names]:
                self._used -= self._headers.pop(key).size_bytes

    def _load(self, file: SegmentFile, group: int) -> _Cached:
        key = (file.info.name, group)
        with self._lock:
            known = self._headers.get(key)
            if known is not None:
                self._headers.move_to_end(key)
                return known
        found = _Cached.of(file.headers(group))
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

    def find_many(
        self, infos: Sequence[SegmentInfo], groups: U64, span: tuple[int, int]
    ) -> list[Callable[[], FoundRows | None]]:
        """`find` in several segments, each to be called; where a read takes time they are under way already."""
        calls = [partial(self.find, info, groups, *span) for info in infos]
        n_at_once = min(self._disk.n_reads_at_once, len(calls))
        if n_at_once <= 1:
            return list(calls)
        with ThreadPoolExecutor(n_at_once) as pool:
            return [future.result for future in [pool.submit(call) for call in calls]]

    def find(self, info: SegmentInfo, groups: U64, start_ns: int, end_ns: int) -> FoundRows | None:
        """Rows of `groups` (sorted) whose times touch [start_ns, end_ns); None where there are none.

        Raises
        ------
        CorruptionError : the segment is damaged. NotFound : it is gone.
        """
        file = self.open(info)
        first, last = file.spans
        parts: list[tuple[RowHeaders, I64]] = []
        for group in ((last >= start_ns) & (first < end_ns)).nonzero()[0].tolist():
            cached = self._load(file, group)
            row, index = _match(cached, groups)
            if not len(row):
                continue
            rows = cached.rows
            inside = (rows.t_max[row] >= start_ns) & (rows.t_min[row] < end_ns)
            if not inside.all():
                row, index = row[inside], index[inside]
            if len(row) > 1 and (row[1:] < row[:-1]).any():
                in_order = np.argsort(row, kind="stable")
                row, index = row[in_order], index[in_order]
            if len(row):
                parts.append((_taken(rows, row), index))
        if not parts:
            return None
        return FoundRows((file,), _concat([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))


def _taken(rows: RowHeaders, row: npt.NDArray[np.int32]) -> RowHeaders:
    """The rows at `row`, which rises; those of a group mostly lie together, and are copied faster then."""
    first, last = int(row[0]), int(row[-1]) + 1
    if last - first != len(row):
        return rows.take(row)
    return rows if len(row) == len(rows) else rows.take(slice(first, last))


def _match(cached: _Cached, groups: U64) -> tuple[npt.NDArray[np.int32], I64]:
    """(row, index in `groups`) of every row of these groups: by the shorter of the two lists."""
    if len(groups) == 1:
        one = int(cached.groups.searchsorted(groups[0]))
        is_there = one < len(cached.groups) and cached.groups[one] == groups[0]
        found = cached.order[cached.start[one] : cached.start[one + 1]] if is_there else cached.order[:0]
        return found, np.zeros(len(found), np.int64)
    if len(groups) < len(cached.groups):
        run = cached.groups.searchsorted(groups)
        run[run == len(cached.groups)] = 0
        index = (cached.groups[run] == groups).nonzero()[0]
        run = run[index]
    else:
        at = groups.searchsorted(cached.groups)
        at[at == len(groups)] = 0
        run = (groups[at] == cached.groups).nonzero()[0]
        index = at[run]
    if not len(run):
        return cached.order[:0], index
    first = cached.start[run]
    count = cached.start[run + 1] - first
    if len(run) == len(cached.groups):
        return cached.order, index.repeat(count)
    place = (first - (count.cumsum() - count)).repeat(count) + np.arange(int(count.sum()))
    return cached.order[place], index.repeat(count)


def _concat(parts: list[RowHeaders]) -> RowHeaders:
    """Rows of several row groups of one file."""
    if len(parts) == 1:
        return parts[0]
    pairs = {pair: i for i, pair in enumerate(dict.fromkeys(pair for p in parts for pair in p.codecs))}
    number = [np.array([pairs[c] for c in p.codecs], np.uint16) for p in parts]
    codec = [of[p.codec] for of, p in zip(number, parts, strict=True)]
    names = parts[0].statistics.keys()
    fixed: dict[str, Any] = {
        "codecs": tuple(pairs), "codec": np.concatenate(codec),
        "statistics": {n: np.concatenate([p.statistics[n] for p in parts]) for n in names},
        **{n: _concat_rare(parts, n) for n in RARE if n != "references"}, "references": _concat_references(parts, number),
    }  # fmt: skip
    arrays: dict[str, Any] = {
        n: np.concatenate([getattr(p, n) for p in parts]) for n in RowHeaders.__slots__ if n not in fixed
    }
    return RowHeaders(**arrays, **fixed)


_OWN = {"times_offset": "offset", "times_bytes": "n_bytes"}


def _concat_rare(parts: list[RowHeaders], name: str) -> npt.NDArray[Any] | None:
    """A field that some have: where a part has none, no words, and each row its own times."""
    found = [getattr(p, name) for p in parts]
    if all(one is None for one in found):
        return None
    others = [getattr(p, _OWN[name]) if name in _OWN else np.empty(len(p), np.object_) for p in parts]
    return np.concatenate([other if one is None else one for one, other in zip(found, others, strict=True)])


def _concat_references(
    parts: list[RowHeaders], number: list[npt.NDArray[np.uint16]]
) -> npt.NDArray[Any] | None:
    """`RowHeaders.references` of all; `number`: the numbers that codecs have now."""
    if all(part.references is None for part in parts):
        return None
    out = []
    for part, of in zip(parts, number, strict=True):
        if part.references is None:
            out.append(np.zeros((len(part), 2), REFERENCE))
            continue
        out.append(part.references.copy())
        out[-1]["codec"] = of[part.references["codec"]]
    return np.concatenate(out)
