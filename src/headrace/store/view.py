"""What of a store a query reads: one consistent moment of commits and manifests."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound
from headrace.store.commits import Commit, CommitView, Recover, SegmentInfo, ShardPosition, load_commits
from headrace.store.grouping import DAY_NS
from headrace.store.manifests import Manifest, hot_path, list_manifests, manifest_path, read_manifest
from headrace.store.segment import open_segment

_TRIES = 8


@dataclass(frozen=True, slots=True)
class Source:
    """A segment to read. ``days``: the rows of these UTC days count; None for all.

    ``rolled_day``: the day whose rollups stand for the segment's rows; None where none do.
    """

    info: SegmentInfo
    is_warm: bool
    days: tuple[int, ...] | None = None
    rolled_day: int | None = None


@dataclass(frozen=True, slots=True)
class TierSize:
    """What a tier holds; a sample that has a later version counts once for each."""

    name: str
    size_bytes: int
    n_samples: int
    n_segments: int


@dataclass(frozen=True)
class StoreView:
    """The hot segments of the commits, and the warm partitions. One object while nothing changes."""

    commits: CommitView = field(default_factory=CommitView)
    manifests: dict[int, Manifest] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()

    def sources(self, start_ns: int, end_ns: int) -> list[Source]:
        """Segments that may hold samples of [start_ns, end_ns)."""
        out = []
        for day, manifest in self.manifests.items():
            if (day + 1) * DAY_NS > start_ns and day * DAY_NS < end_ns:
                out += [
                    Source(f, True, rolled_day=day if manifest.is_rolled(f) else None)
                    for f in manifest.files
                    if f.t_max_ns >= start_ns and f.t_min_ns < end_ns
                ]
        out += [s for s in self._hot if s.info.t_max_ns >= start_ns and s.info.t_min_ns < end_ns]
        return out

    def rollups(self, start_ns: int, end_ns: int) -> list[Source]:
        """Files with rollups of samples of [start_ns, end_ns)."""
        return [
            Source(f, True, rolled_day=day)
            for day, manifest in self.manifests.items()
            for f in manifest.rollups
            if f.t_max_ns >= start_ns and f.t_min_ns < end_ns
        ]

    def lacks_samples(self, start_ns: int, end_ns: int) -> bool:
        """Whether of some samples of [start_ns, end_ns) only rollups are left."""
        first, last = start_ns // DAY_NS, (end_ns - 1) // DAY_NS
        return any(m.n_dropped and first <= day <= last for day, m in self.manifests.items())

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
        """Sizes of the hot and the warm tier, and of rollups where there are any; these have no samples of their own."""
        hot = [source.info for source in self._hot]
        warm = [info for manifest in self.manifests.values() for info in manifest.files]
        rollups = [info for manifest in self.manifests.values() for info in manifest.rollups]
        sizes = [
            TierSize(name, sum(one.size_bytes for one in some), sum(one.n_samples for one in some), len(some))
            for name, some in (("hot", hot), ("warm", warm))
        ]
        if rollups:
            sizes.append(TierSize("rollups", sum(one.size_bytes for one in rollups), 0, len(rollups)))
        return tuple(sizes)

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
        self._manifests: dict[int, tuple[int, Manifest, str]] = {}
        self._view = StoreView()

    def load(self) -> StoreView:
        """The present view. Commits first: a manifest that is newer than they are only repeats them."""
        for _ in range(_TRIES):
            self._commits = load_commits(self._disk, self._commits, self._recover)
            try:
                self._load_manifests()
                break
            except NotFound:  # replaced while we looked
                continue
        damaged = (*self._commits.damaged, *(s for _, _, s in self._manifests.values() if s))
        manifests = {d: m for d, (_, m, _) in self._manifests.items()}
        known = self._view
        if (
            known.commits is not self._commits
            or known.damaged != damaged
            or known.manifests.keys() != manifests.keys()
            or any(known.manifests[d] is not m for d, m in manifests.items())
        ):
            self._view = StoreView(self._commits, manifests, damaged)
        return self._view

    def _load_manifests(self) -> None:
        listed = list_manifests(self._disk)
        known_of = {day: found[0] for day, found in self._manifests.items()}
        new = [(day, numbers[-1]) for day, numbers in listed.items() if known_of.get(day) != numbers[-1]]
        self._disk.prefetch([manifest_path(day, number) for day, number in new])
        for day, numbers in listed.items():
            known = self._manifests.get(day)
            if known is None or known[0] != numbers[-1]:
                try:
                    manifest, sentence = read_manifest(self._disk, day, numbers)
                except CorruptionError as e:
                    manifest, sentence = Manifest(day), str(e)
                self._manifests[day] = (numbers[-1], manifest, sentence)
        self._manifests = {d: m for d, m in self._manifests.items() if d in listed}
