"""Hostile journals, commits, manifests, segments and states: damage is told as such, whatever its checksum says."""

import json
import struct
import zlib

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.mutations import any_of, at_most, mutated, other_json

from headrace.core.clock import VirtualClock
from headrace.core.errors import CorruptionError, NotFound, StorageError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.ingest.journal import Journal
from headrace.ingest.journal_format import (
    HEAD_BYTES,
    HEADER_BYTES,
    RECORD_MAGIC,
    ObjectHeader,
    Place,
    Record,
    RecordKind,
    define_payload,
    object_seed,
    shard_index,
    tick_payload,
)
from headrace.ingest.journal_reader import find_end, list_objects, object_path, read_records
from headrace.ingest.rejects import decode_rejects, encode_rejects
from headrace.pipeline.base import Tick
from headrace.pipeline.flows import Flow, FlowSpec
from headrace.runtime.engine_core import EngineCore
from headrace.sim.disk import SimulatedDisk
from headrace.store.commits import Commit, SegmentInfo, ShardPosition, load_commits, sealed_json
from headrace.store.manifests import Manifest, read_manifest
from headrace.store.query import Store
from headrace.store.segment import open_segment
from headrace.testing.stores import StoreRig

NS = 10**9
T0 = 1_767_225_600 * NS
LAYOUT = Layout("u16", (Column("a"), Column("b")))


def a_directory():
    directory = SensorDirectory(shard_bits=1)
    directory.define_many([f"l/d{i}" for i in range(6)], LAYOUT)
    return directory


def some_frames(directory, at=0, n=6):
    slot = np.sort(np.arange(n, dtype=np.uint32) % directory.n_slots)
    slot = slot[np.argsort(directory.shard[slot], kind="stable")]
    ts_ns = np.full(n, T0 + at * NS)
    return FrameBatch.dense(slot, ts_ns, np.arange(2 * n, dtype=np.uint16).reshape(n, 2))


# --- journal -----------------------------------------------------------------------------------------


def a_journal():
    """(disk, bytes of the one object) of a journal with records of each kind."""
    disk, directory = SimulatedDisk(1), a_directory()
    journal = Journal.open(disk, VirtualClock(T0), nonce=7)
    journal.append(RecordKind.DEFINE, define_payload(directory, 0))
    for i in range(2):
        batch, start = some_frames(directory, i, 60).split(np.zeros(60, np.int64), 2)
        batch, start = batch.split(directory.shard[batch.slot], 2)
        journal.append(RecordKind.FRAMES, batch.to_buffers(), shard_index(start))
        journal.append(RecordKind.TICK, tick_payload(T0 + i * NS))
    journal.append(RecordKind.REJECT, [encode_rejects([Reject(RejectCode.MALFORMED, "a", "s", "d", b"x")])])
    journal.append(RecordKind.RELEASE, [b"\x01\x00\x00\x00"])
    journal.sync()
    return disk, bytes(disk.read(object_path(1, 1)))


DISK, JOURNAL = a_journal()


def use(record: Record):
    """What recovery and readers do with a record."""
    directory = SensorDirectory(shard_bits=1)
    if record.kind is RecordKind.DEFINE:
        record.define(directory)
    elif record.kind is RecordKind.FRAMES:
        for shard in (None, 0, 1, 5):
            record.batch(shard).value_times()
    elif record.kind is RecordKind.TICK:
        record.tick_ns()
    elif record.kind is RecordKind.REJECT:
        decode_rejects(record.payload)
    elif record.kind is RecordKind.RELEASE:
        record.released_shard()


def read_all(data, after_seq=None):
    """Read a journal of one object as recovery does; damage and kinds of errors that are documented pass."""
    disk = SimulatedDisk(1)
    disk.put_if_absent(object_path(1, 1), data)
    damages = []
    try:
        for record in read_records(disk, after_seq, damages.append):
            try:
                use(record)
            except CorruptionError:
                pass
        find_end(disk, list_objects(disk))
    except (StorageError, NotFound):
        pass
    assert all(damage.text for damage in damages)


@settings(max_examples=300)
@given(any_of(JOURNAL, n_max=6), st.sampled_from([None, 0, 3, 10**6]))
def test_journals(data, after_seq):
    read_all(data, after_seq)


def test_the_journal_itself_is_read_whole():
    records = list(read_records(DISK))
    assert [record.kind for record in records if not record.is_repeated] == [3, 1, 5, 1, 5, 2, 6]
    for record in records:
        use(record)


def resealed(data, seed):
    """The same with every record's checksum made right again."""
    out, at = bytearray(data), bytes(data).find(RECORD_MAGIC)
    while at >= 0 and at + HEAD_BYTES <= len(out):
        (length,) = struct.unpack_from("<I", out, at + 8)
        end = at + HEAD_BYTES + length
        if end <= len(out):
            struct.pack_into("<I", out, at + 4, zlib.crc32(out[at + 8 : end], seed))
        at = bytes(out).find(RECORD_MAGIC, at + 4)
    return bytes(out)


@settings(max_examples=400)
@given(mutated(JOURNAL, n_max=6))
def test_journals_whose_checksums_are_right(data):
    head = data[:HEADER_BYTES]
    head = (
        head[:8] + struct.pack("<I", zlib.crc32(head[12:])) + head[12:] if len(head) == HEADER_BYTES else head
    )
    read_all(head + resealed(data[HEADER_BYTES:], object_seed(1, 1)))


@settings(max_examples=200)
@given(mutated(ObjectHeader(1, 1, 1, 5, 7, "host", Place(0, 3, 9)).to_bytes()), st.booleans())
def test_headers_of_journal_objects(data, is_resealed):
    if is_resealed and len(data) >= HEADER_BYTES:
        data = data[:8] + struct.pack("<I", zlib.crc32(data[12:HEADER_BYTES])) + data[12:]
    try:
        ObjectHeader.from_bytes(data)
    except StorageError:
        pass


def test_a_record_that_claims_gigabytes_takes_no_memory():
    records = [r for r in read_records(DISK) if r.flags & 1]
    assert records, "some records are compressed"
    for record in records:
        data = bytearray(JOURNAL)
        struct.pack_into("<I", data, record.start + 28, 0xFFFFFFF0)
        with at_most(8 << 20):
            read_all(resealed(data, object_seed(1, 1)))


# --- commits and manifests ---------------------------------------------------------------------------

INFO = SegmentInfo("segments/hot/00000001/00000001.parquet", 5, 1, 2, 3, 4, (20_000,), "ab")
COMMIT = Commit(
    1, 1, T0, INFO, {0: ShardPosition(5, "state/x", 4)}, "directory/1.parquet", {"stored": 3}, (INFO,)
)
MANIFEST = Manifest(20_000, 1, T0, (INFO,), {1: 3}, (INFO.name,), True)


@settings(max_examples=300)
@given(
    any_of(sealed_json(COMMIT.to_dict()))
    | other_json(COMMIT.to_dict()).map(lambda d: sealed_json({"": 0} if d != d else d))
)
def test_commits(data):
    disk = SimulatedDisk(1)
    disk.put_if_absent("commits/00000001/00000001.json", data)
    view = load_commits(disk)
    assert view.last == (1, 1)
    assert view.damaged or view.trim_seq([0, 1]) <= 5 or view.shards


@settings(max_examples=300)
@given(
    any_of(sealed_json(MANIFEST.to_dict()))
    | other_json(MANIFEST.to_dict()).map(lambda d: sealed_json({"": 0} if d != d else d))
)
def test_manifests(data):
    disk = SimulatedDisk(1)
    disk.put_if_absent("manifests/warm/020000/000001.json", data)
    try:
        found, sentence = read_manifest(disk, 20_000, [1])
    except CorruptionError:
        return
    assert not sentence
    assert found.has_consumed(INFO.name) in (True, False)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"data":' * 100_000, "9" * 100_000])
def test_commits_that_nest_too_deep(text):
    disk = SimulatedDisk(1)
    disk.put_if_absent("commits/00000001/00000001.json", text.encode())
    assert load_commits(disk).damaged


# --- a whole store -----------------------------------------------------------------------------------


FOLDERS = ("commits", "manifests", "segments", "directory", "state")


def a_store():
    """Every file of a store with hot and warm segments: path → bytes."""
    disk, directory = SimulatedDisk(1), SensorDirectory(shard_bits=1)
    directory.define_many([f"l/d{i}" for i in range(6)], LAYOUT)
    directory.define("l/word", Layout("u32", (Column("word"),)))
    rig = StoreRig(disk, directory)
    for i in range(40):
        rig.add(some_frames(directory, i))
        if i % 4 == 0:
            words = FrameBatch.dense(
                np.array([6], np.uint32), np.array([T0 + i * NS]), np.array([[i % 2]], np.uint32)
            )
            rig.add(words.with_(dictionary=("on", "off")))
        if i == 20:
            rig.flush()
            rig.compact()
    rig.flush()
    return {path: bytes(disk.read(path)) for folder in FOLDERS for path in disk.list(folder)}


def ask(files):
    """Open and query a store; the rows, unless damage was told."""
    disk = SimulatedDisk(1)
    for path, data in files.items():
        disk.put_if_absent(path, data)
    try:
        store = Store.open(disk)
        rows = store.query("**", T0, T0 + 3_600 * NS).n_rows
        store.query("**", T0, T0 + 3_600 * NS, 60 * NS, ("mean", "first", "var"))
    except (CorruptionError, NotFound):
        return 0
    return rows


FILES = a_store()
SEGMENTS = sorted(path for path in FILES if path.endswith(".parquet") and path.startswith("segments/"))


def test_the_store_itself_is_read_whole():
    assert ask(FILES) == 40 * 12 + 10
    assert {path.split("/")[0] for path in FILES} >= {"commits", "manifests", "segments", "directory"}


@settings(max_examples=60)
@given(st.sampled_from(sorted(FILES)).flatmap(lambda path: st.tuples(st.just(path), any_of(FILES[path]))))
def test_one_file_of_a_store(case):
    path, data = case
    with at_most(120 << 20):
        assert ask({**FILES, path: data}) <= 40 * 12 + 10


def with_footer(files, path):
    """The files, where whatever names a segment says what its footer is now."""
    data = files[path]
    length = int.from_bytes(data[-8:-4], "little")
    digest = xxhash.xxh3_64_hexdigest(data[-8 - length :] if length + 8 <= len(data) else b"")
    out = dict(files)
    for name, text in files.items():
        if name.endswith(".json") and path.encode() in text:
            document = json.loads(text)["data"]
            for one in [document.get("segment"), *(document.get("base") or []), *document.get("files", [])]:
                if one and one["name"] == path:
                    one["footer"], one["size_bytes"] = digest, len(data)
            out[name] = sealed_json(document)
    return out


@settings(max_examples=80)
@given(st.sampled_from(SEGMENTS).flatmap(lambda path: st.tuples(st.just(path), mutated(FILES[path]))))
def test_segments_whose_footer_is_right(case):
    """Parquet's own structure is hostile: the checksum that the commit has of it fits."""
    path, data = case
    ask(with_footer({**FILES, path: data}, path))


@settings(max_examples=100)
@given(mutated(FILES[SEGMENTS[0]]))
def test_segments_that_no_commit_describes(data):
    disk = SimulatedDisk(1)
    disk.put_if_absent("x.parquet", data)
    try:
        segment = open_segment(disk, "x.parquet")
        _ = segment.spans, segment.about
        for group in range(segment.n_groups):
            assert segment.headers(group).size_bytes >= 0
    except CorruptionError:
        pass


# --- state -------------------------------------------------------------------------------------------

STEPS = (
    {"op": "dead_band", "change": 0.5, "heartbeat": "1m"}, {"op": "window", "every": "10s", "agg": ["mean", "max"]},
)  # fmt: skip


def a_core():
    directory = a_directory()
    flow = Flow(FlowSpec("minutes", "**", STEPS, "{parent}/{signal}_{agg}"), directory)
    flow.extend()
    return directory, EngineCore(directory, [flow], [0, 1], lambda slots, start_ns, end_ns: {})


def a_state():
    directory, core = a_core()
    for i in range(25):
        core.process(2 * i, some_frames(directory, i))
        core.process(2 * i + 1, Tick(T0 + i * NS))
    return bytes(core.part(0, snapshot=True).state)


STATE = a_state()


def restored(data):
    """(directory, core) that took over a state, or None where the state is damaged."""
    directory, core = a_core()
    try:
        core.restore(0, data, 50, 50)
    except CorruptionError:
        return None
    return directory, core


def test_the_state_itself_goes_on():
    directory, core = restored(STATE)
    assert core.now_ns == T0 + 24 * NS
    core.process(60, some_frames(directory, 30))
    assert core.part(0, snapshot=True).state


@settings(max_examples=150)
@given(any_of(STATE))
def test_states(data):
    assert data in (STATE, b"") or restored(data) is None


@settings(max_examples=80)
@given(mutated(STATE[:-8]))
def test_states_whose_checksum_is_right(data):
    with at_most(40 << 20):
        restored(data + xxhash.xxh3_64_digest(data))
