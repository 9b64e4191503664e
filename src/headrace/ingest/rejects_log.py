"""Refused input that lasts: objects in the store, bounded, for looking at and for replay.

The journal has every reject first, and is trimmed; before it is, its rejects go to ``rejects/`` as Parquet objects
that any tool can read. An object is named ``<first seq>-<last seq>-<generation>.parquet`` after the journal records it
covers. It is never changed: a wider one, or one of the same records with a higher generation (what was replayed is
taken out), takes its place, and a reader passes over what is covered by another. The newest object stays, even
empty: its last seq says up to where the journal's rejects are here, so none comes back that was dropped or replayed.

A reject's id is the seq of its journal record and its place in it, ``1042-3``: it stays the same wherever it is.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.core.disk import Disk
from headrace.core.errors import ConfigError, CorruptionError, NotFound
from headrace.core.events import Reject, RejectCode
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.journal_reader import read_records
from headrace.ingest.rejects import bounded, decode_rejects

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "rejects"
OBJECT_BYTES = 1 << 20
PENDING_BYTES_MAX = 16 << 20
_PATH = re.compile(r"rejects/(\d{16})-(\d{16})-(\d{6})\.parquet")
_ID = re.compile(r"(\d+)-(\d+)")
_ROW_BYTES = 200
_DICTIONARY_BYTES = 64 << 20
Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class KeptReject:
    """A reject and where the journal has (or had) it."""

    seq: int
    place: int
    reject: Reject

    @property
    def id(self) -> str:
        """How people name it: ``1042-3``."""
        return f"{self.seq}-{self.place}"

    @property
    def key(self) -> Key:
        """(seq, place): the order in which rejects came."""
        return self.seq, self.place


def parse_reject_id(text: str) -> Key:
    """``1042-3`` → (1042, 3). Raises `ConfigError`."""
    match = _ID.fullmatch(text)
    if match is None or len(text) > 30:
        raise ConfigError(
            f"{text!r} is not the id of a reject; `headrace rejects list` shows them, as in 1042-3"
        )
    return int(match[1]), int(match[2])


@dataclass(frozen=True, slots=True)
class RejectFilter:
    """Which rejects are meant: what is left out does not matter.

    Parameters
    ----------
    ids : only these. start_ns, end_ns : of arrival, the end is outside. after : only those behind it, by `Key`.
    """

    adapter: str = ""
    code: str = ""
    start_ns: int | None = None
    end_ns: int | None = None
    ids: frozenset[Key] | None = None
    after: Key | None = None

    def __post_init__(self) -> None:
        if self.code and self.code not in list(RejectCode):
            raise ConfigError(f"{self.code!r} is not one of {', '.join(RejectCode)}", "code")

    def mask(self, table: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows of a table of rejects are meant."""
        import pyarrow.compute as pc

        keep = np.ones(table.num_rows, np.bool_)
        for name in ("adapter", "code"):
            wanted = getattr(self, name)
            if wanted:
                keep &= pc.equal(table[name], wanted).to_numpy(zero_copy_only=False)
        seq, place = table["seq"].to_numpy(), table["place"].to_numpy()
        arrival_ns = table["arrival_ns"].to_numpy()
        if self.start_ns is not None:
            keep &= arrival_ns >= self.start_ns
        if self.end_ns is not None:
            keep &= arrival_ns < self.end_ns
        if self.after is not None:
            keep &= (seq > self.after[0]) | ((seq == self.after[0]) & (place > self.after[1]))
        if self.ids is not None:
            wanted_ids = self.ids
            keep &= np.array(
                [key in wanted_ids for key in zip(seq.tolist(), place.tolist(), strict=True)], np.bool_
            )
        return keep


# --- objects ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Object:
    """One object by its name."""

    first: int
    last: int
    generation: int

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.first:016d}-{self.last:016d}-{self.generation:06d}.parquet"

    def covers(self, other: _Object) -> bool:
        """Whether it takes the place of `other`."""
        is_wider = (self.last - self.first) > (other.last - other.first)
        return (
            self.first <= other.first
            and self.last >= other.last
            and (is_wider or self.generation > other.generation)
        )


def _objects(disk: Disk) -> tuple[list[_Object], list[_Object]]:
    """Objects that count, in order, and those that others have taken the place of."""
    names = [_PATH.fullmatch(path) for path in disk.list(FOLDER)]
    found = [_Object(int(m[1]), int(m[2]), int(m[3])) for m in names if m is not None]
    gone = [one for one in found if any(other.covers(one) for other in found)]
    return sorted((o for o in found if o not in gone), key=lambda o: o.first), gone


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("seq", pa.int64()),
            ("place", pa.int32()),
            ("code", pa.string()),
            ("adapter", pa.string()),
            ("source", pa.string()),
            ("detail", pa.string()),
            ("raw", pa.binary()),
            ("raw_bytes", pa.int32()),
            ("arrival_ns", pa.int64()),
            ("n_samples", pa.int64()),
        ]
    )


def as_table(kept: Sequence[KeptReject]) -> pa.Table:
    """Rejects as an Arrow table, one row each: the columns of the objects."""
    import pyarrow as pa

    r = [k.reject for k in kept]
    columns: dict[str, list[Any]] = {
        "seq": [k.seq for k in kept],
        "place": [k.place for k in kept],
        "code": [str(one.code) for one in r],
        "adapter": [one.adapter for one in r],
        "source": [one.source for one in r],
        "detail": [one.detail for one in r],
        "raw": [one.raw for one in r],
        "raw_bytes": [len(one.raw) for one in r],
        "arrival_ns": [one.arrival_ns for one in r],
        "n_samples": [one.n_samples for one in r],
    }
    return pa.table(columns, schema=_schema())


def from_table(table: pa.Table) -> list[KeptReject]:
    """The inverse of `as_table`."""
    return [
        KeptReject(
            row["seq"],
            row["place"],
            Reject(
                RejectCode(row["code"]), row["adapter"], row["source"], row["detail"], row["raw"], row["arrival_ns"],
                row["n_samples"],
            ),
        )
        for row in table.to_pylist()
    ]  # fmt: skip


def _encoded(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    out = io.BytesIO()
    # The bytes that several rejects of one input have in common are there once.
    pq.write_table(
        table, out, compression="zstd", write_page_checksum=True, dictionary_pagesize_limit=_DICTIONARY_BYTES
    )
    return out.getvalue()


def _load(disk: Disk, one: _Object) -> pa.Table:
    """The rows of an object. Raises `CorruptionError`, `NotFound`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = disk.read(one.path)
    try:
        table = pq.read_table(pa.BufferReader(bytes(data)), page_checksum_verification=True)
        return table.select(_schema().names).cast(_schema())
    except (pa.ArrowException, OSError, KeyError, ValueError) as e:
        raise CorruptionError(f"{one.path} can't be read ({e}); the rejects in it are lost, delete it") from e


def rejects_of_journal(disk: Disk, after_seq: int, last_seq: int | None = None) -> Iterator[KeptReject]:
    """Rejects that the journal has behind `after_seq`, up to `last_seq`; damage is passed over, others tell of it."""
    for record in read_records(disk, None, lambda damage: None):
        if last_seq is not None and record.seq > last_seq:
            return
        if record.kind is RecordKind.REJECT and record.seq > after_seq:
            for place, reject in enumerate(decode_rejects(record.payload)):
                yield KeptReject(record.seq, place, reject)


@dataclass
class RejectTables:
    """Everything there is, as tables; `problems` says what could not be read."""

    tables: list[pa.Table] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, disk: Disk, objects: Iterable[_Object]) -> None:
        """Read objects; one that is gone was taken out meanwhile."""
        for one in objects:
            try:
                self.tables.append(_load(disk, one))
            except NotFound:
                continue
            except CorruptionError as e:
                self.problems.append(str(e))

    def chosen(
        self, wanted: RejectFilter, limit: int | None = None, limit_bytes: int | None = None
    ) -> list[KeptReject]:
        """The rejects that are meant, oldest first; no more once they have `limit_bytes` together."""
        out: list[KeptReject] = []
        n_bytes = 0
        for table in self.tables:
            room = None if limit is None else limit - len(out)
            if room == 0 or (limit_bytes is not None and n_bytes >= limit_bytes):
                break
            meant = table.filter(wanted.mask(table)).slice(0, room)
            if limit_bytes is not None:
                before = n_bytes + np.cumsum(meant["raw_bytes"].to_numpy()) - meant["raw_bytes"].to_numpy()
                meant = meant.slice(0, int(np.count_nonzero(before < limit_bytes)))
            n_bytes += sum(meant["raw_bytes"].to_pylist())
            out += from_table(meant)
        return out

    def newest(self, wanted: RejectFilter, limit: int) -> list[KeptReject]:
        """The newest of those that are meant, oldest of them first."""
        out: list[KeptReject] = []
        for table in reversed(self.tables):
            room = limit - len(out)
            if not room:
                break
            meant = table.filter(wanted.mask(table))
            out = from_table(meant.slice(max(0, meant.num_rows - room))) + out
        return out

    def summary(self, wanted: RejectFilter) -> list[dict[str, Any]]:
        """Counts by adapter and code, JSON-ready: rejects, samples, bytes, first and last arrival, the newest's id."""
        import pyarrow as pa

        names = ["adapter", "code", "seq", "place", "raw_bytes", "arrival_ns", "n_samples"]
        some = [table.filter(wanted.mask(table)).select(names) for table in self.tables]
        if not some:
            return []
        groups = pa.concat_tables(some).group_by(["adapter", "code"], use_threads=False).aggregate(
            [
                ("seq", "count"), ("n_samples", "sum"), ("raw_bytes", "sum"), ("arrival_ns", "min"),
                ("arrival_ns", "max"), ("seq", "last"), ("place", "last"),
            ]
        )  # fmt: skip
        return [
            {
                "adapter": row["adapter"],
                "code": row["code"],
                "rejects": row["seq_count"],
                "samples": row["n_samples_sum"],
                "size_bytes": row["raw_bytes_sum"],
                "first_ns": row["arrival_ns_min"],
                "last_ns": row["arrival_ns_max"],
                "newest": f"{row['seq_last']}-{row['place_last']}",
            }
            for row in groups.to_pylist()
        ]


def read_rejects(disk: Disk) -> RejectTables:
    """All rejects of a store whose engine does not run, also those that only its journal has."""
    objects, _ = _objects(disk)
    found = RejectTables()
    found.add(disk, objects)
    saved_seq = max((one.last for one in objects), default=-1)
    found.tables.append(as_table(list(rejects_of_journal(disk, saved_seq))))
    return found


# --- the owner's log -------------------------------------------------------------------------------


class RejectsLog:
    """The rejects of a running store. Any thread; what writes is done one after the other.

    Parameters
    ----------
    limit_bytes : bound of the objects together; the oldest go first.
    """

    def __init__(self, disk: Disk, limit_bytes: int) -> None:
        self._disk, self._limit_bytes = disk, limit_bytes
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._pending: list[KeptReject] = []
        self._pending_bytes = 0
        self._objects: list[_Object] = []
        self._sizes: dict[_Object, int] = {}
        self.n_dropped = 0
        """Rejects that had to go because the bound was reached, since opening."""
        self.n_removed = 0
        """Rejects that were taken out because they were replayed, since opening."""

    def open(self) -> None:
        """See what is there; remove what others have taken the place of. Raises `StorageError`."""
        self._objects, gone = _objects(self._disk)
        for one in gone:
            self._disk.delete(one.path)
        self._sizes = {one: self._disk.size(one.path) for one in self._objects}

    @property
    def saved_seq(self) -> int:
        """Journal record up to which all rejects are here, or have been."""
        return max((one.last for one in self._objects), default=-1)

    @property
    def size_bytes(self) -> int:
        """Bytes of the objects, and of what waits to be written."""
        with self._lock:
            return sum(self._sizes.values()) + self._pending_bytes

    @property
    def pending_bytes(self) -> int:
        """Bytes that only the journal has as yet."""
        return self._pending_bytes

    def note(self, seq: int, rejects: Sequence[Reject]) -> None:
        """Take the rejects of a journal record; cheap. They are written by the next `save`."""
        if seq <= self.saved_seq:
            return
        kept = [KeptReject(seq, place, bounded(one)) for place, one in enumerate(rejects)]
        with self._lock:
            self._pending += kept
            self._pending_bytes += sum(_weights(kept))
            if self._pending_bytes > PENDING_BYTES_MAX:  # the disk takes nothing; the journal has them
                self._drop_pending()

    def _drop_pending(self) -> None:
        """Drop the oldest of what waits, down to the bound."""
        n, left = 0, self._pending_bytes
        for weight in _weights(self._pending):
            if left <= PENDING_BYTES_MAX:
                break
            n, left = n + 1, left - weight
        self._pending = self._pending[n:]
        self._pending_bytes = sum(_weights(self._pending))
        self.n_dropped += n

    def save(self, durable_seq: int) -> None:
        """Write what the journal has made durable; afterwards its records are not needed for rejects.

        Raises
        ------
        StorageError : the disk refuses; nothing is lost, call again.
        """
        with self._saving:
            with self._lock:
                some = [one for one in self._pending if one.seq <= durable_seq]
            while some:
                n = _fitting(some, max(1 << 16, min(OBJECT_BYTES, self._limit_bytes // 8)))
                self._put(some[:n])
                with self._lock:
                    self._pending = [one for one in self._pending if one.key > some[n - 1].key]
                    self._pending_bytes = sum(_weights(self._pending))
                some = some[n:]
            self._bound()

    def _put(self, some: list[KeptReject]) -> None:
        """Write rejects: with the newest object, where that is small, else as a new one."""
        import pyarrow as pa

        table, first = as_table(some), some[0].seq
        newest = self._objects[-1] if self._objects else None
        old = None
        if newest is not None and self._sizes[newest] < OBJECT_BYTES // 4:
            # What a damaged one had is lost, and told by whoever reads it.
            with contextlib.suppress(CorruptionError, NotFound):
                table = pa.concat_tables([_load(self._disk, newest), table])
                old, first = newest, newest.first
        self._replace(old, _Object(first, some[-1].seq, 0), table)

    def _replace(self, old: _Object | None, one: _Object, table: pa.Table) -> None:
        data = _encoded(table)
        while not self._disk.put_if_absent(one.path, data):
            one = _Object(one.first, one.last, one.generation + 1)
        with self._lock:
            self._objects = sorted([*(o for o in self._objects if o != old), one], key=lambda o: o.first)
            self._sizes[one] = len(data)
            if old is not None:
                del self._sizes[old]
        if old is not None:
            self._disk.delete(old.path)

    def _bound(self) -> None:
        """Drop the oldest objects beyond the bound; the newest stays."""
        while sum(self._sizes.values()) > self._limit_bytes and len(self._objects) > 1:
            oldest = self._objects[0]
            try:
                n = _load(self._disk, oldest).num_rows
            except (CorruptionError, NotFound):
                n = 0
            self._disk.delete(oldest.path)
            with self._lock:
                self._objects = self._objects[1:]
                del self._sizes[oldest]
                self.n_dropped += n

    def saved(self) -> RejectTables:
        """What has been written, as of now: what `remove` can take out."""
        with self._lock:
            objects = list(self._objects)
        found = RejectTables()
        found.add(self._disk, objects)
        return found

    def tables(self) -> RejectTables:
        """Everything there is, also what waits to be written."""
        with self._lock:
            pending = list(self._pending)
        found = self.saved()
        seen = self.saved_seq
        found.tables.append(as_table([one for one in pending if one.seq > seen]))
        return found

    def remove(self, keys: Iterable[Key]) -> int:
        """Take rejects out for good: they were replayed. How many there were.

        Raises
        ------
        StorageError : the disk refuses; some may be out, call again.
        """
        gone = frozenset(keys)
        n = 0
        with self._saving:
            for one in list(self._objects):
                mine = frozenset(k for k in gone if one.first <= k[0] <= one.last)
                if not mine:
                    continue
                table = _load(self._disk, one)
                out = RejectFilter(ids=mine).mask(table)
                if not out.any():
                    continue
                n += int(out.sum())
                self._replace(one, _Object(one.first, one.last, one.generation + 1), table.filter(~out))
        with self._lock:
            self.n_removed += n
        return n


def _weights(some: Sequence[KeptReject]) -> list[int]:
    """Bytes of each; those of one input have its bytes together."""
    out, before = [], None
    for r in (one.reject for one in some):
        n_raw = 0 if r.raw is before else len(r.raw)
        out.append(_ROW_BYTES + n_raw + len(r.source) + len(r.detail))
        before = r.raw
    return out


def _fitting(some: Sequence[KeptReject], size_bytes: int) -> int:
    """How many of the first rejects go into an object: whole journal records, at least one."""
    total = n = 0
    for i, (one, weight) in enumerate(zip(some, _weights(some), strict=True)):
        if total >= size_bytes and one.seq != some[i - 1].seq:
            break
        total += weight
        n = i + 1
    return n
