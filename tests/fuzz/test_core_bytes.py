"""Hostile frames, definitions, rejects and configurations: each reader says what is wrong in its own kind of error."""

import json
import tomllib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.mutations import EXTREMES, JSON, any_of, at_most, mutated, other_json

from headrace.core.config import load_plant
from headrace.core.directory_file import read_directory
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, CorruptionError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.paths import parse_duration_ns, parse_size_bytes, pattern_regex
from headrace.core.sensors import SensorDirectory
from headrace.ingest.normalize import TimePolicy, normalise
from headrace.ingest.rejects import decode_rejects, encode_rejects
from headrace.runtime.announcement import RUNNING_FILE, read_announcement
from headrace.runtime.assemble import check_plant
from headrace.runtime.tail_format import read_tail, tail_parts

SLOT, TS = np.array([0, 1, 1], np.uint32), np.array([5, 6, 7], np.int64)
START = np.array([0, 1, 1, 3], np.int64)
BATCHES = [
    FrameBatch.dense(SLOT, TS, np.arange(6, dtype=np.uint16).reshape(3, 2), origin="x"),
    FrameBatch.dense(SLOT, TS, np.ones((3, 1)), np.zeros((3, 1), np.uint8), sequence=3),
    FrameBatch.sparse(SLOT, TS, np.ones(3, np.uint32), START, np.array([0, 1, 0], np.uint16), dictionary=("a", "é"), value_ts_ns=TS),
    FrameBatch.wave(SLOT, TS, np.ones(3, np.float32), START, (np.full(3, 12_000), np.ones(3, np.int64))),
]  # fmt: skip


@settings(max_examples=600)
@given(any_of(*[batch.to_bytes() for batch in BATCHES]))
def test_frame_batches(data):
    try:
        batch = FrameBatch.from_bytes(data)
    except CorruptionError:
        return
    assert FrameBatch.from_bytes(batch.to_bytes()).n_values == batch.n_values
    assert batch.size_bytes <= 300 * len(data)
    batch.value_times()


@pytest.mark.parametrize("batch", BATCHES)
def test_sizes_that_a_frame_batch_claims_take_no_memory(batch):
    """Every field of the head at its most."""
    data = batch.to_bytes()
    with at_most(4 << 20):
        for at in range(48):
            for extreme in EXTREMES:
                try:
                    FrameBatch.from_bytes(data[:at] + extreme + data[at + len(extreme) :])
                except CorruptionError:
                    pass


@settings(max_examples=200)
@given(any_of(b"".join(tail_parts(BATCHES)), b"".join(tail_parts([]))))
def test_tails(data):
    try:
        found = read_tail(data)
    except CorruptionError:
        return
    assert all(isinstance(batch, FrameBatch) for batch in found)


# --- definitions and rejects -------------------------------------------------------------------------

LAYOUT = Layout("u16", (Column("a", unit="K", low=0.0, high=5.0), Column("b", labels=("x", "y"), scale=0.5)))


def a_directory():
    directory = SensorDirectory()
    directory.define_many(["l/d1", "l/d2"], LAYOUT, "u16")
    directory.define("l/d3", Layout("f64", (Column("t"),)))
    directory.define("l/d4", Layout("f64", (Column("t"),)), sensors=[77])
    return directory


@settings(max_examples=150)
@given(any_of(a_directory().to_bytes()))
def test_directory_files(data):
    try:
        with at_most(30 << 20):
            SensorDirectory().apply_bytes(data)
    except CorruptionError:
        pass


def any_column(kind, values):
    return st.lists(values, min_size=2, max_size=2).map(lambda some: pa.array(some, kind))


@settings(max_examples=200)
@given(
    st.tuples(
        any_column(pa.uint32(), st.integers(0, 3) | st.integers(0, 2**32 - 1) | st.none()),
        any_column(pa.string(), st.sampled_from(["l/d", "l/e", "", "*", "l//d"]) | st.none()),
        any_column(pa.string(), st.sampled_from(["", "u16", "~m"]) | st.none()),
        any_column(pa.uint64(), st.sampled_from([LAYOUT.id, 0]) | st.none()),
        any_column(pa.list_(pa.uint64()), st.none() | st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=3)),
    ),
    other_json({str(LAYOUT.id): json.loads(LAYOUT.to_json())}),
    st.booleans(),
)  # fmt: skip
def test_directory_files_of_other_content(columns, layouts, is_valid):
    """Whole Parquet files with the right columns: what was written by somebody else, or by a defect of ours."""
    layouts = {str(LAYOUT.id): LAYOUT.to_json()} if is_valid else layouts
    names = ["slot", "path", "part", "layout", "sensors"]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(list(columns), names, metadata={"headrace.layouts": json.dumps(layouts)}), sink)
    directory = SensorDirectory()
    try:
        directory.apply_bytes(bytes(sink.getvalue()))
    except CorruptionError:
        pass
    for slot in range(directory.n_slots):
        assert len(directory.sensors(slot)) == directory.layout(slot).width


@settings(max_examples=200)
@given(other_json(json.loads(LAYOUT.to_json())) | JSON)
def test_layouts(document):
    sink = pa.BufferOutputStream()
    table = pa.table(
        {name: pa.array([], kind) for name, kind in [("slot", pa.uint32()), ("path", pa.string())]}
    )
    about = {"headrace.layouts": json.dumps({"5": json.dumps(document), str(LAYOUT.id): LAYOUT.to_json()})}
    pq.write_table(table.replace_schema_metadata(about), sink)
    with pytest.raises(CorruptionError):
        list(read_directory(bytes(sink.getvalue())))


REJECTS = [
    Reject(RejectCode.MALFORMED, "a", "s", "d", b"\xff", 5, 2),
    Reject(RejectCode.BAD_TIME, "b", "", ""),
]


@settings(max_examples=200)
@given(
    any_of(encode_rejects(REJECTS))
    | other_json(json.loads(encode_rejects(REJECTS))).map(json.dumps).map(str.encode)
)
def test_rejects(data):
    try:
        for reject in decode_rejects(data):
            assert encode_rejects([reject])
    except CorruptionError:
        pass


@settings(max_examples=200)
@given(
    any_of(
        b'{"pid": 1, "address": "http://127.0.0.1:8844", "control": "http://127.0.0.1:1", "key": "k", "started": "now"}'
    )
)
def test_announcements(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "announced"
    folder.mkdir(exist_ok=True)
    (folder / RUNNING_FILE).write_bytes(data)
    read_announcement(LocalDisk(folder))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, '"' + "x" * 100_000])
def test_json_that_nests_too_deep_is_damage(tmp_path, text):
    with pytest.raises(CorruptionError):
        decode_rejects(text.encode())
    (tmp_path / RUNNING_FILE).write_text(text)
    assert read_announcement(LocalDisk(tmp_path)) is None
    head = bytearray(BATCHES[2].to_bytes())
    at = head.index(b'["a"')
    data = bytes(head[:at]) + text.encode()
    with pytest.raises(CorruptionError):
        FrameBatch.from_bytes(data[:44] + len(text).to_bytes(4, "little") + data[48:])


# --- configuration -----------------------------------------------------------------------------------

PLANT = """
version = 1
[plant]
levels = ["site", "device", "signal"]
timezone = "Europe/Madrid"
[store]
url = "./store"
flush_interval = "2m"
journal_size = "4GB"
[profiles.oven]
temperature = { address = "holding:100:F32;order=CDAB", unit = "degC", limits = [0, 400] }
running = { address = "coil:0", kind = "discrete", labels = ["stopped", "running"] }
[adapters.ovens]
protocol = "modbus"
profile = "oven"
interval = "1s"
[adapters.ovens.devices]
"leon/oven1" = "modbus+tcp://10.0.4.11:502?unit=1&timeout=1s"
[adapters.broker]
protocol = "mqtt"
url = "mqtts://broker.example:8883"
user = "headrace"
password = { env = "MQTT_PASSWORD" }
[adapters.broker.topics]
"plant/{device}/#" = { path = "leon/{device}/{key}", values = "fields", time = "ts" }
[adapters.push]
protocol = "http"
path = "{host}/{measurement}/{field}"
[adapters.log]
protocol = "replay"
files = "*.csv"
path = "leon/oven1/{key}"
[pipelines.minutes]
read = "leon/**/temperature"
steps = [{ op = "clamp", min = 0, max = 400 }, { op = "window", every = "1m", agg = ["mean", "max"] }]
write = "{parent}/{signal}_{agg}_1m"
[api]
listen = "127.0.0.1:8844"
"""


def test_the_plant_file_itself_is_good(tmp_path):
    (tmp_path / "plant.toml").write_text(PLANT)
    check_plant(load_plant(tmp_path / "plant.toml"))


@settings(max_examples=250)
@given(mutated(PLANT.encode(), n_max=3) | st.binary(max_size=40))
def test_plant_files(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "plant.toml"
    file.write_bytes(data)
    try:
        check_plant(load_plant(file))
    except ConfigError:
        pass


def toml_of(value):
    """A value as TOML writes it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value is not None else '""'


@settings(max_examples=400)
@given(other_json(tomllib.loads(PLANT)))
def test_plants_of_other_values(tmp_path_factory, document):
    """The file is TOML, and says something else than it should at one place."""
    if not isinstance(document, dict):
        return
    text = "\n".join(f"{json.dumps(key)} = {toml_of(value)}" for key, value in document.items())
    file = tmp_path_factory.getbasetemp() / "other.toml"
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        check_plant(load_plant(file))
    except ConfigError:
        pass


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 100_000, "a = " + "9" * 100_000, "[" + "a." * 10_000 + "a]", "\x00", "a = 1e999999"],
)
def test_plant_files_of_absurd_shape(tmp_path, text):
    (tmp_path / "plant.toml").write_text(text)
    with pytest.raises(ConfigError):
        load_plant(tmp_path / "plant.toml")


@settings(max_examples=300)
@given(
    st.sampled_from([parse_duration_ns, parse_size_bytes, pattern_regex]),
    any_of(b"1h30m", b"64MB", b"8GiB", b"a/{b,c}/**", b"9" * 400 + b"GB"),
)
def test_small_languages(parse, text):
    try:
        parse(text.decode("latin-1"))
    except ConfigError:
        pass


@settings(max_examples=100)
@given(any_of(b"path,url,interval\nleon/o1,modbus+tcp://h:502,1s\nleon/o2,modbus+tcp://h:502?unit=2,\n"))
def test_device_tables(tmp_path_factory, data):
    from headrace.adapters.device_tables import device_rows

    folder = tmp_path_factory.getbasetemp()
    (folder / "devices.csv").write_bytes(data)
    try:
        device_rows("devices.csv", folder)
    except ConfigError:
        pass


@settings(max_examples=200)
@given(mutated(BATCHES[0].to_bytes()) | mutated(BATCHES[2].to_bytes()))
def test_frames_that_are_no_damage_and_do_not_fit(data):
    """What a link or a reader hands on goes through a check against the directory before anything indexes by it."""
    from headrace.core.errors import PluginError

    directory = SensorDirectory()
    directory.define_many(["l/d1", "l/d2"], LAYOUT)
    try:
        normalise(FrameBatch.from_bytes(data), directory, 10**18, TimePolicy())
    except (CorruptionError, PluginError):
        pass
