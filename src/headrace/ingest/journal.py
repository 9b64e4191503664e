"""The journal: what is in it is durable; nothing is acknowledged before.

One stream of objects per owner ("incarnation"), many shards inside. `Journal.append` gives a record its seq
and puts it in memory, `Journal.sync` writes everything that waits with one write and one sync (group commit);
they may be called from two threads. The bytes are described in `headrace.ingest.journal_format`.

**Taking over.** Whoever opens the journal first puts a *seal* at the first absent n of the newest incarnation,
then reads to its end, cuts the torn tail and starts the next incarnation. An owner acknowledges a sync only
after it has seen that there is still no seal behind its object and that the object is still there, so an owner
that was replaced without noticing (stopped, swapped out, cut off) acknowledges nothing more: `Fenced`.

**A disk that refuses.** The failed batch stays in memory, its object is cut back to the last good sync, and
`append` refuses with the same sentence until a later `sync` has succeeded, with the next object.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from headrace.core.clock import Clock
from headrace.core.disk import AppendFile, Buffer, Disk
from headrace.core.errors import Closed, CorruptionError, Fenced, StorageError
from headrace.core.faults import FaultPoints
from headrace.ingest.journal_format import (
    MAX_RECORD_BYTES,
    REPEATED,
    SEAL_OBJECT,
    Body,
    Index,
    ObjectHeader,
    Place,
    Record,
    RecordKind,
    defined_slots,
    encode_body,
    encode_record,
    lz4_codec,
    object_seed,
)
from headrace.ingest.journal_reader import (
    FOLDER,
    Damage,
    JournalEnd,
    JournalObject,
    find_end,
    list_objects,
    object_path,
    object_size,
    read_records,
)

_TAKEOVERS_MAX = 100


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Bounds of a journal.

    Parameters
    ----------
    object_bytes : size at which the next object is begun.
    limit_bytes : size of the whole journal at which `Journal.is_full` says so; what must go on (ticks,
        definitions) still fits.
    reserve_bytes : free space that is left to the store, so that it can still write what frees the journal:
        below it `Journal.is_short` says so; what was taken already is still written.
    """

    object_bytes: int = 64 << 20
    limit_bytes: int = 4 << 30
    reserve_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening found: the end of the journal, and in words what was cut or is damaged."""

    incarnation: int
    last_seq: int
    n_cut_bytes: int
    n_cut_records: int
    sentences: tuple[str, ...]


class DamagePolicy(StrEnum):
    """What to do about records that can't be read: stop, or go on behind them."""

    STOP = "stop"
    SKIP = "skip"


@dataclass(slots=True)
class _Kept:
    """An object that takes space; all records of the objects before it are before `first_seq`."""

    path: str
    first_seq: int
    size_bytes: int


@dataclass(slots=True)
class _Waiting:
    """A record that is not durable yet."""

    seq: int
    kind: RecordKind
    payload: Sequence[Buffer]
    index: Index | None
    n_bytes: int
    n_slots: int
    body: Body | None = None


class Journal:
    """The journal of one owner; made by `Journal.open`."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        header: ObjectHeader,
        end: JournalEnd,
        settings: JournalSettings,
        faults: FaultPoints,
    ) -> None:
        self._disk, self._clock, self._settings, self._faults = disk, clock, settings, faults
        self._owner = header
        self._codec = lz4_codec()
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._definitions: list[tuple[int, Body]] = []
        self._kept: list[_Kept] = []
        self._n_waiting_bytes = 0
        self._last_seq = self._durable_seq = end.last_seq
        # The object being written: its file, number and durable bytes; and the one before it.
        self._file: AppendFile | None = None
        self._n, self._size_bytes = 0, 0
        self.n_written_bytes = 0
        """Bytes written since opening."""
        self._previous = end.place
        self._broken = self._is_short = False
        self._refusal = ""
        self._stopped: Fenced | Closed | None = None
        self._damage: list[Damage] = []
        self.recovery = Recovery(header.incarnation, end.last_seq, 0, 0, ())

    # --- taking over ---------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        disk: Disk,
        clock: Clock,
        *,
        nonce: int,
        host: str = "embedded",
        after_incarnation: int = 0,
        settings: JournalSettings | None = None,
        faults: FaultPoints | None = None,
    ) -> Journal:
        """Take the journal over and start a new incarnation; an empty folder is a new journal.

        Parameters
        ----------
        nonce : 64 bits that no other owner has.
        host : name of this process, for people.
        after_incarnation : the new incarnation is above it, where others know of some that the journal has lost.

        Raises
        ------
        StorageError : the disk refuses, or a newer version wrote the journal.
        """
        for _ in range(_TAKEOVERS_MAX):
            objects = list_objects(disk)
            newest = objects[-1].incarnation if objects else 0
            header = ObjectHeader(max(newest, after_incarnation) + 1, 1, 0, clock.now_ns(), nonce, host)
            if objects and not _seal(disk, objects[-1], header):
                continue
            end = find_end(disk, list_objects(disk))
            journal = cls(disk, clock, header, end, settings or JournalSettings(), faults or FaultPoints())
            journal._repair(end)
            if journal._claim():
                return journal
        raise StorageError(
            f"journal: {_TAKEOVERS_MAX} others took it over meanwhile; stop the other processes"
        )

    def _repair(self, end: JournalEnd) -> None:
        sentences = [d.text for d in end.damaged]
        for damage in end.damaged:
            self._quarantine(damage)
        for tail in end.tails:
            if tail.n_cut_records:
                self._copy(tail.path)
            self._disk.truncate(tail.path, tail.n_kept_bytes)
            if tail.n_cut_bytes:
                sentences.append(tail.text)
        self.recovery = Recovery(
            self._owner.incarnation,
            end.last_seq,
            sum(t.n_cut_bytes for t in end.tails),
            sum(t.n_cut_records for t in end.tails),
            tuple(sentences),
        )
        following = end.last_seq + 1
        for one in reversed(list_objects(self._disk)):
            if one.header is not None and not one.is_seal:
                following = one.header.first_seq
            self._kept.append(_Kept(one.path, following, one.size_bytes))
        self._kept.reverse()

    def _claim(self) -> bool:
        """Create the first object of the incarnation; False where somebody else has."""
        try:
            self._file = self._disk.append(object_path(self._owner.incarnation, 1))
        except FileExistsError:
            return False
        self._n = 1
        self._begin(self._last_seq + 1)
        self._put([self._header(self._last_seq + 1)])
        return True

    def skip_to(self, seq: int) -> None:
        """Number the next record `seq` + 1, where others know of records that the journal has lost.

        To be called before the first `append`. Readers are told of the gap.
        """
        with self._syncing, self._lock:
            if seq > self._last_seq:
                self._leave()
                self._last_seq = self._durable_seq = seq

    # --- figures -------------------------------------------------------------------------------------

    @property
    def durable_seq(self) -> int:
        """Seq up to which every record is durable."""
        return self._durable_seq

    @property
    def last_seq(self) -> int:
        """Seq given to the newest record."""
        return self._last_seq

    @property
    def size_bytes(self) -> int:
        """Bytes on disk and waiting for it."""
        with self._lock:
            return sum(k.size_bytes for k in self._kept) + self._n_waiting_bytes

    @property
    def limit_bytes(self) -> int:
        """The bound of `size_bytes`."""
        return self._settings.limit_bytes

    @property
    def is_full(self) -> bool:
        """Whether the journal has reached its bound: take no more data before it was trimmed."""
        return self.size_bytes >= self._settings.limit_bytes

    @property
    def is_short(self) -> bool:
        """Whether less space is free than is left to the store, as of the last `sync`: take no more data."""
        return self._is_short

    @property
    def reserve_bytes(self) -> int:
        """Free space that is left to the store."""
        return self._settings.reserve_bytes

    @property
    def first_needed_seq(self) -> int:
        """Seq that positions must reach before `trim` can delete the oldest object; -1 where there is but one."""
        with self._lock:
            return self._kept[1].first_seq - 1 if any(k.size_bytes for k in self._kept[1:]) else -1

    @property
    def refusal(self) -> str:
        """Why the disk refuses, in a sentence; empty while it does not."""
        return self._refusal

    @property
    def damage(self) -> tuple[Damage, ...]:
        """Damage found since opening."""
        return tuple(self._damage)

    # --- writing -------------------------------------------------------------------------------------

    def append(self, kind: RecordKind, payload: Sequence[Buffer], index: Index | None = None) -> int:
        """Take a record; its seq. Cheap: nothing is copied, compressed or written before `sync`.

        Parameters
        ----------
        payload : bytes to be joined; they must not change.
        index : uint32[n, 2] of (shard, first frame), for FRAMES.

        Raises
        ------
        StorageError : the disk refuses; nothing was taken.
        Fenced, Closed : the journal has another owner, or was closed.
        """
        n_bytes = sum(memoryview(p).nbytes for p in payload)
        if n_bytes > MAX_RECORD_BYTES:
            raise ValueError(f"a journal record holds at most {MAX_RECORD_BYTES:,} bytes, got {n_bytes:,}")
        n_slots = defined_slots(payload) if kind is RecordKind.DEFINE else 0
        with self._lock:
            if self._stopped is not None:
                raise self._stopped
            if self._refusal:
                raise StorageError(self._refusal)
            self._last_seq += 1
            self._waiting.append(_Waiting(self._last_seq, kind, payload, index, n_bytes, n_slots))
            self._n_waiting_bytes += n_bytes
            return self._last_seq

    def sync(self) -> int:
        """Write what waits; the seq up to which everything is durable.

        Raises
        ------
        StorageError : the disk refuses; call again later, nothing is lost meanwhile.
        Fenced : somebody took over; nothing more may be acknowledged.
        Closed : the journal was closed.
        """
        with self._syncing:
            while batch := self._next_batch():
                try:
                    self._write(batch)
                except Exception as e:
                    self._give_back(batch, e)
                    raise
            reserve = self._settings.reserve_bytes
            self._is_short = bool(reserve) and self._disk.free_bytes() < reserve
            return self._durable_seq

    def _next_batch(self) -> list[_Waiting]:
        with self._lock:
            if self._stopped is not None:
                raise self._stopped
            n_bytes = n = 0
            for waiting in self._waiting:
                n_bytes += waiting.n_bytes
                n += 1
                if n_bytes >= self._settings.object_bytes:
                    break
            batch = self._waiting[:n]
            del self._waiting[:n]
            return batch

    def _give_back(self, batch: list[_Waiting], error: Exception) -> None:
        with self._lock:
            self._waiting[:0] = batch
            if isinstance(error, StorageError):
                self._refusal = str(error)
            elif isinstance(error, Fenced):
                self._stopped = error

    def _write(self, batch: list[_Waiting]) -> None:
        bodies = [self._body(w) for w in batch]
        n_bytes = sum(b.size_bytes for b in bodies)
        self._make_room(n_bytes, batch[0].seq)
        buffers: list[Buffer] = []
        seed, start = object_seed(self._owner.incarnation, self._n), self._size_bytes
        if not start:
            buffers = [self._header(batch[0].seq)]
            for _, body in self._definitions:
                buffers += encode_record(body, batch[0].seq - 1, 0, seed, REPEATED)
        for waiting, body in zip(batch, bodies, strict=True):
            buffers += encode_record(body, waiting.seq, start, seed)
        self._put(buffers)
        self._check_owner()
        with self._lock:
            self._durable_seq = batch[-1].seq
            self._n_waiting_bytes -= sum(w.n_bytes for w in batch)
            self._refusal = ""
            pairs = zip(batch, bodies, strict=True)
            self._definitions += [(w.n_slots, b) for w, b in pairs if w.kind is RecordKind.DEFINE]

    def _body(self, waiting: _Waiting) -> Body:
        if waiting.body is None:
            waiting.body = encode_body(waiting.kind, waiting.payload, waiting.index, self._codec)
            waiting.payload = ()
        return waiting.body

    def _header(self, first_seq: int) -> bytes:
        o = self._owner
        header = ObjectHeader(
            o.incarnation, self._n, first_seq, self._clock.now_ns(), o.nonce, o.host, self._previous
        )
        return header.to_bytes()

    def _make_room(self, n_bytes: int, first_seq: int) -> None:
        """See to it that there is an object that takes `n_bytes` more."""
        if self._file is not None and self._size_bytes + n_bytes <= self._settings.object_bytes:
            return
        if self._file is not None:
            self._leave()
        self._mend()
        path = object_path(self._owner.incarnation, self._n + 1)
        self._file = self._create(path)
        self._n += 1
        self._begin(first_seq)

    def _leave(self) -> None:
        """Close the current object for good; it ends after what is durable."""
        assert self._file is not None
        self._file.close()
        self._file = None
        if self._size_bytes:
            self._previous = Place(self._owner.incarnation, self._n, self._size_bytes)

    def _begin(self, first_seq: int) -> None:
        self._size_bytes = 0
        with self._lock:
            self._kept.append(_Kept(object_path(self._owner.incarnation, self._n), first_seq, 0))

    def _create(self, path: str) -> AppendFile:
        for _ in range(2):
            try:
                return self._disk.append(path)
            except FileExistsError:
                self._read_back(path)
        raise Fenced(
            f"journal: {path} can't be created, it is there again whenever it was removed; stop this process"
        )

    def _read_back(self, path: str) -> None:
        """Remove what is at `path` where it is our own, left by a creation that failed half-way."""
        header = ObjectHeader.from_bytes(self._disk.read(path))
        if header is not None and (header.is_seal or header.nonce != self._owner.nonce):
            raise self._fenced(f"{path} was written by {header.host!r}")
        self._disk.delete(path)

    def _put(self, buffers: list[Buffer]) -> None:
        """Write and sync; whatever happens, the object ends after its last good sync."""
        assert self._file is not None
        try:
            if self._faults.watches("journal.write"):
                half = memoryview(b"".join(buffers))
                self._file.write([half[: len(half) // 2]])
                self._faults.reach("journal.write")
                self._file.write([half[len(half) // 2 :]])
            else:
                self._file.write(buffers)
            self._faults.reach("journal.sync")
            self._file.sync()
        except StorageError:
            self._leave()
            self._broken = True
            try:
                self._mend()
            except StorageError:
                pass  # the first failure tells; mended before the next object is begun
            raise
        n_bytes = sum(memoryview(b).nbytes for b in buffers)
        self._size_bytes += n_bytes
        self.n_written_bytes += n_bytes
        with self._lock:
            self._kept[-1].size_bytes = self._size_bytes

    def _mend(self) -> None:
        """Cut off, or remove, what a failed write left behind."""
        if not self._broken:
            return
        self._check_seal()
        path = object_path(self._owner.incarnation, self._n)
        if self._size_bytes:
            self._disk.truncate(path, self._size_bytes)
        else:
            self._disk.delete(path)
            with self._lock:
                self._kept.pop()
            self._n -= 1
        self._broken = False

    def _check_owner(self) -> None:
        """Raise `Fenced` where somebody took over: first the seal is looked for, then our own object.

        In this order, because whoever takes over seals first and trims (object, then seal) later.
        """
        self._check_seal()
        own = object_path(self._owner.incarnation, self._n)
        size_bytes = object_size(self._disk, own)
        if size_bytes is None or size_bytes < self._size_bytes:
            raise self._fenced(f"{own} was cut or removed")

    def _check_seal(self) -> None:
        seal = object_path(self._owner.incarnation, self._n + 1)
        if object_size(self._disk, seal) is not None:
            raise self._fenced(f"{seal} is there")

    def _fenced(self, why: str) -> Fenced:
        return Fenced(
            f"journal incarnation {self._owner.incarnation} has another owner ({why}); stop this process"
        )

    # --- bounded size --------------------------------------------------------------------------------

    def trim(self, seq: int) -> int:
        """Delete objects whose records are all at or before `seq`; bytes freed.

        Call it with positions that no snapshot or commit needs any more, after the directory was saved.

        Raises
        ------
        StorageError : the disk refuses; nothing is wrong, call again later.
        """
        bound, n_freed = min(seq, self._durable_seq), 0
        while True:
            with self._lock:
                # One object with a header stays: it keeps the running number.
                if not any(k.size_bytes for k in self._kept[1:]) or self._kept[1].first_seq - 1 > bound:
                    return n_freed
                oldest = self._kept[0]
            self._disk.delete(oldest.path)
            with self._lock:
                self._kept.remove(oldest)
            n_freed += oldest.size_bytes

    def directory_saved(self, n_slots: int) -> None:
        """Tell that the store's directory file holds the first `n_slots` slots.

        New objects begin with all definitions it does not hold, so that each can be read without older ones.
        """
        with self._lock:
            self._definitions = [d for d in self._definitions if d[0] > n_slots]

    # --- reading -------------------------------------------------------------------------------------

    def records(
        self, after_seq: int | None = None, damaged: DamagePolicy = DamagePolicy.STOP
    ) -> Iterator[Record]:
        """Durable records behind `after_seq`, as `read_records`, for replay by the owner.

        A copy of a damaged object goes to ``journal/quarantine`` before anything else. Damage at or before
        `after_seq` takes nothing away and stops nobody.

        Raises
        ------
        CorruptionError : records can't be read, and `damaged` says stop. Its text says which.
        """

        def on_damage(damage: Damage) -> None:
            kept = self._quarantine(damage)
            if damaged is DamagePolicy.STOP and damage.last_seq > (after_seq or 0):
                raise CorruptionError(
                    f"{damage.text}; {kept}; start with --skip-damaged to go on without them"
                )

        return read_records(self._disk, after_seq, on_damage)

    def _quarantine(self, damage: Damage) -> str:
        if damage not in self._damage:
            self._damage.append(damage)
        return f"a copy is at {self._copy(damage.path)}"

    def _copy(self, path: str) -> str:
        copy = f"{FOLDER}/quarantine/{path.removeprefix(FOLDER + '/').replace('/', '-')}"
        self._disk.put_if_absent(copy, self._disk.read(path))
        return copy

    def close(self) -> None:
        """Write what waits and close; may be called twice.

        Raises
        ------
        StorageError, Fenced : what waited could not be written; the journal is closed all the same.
        """
        try:
            if self._stopped is None:
                self.sync()
        finally:
            with self._syncing, self._lock:
                self._stopped = self._stopped or Closed("the journal was closed")
                if self._file is not None:
                    self._file.close()
                    self._file = None


def _seal(disk: Disk, last: JournalObject, owner: ObjectHeader) -> bool:
    """End the incarnation of `last`, its newest object; False where its owner was faster."""
    if last.is_seal:
        return True
    header = ObjectHeader(
        last.incarnation, last.n + 1, 0, owner.created_ns, owner.nonce, owner.host, flags=SEAL_OBJECT
    )
    nonce = owner.nonce.to_bytes(8, "little")
    body = encode_body(RecordKind.SEAL, [nonce, owner.host.encode()], None, lz4_codec())
    record = encode_record(body, 0, 0, object_seed(last.incarnation, last.n + 1))
    return disk.put_if_absent(
        object_path(last.incarnation, last.n + 1), b"".join([header.to_bytes(), *record])
    )
