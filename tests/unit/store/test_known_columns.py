"""Columns that a reader knows are not written, and are there again when a file is read."""

import numpy as np
import pyarrow as pa
import pytest

from headrace.core.sensors import sensor_id
from headrace.sim.disk import SimulatedDisk
from headrace.store.known_columns import (
    FOLLOWING,
    SAME,
    SAMPLES,
    USUAL,
    names_of,
    needed_for,
    same_of,
    with_known,
    without_known,
)
from headrace.store.segment import open_segment, write_segment
from headrace.store.warm_rows import WARM_SCHEMA

PATHS = ["leon/oven/temp", "leon/öven/druck"]


def rows(sensors=None, groups=None, shards=None, **more):
    """Warm rows of `PATHS`; what is not said is known."""
    n, ids = len(PATHS), [sensor_id(path) for path in PATHS]
    groups = groups or ids
    said = {
        "path": PATHS, "sensor": sensors or ids, "group": groups,
        "shard": shards or [group >> 58 for group in groups], "column": [0] * n, "n_bytes": [3] * n, "n_samples": [1] * n,
        "n_frames": [1] * n, "t_min": [1] * n, "t_max": [1] * n, "times_back": [0] * n, "payload": [b"abc"] * n, "kind": ["frames"] * n,
        "count": [1] * n, "seq": [1] * n, "layout": [1] * n, "layout_json": ["{}"] * n, "quality": [1] * n, "dtype": ["f64"] * n, "time_codec": ["=regular"] * n,
        "value_codec": ["raw"] * n, **{name: [value] * n for name, value in USUAL.items()}, **more,
    }  # fmt: skip
    columns = [pa.array(said.get(f.name, [None] * n), f.type) for f in WARM_SCHEMA]
    return pa.Table.from_arrays(columns, schema=WARM_SCHEMA)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ({}, set()),
        ({"groups": [7 << 58, 9 << 58]}, {"group"}),
        ({"groups": [7 << 58, 9 << 58], "shards": [7, 8]}, {"group", "shard"}),
        ({"sensors": [sensor_id("leon/once/temp"), 3]}, {"sensor"}),
        ({"shards": [1, 2]}, {"shard"}),
        ({"bound": [0.0, 0.1]}, {"bound"}),
        ({"offset": [0.0, -0.0], "scale": [1.0, None]}, {"offset", "scale"}),
        ({"raw_sum": [None, 3], "dictionary": [["on"], None]}, {"raw_sum", "dictionary"}),
        ({"n_samples": [1, 0]}, {"n_samples"}),
        ({"dtype": ["f64", "u8"], "seq": [1, 2], "column": [0, None]}, {"dtype", "seq", "column"}),
        ({"layout_json": ["{}", None], "quality": [1, 3]}, {"layout_json", "quality"}),
    ],
)
def test_what_is_known_is_not_written_and_is_read_all_the_same(said, written):
    table = rows(**said)
    disk = SimulatedDisk(1)
    disk.replace("one.parquet", write_segment("one.parquet", [table, table]).data)
    file = open_segment(disk, "one.parquet")
    assert set(file._written) & {*FOLLOWING, SAMPLES, *USUAL, *SAME} == written
    assert set(file.names) == set(WARM_SCHEMA.names)
    whole = pa.concat_tables([table, table])
    for name in (*FOLLOWING, SAMPLES, *USUAL, *SAME):
        assert file.row_group(0, [name]).to_pydict() == {name: whole[name].to_pylist()}
    assert file.table(["group", "path"]).column_names == ["group", "path"]
    assert file.table().select(WARM_SCHEMA.names).cast(WARM_SCHEMA).equals(whole)
    assert file.headers(0).group.tolist() == whole["group"].to_pylist()
    assert file.row_group(0, ["no such"]) is None


@pytest.mark.parametrize("said", [b"[]", b'{"path": "a/b"}', b"{", b"\xff"])
def test_metadata_that_say_something_else_are_damage(said):
    with pytest.raises(ValueError, match=r"metadata|JSON|Expecting|decode"):
        same_of(said)


def test_rows_of_groups_have_all_their_columns():
    hot = pa.table(
        {"path": PATHS, "group": np.array([1, 2], np.uint64), "shard": np.array([0, 0], np.uint16)}
    )
    assert without_known([hot]) == ([hot], {})
    assert names_of(hot.column_names, {}) == tuple(hot.column_names)
    assert needed_for(["shard"], hot.column_names, {}) == ["shard"]
    assert with_known(hot, ["shard"], {}).column_names == ["shard"]
