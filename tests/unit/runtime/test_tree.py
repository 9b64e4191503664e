"""All sensors in order, and as a tree; checked against the directory's own search."""

import numpy as np
import pytest

from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.runtime.tree import SensorTree

FLAT = Layout("u16", (Column("temperature"), Column("running"), Column("amps")))
LONE = Layout("f64", (Column(""),))
DEEP = Layout("f32", (Column("power/l1"), Column("power/l2"), Column("state")))


def made():
    directory = SensorDirectory()
    directory.define_many([f"s/a/l1/o{n}" for n in (2, 1, 10)] + ["s/a/l1-b/o1", "s/b/l1/o1"], FLAT)
    directory.define("s/a/l1/meter", DEEP)
    directory.define_many(["s/lone1", "s/lone2", "top"], LONE)
    directory.define("s/a/l1/o1", Layout("f32", (Column("mean"),)), "~1")
    directory.define("s/lone1", Layout("f32", (Column("../{self}_mean"),)), "~1")
    # A newer layout has no "amps" any more, and one signal more.
    directory.define("s/b/l1/o1", Layout("u16", (Column("temperature"), Column("running"), Column("volts"))))
    return directory


PATTERNS = [
    "**", "s/**", "s/a/l1/o1/temperature", "**/temperature", "s/a/*/o1/*", "s/a/l1/**", "*", "**/l1/**", "s/lone*",
    "s/{a,b}/**/running", "**/power/l1", "s/a/l1/meter/**", "nothing/**", "s/b/l1/o1/*", "top", "top/**", "**/**",
    "s/lone1/**",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_finds_what_the_directory_finds(pattern):
    directory = made()
    found = directory.find(pattern)
    want = {
        (directory.sensor_path(int(s), int(c)), int(s), int(c), int(i))
        for s, c, i in zip(found.slot, found.column, found.sensor, strict=True)
    }
    got = []
    for one in SensorTree(directory).siblings(pattern):
        got += zip(one.paths(), one.slot.tolist(), one.column.tolist(), one.sensor.tolist(), strict=True)
    assert set(got) == want
    assert len(got) == len(want)


def test_parents_come_in_order_and_from_anywhere():
    tree = SensorTree(made())
    parents = [one.parent for one in tree.siblings()]
    assert parents == sorted(parents, key=lambda p: p + "/")
    assert all(one.names == sorted(one.names) for one in tree.siblings())
    for at, parent in enumerate(parents):
        if parent:
            assert [one.parent for one in tree.siblings("**", parent)] == parents[at:]
    assert [one.parent for one in tree.siblings("**", "s/a/l1/nobody")] == parents[
        parents.index("s/a/l1/o1") :
    ]


def test_children_level_by_level():
    tree = SensorTree(made())
    top = tree.children()
    assert [(n.name, n.n_sensors, n.is_sensor) for n in top] == [("s", 23, False), ("top", 1, True)]
    assert [(n.path, n.n_sensors, n.is_sensor) for n in tree.children("s")] == [
        ("s/a", 16, False), ("s/b", 4, False), ("s/lone1", 1, True), ("s/lone1_mean", 1, True), ("s/lone2", 1, True),
    ]  # fmt: skip
    assert [n.name for n in tree.children("s/a")] == ["l1-b", "l1"]
    assert [n.name for n in tree.children("s/a/l1")] == ["meter", "o1", "o10", "o2"]
    assert [(n.name, n.is_sensor) for n in tree.children("s/a/l1/meter/")] == [
        ("power", False),
        ("state", True),
    ]
    assert [n.name for n in tree.children("s/b/l1/o1")] == ["amps", "running", "temperature", "volts"]
    assert tree.children("s/a/l1/o1/temperature") == []
    assert tree.children("nobody") == []


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("path", ["", "s", "s/a", "s/a/l1", "s/a/l1/meter", "s/b/l1/o1"])
def test_children_page_by_page(path, limit):
    tree = SensorTree(made())
    whole, pages, after = tree.children(path), [], ""
    while page := tree.children(path, after, limit):
        assert len(page) <= limit
        pages += page
        after = page[-1].name
    assert pages == whole


def test_the_tree_grows_with_the_directory():
    directory = made()
    tree = SensorTree(directory)
    before = tree.n_sensors
    directory.define("new/x/y/z", FLAT)
    assert [n.name for n in tree.children()] == ["new", "s", "top"]
    assert tree.n_sensors == before + 3
    assert tree.of_parent("new/x/y/z").names == ["amps", "running", "temperature"]
    assert tree.of_parent("new/x") is None
    assert tree.of_parent("zzz") is None


def test_a_hundred_thousand_devices_are_quick():
    directory = SensorDirectory()
    directory.define_many([f"s/a{n // 1000}/l{n // 10}/d{n}" for n in range(100_000)], FLAT)
    tree = SensorTree(directory)
    assert len(tree.children("s")) == 100
    assert tree.children("s/a7")[0].n_sensors == 30
    first = next(tree.siblings("**/amps", "s/a50/l5000/d50003"))
    assert (first.parent, first.names) == ("s/a50/l5000/d50003", ["amps"])
    assert isinstance(first.selection().sensor[0], np.uint64)
