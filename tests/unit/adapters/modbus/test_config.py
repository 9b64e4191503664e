"""Configuration of the Modbus adapter: what is allowed, and what is said of the rest."""

import pytest

from headrace.adapters.abilities import Declares
from headrace.adapters.base import PlantFacts
from headrace.adapters.device_tables import device_rows
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.config import ModbusConfig, device_plans
from headrace.adapters.modbus.endpoints import ModbusLink, parse_url
from headrace.core.errors import ConfigError
from headrace.core.problems import validate_section
from headrace.core.profiles import Profile
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings

FACTS = PlantFacts(("site", "line", "device", "signal"))
PROFILES = {
    "oven": {
        "t": SignalSettings(address="holding:0:F32", unit="degC", limits=(0, 400)),
        "on": SignalSettings(address="coil:0"),
    },
    "press": {"p": SignalSettings(address="40001:I16")},
    "bad": {"x": SignalSettings(address="holding:-1")},
    "name": {"a*b": SignalSettings(address="holding:1")},
}


def plans(facts=FACTS, **config):
    config = {"profile": "oven", "devices": {"leon/l1/d1": "modbus+tcp://10.0.0.1"}, **config}
    return device_plans("ovens", validate_section(ModbusConfig, config, "adapters.ovens"), PROFILES, facts)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("modbus+tcp://10.0.0.1", ("10.0.0.1", 502, 1, 1.0)),
        ("modbus+tcp://plc.local:1502/?unit=0&timeout=250ms", ("plc.local", 1502, 0, 0.25)),
        ("modbus+tcp://[::1]:5?unit=255", ("::1", 5, 255, 1.0)),
    ],
)
def test_urls(url, found):
    endpoint, unit, timeout_s = parse_url(url)
    assert (endpoint.host, endpoint.port, unit, timeout_s) == found
    assert endpoint.link is ModbusLink.TCP


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.1", "is not modbus"),
        ("modbus+tcp://", "is not modbus"),
        ("modbus+tcp://h/path", "is not modbus"),
        ("modbus+tcp://user@h", "is not modbus"),
        ("modbus+tcp://h:port", "is not modbus"),
        ("modbus+tcp://h?unit", "is not modbus"),
        ("modbus+tcp://h?units=1", "unknown option 'units'; did you mean 'unit'"),
        ("modbus+tcp://h?unit=256", "unit is 0 to 255"),
        ("modbus+tcp://h?unit=one", "unit is 0 to 255"),
        ("modbus+tcp://h?timeout=0s", "timeout above 0"),
        ("modbus+tcp://h?timeout=5", "is not a duration"),
    ],
)
def test_urls_that_cannot_be(url, why):
    with pytest.raises(ConfigError, match=why):
        parse_url(url)


def test_devices_of_one_profile_share_a_read_map():
    devices = {
        "leon/l1/d1": "modbus+tcp://10.0.0.1",
        "leon/l1/d2": {"url": "modbus+tcp://10.0.0.1?unit=2", "interval": "5s"},
        "leon/l1/d3": {"url": "modbus+tcp://10.0.0.2", "profile": "press"},
    }
    one, two, three = plans(devices=devices, interval="100ms", numbering="modicon")
    assert one.read_map is two.read_map
    assert three.read_map is not one.read_map
    assert (one.interval_ns, two.interval_ns) == (100_000_000, 5_000_000_000)
    assert [(p.path, p.url.unit) for p in (one, two)] == [("leon/l1/d1", 1), ("leon/l1/d2", 2)]
    column = one.read_map.parts[0].layout.columns[0]
    assert (column.name, column.unit, column.low, column.high) == ("t", "degC", 0.0, 400.0)


def test_devices_from_a_file(tmp_path):
    (tmp_path / "ovens.csv").write_text(
        "\ufeffpath,url,profile,interval\nleon/l1/d1, modbus+tcp://10.0.0.1 ,,\nleon/l1/d2,modbus+tcp://10.0.0.2,oven,2s\n",
        encoding="utf-8",
    )
    one, two = plans(PlantFacts(FACTS.levels, "UTC", tmp_path), devices="ovens.csv")
    assert (one.endpoint.host, one.interval_ns, two.interval_ns) == ("10.0.0.1", 10**9, 2 * 10**9)


def test_parameters_from_a_file(tmp_path):
    (tmp_path / "ovens.csv").write_text(
        "path,url,base,step\nleon/l1/d1,modbus+tcp://h?unit=1,100,\nleon/l1/d2,modbus+tcp://h?unit=2,200,0.5\n"
    )
    profile = Profile({"t": SignalSettings(address="holding:{base+1};scale={step}")}, {"step": 1})
    config = validate_section(ModbusConfig, {"profile": "p", "devices": "ovens.csv"}, "adapters.ovens")
    one, two = device_plans("ovens", config, {"p": profile}, PlantFacts(FACTS.levels, "UTC", tmp_path))
    assert [plan.profile["t"].address for plan in (one, two)] == [
        "holding:101;scale=1",
        "holding:201;scale=0.5",
    ]
    assert [plan.read_map.blocks[0].start for plan in (one, two)] == [101, 201]
    assert one.read_map.parts is not two.read_map.parts, "their grids differ"


def test_tls_files_are_there_and_needed(tmp_path):
    facts = PlantFacts(FACTS.levels, "UTC", tmp_path)
    tls = {"leon/l1/d1": "modbus+tls://plc"}
    with pytest.raises(ConfigError, match=r"adapters.ovens.ca_file: no file .*ca.pem"):
        plans(facts, devices=tls, ca_file="ca.pem")
    (tmp_path / "ca.pem").write_text("")
    (one,) = plans(facts, devices=tls, ca_file="ca.pem")
    assert one.endpoint.tls.ca_file == tmp_path / "ca.pem"
    with pytest.raises(ConfigError, match="TLS files need a device at modbus"):
        plans(facts, ca_file="ca.pem")


@pytest.mark.parametrize(
    ("signal", "why"),
    [
        (
            {"address": "holding:0:STR[4]", "scale": 2},
            "profiles.p.t: a text has no scale, calibration or conversion",
        ),
        (
            {"address": "holding:0", "unit": "bar", "convert_to": "degC"},
            "profiles.p.t: 'bar' can't be converted",
        ),
        ({"address": "holding:{base}"}, "the device gives no value for {base}"),
        ({"address": "holding:0:STR[8]", "dead_band": 0}, "profiles.p.t: a text has no dead_band"),
        ({"address": "holding:0:STR[250]"}, "signal 't' takes 125 registers, a request has 100"),
    ],
)
def test_signals_that_do_not_fit_their_address(signal, why):
    config = {"profile": "p", "devices": {"leon/l1/d1": "modbus+tcp://h"}, "max_registers": 100}
    settings = validate_section(ModbusConfig, config, "adapters.ovens")
    with pytest.raises(ConfigError) as e:
        device_plans("ovens", settings, {"p": {"t": SignalSettings(**signal)}}, FACTS)
    assert why in str(e.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("path,url\na/b/c,\n", "ovens.csv:2: a device needs a path and a url"),
        ("path,url\n,modbus+tcp://h\n", "ovens.csv:2: a device needs a path and a url"),
        (
            "path,url\nl/a/b,modbus+tcp://h\nl/a/b,modbus+tcp://h\n",
            "ovens.csv:3: device 'l/a/b' is there twice",
        ),
        ("path,url,units\nl/a/b,modbus+tcp://h,3\n", "the profile has no parameter 'units'"),
        ("path,url,parameters\nl/a/b,modbus+tcp://h,base=3\n", "parameters have a column each"),
        ("path,url,interval\nl/a/b,modbus+tcp://h,0s\n", "interval '0s' must be above 0"),
        ("path,url,profile\nl/a/b,modbus+tcp://h,ovn\n", "unknown profile 'ovn'; did you mean 'oven'"),
        (
            "path,url\nl/a/b,modbus+tcp://h,3,4\nl/b,modbus+tcp://h\n",
            "the path has 2 levels, expected 3: site/line/device",
        ),
        ("path,url\n", "there is no device"),
    ],
)
def test_files_with_mistakes(tmp_path, text, why):
    (tmp_path / "ovens.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as e:
        plans(PlantFacts(FACTS.levels, "UTC", tmp_path), devices="ovens.csv")
    assert why in str(e.value)


@pytest.mark.parametrize("content", [None, b"path,url\n\xff\xfe"])
def test_files_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "ovens.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=r"device table .*ovens.csv can't be read"):
        device_rows("ovens.csv", tmp_path)


@pytest.mark.parametrize(
    ("config", "where", "why"),
    [
        ({"profile": "bad"}, "profiles.bad.x", "is not area:offset"),
        ({"profile": "name"}, "profiles.name.a*b", "can't name a sensor"),
        ({"profile": ""}, 'adapters.ovens.devices."leon/l1/d1"', "unknown profile ''"),
        (
            {"devices": {"leon//d1": "modbus+tcp://h"}},
            'adapters.ovens.devices."leon//d1"',
            "can't name a sensor",
        ),
        ({"devices": {"leon/l1/d1": "tcp://h"}}, 'adapters.ovens.devices."leon/l1/d1"', "is not modbus+tcp"),
        ({"devices": {}}, "adapters.ovens.devices", "there is no device"),
        ({"interval": 5}, "adapters.ovens.interval", "is not a duration"),
        ({"numbering": "two"}, "adapters.ovens.numbering", "zero"),
        ({"bridge_gap": 5}, "adapters.ovens.bridge_gap", "did you mean 'bridge_gaps'"),
        ({"devices": {"a/b/c": "modbus+tcp://u:p@h"}}, None, "password does not belong into a URL"),
    ],
)
def test_problems_are_told_by_their_key(config, where, why):
    with pytest.raises(ConfigError) as e:
        plans(**config)
    assert why in str(e.value)
    assert where is None or e.value.where == where


def test_any_number_of_levels_where_the_plant_names_none():
    assert plans(PlantFacts(), devices={"one": "modbus+tcp://h"})[0].path == "one"


def test_its_sensors_are_known_before_it_has_met_a_device():
    directory = SensorDirectory()
    config = validate_section(
        ModbusAdapter.Config, {"profile": "p", "devices": {"a/d": "modbus+tcp://h"}}, "adapters.x"
    )
    profile = {"t": SignalSettings(address="holding:0:U16;scale=0.1")}
    adapter = ModbusAdapter.from_config("x", config, {"p": profile}, PlantFacts())
    assert isinstance(adapter, Declares)
    adapter.declare(directory)
    adapter.declare(directory)
    assert (directory.n_slots, directory.layout(0).columns[0].scale) == (1, 0.1)


def test_an_adapter_is_made_without_io():
    config = validate_section(
        ModbusAdapter.Config, {"profile": "oven", "devices": {"leon/l1/d1": "modbus+tcp://h"}}, "x"
    )
    adapter = ModbusAdapter.from_config("ovens", config, PROFILES, FACTS)
    assert adapter.name == "ovens"
    assert adapter.diagnostics().n_sensors == 2


def test_the_text_of_a_table_counts_more_than_its_file(tmp_path):
    (tmp_path / "ovens.csv").write_text("path,url\nl/o1,u1\n")
    tables = {"ovens.csv": "path,url\nl/o2,u2\n"}
    assert device_rows("ovens.csv", tmp_path, tables) == [("l/o2", {"url": "u2"})]
    assert device_rows("ovens.csv", tmp_path, {"other.csv": ""}) == [("l/o1", {"url": "u1"})]
