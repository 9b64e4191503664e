"""Values as they come → frames of the sensors they belong to, a few NumPy calls for each part and none for each value.

What can't be taken is told once where it is a state (a node that the server does not know) and each time where a
value is lost by it (of another type than its sensor). A value that the source gave before, with the same time, is a
repeat and goes no further: nothing gets a fresh time because somebody connected anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.opcua.kinds import (
    ACCEPTS,
    IS_LONG,
    NO_PART,
    PARTS,
    TEXT,
    choose_times,
    element_bytes,
    kind_text,
    native,
    overflows,
    part_of,
    qualities,
)
from headrace.adapters.opcua.messages import Values
from headrace.adapters.opcua.plain import POLICIES, UNSORTED, PlainRows, places, take_plain
from headrace.adapters.opcua.scanner import ARRAY, ValueColumns
from headrace.adapters.opcua.statuses import status_text
from headrace.adapters.opcua.tags import TagTable
from headrace.adapters.opcua.texts import text_of
from headrace.adapters.payloads.words import TEXT_MAX, WordTable, is_word
from headrace.core.clock import NO_TIME
from headrace.core.events import MAX_RAW_BYTES, PACKED_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import numpy_dtype
from headrace.core.quality import USABLE_BELOW, Quality
from headrace.core.sensors import SensorDirectory

Rows = npt.NDArray[np.intp]
_PLAIN = 0x3F
_SEVERITY_BAD = np.uint32(0x8000_0000)


@dataclass(slots=True)
class Filed:
    """What became of some values. ``good``: tags of which a usable value came; ``lost``: tags with an overflow."""

    batches: list[FrameBatch] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    good: npt.NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    lost: npt.NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    n_repeats: int = 0


@dataclass(slots=True)
class _Cells:
    """Values that are going to be samples, of one part: sensor, value, quality, time; ``rank``: n-th of its sensor."""

    cell: Rows
    values: npt.NDArray[Any]
    quality: npt.NDArray[np.uint8]
    ts_ns: npt.NDArray[np.int64]


def joined(many: Sequence[Values]) -> Values:
    """Several answers as one."""
    if len(many) == 1:
        return many[0]
    columns = [np.concatenate(some) for some in zip(*(v.columns for v in many), strict=True)]
    out = ValueColumns(*columns)
    starts = np.cumsum([0, *(len(v.data) for v in many[:-1])])
    out.first[:] += np.repeat(starts, [len(v) for v in many])
    return Values(out, b"".join([v.data for v in many]))


class Filing:
    """Makes frames of one adapter's values.

    Parameters
    ----------
    time : whose time a value gets; see `headrace.adapters.opcua.kinds.choose_times`.
    """

    def __init__(self, name: str, tags: TagTable, directory: SensorDirectory, time: str) -> None:
        self._name = name
        self._tags = tags
        self._directory = directory
        self._time = time
        self._words = WordTable()

    def file(self, values: Values, arrival_ns: int) -> Filed:
        """Make frames of `values`, whose `tag` is the number of the adapter's tag."""
        return self._plain(values, arrival_ns) or self._any(values, arrival_ns)

    # --- what needs no second look -------------------------------------------------------------------

    def _plain(self, values: Values, arrival_ns: int) -> Filed | None:
        """All of them by the kernel; None where it gives up."""
        n = len(values)
        sensors, layouts, policy = self._tags.sensors, self._directory.layout_index, POLICIES[self._time]
        columns, rows = values.columns, PlainRows.room(n)
        n_taken = take_plain(columns, sensors, layouts, policy, arrival_ns, rows)
        if n_taken == UNSORTED:
            order = np.argsort(places(columns, sensors, layouts), kind="stable")
            some: list[Any] = [column[order] for column in columns]
            columns = ValueColumns(*some)
            n_taken = take_plain(columns, sensors, layouts, policy, arrival_ns, rows)
        if n_taken < 0:
            return None
        if self._tags.problem:
            for number in self._tags.problem.keys() & set(columns.tag.tolist()):
                del self._tags.problem[number]
        out = Filed(good=rows.tag[:n_taken], n_repeats=n - n_taken)
        for frame, end in pairwise(rows.parts[: int(rows.counts[2]) + 1].tolist()):
            out.batches += self._plain_batches(rows, frame, end, arrival_ns)
        return out

    def _plain_batches(self, rows: PlainRows, frame: int, end: int, arrival_ns: int) -> list[FrameBatch]:
        """Frames of one layout: dense where all are whole and each has one time, sparse where none is."""
        start = rows.first[frame : end + 1]
        first, last = int(start[0]), int(start[-1])
        slots, ts_ns = rows.slot[start[:-1]], rows.latest_ns[frame:end]
        layout = self._directory.layouts[int(self._directory.layout_index[slots[0]])]
        dtype = numpy_dtype(layout.dtype)
        bits = rows.bits[first:last]
        values = (bits if dtype.itemsize == 8 else bits.astype(f"u{dtype.itemsize}")).view(dtype)
        has_one_time = rows.has_one_time[frame:end]
        is_whole = has_one_time & (start[1:] - start[:-1] == layout.width)
        about: dict[str, Any] = {"arrival_ns": arrival_ns, "origin": self._name}
        if is_whole.all():
            return [FrameBatch.dense(slots, ts_ns, values.reshape(-1, layout.width), **about)]
        if is_whole.any():
            cells, quality = self._tags.cell[rows.tag[first:last]], np.zeros(last - first, np.uint8)
            some = _Cells(cells, values, quality, rows.ts_ns[first:last])
            return [batch.with_(**about) for batch in _batches(some, self._tags, layout.width)]
        own_ns = None if has_one_time.all() else rows.ts_ns[first:last]
        columns = rows.column[first:last]
        return [FrameBatch.sparse(slots, ts_ns, values, start - first, columns, value_ts_ns=own_ns, **about)]

    # --- what is taken -------------------------------------------------------------------------------

    def _any(self, values: Values, arrival_ns: int) -> Filed:
        """Make frames of values of any kind."""
        out = Filed()
        tag = values.columns.tag.astype(np.intp)
        known = tag < len(self._tags)
        if not known.all():
            out.rejects.append(self._unknown(values, np.flatnonzero(~known), arrival_ns))
        rows = np.flatnonzero(known)
        self._learn(values, rows)
        fits, is_empty, is_bad = self._judged(values, rows)
        is_repeat = self._repeats(values, rows, is_empty, fits & ~is_bad)
        out.n_repeats = int(np.count_nonzero(is_repeat))
        taken = fits | is_empty
        for at in np.flatnonzero(~(taken | is_repeat)).tolist():
            self._refuse(values, int(rows[at]), out, arrival_ns)
        self._note_problems(values, rows, taken & is_bad, fits & ~is_bad)
        taken &= ~is_repeat
        if not taken.all():
            rows, is_empty = rows[taken], is_empty[taken]
        if not len(rows):
            return out
        out.lost = tag[rows[overflows(values.columns.status[rows])]]
        self._file(values, rows, is_empty, out, arrival_ns)
        return out

    def _learn(self, values: Values, rows: Rows) -> None:
        """Give tags without a type that of their first value."""
        tag, kind = values.columns.tag[rows], values.columns.kind[rows]
        new = np.flatnonzero((self._tags.part[tag] == NO_PART) & (kind & _PLAIN != 0))
        kinds: dict[int, int] = {}
        for at in new.tolist():
            number, one = int(tag[at]), int(kind[at])
            if part_of(one) != NO_PART and bool(one & ARRAY) == bool(self._tags.is_array[number]):
                kinds.setdefault(number, one)
        if kinds:
            self._tags.problem.update(self._tags.learn(kinds))

    def _judged(
        self, values: Values, rows: Rows
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which rows their sensors can hold, which become samples without a value, and which have a bad status."""
        columns = values.columns
        tag, kind = columns.tag[rows].astype(np.intp), columns.kind[rows]
        part = self._tags.part[tag]
        plain = kind & _PLAIN
        fits = ACCEPTS[part, plain] & (part != NO_PART)
        fits &= ((kind & ARRAY) != 0) == self._tags.is_array[tag]
        is_bad = columns.status[rows] >= _SEVERITY_BAD
        return fits, ~fits & ((plain == 0) | is_bad) & (part != NO_PART), is_bad

    def _note_problems(
        self, values: Values, rows: Rows, is_bad: npt.NDArray[np.bool_], is_good: npt.NDArray[np.bool_]
    ) -> None:
        """How tags are: as the last of their values says. A repeat says it as well."""
        columns = values.columns
        tag = columns.tag[rows].astype(np.intp)
        if is_bad.any():
            for at in np.flatnonzero(is_bad).tolist():
                self._tags.problem[int(tag[at])] = status_text(int(columns.status[rows[at]]))
        if self._tags.problem:
            for number in set(tag[is_good].tolist()) & self._tags.problem.keys():
                if is_good[np.flatnonzero(tag == number)[-1]]:
                    del self._tags.problem[number]

    def _repeats(
        self, values: Values, rows: Rows, is_empty: npt.NDArray[np.bool_], is_value: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Which rows are what their tags had last."""
        tags, columns = self._tags, values.columns
        bits = _marks(values, rows)
        kind = np.where(is_empty, 0, columns.kind[rows]).astype(np.int16)
        tag = columns.tag[rows].astype(np.intp)
        order = in_order(tag)
        tag = tag if order is None else tag[order]
        is_again = tag[1:] == tag[:-1]
        has_again = bool(is_again.any())
        source_ns = columns.source_ns[rows]
        is_repeat = np.ones(len(tag), np.bool_)
        for column, last in (
            (source_ns, tags.last_source_ns), (bits, tags.last_bits), (kind, tags.last_kind),
            (columns.status[rows], tags.last_status),
        ):  # fmt: skip
            now = column if order is None else column[order]
            before = last[tag]
            if has_again:
                before[1:] = np.where(is_again, now[:-1], before[1:])
            is_repeat &= now == before
            last[tag] = now  # of several of a tag the last one stays
        if order is not None:
            is_repeat[order] = is_repeat.copy()
        # Without a time of the source it may be a new value that is like the old one; what no sensor can hold, or an error
        # that lasts, is not.
        is_repeat &= (source_ns != NO_TIME) | ~is_value
        return is_repeat

    def newer(self, values: Values) -> set[int]:
        """Tags whose value here is another, and of a later time of the source, than the last that was filed."""
        tags, columns = self._tags, values.columns
        tag = columns.tag.astype(np.intp)
        last_ns = tags.last_source_ns[tag]
        is_newer = (
            (last_ns != NO_TIME) & (columns.source_ns > last_ns) & (columns.status == tags.last_status[tag])
        )
        is_newer &= _marks(values, np.arange(len(tag))) != tags.last_bits[tag]
        return set(tag[is_newer].tolist())

    # --- frames --------------------------------------------------------------------------------------

    def _file(
        self, values: Values, rows: Rows, is_empty: npt.NDArray[np.bool_], out: Filed, arrival_ns: int
    ) -> None:
        columns = values.columns
        tag = columns.tag[rows].astype(np.intp)
        ts_ns, doubtful = choose_times(
            self._time, columns.source_ns[rows], columns.server_ns[rows], arrival_ns
        )
        quality = qualities(columns.status[rows])
        quality = np.zeros(len(rows), np.uint8) if quality is None else quality.copy()
        quality[is_empty & (quality < USABLE_BELOW)] = Quality.BAD
        if doubtful is not None:
            quality[doubtful & (quality == 0)] = Quality.UNCERTAIN_TIME
        out.good = tag[quality < USABLE_BELOW]
        part = self._tags.part[tag]
        for code in distinct(part):
            at = np.flatnonzero(part == code)
            cells = self._cells(values, rows[at], is_empty[at], code, out, arrival_ns)
            source, cell, found = cells
            self._frames(_Cells(cell, found, quality[at][source], ts_ns[at][source]), code, out, arrival_ns)

    def _cells(
        self,
        values: Values,
        rows: Rows,
        is_empty: npt.NDArray[np.bool_],
        code: int,
        out: Filed,
        arrival_ns: int,
    ) -> tuple[Rows, Rows, npt.NDArray[Any]]:
        """Place in `rows`, sensor and value of each sample of a part."""
        columns = values.columns
        tag = columns.tag[rows].astype(np.intp)
        if PARTS[code] == TEXT:
            return self._texts(values, rows, is_empty, out, arrival_ns)
        dtype = numpy_dtype(PARTS[code])
        nothing = np.nan if dtype.kind == "f" else 0
        found = np.full(len(rows), nothing, dtype)
        kind = np.where(is_empty, 0, columns.kind[rows])
        for one in distinct(kind):
            if one and not one & ARRAY:
                where = np.flatnonzero(kind == one)
                found[where] = native(columns.bits[rows[where]], one)
        is_array = self._tags.is_array[tag]
        if not is_array.any():
            return np.arange(len(rows)), self._tags.cell[tag], found
        sources, cells, parts = [], [], []
        for at in range(len(rows)):
            n, first = int(self._tags.n_cells[tag[at]]), int(self._tags.cell[tag[at]])
            some = found[at : at + 1]
            if is_array[at]:
                some = np.full(n, nothing, dtype)
                if kind[at]:
                    some = self._elements(values, int(rows[at]), n, out, arrival_ns).astype(dtype)
            sources.append(np.full(len(some), at))
            cells.append(np.arange(first, first + len(some)))
            parts.append(some)
        return np.concatenate(sources), np.concatenate(cells), np.concatenate(parts)

    def _elements(self, values: Values, row: int, n: int, out: Filed, arrival_ns: int) -> npt.NDArray[Any]:
        """The first `n` elements of an array of numbers; what is more is refused."""
        raw = values.raw(row)
        kind = int(values.columns.kind[row]) & _PLAIN
        size = element_bytes(kind)
        there = max(int.from_bytes(raw[1:5], "little", signed=True), 0)
        elements = np.frombuffer(raw, f"<u{size}", min(n, there), 5).astype(np.uint64)
        if there > n:
            tag = int(values.columns.tag[row])
            detail = f"{self._tags.path(tag)} has {there:,} elements, arrays says {n:,}; the rest is refused"
            kept = values.data_value(row)
            out.rejects.append(self._reject(RejectCode.WRONG_TYPE, tag, detail, kept, arrival_ns, there - n))
        return native(elements, kind)

    def _texts(
        self, values: Values, rows: Rows, is_empty: npt.NDArray[np.bool_], out: Filed, arrival_ns: int
    ) -> tuple[Rows, Rows, npt.NDArray[Any]]:
        texts: list[str] = []
        source: list[int] = []
        for at, row in enumerate(rows.tolist()):
            raw = values.raw(row)
            text = "" if is_empty[at] else text_of(raw)
            if text is None or not is_word(text):
                tag = int(values.columns.tag[row])
                detail = f"{self._tags.path(tag)}: no text of at most {TEXT_MAX:,} characters without NUL"
                kept = values.data_value(row)
                out.rejects.append(self._reject(RejectCode.WRONG_TYPE, tag, detail, kept, arrival_ns))
                continue
            texts.append(text)
            source.append(at)
        self._words.learn(texts)
        taken = np.array(source, np.intp)
        cells = self._tags.cell[values.columns.tag[rows[taken]]]
        return taken, cells, np.array(self._words.codes(texts), np.uint32)

    def _frames(self, cells: _Cells, code: int, out: Filed, arrival_ns: int) -> None:
        """Batches of a part, one or two a layout."""
        words = self._words.dictionary if PARTS[code] == TEXT else None
        layouts = self._directory.layout_index[self._tags.slot[cells.cell]]
        for layout in distinct(layouts):
            at = np.flatnonzero(layouts == layout)
            some = _Cells(cells.cell[at], cells.values[at], cells.quality[at], cells.ts_ns[at])
            width = self._directory.layouts[layout].width
            for batch in _batches(some, self._tags, width):
                out.batches.append(batch.with_(dictionary=words, arrival_ns=arrival_ns, origin=self._name))

    # --- what is refused -----------------------------------------------------------------------------

    def _refuse(self, values: Values, row: int, out: Filed, arrival_ns: int) -> None:
        """A value that its sensor can't take, or that has no sensor because it never had a value."""
        tag, kind = int(values.columns.tag[row]), int(values.columns.kind[row])
        part = int(self._tags.part[tag])
        status = int(values.columns.status[row])
        if part == NO_PART and (kind & _PLAIN == 0 or status >= _SEVERITY_BAD):
            if status >= _SEVERITY_BAD:
                self._state(tag, status_text(status), out, arrival_ns)
            return
        known, code = self._tags.problem.get(tag), RejectCode.WRONG_TYPE
        if part == NO_PART and part_of(kind) != NO_PART and not kind & ARRAY and known is not None:
            detail, code = f"{self._tags.path(tag)}: {known}", RejectCode.BAD_PATH
        else:
            detail = f"{self._tags.path(tag)} is {kind_text(kind)}, {self._expected(tag, part, kind)}"
            self._tags.problem[tag] = detail.partition(" is ")[2]
        raw = values.data_value(row)
        for number, other in enumerate(out.rejects):
            is_same = other.source == self.source(tag) and other.detail == detail
            if is_same and len(other.raw) + len(raw) < PACKED_RAW_BYTES:
                out.rejects[number] = replace(other, raw=other.raw + raw, n_samples=other.n_samples + 1)
                return
        out.rejects.append(self._reject(code, tag, detail, raw, arrival_ns))

    def _expected(self, tag: int, part: int, kind: int) -> str:
        signal = self._tags.signal_of(tag).name
        if kind & ARRAY and not self._tags.is_array[tag]:
            return f"expected a single value; to take it apart write arrays.{signal} = its number of elements"
        if self._tags.is_array[tag] and not kind & ARRAY:
            return f"expected an array, as arrays.{signal} says"
        if part == NO_PART or part_of(kind) == NO_PART:
            return "expected a number, text, time, true or false"
        return f"expected {PARTS[part]} as it was at first; give the signal another name to follow the change"

    def _state(self, tag: int, reason: str, out: Filed, arrival_ns: int) -> None:
        """Tell a state of a tag once."""
        if self._tags.problem.get(tag) != reason:
            self._tags.problem[tag] = reason
            detail = f"{self._tags.path(tag)}: {reason}"
            out.rejects.append(self._reject(RejectCode.DEVICE_ERROR, tag, detail, b"", arrival_ns))

    def tell(self, tag: int, reason: str, arrival_ns: int) -> Reject | None:
        """A state of a tag, as a reject the first time."""
        out = Filed()
        self._state(tag, reason, out, arrival_ns)
        return out.rejects[0] if out.rejects else None

    def source(self, tag: int) -> str:
        """Server and node of a tag, as rejects name it."""
        return f"{self._tags.plans[int(self._tags.device[tag])].server} {self._tags.address(tag)}"

    def _reject(
        self, code: RejectCode, tag: int, detail: str, raw: bytes, arrival_ns: int, n_samples: int = 1
    ) -> Reject:
        return Reject(code, self._name, self.source(tag), detail, raw[:MAX_RAW_BYTES], arrival_ns, n_samples)

    def _unknown(self, values: Values, rows: Rows, arrival_ns: int) -> Reject:
        handles = sorted(set(values.columns.tag[rows].tolist()))[:5]
        detail = f"values of items that nobody asked for: client handles {handles}"
        return Reject(
            RejectCode.UNKNOWN_TAG, self._name, "notification", detail, values.raw(int(rows[0]))[:MAX_RAW_BYTES],
            arrival_ns, len(rows),
        )  # fmt: skip


def _marks(values: Values, rows: Rows) -> npt.NDArray[np.uint64]:
    """What tells one value from another: its bytes, or a checksum where they are more than eight."""
    bits = values.columns.bits[rows].copy()
    kind = values.columns.kind[rows]
    for at in np.flatnonzero(IS_LONG[kind]).tolist():
        bits[at] = zlib.crc32(values.raw(int(rows[at])))
    return bits


def distinct(codes: npt.NDArray[np.integer[Any]]) -> list[int]:
    """The different small numbers among some; quick where there is one."""
    if not len(codes):
        return []
    first = int(codes[0])
    return [first] if (codes == first).all() else [int(one) for one in np.unique(codes)]


def in_order(keys: npt.NDArray[np.integer[Any]]) -> Rows | None:
    """What sorts `keys` (stable); None where they are sorted, as a device's mostly are."""
    return None if (keys[1:] >= keys[:-1]).all() else np.argsort(keys, kind="stable")


def _marked(quality: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """The qualities, or None where all are good."""
    return quality if quality.any() else None


def _ranks(cells: Rows) -> npt.NDArray[np.int64]:
    """How many of the same sensor came before each."""
    n = len(cells)
    order = in_order(cells)
    ranked = cells if order is None else cells[order]
    is_first = ranked[1:] != ranked[:-1]
    if is_first.all():
        return np.zeros(n, np.int64)
    at = np.arange(n)
    rank = at - np.maximum.accumulate(np.where(np.append(True, is_first), at, 0))
    if order is not None:
        rank[order] = rank.copy()
    return rank


def _batches(cells: _Cells, tags: TagTable, width: int) -> list[FrameBatch]:
    """Dense frames where all columns came with one time, else sparse ones.

    A frame holds the n-th values of its group's sensors, so that no sensor is twice in one.
    """
    n = len(cells.cell)
    rank = _ranks(cells.cell)
    slot, column = tags.slot[cells.cell], tags.column[cells.cell]
    values, quality, ts_ns = cells.values, cells.quality, cells.ts_ns
    order = in_order((rank << 48) | (slot.astype(np.int64) << 16) | column)
    if order is not None:
        slot, column, rank = slot[order], column[order], rank[order]
        values, quality, ts_ns = values[order], quality[order], ts_ns[order]
    if rank[-1] and (ts_ns == ts_ns[0]).all():
        ts_ns = ts_ns + rank  # all have the time of arrival: each a nanosecond after the one before
    begins = np.append(True, (slot[1:] != slot[:-1]) | (rank[1:] != rank[:-1]))
    first = np.flatnonzero(begins)
    count = np.diff(np.append(first, n))
    latest_ns, earliest_ns = np.maximum.reduceat(ts_ns, first), np.minimum.reduceat(ts_ns, first)
    is_dense = (count == width) & (latest_ns == earliest_ns)
    if rank[-1] and not is_dense.all():
        is_dense[:] = False  # in two batches the order of a sensor's values would be lost
    out: list[FrameBatch] = []
    if is_dense.any():
        frames = np.flatnonzero(is_dense)
        whole = slice(None) if is_dense.all() else np.repeat(is_dense, count)
        table, marks = values[whole].reshape(-1, width), _marked(quality[whole])
        if marks is not None:
            marks = marks.reshape(-1, width)
        out.append(FrameBatch.dense(slot[first[frames]], latest_ns[frames], table, marks))
    frames = np.flatnonzero(~is_dense)
    if len(frames):
        at = np.flatnonzero(np.repeat(~is_dense, count))
        start = np.append(0, np.cumsum(count[frames]))
        own_ns = None if (latest_ns == earliest_ns)[frames].all() else ts_ns[at]
        out.append(
            FrameBatch.sparse(
                slot[first[frames]],
                latest_ns[frames],
                values[at],
                start,
                column[at],
                quality=_marked(quality[at]),
                value_ts_ns=own_ns,
            )
        )
    return out
