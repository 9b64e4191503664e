"""Devices of a plant with their signals: read, compared, written back as tables."""

from __future__ import annotations

import pytest

from headrace.core.config import parse_plant
from headrace.core.errors import ConfigError
from headrace.core.problems import InvalidConfig
from headrace.core.profile_tables import profiles_of
from headrace.core.settings import SignalSettings
from headrace.ingest import tag_changes
from headrace.ingest.tag_changes import TagDifference
from headrace.ingest.tag_rows import TagRow
from headrace.ingest.tag_sets import (
    ProfileNames,
    TaggedDevice,
    devices_of,
    devices_of_rows,
    joined,
    rows_of_devices,
    tables_of,
)

LEVELS = ("site", "device", "signal")
DEVICES = "path,url,profile,interval,note\np/o1,u1,,5s,\np/o2,u2,press,,x y\n"
TAGS = "profile,signal,address,unit\npress,force,holding:1,kN\npress,count,holding:2,\nspare,z,holding:3,\n"


def plant(tmp_path, devices=DEVICES, tags=TAGS, inline=None, has_tags=True):
    section = {"protocol": "modbus", "profile": "oven", "devices": inline or "d.csv"}
    data = {
        "version": 1,
        "plant": {"levels": list(LEVELS)},
        "profiles": {
            "oven": {"t": {"address": "holding:10:F32", "unit": "degC"}, "level": {"address": "holding:12"}}
        },
        "adapters": {
            "x": {**section, "tags": "t.csv"} if has_tags else section,
            "b": {"protocol": "mqtt"},
        },
    }
    return parse_plant(data, tmp_path).with_tables({"d.csv": devices, "t.csv": tags})


def signals(**addresses):
    return {name: SignalSettings(address=address) for name, address in addresses.items()}


def test_devices_are_read_with_the_signals_of_their_profiles(tmp_path):
    found = devices_of(plant(tmp_path), "x")
    assert found["p/o1"].fields == {"url": "u1", "interval": "5s"}
    assert list(found["p/o1"].signals) == ["t", "level"]
    assert (found["p/o2"].profile, found["p/o2"].fields) == ("press", {"url": "u2", "note": "x y"})
    assert list(found["p/o2"].signals) == ["force", "count"]
    inline = {"p/o1": "u1", "p/o2": {"url": "u2", "profile": "press", "interval": "2s"}}
    config = plant(tmp_path, inline=inline)
    found = devices_of(config, "x")
    assert (found["p/o1"].fields, found["p/o2"].fields) == ({"url": "u1"}, {"url": "u2", "interval": "2s"})
    assert devices_of(config, "b") == {}
    config = plant(tmp_path, inline={"p/o1": {"url": "u1", "parameters": {"base": 100}}})
    assert devices_of(config, "x")["p/o1"].fields == {"url": "u1", "base": "100"}
    with pytest.raises(ConfigError, match="d.csv:2: a device needs a path"):
        devices_of(plant(tmp_path, devices="path,url\n,u\n"), "x")


def test_a_table_gives_each_device_all_its_signals():
    before = {"p/o1": TaggedDevice("p/o1", {"url": "u1", "note": "n"}, signals(a="h:1"), "oven")}
    rows = [
        TagRow(path="p/o1/a", address="h:1", unit="bar"), TagRow(path="p/o1/b", address="h:2", interval="5s"),
        TagRow(path="p/o2/a", url="u2", address="h:1", unit="bar", more={"note": "x"}),
    ]  # fmt: skip
    found = devices_of_rows(rows, LEVELS, before)
    assert found["p/o1"].fields == {"url": "u1", "interval": "5s"}
    assert found["p/o1"].profile == "oven"
    assert found["p/o2"] == TaggedDevice(
        "p/o2", {"url": "u2", "note": "x"}, {"a": SignalSettings(address="h:1", unit="bar")}
    )
    assert found["p/o1"].signals["a"] is found["p/o2"].signals["a"], "what is the same is there once"
    with pytest.raises(ConfigError, match="device 'p/o3' has no url"):
        devices_of_rows([TagRow(path="p/o3/a", address="h:1")], LEVELS, before)
    with pytest.raises(ConfigError, match="device 'p/o1' has no url"):
        devices_of_rows(rows[:1], LEVELS, {"p/o1": TaggedDevice("p/o1", {}, {})})


def test_devices_that_a_table_does_not_name_stay_unless_it_is_whole():
    one, two, three = (TaggedDevice(f"p/{i}", {"url": "u"}, {}) for i in (1, 2, 3))
    other = TaggedDevice("p/2", {"url": "v"}, {})
    before, named = {"p/1": one, "p/2": two}, {"p/3": three, "p/2": other}
    assert joined(before, named, False) == {"p/1": one, "p/2": other, "p/3": three}
    assert list(joined(before, named, False)) == ["p/1", "p/2", "p/3"]
    assert joined(before, named, True) == {"p/2": other, "p/3": three}


def test_rows_of_a_plant_make_the_same_devices_again(tmp_path):
    devices = devices_of(plant(tmp_path), "x")
    rows = rows_of_devices("x", devices)
    assert rows[0] == TagRow("x", "p/o1/t", "u1", "holding:10:F32", unit="degC", interval="5s")
    assert rows[2].more == {"note": "x y"}
    assert devices_of_rows(rows, LEVELS, devices) == devices
    assert not TagDifference.between(devices, devices_of_rows(rows, LEVELS, {}))


# --- back to tables ----------------------------------------------------------------------------------


def test_tables_say_what_the_devices_say_and_change_little(tmp_path):
    config = plant(tmp_path)
    devices = devices_of(config, "x")
    new = {
        **devices,
        "p/o3": TaggedDevice("p/o3", {"url": "u3"}, devices["p/o1"].signals),
        "p/o4": TaggedDevice("p/o4", {"url": "u4"}, dict(reversed(devices["p/o2"].signals.items()))),
        "p/pump-07": TaggedDevice("p/pump-07", {"url": "u5"}, signals(flow="holding:5")),
    }
    tables = tables_of(config, "x", new)
    assert tables["d.csv"].splitlines() == [
        "path,url,profile,interval,note", "p/o1,u1,,5s,", "p/o2,u2,press,,x y", "p/o3,u3,,,", "p/o4,u4,press,,",
        "p/pump-07,u5,pump,,",
    ]  # fmt: skip
    assert tables["t.csv"].splitlines() == [
        "profile,signal,address,unit,kind,low,high,labels", "press,force,holding:1,kN,,,,", "press,count,holding:2,,,,,",
        "pump,flow,holding:5,,,,,",
    ]  # fmt: skip
    again = devices_of(config.with_tables(tables), "x")
    assert again == new


def test_a_profile_keeps_its_name_and_order_where_all_its_devices_change_alike(tmp_path):
    config = plant(tmp_path)
    devices = devices_of(config, "x")
    changed = {"more": SignalSettings(address="holding:9"), "count": SignalSettings(address="holding:4")}
    new = {
        **devices,
        "p/o2": TaggedDevice(
            "p/o2", {"url": "u2"}, {**changed, "force": devices["p/o2"].signals["force"]}, "press"
        ),
    }
    lines = tables_of(config, "x", new)["t.csv"].splitlines()
    assert [line[:20] for line in lines[1:]] == [
        "press,force,holding:",
        "press,count,holding:",
        "press,more,holding:9",
    ]
    assert ",holding:4," in lines[2]


def test_a_profile_that_others_need_gets_a_sister(tmp_path):
    config = plant(tmp_path, devices="path,url,profile\np/a1,u1,press\np/a2,u2,press\np/o1,u3,oven\n")
    devices = devices_of(config, "x")
    new = {
        **devices,
        "p/a1": TaggedDevice("p/a1", {"url": "u1"}, signals(force="holding:7"), "press"),
        "p/o1": TaggedDevice("p/o1", {"url": "u3"}, signals(t="holding:7"), "oven"),
    }
    tables = tables_of(config, "x", new)
    assert tables["d.csv"].splitlines()[1:] == ["p/a1,u1,a", "p/a2,u2,press", "p/o1,u3,o"]
    assert devices_of(config.with_tables(tables), "x") == new
    assert tables_of(config.with_tables(tables), "x", new) == tables, "again it is the same"


def test_names_of_new_profiles_are_free_and_plain():
    names = ProfileNames({"o": signals(a="1")}, {"o-2": signals(a="2")})
    devices = {
        path: TaggedDevice(path, {}, signals(a=str(n)))
        for n, path in enumerate(("p/o1", "p/o2", "p/Größe ä#9", "p/77", "p/ü"), 3)
    }
    assert list(names.assign(devices).values()) == ["o-3", "o-4", "Gr-e", "77", "device"]


def test_what_a_section_lacks_is_told(tmp_path):
    devices = {"p/o1": TaggedDevice("p/o1", {"url": "u"}, signals(z="holding:1"))}
    config = plant(tmp_path, inline={"p/o1": "u"})
    with pytest.raises(
        ConfigError, match=r'its devices stand in the plant file, .* write devices = "x.csv" there'
    ):
        tables_of(config, "x", devices)
    config = plant(tmp_path, has_tags=False)
    with pytest.raises(
        ConfigError, match=r'report what no profile of the plant file says \(o\): write tags = "x-tags.csv"'
    ):
        tables_of(config, "x", devices)
    shared = {"p/o1": TaggedDevice("p/o1", {"url": "u"}, config.profiles["oven"].signals)}
    assert tables_of(config, "x", shared) == {"d.csv": "path,url,profile\np/o1,u,\n"}


# --- differences -------------------------------------------------------------------------------------


def test_what_differs_is_told_device_by_device_and_signal_by_signal(tmp_path):
    before = devices_of(plant(tmp_path), "x")
    after = {
        "p/o2": TaggedDevice(
            "p/o2",
            {"url": "u9", "note": "x y"},
            {
                "force": SignalSettings(address="holding:1", unit="N"),
                "new": SignalSettings(address="holding:5", unit="%"),
            },
        ),
        "p/o3": TaggedDevice("p/o3", {"url": "u3", "interval": "1s"}, signals(a="holding:1", b="holding:2")),
    }
    found = TagDifference.between(before, after)
    assert found
    assert found.to_dict() == {
        "devices_added": 1, "devices_removed": 1, "devices_changed": 1,
        "signals_added": 3, "signals_removed": 3, "signals_changed": 1,
        "devices": [
            {"path": "p/o1", "change": "removed", "lines": [], "signals": [
                {"name": "t", "change": "removed", "lines": []}, {"name": "level", "change": "removed", "lines": []},
            ], "signals_not_shown": 0},
            {"path": "p/o2", "change": "changed", "lines": ["url: u2 → u9"], "signals": [
                {"name": "force", "change": "changed", "lines": ["unit: kN → N"]},
                {"name": "count", "change": "removed", "lines": []},
                {"name": "new", "change": "added", "lines": ["address: holding:5", "unit: %"]},
            ], "signals_not_shown": 0},
            {"path": "p/o3", "change": "added", "lines": ["url: u3", "interval: 1s"], "signals": [
                {"name": "a", "change": "added", "lines": ["address: holding:1"]},
                {"name": "b", "change": "added", "lines": ["address: holding:2"]},
            ], "signals_not_shown": 0},
        ],
        "devices_not_shown": 0,
    }  # fmt: skip
    assert found.applied(before) == after
    assert found.inverse().applied(after) == before
    assert not TagDifference.between(before, dict(reversed(before.items())))


def test_long_differences_are_cut_and_counted_whole(monkeypatch):
    monkeypatch.setattr(tag_changes, "DEVICES_SHOWN", 3)
    monkeypatch.setattr(tag_changes, "SIGNALS_SHOWN", 2)
    some = signals(**{f"s{i}": str(i) for i in range(7)})
    after = {f"p/{i}": TaggedDevice(f"p/{i}", {}, some) for i in range(10)}
    found = TagDifference.between({}, after).to_dict()
    assert (len(found["devices"]), found["devices_not_shown"]) == (3, 7)
    assert (len(found["devices"][0]["signals"]), found["devices"][0]["signals_not_shown"]) == (2, 5)
    assert found["signals_added"] == 70
    moved = {path: TaggedDevice(path, {"url": "u"}, some) for path in after}
    found = TagDifference.between(after, moved).to_dict()
    assert (found["devices_changed"], found["signals_changed"]) == (10, 0)
    assert found["devices"][0]["lines"] == ["url: - → u"]


# --- tables of signals -------------------------------------------------------------------------------

SIGNAL_TABLE = "path,address,unit,dead_band\np/o1/t,a#t,K,\np/o1/s,a#s,,0.5\np/o2/t,b#t,,\n"


def ruled(tmp_path, table=SIGNAL_TABLE):
    section = {"protocol": "mqtt", "tags": "s.csv"}
    data = {"version": 1, "plant": {"levels": list(LEVELS)}, "adapters": {"b": section}}
    return parse_plant(data, tmp_path).with_tables({"s.csv": table})


def test_a_table_of_signals_is_read_and_written_back(tmp_path):
    config = ruled(tmp_path)
    found = devices_of(config, "b")
    assert {path: list(device.signals) for path, device in found.items()} == {
        "p/o1": ["t", "s"],
        "p/o2": ["t"],
    }
    assert (found["p/o1"].signals["s"].address, found["p/o1"].signals["s"].dead_band) == ("a#s", 0.5)
    assert tables_of(config, "b", found) == {
        "s.csv": "path,address,unit,kind,low,high,labels,dead_band\np/o1/t,a#t,K,,,,,\np/o1/s,a#s,,,,,,0.5\np/o2/t,b#t,,,,,,\n"
    }
    rows = rows_of_devices("b", found)
    assert [(row.path, row.address, row.more) for row in rows][1] == ("p/o1/s", "a#s", {"dead_band": "0.5"})
    assert devices_of_rows(rows, LEVELS, {}, has_urls=False) == found
    with pytest.raises(ConfigError, match="has no url"):
        devices_of_rows(rows, LEVELS, {})
    assert profiles_of(config, "b") == {}, "it is no table of profiles"


def test_all_that_is_wrong_with_a_table_of_signals_is_told_at_once(tmp_path):
    table = "path,address,unit,low,colour\np/o1/t,a,,x,\np/o1/t,,,,\nt,a,,,\np/o1/u,a,,,red\np/o1/v,a,,,\np/o1/v,b,,,\np//v,b,,,\n"
    with pytest.raises(InvalidConfig) as e:
        devices_of(ruled(tmp_path, table), "b")
    told = [(one.where, one.message) for one in e.value.problems]
    expected = [
        ("s.csv:2.low", "'x' is not a number"), ("s.csv:3", "a line needs the path of a sensor and an address"),
        ("s.csv:4", "a line needs the path of a sensor and an address"), ("s.csv:5", "unknown column 'colour'"),
        ("s.csv:7", "path 'p/o1/v' is there twice"), ("s.csv:8", "'p//v' can't name a sensor"),
    ]  # fmt: skip
    assert [where for where, _ in told] == [where for where, _ in expected]
    assert all(text.startswith(start) for (_, text), (_, start) in zip(told, expected, strict=True)), told
