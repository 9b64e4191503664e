"""The store, for reading: from a pattern and a span to columns.

A query looks at the unflushed tail first, then at the commits, then at the manifests, so that nothing falls
between them; what it meets twice it merges. It prunes by partition, segment, row group and row before it
decodes anything, and answers aggregates from the headers of warm chunks that lie wholly inside a window.
"""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import Clock, SystemClock
from headrace.core.disk import Disk
from headrace.core.errors import ConfigError, CorruptionError, NotFound
from headrace.core.frames import FrameBatch
from headrace.core.registry import nearest
from headrace.core.sensors import Selection, SensorDirectory, join_path, sensor_id
from headrace.store.aggregates import QUERY_AGGREGATES
from headrace.store.answer import Answer
from headrace.store.base import Tail
from headrace.store.commits import SegmentInfo
from headrace.store.decoding import Decoding
from headrace.store.directories import load_directory
from headrace.store.disks import open_disk
from headrace.store.grouping import DAY_NS
from headrace.store.headers import HeaderAnswers, may_answer
from headrace.store.manifests import HOT_FOLDER
from headrace.store.reader import FoundRows, SegmentReader
from headrace.store.result import QueryResult
from headrace.store.rollup_answers import (
    RolledRows,
    RollupAnswers,
    may_use_rollups,
    unknown_to_rollups,
)
from headrace.store.series import SeriesMap
from headrace.store.view import Source, StoreView, TierSize, ViewLoader
from headrace.store.wanted import NOWHERE, Wanted

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

SLICE_SAMPLES = 4_000_000
"""About how many samples a query decodes at a time."""
_HEADER_SAMPLES = 2  # what a row that is answered from its header takes of that
_HINT_SLOTS, _HINT_PATHS = 20_000, 500
_ASKED_SENSORS = 500_000  # sensors in remembered selections, about 200 bytes each


@dataclass(eq=False)
class Scan:
    """The rows that a query has to look at.

    ``found`` with, for each, the place of its rows in the selection and whether it is a warm file. `is_stale`
    where a segment of the view is gone: a compaction moved its rows meanwhile. ``rolled`` is what rollups answer; rows
    that are inside are not found.
    """

    found: list[tuple[FoundRows, I64, bool]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    is_stale: bool = False
    rolled: RollupAnswers | None = None

    def add(self, other: Scan) -> None:
        """Take in what another one found."""
        self.found += other.found
        self.missing += other.missing
        self.is_stale |= other.is_stale


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What is in the segments. `n_samples` counts a sample that has a later version once for each."""

    size_bytes: int
    n_samples: int
    n_segments: int
    tiers: tuple[TierSize, ...]
    published_ns: int
    quarantined: tuple[str, ...]


class Store:
    """A store opened for reading.

    Parameters
    ----------
    disk : where it is. directory : the sensors; shared with a running engine, or our own copy that `refresh`
        keeps up to date. clock : for saying how fresh an answer is.
    """

    def __init__(
        self, disk: Disk, directory: SensorDirectory, clock: Clock, *, owns_directory: bool = True
    ) -> None:
        self.disk = disk
        self.directory = directory
        self.reader = SegmentReader(disk)
        self.series = SeriesMap(directory)
        self.quarantined: dict[str, str] = {}
        self.view = StoreView()
        self._clock = clock
        self._loader = ViewLoader(disk)
        self._owns_directory = owns_directory
        self._lock = threading.Lock()
        self._asked: OrderedDict[tuple[str, int], Wanted] = OrderedDict()
        self._n_asked = 0  # sensors in these
        self.uses_rollups = True  # where false, they answer only what has no samples any more

    @classmethod
    def open(
        cls, where: str | Path | Disk, directory: SensorDirectory | None = None, clock: Clock | None = None
    ) -> Store:
        """Open a store.

        Parameters
        ----------
        where : a folder, a URL (see `open_disk`), or a `Disk`. directory : a running engine's, else the store's own.

        Raises
        ------
        ConfigError : a kind of URL that can't be opened. CorruptionError : the sensor directory is damaged.
        """
        disk = open_disk(where) if isinstance(where, str | Path) else where
        found = load_directory(disk) if directory is None else directory
        store = cls(disk, found, clock or SystemClock(), owns_directory=directory is None)
        store.refresh()
        return store

    def refresh(self) -> StoreView:
        """Look at what was committed since, and for sensors that were defined since."""
        view = self._look()
        self._learn()
        return view

    def _look(self) -> StoreView:
        """Look at what was committed since."""
        with self._lock:
            self.view = self._loader.load()
            return self.view

    def _learn(self) -> None:
        """Look for sensors that were defined since, where the directory is our own copy."""
        if self._owns_directory:
            with self._lock:
                load_directory(self.disk, self.directory)

    @property
    def defining(self) -> AbstractContextManager[Any]:
        """Hold it while you make sensors known to a directory that is our own: `refresh` does as well."""
        return self._lock

    def retired(self, segments: Sequence[SegmentInfo]) -> set[str]:
        """Names of hot segments that are compacted and deleted, so that a fold of the commits may forget them."""
        there = set(self.disk.list(HOT_FOLDER))
        view = self.refresh()
        return {s.name for s in segments if s.name not in there and not view.days_left(s)}

    def status(self, view: StoreView | None = None) -> StoreStatus:
        """Sizes as of the last commit, or in a view that was loaded before; reads no segment."""
        view = self.refresh() if view is None else view
        return StoreStatus(
            sum(tier.size_bytes for tier in view.tiers),
            sum(tier.n_samples for tier in view.tiers),
            sum(tier.n_segments for tier in view.tiers),
            view.tiers,
            view.commits.published_ns,
            tuple(self.quarantined.values()),
        )

    # --- asking --------------------------------------------------------------------------------------

    def query(
        self,
        pattern: str,
        start_ns: int,
        end_ns: int,
        every_ns: int | None = None,
        agg: Sequence[str] = (),
        *,
        tail: Tail | None = None,
        limit: int | None = None,
    ) -> QueryResult:
        """Samples or aggregates; see `headrace.store.base.SeriesStore.query`.

        Cost: 30 to 60 ns of CPU a decoded sample; nothing for what is pruned or answered from headers.

        Raises
        ------
        NotFound : no sensor matches. ConfigError : the span, the aggregates or the limit can't be.
        """
        _check(start_ns, end_ns, every_ns, agg, limit)
        self._learn()
        return self.ask(self._wanted(pattern), start_ns, end_ns, every_ns, agg, tail, limit)

    def query_sensors(
        self,
        sensors: Selection,
        start_ns: int,
        end_ns: int,
        every_ns: int | None = None,
        agg: Sequence[str] = (),
        *,
        tail: Tail | None = None,
    ) -> QueryResult:
        """The same of sensors that were found before, in whatever order; rows come sorted by path."""
        _check(start_ns, end_ns, every_ns, agg, None)
        return self.ask(self.index(sensors), start_ns, end_ns, every_ns, agg, tail, None)

    def index(self, sensors: Selection) -> Wanted:
        """A selection, indexed for reading."""
        return Wanted(self.directory, self.series, sensors)

    def expected_samples(self, wanted: Wanted, start_ns: int, end_ns: int) -> npt.NDArray[np.float64]:
        """About how many committed samples of [start_ns, end_ns) a query would decode: float64[len(wanted.groups)].

        Rows count whole, so it is rather too many; reads the rows' headers only.
        """
        return _weights(wanted, self.scan(self.view, wanted, start_ns, end_ns))

    def ask(
        self,
        wanted: Wanted,
        start_ns: int,
        end_ns: int,
        every_ns: int | None,
        agg: Sequence[str],
        tail: Tail | None = None,
        limit: int | None = None,
    ) -> QueryResult:
        """The same of a selection that was indexed before."""
        if every_ns is not None and not agg:
            agg = ("mean",)
        answer = Answer(wanted, start_ns, end_ns, every_ns, tuple(agg), limit)
        for attempt in (1, 2):
            asked_ns = self._clock.now_ns()
            batches = [] if tail is None else tail(wanted.slots)
            view = self._look()
            scan = self._scan_for(answer, view, batches)
            if attempt == 2 or not scan.is_stale:
                break
        damaged = self._read(answer, scan, batches)
        fresh_ns = asked_ns if tail is not None else view.commits.published_ns
        sources = {
            "segments": len(scan.found),
            "warm_rows": sum(len(f.rows) for f, _, warm in scan.found if warm),
            "hot_rows": sum(len(f.rows) for f, _, warm in scan.found if not warm),
            "warm_headers": answer.n_headers,
            "tail_frames": sum(b.n_frames for b in batches),
        }
        rolled, rough = scan.rolled, (0, "")
        if rolled is not None:
            sources["rollup_windows"] = rolled.n_windows
            damaged += rolled.missing
            rough = rolled.rough_ns, rolled.note
        missing = tuple(dict.fromkeys([*view.damaged, *scan.missing, *damaged]))
        return answer.result(fresh_ns, sources, missing, rough)

    def _wanted(self, pattern: str) -> Wanted:
        """What a pattern selects, indexed; kept for who asks the same again while no sensor is added."""
        key = (pattern, self.directory.n_slots)
        with self._lock:
            known = self._asked.get(key)
            if known is not None:
                self._asked.move_to_end(key)
                return known
        wanted = Wanted(self.directory, self.series, self.select(pattern))
        with self._lock:
            if key not in self._asked:  # another thread may have been as fast
                self._asked[key] = wanted
                self._n_asked += wanted.n
            while len(self._asked) > 1 and self._n_asked > _ASKED_SENSORS:
                self._n_asked -= self._asked.popitem(last=False)[1].n
        return wanted

    def select(self, pattern: str) -> Selection:
        """Sensors that match. Raises `NotFound` with the nearest path."""
        found = self._one(pattern)
        if found is None:
            found = self.directory.find(pattern)
        if not len(found):
            near = nearest_path(self.directory, pattern)
            hint = f"; the nearest path is {near!r}" if near else "; the store has no sensors yet"
            raise NotFound(f"no sensor matches {pattern!r}{hint}")
        return found

    def _one(self, path: str) -> Selection | None:
        """The sensor that is named by its path, found by its id; None where it is not that simple."""
        sensor = sensor_id(path)
        try:
            slot, column = self.directory.locate(sensor)
        except NotFound:
            return None
        if self.directory.sensor_path(slot, column) != path:
            return None
        one = np.array([slot], np.uint32), np.array([column], np.uint16), np.array([sensor], np.uint64)
        return Selection(*one)

    # --- finding rows --------------------------------------------------------------------------------

    def scan(self, view: StoreView, wanted: Wanted, start_ns: int, end_ns: int) -> Scan:
        """Rows of a view that may hold wanted samples of [start_ns, end_ns)."""
        return self.scan_sources(view.sources(start_ns, end_ns), wanted, start_ns, end_ns)

    def _scan_for(self, answer: Answer, view: StoreView, batches: Sequence[FrameBatch]) -> Scan:
        """What is needed for an answer: rollups as far as they give it, then the rows that are left."""
        span = answer.start_ns, answer.end_ns
        wanted, sources, rollups = answer.wanted, view.sources(*span), view.rollups(*span)
        if not (self.uses_rollups and may_use_rollups(answer)):
            rollups = [one for one in rollups if one.is_alone]
        if not rollups:
            return self.scan_sources(sources, wanted, *span)
        of_rollups = self.scan_sources([one for one in rollups if not one.is_alone], wanted, *span)
        alone = self.scan_sources([one for one in rollups if one.is_alone], wanted, *span)
        rows = RolledRows.of(wanted, of_rollups.found, alone.found)
        scan = self.scan_sources([s for s in sources if not s.rolled_days], wanted, *span)
        cold = [s for s in sources if s.rolled_days and s.is_cold]
        aged = self.scan_sources(cold, wanted, *span)
        rolled_days = frozenset[int]().union(*(s.rolled_days for s in cold))
        others = unknown_to_rollups(wanted, scan.found, batches, aged.found, rolled_days)
        scan.rolled = RollupAnswers(answer, rows, others)
        done = scan.rolled.days_done()
        behind = [s for s in sources if s.rolled_days and not (s.is_cold or s.rolled_days <= done)]
        scan.add(self.scan_sources(behind, wanted, *span))
        scan.add(aged)
        scan.missing += alone.missing  # of the others samples stand in
        scan.is_stale |= of_rollups.is_stale or alone.is_stale
        scan.found = scan.rolled.left(scan.found)
        return scan

    def scan_sources(self, sources: Sequence[Source], wanted: Wanted, start_ns: int, end_ns: int) -> Scan:
        """The same of some segments."""
        out = Scan()
        sources = self._readable(sources, out)
        span = start_ns, end_ns
        finds = self.reader.find_many([s.info for s in sources], wanted.groups, span)
        for source, find in zip(sources, finds, strict=True):
            name = source.info.name
            try:
                found = find()
            except CorruptionError as e:
                self.quarantine(name, str(e))
                out.missing.append(str(e))
                continue
            except NotFound as e:
                out.missing.append(f"segment {name} is missing: {e}; restore it from a backup")
                out.is_stale = True
                continue
            if found is not None:
                found = _of_days(found, source)
                place = wanted.places_of_groups(found.group_index, found.rows.layout)
                out.found.append((found, place, source.is_warm))
        return out

    def _readable(self, sources: Sequence[Source], out: Scan) -> list[Source]:
        """Without those that were found damaged before, which are told of."""
        out.missing += [self.quarantined[s.info.name] for s in sources if s.info.name in self.quarantined]
        return [s for s in sources if s.info.name not in self.quarantined]

    def quarantine(self, name: str, sentence: str) -> None:
        """Set a damaged segment aside: it is not read again, not compacted, and not deleted."""
        self.quarantined[name] = sentence

    # --- reading -------------------------------------------------------------------------------------

    def _read(self, answer: Answer, scan: Scan, batches: list[FrameBatch]) -> list[str]:
        """Decode slice by slice; sentences about what was damaged."""
        wanted = answer.wanted
        damaged: list[str] = []
        slices, n_slices = slices_of(wanted, scan, answer)
        for number in range(n_slices):
            mine = slices == number
            found = [_take(f, p, w, None if n_slices == 1 else mine) for f, p, w in scan.found]
            found = [one for one in found if len(one[1])]
            decoding = Decoding(wanted)
            of_slice = None if n_slices == 1 else mine[wanted.group_of_place]
            stretches = None if scan.rolled is None else scan.rolled.intervals
            parts = [(f.rows, f.group_index, p) for f, p, w in found]
            headers = HeaderAnswers(answer, parts, batches, stretches)
            left = []
            for (rows, place, _), answered in zip(found, headers.answered, strict=True):
                if not answered.any():
                    left.append((rows, place))
                elif not answered.all():
                    keep = np.flatnonzero(~answered)
                    left.append((rows.take(keep), place[keep]))
            if left:
                decoding.add_rows(FoundRows.join([f for f, _ in left]), np.concatenate([p for _, p in left]))
            decoding.add_tail(batches, of_slice)
            samples = decoding.samples(answer.start_ns, answer.end_ns)
            rolled = None
            if scan.rolled is not None:
                of_sensors = None if of_slice is None else wanted.sensors_of_places(of_slice)
                samples = scan.rolled.without(samples)
                rolled = scan.rolled.partials(of_sensors)
                rough = scan.rolled.rough_samples(of_sensors)
                if rough is not None:
                    answer.add_windows_as_samples(rough)
            answer.add(samples, headers.partials, decoding.words, rolled)
            damaged += decoding.damaged
            if answer.is_full:
                break
        return damaged


def nearest_path(directory: SensorDirectory, pattern: str) -> str:
    """The path that shares most levels with a pattern, then most letters; "" where there are none."""
    levels = {level for level in pattern.split("/") if "*" not in level and "{" not in level}
    best: list[tuple[int, str]] = []
    for slot in range(min(directory.n_slots, _HINT_SLOTS)):
        path = directory.paths[slot]
        shared = len(levels.intersection(path.split("/")))
        names = [c.name for c in directory.layout(slot).columns]
        best += [(shared + (name in levels), join_path(path, name)) for name in names]
    most = max((n for n, _ in best), default=0)
    close = [p for n, p in best if n == most][:_HINT_PATHS]
    return max(close, key=lambda p: difflib.SequenceMatcher(None, pattern, p).ratio(), default="")


def _check(start_ns: int, end_ns: int, every_ns: int | None, agg: Sequence[str], limit: int | None) -> None:
    if start_ns >= end_ns:
        raise ConfigError(f"the span is empty: it ends at {end_ns} ns, not after its start at {start_ns} ns")
    if start_ns < -(2**63) or end_ns >= 2**63:
        raise ConfigError(
            f"the span from {start_ns} to {end_ns} ns reaches beyond what 64 bits hold: 1677 to 2262"
        )
    for name in agg:
        if name not in QUERY_AGGREGATES:
            raise ConfigError(f"unknown aggregate {name!r}{nearest(name, list(QUERY_AGGREGATES))}", "agg")
    if every_ns is not None and every_ns <= 0:
        raise ConfigError(f"a window of {every_ns} ns is too short; 1 ns at least", "every")
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit of {limit} rows answers nothing; 1 at least", "limit")


def _of_days(found: FoundRows, source: Source) -> FoundRows:
    """Leave out rows of days that the warm tier has."""
    if source.days is None:
        return found
    return found.take(np.flatnonzero(np.isin(found.rows.t_min // DAY_NS, np.array(source.days))))


def _take(found: FoundRows, place: I64, is_warm: bool, mine: Array | None) -> tuple[FoundRows, I64, bool]:
    """The rows that a slice reads; `mine` says which groups are in it, None for all."""
    keep = place != NOWHERE
    if mine is not None:
        keep &= mine[found.group_index]
    if keep.all():
        return found, place, is_warm
    index = np.flatnonzero(keep)
    return found.take(index), place[index], is_warm


def _weights(wanted: Wanted, scan: Scan, answer: Answer | None = None) -> npt.NDArray[np.float64]:
    """Wanted samples of each group in the rows that were found; few in those that headers answer to `answer`."""
    weight = np.zeros(len(wanted.groups))
    width = np.diff(wanted.start)
    for found, place, _ in scan.found:
        known = place >= 0
        columns = np.where(found.rows.column >= 0, 1, width[np.where(known, place, 0)])
        samples = found.rows.n_frames * columns.astype(np.float64)
        if answer is not None:
            samples = np.where(may_answer(found.rows, answer), _HEADER_SAMPLES, samples)
        weight += np.bincount(found.group_index, samples * known, len(weight))
    return weight


def slices_of(wanted: Wanted, scan: Scan, answer: Answer | None = None) -> tuple[I64, int]:
    """Slice of each group, in the order of its first sensor, so that a slice has a bounded number of samples."""
    if len(wanted.groups) == 1:
        return np.zeros(1, np.int64), 1
    weight = _weights(wanted, scan, answer)
    if weight.sum() < SLICE_SAMPLES:
        return np.zeros(len(weight), np.int64), 1
    order = np.argsort(wanted.first_sensor_of_group, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = (np.cumsum(weight[order]) // SLICE_SAMPLES).astype(np.int64)
    used, dense = np.unique(number, return_inverse=True)
    return dense, max(len(used), 1)
