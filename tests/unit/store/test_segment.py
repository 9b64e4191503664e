"""Segments: written whole, read by slices, damage told."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.core.disk import LocalDisk
from headrace.core.errors import CorruptionError, NotFound
from headrace.sim.disk import SimulatedDisk
from headrace.store import segment as segment_module
from headrace.store.chunks import RowEncoder, ShardFrames
from headrace.store.reader import SegmentReader
from headrace.store.schema import COLUMNS
from headrace.store.segment import SegmentFile, open_segment, verify_segment, write_segment

NS = 1_000_000_000
NOON = (20_000 * 86_400 + 43_200) * NS
NAME = "segments/hot/00000001/00000001.parquet"


def tables(plant, n=1, first=0):
    encoder = RowEncoder(plant.directory)
    batches = [
        plant.frames(plant.oven, first, [[k, 2 * k] for k in range(n)]), plant.frames(plant.lone, first, np.arange(n) / 2),
        plant.frames(plant.meter, first, np.arange(n)),
    ]  # fmt: skip
    shards = plant.directory.shard
    out = []
    for shard in range(2):
        mine = [b for b in batches if shards[b.slot[0]] == shard]
        out.append(encoder.encode([ShardFrames(shard, mine, [], 1, NOON)]))
    return [t for t in out if len(t)]


@pytest.fixture
def disk():
    return SimulatedDisk(1)


@pytest.fixture
def info(disk, plant):
    done = write_segment(NAME, tables(plant, 10), {"note": 1})
    disk.put_if_absent(NAME, done.data)
    return done.info


def test_a_segment_says_what_it_holds(info, disk):
    assert (info.n_rows, info.n_samples, info.days) == (3, 40, (20_000,))
    assert (info.t_min_ns, info.t_max_ns) == (NOON, NOON + 9 * NS)
    assert info.size_bytes == disk.size(NAME)
    assert SegmentFile(disk, info).about == {"note": 1}


def test_any_parquet_tool_reads_the_headers(info, disk, tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(disk.read(NAME))
    import duckdb

    rows = duckdb.sql(f"select path, n_frames, epoch_ns(t_min) from '{path}' order by path").fetchall()
    assert rows == [
        ("leon/line1/oven", 10, NOON),
        ("leon/line1/pressure", 10, NOON),
        ("leon/line2/meter", 10, NOON),
    ]
    table = pq.read_table(path)
    assert set(table.column_names) <= set(COLUMNS)
    assert {n: str(table.schema.field(n).type) for n in ("group", "t_min", "payload", "count")} == {
        "group": "uint64", "t_min": "timestamp[ns, tz=UTC]", "payload": "binary", "count": "uint32",
    }  # fmt: skip


def test_payloads_are_sliced_out_of_the_file(info, disk):
    file = SegmentFile(disk, info)
    headers = file.headers(0)
    whole = file.table(["payload"])["payload"].to_pylist()
    data, starts = file.payloads(headers.offset, headers.n_bytes)
    assert [data[a:b].tobytes() for a, b in itertools.pairwise(starts)] == whole
    assert data.tobytes() == b"".join(whole)


def test_row_groups_have_a_bounded_size(disk, plant, monkeypatch):
    monkeypatch.setattr(segment_module, "_ROWS_MAX", 2)
    done = write_segment(NAME, [t.slice(i, 1) for t in tables(plant, 3) for i in range(len(t))])
    disk.put_if_absent(NAME, done.data)
    file = SegmentFile(disk, done.info)
    assert [len(file.headers(g)) for g in range(file.n_groups)] == [2, 1]
    monkeypatch.setattr(segment_module, "_GROUP_BYTES_MAX", 1)
    done = write_segment("other", tables(plant, 3))
    disk.put_if_absent("other", done.data)
    assert SegmentFile(disk, done.info).n_groups == 3


def test_a_search_reads_only_row_groups_of_its_time(disk, plant, monkeypatch):
    monkeypatch.setattr(segment_module, "_ROWS_MAX", 1)
    done = write_segment(NAME, [*tables(plant, 1, 0), *tables(plant, 1, 100)])
    disk.put_if_absent(NAME, done.data)
    reader = SegmentReader(disk)
    read = []
    monkeypatch.setattr(
        SegmentFile, "headers", lambda self, g, real=SegmentFile.headers: read.append(g) or real(self, g)
    )
    groups = np.sort(plant.directory.group_id)
    found = reader.find(done.info, groups, NOON + 50 * NS, NOON + 200 * NS)
    assert len(found.rows) == 3
    assert read == [3, 4, 5]
    assert reader.find(done.info, groups[:0], NOON, NOON + 1) is None


def test_headers_are_kept_within_a_bound(disk, info, plant):
    reader = SegmentReader(disk, header_cache_bytes=1)
    groups = np.sort(plant.directory.group_id)
    for _ in range(2):
        assert len(reader.find(info, groups, NOON, NOON + NS).rows) == 3
    assert reader.open(info) is reader.open(info)
    reader.forget({info.name})
    assert len(reader.find(info, groups, NOON, NOON + NS).rows) == 3


@pytest.mark.parametrize("at", [-1, -30, -5])
def test_a_damaged_footer_is_told(info, disk, at):
    disk.flip_bit(NAME, at)
    with pytest.raises(CorruptionError, match=f"segment {NAME} is damaged"):
        SegmentFile(disk, info)


def test_another_file_of_that_name_is_told(info, disk, plant):
    disk.replace(NAME, write_segment(NAME, tables(plant, 3)).data)
    with pytest.raises(CorruptionError, match="expected"):
        SegmentFile(disk, info)


def test_a_damaged_page_of_headers_is_told(info, disk):
    file = pq.ParquetFile(pa.BufferReader(bytes(disk.read(NAME))))
    column = next(c for c in map(file.metadata.row_group(0).column, range(20)) if c.path_in_schema == "group")
    disk.flip_bit(NAME, column.data_page_offset + column.total_compressed_size - 3)
    with pytest.raises(CorruptionError, match="row group 0"):
        SegmentFile(disk, info).headers(0)
    assert "is damaged" in verify_segment(disk, info)


def test_verify_reads_every_page(info, disk):
    assert verify_segment(disk, info) == ""
    disk.flip_bit(NAME, 100)
    assert "is damaged" in verify_segment(disk, info)
    assert "does not exist" in verify_segment(SimulatedDisk(2), info)


def test_a_segment_can_describe_itself(info, disk):
    assert open_segment(disk, NAME).info == info
    with pytest.raises(NotFound):
        open_segment(disk, "nowhere")
    disk.replace(NAME, b"not parquet")
    with pytest.raises(CorruptionError, match="Parquet footer"):
        open_segment(disk, NAME)


def test_a_newer_format_is_not_read(plant, disk, monkeypatch):
    monkeypatch.setattr(segment_module, "VERSION", b"2")
    done = write_segment(NAME, tables(plant))
    disk.put_if_absent(NAME, done.data)
    monkeypatch.undo()
    with pytest.raises(CorruptionError, match="a newer release wrote it"):
        SegmentFile(disk, done.info)


def test_a_mapped_file_is_read_as_one_in_memory(tmp_path, plant):
    disk = LocalDisk(tmp_path)
    done = write_segment(NAME, tables(plant, 4))
    disk.put_if_absent(NAME, done.data)
    headers = SegmentFile(disk, done.info).headers(0)
    assert sorted(headers.n_samples.tolist()) == [4, 4, 8]


def test_threads_share_a_file(info, disk):
    """Two that read it at once would end the process: pyarrow's reader is for one of them."""
    file = SegmentFile(disk, info)
    want = file.headers(0)

    def read(_):
        for _ in range(40):
            rows = file.headers(0)
            assert rows.n_samples.tolist() == want.n_samples.tolist()
            assert len(file.row_group(0, ["group"])) == len(want)
            assert len(file.table(["n_samples"])) == info.n_rows

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))
