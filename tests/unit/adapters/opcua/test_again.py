"""Values that were refused and kept, filed once more by profiles that were mended."""

from dataclasses import replace

import numpy as np
import pytest
from asyncua import ua
from tests.unit.adapters.opcua.desk import NOW, NOW_NS, Desk, plan, signal

from headrace.adapters.abilities import Redecodes
from headrace.adapters.base import PlantFacts
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.again import Refiling
from headrace.adapters.opcua.config import OpcuaConfig
from headrace.adapters.opcua.messages import from_data_values
from headrace.adapters.opcua.scanner import ValueColumns, scan_values
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.sensors import SensorDirectory

S = 10**9


def refused_texts():
    """A number that was text twice within a slice, and what is known of its plant."""
    desk = Desk(plan("l/d", signal("a"), signal("b")))
    desk.file((0, 1.0, "Double", 0), (1, 1.0, "Double", 0))
    out = desk.file((0, "x", "String", 1), (1, 2.0, "Double", 1), (0, "yy", "String", 2))
    (reject,) = out.rejects
    assert (reject.code, reject.n_samples, reject.source) == (RejectCode.WRONG_TYPE, 2, "h:1 ns=2;s=n.a")
    return desk.directory, reject


def adapter_of(*plans):
    return OpcuaAdapter("x", OpcuaConfig(devices={}), list(plans), PlantFacts())


def renamed(name="note"):
    """The same node as a signal of another name."""
    return replace(signal("a"), name=name)


def values_of(batches, directory):
    return [
        (directory.sensor_path(int(slot), 0), row[0], int(ts), int(q[0]))
        for batch in batches
        for slot, row, ts, q in zip(
            batch.slot, batch.values.tolist(), batch.ts_ns,
            np.zeros(batch.values.shape, int) if batch.quality is None else batch.quality, strict=True,
        )
    ]  # fmt: skip


def test_values_are_filed_in_order_with_their_own_times():
    directory, reject = refused_texts()
    adapter = adapter_of(plan("l/d", signal("a"), signal("b")))
    assert isinstance(adapter, Redecodes)
    batches, (still,) = adapter.redecode(reject, directory)
    assert (batches, still.n_samples, still.raw) == ([], 2, reject.raw)
    assert "expected f64 as it was at first" in still.detail
    adapter = adapter_of(plan("l/d", renamed(), signal("b")))
    for _ in range(2):  # each time the same: nothing is taken for a repeat
        batches, rejects = adapter.redecode(reject, directory)
        assert not rejects
        words = batches[0].dictionary
        found = [(path, words[int(v)], ts, q) for path, v, ts, q in values_of(batches, directory)]
        assert found == [("l/d/note", "x", NOW_NS + S, 0), ("l/d/note", "yy", NOW_NS + 2 * S, 0)]
    first = adapter._refiling
    directory.define("l/other", directory.layouts[0])
    assert adapter.redecode(reject, directory)[0]
    assert adapter._refiling is first
    assert adapter.redecode(reject, SensorDirectory())[0]
    assert adapter._refiling is not first


def test_more_elements_than_the_profile_said():
    desk = Desk(plan("l/d", signal("v", n_elements=2)))
    (reject,) = desk.file((0, [1, 2, 3], "Int16", 1)).rejects
    adapter = adapter_of(plan("l/d", signal("v", n_elements=3)))
    (batch,), rejects = adapter.redecode(reject, desk.directory)
    assert (batch.values.tolist(), batch.ts_ns.tolist(), rejects) == ([[1, 2, 3]], [NOW_NS + S], [])


def test_of_two_signals_of_a_node_the_one_that_was_refused():
    one, other = signal("a"), replace(signal("a"), name="twin")
    directory, reject = refused_texts()
    made = Refiling("x", [plan("l/e", other), plan("l/d", one)], directory, "auto")
    assert made._tags.path(made._tag_of(reject)) == "l/d/a"
    assert made._tag_of(replace(reject, detail="who?")) == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"source": "h:1 ns=2;s=gone"}, "no signal of x reads 'h:1 ns=2;s=gone'"),
        ({"source": "notification"}, "no signal of x reads"),
        ({"raw": b""}, "it is a state of the device"),
        ({"raw": b"\x0c\x01\x00"}, "it is no value with its times"),
        ({"raw": bytes(MAX_RAW_BYTES)}, "only the first 1,048,576 bytes"),
    ],
)
def test_what_can_not_be_filed_says_why(changes, why):
    directory, reject = refused_texts()
    reject = replace(reject, **changes)
    batches, (still,) = adapter_of(plan("l/d", renamed())).redecode(reject, directory)
    assert batches == []
    assert why in still.detail
    assert isinstance(still, Reject)


@pytest.mark.parametrize("source", [None, NOW])
@pytest.mark.parametrize("server", [None, NOW])
@pytest.mark.parametrize("value", [1.5, "text", [1, 2], None])
def test_a_value_is_written_as_it_was_read(value, source, server):
    variant = ua.Variant() if value is None else ua.Variant(value)
    one = from_data_values([ua.DataValue(variant, ua.StatusCode(0x40000000), source, server)])
    raw = one.data_value(0)
    again = ValueColumns.empty(1)
    assert scan_values(np.frombuffer(raw, np.uint8), 0, len(raw), 1, False, again) == len(raw)
    for name in ("kind", "bits", "status", "source_ns", "server_ns", "size"):
        assert getattr(again, name)[0] == getattr(one.columns, name)[0], name
