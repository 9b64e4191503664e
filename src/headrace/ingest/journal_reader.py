"""Reading a journal: which objects count, what a hole means, records in order.

Needs no lock: it may run in another process while the owner writes, and stops where the owner has not
written yet. A hole in the last object that no later sync vouches for is a *torn tail*: nothing in it was
acknowledged. Any other hole is *damage*, and is told, never passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound
from headrace.ingest.journal_format import (
    HEADER_BYTES,
    ObjectHeader,
    Place,
    Record,
    RecordKind,
    next_record,
    object_seed,
    parse_record,
)

FOLDER = "journal"
_PATH = re.compile(r"journal/(\d{8})/(\d{8})\.hrj")


@dataclass(frozen=True, slots=True)
class JournalObject:
    """One object of the journal; `header` is None where it is torn or damaged."""

    incarnation: int
    n: int
    size_bytes: int
    header: ObjectHeader | None

    @property
    def path(self) -> str:
        """Its path on the disk."""
        return object_path(self.incarnation, self.n)

    @property
    def is_seal(self) -> bool:
        """Whether it is a seal; seals hold nothing to read."""
        return self.header is not None and self.header.is_seal


@dataclass(frozen=True, slots=True)
class Extent:
    """What counts of an object.

    `end` is the byte up to which its successor vouches for it (None: all there is); `is_tail`: no later
    object vouches for anything, so a hole may be a torn write; `next_seq`: seq of the first record behind
    the object, None for the tail.
    """

    object: JournalObject
    end: int | None
    is_tail: bool
    next_seq: int | None


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes ``byte:end`` of an object that hold no valid record. `is_durable`: they were synced once."""

    byte: int
    end: int
    is_durable: bool


@dataclass(frozen=True, slots=True)
class Damage:
    """Records that were durable and can't be read any more: ``first_seq`` to ``last_seq`` (none if it is less)."""

    path: str
    byte: int
    n_bytes: int
    first_seq: int
    last_seq: int

    @property
    def text(self) -> str:
        """A sentence for the operator."""
        where = f"{self.path} is damaged at byte {self.byte:,} ({self.n_bytes:,} bytes)"
        if not self.n_bytes:
            where = f"the journal has a gap before {self.path}"
        if self.last_seq < self.first_seq:
            return f"{where}; no record is lost"
        return f"{where}; records {self.first_seq} to {self.last_seq} can't be read"


OnDamage = Callable[[Damage], None]


def object_path(incarnation: int, n: int) -> str:
    """Path of an object."""
    return f"{FOLDER}/{incarnation:08d}/{n:08d}.hrj"


def list_objects(disk: Disk) -> list[JournalObject]:
    """All objects of the journal, in order; objects that vanish meanwhile (trimmed) are left out."""
    found = []
    for path in disk.list(FOLDER):
        match = _PATH.fullmatch(path)
        if match is None:
            continue
        try:
            data = disk.read(path)
        except NotFound:
            continue
        found.append(JournalObject(int(match[1]), int(match[2]), len(data), ObjectHeader.from_bytes(data)))
    return found


def extents(objects: list[JournalObject]) -> list[Extent]:
    """What counts of each object; seals, and objects that their successors passed over, are left out."""
    out: list[Extent] = []
    later: ObjectHeader | None = None
    for one in reversed([o for o in objects if not o.is_seal]):
        if later is None:
            out.append(Extent(one, None, True, None))
        else:
            before = later.previous
            if (before.incarnation, before.n) < (one.incarnation, one.n):
                continue
            is_last = (before.incarnation, before.n) == (one.incarnation, one.n)
            out.append(Extent(one, before.n_bytes if is_last else None, False, later.first_seq))
        later = one.header or later
    return out[::-1]


def scan(data: memoryview, one: JournalObject) -> Iterator[Record | Hole]:
    """Records of an object and the holes between them, in order; a torn or damaged header is a hole too."""
    seed = object_seed(one.incarnation, one.n)
    at = 0 if one.header is None else HEADER_BYTES
    while at < len(data):
        record = parse_record(data, at, seed)
        if record is not None:
            yield record
            at = record.end
            continue
        behind = next(records_behind(data, at, seed), None)
        end = len(data) if behind is None else behind.start
        yield Hole(at, end, any(r.n_synced_bytes > at for r in records_behind(data, at, seed)))
        at = end


def records_behind(data: memoryview, at: int, seed: int) -> Iterator[Record]:
    """All valid records at or behind byte `at`, whatever lies between them."""
    record = next_record(data, at, seed)
    while record is not None:
        yield record
        record = parse_record(data, record.end, seed) or next_record(data, record.end, seed)


def load(disk: Disk, extent: Extent) -> memoryview:
    """The bytes of an object that count.

    The tail is copied: its owner may cut it at any time, and reading a mapped page that is gone ends a process.
    """
    data = disk.read(extent.object.path)[: extent.end]
    return memoryview(bytes(data)) if extent.is_tail else data


def read_records(
    disk: Disk, after_seq: int | None = None, on_damage: OnDamage | None = None
) -> Iterator[Record]:
    """Records behind `after_seq` in order of seq; from the oldest there is where it is None.

    Definitions of every object that is read come too, also those at or before `after_seq`: an object can be
    read with the store's directory file and its own definitions (`Record.define` passes over what is known).

    Parameters
    ----------
    on_damage : called for records that can't be read, then reading goes on behind them.

    Raises
    ------
    CorruptionError : damage, where `on_damage` is None.
    NotFound : records behind `after_seq` have been trimmed; load the newest commit or snapshot and start there.
    """
    return _Reading(disk, after_seq, on_damage).records()


class _Reading:
    """One pass over a journal: knows which seq is next."""

    def __init__(self, disk: Disk, after_seq: int | None, on_damage: OnDamage | None) -> None:
        self._disk = disk
        self._after_seq = -1 if after_seq is None else after_seq
        self._from_oldest = after_seq is None
        self._on_damage = on_damage
        self._next_seq: int | None = None
        self._holes: list[tuple[str, int, int]] = []

    def records(self) -> Iterator[Record]:
        for extent in extents(list_objects(self._disk)):
            if extent.next_seq is None or extent.next_seq > self._after_seq + 1:
                yield from self._object(extent)

    def _object(self, extent: Extent) -> Iterator[Record]:
        one = extent.object
        try:
            data = load(self._disk, extent)
        except NotFound as e:
            raise self._trimmed() from e
        if one.header is not None:
            self._continue_at(one.header.first_seq, one.path)
        for item in scan(data, one):
            if isinstance(item, Hole):
                if extent.is_tail and not item.is_durable:
                    return
                self._holes.append((one.path, item.byte, item.end - item.byte))
            elif item.is_repeated or self._is_next(item, one.path):
                yield item

    def _is_next(self, record: Record, path: str) -> bool:
        """Whether to yield `record`; one whose seq was there already is no part of the journal."""
        if self._next_seq is not None and record.seq < self._next_seq:
            self._holes.append((path, record.start, record.end - record.start))
            return False
        self._continue_at(record.seq, path)
        self._next_seq = record.seq + 1
        return record.seq > self._after_seq or record.kind is RecordKind.DEFINE

    def _continue_at(self, seq: int, path: str) -> None:
        """Tell what is missing before `seq`."""
        if self._next_seq is None and not self._holes and not self._from_oldest and seq > self._after_seq + 1:
            raise self._trimmed()
        first = self._next_seq
        if first is None:
            first = seq if self._from_oldest else min(seq, self._after_seq + 1)
        if seq != first and not self._holes:
            self._holes.append((path, 0, 0))
        for where, byte, n_bytes in self._holes:
            self._tell(Damage(where, byte, n_bytes, first, seq - 1))
            first = seq
        self._holes.clear()
        self._next_seq = seq

    def _tell(self, damage: Damage) -> None:
        if self._on_damage is None:
            raise CorruptionError(damage.text)
        self._on_damage(damage)

    def _trimmed(self) -> NotFound:
        return NotFound(
            f"journal records behind {self._after_seq} were trimmed; load the newest commit and start behind it"
        )


@dataclass(frozen=True, slots=True)
class Tail:
    """What to do with an object that no later one vouches for.

    Bytes to keep (and to make durable: its owner may have been killed before it could), bytes to cut, whole
    records among these.
    """

    path: str
    n_kept_bytes: int
    n_cut_bytes: int
    n_cut_records: int

    @property
    def text(self) -> str:
        """What is cut, in a sentence."""
        where = f"{self.n_cut_bytes:,} bytes at byte {self.n_kept_bytes:,}"
        text = f"{self.path}: cut {where}, a write that was never confirmed"
        if self.n_cut_records:
            text += f" ({self.n_cut_records} whole records among them; a copy is in {FOLDER}/quarantine)"
        return text


@dataclass(frozen=True, slots=True)
class JournalEnd:
    """Where a journal ends: `place` is the last object with anything in it, `last_seq` the last record (0: none)."""

    place: Place
    last_seq: int
    tails: tuple[Tail, ...]
    damaged: tuple[Damage, ...]


def object_size(disk: Disk, path: str) -> int | None:
    """Bytes of an object; None where it is gone."""
    try:
        return disk.size(path)
    except NotFound:
        return None


def find_end(disk: Disk, objects: list[JournalObject]) -> JournalEnd:
    """Scan the objects at the end of the journal that no later one vouches for."""
    place, last_seq = Place(), 0
    tails: list[Tail] = []
    damaged: list[Damage] = []
    for extent in extents(objects):
        one = extent.object
        if extent.next_seq is not None:
            n_bytes = one.size_bytes if extent.end is None else extent.end
            place, last_seq = Place(one.incarnation, one.n, n_bytes), extent.next_seq - 1
            continue
        if one.header is not None:
            last_seq = one.header.first_seq - 1
        tail, last_seq = _tail(load(disk, extent), one, last_seq, damaged)
        tails.append(tail)
        if tail.n_kept_bytes:
            place = Place(one.incarnation, one.n, tail.n_kept_bytes)
    return JournalEnd(place, last_seq, tuple(tails), tuple(damaged))


def _tail(data: memoryview, one: JournalObject, last_seq: int, damaged: list[Damage]) -> tuple[Tail, int]:
    """What counts of an object at the end, and the seq of its last record; damage is added to `damaged`."""
    keep, n_records = 0 if one.header is None else HEADER_BYTES, 0
    holes: list[Hole] = []
    for item in scan(data, one):
        if isinstance(item, Record):
            damaged += [Damage(one.path, h.byte, h.end - h.byte, last_seq + 1, item.seq - 1) for h in holes]
            holes.clear()
            keep, last_seq = min(item.end, len(data)), max(item.seq, last_seq)
        elif item.is_durable:
            holes.append(item)
        else:
            n_records = sum(1 for _ in records_behind(data, item.byte, object_seed(one.incarnation, one.n)))
            break
    return Tail(one.path, keep, len(data) - keep, n_records), last_seq
