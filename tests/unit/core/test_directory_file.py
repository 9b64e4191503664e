import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.core import directory_file
from headrace.core.errors import CorruptionError
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory

LAYOUT = Layout("u16", (Column("temperature", unit="degC", scale=0.1), Column("pressure")))


@pytest.fixture(scope="module")
def saved():
    directory = SensorDirectory()
    directory.define_many([f"plant/oven{i}" for i in range(50)], LAYOUT)
    directory.define("plant/oven7", LAYOUT, "again", sensors=[1, 2])
    return directory.to_bytes()


def rewritten(saved, change):
    """The file with another table in it."""
    table = pq.read_table(pa.BufferReader(saved))
    sink = pa.BufferOutputStream()
    pq.write_table(change(table), sink)
    return sink.getvalue().to_pybytes()


def test_any_parquet_reader_reads_it(saved):
    table = pq.read_table(pa.BufferReader(saved))
    assert table.column_names == ["slot", "path", "part", "layout", "sensors"]
    assert table.num_rows == 51
    assert table.column("sensors").to_pylist()[-2:] == [None, [1, 2]]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace_schema_metadata({}),
        lambda t: t.replace_schema_metadata(None),
        lambda t: t.replace_schema_metadata({"headrace.layouts": "[]"}),
        lambda t: t.replace_schema_metadata({"headrace.layouts": "{}"}),
        lambda t: t.replace_schema_metadata({"headrace.layouts": "not json"}),
        lambda t: t.replace_schema_metadata({"headrace.layouts": '{"1": "{\\"dtype\\": \\"u7\\", \\"columns\\": []}"}'}),
        lambda t: t.replace_schema_metadata({k: v.replace(b"0.1", b"0.2") for k, v in t.schema.metadata.items()}),
        lambda t: t.drop_columns("path"),
        lambda t: t.take(pa.array(np.arange(51)[::-1])),
        lambda t: t.set_column(1, "path", pa.nulls(51, pa.string())),
        lambda t: t.set_column(1, "path", pa.array(["a//b"] * 51)),
        lambda t: t.set_column(0, "slot", pa.nulls(51, pa.uint32())),
        lambda t: t.set_column(4, "sensors", pa.array([[1]] * 51)),
        lambda t: t.set_column(4, "sensors", pa.array([["x"]] * 51)),
    ],
)  # fmt: skip
def test_a_file_that_is_no_directory_is_corrupt(saved, change):
    with pytest.raises(CorruptionError):
        SensorDirectory().apply_bytes(rewritten(saved, change))


def test_a_large_file_is_read_in_pieces(saved, monkeypatch):
    whole, pieces = SensorDirectory(), SensorDirectory()
    whole.apply_bytes(saved)
    monkeypatch.setattr(directory_file, "_AT_ONCE", 10)
    pieces.apply_bytes(saved)
    assert pieces.to_bytes() == whole.to_bytes()
    with pytest.raises(CorruptionError, match="slots are not in order"):
        SensorDirectory().apply_bytes(rewritten(saved, lambda t: t.filter(pa.array(np.arange(51) != 10))))


def test_any_damage_is_corruption_or_harmless(saved):
    """A byte of page or footer changed: told as corruption, or what is read is what was written."""
    whole = SensorDirectory()
    whole.apply_bytes(saved)
    rng = np.random.default_rng(11)
    n_corrupt = 0
    for at in rng.integers(0, len(saved), 400).tolist():
        damaged = bytearray(saved)
        damaged[at] ^= int(rng.integers(1, 256))
        directory = SensorDirectory()
        try:
            directory.apply_bytes(bytes(damaged))
        except CorruptionError:
            n_corrupt += 1
            continue
        assert directory.paths == whole.paths
        assert directory.layouts == whole.layouts
        assert [directory.sensors(s).tolist() for s in range(51)] == [
            whole.sensors(s).tolist() for s in range(51)
        ]
    assert n_corrupt > 100


@pytest.mark.parametrize("size_bytes", [0, 1, 4, 100, -1])
def test_a_file_cut_short_is_corrupt(saved, size_bytes):
    with pytest.raises(CorruptionError, match="bytes are not a sensor directory"):
        SensorDirectory().apply_bytes(saved[:size_bytes])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ((0, None, "", LAYOUT.id, None), "a slot has no path, part or layout"), ((0, "l/d", None, LAYOUT.id, None), "a slot has no path, part or layout"),
        ((0, "l/d", "", LAYOUT.id, [7]), "1 ids were given for the 2 sensors"),
    ],
)  # fmt: skip
def test_rows_that_say_too_little_are_damage(row, text):
    kinds = [pa.uint32(), pa.string(), pa.string(), pa.uint64(), pa.list_(pa.uint64())]
    names = ["slot", "path", "part", "layout", "sensors"]
    about = {"headrace.layouts": json.dumps({str(LAYOUT.id): LAYOUT.to_json()})}
    columns = [pa.array([value], kind) for value, kind in zip(row, kinds, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, names, metadata=about), sink)
    with pytest.raises(CorruptionError, match=text):
        SensorDirectory().apply_bytes(bytes(sink.getvalue()))
