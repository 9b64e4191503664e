"""Rows of many messages → frame batches, a few NumPy calls for each part and none for each value.

Decoders add rows (device, time, keys, values); `Rows.build` makes the batches. Frames of a device keep the order in
which they came. A part's frames become dense columns where at least half of all values are there (the others have
quality ABSENT), else sparse ones.

What is checked here, for all formats: an integer that f64 or i64 can't hold exactly is refused, never rounded; a
number that is not finite is kept with quality BAD_NOT_FINITE; a text has a bounded length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.base import Decoded, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import (
    EXACT_MAX,
    I64_MAX,
    DeviceGroup,
    DeviceGroups,
    PartPlan,
    PartTable,
    RowPlan,
    classes_of,
)
from headrace.adapters.payloads.words import TEXT_MAX, WordTable, is_word
from headrace.core.clock import NO_TIME
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Layout, numpy_dtype
from headrace.core.quality import Quality

N_REJECTS_MAX = 16
"""Rejects of one message; what else is refused of it is added to the last one of the same code."""
N_REFUSED_MAX = 1_000
"""Mistakes of one message after which a decoder reads no further: it would only take time."""
Bad = npt.NDArray[np.bool_]
W = TypeVar("W")


_Entry = tuple[int, int, PartPlan, tuple[Any, ...], TopicMessage]
"""Slot, time, plan, values, message: a plain tuple, for there is one for each row."""


class Rows:
    """Collects the rows of a slice of messages of one adapter.

    Parameters
    ----------
    origin : the adapter's name.

    Attributes
    ----------
    arrival_ns : of the slice, which its batches may have from the beginning.
    """

    def __init__(self, origin: str, groups: DeviceGroups) -> None:
        self.origin = origin
        self.arrival_ns = 0
        self.words = WordTable()
        self._groups = groups
        self._kept: dict[object, Any] = {}
        self._buckets: dict[PartTable, list[_Entry]] = {}
        self._segment = 0
        self._batches: list[FrameBatch] = []
        self._rejects: list[Reject] = []
        self._refused: TopicMessage | None = None
        self._n_refused = 0
        self._timed: TopicMessage | None = None
        self._n_timed = 0

    def add(
        self,
        message: TopicMessage,
        group: DeviceGroup,
        ts_ns: int,
        row: tuple[tuple[str, ...], tuple[Any, ...]],
        settings: RuleSettings,
    ) -> None:
        """Take one instant of a device.

        Parameters
        ----------
        ts_ns : its time; `NO_TIME` makes it the message's, else its arrival (later than the device's one before).
        row : keys and their values: int, float, bool, str or None.
        """
        keys, values = row
        plan = group.table.by_type.get((keys, tuple(map(type, values))))
        if plan is None or plan.refusals:
            self.add_many(message, group, [ts_ns], (keys, [values]), settings)
            return
        if ts_ns == NO_TIME:
            ts_ns = self._time_of(message, group)
        group.segment = self._segment
        slots = group.slots
        for part in plan.parts:
            bucket = self._buckets.get(part.part)
            if bucket is None:
                bucket = self._buckets[part.part] = []
            bucket.append((slots[part.dtype], ts_ns, part, values, message))

    def add_many(
        self,
        message: TopicMessage,
        group: DeviceGroup,
        ts_ns: list[int],
        table: tuple[tuple[str, ...], list[tuple[Any, ...]]],
        settings: RuleSettings,
    ) -> None:
        """Take many instants of a device with the same keys, in the order of the message; see `add`."""
        keys, rows = table
        if NO_TIME in ts_ns:
            ts_ns = [self._time_of(message, group) if time == NO_TIME else time for time in ts_ns]
        if len(rows) > 1 and not _are_alike(rows):
            for time, values in zip(ts_ns, rows, strict=True):
                self.add_many(message, group, [time], (keys, [values]), settings)
            return
        before = group.table
        plan = self._groups.plan(group, keys, rows[0], settings)
        if group.table is not before and group.segment == self._segment:
            self._cut()  # frames of the old layout go first
        group.segment = self._segment
        for part in plan.parts:
            slot = group.slots[part.dtype]
            entries = [(slot, time, part, values, message) for time, values in zip(ts_ns, rows, strict=True)]
            self._buckets.setdefault(part.part, []).extend(entries)
        for code, detail, n_samples in plan.refusals:
            self.refuse(message, code, detail, n_samples * len(rows))

    def _time_of(self, message: TopicMessage, group: DeviceGroup) -> int:
        """The time of an instant that has none: each a nanosecond later than the one before at least."""
        if message.time_ns == NO_TIME:
            group.last_arrival_ns = max(message.arrival_ns, group.last_arrival_ns + 1)
            return group.last_arrival_ns
        if message is not self._timed:
            self._timed, self._n_timed = message, -1
        self._n_timed += 1
        return message.time_ns + self._n_timed

    # --- for decoders that make columns themselves ---------------------------------------------------

    @property
    def version(self) -> int:
        """Changes whenever a device has got another slot."""
        return self._groups.version

    def plan(
        self, group: DeviceGroup, keys: tuple[str, ...], values: tuple[Any, ...], settings: RuleSettings
    ) -> RowPlan:
        """The plan for rows of a device with these keys and values like these."""
        return self._groups.plan(group, keys, values, settings)

    def introduce(
        self, some: Sequence[DeviceGroup], keys: tuple[str, ...], values: tuple[Any, ...],
        settings: RuleSettings,
    ) -> None:  # fmt: skip
        """Make keys of devices that have none yet known, where all of them can have them."""
        self._groups.introduce(some, keys, values, settings)

    def place(self, group: DeviceGroup, layout: Layout, settings: RuleSettings) -> npt.NDArray[np.uint16]:
        """Which columns of a device are those of `layout`. Raises PayloadError."""
        return self._groups.place(group, layout, settings)

    def workspace(self, owner: object, make: Callable[[], W]) -> W:
        """What a decoder keeps for the devices of these rows; made when it asks for it first."""
        found: W | None = self._kept.get(owner)
        if found is None:
            found = self._kept[owner] = make()
        return found

    def add_batches(self, batches: Sequence[FrameBatch]) -> None:
        """Take frames behind all rows that came so far."""
        if self._buckets:
            self._cut()
        self._batches += batches

    def refuse_values(self, message: TopicMessage, dtype: str, n_samples: int) -> None:
        """Take note of values that their sensors, of this value type, can't hold."""
        self.refuse(message, RejectCode.WRONG_TYPE, _REFUSED[dtype], n_samples)

    # --- refusals ------------------------------------------------------------------------------------

    def refuse(self, message: TopicMessage, code: RejectCode, detail: str, n_samples: int = 1) -> None:
        """Take note of `n_samples` values of a message that can't be taken."""
        if message is not self._refused:
            self._refused, self._n_refused = message, 0
        self._n_refused += 1
        if self._n_refused > N_REJECTS_MAX:
            # One message of a megabyte can have half a million mistakes; each would keep all of it.
            for i in range(1, N_REJECTS_MAX + 1):
                same = self._rejects[-i]
                if same.code is code:
                    self._rejects[-i] = replace(same, n_samples=same.n_samples + n_samples)
                    return
        self._rejects.append(make_reject(self.origin, message, code, detail, n_samples))

    def build(self, arrival_ns: int) -> Decoded:
        """Everything since the last call, as batches in the order they must be taken, and rejects."""
        self._cut()
        batches = [b if b.arrival_ns == arrival_ns else b.with_(arrival_ns=arrival_ns) for b in self._batches]
        out = Decoded(batches, self._rejects)
        self._batches, self._rejects = [], []
        return out

    def _cut(self) -> None:
        for part, entries in self._buckets.items():
            self._batches.append(self._batch(part, entries))
        self._buckets = {}
        self._segment += 1

    # --- columns -------------------------------------------------------------------------------------

    def _batch(self, part: PartTable, entries: list[_Entry]) -> FrameBatch:
        slots, times, plans, values, messages = zip(*entries, strict=True)
        slot, ts_ns = np.array(slots, np.uint32), np.array(times, np.int64)
        if part.dtype == "u32":
            self.words.learn(
                chain.from_iterable(p.pick(v) if p.pick else v for p, v in zip(plans, values, strict=True))
            )
        if plans[0].is_whole and len(set(plans)) == 1:
            cells, quality = self._matrix(plans[0], values, messages)
            return self._dense(part, slot, ts_ns, cells, quality)
        start = np.zeros(len(entries) + 1, np.int64)
        np.cumsum([plan.n for plan in plans], out=start[1:])
        width = part.layout.width
        is_sparse = 2 * start[-1] < len(entries) * width
        cells = np.zeros(start[-1] if is_sparse else len(entries) * width, numpy_dtype(part.dtype))
        quality = np.full(cells.shape, 0 if is_sparse else Quality.ABSENT, np.uint8)
        for plan, numbers in _rows_of(plans).items():
            some, marks = self._matrix(plan, [values[i] for i in numbers], [messages[i] for i in numbers])
            rows = np.array(numbers)[:, None]
            at = start[rows] + np.arange(plan.n) if is_sparse else rows * width + plan.columns
            cells[at] = some
            quality[at] = 0 if marks is None else marks
        if not is_sparse:
            shape = len(entries), width
            marks = quality.reshape(shape) if quality.any() else None
            return self._dense(part, slot, ts_ns, cells.reshape(shape), marks)
        return FrameBatch.sparse(
            slot, ts_ns, cells, start, np.concatenate([plan.columns for plan in plans]),
            quality=quality if quality.any() else None, dictionary=self._dictionary(part), origin=self.origin,
        )  # fmt: skip

    def _dense(
        self,
        part: PartTable,
        slot: npt.NDArray[np.uint32],
        ts_ns: npt.NDArray[np.int64],
        cells: npt.NDArray[Any],
        quality: npt.NDArray[np.uint8] | None,
    ) -> FrameBatch:
        words = self._dictionary(part)
        return FrameBatch.dense(slot, ts_ns, cells, quality, dictionary=words, origin=self.origin)

    def _matrix(
        self, plan: PartPlan, values: Any, messages: Any
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
        """Values of messages with the same keys: T[F, n], and uint8[F, n] or None where all are good."""
        rows = [plan.pick(v) for v in values] if plan.pick else values
        dtype = plan.dtype
        cells: npt.NDArray[Any]
        bad: Bad | None = None
        if dtype == "f64":
            cells, bad = _floats(rows)
        elif dtype == "i64":
            cells, bad = _integers(rows)
        elif dtype == "u8":
            cells = np.array(rows, np.uint8)
        else:
            cells, bad = self._codes(rows)
        quality = None
        if dtype == "f64" and not np.isfinite(cells).all():
            quality = ~np.isfinite(cells) * np.uint8(Quality.BAD_NOT_FINITE)
        if bad is not None:
            quality = np.zeros(cells.shape, np.uint8) if quality is None else quality
            quality[bad] = Quality.ABSENT
            for number in np.flatnonzero(bad.any(axis=1)).tolist():
                self.refuse_values(messages[number], dtype, int(bad[number].sum()))
        return cells, quality

    # --- texts ---------------------------------------------------------------------------------------

    def _codes(self, rows: list[tuple[str, ...]]) -> tuple[npt.NDArray[Any], Bad | None]:
        bad = np.array([[not is_word(text) for text in row] for row in rows])
        codes = np.array([self.words.codes(row) for row in rows], np.uint32)
        return codes, bad if bad.any() else None

    def _dictionary(self, part: PartTable) -> tuple[str, ...] | None:
        return self.words.dictionary if part.dtype == "u32" else None


def make_reject(
    adapter: str, message: TopicMessage, code: RejectCode, detail: str, n_samples: int = 1
) -> Reject:
    """The reject of a message, with the first MiB of it; its arrival is what samples without a time would get."""
    raw = message.payload[:MAX_RAW_BYTES]
    first_ns = message.arrival_ns if message.time_ns == NO_TIME else message.time_ns
    return Reject(code, adapter, message.source, detail, raw, first_ns, n_samples)


def _rows_of(plans: tuple[PartPlan, ...]) -> dict[PartPlan, list[int]]:
    rows: dict[PartPlan, list[int]] = {}
    for number, plan in enumerate(plans):
        rows.setdefault(plan, []).append(number)
    return rows


_REFUSED = {
    "f64": "an integer that a 64-bit float can't hold exactly; declare the key as i64 under types",
    "i64": "not a whole number of at most 63 bits",
    "u32": f"a text longer than {TEXT_MAX:,} characters, or with a NUL in it",
}


def _are_alike(rows: list[tuple[Any, ...]]) -> bool:
    """Whether all rows have the same kinds of values, column by column."""
    return all(len(set(classes_of(set(map(type, column))))) == 1 for column in zip(*rows, strict=True))


def _floats(rows: list[tuple[Any, ...]]) -> tuple[npt.NDArray[np.float64], Bad | None]:
    """Numbers as float64, and which are integers that would be rounded."""
    try:
        n = len(rows[0])
        cells = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * n).reshape(-1, n)
        if not (np.abs(cells) >= EXACT_MAX).any():
            return cells, None
    except OverflowError:
        cells = np.zeros((len(rows), n))
    bad = np.zeros(cells.shape, np.bool_)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            bad[i, j] = type(value) is int and abs(value) > EXACT_MAX
            cells[i, j] = 0.0 if bad[i, j] else value
    return cells, bad if bad.any() else None


def _integers(rows: list[tuple[Any, ...]]) -> tuple[npt.NDArray[np.int64], Bad | None]:
    """Numbers as int64, and which are not whole or too large."""
    good = [[_is_integer(value) for value in row] for row in rows]
    cells = np.array(
        [
            [int(value) if ok else 0 for value, ok in zip(row, some, strict=True)]
            for row, some in zip(rows, good, strict=True)
        ],
        np.int64,
    )
    bad = ~np.array(good)
    return cells, bad if bad.any() else None


def _is_integer(value: float) -> bool:
    """Whether i64 holds it: an int of 63 bits, or a float that is whole and was not rounded when it was parsed."""
    if type(value) is int:
        return abs(value) <= I64_MAX
    return value.is_integer() and abs(value) <= EXACT_MAX


def cut_short(reject: Reject) -> Reject | None:
    """What to say of a reject that does not hold all of its message, which so can't be decoded again; None where it does."""
    if not reject.source:
        return reject  # of a broker, what is no message: it has no topic
    if len(reject.raw) < MAX_RAW_BYTES:
        return None
    return replace(reject, detail=f"only its first {MAX_RAW_BYTES:,} bytes were kept")
