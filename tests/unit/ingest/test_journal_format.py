"""The journal's bytes: golden object of version 1, and what becomes of bytes that are not a record."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from headrace.core.errors import CorruptionError, StorageError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.ingest.journal_format import (
    HEADER_BYTES,
    LZ4,
    SEAL_OBJECT,
    Index,
    ObjectHeader,
    Place,
    Record,
    RecordKind,
    define_payload,
    defined_slots,
    encode_body,
    encode_record,
    lz4_codec,
    next_record,
    object_seed,
    parse_record,
    release_payload,
    shard_index,
    tick_payload,
)

GOLDEN_HEADER = (
    "48524a524e4c0d0ab6970783010000000200000003000000290000000000000000f2052a01000000"
    "887766554433221102000000010000009001000007000000706c616e742d41" + "00" * 57
)
GOLDEN_TICK = "48524a72dbe198bf08000000050000002900000000000000800000000800000000f2052a01000000"
GOLDEN_COMPRESSED = (
    "48524a72a3e8c8e51200000004010000070000000000000000000000c8000000"
    "8f68656164726163650800a8506472616365000000000000"
)
GOLDEN_FRAMES = (
    "48524a72eaa19e4058000000010001002a00000000000000a8000000500000000500000000000000"
    "01000200010000000100000001000000000000000700000000000000040000000000000005000000"
    "000000006f76656e730000000000000000f2052a0100000001020000000000000300000000000000"
)


def header() -> ObjectHeader:
    return ObjectHeader(2, 3, 41, 5_000_000_000, 0x1122334455667788, "plant-A", Place(2, 1, 400))


def one_record(kind: RecordKind, payload: bytes, seq: int = 41, at: int = 128) -> bytes:
    body = encode_body(kind, [payload], None, lz4_codec())
    return b"".join(encode_record(body, seq, at, object_seed(2, 3)))


def test_header_of_version_1_has_these_bytes() -> None:
    assert header().to_bytes().hex() == GOLDEN_HEADER
    assert len(header().to_bytes()) == HEADER_BYTES
    assert ObjectHeader.from_bytes(bytes.fromhex(GOLDEN_HEADER)) == header()


def test_record_of_version_1_has_these_bytes() -> None:
    assert one_record(RecordKind.TICK, b"".join(tick_payload(5_000_000_000))).hex() == GOLDEN_TICK
    data = memoryview(bytes(128) + bytes.fromhex(GOLDEN_TICK))
    record = parse_record(data, 128, object_seed(2, 3))
    assert record is not None
    assert (record.seq, record.kind, record.tick_ns(), record.n_synced_bytes) == (
        41,
        RecordKind.TICK,
        5_000_000_000,
        128,
    )
    assert (record.start, record.end) == (128, 168)
    assert not record.is_repeated


def test_compressed_record_of_version_1_can_be_read() -> None:
    record = parse_record(memoryview(bytes.fromhex(GOLDEN_COMPRESSED)), 0, object_seed(1, 1))
    assert record is not None
    assert record.flags == LZ4
    assert bytes(record.payload) == b"headrace" * 25
    assert parse_record(memoryview(bytes.fromhex(GOLDEN_COMPRESSED)), 0, object_seed(1, 2)) is None


def test_frames_of_version_1_have_these_bytes() -> None:
    batch = FrameBatch.dense(
        np.array([3], np.uint32),
        np.array([5_000_000_000]),
        np.array([[513]], np.uint16),
        arrival_ns=7,
        origin="ovens",
        sequence=4,
    )
    body = encode_body(RecordKind.FRAMES, batch.to_buffers(), np.array([[5, 0]], np.uint32), lz4_codec())
    assert b"".join(encode_record(body, 42, 168, object_seed(2, 3))).hex() == GOLDEN_FRAMES
    record = parse_record(memoryview(bytes.fromhex(GOLDEN_FRAMES)), 0, object_seed(2, 3))
    assert record is not None
    assert record.batch().to_bytes() == batch.to_bytes()


def test_torn_and_foreign_headers_are_none() -> None:
    good = header().to_bytes()
    assert ObjectHeader.from_bytes(good[:127]) is None
    assert ObjectHeader.from_bytes(b"x" + good[1:]) is None
    assert ObjectHeader.from_bytes(good[:50] + b"\xff" + good[51:]) is None


def test_a_newer_version_is_refused_in_words() -> None:
    data = bytearray(header().to_bytes())
    data[12] = 2
    data[8:12] = struct.pack("<I", zlib.crc32(data[12:]))
    with pytest.raises(StorageError, match=r"journal object 2/3 has format version 2, this program reads 1"):
        ObjectHeader.from_bytes(data)


def test_long_names_of_hosts_are_cut_between_characters() -> None:
    name = "x" * 63 + "é"
    read = ObjectHeader.from_bytes(ObjectHeader(1, 1, 1, 0, 0, name).to_bytes())
    assert read is not None
    assert read.host == "x" * 63


def test_seal_is_a_flag() -> None:
    assert ObjectHeader(1, 1, 1, 0, 0, "", flags=SEAL_OBJECT).is_seal
    assert not header().is_seal


def test_what_is_not_a_record_is_none() -> None:
    seed, good = object_seed(2, 3), bytearray(one_record(RecordKind.CONFIG, b"abc"))
    assert parse_record(memoryview(good), 0, seed) is not None
    assert parse_record(memoryview(good)[:20], 0, seed) is None
    assert parse_record(memoryview(good)[:34], 0, seed) is None
    for byte, value in ((0, 0), (12, 99), (14, 9), (33, 0)):  # magic, kind, index, payload
        bad = good.copy()
        bad[byte] = value
        assert parse_record(memoryview(bad), 0, seed) is None


def test_the_next_record_is_found_behind_rubbish_at_its_own_alignment() -> None:
    seed, record = object_seed(2, 3), one_record(RecordKind.CONFIG, b"abc")
    rubbish = b"HRJr" + bytes(20)
    found = next_record(memoryview(rubbish + record), 0, seed)
    assert found is not None
    assert found.start == len(rubbish)
    assert next_record(memoryview(b"abc" + record), 0, seed) is None
    assert next_record(memoryview(rubbish), 0, seed) is None


def test_a_payload_that_cannot_be_decompressed_is_corruption() -> None:
    body = encode_body(RecordKind.CONFIG, [b"a" * 500], None, lz4_codec())
    data = b"".join(encode_record(type(body)(body.kind, LZ4, body.index, [b"\xff" * 40], 500), 9, 0, 0))
    record = parse_record(memoryview(data), 0, 0)
    assert record is not None
    with pytest.raises(CorruptionError, match="journal record 9 can't be decompressed"):
        _ = record.payload


def a_record(kind: RecordKind, payload: bytes, index: Index | None = None, **changed: int) -> Record:
    body = replace(encode_body(kind, [payload], index, lz4_codec()), **changed)
    record = parse_record(memoryview(b"".join(encode_record(body, 9, 0, 0))), 0, 0)
    assert record is not None
    return record


def test_a_payload_that_claims_more_than_its_bytes_can_hold_is_corruption() -> None:
    record = a_record(RecordKind.CONFIG, b"a" * 500, n_raw_bytes=0xFFFFFFF0)
    with pytest.raises(CorruptionError, match=r"claims 4,294,967,280 bytes, more than \d+ can hold"):
        _ = record.payload


@pytest.mark.parametrize("index", [[(0, 0), (1, 7)], [(0, 3), (1, 2)], [(1, 0), (0, 1)], [(1, 0), (1, 1)]])
def test_an_index_of_other_frames_is_corruption(index: list[tuple[int, int]]) -> None:
    batch = FrameBatch.dense(np.zeros(3, np.uint32), np.arange(3, dtype=np.int64), np.zeros((3, 1)))
    record = a_record(RecordKind.FRAMES, batch.to_bytes(), np.array(index, np.uint32))
    with pytest.raises(CorruptionError, match="the index of journal record 9 is not that of 3 frames"):
        record.batch(0)


def test_ticks_and_releases_of_another_size_are_corruption() -> None:
    with pytest.raises(CorruptionError, match="journal record 9 is no TICK record"):
        a_record(RecordKind.TICK, b"1234567").tick_ns()
    with pytest.raises(CorruptionError, match="journal record 9 is no RELEASE record"):
        a_record(RecordKind.RELEASE, b"").released_shard()


def test_a_host_that_is_no_text_is_read_all_the_same() -> None:
    data = bytearray(header().to_bytes())
    data[64] = 0xFF
    data[8:12] = struct.pack("<I", zlib.crc32(data[12:]))
    read = ObjectHeader.from_bytes(bytes(data))
    assert read is not None
    assert read.host == "\ufffdlant-A"


def test_frames_of_one_shard_can_be_read_alone() -> None:
    directory = SensorDirectory()
    slots = directory.define_many(
        [f"plant/d{i}" for i in range(40)], Layout("u16", (Column("a"), Column("b")))
    )
    values = np.arange(80, dtype=np.uint16).reshape(40, 2)
    batch = FrameBatch.dense(slots, np.arange(40, dtype=np.int64), values)
    ordered, start = batch.split(directory.shard[batch.slot], directory.n_shards)
    body = encode_body(RecordKind.FRAMES, ordered.to_buffers(), shard_index(start), lz4_codec())
    data = b"".join(encode_record(body, 1, 0, 0))
    assert len(data) == body.size_bytes
    record = parse_record(memoryview(data), 0, 0)
    assert record is not None
    assert record.batch().to_bytes() == ordered.to_bytes()
    assert record.shards.tolist() == np.unique(directory.shard[slots]).tolist()
    seen = 0
    for shard in range(directory.n_shards):
        mine = record.batch(shard)
        assert (directory.shard[mine.slot] == shard).all()
        seen += mine.n_frames
    assert seen == 40


def test_definitions_and_releases() -> None:
    directory, other = SensorDirectory(), SensorDirectory()
    directory.define("plant/a", Layout("u16", (Column("x"),)))
    other.apply_bytes(directory.to_bytes())
    directory.define("plant/b", Layout("f64", (Column("y"),)))
    payload = define_payload(directory, 1)
    assert defined_slots(payload) == 2
    data = b"".join(encode_record(encode_body(RecordKind.DEFINE, payload, None, lz4_codec()), 1, 0, 0))
    record = parse_record(memoryview(data), 0, 0)
    assert record is not None
    record.define(other)
    record.define(other)
    assert other.paths == ["plant/a", "plant/b"]
    data = b"".join(
        encode_record(encode_body(RecordKind.RELEASE, release_payload(17), None, lz4_codec()), 1, 0, 0)
    )
    released = parse_record(memoryview(data), 0, 0)
    assert released is not None
    assert released.released_shard() == 17


def test_a_large_payload_is_compressed_where_a_piece_of_it_says_that_it_pays():
    noise = np.random.Generator(np.random.PCG64(5)).bytes(1 << 19)
    steady = np.repeat(np.arange(1 << 10, dtype=np.int64), 1 << 7).tobytes()
    kept = encode_body(RecordKind.CONFIG, [noise], None, lz4_codec())
    packed = encode_body(RecordKind.CONFIG, [steady], None, lz4_codec())
    assert (b"".join(kept.stored), kept.flags) == (noise, 0)
    assert packed.n_stored_bytes < len(steady) // 4
    assert packed.flags
