"""Hostile payloads: nothing but rejects comes out of a decoder, and every one of them is counted."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.mutations import any_of, at_most

from headrace.adapters.base import PlantFacts, Pushed
from headrace.adapters.http.adapter import HttpAdapter
from headrace.adapters.payloads.base import PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.register_addresses import parse_address
from headrace.adapters.payloads.registers import compile_read_map
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.adapters.payloads.tables import TableColumns, TableReader
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.replay import adapter as replay
from headrace.core.errors import ConfigError, Rejected
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory
from headrace.ingest.normalize import TimePolicy, normalise
from headrace.ingest.rejects import decode_rejects, encode_rejects
from headrace.testing.adapters import RecordingSink

FIELDS = b'{"ts": 1795446000.5, "t": 181.2, "on": true, "s": "run", "m": {"rpm": 1480, "n": null}, "big": 9007199254740993}'
LIST = b'[{"ts": 1, "a": 1}, {"ts": "2026-11-23T15:06:00.5+01:00", "a": 2.5}]'
CSV = b'2026-11-23T15:06:00Z,181.2,true\n1795446000,"a,b",\n'
LINES = (
    b'cpu,host=pi,cpu=cpu0 usage=97.98994974874371,n=4i,u=4u,text="two \\"words\\"",on=true 1700000000000000000\r\n'
    b"# comment\n m\\ 1,a\\,b=c v=-1.5e-3,w=f\n"
)
JSON_LINES = b'{"path": "a/b/c", "ts": 1.5, "value": 2}\n{"device": "a/b", "ts": 2, "x": 1, "y": "on"}\n'


def check(directory, batches, rejects):
    """Frames fit the directory and go through normalising; rejects go through the journal."""
    for batch in batches:
        batch.check_columns()
        normalise(batch, directory, 10**18, TimePolicy())
    assert all(reject.n_samples >= 1 for reject in rejects)
    assert all(reject.code != "internal" for reject in rejects), rejects
    assert len(decode_rejects(encode_rejects(rejects))) == len(rejects)


@settings(max_examples=150)
@given(
    st.sampled_from([("fields", FIELDS), ("fields", LIST), ("number", b"181.25"), ("csv", CSV)]).flatmap(
        lambda one: st.tuples(st.just(one[0]), st.lists(any_of(one[1]), min_size=1, max_size=3))
    ),
    st.sampled_from(["", "m", "a.b"]),
    st.sampled_from([None, "ts", "m.ts"]),
)
def test_messages(case, root, time):
    values, payloads = case
    directory = SensorDirectory()
    rule = {
        "path": "l/d" if values == "number" else "l/d/{key}",
        "values": values,
        "root": root,
        "max_keys": 20,
    }
    if values == "fields":
        rule["time"] = time
    elif values == "csv":
        rule |= {"time": time and "ts", "columns": ("ts", "a", "b")}
    router = MessageRouter(
        "x", compile_rules({"#": RuleSettings(**rule)}, (), "UTC", "t"), DeviceGroups(directory, 50, 200)
    )
    for payload in payloads:
        out = router.decode([TopicMessage("plant/d", payload, 5)], 7)
        check(directory, *out)
        assert sum(b.n_frames for b in out.batches) + sum(r.n_samples for r in out.rejects) >= (
            values != "fields"
        )


@pytest.fixture
def push():
    """A running adapter that is pushed to, and its sink."""
    config = validate_section(
        HttpAdapter.Config, {"protocol": "http", "max_fields": 20, "max_devices": 30}, "adapters.x"
    )
    sink = RecordingSink()
    return HttpAdapter.from_config("x", config, {}, PlantFacts()), sink


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-ndjson"])
def test_pushed_bodies(push, kind):
    adapter, sink = push
    samples = (
        (LINES,)
        if kind == "text/plain"
        else (JSON_LINES, FIELDS, LIST, b"[%s]" % JSON_LINES.strip().replace(b"\n", b","))
    )

    @settings(max_examples=150)
    @given(any_of(*samples), st.sampled_from(["", "ns", "s", "h", "x"]), st.text(max_size=3))
    def run(body, precision, more):
        try:
            parts = list(
                adapter._running.decoder.slices(Pushed(body, kind + more, {"precision": precision}, "", 7))
            )
        except Rejected:
            return
        for part in parts:
            check(sink.directory, part.batches, part.rejects)
            assert bool(part.rejects) == bool(part.n_refused) == bool(part.first)

    async def start():
        await adapter.start(sink)

    import asyncio

    asyncio.run(start())
    run()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"bad\n" * 20_000), ("text/plain", b'm v="' * 200_000), ("text/plain", b"\\" * 8_000_000),
        ("text/plain", b" " * 8_000_000), ("text/plain", b"m," * 4_000_000), ("text/plain", b"m " + b"v=1," * 500_000),
        ("text/plain", b"m " + b"9" * 8_000_000), ("text/plain", b"m v=" + b"9" * 8_000_000), ("text/plain", b"#" * 8_000_000),
        ("application/x-ndjson", b"[" * 8_000_000), ("application/x-ndjson", b"1\n" * 20_000),
        ("application/x-ndjson", b'{"device":"a/b","x":[[[[]]]]}\n' * 10_000), ("application/json", b"[" + b"1," * 499_998 + b"1]"),
        ("application/json", b'{"device":"a","' + b"x" * 900_000 + b'":1}'), ("application/json", b'{"a":' * 150_000),
    ],
)  # fmt: skip
async def test_large_bodies_of_mistakes_take_little_memory(push, kind, body):
    """What is alive at one moment: a slice of the body and its rejects."""
    adapter, sink = push
    await adapter.start(sink)
    n_rejects = 0
    with at_most(40 << 20):
        for part in adapter._running.decoder.slices(Pushed(body, kind, {}, "", 7)):
            n_rejects += len(part.rejects)
            assert len(part.rejects) <= 1_001
    assert n_rejects or not body.strip(b" #")
    await adapter.stop()


MAP = [
    ("holding:0:F32", "a"),
    ("holding:2:U64;order=CDAB", "b"),
    ("coil:3", "c"),
    ("holding:9.4", "d"),
    ("input:1:I16", "e"),
]


@settings(max_examples=100)
@given(st.binary(max_size=400), st.integers(0, 12), st.none() | st.integers(1, 60))
def test_registers(data, header, stride):
    from headrace.adapters.payloads.registers import RegisterTag
    from headrace.core.layouts import Column

    tags = [RegisterTag(Column(name), parse_address(address)) for address, name in MAP]
    read_map = compile_read_map(tags)
    try:
        parts = read_map.decode(data, header, stride)
    except ValueError:
        return
    for part in parts:
        assert part.values.ndim == 2


@settings(max_examples=200)
@given(
    any_of(*[address.encode() for address, _ in MAP], b"40001:F64;scale=0.1;offset=-5", b"holding:65535.15")
)
def test_register_addresses(text):
    try:
        parse_address(text.decode("latin-1"))
    except ConfigError:
        pass


# --- tables ------------------------------------------------------------------------------------------


def table_bytes(suffix):
    table = pa.table(
        {
            "path": ["a/b/c", "a/b/d"],
            "ts": [1.5, 2.5],
            "value": [1.0, 2.0],
            "n": pa.array([1, None], pa.int16()),
            "s": ["x", None],
        }
    )
    sink = io.BytesIO()
    if suffix == ".csv":
        pa.csv.write_csv(table, sink)
    else:
        pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_replayed_files(suffix, tmp_path):
    valid = table_bytes(suffix)

    @settings(max_examples=150)
    @given(any_of(valid))
    def run(data):
        file = tmp_path / f"x{suffix}"
        file.write_bytes(data)
        directory = SensorDirectory()
        reader = TableReader(
            "x", DeviceGroups(directory), TimeReader(), TableColumns("ts", "value", "l/d", ())
        )
        try:
            with at_most(80 << 20):
                for table in replay.read_file(file):
                    check(directory, *reader.read(table, "x"))
        except (PayloadError, OSError, pa.ArrowException):
            pass

    run()


COLUMNS = st.sampled_from(
    [
        pa.array([1, 2, None]), pa.array([1.5, None, float("nan")]), pa.array(["a/b", None, ""]), pa.array([True, None, False]),
        pa.array([[1], None, []]), pa.array([b"\xff", None, b""]), pa.nulls(3), pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.array([0, -(2**62), 2**62], pa.timestamp("s")), pa.array([0, 1, 2**63 - 1], pa.timestamp("ns", "Europe/Madrid")),
        pa.array([1, 2, 3], pa.date32()), pa.array([2**64 - 1, 0, None], pa.uint64()), pa.array([{"a": 1}, None, {"a": 2}]),
        pa.array([1, 2, 3], pa.duration("s")), pa.array([1.5, 2.5, 3.5], pa.float16()), pa.array(["1", "x", "2026-01-01T00:00"]),
        pa.array(["a//b", "*/c", "x" * 2_000]), pa.array([1, 2, 3], pa.decimal128(38, 2)),
    ]
)  # fmt: skip


@settings(max_examples=200)
@given(
    COLUMNS,
    COLUMNS,
    COLUMNS,
    st.sampled_from(["path", "sensor", "other", "a/b", "value", ""]),
    st.sampled_from(["l/d", "", "a//b"]),
)
def test_tables_of_any_columns(time, value, other, name, group):
    names = ["ts", "value", name] if name != "value" else ["ts", "value", "value2"]
    table = pa.record_batch([time, value, other], names)
    directory = SensorDirectory()
    reader = TableReader("x", DeviceGroups(directory), TimeReader(), TableColumns("ts", "value", group, ()))
    for _ in range(2):
        try:
            check(directory, *reader.read(table, "x"))
        except PayloadError:
            pass


@settings(max_examples=100)
@given(
    st.one_of(
        st.integers(),
        st.floats(),
        st.text(max_size=40),
        st.none(),
        st.booleans(),
        st.lists(st.integers(), max_size=1),
    )
)
def test_times(value):
    for unit in ("auto", "s", "ns"):
        reader = TimeReader(unit, "Europe/Madrid")
        try:
            ts_ns = reader.read(value)
            assert np.int64(ts_ns) == ts_ns
            assert reader.read_many((value, value)) == [ts_ns, ts_ns]
        except PayloadError:
            pass
