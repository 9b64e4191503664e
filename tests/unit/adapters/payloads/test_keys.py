"""Tables of keys: alike there is one, and sources that never send the same twice do not fill the memory."""

import gc

from headrace.adapters.payloads import json_columns, keys, register_messages
from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups, KeyTable, KeyTables
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.layouts import Column
from headrace.core.sensors import SensorDirectory

SETTINGS = RuleSettings(path="{device}/{key}")


def n_tables():
    gc.collect()
    return sum(type(one) is KeyTable for one in gc.get_objects())


def f64(*names, unit=""):
    return tuple(("f64", Column(name, unit=unit)) for name in names)


def test_what_is_alike_is_one_table_by_whatever_way():
    tables = KeyTables()
    one_by_one = tables.extended(tables.extended(tables.root, f64("a")), f64("b"))
    assert tables.extended(tables.root, f64("a", "b")) is one_by_one
    assert tables.extended(tables.root, f64("b", "a")) is not one_by_one, "columns have their places"
    assert tables.extended(one_by_one, f64("b")) is one_by_one
    assert tables.extended(tables.root, ()) is tables.root
    celsius = tables.extended(one_by_one, f64("a", unit="degC"))
    assert tables.extended(celsius, f64("a")) is one_by_one
    both = tables.extended(one_by_one, (*f64("c"), ("u8", Column("d"))))
    assert both.parts["f64"].layout.columns == tuple(Column(name) for name in "abc")
    assert both.index == {"a": ("f64", 0), "b": ("f64", 1), "c": ("f64", 2), "d": ("u8", 0)}


def test_a_unit_that_is_said_now_so_now_so_makes_no_more_tables():
    groups = DeviceGroups(SensorDirectory())
    group = groups.group("d", SETTINGS)
    groups.add(group, f64("a", "b"))
    seen, before = set(), n_tables()
    for n in range(200):
        groups.renew(group, {"a": ("degC", "K")[n % 2]})
        seen.add(id(group.table))
        groups.add(group, f64("b", unit=("bar", "Pa")[n % 2]))
        seen.add(id(group.table))
    assert len(seen) == 5, "the first one, and each of two units beside each of two"
    assert n_tables() <= before + 5
    assert groups.n_sensors == 2


def test_tables_that_no_device_has_go(monkeypatch):
    monkeypatch.setattr(keys, "N_COLUMNS_KEPT_MAX", 500)
    groups, before = DeviceGroups(SensorDirectory()), n_tables()
    for device in range(10):
        group = groups.group(f"d{device}", SETTINGS)
        for key in range(40):
            groups.add(group, f64(f"k{device}_{key}"))
    assert groups.n_sensors == 400
    assert n_tables() - before <= 10 + 500 // 20, "400 ways were gone"
    alike = [groups.group(f"e{number}", SETTINGS) for number in range(5)]
    for group in alike:
        for key in range(40):
            groups.add(group, f64(f"k{key}"))
    assert len({id(group.table) for group in alike}) == 1, "though what is between is made anew"


def test_decoders_let_go_of_tables_too(monkeypatch):
    monkeypatch.setattr(keys, "N_COLUMNS_KEPT_MAX", 0)
    monkeypatch.setattr(json_columns, "N_DEAD_MAX", 5)
    directory = SensorDirectory()
    rules = compile_rules({"plant/{device}": RuleSettings(path="l/{device}/{key}")}, (), "UTC", "x")
    router, before, n = MessageRouter("x", rules, DeviceGroups(directory)), n_tables(), 0
    for key in range(60):
        data = ("{" + ",".join(f'"k{i}":{i}.5' for i in range(key + 1)) + "}").encode()
        out = router.decode([TopicMessage(f"plant/d{i}", data, key * 2 + i) for i in range(2)], key)
        n += sum(batch.n_samples for batch in out.batches)
    assert n == 2 * sum(range(1, 61)), "nothing is lost over it"
    assert n_tables() - before <= 5 + 2 * 2 + 3


def test_places_of_registers_are_bounded(monkeypatch):
    monkeypatch.setattr(register_messages, "N_PLACES_MAX", 2)
    rule = RuleSettings(
        path="l/{device}/{key}", values="registers", registers={"a": "holding:0:U16", "f": "holding:1:F32"}
    )
    groups = DeviceGroups(SensorDirectory())
    router = MessageRouter("x", compile_rules({"p/{device}": rule}, (), "UTC", "x"), groups)
    for n in range(9):
        if n % 2:  # somebody else gives one of the devices another key: it has another table
            group = groups.group(f"l/d{n % 3}", SETTINGS)
            groups.add(group, f64(f"more{n}"))
        out = router.decode(
            [TopicMessage(f"p/d{i}", bytes([0, n, 0, 0, 0, 0]), n + 1) for i in range(3)], n + 1
        )
        assert sum(batch.n_samples for batch in out.batches) == 6
        assert not out.rejects
    mine = {id(group.table) for group in groups.devices}
    places = [
        one
        for one in gc.get_objects()
        if type(one) is dict and one and any(_table_of(key) in mine for key in list(one)[:9])
    ]
    assert [len(one) <= 2 for one in places] == [True]


def _table_of(key):
    """Number of the table in a key of a place."""
    return id(key[0]) if type(key) is tuple and len(key) == 2 and type(key[0]) is KeyTable else None
