import json

import numpy as np
import pyarrow as pa
import pytest

from headrace.core.arrow import from_arrow, to_arrow
from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch

DENSE = FrameBatch.dense(
    np.arange(4, dtype=np.uint32), np.arange(4), np.arange(8, dtype=np.uint16).reshape(4, 2),
    np.zeros((4, 2), np.uint8), origin="ovens", sequence=3, arrival_ns=9, dictionary=("off", "on"),
)  # fmt: skip
SPARSE = FrameBatch.sparse(
    np.arange(3, dtype=np.uint32), np.arange(3), np.array([1.0, 2.0, 3.0]), np.array([0, 1, 1, 3]),
    np.array([0, 1, 2], np.uint16), value_ts_ns=np.array([4, 5, 6]),
)  # fmt: skip
WAVE = FrameBatch.wave(
    np.arange(2, dtype=np.uint32), np.arange(2), np.arange(5, dtype=np.int16), np.array([0, 3, 5]),
    (np.array([2, 1]), np.array([1, 3])),
)  # fmt: skip
BATCHES = [DENSE, DENSE.with_(quality=None), SPARSE, WAVE]


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("batch", BATCHES)
def test_nothing_is_copied_on_the_way_to_arrow_and_back(batch):
    record = to_arrow(batch)
    again = from_arrow(record)
    assert again.to_bytes() == batch.to_bytes()
    for name, column in batch._columns():
        if name != "start":
            assert address(getattr(again, name)) == address(column), name
    assert all(not column.flags.writeable for _, column in again._columns())


@pytest.mark.parametrize("batch", BATCHES)
def test_a_part_of_a_record_is_a_part_of_the_batch(batch):
    part = from_arrow(to_arrow(batch).slice(1))
    assert part.to_bytes() == batch.slice(1, batch.n_frames).to_bytes()


def test_a_record_travels_through_arrow_streams():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, to_arrow(DENSE).schema) as writer:
        writer.write_batch(to_arrow(DENSE))
    with pa.ipc.open_stream(sink.getvalue()) as reader:
        assert from_arrow(reader.read_next_batch()).to_bytes() == DENSE.to_bytes()


def test_other_tools_see_one_row_a_frame():
    assert to_arrow(SPARSE).to_pydict()["values"] == [[1.0], [], [2.0, 3.0]]
    assert to_arrow(DENSE).to_pydict()["values"] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def without(record, name):
    return record.drop_columns(name)


def replaced(record, name, array):
    return record.set_column(record.schema.get_field_index(name), name, array)


def described(record, **changes):
    rest = json.loads(record.schema.metadata[b"headrace.frames"])
    return record.replace_schema_metadata({"headrace.frames": json.dumps({**rest, **changes})})


@pytest.mark.parametrize(
    "record",
    [
        to_arrow(DENSE).replace_schema_metadata(None),
        to_arrow(DENSE).replace_schema_metadata({"headrace.frames": "?"}),
        described(to_arrow(DENSE), shape="ROUND"),
        described(to_arrow(DENSE), shape="SPARSE"),
        described(to_arrow(SPARSE), shape="DENSE"),
        described(to_arrow(WAVE), shape="SPARSE"),
        without(to_arrow(DENSE), "ts_ns"),
        without(to_arrow(SPARSE), "column"),
        replaced(to_arrow(DENSE), "ts_ns", pa.array([1.0, 2.0, 3.0, 4.0])),
        replaced(to_arrow(DENSE), "slot", pa.array([1, None, 3, 4], pa.uint32())),
        replaced(to_arrow(DENSE), "slot", pa.array(["a", "b", "c", "d"])),
        to_arrow(DENSE).append_column("more", pa.array([1, 2, 3, 4])),
    ],
)
def test_a_record_of_something_else_is_corrupt(record):
    with pytest.raises(CorruptionError, match="not a record batch of frames"):
        from_arrow(record)
