"""Answers of any size, slice by slice: each slice fits into a bounded memory, whatever was asked for.

Rows come parent by parent in the order of `SensorTree`, within it sensor by sensor, within it by time. Where more
than `BY_SHARD_ABOVE` sensors match, they come shard by shard, each in that order, so that the unflushed tail of one
shard at a time is in memory. An answer that ends at a limit can be continued behind its last row.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NS
from headrace.core.errors import ConfigError, NotFound
from headrace.core.frames import FrameBatch
from headrace.core.sensors import Selection, sensor_id
from headrace.core.spans import TimeRange
from headrace.runtime.reader import StoreReader, UnflushedTail
from headrace.runtime.tree import SensorTree, Siblings
from headrace.store.query import nearest_path
from headrace.store.result import QueryResult

BY_SHARD_ABOVE = 20_000
SLICE_ROWS = 200_000
"""About how many samples or windows a slice has."""
_BATCH_SENSORS = 5_000
_SPAN_NS_MIN = NS
_NOTES_MAX = 16


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a pattern, a span [start_ns, end_ns), and windows or none."""

    pattern: str
    start_ns: int
    end_ns: int
    every_ns: int | None = None
    agg: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerPlace:
    """A place in an answer: behind the row of `path` at `ts_ns`.

    It carries the whole question, so that the rest of an answer has the same span, whatever the time is by then.
    """

    question: Question
    path: str
    ts_ns: int
    by_shard: bool

    @property
    def parent(self) -> str:
        """The path above."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last level."""
        return self.path.rpartition("/")[2]

    def to_text(self) -> str:
        """A word for it without meaning to anybody else."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of `to_text`.

        Raises
        ------
        ConfigError : the text is no such word.
        """
        try:
            data = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            asked = data.pop("question")
            question = Question(**{**asked, "agg": tuple(str(word) for word in asked["agg"])})
            place = cls(question, **data)
            numbers = (question.start_ns, question.end_ns, place.ts_ns, question.every_ns or 0)
            fits = all(type(n) is int and abs(n) < 2**63 for n in numbers)
            if not fits or not all(isinstance(t, str) for t in (question.pattern, place.path)):
                raise ValueError("not the types")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise ConfigError("the cursor is none that was given out; ask without it", "cursor") from e
        return place


_Piece = tuple[Selection, TimeRange]
"""Sensors and a span whose rows are about a slice."""
_Tail = list[FrameBatch]


class SlicedAnswer:
    """One question, answered slice by slice; iterate once. Blocks while it reads.

    Parameters
    ----------
    tree : of the reader's directory. after : begin behind this place.
    slice_rows : about how many rows a slice has.

    Raises
    ------
    NotFound : the pattern matches no sensor. ConfigError : the pattern or the aggregates can't be.
    """

    def __init__(
        self,
        reader: StoreReader,
        tree: SensorTree,
        question: Question,
        after: AnswerPlace | None = None,
        slice_rows: int = SLICE_ROWS,
    ) -> None:
        self._reader, self._tree, self._asked = reader, tree, question
        self._after, self._slice_rows = after, slice_rows
        self._tail: UnflushedTail = reader.tail()
        if after is None:
            n = sum(len(one.names) for one in islice(tree.siblings(question.pattern), BY_SHARD_ABOVE + 1))
            if not n:
                near = nearest_path(reader.directory, question.pattern)
                hint = f"; the nearest path is {near!r}" if near else "; the store has no sensors yet"
                raise NotFound(f"no sensor matches {question.pattern!r}{hint}")
            self.by_shard = n > BY_SHARD_ABOVE
        else:
            self.by_shard = after.by_shard
        self.fresh_to_ns = self._tail.now_ns
        self.missing: list[str] = []
        self.sources: dict[str, int] = {}
        self.resolution_ns = 0
        self.notes: list[str] = []

    def place(self, path: str, ts_ns: int) -> AnswerPlace:
        """Behind a row of the answer."""
        return AnswerPlace(self._asked, path, ts_ns, self.by_shard)

    def __iter__(self) -> Iterator[QueryResult]:
        """Slices, none of them empty but perhaps the first, which shows the columns."""
        is_first = True
        for siblings, tail in self._portions():
            for sensors, span in self._pieces(siblings, tail):
                result = self._ask(sensors, span, tail)
                if result.n_rows or is_first:
                    is_first = False
                    yield result

    # --- what is read together -----------------------------------------------------------------------

    def _portions(self) -> Iterator[tuple[Iterator[Siblings], _Tail]]:
        """Sensors whose tails are in memory together, and these tails."""
        after = self._after
        start = "" if after is None else after.parent
        if not self.by_shard:
            matched = list(self._matched(start))
            yield iter(matched), self._frames(matched)
            return
        directory = self._reader.directory
        first = -1 if after is None else self._shard(after)
        for shard in range(max(first, 0), directory.n_shards):
            matched = [
                mine
                for one in self._matched(start if shard == first else "")
                if (mine := _of_shard(one, directory.shard, shard)).names
            ]
            if matched:
                yield iter(matched), self._frames(matched)

    def _shard(self, after: AnswerPlace) -> int:
        """Shard of the sensor at which an answer ended."""
        directory = self._reader.directory
        found = self._tree.of_parent(after.parent)
        if found is not None and after.name in found.names:
            return int(directory.shard[found.slot[found.names.index(after.name)]])
        return sensor_id(after.parent) >> (64 - directory.shard_bits)

    def _matched(self, start: str) -> Iterator[Siblings]:
        """Matching sensors from a parent on, without those whose rows were all given."""
        after = self._after
        for one in self._tree.siblings(self._asked.pattern, start):
            if after is not None and start and one.parent == after.parent:
                one = one.take([i for i, name in enumerate(one.names) if name >= after.name])
            for first in range(0, len(one.names), _BATCH_SENSORS):
                yield one.take(slice(first, first + _BATCH_SENSORS))

    def _frames(self, siblings: Sequence[Siblings]) -> _Tail:
        if not siblings:
            return []
        slots = np.unique(np.concatenate([one.slot for one in siblings]))
        # Frames of a group's earlier layouts may wait as well.
        directory = self._reader.directory
        if (directory.previous >= 0).any():
            groups = directory.group_id[slots]
            slots = np.flatnonzero(np.isin(directory.group_id, groups)).astype(np.uint32)
        batches = self._tail.frames(slots)
        self.fresh_to_ns = min(self.fresh_to_ns, self._tail.now_ns)
        self._miss(self._tail.notes(slots))
        name = f"{self._tail.name}_frames"
        self.sources[name] = self.sources.get(name, 0) + sum(batch.n_frames for batch in batches)
        return batches

    def _miss(self, sentences: Sequence[str]) -> None:
        self.missing += [one for one in sentences if one not in self.missing]

    # --- slices --------------------------------------------------------------------------------------

    def _pieces(self, siblings: Iterator[Siblings], tail: _Tail) -> Iterator[_Piece]:
        """Sensors and spans of about a slice each, in the order of the answer."""
        span = TimeRange(self._asked.start_ns, self._asked.end_ns)
        first = next(siblings, None) if self._after is not None else None
        if first is not None:
            yield from self._continued(first, span, tail)
        batch: list[Siblings] = []
        for one in siblings:
            batch.append(one)
            if sum(len(b.names) for b in batch) >= _BATCH_SENSORS:
                yield from self._cut(batch, span, tail)
                batch = []
        if batch:
            yield from self._cut(batch, span, tail)

    def _continued(self, one: Siblings, span: TimeRange, tail: _Tail) -> Iterator[_Piece]:
        """The parent at which the answer ended before: the rest of one sensor first."""
        after = self._after
        assert after is not None
        rest = one
        if one.paths()[0] == after.path:
            start_ns = after.ts_ns + (self._asked.every_ns or 1)
            if not (self._asked.agg and self._asked.every_ns is None) and start_ns < span.end_ns:
                yield from self._cut([one.take(slice(0, 1))], TimeRange(start_ns, span.end_ns), tail)
            rest = one.take(slice(1, None))
        if rest.names:
            yield from self._cut([rest], span, tail)

    def _cut(self, batch: list[Siblings], span: TimeRange, tail: _Tail) -> Iterator[_Piece]:
        """Join small parents, cut large ones."""
        selection = _joined(batch)
        weight = self._weights(selection, span, tail)
        if weight.sum() <= self._slice_rows:
            yield selection, span
            return
        first = 0
        while first < len(weight):
            end = first + max(1, int(np.searchsorted(np.cumsum(weight[first:]), self._slice_rows, "right")))
            part = _part(selection, first, end)
            if end - first == 1:
                yield from self._cut_span(part, span, tail)
            else:
                yield part, span
            first = end

    def _cut_span(self, sensor: Selection, span: TimeRange, tail: _Tail) -> Iterator[_Piece]:
        """One sensor that may have more rows than a slice: halve its span until they fit."""
        every_ns = self._asked.every_ns
        if self._asked.agg and every_ns is None:
            yield sensor, span
            return
        length_ns = span.end_ns - span.start_ns
        weight = self._weight(sensor, span, tail)
        if weight <= self._slice_rows or length_ns < 2 * max(every_ns or 1, _SPAN_NS_MIN):
            yield sensor, span
            return
        middle_ns = span.start_ns + length_ns // 2
        middle_ns -= middle_ns % (every_ns or 1)
        halves = TimeRange(span.start_ns, middle_ns), TimeRange(middle_ns, span.end_ns)
        if middle_ns <= span.start_ns or min(self._weight(sensor, half, tail) for half in halves) >= weight:
            yield sensor, span  # what is stored there is read as a whole: parting it saves nothing
            return
        for half in halves:
            yield from self._cut_span(sensor, half, tail)

    def _weight(self, sensor: Selection, span: TimeRange, tail: _Tail) -> float:
        return float(self._weights(sensor, span, tail).sum())

    def _weights(self, sensors: Selection, span: TimeRange, tail: _Tail) -> npt.NDArray[np.float64]:
        """About how many rows each sensor gives: float64[n], at least 1, so that a slice has so many sensors at most."""
        store = self._reader.store
        wanted = store.index(sensors)
        of_group = store.expected_samples(wanted, span.start_ns, span.end_ns)
        # `index` sorts by path; a sensor's share of its group does not depend on the order.
        group = wanted.group_of_place[wanted.places_of_slots(sensors.slot)]
        n = np.bincount(group, minlength=len(of_group))
        each = of_group[group] / np.maximum(n[group], 1)
        width = self._reader.directory.width
        for batch in tail:
            frames = np.bincount(batch.slot, minlength=len(width))[sensors.slot]
            each += frames * (batch.n_samples / max(batch.n_frames, 1)) / width[sensors.slot]
        if self._asked.agg:
            every_ns = self._asked.every_ns
            windows = 1 if every_ns is None else (span.end_ns - span.start_ns) // every_ns + 2
            each = np.minimum(each, windows)
        return np.maximum(each, 1.0)

    def _ask(self, sensors: Selection, span: TimeRange, tail: _Tail) -> QueryResult:
        asked, store = self._asked, self._reader.store

        def frames(slots: npt.NDArray[np.uint32]) -> _Tail:
            wanted = np.zeros(self._reader.directory.n_slots, np.bool_)
            wanted[slots] = True
            found = [batch.take(np.flatnonzero(wanted[batch.slot])) for batch in tail]
            return [batch for batch in found if batch.n_frames]

        result = store.query_sensors(
            sensors, span.start_ns, span.end_ns, asked.every_ns, asked.agg, tail=frames
        )
        self._miss(result.missing)
        self.resolution_ns = max(self.resolution_ns, result.resolution_ns)
        self.notes += [one for one in result.notes if one not in self.notes][: _NOTES_MAX - len(self.notes)]
        for name, n in result.sources.items():
            if name != "tail_frames":
                self.sources[name] = self.sources.get(name, 0) + n
        return replace(_in_order(result), fresh_to_ns=self.fresh_to_ns)


def _in_order(result: QueryResult) -> QueryResult:
    """Rows parent by parent: sorted paths differ from that where a device has sensors and devices below it."""
    keys = [
        (parent + "/", name) for parent, _, name in (path.rpartition("/") for path in result.paths.tolist())
    ]
    if all(a <= b for a, b in pairwise(keys)):
        return result
    rank = np.empty(len(keys), np.int64)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    order = np.argsort(rank[result.sensor], kind="stable")
    return replace(
        result, sensor=result.sensor[order], ts_ns=result.ts_ns[order],
        columns={name: values[order] for name, values in result.columns.items()},
        text=None if result.text is None else result.text[order],
    )  # fmt: skip


def _of_shard(one: Siblings, shard_of: npt.NDArray[np.uint16], shard: int) -> Siblings:
    mine = shard_of[one.slot] == shard
    return one if mine.all() else one.take(np.flatnonzero(mine).tolist())


def _joined(batch: Sequence[Siblings]) -> Selection:
    return Selection(
        np.concatenate([one.slot for one in batch]),
        np.concatenate([one.column for one in batch]),
        np.concatenate([one.sensor for one in batch]),
    )


def _part(sensors: Selection, first: int, end: int) -> Selection:
    return Selection(sensors.slot[first:end], sensors.column[first:end], sensors.sensor[first:end])
