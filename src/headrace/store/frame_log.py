"""Frames of one kind as columns that only grow: what a hot buffer is made of.

Batches are copied in one after the other, so that a shard holds no memory of the batch it was split from and
a flush finds its columns contiguous. Nothing is reserved by group: an idle group costs nothing. What is
filled never changes (but for samples that are erased), so views of it may be handed to other threads.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch, Shape, wave_offsets_ns
from headrace.core.layouts import numpy_dtype
from headrace.core.quality import Quality
from headrace.store.words import Words

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]
KindKey = tuple[Shape, str, int, tuple[str, ...] | None]

_ROWS_MIN = 64
PIECE_BYTES = 4 << 20
"""Bytes of values after which a log is full: what was taken for one is soon taken again, and none is grown for long."""

_BY_FRAME = {
    "slot": np.uint32,
    "ts_ns": np.int64,
    "end": np.int64,
    "rate_num": np.int64,
    "rate_den": np.int64,
}
_BY_VALUE: dict[str, Any] = {
    "values": None,
    "quality": np.uint8,
    "column": np.uint16,
    "value_ts_ns": np.int64,
}
_COLUMNS = {
    Shape.DENSE: ("slot", "ts_ns", "values"),
    Shape.SPARSE: ("slot", "ts_ns", "end", "values", "column"),
    Shape.WAVE: ("slot", "ts_ns", "end", "rate_num", "rate_den", "values"),
}


class FrameLog:
    """A growing batch of frames that agree in shape, value type and width, and in whether values are texts.

    Texts come with a dictionary for each batch; here they get one for all.

    Parameters
    ----------
    key : `FrameBatch.kind_key` of what will be appended; of texts with any dictionary.
    n_rows : frames or values to make room for at first, as many as the last log of this kind held.
    """

    def __init__(self, key: KindKey, n_frames: int = _ROWS_MIN, n_values: int = _ROWS_MIN) -> None:
        self.key = key
        self.shape, dtype, self.width, texts = key
        self._words = None if texts is None else Words()
        self.dtype = numpy_dtype(dtype)
        self.n_frames = 0
        self.n_rows = 0  # rows of `values`: frames of a dense log, else values
        self.n_samples = 0
        self.first_arrival_ns = NO_TIME
        self.last_arrival_ns = NO_TIME
        self._span = (2**63 - 1, NO_TIME)
        self._n_spanned = 0  # frames that `_span` covers
        self._marks: list[tuple[int, int, int, int]] = []  # seq, then frames, rows, samples up to there
        self._columns: dict[str, Array] = {}
        rows = n_frames if self.shape is Shape.DENSE else n_values
        self._frame_bytes = self._row_bytes = 0  # of all columns: asked for more often than one is added
        for name in _COLUMNS[self.shape]:
            self._add(name, n_frames if name in _BY_FRAME else rows)

    def _add(self, name: str, n: int) -> None:
        """A new column with room for n frames or rows."""
        column = self._columns[name] = self._room(name, n)
        if name in _BY_FRAME:
            self._frame_bytes += column.itemsize
        else:
            self._row_bytes += column.itemsize * (self.width if column.ndim == 2 else 1)

    def _room(self, name: str, n: int) -> Array:
        n = max(n, _ROWS_MIN)
        if name in _BY_FRAME:
            return np.empty(n, _BY_FRAME[name])
        shape = (n, self.width) if self.shape is Shape.DENSE else (n,)
        kind = self.dtype if name == "values" else _BY_VALUE[name]
        return np.zeros(shape, kind) if name == "quality" else np.empty(shape, kind)

    @property
    def size_bytes(self) -> int:
        """Bytes of the filled columns."""
        return self.n_frames * self._frame_bytes + self.n_rows * self._row_bytes

    @property
    def kind_key(self) -> KindKey:
        """As `FrameBatch.kind_key`."""
        return self.key if self._words is None else (*self.key[:3], self._words.all)

    @property
    def last_seq(self) -> int:
        """Journal number of the newest batch; -1 when empty."""
        return self._marks[-1][0] if self._marks else -1

    @property
    def dictionary(self) -> tuple[str, ...] | None:
        """Words that the values are codes of."""
        return None if self._words is None else self._words.all

    def has_room_for(self, dictionary: tuple[str, ...] | None) -> bool:
        """Whether the value type has codes for some more words."""
        if self._words is None or dictionary is None:
            return True
        # A code outside of its dictionary becomes a word of its own: leave room for some.
        return self._words.n_with(dictionary) <= int(np.iinfo(self.dtype).max) // 2

    def is_full_for(self, batch: FrameBatch) -> bool:
        """Whether a batch should go into the next log. Texts share a dictionary, so one log has all."""
        rows = batch.n_frames if self.shape is Shape.DENSE else batch.n_values
        return self._words is None and self.n_rows > 0 and self.n_rows + rows > self._rows_max

    @property
    def _rows_max(self) -> int:
        return PIECE_BYTES // (self.dtype.itemsize * (self.width if self.shape is Shape.DENSE else 1))

    def n_rows_before(self, seq: int) -> int:
        """Rows of the batches before journal number `seq`."""
        at = bisect_left(self._marks, seq, key=lambda mark: mark[0])
        return self._marks[at - 1][2] if at else 0

    def append(self, seq: int, batch: FrameBatch) -> None:
        """Copy a batch in; `seq` must not be below the last one's."""
        rows = batch.n_frames if self.shape is Shape.DENSE else batch.n_values
        frames, values = self.n_frames, self.n_rows
        for name, column in self._filled(batch):
            first, n = (frames, batch.n_frames) if name in _BY_FRAME else (values, rows)
            self._reserve(name, first, n)
            self._columns[name][first : first + n] = column
        self.n_frames, self.n_rows = frames + batch.n_frames, values + rows
        self.n_samples += batch.n_samples
        if self.first_arrival_ns == NO_TIME:
            self.first_arrival_ns = batch.arrival_ns
        self.last_arrival_ns = max(self.last_arrival_ns, batch.arrival_ns)
        mark = (seq, self.n_frames, self.n_rows, self.n_samples)
        if self._marks and self._marks[-1][0] == seq:
            self._marks[-1] = mark
        else:
            self._marks.append(mark)

    def _filled(self, batch: FrameBatch) -> list[tuple[str, Any]]:
        """The columns to write for `batch`; optional ones as soon as one batch has had them."""
        out: list[tuple[str, Any]] = []
        for name in _COLUMNS[self.shape]:
            if name == "end":
                assert batch.start is not None
                out.append((name, batch.start[1:] + self.n_rows))
            elif name == "values" and self._words is not None and batch.dictionary is not None:
                out.append((name, self._words.translate(batch.values, batch.dictionary)))
            else:
                out.append((name, getattr(batch, name)))
        if batch.quality is not None or "quality" in self._columns:
            out.append(("quality", 0 if batch.quality is None else batch.quality))
        if batch.value_ts_ns is not None or "value_ts_ns" in self._columns:
            if "value_ts_ns" not in self._columns and self.n_frames:
                past = self.frames(0, self.n_frames).value_times()
                self._reserve("value_ts_ns", 0, self.n_rows)
                self._columns["value_ts_ns"][: self.n_rows] = past
            out.append(("value_ts_ns", batch.value_times()))
        return out

    def _reserve(self, name: str, first: int, n: int) -> None:
        column = self._columns.get(name)
        if column is None:
            self._add(name, first + n)
        elif first + n > len(column):
            twice = 2 * len(column)
            if self._words is None and len(column) < self._rows_max:
                twice = min(twice, self._rows_max)
            grown = self._room(name, max(first + n, twice))
            grown[:first] = column[:first]
            self._columns[name] = grown

    def span(self) -> tuple[int, int]:
        """Earliest and latest time of a value; the former is later where there is none."""
        if self._n_spanned < self.n_frames:
            new = self.frames(self._n_spanned, self.n_frames)
            times = new.ts_ns if self.shape is Shape.DENSE else new.value_times()
            low, high = self._span
            low, high = int(times.min(initial=low)), int(times.max(initial=high))
            self._span, self._n_spanned = (low, high), self.n_frames
        return self._span

    def frames(self, first: int, last: int) -> FrameBatch:
        """Frames ``first:last`` as views."""
        c, dense = self._columns, self.shape is Shape.DENSE
        a = b = 0
        if dense:
            a, b = first, last
        else:
            a = int(c["end"][first - 1]) if first else 0
            b = int(c["end"][last - 1]) if last else 0
        rest: dict[str, Any] = {"dictionary": self.dictionary, "arrival_ns": self.last_arrival_ns}
        for name in ("quality", "value_ts_ns"):
            if name in c:
                rest[name] = c[name][a:b]
        slot, ts_ns, values = c["slot"][first:last], c["ts_ns"][first:last], c["values"][a:b]
        if dense:
            return FrameBatch.dense(slot, ts_ns, values, **rest)
        start = np.empty(last - first + 1, np.int64)
        start[0] = 0
        np.subtract(c["end"][first:last], a, out=start[1:])
        if self.shape is Shape.SPARSE:
            return FrameBatch.sparse(slot, ts_ns, values, start, c["column"][a:b], **rest)
        rate = (c["rate_num"][first:last], c["rate_den"][first:last])
        return FrameBatch.wave(slot, ts_ns, values, start, rate, **rest)

    def places(self, rows: I64) -> tuple[U32, U16, I64]:
        """(slot, column, time) of rows; of a dense log, whose rows are frames, the columns are all 0."""
        c = self._columns
        if self.shape is Shape.DENSE:
            return c["slot"][rows], np.zeros(len(rows), np.uint16), c["ts_ns"][rows]
        frame = np.searchsorted(c["end"][: self.n_frames], rows, "right")
        column = c["column"][rows] if "column" in c else np.zeros(len(rows), np.uint16)
        if "value_ts_ns" in c:
            return c["slot"][frame], column, c["value_ts_ns"][rows]
        ts_ns = c["ts_ns"][frame]
        if self.shape is Shape.WAVE:
            first = np.where(frame > 0, c["end"][frame - 1], 0)
            ts_ns = ts_ns + wave_offsets_ns(rows - first, c["rate_num"][frame], c["rate_den"][frame])
        return c["slot"][frame], column, ts_ns

    def at(self, rows: I64, column: I64) -> tuple[Array, U8]:
        """Values and quality at rows; `column` counts for a dense log only."""
        c = self._columns
        place = (rows, column) if self.shape is Shape.DENSE else (rows,)
        quality = c["quality"][place] if "quality" in c else np.zeros(len(rows), np.uint8)
        return c["values"][place], quality

    def erase(self, rows: I64) -> None:
        """Make samples of a sparse log absent. They still count as samples that came."""
        if len(rows):
            if "quality" not in self._columns:
                self._add("quality", len(self._columns["values"]))
            self._columns["quality"][rows] = Quality.ABSENT

    @property
    def has_quality(self) -> bool:
        """Whether a batch had quality."""
        return "quality" in self._columns

    def value_times(self) -> I64:
        """Time of each value: int64, as `FrameBatch.value_times`."""
        own = "value_ts_ns" in self._columns
        return self.column("value_ts_ns") if own else self.batch().value_times()

    def column(self, name: str) -> Array:
        """What is filled of a column: a view; quality 0 where no batch had any."""
        if name == "quality" and not self.has_quality:
            return np.zeros((self.n_rows, self.width)[: 1 + (self.shape is Shape.DENSE)], np.uint8)
        return self._columns[name][: self.n_frames if name in _BY_FRAME else self.n_rows]

    def batch(self) -> FrameBatch:
        """All frames as views."""
        return self.frames(0, self.n_frames)

    def split(self, seq: int) -> tuple[FrameLog | None, FrameLog | None]:
        """What was appended up to `seq`, and what later (copied); None for nothing."""
        if self.last_seq <= seq:
            return (self, None) if self._marks else (None, None)
        at = bisect_right(self._marks, seq, key=lambda mark: mark[0])
        if at == 0:
            return None, self
        _, frames, rows, samples = self._marks[at - 1]
        later = FrameLog(self.key, self.n_frames - frames, self.n_rows - rows)
        done = frames
        for number, end, _, _ in self._marks[at:]:
            later.append(number, self.frames(done, end))
            done = end
        later.first_arrival_ns = self.last_arrival_ns
        later.n_samples = self.n_samples - samples
        self.n_frames, self.n_rows, self.n_samples = frames, rows, samples
        self._marks = self._marks[:at]
        return self, later


def joined(logs: Sequence[FrameLog]) -> FrameBatch:
    """All frames of some logs of one `FrameLog.kind_key`, in order: without a batch of each, as a flush has hundreds."""
    first = logs[0]
    if len(logs) == 1:
        return first.batch()
    columns = [log._columns for log in logs]
    n_frames, n_rows = [log.n_frames for log in logs], [log.n_rows for log in logs]
    one: dict[str, Any] = {}
    for name in _COLUMNS[first.shape]:
        n = n_frames if name in _BY_FRAME else n_rows
        filled = [some[name][:k] for some, k in zip(columns, n, strict=True)]
        if name == "end":
            one["start"] = _starts(filled, n_rows)
        else:
            one[name] = np.concatenate(filled)
    if any("quality" in some for some in columns):
        one["quality"] = np.concatenate([log.column("quality") for log in logs])
    if any("value_ts_ns" in some for some in columns):
        one["value_ts_ns"] = np.concatenate([log.value_times() for log in logs])
    for column in one.values():
        column.setflags(False)
    return FrameBatch(first.shape, dictionary=first.dictionary, arrival_ns=first.last_arrival_ns, **one)


def _starts(ends: Sequence[I64], n_rows: Sequence[int]) -> I64:
    """Where each frame's values start in those of all logs; `ends` are where they end in their own."""
    n_frames = [len(end) for end in ends]
    start = np.zeros(sum(n_frames) + 1, np.int64)
    np.concatenate(ends, out=start[1:])
    start[1:] += np.repeat(np.cumsum(n_rows) - n_rows, n_frames)
    return start
