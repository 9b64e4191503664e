"""What one sensor's selection is known to be, and what is found of many."""

import numpy as np
import pytest

from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.store.series import SeriesMap
from headrace.store.wanted import Wanted

LAYOUTS = {
    "plain": Layout("f64", (Column("a"), Column("b"))),
    "registers": Layout("u16", (Column("a", scale=0.1, offset=-40.0), Column("b"), Column("c", scale=2.0))),
    "wide": Layout("i64", (Column("a", scale=0.5), Column("b"))),
    "lone": Layout("u64", (Column(""),)),
    "scaled floats": Layout("f32", (Column("a", scale=3.0),)),
}


def general(self):
    self._index([])
    self._find_lanes()


@pytest.mark.parametrize("is_raw", [False, True])
def test_one_sensor_is_indexed_as_one_of_many(is_raw, monkeypatch):
    directory = SensorDirectory(shard_bits=0)
    for number, layout in enumerate(LAYOUTS.values()):
        directory.define(f"line/{number}", layout)
    every = [
        f"line/{n}/{c.name}".removesuffix("/") for n, one in enumerate(LAYOUTS.values()) for c in one.columns
    ]
    for path in every:
        selection = directory.find(path)
        assert len(selection) == 1
        known = vars(Wanted(directory, SeriesMap(directory), selection, is_raw=is_raw))
        with monkeypatch.context() as patch:
            patch.setattr(Wanted, "_index_one", general)
            found = vars(Wanted(directory, SeriesMap(directory), selection, is_raw=is_raw))
        assert known.keys() == found.keys()
        for name, one in known.items():
            other = found[name]
            if isinstance(one, np.ndarray):
                assert (one.dtype, one.tolist()) == (other.dtype, other.tolist()), (path, name)
            elif name.endswith("grid"):
                assert one.terms.tolist() == other.terms.tolist(), (path, name)
            elif name == "column_sets":
                assert [c.tolist() for c in one] == [c.tolist() for c in other], path
            else:
                assert one == other, (path, name)
