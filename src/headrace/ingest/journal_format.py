r"""The journal's bytes, version 1: what an object and a record look like on disk.

All integers are little-endian. An *object* is ``journal/<incarnation>/<n>.hrj`` (8 digits each, from 1); it
begins with a header of 128 bytes:

====== ===== ==================================================================================
offset bytes field
====== ===== ==================================================================================
0      8     magic ``HRJRNL\r\n``
8      4     crc32 of bytes 12 to 127
12     2     version, 1
14     2     flags: 1 = seal (whoever takes over writes one; its owner must stop)
16     8     incarnation, n (u32 each)
24     8     seq of the first record (u64)
32     8     created, ns since 1970 UTC (i64)
40     8     nonce of the owner (u64)
48     12    the object before: incarnation, n, bytes that count (u32 each; 0, 0, 0 for none).
             What lies behind those bytes was never acknowledged and is passed over
60     4     bytes of the host's name (u32)
64     64    host, UTF-8, zero-padded
====== ===== ==================================================================================

Records follow, each at a multiple of 8 bytes:

====== ===== ==================================================================================
offset bytes field
====== ===== ==================================================================================
0      4     magic ``HRJr``
4      4     crc32 of everything behind it, padding excluded, started from
             crc32 of ``<incarnation>/<n>`` (so that a record counts only in its own object)
8      4     stored bytes: index and payload (u32)
12     1     kind (`RecordKind`)
13     1     flags: 1 = payload is lz4 (raw block), 2 = definition repeated from an older object
14     2     entries of the index (u16)
16     8     seq (u64): running number over the whole life of the store
24     4     bytes of this object that were durable when the record was written (u32): a hole
             before them is damage, a hole behind them is a torn write
28     4     payload bytes when decompressed (u32)
32           index: (shard u32, first frame u32) for each entry, then the payload, then zeros to 8
====== ===== ==================================================================================

Payloads: FRAMES `FrameBatch.to_bytes` with frames in shard order; REJECT see `headrace.ingest.rejects`;
DEFINE first slot and number of slots (u32 each), then `SensorDirectory.to_bytes`; CONFIG JSON (``pipelines``: those in force from
here on, else nothing); TICK now, ns
(i64); RELEASE shard (u32); SEAL nonce (u64) and host.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.core.disk import Buffer
from headrace.core.errors import CorruptionError, StorageError
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
HEADER_BYTES = 128
HEAD_BYTES = 32
MAX_RECORD_BYTES = 1 << 30
SEAL_OBJECT = 1
LZ4, REPEATED = 1, 2

_MAGIC = b"HRJRNL\r\n"
RECORD_MAGIC = b"HRJr"
_HEADER = struct.Struct("<8sIHHIIQqQIIII64s")
_HEAD = struct.Struct("<4sIIBBHQII")
_TICK = struct.Struct("<q")
_SHARD = struct.Struct("<I")
_SLOTS = struct.Struct("<II")
_TRIAL_FROM_BYTES = 1 << 18
_TRIAL_BYTES = 1 << 15
_PAYS_BELOW = 0.5
_COMPRESS_FROM_BYTES = 128
_LZ4_RATIO_MAX = 255

Index = npt.NDArray[np.uint32]
_NO_INDEX: Index = np.empty((0, 2), np.uint32)


class RecordKind(IntEnum):
    """What a record holds."""

    FRAMES = 1
    REJECT = 2
    DEFINE = 3
    CONFIG = 4
    TICK = 5
    RELEASE = 6
    SEAL = 7


_KINDS = frozenset(RecordKind)


@dataclass(frozen=True, slots=True)
class Place:
    """An object's place in the journal and, as `n_bytes`, how much of it counts."""

    incarnation: int = 0
    n: int = 0
    n_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ObjectHeader:
    """The first 128 bytes of an object."""

    incarnation: int
    n: int
    first_seq: int
    created_ns: int
    nonce: int
    host: str
    previous: Place = field(default_factory=Place)
    flags: int = 0

    @property
    def is_seal(self) -> bool:
        """Whether the object is a seal: its incarnation has ended."""
        return bool(self.flags & SEAL_OBJECT)

    def to_bytes(self) -> bytes:
        """The header as 128 bytes."""
        host = self.host.encode()[:64].decode(errors="ignore").encode()
        p = self.previous
        data = _HEADER.pack(
            _MAGIC, 0, VERSION, self.flags, self.incarnation, self.n, self.first_seq, self.created_ns,
            self.nonce, p.incarnation, p.n, p.n_bytes, len(host), host,
        )  # fmt: skip
        return data[:8] + struct.pack("<I", zlib.crc32(data[12:])) + data[12:]

    @classmethod
    def from_bytes(cls, data: Buffer) -> ObjectHeader | None:
        """The header that `data` begins with; None where it is torn or damaged.

        Raises
        ------
        StorageError : a newer version wrote it.
        """
        head = bytes(data[:HEADER_BYTES])
        if len(head) < HEADER_BYTES or not head.startswith(_MAGIC):
            return None
        (
            _,
            crc,
            version,
            flags,
            incarnation,
            n,
            first_seq,
            created_ns,
            nonce,
            before,
            before_n,
            n_bytes,
            n_host,
            host,
        ) = _HEADER.unpack(head)
        if crc != zlib.crc32(head[12:]):
            return None
        if version != VERSION:
            raise StorageError(
                f"journal object {incarnation}/{n} has format version {version}, this program reads {VERSION}; "
                f"use the Headrace version that wrote it"
            )
        previous = Place(before, before_n, n_bytes)
        return cls(
            incarnation,
            n,
            first_seq,
            created_ns,
            nonce,
            host[:n_host].decode(errors="replace"),
            previous,
            flags,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One record as it was read; its checksum has been verified. `stored` is a view of the object."""

    seq: int
    kind: RecordKind
    flags: int
    index: Index
    stored: memoryview
    n_raw_bytes: int
    n_synced_bytes: int
    start: int
    """Byte of the object at which the record begins."""

    @property
    def end(self) -> int:
        """Byte of the object behind the record and its padding."""
        return self.start + HEAD_BYTES + _padded(self.index.nbytes + len(self.stored))

    @property
    def is_repeated(self) -> bool:
        """Whether this is a definition repeated from an older object; its seq is that of the record before."""
        return bool(self.flags & REPEATED)

    @property
    def payload(self) -> memoryview:
        """The payload, decompressed; call it once.

        Raises
        ------
        CorruptionError : it can't be decompressed.
        """
        if not self.flags & LZ4:
            return self.stored
        if self.n_raw_bytes > _LZ4_RATIO_MAX * len(self.stored):
            raise CorruptionError(
                f"journal record {self.seq} claims {self.n_raw_bytes:,} bytes, more than {len(self.stored):,} can hold"
            )
        try:
            raw = lz4_codec().decompress(self.stored, decompressed_size=self.n_raw_bytes)
        except OSError as e:
            raise CorruptionError(f"journal record {self.seq} can't be decompressed: {e}") from e
        return memoryview(raw).cast("B")

    @property
    def shards(self) -> npt.NDArray[np.uint32]:
        """Shards that have frames in the record, ascending: uint32[n]."""
        return self.index[:, 0]

    def batch(self, shard: int | None = None) -> FrameBatch:
        """The frames of a FRAMES record, in shard order; or those of one shard (none: an empty batch).

        Raises
        ------
        CorruptionError : it holds no frames, or other ones than its index says.
        """
        batch = FrameBatch.from_bytes(self.payload)
        ends = np.append(self.index[:, 1], batch.n_frames)
        if (ends[1:] < ends[:-1]).any() or (self.shards[1:] <= self.shards[:-1]).any():
            raise CorruptionError(
                f"the index of journal record {self.seq} is not that of {batch.n_frames:,} frames"
            )
        if shard is None:
            return batch
        at = int(np.searchsorted(self.shards, shard))
        if at == len(self.index) or self.index[at, 0] != shard:
            return batch.slice(0, 0)
        last = int(self.index[at + 1, 1]) if at + 1 < len(self.index) else batch.n_frames
        return batch.slice(int(self.index[at, 1]), last)

    def tick_ns(self) -> int:
        """The time of a TICK record. Raises `CorruptionError`."""
        return self._number(_TICK)

    def released_shard(self) -> int:
        """The shard of a RELEASE record. Raises `CorruptionError`."""
        return self._number(_SHARD)

    def _number(self, form: struct.Struct) -> int:
        try:
            return int(form.unpack(self.payload)[0])
        except struct.error as e:
            raise CorruptionError(f"journal record {self.seq} is no {self.kind.name} record: {e}") from e

    def define(self, directory: SensorDirectory) -> None:
        """Define in `directory` what a DEFINE record holds; what is known already is passed over.

        Raises
        ------
        CorruptionError : the definitions do not continue the directory's.
        """
        directory.apply_bytes(self.payload[_SLOTS.size :])


def lz4_codec() -> pa.Codec:
    """The raw-block lz4 codec; it releases the GIL."""
    import pyarrow as pa

    return pa.Codec("lz4_raw")


def tick_payload(now_ns: int) -> list[Buffer]:
    """Payload of a TICK record."""
    return [_TICK.pack(now_ns)]


def release_payload(shard: int) -> list[Buffer]:
    """Payload of a RELEASE record."""
    return [_SHARD.pack(shard)]


def define_payload(directory: SensorDirectory, first_slot: int) -> list[Buffer]:
    """Payload of a DEFINE record of the slots from `first_slot` on."""
    n_slots = directory.n_slots - first_slot
    return [_SLOTS.pack(first_slot, n_slots), directory.to_bytes(first_slot)]


def defined_slots(payload: Sequence[Buffer]) -> int:
    """Slots that are known once a DEFINE payload was applied: its first slot plus their number."""
    return sum(_SLOTS.unpack_from(payload[0]))


def shard_index(start: npt.NDArray[np.int64]) -> Index:
    """Index of a batch in shard order, from the `start` that `FrameBatch.split` returns."""
    shards = np.flatnonzero(np.diff(start))
    return np.stack([shards, start[shards]], axis=1).astype(np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A record's content, compressed where that pays; it does not know its object yet.

    `stored` are its bytes in parts, one behind the other.
    """

    kind: RecordKind
    flags: int
    index: Index
    stored: Sequence[Buffer]
    n_raw_bytes: int

    @property
    def n_stored_bytes(self) -> int:
        """Bytes of the content as it is written."""
        return _n_bytes(self.stored)

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole record on disk."""
        return HEAD_BYTES + _padded(self.index.nbytes + self.n_stored_bytes)


def encode_body(kind: RecordKind, payload: Iterable[Buffer], index: Index | None, codec: Any) -> Body:
    """Compress a payload where that pays; where it does not, its parts stay where they are.

    Cost: where the payload is compressed, 4.5 ns of CPU a u16 register, 11 a float64.
    """
    stored = tuple(payload)
    n_raw_bytes, flags = _n_bytes(stored), 0
    if n_raw_bytes >= _COMPRESS_FROM_BYTES and _pays(stored, codec):
        # The slice has its own length; the view of a resized Arrow buffer still has the old one.
        packed = memoryview(codec.compress(b"".join(stored)).slice(0)).cast("B")
        if len(packed) < n_raw_bytes:
            stored, flags = (packed,), LZ4
    return Body(kind, flags, _NO_INDEX if index is None else index, stored, n_raw_bytes)


def _n_bytes(parts: Iterable[Buffer]) -> int:
    return sum(memoryview(part).nbytes for part in parts)


def _pays(parts: Sequence[Buffer], codec: Any) -> bool:
    """Whether a large payload is worth compressing, tried on a piece from the middle of its longest part.

    The journal lives for minutes: bytes that are written once cost less CPU than saving a few of them.
    """
    longest = memoryview(max(parts, key=len)).cast("B")
    if len(longest) < _TRIAL_FROM_BYTES:
        return True
    piece = longest[len(longest) // 2 :][:_TRIAL_BYTES]
    return len(codec.compress(piece)) <= _PAYS_BELOW * len(piece)


def encode_record(body: Body, seq: int, n_synced_bytes: int, seed: int, flags: int = 0) -> list[Buffer]:
    """A record as buffers to write one after the other."""
    length = body.index.nbytes + body.n_stored_bytes
    rest = _HEAD.pack(
        RECORD_MAGIC, 0, length, body.kind, body.flags | flags, len(body.index), seq, n_synced_bytes, body.n_raw_bytes
    )[8:] + body.index.tobytes()  # fmt: skip
    crc = zlib.crc32(rest, seed)
    for part in body.stored:
        crc = zlib.crc32(part, crc)
    return [RECORD_MAGIC + struct.pack("<I", crc) + rest, *body.stored, bytes(-length % 8)]


def parse_record(data: memoryview, at: int, seed: int) -> Record | None:
    """The record at byte `at` of an object; None where there is no whole, valid one."""
    if at + HEAD_BYTES > len(data):
        return None
    magic, crc, length, kind, flags, n_index, seq, n_synced, n_raw = _HEAD.unpack_from(data, at)
    body = at + HEAD_BYTES
    if magic != RECORD_MAGIC or kind not in _KINDS or 8 * n_index > length or body + length > len(data):
        return None
    if zlib.crc32(data[at + 8 : body + length], seed) != crc:
        return None
    index = np.frombuffer(data, np.uint32, 2 * n_index, body).reshape(n_index, 2)
    stored = data[body + 8 * n_index : body + length]
    return Record(seq, RecordKind(kind), flags, index, stored, n_raw, n_synced, at)


def next_record(data: memoryview, at: int, seed: int) -> Record | None:
    """The first valid record at or behind byte `at`: how reading goes on after a hole."""
    rest = bytes(data[at:])
    found = rest.find(RECORD_MAGIC)
    while found >= 0:
        record = None if (at + found) % 8 else parse_record(data, at + found, seed)
        if record is not None:
            return record
        found = rest.find(RECORD_MAGIC, found + 1)
    return None


def object_seed(incarnation: int, n: int) -> int:
    """What the checksums of an object's records start from."""
    return zlib.crc32(f"{incarnation}/{n}".encode())


def _padded(n_bytes: int) -> int:
    return n_bytes + -n_bytes % 8
