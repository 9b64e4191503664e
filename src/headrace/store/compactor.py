"""Compaction: a day's hot rows become warm chunks of single sensors, and the partition changes in one step.

The work of a day is: read its hot rows (and its warm files, where late data came), merge versions, write
warm files under names that say their content, then publish a manifest that names them and what they replace.
Killed at any moment it leaves either the old partition or the new one, and files that nobody names, which
the next run uses or deletes. What was replaced is deleted after a grace time, so that a query that is under
way still finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.clock import NS, Clock
from headrace.core.errors import CorruptionError, Fenced, NotFound
from headrace.core.faults import FaultPoints
from headrace.core.sensors import Selection
from headrace.store.commits import SegmentInfo
from headrace.store.decoding import Decoding
from headrace.store.grouping import DAY_NS
from headrace.store.manifests import (
    HOT_FOLDER,
    ROLLUP_FOLDER,
    WARM_FOLDER,
    Manifest,
    hot_number,
    list_manifests,
    manifest_path,
    write_manifest,
)
from headrace.store.query import Scan, Store
from headrace.store.resolutions import encode_rollups
from headrace.store.segment import write_segment
from headrace.store.view import Source, StoreView
from headrace.store.wanted import Lane, Wanted
from headrace.store.warm_rows import encode_warm

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """When a day is compacted, and when what it replaced is deleted.

    Parameters
    ----------
    min_age_s : after the end of the day. late_every_s : between two versions of a day to which late data came.
    n_hot_max : a day with so many hot segments is compacted at once, the present one too: what is there so
    far goes into files of its own, and is merged when the day is over. n_files_max : so many files, at most, gather
    beside a merged day before late data are merged into it.
    grace_s : how long replaced files stay. slice_samples : about how many samples are merged at a time.
    """

    min_age_s: float = 3_600.0
    late_every_s: float = 3_600.0
    n_hot_max: int = 256
    n_files_max: int = 16
    grace_s: float = 300.0
    slice_samples: int = 4_000_000


@dataclass(slots=True)
class CompactionReport:
    """What a run did. ``problems`` has a sentence for every day that had to be left as it is."""

    n_partitions: int = 0
    n_samples: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    n_deleted: int = 0
    problems: list[str] = field(default_factory=list)


class _Unreadable(CorruptionError):
    """Some sources are damaged; `names` says which."""

    def __init__(self, message: str, names: set[str]) -> None:
        super().__init__(message)
        self.names = names


class Compactor:
    """Compacts a store; one at a time for each store.

    Parameters
    ----------
    store : opened for reading; shared with queries. incarnation : of the engine that compacts: one that was taken
        over must not delete what its successor is about to name. None for who has the store alone.
    choice_of : what is said about the codecs of the sensor of a path.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        faults: FaultPoints | None = None,
        policy: CompactionPolicy | None = None,
        incarnation: int | None = None,
        choice_of: Callable[[str], CodecChoice] = lambda path: ANY,
    ) -> None:
        self._store, self._clock = store, clock
        self._incarnation = incarnation
        self._faults = faults or FaultPoints()
        self._policy = policy or CompactionPolicy()
        self._choice_of = choice_of

    def run_once(self, force: bool = False) -> CompactionReport:
        """Compact every day that is due (all days with hot rows, where forced), then delete what is old.

        Raises
        ------
        StorageError : the disk refuses; nothing is lost, run again later. Fenced : another engine has taken over.
        """
        report = CompactionReport()
        view = self._owned_view()
        if view.commits.damaged:
            # What such a commit held may come back from a backup: it must not count as compacted.
            report.problems += view.commits.damaged
            return report
        hot_by_day = _hot_by_day(view)
        for day, manifest in view.manifests.items():
            if not manifest.is_whole and self._is_over(day):
                hot_by_day.setdefault(day, [])
        for day, hot in sorted(hot_by_day.items()):
            if force or self._is_due(view, day, hot):
                try:
                    self._compact(view, day, hot, report)
                except (CorruptionError, NotFound) as e:
                    report.problems.append(f"day {_date(day)} stays as it is: {e}")
        self._clean(report)
        return report

    def _owned_view(self) -> StoreView:
        view = self._store.refresh()
        owner = view.commits.sealed_by or view.commits.last[0]
        if self._incarnation is not None and owner > self._incarnation:
            raise Fenced(f"incarnation {owner} has taken over the store; this one compacts it no more")
        return view

    def _is_due(self, view: StoreView, day: int, hot: list[SegmentInfo]) -> bool:
        if len(hot) >= self._policy.n_hot_max:
            return True
        manifest = view.manifests.get(day)
        if manifest is None or not manifest.is_whole or not self._is_over(day):
            return self._is_over(day)
        return self._clock.now_ns() >= manifest.published_ns + self._policy.late_every_s * NS

    def _is_over(self, day: int) -> bool:
        return self._clock.now_ns() >= (day + 1) * DAY_NS + self._policy.min_age_s * NS

    def _adds(self, before: Manifest, hot: list[SegmentInfo], is_over: bool) -> bool:
        """Whether the hot rows get files of their own beside the ones that are there.

        So they do while the day lasts, and where little comes late to a day that was merged.
        """
        if not is_over or before.n_dropped:  # rollups of samples that are gone can't be made anew
            return True
        n_before = sum(f.n_samples for f in before.files)
        n_new = sum(f.n_samples for f in hot)
        return before.is_whole and len(before.files) < self._policy.n_files_max and n_new * 10 < n_before

    # --- one day -------------------------------------------------------------------------------------

    def _compact(self, view: StoreView, day: int, hot: list[SegmentInfo], report: CompactionReport) -> None:
        before = view.manifests.get(day, Manifest(day))
        is_over = self._is_over(day)
        is_added = self._adds(before, hot, is_over)
        sources = [Source(f, False, (day,)) for f in hot]
        if not is_added:
            sources += [Source(f, True) for f in before.files]
        number = before.number + 1
        whole = before.is_whole if is_added else is_over
        new, rolled, sources, left_out = self._files(sources, day, number)
        files = [*before.files, *new] if is_added else new
        rollups, beside = (
            (before.rollups, (*before.beside, *(f.name for f in new))) if is_added else (rolled, ())
        )
        consumed = dict(before.consumed)
        for info in view.commits.segments:
            incarnation, m = hot_number(info.name)
            consumed[incarnation] = max(consumed.get(incarnation, 0), m)
        now_ns = self._clock.now_ns()
        manifest = Manifest(
            day,
            number,
            now_ns,
            tuple(files),
            consumed,
            (*before.left_out, *left_out),
            whole,
            tuple(rollups),
            beside if rollups else (),
            before.n_dropped,
        )
        self._faults.reach("commit.publish")
        if not write_manifest(self._store.disk, manifest):
            raise CorruptionError(f"{manifest.name} was written by another compactor; run one only")
        report.n_partitions += 1
        report.n_samples += sum(f.n_samples for f in new)
        report.bytes_before += sum(s.info.size_bytes for s in sources)
        report.bytes_after += sum(f.size_bytes for f in new)

    def _files(
        self, sources: list[Source], day: int, number: int
    ) -> tuple[list[SegmentInfo], list[SegmentInfo], list[Source], list[str]]:
        """Write the day's rows; the files, rollups, the sources that are in them, and hot segments that are damaged.

        Those stay as they are, and are read beside the files: what can be read of them is not lost.
        """
        left_out: list[str] = []
        while True:
            try:
                files, rollups = [], []
                for part, selection in enumerate(self._slices(self._weigh(sources))):
                    table, rolled = self._merge(sources, selection, day)
                    if table is not None:
                        files.append(self._write(WARM_FOLDER, day, (number, part), table))
                    if rolled is not None:
                        rollups.append(self._write(ROLLUP_FOLDER, day, (number, part), rolled))
                return files, rollups, sources, left_out
            except _Unreadable as e:
                if any(s.is_warm for s in sources if s.info.name in e.names):
                    raise  # to go on would publish a day without what this file has
                left_out += sorted(e.names)
                sources = [s for s in sources if s.info.name not in e.names]

    def _weigh(self, sources: list[Source]) -> dict[int, int]:
        """Samples by group."""
        weights: dict[int, int] = {}
        for source in sources:
            name = source.info.name
            try:
                if name in self._store.quarantined:
                    raise CorruptionError(self._store.quarantined[name])
                for rows in self._store.reader.all_headers(source.info):
                    groups, place = np.unique(rows.group, return_inverse=True)
                    totals = np.bincount(place, rows.n_samples, len(groups))
                    for group, n in zip(groups.tolist(), totals.tolist(), strict=True):
                        weights[group] = weights.get(group, 0) + int(n)
            except CorruptionError as e:
                self._store.quarantine(name, str(e))
                raise _Unreadable(str(e), {name}) from e
        return weights

    def _slices(self, weights: dict[int, int]) -> list[Selection]:
        """The groups by path, cut into slices of bounded size, with every layout they have had."""
        directory = self._store.directory
        wanted = np.array(sorted(weights), np.uint64)
        slots = np.flatnonzero(np.isin(directory.group_id, wanted)).astype(np.uint32)
        unknown = np.setdiff1d(wanted, directory.group_id[slots])
        if len(unknown):
            raise CorruptionError(
                f"{len(unknown)} groups (one is {int(unknown[0]):016x}) are not in the sensor directory; restore it"
            )
        by_group: dict[int, list[int]] = {}
        for slot in slots.tolist():
            by_group.setdefault(int(directory.group_id[slot]), []).append(slot)
        groups = sorted(
            by_group, key=lambda g: (directory.paths[by_group[g][0]], directory.parts[by_group[g][0]])
        )
        out: list[Selection] = []
        chosen: list[int] = []
        n = 0
        for group in groups:
            chosen += by_group[group]
            n += weights[group]
            if n >= self._policy.slice_samples:
                out.append(self._all_columns(chosen))
                chosen, n = [], 0
        if chosen:
            out.append(self._all_columns(chosen))
        return out

    def _all_columns(self, slots: list[int]) -> Selection:
        slot = np.array(slots, np.uint32)
        width = self._store.directory.width[slot]
        column = np.arange(int(width.sum())) - np.repeat(np.cumsum(width) - width, width)
        each = np.repeat(slot, width)
        return Selection(each, column.astype(np.uint16), np.zeros(len(each), np.uint64))

    def _merge(
        self, sources: list[Source], selection: Selection, day: int
    ) -> tuple[pa.Table | None, pa.Table | None]:
        """Warm rows of some groups, and their rollups."""
        store = self._store
        wanted = Wanted(store.directory, store.series, selection, is_raw=True)
        scan: Scan = store.scan_sources(sources, wanted, day * DAY_NS, (day + 1) * DAY_NS)
        decoding = Decoding(wanted)
        seq = np.full(wanted.n, -1, np.int64)
        for found, place, _ in scan.found:
            decoding.add_rows(found, place)
            _newest_seq(wanted, found.rows.column, place, found.rows.seq, seq)
        if decoding.damaged:
            raise _Unreadable("; ".join(decoding.damaged), decoding.bad_segments)
        if scan.missing:
            raise CorruptionError("; ".join(scan.missing))
        same = store.series.shared(wanted.slot, wanted.column)
        samples = decoding.samples(day * DAY_NS, (day + 1) * DAY_NS, same).get(Lane.SIGNED)
        if samples is None or not len(samples):
            return None, None
        choices = [self._choice_of(path) for path in wanted.paths.tolist()]
        table = encode_warm(wanted, samples, decoding.words, seq, choices=choices)
        # A day that lasts is written again: until then its chunks' headers have to do.
        is_over = self._is_over(day)
        return table, encode_rollups(wanted, samples, decoding.words, seq, table) if is_over else None

    def _write(self, folder: str, day: int, number: tuple[int, int], table: pa.Table) -> SegmentInfo:
        """Write a file; `number` is the manifest's version and the file's part of it."""
        draft = write_segment(f"{folder}/{day:06d}/", [table])
        digest = xxhash.xxh3_64_hexdigest(draft.data)
        name = f"{folder}/{day:06d}/{number[0]:06d}-{number[1]:04d}-{digest}.parquet"
        self._faults.reach("segment.write")
        # Where it exists, a run that was killed wrote the same bytes.
        self._store.disk.put_if_absent(name, draft.data)
        info = draft.info.to_dict() | {"name": name}
        return SegmentInfo.from_dict(info)

    # --- tidying up ----------------------------------------------------------------------------------

    def _clean(self, report: CompactionReport) -> None:
        """Delete what manifests have replaced, once the grace time is over."""
        view = self._owned_view()
        old_ns = self._clock.now_ns() - int(self._policy.grace_s * NS)
        gone: set[str] = set()
        for day, numbers in list_manifests(self._store.disk).items():
            newest = view.manifests.get(day)
            if newest is not None and newest.number == numbers[-1] and newest.published_ns <= old_ns:
                used = {f.name for f in (*newest.files, *newest.rollups)}
                for folder in (WARM_FOLDER, ROLLUP_FOLDER):
                    gone |= set(self._store.disk.list(f"{folder}/{day:06d}")) - used
                gone |= {manifest_path(day, n) for n in numbers[:-1]}
        live = {info.name for info in view.commits.segments}
        for info in view.commits.segments:
            if not view.days_left(info) and all(view.manifests[d].published_ns <= old_ns for d in info.days):
                gone.add(info.name)
        there = set(self._store.disk.list(HOT_FOLDER))
        # A segment of an ended incarnation that no commit names was never acknowledged as flushed.
        gone |= {name for name in there - live if hot_number(name)[0] < view.commits.last[0]}
        gone &= there | {n for n in gone if not n.startswith(HOT_FOLDER)}
        for name in sorted(gone):
            self._store.disk.delete(name)
        self._store.reader.forget(gone)
        report.n_deleted += len(gone)


def _hot_by_day(view: StoreView) -> dict[int, list[SegmentInfo]]:
    out: dict[int, list[SegmentInfo]] = {}
    for info in view.commits.segments:
        for day in view.days_left(info):
            if day in view.manifests and info.name in view.manifests[day].left_out:
                continue  # damaged: it stays beside the warm files
            out.setdefault(day, []).append(info)
    return out


def _newest_seq(wanted: Wanted, column: npt.NDArray[np.int32], place: I64, row_seq: I64, seq: I64) -> None:
    """Raise `seq` of each sensor to that of the rows that have it."""
    element = wanted.elements(column, place)
    single = element >= 0
    np.maximum.at(seq, wanted.sensor[element[single]], row_seq[single])
    for row in np.flatnonzero((column < 0) & (place >= 0)).tolist():
        p = place[row]
        sensors = wanted.sensor[wanted.start[p] : wanted.start[p + 1]]
        seq[sensors] = np.maximum(seq[sensors], row_seq[row])


def _date(day: int) -> str:
    return str(np.datetime64(day, "D"))
