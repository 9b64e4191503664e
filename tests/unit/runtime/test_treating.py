"""Adapters whose signals have rules: the same class, around which the rules are put."""

from pathlib import Path

import pytest
from tests.gateway_pair import Pair

from headrace.adapters.abilities import Captured, Captures, Declares, Probes, Redecodes, Retags
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.sim.adapter import SimAdapter
from headrace.core.config import parse_plant
from headrace.core.errors import ConfigError
from headrace.core.events import Reject, RejectCode
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.runtime.adapter_making import make_adapter
from headrace.runtime.changes import Fingerprints, difference
from headrace.testing.adapters import RecordingSink, until

MQTT = {"protocol": "mqtt", "url": "mqtt://127.0.0.1:1", "topics": {"p/{d}": {"path": "s/{d}/{key}"}}}
SIM = {"protocol": "sim", "path": "s/oven{n}", "count": 2, "interval": "10ms"}
SCALED = {"**/t": {"scale": 10.0}}
NOW = 1_790_000_000 * 10**9


def plant(section=MQTT, tables=None, profiles=None, **more):
    data = {
        "version": 1,
        "plant": {"levels": ["site", "device", "signal"]},
        "adapters": {"x": {**section, **more}},
    }
    if profiles:
        data["profiles"] = profiles
    return parse_plant(data, Path()).with_tables(tables or {})


def made(*args, **more):
    return make_adapter(plant(*args, **more), "x")


def values(batches, directory):
    return sorted((r.path, r.value) for batch in batches for r in readings(batch, directory))


def test_an_adapter_without_rules_is_what_it_was():
    assert type(made()) is MqttAdapter
    treated = made(treatments=SCALED)
    assert type(treated) is not MqttAdapter
    assert isinstance(treated, MqttAdapter)
    assert type(treated) is type(made(treatments={"**": {"unit": "V"}}))
    assert (type(treated).__name__, type(treated).__module__) == (
        "MqttAdapter",
        "headrace.adapters.mqtt.adapter",
    )
    assert all(isinstance(treated, ability) for ability in (Probes, Captures, Redecodes, Retags))
    assert not isinstance(treated, Declares)
    opcua = {"protocol": "opcua", "profile": "p", "devices": {"s/d": "opc.tcp://h"}, "types": {"t": "f64"}}
    assert isinstance(made(opcua, profiles={"p": {"t": {"address": "i=1"}}}), OpcuaAdapter)


def test_rules_are_a_part_of_what_an_adapter_is_made_of():
    before, after = (Fingerprints.of(plant(treatments=one)) for one in (SCALED, {"**/t": {"scale": 20.0}}))
    (change,) = difference(before, after).changes
    assert change.lines == ('treatments."**/t".scale: 10.0 → 20.0',)
    assert not difference(before, before)


def test_groups_that_are_declared_are_those_that_are_stored():
    opcua = {"protocol": "opcua", "profile": "p", "devices": {"s/d": "opc.tcp://h"}, "types": {"t": "f64"}}
    for scale in (None, 0.5):
        more = {} if scale is None else {"scale": scale}
        directory = SensorDirectory()
        made(opcua, profiles={"p": {"t": {"address": "i=1", **more}}}).declare(directory)
        assert directory.layout(0).columns[0].scale == (scale or 1.0)


def test_what_was_refused_is_taken_in_as_it_is_stored():
    reject = Reject(RejectCode.MALFORMED, "x", "p/d", "", b'{"t": 2.5}', NOW)
    for signals, expected in ((SCALED, 25.0), ({}, 2.5)):
        adapter, directory = made(treatments=signals), SensorDirectory()
        batches, rejects = adapter.redecode(reject, directory)
        assert (values(batches, directory), rejects) == ([("s/d/t", expected)], [])
    opcua = {"protocol": "opcua", "profile": "p", "devices": {"s/d": "opc.tcp://h"}, "types": {"t": "f64"}}
    without = made(opcua, profiles={"p": {"t": {"address": "i=1"}}})
    assert without.decode_captured([], SensorDirectory()) == ([], [])


async def test_while_it_runs_its_own_directory_counts():
    adapter, sink = made(treatments=SCALED), RecordingSink()
    await adapter.start(sink)
    try:
        reject = Reject(RejectCode.MALFORMED, "x", "p/d", "", b'{"t": 2.5}', NOW)
        batches, _ = adapter.redecode(reject, sink.directory)
        assert values(batches, sink.directory) == [("s/d/t", 25.0)]
        other = SensorDirectory()
        batches, _ = adapter.decode_captured([Captured(NOW, "p/e", b'{"t": 1}')], other)
        assert values(batches, other) == [("s/e/t", 10.0)]
        assert sink.directory.n_sensors == 1
        # Other rules alone: it goes on; with anything else it is to be made anew.
        assert await adapter.retag(made(treatments={"**/t": {"scale": 20.0}}))
        batches, _ = adapter.redecode(reject, sink.directory)
        assert values(batches, sink.directory) == [("s/d/t", 50.0)]
        assert not await adapter.retag(made({**MQTT, "qos": 0}, treatments=SCALED))
        batches, _ = adapter.redecode(reject, sink.directory)
        assert values(batches, sink.directory) == [("s/d/t", 50.0)]
    finally:
        await adapter.stop()


async def test_an_adapter_that_changes_its_tags_by_itself_does_both():
    profile = {
        "p": {"t": {"address": "holding:0:F32"}},
        "q": {"t": {"address": "holding:0:F32"}, "u": {"address": "holding:2:F32"}},
    }
    modbus = {"protocol": "modbus", "profile": "p", "devices": {"s/d": "modbus+tcp://127.0.0.1:1"}}
    adapter, sink = made(modbus, profiles=profile, treatments=SCALED), RecordingSink()
    assert isinstance(adapter, ModbusAdapter)
    await adapter.start(sink)
    try:
        new = made(
            {**modbus, "profile": "q"},
            profiles=profile,
            treatments={"**/t": {"scale": 20.0}, "**/u": {"scale": 5.0}},
        )
        assert await adapter.retag(new)
        layout = sink.directory.layout(sink.directory.slot("s/d", "f32"))
        assert [(c.name, c.scale) for c in layout.columns] == [("t", 20.0), ("u", 5.0)]
        assert not await adapter.retag(
            made({**modbus, "bridge_gaps": 3}, profiles=profile, treatments=SCALED)
        )
        assert adapter.signal_rules is new.signal_rules
        stolen = made(
            {**modbus, "devices": {"s/e": "modbus+tcp://127.0.0.1:1"}}, profiles=profile, treatments=SCALED
        )
        sink.directory.define("s", parse_layout("e/t"), "other")
        with pytest.raises(ConfigError, match="is defined twice"):
            await adapter.retag(stolen)
        layout = sink.directory.layout(sink.directory.slot("s/d", "f32"))
        assert [(c.name, c.scale) for c in layout.columns] == [("t", 20.0), ("u", 5.0)]
    finally:
        await adapter.stop()
    plain = made(modbus, profiles=profile)
    assert type(plain) is ModbusAdapter


def parse_layout(name):
    from headrace.core.layouts import Column, Layout

    return Layout("f64", (Column(name),))


async def test_an_opcua_adapter_whose_profiles_say_nothing_goes_on_as_before():
    opcua = {
        "protocol": "opcua",
        "profile": "p",
        "devices": {"s/d": "opc.tcp://127.0.0.1:1"},
        "types": {"t": "f64"},
    }
    plain, scaled = ({"p": {"t": {"address": "i=1", **more}}} for more in ({}, {"scale": 2.0}))
    adapter, sink = made(opcua, profiles=plain), RecordingSink()
    await adapter.start(sink)
    try:
        assert await adapter.retag(made(opcua, profiles=plain))
        assert not await adapter.retag(made(opcua, profiles=scaled)), "it has to be made anew once"
    finally:
        await adapter.stop()
    assert sink.directory.layout(0).columns[0].scale == 1.0


async def test_any_adapter_can_have_rules():
    adapter, sink = (
        made(SIM, treatments={"**/temperature": {"convert_to": "K", "unit": "degC"}}),
        RecordingSink(),
    )
    assert isinstance(adapter, SimAdapter)
    await adapter.start(sink)
    try:
        await until(lambda: sink.batches, "something comes")
    finally:
        await adapter.stop()
    columns = {c.name: c.unit for layout in sink.directory.layouts for c in layout.columns}
    assert columns["temperature"] == "K"


async def test_an_adapter_in_a_process_of_its_own_has_its_rules_there():
    kelvin = {"**/temperature": {"convert_to": "K", "unit": "degC", "dead_band": 1.0}}
    pair, sink = Pair(lambda: made(SIM, treatments=kelvin)), RecordingSink()
    near = pair.adapter()
    await near.start(sink)
    try:
        await until(lambda: sink.batches, "something comes")
        (layout,) = [one for one in sink.directory.layouts if one.columns[0].name == "temperature"]
        assert layout.columns[0].unit == "K"
        assert sink.directory.dead_bands, "the engine was told"
        pair.make = lambda: made(SIM, treatments={"**/temperature": {"convert_to": "degF", "unit": "degC"}})
        assert await near.retag(pair.adapter())
        units = {c.unit for one in sink.directory.layouts for c in one.columns if c.name == "temperature"}
        assert units == {"K", "degF"}
        pair.make = lambda: made(SIM)
        assert not await near.retag(pair.adapter()), "without rules it has to be made anew"
    finally:
        await near.stop()


def test_a_table_needs_addresses_that_the_adapter_knows():
    (found,) = made(tags="t.csv", tables={"t.csv": "path,address\na/b/c,p/d#t\n"}).signal_rules.table.items()
    assert (found[0], found[1].path, found[1].treatment) == ("s/d/t", "a/b/c", None)
    http = {"protocol": "http", "path": "s/{h}/{field}", "other_tags": "drop"}
    adapter = made(http, tags="t.csv", tables={"t.csv": "path,address,unit\na/b/c,path:s/h/x,V\n"})
    assert adapter.signal_rules.find("s/h/x").treatment.unit == "V"
    assert adapter.signal_rules.find("s/h/y") is None
    with pytest.raises(ConfigError, match=r"'q' is no address here: write path: .*in t\.csv") as e:
        made(http, tags="t.csv", tables={"t.csv": "path,address\na/b/c,q\n"})
    assert e.value.where == 'adapters.x.tags."a/b/c"'
