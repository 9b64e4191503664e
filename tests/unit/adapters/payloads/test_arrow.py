"""Arrow in messages: wide and long tables, times, types; nothing that is claimed is believed."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.mutations import any_of, at_most

from headrace.adapters.payloads import arrow
from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.clock import NO_TIME
from headrace.core.sensors import SensorDirectory
from headrace.testing.engines import flat


def ipc(*tables, is_file=False, **options):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(**options)
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(
        sink, tables[0].schema, options=options
    ) as writer:
        for table in tables:
            writer.write(table)
    return sink.getvalue().to_pybytes()


class Bench:
    """A router with one rule for Arrow."""

    def __init__(self, **rule):
        self.directory = SensorDirectory()
        settings = RuleSettings(**{"path": "leon/{area}/d/{key}", "values": "arrow", "time": "ts", **rule})
        self.groups = DeviceGroups(self.directory)
        self.router = MessageRouter("x", compile_rules({"t/{area}": settings}, (), "UTC", "t"), self.groups)

    def feed(self, *payloads, topic="t/a", time_ns=NO_TIME):
        """Samples in the order of columns, rejects, and the batches."""
        out = self.router.decode(
            [
                TopicMessage(topic, payload, 100 * i, time_ns, None, (0, i))
                for i, payload in enumerate(payloads, 1)
            ],
            7,
        )
        samples = []
        for batch in out.batches:
            batch.check_columns()
            assert (batch.arrival_ns, batch.origin) == (7, "x")
            for slot, column, ts_ns, kept in flat(batch):
                value = batch.dictionary[kept.value] if batch.dictionary else kept.value
                samples.append((self.directory.sensor_path(slot, column), ts_ns, value))
        return samples, out.rejects, out.batches


def batch_of(**columns):
    return pa.record_batch(columns)


def test_a_column_is_a_key_and_keeps_its_type():
    table = batch_of(
        ts=pa.array([1, 2], pa.timestamp("ns", "UTC")), f=pa.array([1.5, None], pa.float32()), n=pa.array([3, 4], pa.int16()),
        on=[True, False], s=["up", "down"],
    )  # fmt: skip
    bench = Bench()
    samples, rejects, batches = bench.feed(ipc(table))
    assert sorted(samples, key=str) == [
        ("leon/a/d/f", 1, 1.5), ("leon/a/d/n", 1, 3), ("leon/a/d/n", 2, 4), ("leon/a/d/on", 1, 1), ("leon/a/d/on", 2, 0),
        ("leon/a/d/s", 1, "up"), ("leon/a/d/s", 2, "down"),
    ]  # fmt: skip
    assert rejects == []
    assert sorted(b.dtype for b in batches) == ["f32", "i16", "u32", "u8"]


@pytest.mark.parametrize(
    "options", [{}, {"is_file": True}, {"compression": "zstd"}, {"compression": "lz4", "is_file": True}]
)
def test_streams_and_files_of_many_messages_are_one_batch(options):
    tables = [batch_of(ts=np.arange(5) + 10 * i + 1, a=np.arange(5) + 0.5) for i in range(4)]
    samples, rejects, batches = Bench(time_unit="ns").feed(
        ipc(*tables[:2], **options), ipc(tables[2], **options), ipc(tables[3], **options)
    )
    assert ([t for _, t, _ in samples], rejects) == ([10 * i + j + 1 for i in range(4) for j in range(5)], [])
    assert len(batches) == 1


def test_times_are_read_as_in_other_payloads():
    one = Bench(types={"a": "i64"})
    samples, rejects, _ = one.feed(
        ipc(batch_of(ts=[1_700_000_000_000, 1_700_000_000_001], a=[1, 2])), ipc(batch_of(ts=[1.5, 2.25], a=[3, 4])),
        ipc(batch_of(ts=["2023-11-14T22:13:20Z", "x"], a=[5, 6])), ipc(batch_of(ts=[5, 1_700_000_000_000], a=[7, 8])),
        ipc(batch_of(ts=[None, 9], a=[9, 10])),
    )  # fmt: skip
    assert [t for _, t, _ in samples] == [
        1_700_000_000_000_000_000, 1_700_000_000_001_000_000, 1_500_000_000, 2_250_000_000, 1_700_000_000_000_000_000,
        5_000_000_000, 1_700_000_000_000_000_000, 9_000_000_000,
    ]  # fmt: skip
    assert [(str(r.code), r.n_samples) for r in rejects] == [("bad-time", 1), ("bad-time", 1)]
    assert all(r.raw.startswith(b"\xff\xff\xff\xff") and r.arrival_ns in (300, 500) for r in rejects)


def test_rows_without_a_time_have_the_messages():
    bench = Bench(time=None)
    table = ipc(batch_of(a=[1.0, 2.0, 3.0]), batch_of(a=[4.0]))
    assert [t for _, t, _ in bench.feed(table, time_ns=50)[0]] == [50, 51, 52, 53]
    assert [t for _, t, _ in bench.feed(table)[0]] == [100, 101, 102, 103]
    assert [t for _, t, _ in bench.feed(table)[0]] == [104, 105, 106, 107], "they never go back"


def test_a_long_table_names_its_sensors():
    table = batch_of(
        ts=[1, 1, 2, 2, 3], path=["leon/a/d/x", "leon/b/e/y", "leon/a/d/x", "too/short", "leon/a/d/x"],
        value=[1.5, 2.5, 3.5, 4.5, None],
    )  # fmt: skip
    samples, rejects, _ = Bench(time_unit="ns").feed(ipc(table))
    assert sorted(samples) == [("leon/a/d/x", 1, 1.5), ("leon/a/d/x", 2, 3.5), ("leon/b/e/y", 1, 2.5)]
    assert [(str(r.code), r.n_samples) for r in rejects] == [("bad-path", 1)]
    assert "it has other levels than 'leon/{area}/d/{key}'" in rejects[0].detail


def test_only_the_columns_that_are_wanted():
    samples, rejects, _ = Bench(columns=("a",), time_unit="ns").feed(ipc(batch_of(ts=[1], a=[1.5], b=[2.5])))
    assert (samples, rejects) == ([("leon/a/d/a", 1, 1.5)], [])
    _, (reject,), _ = Bench(columns=("c",)).feed(ipc(batch_of(ts=[1], a=[1.5])))
    assert reject.detail == "no column c; there are ts, a"


def test_a_type_that_a_sensor_does_not_have_is_refused():
    bench = Bench(time_unit="ns")
    bench.feed(ipc(batch_of(ts=[1], a=[1.5])))
    samples, (reject,), _ = bench.feed(ipc(batch_of(ts=[2], a=["on"])), ipc(batch_of(ts=[3], a=[2.5])))
    assert samples[-1:] == [("leon/a/d/a", 3, 2.5)]
    assert (str(reject.code), reject.source) == ("wrong-type", "t/a:0:1")


def test_frames_of_a_part_keep_their_order():
    """Where the layout grows between messages, the frames before it come first."""
    bench = Bench(time_unit="ns")
    samples, rejects, batches = bench.feed(
        ipc(batch_of(ts=[1], a=[1.5])), ipc(batch_of(ts=[2], a=[2.5], b=[3.5])), ipc(batch_of(ts=[3], a=[4.5])),
        ipc(batch_of(ts=pa.array([], pa.int64()), a=pa.array([], pa.float64()))),
    )  # fmt: skip
    assert ([b.ts_ns.tolist() for b in batches], rejects) == ([[1], [2, 3]], [])
    assert len(samples) == 4


def test_a_path_that_can_not_be_is_a_reject():
    bench = Bench()
    _, (reject,), _ = bench.feed(ipc(batch_of(ts=[1], a=[1.5])), topic="t/a{x}")
    assert (str(reject.code), reject.detail) == (
        "bad-path",
        "path 'leon/a{x}/d' has a brace that the topic brings",
    )
    _, (reject,), _ = bench.feed(ipc(batch_of(ts=[1], a=[1.5])), topic="t/*")
    assert str(reject.code) == "bad-path"


def test_claims_are_not_believed(monkeypatch):
    zeros = ipc(batch_of(ts=np.arange(4_000_000), a=np.zeros(4_000_000)), compression="zstd")
    assert len(zeros) < 1 << 23
    monkeypatch.setattr(arrow, "TABLE_BYTES_MAX", 1 << 20)
    with at_most(8 << 20):
        _, (reject,), _ = Bench(max_payload="100MB").feed(zeros)
    assert str(reject.code) == "too-large"
    assert reject.detail.startswith("its columns take 64,000,")
    words = batch_of(ts=np.arange(9), s=pa.array(["x" * 200_000] * 9).dictionary_encode())
    with at_most(8 << 20):
        assert str(Bench().feed(ipc(words, compression="zstd"))[1][0].code) == "wrong-type", (
            "one word of 200 kB"
        )
    monkeypatch.setattr(arrow, "TABLE_BYTES_MAX", 1 << 16)
    assert str(Bench().feed(ipc(words, compression="zstd"))[1][0].code) == "too-large"


def test_texts_are_bounded():
    words = ["up", "x" * 1_025, "a\0b", None, "down"]
    samples, (reject,), (batch,) = Bench(time=None).feed(ipc(batch_of(s=words)))
    assert [(t, v) for _, t, v in samples] == [(100, "up"), (104, "down")]
    assert (str(reject.code), reject.n_samples, batch.dictionary) == ("wrong-type", 2, ("up", "down"))


def test_rows_that_take_no_bytes_are_bounded(monkeypatch):
    monkeypatch.setattr(arrow, "N_CELLS_MAX", 1_000)
    _, (reject,), _ = Bench(time=None).feed(ipc(batch_of(a=pa.nulls(600), b=pa.nulls(600))))
    assert (str(reject.code), reject.n_samples) == ("too-large", 600)
    assert reject.detail == "600 rows of 2 columns, expected at most 1,000 cells"


GOOD = [
    ipc(batch_of(ts=[1, 2], a=[1.5, None], s=["x", "y"])), ipc(batch_of(ts=[3], a=[2.5]), is_file=True),
    ipc(batch_of(ts=[4, 5], path=["leon/a/d/a", "leon/a/d/q"], value=[1.5, 2.5]), compression="zstd"),
    ipc(batch_of(ts=[6], s=pa.array(["x"]).dictionary_encode()), compression="lz4"),
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(any_of(*GOOD), min_size=1, max_size=3), st.sampled_from(["ts", None]))
def test_no_bytes_break_it(payloads, time):
    bench = Bench(time=time)
    with at_most(80 << 20):
        samples, rejects, _ = bench.feed(*payloads)
    assert all(str(reject.code) != "internal" for reject in rejects), rejects
    assert len(samples) + sum(reject.n_samples for reject in rejects) >= 0


COLUMN = st.lists(st.none() | st.floats(allow_nan=False, width=64), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(COLUMN, COLUMN), min_size=1, max_size=4))
def test_every_value_arrives_bit_by_bit(tables):
    bench, expected, payloads = Bench(time_unit="ns"), [], []
    for number, (a, b) in enumerate(tables):
        n = min(len(a), len(b))
        ts = [1_000 * number + i + 1 for i in range(n)]
        payloads.append(
            ipc(batch_of(ts=ts, a=pa.array(a[:n], pa.float64()), b=pa.array(b[:n], pa.float64())))
        )
        expected += [("leon/a/d/a", t, v) for t, v in zip(ts, a, strict=False) if v is not None]
        expected += [("leon/a/d/b", t, v) for t, v in zip(ts, b, strict=False) if v is not None]
    samples, rejects, _ = bench.feed(*payloads)
    assert (sorted(map(repr, samples)), rejects) == (sorted(map(repr, expected)), [])
