"""What of a store a query reads: one consistent moment of commits and manifests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound
from headrace.store.commits import Commit, CommitView, Recover, SegmentInfo, ShardPosition, load_commits
from headrace.store.grouping import DAY_NS
from headrace.store.manifests import (
    BUCKET_DAYS,
    COLD_FOLDER,
    COLD_MANIFESTS,
    WARM_MANIFESTS,
    ColdManifest,
    Manifest,
    hot_path,
    manifest_path,
    read_cold_manifest,
    read_manifest,
    versions_of,
)
from headrace.store.segment import open_segment

_TRIES = 8


@dataclass(frozen=True, slots=True)
class Source:
    """A segment to read. ``days``: the rows of these UTC days count; None for all.

    ``rolled_days``: the days whose rollups stand for the segment's rows of them. ``is_alone``: rollups, and their samples
    were dropped.
    """

    info: SegmentInfo
    is_warm: bool
    days: tuple[int, ...] | None = None
    rolled_days: frozenset[int] = frozenset()
    is_cold: bool = False
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class TierSize:
    """What a tier holds; a sample that has a later version counts once for each."""

    name: str
    size_bytes: int
    n_samples: int
    n_segments: int


@dataclass(frozen=True)
class StoreView:
    """The hot segments of the commits, and the partitions. One object while nothing changes.

    ``manifests`` by day; of a day that the cold tier took over, what came since, without files where nothing did.
    ``cold`` by bucket of days.
    """

    commits: CommitView = field(default_factory=CommitView)
    manifests: dict[int, Manifest] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    cold: dict[int, ColdManifest] = field(default_factory=dict)

    def sources(self, start_ns: int, end_ns: int) -> list[Source]:
        """Segments that may hold samples of [start_ns, end_ns)."""
        out = []
        for day, manifest in self.manifests.items():
            if (day + 1) * DAY_NS > start_ns and day * DAY_NS < end_ns:
                out += [
                    Source(f, True, rolled_days=frozenset([day] if manifest.is_rolled(f) else []))
                    for f in manifest.files
                    if f.t_max_ns >= start_ns and f.t_min_ns < end_ns
                ]
        for cold in self.cold.values():
            days = frozenset(day for day, one in cold.days.items() if one.rollups and not one.is_late)
            out += [
                Source(f, True, rolled_days=days, is_cold=True)
                for f in cold.files
                if f.t_max_ns >= start_ns and f.t_min_ns < end_ns
            ]
        out += [s for s in self._hot if s.info.t_max_ns >= start_ns and s.info.t_min_ns < end_ns]
        return out

    def rollups(self, start_ns: int, end_ns: int) -> list[Source]:
        """Files with rollups of samples of [start_ns, end_ns)."""
        return [
            Source(f, True, rolled_days=frozenset([day]), is_alone=f.name in self.alone)
            for day, files in self.rolled.items()
            for f in files
            if f.t_max_ns >= start_ns and f.t_min_ns < end_ns
        ]

    @cached_property
    def rolled(self) -> dict[int, tuple[SegmentInfo, ...]]:
        """Files with rollups, by day."""
        out = {day: manifest.rollups for day, manifest in self.manifests.items() if manifest.rollups}
        for cold in self.cold.values():
            out |= {day: (*out.get(day, ()), *one.rollups) for day, one in cold.days.items() if one.rollups}
        return out

    @cached_property
    def alone(self) -> frozenset[str]:
        """Files with rollups whose samples were dropped."""
        names = {name for one in self.manifests.values() for name in one.alone}
        return frozenset(names.union(*(one.alone for c in self.cold.values() for one in c.days.values())))

    @cached_property
    def _hot(self) -> list[Source]:
        """Hot segments that have days which are not in the warm tier."""
        out = []
        for info in self.commits.segments:
            left = self.days_left(info)
            if left:
                out.append(Source(info, False, None if len(left) == len(info.days) else left))
        return out

    @cached_property
    def tiers(self) -> tuple[TierSize, ...]:
        """Sizes of the hot and the warm tier, of the cold one where there is one, and of rollups, which have no samples."""
        sizes = [
            TierSize(name, sum(one.size_bytes for one in some), sum(one.n_samples for one in some), len(some))
            for name, some in self.segments.items()
        ]
        rollups = [info for infos in self.rolled.values() for info in infos]
        if rollups:
            sizes.append(TierSize("rollups", sum(one.size_bytes for one in rollups), 0, len(rollups)))
        return tuple(sizes)

    @cached_property
    def segments(self) -> dict[str, list[SegmentInfo]]:
        """Segments by tier; a day's file whose rows stay as they are is warm, whichever manifest names it."""
        days = [info for manifest in self.manifests.values() for info in manifest.files]
        cold = [info for manifest in self.cold.values() for info in manifest.files]
        is_cold = [info.name.startswith(COLD_FOLDER) for info in cold]
        found = {
            "hot": [source.info for source in self._hot],
            "warm": days + [info for info, one in zip(cold, is_cold, strict=True) if not one],
            "cold": [info for info, one in zip(cold, is_cold, strict=True) if one],
        }
        return found if self.cold else {name: found[name] for name in ("hot", "warm")}

    def is_taken(self, day: int) -> bool:
        """Whether all of a day's partition is in a cold one."""
        cold = self.cold.get(day // BUCKET_DAYS)
        return cold is not None and day in cold.days and self.manifests[day].number <= cold.days[day].number

    def days_left(self, info: SegmentInfo) -> tuple[int, ...]:
        """Days of a hot segment whose rows are not in the warm tier."""
        return tuple(
            d for d in info.days if d not in self.manifests or not self.manifests[d].has_consumed(info.name)
        )


def recover_commit(disk: Disk, incarnation: int, m: int) -> Commit:
    """Rebuild a damaged commit from its segment, which says of itself what the commit said.

    Raises
    ------
    NotFound, CorruptionError : there is no such segment, or it is damaged too.
    """
    file = open_segment(disk, hot_path(incarnation, m))
    try:
        about = file.about
        shards = {int(s): ShardPosition(*p) for s, p in about["shards"].items()}
        return Commit(
            incarnation, m, about["published_ns"], file.info, shards, about["directory"], about["counters"]
        )
    except (KeyError, TypeError, ValueError) as e:
        raise file.damaged(f"it does not say what it holds: {e}") from e


class ViewLoader:
    """Loads views; reads only what is new since the last."""

    def __init__(self, disk: Disk, recover: Recover = recover_commit) -> None:
        self._disk, self._recover = disk, recover
        self._commits = CommitView()
        self._days: dict[int, tuple[int, Manifest, str]] = {}
        self._cold: dict[int, tuple[int, ColdManifest | None, str]] = {}
        self._listed: dict[str, list[str]] = {}  # names of manifests, by folder, of which all is loaded
        self._has_news = False  # something was loaded that the view has not
        self._view = StoreView()
        self._parts: tuple[Manifest | ColdManifest | None, ...] = ()

    def load(self) -> StoreView:
        """The present view.

        Commits first, then days, then the cold tier: what is newer than what was read before it only repeats that.
        """
        for _ in range(_TRIES):
            self._commits = load_commits(self._disk, self._commits, self._recover)
            try:
                self._look_into(WARM_MANIFESTS, self._load_days)
                self._look_into(COLD_MANIFESTS, self._load_cold)
                break
            except NotFound:  # replaced while we looked
                continue
        if self._has_news or self._view.commits is not self._commits:
            self._renew()
            self._has_news = False
        return self._view

    def _renew(self) -> None:
        """Make a view of what was loaded, if it differs from the present one."""
        damaged = (
            *self._commits.damaged,
            *(s for _, _, s in (*self._days.values(), *self._cold.values()) if s),
        )
        parts = (*(m for _, m, _ in self._days.values()), *(m for _, m, _ in self._cold.values()))
        if not self._is_known(parts, damaged):
            cold = {b: m for b, (_, m, _) in self._cold.items() if m is not None}
            days = _in_force({d: m for d, (_, m, _) in self._days.items()}, cold)
            self._view, self._parts = StoreView(self._commits, days, damaged, cold), parts

    def _is_known(self, parts: tuple[Manifest | ColdManifest | None, ...], damaged: tuple[str, ...]) -> bool:
        same = len(parts) == len(self._parts) and all(a is b for a, b in zip(parts, self._parts, strict=True))
        return same and self._view.commits is self._commits and self._view.damaged == damaged

    def _look_into(self, folder: str, load: Callable[[dict[int, list[int]]], None]) -> None:
        """Load what a folder of manifests has, if its names are others than at the last look."""
        paths = self._disk.list(folder)
        if paths != self._listed.get(folder):
            self._has_news = True  # whatever comes of it: a part of it may be loaded
            load(versions_of(paths))
            self._listed[folder] = paths

    def _load_days(self, listed: dict[int, list[int]]) -> None:
        known_of = {day: found[0] for day, found in self._days.items()}
        new = [(day, numbers[-1]) for day, numbers in listed.items() if known_of.get(day) != numbers[-1]]
        self._disk.prefetch([manifest_path(day, number) for day, number in new])
        for day, numbers in listed.items():
            known = self._days.get(day)
            if known is None or known[0] != numbers[-1]:
                try:
                    manifest, sentence = read_manifest(self._disk, day, numbers)
                except CorruptionError as e:
                    manifest, sentence = Manifest(day), str(e)
                self._days[day] = (numbers[-1], manifest, sentence)
        self._days = {d: m for d, m in self._days.items() if d in listed}

    def _load_cold(self, listed: dict[int, list[int]]) -> None:
        for bucket, numbers in listed.items():
            known = self._cold.get(bucket)
            if known is None or known[0] != numbers[-1]:
                manifest: ColdManifest | None = None
                try:
                    manifest, sentence = read_cold_manifest(self._disk, bucket, numbers)
                except CorruptionError as e:
                    sentence = str(e)
                self._cold[bucket] = (numbers[-1], manifest, sentence)
        self._cold = {b: m for b, m in self._cold.items() if b in listed}


def _in_force(days: dict[int, Manifest], cold: dict[int, ColdManifest]) -> dict[int, Manifest]:
    """The days' manifests; those that a cold partition took over hold nothing any more."""
    out = dict(days)
    for one in cold.values():
        for day, taken in one.days.items():
            known = out.get(day)
            if known is None or known.number <= taken.number:
                out[day] = Manifest(
                    day, taken.number, one.published_ns, (), taken.consumed, taken.left_out, True
                )  # fmt: skip
    return dict(sorted(out.items()))
