"""Compaction: a day's hot rows become warm chunks of single sensors, and the partition changes in one step.

Then what the rules of the tiers want of older partitions is done (`headrace.store.tiers`, `headrace.store.ageing`).

The work of a day is: read its hot rows (and its warm files, where late data came), merge versions, write
warm files under names that say their content, then publish a manifest that names them and what they replace.
Killed at any moment it leaves either the old partition or the new one, and files that nobody names, which
the next run uses or deletes. What was replaced is deleted after a grace time, so that a query that is under
way still finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.clock import NS, Clock
from headrace.core.errors import CorruptionError, Fenced, NotFound
from headrace.core.faults import FaultPoints
from headrace.core.sensors import Selection
from headrace.store.ageing import Ager
from headrace.store.commits import SegmentInfo
from headrace.store.due_days import DueDays
from headrace.store.grouping import DAY_NS
from headrace.store.holdings import Holdings
from headrace.store.manifests import (
    BUCKET_DAYS,
    COLD_FOLDER,
    COLD_MANIFESTS,
    HOT_FOLDER,
    ROLLUP_FOLDER,
    WARM_FOLDER,
    Manifest,
    hot_number,
    list_manifests,
    manifest_path,
    write_manifest,
)
from headrace.store.merging import Unreadable, all_columns, merge
from headrace.store.pace import Pace
from headrace.store.query import Store
from headrace.store.resolutions import RESOLUTIONS_NS
from headrace.store.segment import write_segment
from headrace.store.tiers import Step, TierRules, TierStage, plan
from headrace.store.view import Source, StoreView
from headrace.store.warm_rows import ChunkRules

I64 = npt.NDArray[np.int64]
_FILE_BYTES = 32 << 20
"""Payloads of a file, about: slices of little data share one, since what a file costs to write and to open is no small part."""
_HEADER_LEVEL = 9
"""Of zstd: what gets cold is written again, at 13, which takes twice as long for headers a thousandth smaller."""


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
    pace : how much of the machine it takes. resolutions_ns : windows that rollups may have, short ones first.
    """

    min_age_s: float = 3_600.0
    late_every_s: float = 3_600.0
    n_hot_max: int = 256
    n_files_max: int = 16
    grace_s: float = 300.0
    slice_samples: int = 4_000_000
    pace: Pace = field(default_factory=Pace)
    resolutions_ns: tuple[int, ...] = RESOLUTIONS_NS


@dataclass(slots=True)
class CompactionReport:
    """What a run did. ``problems`` has a sentence for every partition that had to be left as it is.

    ``n_aged`` partitions were written anew as the tiers' rules want, ``n_dropped`` samples of them are gone.
    """

    n_partitions: int = 0
    n_samples: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    n_deleted: int = 0
    n_aged: int = 0
    n_dropped: int = 0
    problems: list[str] = field(default_factory=list)
    _names_read: set[str] = field(default_factory=set, repr=False)

    def read(self, infos: Iterable[SegmentInfo]) -> None:
        """Count bytes of what a day was made of; a hot segment of several days is read for each, and counted once."""
        new = {info.name: info.size_bytes for info in infos if info.name not in self._names_read}
        self.bytes_before += sum(new.values())
        self._names_read |= new.keys()


class Compactor:
    """Compacts a store; one at a time for each store.

    Parameters
    ----------
    store : opened for reading; shared with queries. incarnation : of the engine that compacts: one that was taken
        over must not delete what its successor is about to name. None for who has the store alone.
    choice_of : what is said about the codecs of the sensor of a path. rules : of the tiers; without any nothing gets
        older than warm.
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
        rules: TierRules | None = None,
    ) -> None:
        self._store, self._clock = store, clock
        self._incarnation = incarnation
        self._faults = faults or FaultPoints()
        self._policy = policy or CompactionPolicy()
        self._choice_of = choice_of
        self.rules = rules or TierRules({})
        self.holdings = Holdings(store, self.rules)

    def run_once(self, force: bool = False) -> CompactionReport:
        """Compact every day that is due (all days with hot rows, where forced), then delete what is old.

        Raises
        ------
        StorageError : the disk refuses; nothing is lost, run again later. Fenced : another engine has taken over.
        """
        report = CompactionReport()
        self._policy.pace.begin()
        view = self._owned_view()
        if view.commits.damaged:
            # What such a commit held may come back from a backup: it must not count as compacted.
            report.problems += view.commits.damaged
            return report
        due = self._due_days.of(view, force)
        # What has fallen behind is made up for without a rest: many hot segments cost more than a busy core.
        self._policy.pace.is_behind = len(due) > 1
        for day, hot in due.items():
            try:
                self._compact(view, day, hot, report)
            except (CorruptionError, NotFound) as e:
                report.problems.append(f"day {_date(day)} stays as it is: {e}")
        self._policy.pace.is_behind = False
        self._age(report)
        self._clean(report)
        return report

    @property
    def _due_days(self) -> DueDays:
        return DueDays(self.rules, self._policy, self._clock.now_ns())

    def _owned_view(self) -> StoreView:
        view = self._store.refresh()
        owner = view.commits.sealed_by or view.commits.last[0]
        if self._incarnation is not None and owner > self._incarnation:
            raise Fenced(f"incarnation {owner} has taken over the store; this one compacts it no more")
        return view

    def _age(self, report: CompactionReport) -> None:
        """Do what the rules want, oldest first."""
        if not self.rules:
            return
        view = self._owned_view()
        if view.damaged:
            report.problems += [f"nothing ages: {sentence}" for sentence in view.damaged]
            return
        for step in plan(view, self.rules, self._clock.now_ns(), self.early(view)):
            self._do(view, step, report)

    def _do(self, view: StoreView, step: Step, report: CompactionReport) -> None:
        try:
            done = self.ager.age(view, step)
        except (CorruptionError, NotFound) as e:
            report.problems.append(f"{step.name} stays as it is: {e}")
            return
        report.n_aged += 1
        report.n_dropped += done.n_dropped
        report.bytes_before += done.bytes_before
        report.bytes_after += done.bytes_after
        report.problems += done.problems + done.stays

    def early(self, view: StoreView) -> dict[tuple[bool, int], dict[str, TierStage]]:
        """Stages that the rules' sizes ask for, by partition."""
        return self.holdings.early(view, self._clock.now_ns())

    @property
    def ager(self) -> Ager:
        """What does the steps."""
        return Ager(
            self._store,
            self._clock,
            self.rules,
            faults=self._faults,
            pace=self._policy.pace,
            slice_samples=self._policy.slice_samples,
            choice_of=self._choice_of,
        )

    # --- one day -------------------------------------------------------------------------------------

    def _compact(self, view: StoreView, day: int, hot: list[SegmentInfo], report: CompactionReport) -> None:
        before = view.manifests.get(day, Manifest(day))
        due_days = self._due_days
        is_over, is_added = due_days.is_over(day), due_days.adds(before, hot)
        sources = [Source(f, False, (day,)) for f in hot]
        if not is_added:
            sources += [Source(f, True) for f in before.files]
        number = before.number + 1
        whole = due_days.is_whole(before, hot)
        # A day that lasts is written again: until then its chunks' headers have to do. What comes to a day that is cold is
        # not in the rollups that went along with that.
        taken = view.cold.get(day // BUCKET_DAYS)
        makes_rollups = is_over and (taken is None or day not in taken.days)
        new, rolled, sources, left_out = self._files(sources, day, number, makes_rollups)
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
            rollups=tuple(rollups),
            beside=beside if rollups else (),
            n_dropped=before.n_dropped,
            alone=before.alone if is_added else (),
        )
        self._faults.reach("commit.publish")
        if not write_manifest(self._store.disk, manifest):
            raise CorruptionError(f"{manifest.name} was written by another compactor; run one only")
        report.n_partitions += 1
        report.n_samples += sum(f.n_samples for f in new)
        report.read(source.info for source in sources)
        report.bytes_after += sum(f.size_bytes for f in new)

    def _files(
        self, sources: list[Source], day: int, number: int, makes_rollups: bool
    ) -> tuple[list[SegmentInfo], list[SegmentInfo], list[Source], list[str]]:
        """Write the day's rows; the files, rollups, the sources that are in them, and hot segments that are damaged.

        Those stay as they are, and are read beside the files: what can be read of them is not lost.
        """
        left_out: list[str] = []
        while True:
            try:
                warm, rolled = (
                    _Files(partial(self._write, folder, day, number))
                    for folder in (WARM_FOLDER, ROLLUP_FOLDER)
                )
                for selection in self._slices(self._weigh(sources)):
                    rows, windows = self._merge(sources, selection, day, makes_rollups)
                    warm.add(rows)
                    rolled.add(windows)
                return warm.all(), rolled.all(), sources, left_out
            except Unreadable as e:
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
                n_headers = source.info.size_bytes
                for rows in self._store.reader.all_headers(source.info):
                    groups, place = np.unique(rows.group, return_inverse=True)
                    totals = np.bincount(place, rows.n_samples, len(groups))
                    for group, n in zip(groups.tolist(), totals.tolist(), strict=True):
                        weights[group] = weights.get(group, 0) + int(n)
                    n_headers -= int(rows.n_bytes.sum())
                self._policy.pace.tick(n_headers)
            except CorruptionError as e:
                self._store.quarantine(name, str(e))
                raise Unreadable(str(e), {name}) from e
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
                out.append(all_columns(self._store, chosen))
                chosen, n = [], 0
        if chosen:
            out.append(all_columns(self._store, chosen))
        return out

    def _merge(
        self, sources: list[Source], selection: Selection, day: int, makes_rollups: bool
    ) -> tuple[pa.Table | None, pa.Table | None]:
        """Warm rows of some groups, and their rollups."""
        merged = merge(self._store, sources, selection, (day * DAY_NS, (day + 1) * DAY_NS))
        if merged is None:
            return None, None
        paths = merged.wanted.paths.tolist()
        table = merged.encode(
            self._policy.pace, ChunkRules(choices=[self._choice_of(path) for path in paths])
        )
        if not (makes_rollups and self._policy.resolutions_ns):
            return table, None
        asked = np.array([self.rules.finest_rollup_ns(path) for path in paths], np.int64)
        return table, merged.rolled(table, asked, self._policy.resolutions_ns)

    def _write(
        self, folder: str, day: int, number: int, part: int, tables: Sequence[pa.Table]
    ) -> SegmentInfo:
        """Write a file; `number` is the manifest's version, `part` the file's of that."""
        draft = write_segment(f"{folder}/{day:06d}/", tables, level=_HEADER_LEVEL)
        digest = xxhash.xxh3_64_hexdigest(draft.data)
        name = f"{folder}/{day:06d}/{number:06d}-{part:04d}-{digest}.parquet"
        self._faults.reach("segment.write")
        # Where it exists, a run that was killed wrote the same bytes.
        self._store.disk.put_if_absent(name, draft.data)
        self._policy.pace.tick(len(draft.data))
        info = draft.info.to_dict() | {"name": name}
        return SegmentInfo.from_dict(info)

    # --- tidying up ----------------------------------------------------------------------------------

    def _clean(self, report: CompactionReport) -> None:
        """Delete what manifests have replaced, once the grace time is over."""
        view = self._owned_view()
        old_ns = self._clock.now_ns() - int(self._policy.grace_s * NS)
        gone = self._replaced(view, old_ns)
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

    def _replaced(self, view: StoreView, old_ns: int) -> set[str]:
        """Files of partitions, and manifests, that newer manifests have replaced."""
        disk, gone = self._store.disk, set()
        warm, cold = _by_partition(disk.list(WARM_FOLDER)), _by_partition(disk.list(COLD_FOLDER))
        listed, in_cold = list_manifests(disk), {f.name for one in view.cold.values() for f in one.files}
        rolled = _by_partition(disk.list(ROLLUP_FOLDER))
        for day in listed.keys() | warm.keys() | rolled.keys():
            newest, numbers = view.manifests.get(day), listed.get(day, [])
            is_newest = newest is not None and newest.number >= max(numbers, default=0)
            if newest is not None and is_newest and newest.published_ns <= old_ns:
                gone |= warm.get(day, set()) - {f.name for f in newest.files} - in_cold
                gone |= rolled.get(day, set()) - {f.name for f in view.rolled.get(day, ())}
                gone |= {manifest_path(day, n) for n in numbers if n < newest.number or view.is_taken(day)}
        for bucket, numbers in list_manifests(disk, COLD_MANIFESTS).items():
            one = view.cold.get(bucket)
            if one is not None and one.number == numbers[-1] and one.published_ns <= old_ns:
                gone |= cold.get(bucket, set()) - in_cold
                gone |= {manifest_path(bucket, n, COLD_MANIFESTS) for n in numbers[:-1]}
        return gone


class _Files:
    """Rows of a day on their way into files, those of several slices in one: `write` gets a file's number and its tables."""

    def __init__(self, write: Callable[[int, Sequence[pa.Table]], SegmentInfo]) -> None:
        self._write = write
        self._written: list[SegmentInfo] = []
        self._waiting: list[pa.Table] = []
        self._n_bytes = 0

    def add(self, rows: pa.Table | None) -> None:
        """Rows behind those before, by path; None for none."""
        if rows is None:
            return
        self._waiting.append(rows)
        self._n_bytes += int(np.sum(rows["n_bytes"].to_numpy(), dtype=np.int64))
        if self._n_bytes >= _FILE_BYTES:
            self._end()

    def all(self) -> list[SegmentInfo]:
        """The files, the last one too."""
        self._end()
        return self._written

    def _end(self) -> None:
        if self._waiting:
            self._written.append(self._write(len(self._written), self._waiting))
        self._waiting, self._n_bytes = [], 0


def _by_partition(names: list[str]) -> dict[int, set[str]]:
    """Files by the partition whose folder they are in."""
    out: dict[int, set[str]] = {}
    for name in names:
        key = name.split("/")[-2]
        if key.lstrip("-").isdigit():
            out.setdefault(int(key), set()).add(name)
    return out


def _date(day: int) -> str:
    return str(np.datetime64(day, "D"))
