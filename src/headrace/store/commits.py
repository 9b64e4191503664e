"""Commits: the store's own log of what is in it.

``commits/<incarnation>/<m>.json`` are created only if absent, in order; each names at most one new segment,
and for its shards the journal position up to which they are flushed and the newest state object. So whoever
reads the log up to a point sees a whole store, and a second owner cannot publish what the first did: its put
is refused and it is `Fenced`. Whoever takes over seals the log of the incarnation before.

Every `FOLD_EVERY` commits one repeats the whole view (its ``base``); readers start there, and what lies
before the last base but one is deleted. Each object carries a checksum; a damaged commit is rebuilt from its
segment, which says in its own footer what it holds.
"""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import xxhash

from headrace.core.clock import Clock
from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, Fenced, NotFound, StorageError, Undecided
from headrace.core.faults import FaultPoints

FOLDER = "commits"
STATE_FOLDER = "state"
FOLD_EVERY = 64
_VERSION = 1
_TRIES = 8
T = TypeVar("T")

Retired = Callable[[Sequence["SegmentInfo"]], set[str]]
Recover = Callable[[Disk, int, int], "Commit"]


def checked(value: Any, kind: type[T]) -> T:
    """`value`, which is exactly of this kind. Raises TypeError."""
    if type(value) is not kind:
        raise TypeError(f"{value!r:.60} is no {kind.__name__}")
    return value


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One segment as a commit or manifest names it.

    Parameters
    ----------
    name : path in the store. t_min_ns, t_max_ns : first and last sample.
    days : UTC days since 1970 that its rows belong to. footer : checksum of the Parquet footer, 16 hex digits.
    """

    name: str
    size_bytes: int
    n_rows: int
    n_samples: int
    t_min_ns: int
    t_max_ns: int
    days: tuple[int, ...]
    footer: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"days": list(self.days)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SegmentInfo:
        """The inverse of `to_dict`. Raises KeyError, TypeError or AttributeError where `data` is none."""
        kinds = {name: str if name in ("name", "footer") else int for name in cls.__slots__ if name != "days"}
        fields: dict[str, Any] = {name: checked(data[name], kind) for name, kind in kinds.items()}
        return cls(**fields, days=tuple(checked(day, int) for day in data["days"]))


@dataclass(frozen=True, slots=True)
class ShardPosition:
    """How far a shard is: everything up to `flushed_seq` is in segments; `state` was taken at `state_seq`.

    An engine that starts restores the state, steps the records after `state_seq`, and appends what they give
    to the hot buffer where their number is above `flushed_seq`. ``state`` is "" where there is none; else a path, and
    behind a `#` which bytes of it are the shard's, as ``first-end``: a flush writes the states of its shards in one object.
    """

    flushed_seq: int = -1
    state: str = ""
    state_seq: int = -1

    @property
    def state_path(self) -> str:
        """The object that the state is in; "" for none."""
        return self.state.partition("#")[0]

    def to_list(self) -> list[Any]:
        """JSON-ready values."""
        return [self.flushed_seq, self.state, self.state_seq]

    @classmethod
    def from_list(cls, data: list[Any]) -> ShardPosition:
        """The inverse of `to_list`. Raises TypeError or ValueError where `data` is none."""
        flushed_seq, state, state_seq = data
        return cls(checked(flushed_seq, int), checked(state, str), checked(state_seq, int))


@dataclass(frozen=True, slots=True)
class Commit:
    """One object of the log.

    ``base`` are all live segments before this commit and ``shards`` all shards, where the commit folds.
    """

    incarnation: int
    m: int
    published_ns: int
    segment: SegmentInfo | None = None
    shards: dict[int, ShardPosition] = field(default_factory=dict)
    directory: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    base: tuple[SegmentInfo, ...] | None = None
    sealed_by: int = 0

    @property
    def name(self) -> str:
        """Path in the store."""
        return commit_path(self.incarnation, self.m)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "version": _VERSION, "incarnation": self.incarnation, "m": self.m, "published_ns": self.published_ns,
            "segment": None if self.segment is None else self.segment.to_dict(),
            "shards": {str(s): p.to_list() for s, p in sorted(self.shards.items())},
            "directory": self.directory, "counters": self.counters,
            "base": None if self.base is None else [s.to_dict() for s in self.base],
            "sealed_by": self.sealed_by,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Commit:
        """The inverse of `to_dict`. Raises `CorruptionError`."""
        try:
            base, segment = data["base"], data["segment"]
            return cls(
                checked(data["incarnation"], int), checked(data["m"], int), checked(data["published_ns"], int),
                None if segment is None else SegmentInfo.from_dict(segment),
                {int(s): ShardPosition.from_list(p) for s, p in data["shards"].items()},
                checked(data["directory"], str),
                {checked(k, str): checked(n, int) for k, n in data["counters"].items()},
                None if base is None else tuple(SegmentInfo.from_dict(s) for s in base),
                checked(data["sealed_by"], int),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise CorruptionError(f"its content is no commit: {e!r}") from e


@dataclass(frozen=True, slots=True)
class CommitView:
    """The store as the log tells it up to one commit.

    Parameters
    ----------
    shards : position of each shard that was ever flushed. segments : live hot segments, oldest first.
    directory : newest file of the sensor directory. counters : as the last commit gave them.
    last : (incarnation, m) of the last commit; (0, 0) for an empty store.
    n_since_base : commits since the last that folded, `base_at`. damaged : one sentence for each commit that is.
    sealed_by : the incarnation that took over, where nothing was published since.
    """

    shards: dict[int, ShardPosition] = field(default_factory=dict)
    segments: tuple[SegmentInfo, ...] = ()
    directory: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    last: tuple[int, int] = (0, 0)
    published_ns: int = 0
    n_since_base: int = 0
    base_at: tuple[int, int] = (0, 0)
    damaged: tuple[str, ...] = ()
    sealed_by: int = 0

    def apply(self, commit: Commit) -> CommitView:
        """The view after one commit more."""
        at = (commit.incarnation, commit.m)
        if commit.sealed_by:
            return replace(self, last=at, sealed_by=commit.sealed_by)
        segments = self.segments if commit.base is None else commit.base
        return CommitView(
            shards={**self.shards, **commit.shards},
            segments=segments if commit.segment is None else (*segments, commit.segment),
            directory=commit.directory or self.directory,
            counters=commit.counters or self.counters,
            last=at,
            published_ns=commit.published_ns,
            n_since_base=self.n_since_base + 1 if commit.base is None else 0,
            base_at=self.base_at if commit.base is None else at,
            damaged=self.damaged,
        )

    def trim_seq(self, shards: Sequence[int]) -> int:
        """The journal number up to which no shard of `shards` needs the journal any more; -1 for none."""
        positions = [self.shards.get(s, ShardPosition()) for s in shards]
        return min((min(p.flushed_seq, p.state_seq) for p in positions), default=-1)


def commit_path(incarnation: int, m: int) -> str:
    """``commits/<incarnation>/<m>.json``."""
    return f"{FOLDER}/{incarnation:08d}/{m:08d}.json"


def sealed_json(data: dict[str, Any]) -> bytes:
    """JSON with a checksum of itself: how commits and manifests are written."""
    text = json.dumps(data, separators=(",", ":"), sort_keys=True)
    digest = xxhash.xxh3_64_hexdigest(text.encode())
    return f'{{"checksum":"{digest}","data":{text}}}\n'.encode()


def unsealed_json(data: bytes | memoryview, name: str) -> dict[str, Any]:
    """The inverse of `sealed_json`. Raises `CorruptionError` naming `name`."""
    try:
        whole = json.loads(bytes(data))
        text = json.dumps(whole["data"], separators=(",", ":"), sort_keys=True)
        if whole["checksum"] != xxhash.xxh3_64_hexdigest(text.encode()):
            raise ValueError("its checksum does not match")
        found: dict[str, Any] = whole["data"]
        if found["version"] != _VERSION:
            raise ValueError(f"it has format version {found['version']}, this program reads {_VERSION}")
        return found
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise CorruptionError(f"{name} is damaged: {e}; restore it from a backup") from e


def _recover_nothing(disk: Disk, incarnation: int, m: int) -> Commit:
    raise NotFound(f"nothing to rebuild {commit_path(incarnation, m)} from")


def list_commits(disk: Disk, behind: tuple[int, int] = (-1, -1)) -> list[tuple[int, int]]:
    """(incarnation, m) of all commits that are kept and come behind one, in order."""
    out, paths, last = [], disk.list(FOLDER), commit_path(*behind)
    if set(map(len, paths)) == {len(last)}:
        # Numbers of as many digits are in order as words: each query looks, and mostly there is nothing new.
        paths = paths[bisect_right(paths, last) :]
    for path in paths:
        parts = path.removesuffix(".json").split("/")
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            out.append((int(parts[1]), int(parts[2])))
    return sorted(key for key in out if key > behind)


def load_commits(
    disk: Disk, known: CommitView | None = None, recover: Recover = _recover_nothing
) -> CommitView:
    """The current view.

    Parameters
    ----------
    known : an earlier view of the same store: only what is new is read.
    recover : rebuilds a damaged commit from what it named.
    """
    for _ in range(_TRIES):
        try:
            return _load(disk, CommitView() if known is None else known, recover)
        except NotFound:
            continue  # an owner folded and deleted meanwhile: the list is old
    raise NotFound(f"the commits below {FOLDER}/ changed {_TRIES} times while they were read; try again")


def _load(disk: Disk, view: CommitView, recover: Recover) -> CommitView:
    new = list_commits(disk, view.last)
    commits: list[Commit | str] = []
    disk.prefetch([commit_path(*key) for key in new[-FOLD_EVERY:]])
    for key in reversed(new):
        path = commit_path(*key)
        try:
            commit = read_commit(disk, path)
        except CorruptionError as e:
            commits.append(_rebuilt(disk, key, recover, str(e)))
            continue
        commits.append(commit)
        if commit.base is not None:
            break
    for one in reversed(commits):
        if isinstance(one, Commit):
            view = view.apply(one)
        else:
            view = replace(view, damaged=(*view.damaged, one))
    return replace(view, last=max(view.last, new[-1])) if new else view


def read_commit(disk: Disk, path: str) -> Commit:
    """One object of the log. Raises `CorruptionError`, also where it is another's."""
    commit = Commit.from_dict(unsealed_json(disk.read(path), path))
    if commit.name != path:
        raise CorruptionError(f"{path} is damaged: it holds {commit.name}; restore it from a backup")
    return commit


def _rebuilt(disk: Disk, key: tuple[int, int], recover: Recover, sentence: str) -> Commit | str:
    try:
        return recover(disk, *key)
    except (NotFound, CorruptionError):
        return sentence


class CommitLog:
    """The end of the log, for its one owner.

    Parameters
    ----------
    retired : says which of some segments are compacted and deleted, so that a fold may forget them.
    """

    def __init__(
        self, disk: Disk, incarnation: int, view: CommitView, clock: Clock, retired: Retired = lambda _: set()
    ) -> None:
        self.incarnation = incarnation
        self.view = view
        self.retired = retired
        self._disk, self._clock = disk, clock
        self._next = 1
        self._last_base = view.base_at
        self._unsure: Commit | None = None

    @classmethod
    def open(
        cls, disk: Disk, incarnation: int, clock: Clock, recover: Recover = _recover_nothing
    ) -> CommitLog:
        """Take over the log: seal it and go on under `incarnation`.

        A new log is sealed too, as that of an incarnation 0: of two that begin a store, one does.

        Raises
        ------
        Fenced : a later incarnation has been here, or another owner runs under this one.
        """
        view = load_commits(disk, recover=recover)
        while True:
            owner, m = (view.sealed_by, 0) if view.sealed_by else view.last
            if owner >= incarnation:
                raise Fenced(
                    f"the store's commits are at incarnation {owner}, this engine is incarnation {incarnation}: "
                    "another engine has taken over; stop this one"
                )
            seal = Commit(owner, m + 1, clock.now_ns(), sealed_by=incarnation)
            if disk.put_if_absent(seal.name, sealed_json(seal.to_dict())):
                view = view.apply(seal)
                break
            view = load_commits(disk, view, recover)
        return cls(disk, incarnation, view, clock)

    def check_owned(self) -> None:
        """See that nobody has taken over so far: before something is written that a commit will not fence.

        Raises
        ------
        Fenced : another owner has the next number. StorageError : the disk does not say.
        """
        there = self._read_back(commit_path(self.incarnation, self._next))
        if there is not None and there.sealed_by:
            raise Fenced(
                f"{there.name} was sealed by incarnation {there.sealed_by}, which has taken over; stop"
            )

    @property
    def next_m(self) -> int:
        """Number of the commit that `publish` will make."""
        return self._next

    def publish(
        self,
        segment: SegmentInfo | None,
        shards: Mapping[int, ShardPosition],
        directory: str = "",
        counters: Mapping[str, int] | None = None,
        faults: FaultPoints | None = None,
    ) -> Commit:
        """Make a commit; when it returns, it is durable.

        Raises
        ------
        Fenced : another owner has the number. StorageError : the disk refuses; nothing was published.
        Undecided : whether it was can't be told; `settle` finds out, and no other commit can be made before.
        """
        self.settle()
        for shard, position in shards.items():
            if position.state_seq > position.flushed_seq:
                raise ValueError(
                    f"shard {shard}: state at {position.state_seq} is ahead of its flush at {position.flushed_seq}"
                )
        base = self._base() if self.view.n_since_base + 1 >= FOLD_EVERY or self._next == 1 else None
        commit = Commit(
            self.incarnation, self._next, self._clock.now_ns(), segment,
            dict(shards) if base is None else {**self.view.shards, **shards},
            directory or self.view.directory, dict(counters or self.view.counters), base,
        )  # fmt: skip
        if faults is not None:
            faults.reach("commit.publish")
        self._put(commit)
        self._accept(commit)
        if base is not None:
            try:
                self._forget_before(commit)
            except StorageError:
                pass  # the commit stands all the same; what is left is deleted after the next fold
        return commit

    @property
    def is_unsure(self) -> bool:
        """Whether a commit was sent and nobody knows yet what became of it."""
        return self._unsure is not None

    def settle(self) -> Commit | None:
        """Decide what became of a commit whose answer was lost, before its number or its segment is used again.

        A commit of nothing is put in its place, so that it can't come late. Where that is refused the lost one is
        there, and counts.

        Returns
        -------
        The lost commit, where it counts; None where it came to nothing, or nothing was lost.

        Raises
        ------
        Undecided, StorageError : the disk does not answer yet; ask again. Fenced : another owner has taken over.
        """
        unsure = self._unsure
        if unsure is None:
            return None
        found = nothing = Commit(
            self.incarnation, unsure.m, self._clock.now_ns(), None, {}, self.view.directory, dict(self.view.counters)
        )  # fmt: skip
        if not self._disk.put_if_absent(nothing.name, sealed_json(nothing.to_dict())):
            there = self._read_back(nothing.name)
            is_nothing = there is not None and not (there.segment or there.shards or there.sealed_by)
            if there is None or not (there == unsure or is_nothing):
                raise self._taken_over(nothing.name, there)
            found = there
        self._unsure = None
        self._accept(found)
        if found == unsure:
            return unsure
        if unsure.segment is not None:
            with contextlib.suppress(StorageError):
                self._disk.delete(unsure.segment.name)
        return None

    def _accept(self, commit: Commit) -> None:
        self.view = self.view.apply(commit)
        self._next += 1

    def _base(self) -> tuple[SegmentInfo, ...]:
        gone = self.retired(self.view.segments)
        return tuple(s for s in self.view.segments if s.name not in gone)

    def _put(self, commit: Commit) -> None:
        """Have a commit in the log; see `publish`."""
        refusal: StorageError | None = None
        try:
            if self._disk.put_if_absent(commit.name, sealed_json(commit.to_dict())):
                return
        except Undecided:
            self._unsure = commit
            raise
        except StorageError as e:
            refusal = e
        # It may be ours all the same: then its segment must never be written again.
        try:
            there = self._read_back(commit.name)
        except StorageError as e:
            self._unsure = commit
            raise Undecided(f"can't tell whether {commit.name} was written: {refusal or e}") from e
        if there is None and refusal is not None:
            raise refusal
        if there != commit:
            raise self._taken_over(commit.name, there)

    def _read_back(self, name: str) -> Commit | None:
        """The commit of that name; None where there is none. Raises `StorageError`."""
        try:
            return read_commit(self._disk, name)
        except NotFound:
            return None

    @staticmethod
    def _taken_over(name: str, there: Commit | None) -> Fenced:
        owner = f"incarnation {there.sealed_by}" if there and there.sealed_by else "another engine"
        return Fenced(f"{name} was written by {owner}, which has taken over; stop this engine")

    def _forget_before(self, commit: Commit) -> None:
        """Delete what lies before the last base but one: the newest of each incarnation stays, as its seal."""
        before, self._last_base = self._last_base, (commit.incarnation, commit.m)
        kept = list_commits(self._disk)
        newest = dict(kept)
        for key in kept:
            if key < before and newest[key[0]] != key[1]:
                self._disk.delete(commit_path(*key))
        used = {position.state_path for position in self.view.shards.values()}
        for path in self._disk.list(STATE_FOLDER):
            if path not in used:
                self._disk.delete(path)


def read_state(disk: Disk, position: ShardPosition) -> bytes | None:
    """The shard's state; None where it has none. Raises `NotFound` where its object is missing.

    It ends in a checksum, which is not looked at here.
    """
    if not position.state:
        return None
    path, _, part = position.state.partition("#")
    if not part:  # as earlier releases wrote it, an object for each shard
        return bytes(disk.read(path))
    first, _, end = part.partition("-")
    file = disk.open(path)
    return bytes(file.read(int(first), min(int(end), file.size_bytes)))
