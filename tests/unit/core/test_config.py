import json
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from headrace.core.config import PlantConfig, json_schema, load_plant, parse_plant
from headrace.core.errors import ConfigError
from headrace.core.layouts import Kind
from headrace.core.paths import parse_duration_ns
from headrace.core.problems import InvalidConfig

PLANT = """
version = 1
[plant]
levels = ["site", "area", "line", "device", "signal"]
timezone = "Europe/Madrid"
[store]
url = "./leon-store"
flush_interval = "90s"
flush_size = "32MB"
journal_size = "8GB"
[profiles.oven]
temperature = { address = "holding:100:F32;order=CDAB", unit = "degC", limits = [0, 400] }
running = { address = "coil:0", kind = "discrete", labels = ["stopped", "running"] }
[adapters.ovens]
protocol = "modbus"
profile = "oven"
interval = "1s"
bridge_gaps = 4
[adapters.ovens.devices]
"leon/paint/line1/oven1" = "modbus+tcp://10.0.4.11:502?unit=1"
"leon/paint/line1/oven2" = { url = "modbus+tcp://10.0.4.12:502?unit=1", interval = "5s" }
[adapters.more]
protocol = "modbus"
devices = "ovens.csv"
[adapters.broker]
protocol = "mqtt"
url = "mqtts://broker.example:8883"
user = "headrace"
password = { env = "MQTT_PASSWORD" }
[adapters.broker.topics]
"plant/{area}/{line}/{device}" = { path = "leon/{area}/{line}/{device}/{key}", values = "fields", time = "ts" }
[pipelines.ovens]
read = "leon/paint/**/temperature"
steps = [{ op = "clamp", min = 0, max = 400 }, { op = "window", every = "1m", agg = ["mean", "max"] }]
write = "{parent}/{signal}_{agg}_1m"
[runtime]
threads = 2
[api]
listen = "[::1]:9000"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "plant.toml"
    path.write_text(PLANT)
    return path


def problems(text, **tables):
    """What is wrong with a plant file, as (where, message)."""
    with pytest.raises(InvalidConfig) as caught:
        parse_plant({"version": 1, **tomllib.loads(text), **tables}, Path())
    return [(p.where, p.message) for p in caught.value.problems]


def problem(text):
    (only,) = problems(text)
    return only


# --- what is right -----------------------------------------------------------------------------------


def test_a_plant_file(file):
    plant = load_plant(file)
    assert plant.plant.levels[-1] == "signal"
    assert str(plant.plant.zone) == "Europe/Madrid"
    assert plant.folder == file.parent
    assert plant.store_folder == file.parent / "leon-store"
    assert (plant.store.flush_interval, plant.store.flush_size) == (90_000_000_000, 32_000_000)
    assert plant.store.journal_size == 8_000_000_000
    oven = plant.profiles["oven"]
    column = oven["temperature"].column("temperature")
    assert (column.name, column.unit, column.low, column.high) == ("temperature", "degC", 0.0, 400.0)
    assert oven["running"].column("running").kind is Kind.DISCRETE
    assert plant.adapters["ovens"].interval == 1_000_000_000
    assert plant.adapters["broker"].password.env == "MQTT_PASSWORD"
    assert plant.pipelines["ovens"].steps[1]["agg"] == ["mean", "max"]
    assert plant.runtime.threads == 2
    assert (plant.api.host, plant.api.port) == ("::1", 9_000)


def test_what_an_adapter_alone_understands_stays_as_written(file):
    ovens = load_plant(file).adapters["ovens"]
    assert ovens.options["bridge_gaps"] == 4
    assert ovens.options["interval"] == "1s"
    assert set(ovens.options) == {"protocol", "profile", "interval", "bridge_gaps", "devices"}


def test_dates_of_toml_are_kept_as_text(tmp_path):
    path = tmp_path / "plant.toml"
    path.write_text(
        "version = 1\n[profiles.oven]\n"
        't = { address = "a", calibration = [{ from = 2026-01-01 }, { from = 2026-02-01T06:00:00+01:00, add = 1 }] }\n'
    )
    plant = load_plant(path)
    assert [c["from"] for c in plant.written["profiles"]["oven"]["t"]["calibration"]] == [
        "2026-01-01", "2026-02-01T06:00:00+01:00",
    ]  # fmt: skip
    assert [c.add for c in plant.profiles["oven"]["t"].calibration] == [0.0, 1.0]


def test_little_is_needed():
    plant = parse_plant({"version": 1}, Path("/etc/headrace"))
    assert plant.store_folder == Path("/etc/headrace/store")
    assert plant.plant.timezone == "UTC"
    assert plant.runtime.threads is None
    assert (plant.api.host, plant.api.port) == ("127.0.0.1", 8_844)
    assert plant.adapters == plant.pipelines == plant.profiles == {}


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("./a", "/etc/a"),
        ("/var/a", "/var/a"),
        ("file:///var/my%20store", "/var/my store"),
        ("file://localhost/a", "/a"),
    ],
)
def test_where_the_store_is(url, folder):
    plant = parse_plant({"version": 1, "store": {"url": url}}, Path("/etc"))
    assert plant.store_folder == Path(folder)


def test_a_store_in_a_bucket_has_a_folder_too():
    plant = parse_plant({"version": 1, "store": {"url": "s3://plants/leon"}}, Path("/etc"))
    assert plant.store.is_bucket
    assert plant.store_folder == Path("/etc/store")
    options = {"endpoint": "http://minio:9000", "timeout": "5s"}
    store = {"url": "az://plants", "folder": "/var/leon", "options": options}
    plant = parse_plant({"version": 1, "store": store}, Path("/etc"))
    assert plant.store_folder == Path("/var/leon")
    assert (plant.store.options.endpoint, plant.store.options.timeout) == ("http://minio:9000", 5_000_000_000)
    assert not parse_plant({"version": 1}, Path("/etc")).store.is_bucket


def test_a_plant_is_frozen(file):
    with pytest.raises(ValueError, match="frozen"):
        load_plant(file).store.url = "other"


# --- single keys from outside ------------------------------------------------------------------------


def test_single_keys_can_be_set(file):
    plant = load_plant(
        file,
        [
            "store.url=/elsewhere", "runtime.threads=3", 'store.flush_size="1MB"', "api.listen=127.0.0.1:0",
            'adapters.ovens.devices."leon/paint/line1/oven3"=modbus+tcp://10.0.0.3', "profiles.door.open.address=coil:1",
        ],
    )  # fmt: skip
    assert plant.store_folder == Path("/elsewhere")
    assert (plant.runtime.threads, plant.store.flush_size, plant.api.port) == (3, 1_000_000, 0)
    assert plant.adapters["ovens"].devices["leon/paint/line1/oven3"] == "modbus+tcp://10.0.0.3"
    assert plant.profiles["door"]["open"].address == "coil:1"


@pytest.mark.parametrize("override", ["store.url", "=x", "a b=1", "store.=1"])
def test_an_override_has_a_key_and_a_value(file, override):
    with pytest.raises(ConfigError, match="written KEY=VALUE, as in store.url="):
        load_plant(file, [override])


def test_an_override_goes_into_tables_only(file):
    with pytest.raises(ConfigError, match=r"store\.url\.more: 'url' is a value, not a table"):
        load_plant(file, ["store.url.more=1"])


# --- files that are none -----------------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"plant\.toml: can't be read: No such file"):
        load_plant(tmp_path / "plant.toml")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        load_plant(tmp_path)


def test_a_slip_in_toml_has_a_line(tmp_path):
    file = tmp_path / "plant.toml"
    file.write_text("version = 1\n[store\n")
    with pytest.raises(ConfigError, match=r"plant\.toml:2: not valid TOML: Expected '\]'"):
        load_plant(file)
    file.write_text("version = 1\na = '''")
    with pytest.raises(ConfigError, match=r"plant\.toml: not valid TOML: "):
        load_plant(file)
    file.write_bytes(b"version = 1 # \xff")
    with pytest.raises(ConfigError, match=r"plant\.toml: not UTF-8 text \(byte 14\)"):
        load_plant(file)


# --- what is wrong -----------------------------------------------------------------------------------


def test_all_problems_are_told_at_once(file):
    with pytest.raises(InvalidConfig) as caught:
        load_plant(
            file,
            ["adapters.ovens.interval=1", "store.journalsize=1MB", "health.x.y=1", "runtime.threads=many"],
        )
    assert str(caught.value).splitlines() == [
        "health: this version does not have this section yet; remove it",
        "store.journalsize: unknown key; did you mean 'journal_size'?",
        "adapters.ovens.interval: 1 is not a duration; write a number and a unit: '250ms', '5s', '1m', '2h'",
        "runtime.threads: 'many' is not a whole number",
    ]
    assert caught.value.where == "health"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("version = 2", "version", "the file has version 2; this program reads version 1"),
        ("storr = 1", "storr", "unknown key; did you mean 'store'?"),
        ("[health]\nalerts_per_day = 20", "health", "this version does not have this section yet; remove it"),
        ("store = 1", "store", "1 is not a table"),
        ("[plant]\nlevels = 'a'", "plant.levels", "'a' is not a list"),
        ("[plant]\nlevels = ['a', 'b']", "plant.levels", "a path has 3 to 8 levels, these are 2"),
        ("[plant]\nlevels = ['a', 'b', 3]", "plant.levels[2]", "3 is not text"),
        ("[plant]\nlevels = ['a', 'b', 'a']", "plant.levels", "a level is there twice; name each once"),
        (
            "[plant]\nlevels = ['a', 'B', 'c']", "plant.levels",
            "level 'B' is not a name; use lower-case letters, digits and '_'",
        ),
        (
            "[plant]\ntimezone = 'Mars'", "plant.timezone",
            "'Mars' is not a time zone; write one such as 'Europe/Madrid' or 'UTC'",
        ),
        (
            "[store]\nurl = 'ftp://host/leon'", "store.url",
            "there are no stores at ftp://; write a folder, './store', or s3://bucket/plant, gs://bucket/plant, az://bucket/plant",
        ),
        ("[store]\nurl = 's3:///leon'", "store.url", "'s3:///leon' names no bucket; write 's3://bucket/plant'"),
        ("[store]\nurl = 'gs://b:80/leon'", "store.url", "'gs://b:80/leon' names no bucket; write 'gs://bucket/plant'"),
        ("[store]\nurl = 'az://b/leon?x=1'", "store.url", "'az://b/leon?x=1' names no bucket; write 'az://bucket/plant'"),
        ("[store]\nfolder = './x'", "store.folder", "is for stores in a bucket, and store.url names a folder; remove it"),
        (
            "[store.options]\nregion = 'x'", "store.options",
            "is for stores in a bucket, and store.url names a folder; remove it",
        ),
        ("[store]\nurl = 's3://b'\noptions.secret = 'x'", "store.options.secret", "unknown key; known: endpoint, region, account, ca_file, timeout"),
        ("[store]\nurl = ''", "store.url", "'' is not a folder; write './store' or 'file:///var/lib/store'"),
        (
            "[store]\nurl = 'file://server/a'", "store.url",
            "'file://server/a' is not a folder; write './store' or 'file:///var/lib/store'",
        ),
        (
            "[store]\nflush_interval = '0s'", "store.flush_interval", "'0s' should be greater than 0",
        ),
        ("[store]\nflush_size = '5'", "store.flush_size", "'5' is not a size; write a number and a unit: 512kB, 64MB, 8GB, 8GiB"),
        ("[store]\nflush_size = 5", "store.flush_size", "5 is not a size; write a number and a unit: '64MB', '8GB'"),
        ("[profiles.oven.t]\nunit = 'C'", "profiles.oven.t.address", "is missing; it says where the device keeps it, as its protocol writes addresses"),
        ("[profiles.oven]\nt = 5", "profiles.oven.t", "5 is not a table"),
        (
            "[profiles.oven.t]\naddress = 'a'\nkind = 'discret'", "profiles.oven.t.kind",
            "'discret' is not one of analog, discrete, counter, event, waveform; did you mean 'discrete'?",
        ),
        ("[profiles.oven.t]\naddress = 'a'\nkind = ['event']", "profiles.oven.t.kind", "['event'] is not one of analog, discrete, counter, event, waveform; did you mean 'event'?"),
        ("[profiles.oven.t]\naddress = 'a'\nlimits = [0]", "profiles.oven.t.limits[1]", "is missing"),
        ("[profiles.oven.t]\naddress = 'a'\nlimits = ['0', 1]", "profiles.oven.t.limits[0]", "'0' is not a number"),
        ("[adapters.a]\nprotokol = 'x'", "adapters.a.protocol", "is missing; it says which adapter it is: 'modbus', 'mqtt', ..."),
        ("[adapters.a]\nprotocol = true", "adapters.a.protocol", "True is not text"),
        (
            "[adapters.a]\nprotocol = 'x'\nprofile = 'ovn'\n[profiles.oven]", "adapters.a.profile",
            "no profile 'ovn'; did you mean 'oven'?",
        ),
        (
            "[adapters.a]\nprotocol = 'x'\nprofile = 'ovn'", "adapters.a.profile",
            "no profile 'ovn'; there are none, write [profiles.NAME]",
        ),
        ("[adapters.a]\nprotocol = 'x'\ndevices = 1", "adapters.a.devices", "is not a table of path = url, nor the name of a CSV file"),
        (
            "[adapters.a]\nprotocol = 'x'\n[adapters.a.devices]\n'a/b' = 'x://y'", 'adapters.a.devices."a/b"',
            "has 2 levels, expected 4: site/area/line/device",
        ),
        (
            "[adapters.a]\nprotocol = 'x'\n[adapters.a.devices]\ninterval = '1s'", "adapters.a.devices.interval",
            "is no device; in TOML a key below a [table] line is part of that table, so move it above the line of the devices",
        ),
        ("[adapters.a]\nprotocol = 'x'\n[adapters.a.devices]\n'a/b/c/d' = 5", 'adapters.a.devices."a/b/c/d"', "is not a url, nor a table with one"),
        ("[adapters.a]\nprotocol = 'x'\ntopics = { a = 1 }", "adapters.a.topics.a", "1 is not a table"),
        ("[pipelines.p]\nread = '**'\nsteps = []\nwrite = '{parent}/x'", "pipelines.p.steps", "[] has too few entries; it needs 1 at least"),
        ("[pipelines.p]\nread = '{'\nsteps = [{op = 'x'}]\nwrite = '{parent}/x'", "pipelines.p.read", "braces do not match in pattern '{'"),
        ("[pipelines.p]\nread = '**'\nsteps = [{op = 'x'}, {}]\nwrite = '{parent}/x'", "pipelines.p.steps[1]", 'has no operator; write { op = "window", ... }'),
        (
            "[pipelines.p]\nread = '**'\nsteps = [{op = 'x'}]\nwrite = '{parnt}/x'", "pipelines.p.write",
            "'{parnt}/x' is not a template; write a path with {parent}, {signal} and {agg}: '{parent}/{signal}_{agg}_1m'",
        ),
        ("[runtime]\nthreads = 0", "runtime.threads", "0 should be greater than or equal to 1"),
        ("[runtime]\nthreads = 1.5", "runtime.threads", "1.5 is not a whole number"),
        ("[api]\nlisten = '8844'", "api.listen", "'8844' is not host:port; write '127.0.0.1:8844'"),
        ("[api]\nlisten = '127.0.0.1:99999'", "api.listen", "'127.0.0.1:99999' is not host:port; write '127.0.0.1:8844'"),
        (
            "[api]\nlisten = ':8844'", "api.listen",
            "names no address; write '0.0.0.0:8844' for every one of this machine",
        ),
        (
            "[api]\nlisten = '10.0.0.1:8844'", "api.listen",
            "listening on 10.0.0.1 lets the whole network in; write [api.tokens], or listen on 127.0.0.1",
        ),
    ],
)  # fmt: skip
def test_each_problem_is_a_sentence_at_its_key(text, where, message):
    assert problem(text) == (where, message)


def test_of_two_treatments_one_counts_more():
    text = "[adapters.b]\nprotocol = 'mqtt'\n[adapters.b.treatments]\n'a/*/t' = {{ scale = 2 }}\n'{}' = {{ scale = {} }}"
    assert problem(text.format("*/b/t", 3)) == (
        "adapters.b.treatments",
        "'a/*/t' and '*/b/t' can both match a path, and neither is more specific; say more in one of them",
    )
    assert problem(text.format("a/b/t", 0)) == (
        'adapters.b.treatments."a/b/t".scale', "0 is not a scale: a finite number that is not 0",
    )  # fmt: skip


def test_a_section_of_a_later_version_stands_beside_other_problems():
    assert [where for where, _ in problems("[alerts.x]\n[runtime]\nthreads = 0")] == [
        "alerts",
        "runtime.threads",
    ]


TIER = '[tiers.a]\nmatch = "**"\n'


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (TIER + "ater = 1", "tiers.a.ater", "unknown key; did you mean 'after'?"),
        (TIER + 'after = { cold = "3d", warm = "4d" }', "tiers.a.after", "cold = '3d' does not come after warm = '4d'"),
        (TIER + 'after = { cold = "3d" }\nbound = { range = 0.1, absolute = 1 }', "tiers.a.bound", "a bound is one of"),
        (TIER + 'after = { cold = "3d" }\nbound = { range = 0.9 }', "tiers.a.bound.range", "0.9"),
        (TIER + "bound = { absolute = 1 }", "tiers.a", "has a bound but no cold tier"),
        (TIER + 'size = "1GB"', "tiers.a", "has a size, but samples never become anything smaller"),
        (TIER + 'hold = { until = "soon" }', "tiers.a.hold", "'soon' is not a date"),
        (TIER + '[tiers.b]\nmatch = "**"', "tiers.b", "'**' is as specific as '**' of [tiers.a]"),
        (TIER + "rollups = []", "tiers.a.rollups", "1 at least"),
        (TIER + 'rollups = ["1m", "1m"]', "tiers.a.rollups", "a resolution is there twice"),
        (TIER + 'rollups = ["2m"]', "tiers.a.rollups", "'1m'"),
        (TIER + 'after = { rollups = "1y" }\n[store]\nresolutions = ["1h"]', "tiers.a.rollups", "no windows of 1m are kept"),
    ],
)  # fmt: skip
def test_rules_of_tiers_are_checked(text, where, message):
    found = problems(text)
    assert any(at.startswith(where) and message in said for at, said in found), found


def test_resolutions_that_are_kept_are_checked():
    def store(*names):
        return parse_plant({"version": 1, "store": {"resolutions": list(names)}}, Path()).store

    assert parse_plant({"version": 1}, Path()).store.resolutions == ("1s", "1m", "1h", "1d")
    assert store("1h", "1s").resolutions_ns == (10**9, 3_600 * 10**9)
    assert store().resolutions_ns == ()
    for names, message in ((("1h", "1h"), "there twice; name each once"), (("5m",), "'1m'")):
        with pytest.raises(InvalidConfig, match=message):
            store(*names)


def test_a_hold_alone_competes_with_no_rule():
    plant = parse_plant(
        {"version": 1, "tiers": {"a": {"match": "**"}, "b": {"match": "**", "hold": True}}}, Path()
    )
    assert [tier.governs for tier in plant.tiers.values()] == [True, False]


def test_a_version_is_needed():
    with pytest.raises(InvalidConfig, match="^version: is missing; it says version = 1$"):
        parse_plant({}, Path())


@pytest.mark.parametrize("path", ["a/b/c/*", "a//b/c"])
def test_devices_have_paths(path):
    (found, *_) = problems(f"[adapters.a]\nprotocol = 'x'\n[adapters.a.devices]\n'{path}' = 'x://y'")
    assert "can't name a sensor" in found[1]


def test_secrets_are_never_repeated():
    text = """
    [adapters.a]
    protocol = "mqtt"
    url = "mqtt://user:geheim@host"
    password = "geheim"
    [adapters.b]
    protocol = "modbus"
    devices = { "a/b/c/d" = "x://u:geheim@h", "a/b/c/e" = { url = "x://u:geheim@h" } }
    [adapters.c]
    protocol = "mqtt"
    password = { value = "geheim" }
    """
    found = problems(text)
    assert [where for where, _ in found] == ["adapters.a.url", "adapters.a.password", "adapters.c.password"]
    rest = problems(text.replace('"geheim"', '{ env = "X" }').replace("user:geheim@", "").replace("value", "file")
                    .replace("{ env = \"X\" } }\n    ", '"x" }\n'))  # fmt: skip
    assert all("a password does not belong into a URL" in message for _, message in rest)
    assert len(rest) == 2
    assert "geheim" not in repr(found) + repr(rest)


# --- the schema --------------------------------------------------------------------------------------


class OvenSettings(BaseModel):
    class Door(BaseModel):
        side: str

    interval: int = Field(5, description="not this one: the shared key is described already")
    bridge_gaps: int = Field(0, description="registers read to join blocks")
    doors: list[Door] = []


def test_the_schema_describes_the_file():
    schema = json_schema()
    json.dumps(schema)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]) == set(PlantConfig.model_fields)
    assert schema["properties"]["version"] == {"const": 1}
    store = schema["$defs"]["StoreSection"]["properties"]
    assert store["flush_interval"]["type"] == "string"
    assert (
        parse_duration_ns(store["flush_interval"]["default"]) == PlantConfig(version=1).store.flush_interval
    )
    kind = schema["$defs"]["SignalSettings"]["properties"]["kind"]
    assert (kind["default"], kind["enum"][1]) == ("analog", "discrete")


def test_the_schema_knows_the_keys_of_adapters():
    schema = json_schema({"oven": OvenSettings})
    keys = schema["$defs"]["AdapterSection"]["properties"]
    assert keys["bridge_gaps"]["description"] == "registers read to join blocks"
    assert keys["doors"]["items"]["$ref"] == "#/$defs/Door"
    assert "Door" in schema["$defs"]
    assert keys["interval"] != OvenSettings.model_json_schema()["properties"]["interval"]


def test_tokens_are_kept_elsewhere_and_long_enough(tmp_path, monkeypatch):
    text = '[api]\nlisten = "0.0.0.0:8844"\n[api.tokens]\nviewer = { env = "VIEWER" }\nadmin = { file = "admin.token" }'
    (tmp_path / "plant.toml").write_text(f"version = 1\n{text}")
    tokens = load_plant(tmp_path / "plant.toml").api.tokens
    monkeypatch.setenv("VIEWER", "v" * 16)
    (tmp_path / "admin.token").write_text("a" * 20 + "\n")
    assert tokens.read(tmp_path) == {"viewer": "v" * 16, "admin": "a" * 20}
    monkeypatch.setenv("VIEWER", "v" * 15)
    with pytest.raises(ConfigError, match="api.tokens.viewer: is shorter than 16 characters"):
        tokens.read(tmp_path)


def test_a_file_can_be_read_again_as_it_was_asked_for(tmp_path):
    file = tmp_path / "plant.toml"
    file.write_text(PLANT)
    config = load_plant(file, ["store.url=./other"])
    assert config.source is not None
    assert (config.source.file, config.source.overrides) == (file, ("store.url=./other",))
    assert config.written["store"]["url"] == "./other"
    file.write_text(PLANT.replace("90s", "80s"))
    again = config.source.load()
    assert (again.store.flush_interval, again.store.url) == (parse_duration_ns("80s"), "./other")
    assert parse_plant({"version": 1}, tmp_path).source is None


@pytest.mark.parametrize("text", ["a = " + "9" * 5_000, "a = " + "[" * 5_000])
def test_toml_of_absurd_shape_is_no_toml(tmp_path, text):
    file = tmp_path / "plant.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"plant\.toml: not valid TOML: "):
        load_plant(file)
    file.write_text("version = 1")
    assert load_plant(file, [f"store.url={text[4:]}"]).store.url == text[4:]
    with pytest.raises(ConfigError):
        load_plant(file, [f"{text[4:]}=1"])
