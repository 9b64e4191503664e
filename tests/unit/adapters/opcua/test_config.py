"""``[adapters.<name>]`` with ``protocol = "opcua"``."""

import pytest

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.config import OpcuaConfig, ServerAddress, opcua_plans, parse_url
from headrace.core.errors import ConfigError
from headrace.core.problems import validate_section
from headrace.core.profiles import Profile
from headrace.core.settings import SignalSettings

PROFILES = {
    "oven": {
        "t": SignalSettings(address="ns=2;s={node}.T", unit="degC"),
        "spectrum": SignalSettings(address="ns=2;s={node}.S"),
    },
    "empty": {},
    "bad": {"t": SignalSettings(address="holding:100")},
    "scaled": {"t": SignalSettings(address="i=1", scale=0.5)},
    "braced": Profile({"t": SignalSettings(address="ns=2;s={line}.{node}.t{n+1}")}, {"n": 1}),
    "path": {"a//b": SignalSettings(address="i=1")},
    "twice": {"spectrum": SignalSettings(address="i=1"), "spectrum_1": SignalSettings(address="i=2")},
}
URL = "opc.tcp://h?node=Oven1"


def plans(devices=None, folder=None, levels=(), **config):
    config = {"devices": {"l/d": URL} if devices is None else devices, "profile": "oven", **config}
    settings = validate_section(OpcuaConfig, config, "adapters.x")
    facts = PlantFacts(levels, folder=folder) if folder else PlantFacts(levels)
    return opcua_plans("x", settings, PROFILES, facts)


def test_a_url_says_where_and_which_node():
    assert parse_url("opc.tcp://h") == (ServerAddress("h", 4840), "", 4.0)
    server, node, timeout_s = parse_url("opc.tcp://[::1]:4841/a/b/?node=Line1.Oven&timeout=250ms")
    assert (server.url, str(server), node, timeout_s) == (
        "opc.tcp://[::1]:4841/a/b",
        "::1:4841",
        "Line1.Oven",
        0.25,
    )


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("modbus+tcp://h", "is not opc.tcp://"), ("opc.tcp://", "is not opc.tcp://"), ("opc.tcp://me@h", "is not opc.tcp://"),
        ("opc.tcp://h:x", "is not opc.tcp://"), ("opc.tcp://h?nod=1", "did you mean 'node'"),
        ("opc.tcp://h?timeout=0s", "timeout must be above 0"),
    ],
)  # fmt: skip
def test_a_wrong_url_is_told(url, error):
    with pytest.raises(ConfigError, match=error):
        parse_url(url)


def test_devices_come_from_a_table_or_a_file(tmp_path):
    one, two = plans(
        {"l/d": URL, "l/e": {"url": "opc.tcp://h", "node": "Oven2", "interval": "5s", "profile": "oven"}}
    )
    assert (one.node, two.node, one.interval_ns, two.interval_ns) == ("Oven1", "Oven2", 10**9, 5 * 10**9)
    assert one.signals is two.signals, "devices of one profile share its signals"
    (tmp_path / "ovens.csv").write_text(
        "path,url,node,interval\nl/d,opc.tcp://h,Oven3,\nl/e,opc.tcp://h?node=b,,250ms\n"
    )
    three, four = plans("ovens.csv", tmp_path)
    assert (three.node, four.node, four.interval_ns) == ("Oven3", "b", 250_000_000)
    assert plans(arrays={"spectrum": 2})[0].n_sensors == 3
    settings = validate_section(OpcuaConfig, {"devices": "ovens.csv", "profile": "oven"}, "adapters.x")
    facts = PlantFacts(folder=tmp_path, tables={"ovens.csv": "path,url,node\nl/f,opc.tcp://h,c\n"})
    assert [p.path for p in opcua_plans("x", settings, PROFILES, facts)] == ["l/f"], (
        "the table may have changed since"
    )


def test_addresses_may_have_parameters_of_devices(tmp_path):
    devices = {
        "l/d": {"url": "opc.tcp://h", "node": "a", "parameters": {"line": "L1"}},
        "l/e": {"url": "opc.tcp://h", "node": "b", "parameters": {"line": "L1"}},
        "l/f": {"url": "opc.tcp://h", "node": "c", "parameters": {"line": "L2", "n": 7}},
    }
    one, two, three = plans(devices, profile="braced")
    assert one.signals is two.signals
    found = [str(plan.signals[0].address.of_device(plan.node)) for plan in (one, two, three)]
    assert found == ["ns=2;s=L1.a.t2", "ns=2;s=L1.b.t2", "ns=2;s=L2.c.t8"]
    (tmp_path / "d.csv").write_text("path,url,node,line\nl/d,opc.tcp://h,a,L9\n")
    (plan,) = plans("d.csv", tmp_path, profile="braced")
    assert str(plan.signals[0].address) == "ns=2;s=L9.{node}.t2"


def test_what_profiles_say_of_values_is_for_whoever_takes_them():
    settings = validate_section(OpcuaConfig, {"devices": {"l/d": URL}, "profile": "scaled"}, "adapters.x")
    scaled = OpcuaAdapter.from_config("x", settings, PROFILES, PlantFacts())
    assert scaled.signals() == {"l/d/t": PROFILES["scaled"]["t"]}
    settings = validate_section(OpcuaConfig, {"devices": {"l/d": URL}, "profile": "oven"}, "adapters.x")
    assert OpcuaAdapter.from_config("x", settings, PROFILES, PlantFacts()).signals() == {}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("path,url\n,opc.tcp://h", "needs a path and a url"), ("path,url\na,", "needs a path and a url"),
        ("path,url,node\na,opc.tcp://h,x\na,opc.tcp://h,x", "'a' is there twice"),
        ("path,url,nodes\na,opc.tcp://h,x", "no parameter 'nodes'; did you mean 'node'"),
        ("path,url,node,interval\na,opc.tcp://h,x,0s", "interval '0s' must be above 0"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_with_its_line(tmp_path, text, error):
    (tmp_path / "ovens.csv").write_text(text)
    with pytest.raises(ConfigError, match=error):
        plans("ovens.csv", tmp_path)
    with pytest.raises(ConfigError, match="can't be read"):
        plans("none.csv", tmp_path)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"devices": {}}, "there is no device"), ({"profile": "ovn"}, "unknown profile 'ovn'; did you mean 'oven'"),
        ({"profile": "empty"}, "has no signals"), ({"profile": "bad"}, "profiles.bad.t: 'holding:100' is no node id"),
        ({"profile": "path"}, "profiles.path"),
        ({"profile": "braced"}, "gives no value for {line}; write parameters"),
        ({"profile": "twice", "arrays": {"spectrum": 2}}, "signal 'spectrum_1' is there twice"),
        ({"devices": {"l/d": "opc.tcp://h"}}, "needs the device's node"),
        ({"levels": ("a", "b", "c", "d")}, "the path has 2 levels, expected 3"),
        ({"dead_band": {"x": 1.0}}, "no profile has a signal 'x'"), ({"dead_band": {"t": -1.0}}, "is no dead band"),
        ({"arrays": {"spectrum": 0}}, "an array has 1 to 4,096"),
        ({"arrays": {"spectrum": 2}, "types": {"spectrum": "string"}}, "arrays of text are not taken apart"),
        ({"cert_file": "none.der"}, "no file"), ({"security": "Basic256Sha256"}, "needs our own certificate"),
        ({"user": "me", "password": {"env": "X"}, "user_cert_file": "c", "user_key_file": "c"}, "say who we are once"),
        ({"password": {"env": "X"}}, "a password needs a user"), ({"cert_file": "c"}, "go together"),
        ({"cert_file": "c", "key_file": "c"}, "certificates are used with a policy"),
        ({"cert_file": "c", "key_file": "c", "security": "Basic256Sha256"}, "name the server's certificate"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told(tmp_path, config, error):
    (tmp_path / "c").write_text("")
    with pytest.raises(ConfigError, match=error):
        plans(folder=tmp_path, **config)


def test_an_adapter_that_was_never_started():
    settings = validate_section(OpcuaConfig, {"devices": {"l/d": URL}, "profile": "oven"}, "adapters.x")
    adapter = OpcuaAdapter.from_config("x", settings, PROFILES, PlantFacts())
    found = adapter.diagnostics()
    assert (found.state, found.n_sensors) == (AdapterState.STARTING, 2)
