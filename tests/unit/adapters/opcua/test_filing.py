"""Values become frames, rejects and states of their tags."""

from datetime import timedelta

import numpy as np
import pytest
from asyncua import ua
from tests.unit.adapters.opcua.desk import NOW, NOW_NS, Desk, plan, signal

from headrace.adapters.opcua.filing import joined
from headrace.adapters.opcua.messages import from_data_values
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode
from headrace.core.frames import Shape
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory


def test_equal_devices_share_one_batch_and_whole_frames_are_dense():
    signals = signal("a"), signal("b")
    desk = Desk(plan("l/d", *signals), plan("l/e", *signals))
    out = desk.file(*[(tag, tag / 2, "Double", 1) for tag in range(4)])
    (batch,) = out.batches
    assert (batch.shape, batch.values.tolist(), batch.quality) == (
        Shape.DENSE,
        [[0.0, 0.5], [1.0, 1.5]],
        None,
    )
    assert batch.ts_ns.tolist() == [NOW_NS + 10**9] * 2
    assert out.good.tolist() == [0, 1, 2, 3]
    out = desk.file((3, 7.0, "Double", 2), (0, 8.0, "Double", 2), (1, 9.0, "Double", 3))
    (batch,) = out.batches
    assert (batch.shape, batch.column.tolist(), batch.start.tolist()) == (Shape.SPARSE, [0, 1, 1], [0, 2, 3])
    assert batch.values.tolist() == [8.0, 9.0, 7.0]
    assert batch.value_ts_ns.tolist() == [NOW_NS + s * 10**9 for s in (2, 3, 2)]
    out = desk.file(*[(tag, 5.0 + tag, "Double", 4) for tag in (3, 2, 1)])
    assert [b.shape for b in out.batches] == [Shape.DENSE, Shape.SPARSE]
    assert out.batches[1].value_ts_ns is None


def test_several_values_of_a_sensor_are_frames_in_order():
    desk = Desk(plan("l/d", signal("a"), signal("b")))
    out = desk.file(
        (0, 1.0, "Double", 1), (0, 2.0, "Double", 2), (1, 5.0, "Double", 2), (0, 3.0, "Double", 3)
    )
    (batch,) = out.batches
    assert batch.start.tolist() == [0, 2, 3, 4]
    assert batch.values.tolist() == [1.0, 5.0, 2.0, 3.0]
    out = desk.file(*[(tag, 10.0 * tag + s, "Double", s) for s in (4, 5) for tag in (0, 1)])
    (batch,) = out.batches
    assert (batch.shape, batch.values.tolist()) == (Shape.DENSE, [[4.0, 14.0], [5.0, 15.0]])


def test_values_without_a_time_get_that_of_arrival_one_after_the_other():
    desk = Desk(plan("l/d", signal("a")))
    out = desk.file((0, 1.0, "Double", None), (0, 1.0, "Double", None), arrival_ns=NOW_NS)
    assert out.batches[0].ts_ns.tolist() == [NOW_NS, NOW_NS + 1]
    assert out.n_repeats == 0, "nobody can tell whether it is the old value or a new one like it"
    desk = Desk(plan("l/d", signal("a")), time="ingest")
    out = desk.file((0, 1.0, "Double", 1), (0, 2.0, "Double", 2), arrival_ns=NOW_NS)
    assert out.batches[0].ts_ns.tolist() == [NOW_NS, NOW_NS + 1]


def test_repeats_go_no_further_in_any_order():
    desk = Desk(plan("l/d", signal("a"), signal("s")))
    first = (1, "x", "String", 1), (0, 1.0, "Double", 1), (0, 1.0, "Double", 1)
    assert (desk.file(*first).n_repeats, desk.file(*first).n_repeats) == (1, 3)
    out = desk.file((0, 2.0, "Double", 1), (1, "y", "String", 1), (1, "y", "String", 1))
    assert (len(out.batches), out.n_repeats) == (2, 1)
    desk.tags.forget([1])
    assert desk.file((0, 2.0, "Double", 1), (1, "y", "String", 1)).n_repeats == 1
    desk.tags.forget()
    assert desk.file((0, 2.0, "Double", 1), (1, "y", "String", 1)).n_repeats == 0
    gone = (0, None, "Null", None, 0x80340000)
    assert (desk.file(gone).n_repeats, desk.file(gone).n_repeats) == (0, 1), (
        "an error that lasts is one sample"
    )


def test_what_nobody_asked_for_is_rejected():
    desk = Desk(plan("l/d", signal("a")))
    out = desk.file((7, 1.0, "Double", 1), (0, 2.0, "Double", 1), (9, 1.0, "Double", 1))
    assert out.batches[0].values.tolist() == [[2.0]]
    assert (out.rejects[0].code, out.rejects[0].n_samples) == (RejectCode.UNKNOWN_TAG, 2)
    assert "client handles [7, 9]" in out.rejects[0].detail
    assert desk.file((7, 1.0, "Double", 1)).batches == []


def test_a_variable_that_never_had_a_value_is_a_state():
    desk = Desk(plan("l/d", signal("a"), signal("b")))
    gone = (0, None, "Null", 1, 0x80340000)
    assert [r.detail for r in desk.file(gone, (1, None, "Null", 1)).rejects] == ["l/d/a: BadNodeIdUnknown"]
    assert desk.file(gone).rejects == []
    assert desk.tags.problem == {0: "BadNodeIdUnknown"}
    assert desk.filing.tell(0, "BadNodeIdUnknown", 1) is None
    assert desk.filing.tell(0, "another", 1).code is RejectCode.DEVICE_ERROR
    desk.file((0, 1.0, "Double", 1))
    assert desk.tags.problem == {}


def test_values_without_a_value_are_bad():
    desk = Desk(plan("l/d", signal("a"), signal("n"), signal("s"), signal("v", n_elements=2)))
    desk.file((0, 1.0, "Double", 1), (1, 3, "Int16", 1), (2, "x", "String", 1), (3, [1, 2], "Int16", 1))
    out = desk.file(
        (0, None, "Null", 2), (1, None, "Null", 2, 0x808B0000), (2, None, "Null", 2, 0x40000000),
        (3, None, "Null", 2, 0x80000000), (0, "x", "String", 3, 0x80000000),
    )  # fmt: skip
    found = {b.dtype: (b.values.reshape(-1).tolist(), b.quality.reshape(-1).tolist()) for b in out.batches}
    assert found["i16"] == ([0, 0, 0], [Quality.BAD_DEVICE, Quality.BAD, Quality.BAD])
    assert np.isnan(found["f64"][0]).all()
    assert found["f64"][1] == [Quality.BAD, Quality.BAD]
    assert found["u32"][1] == [Quality.BAD]
    assert desk.tags.problem == {0: "Bad", 1: "BadDeviceFailure", 3: "Bad"}


def test_doubtful_times_and_overflows_are_marked():
    desk = Desk(plan("l/d", signal("a")))
    answer = from_data_values(
        [ua.DataValue(ua.Variant(1.0), ua.StatusCode(0), NOW + timedelta(days=1), NOW), ua.DataValue(ua.Variant(2.0), ua.StatusCode(0x480), NOW, NOW)]
    )  # fmt: skip
    answer.columns.tag[:] = 0
    out = desk.filing.file(answer, NOW_NS)
    assert out.batches[0].quality.reshape(-1).tolist() == [Quality.UNCERTAIN_TIME, Quality.UNCERTAIN]
    assert out.lost.tolist() == [0]


def test_texts_that_are_none_are_rejected():
    desk = Desk(plan("l/d", signal("s")))
    desk.file((0, "x", "String", 1))
    out = desk.file((0, "a\x00b", "String", 2), (0, "x" * 2_000, "String", 3), (0, "y", "String", 4))
    assert [r.code for r in out.rejects] == [RejectCode.WRONG_TYPE] * 2
    assert [b.dictionary[int(b.values[0, 0])] for b in out.batches] == ["y"]
    answer = from_data_values([ua.DataValue(ua.Variant("zz"), None, NOW + timedelta(seconds=9))])
    broken = answer.data.replace(b"zz", b"\xff\xfe")
    answer = type(answer)(answer.columns, broken)
    assert "no text of at most" in desk.filing.file(answer, NOW_NS).rejects[0].detail


def test_types_are_refused_with_what_to_do():
    desk = Desk(plan("l/d", signal("a"), signal("v", n_elements=2), signal("g"), signal("w", n_elements=1)))
    desk.file((0, 1.5, "Float", 1), (1, [1, 2], "Int16", 1))
    out = desk.file(
        (0, 1.5, "Double", 2), (0, 2.5, "Double", 3), (0, [1.5], "Float", 3), (1, 5, "Int16", 2), (2, b"x", "ByteString", 2),
        (3, 4, "Int16", 2),
    )  # fmt: skip
    found = {r.detail: r.n_samples for r in out.rejects}
    assert found == {
        "l/d/a is Double, expected f32 as it was at first; give the signal another name to follow the change": 2,
        "l/d/a is Float[], expected a single value; to take it apart write arrays.a = its number of elements": 1,
        "l/d/v is Int16, expected an array, as arrays.v says": 1,
        "l/d/g is ByteString, expected a number, text, time, true or false": 1,
        "l/d/w is Int16, expected an array, as arrays.w says": 1,
    }
    assert out.rejects[0].source == "h:1 ns=2;s=n.a"
    assert out.batches == []


def test_what_is_refused_is_told_once_as_long_as_it_stays_the_same():
    desk = Desk(plan("l/d", signal("a"), signal("g"), signal("h")))
    first = (
        (0, 1.5, "Float", 1),
        (0, 2.5, "Double", 2),
        (1, b"x", "ByteString", 2),
        (2, b"x", "ByteString", None),
    )
    assert len(desk.file(*first).rejects) == 3
    assert set(desk.tags.problem) == {0, 1, 2}, "the last of a tag counts"
    again = desk.file(*first[1:])
    assert (again.rejects, again.n_repeats) == ([], 3)
    out = desk.file((1, b"y", "ByteString", 2), (2, b"y", "ByteString", None), (0, 3.5, "Float", 3))
    assert [b"y" in r.raw for r in out.rejects] == [True, True]
    assert set(desk.tags.problem) == {1, 2}


def test_a_repeat_says_that_all_is_well_again():
    desk = Desk(plan("l/d", signal("a")))
    desk.file((0, 1.5, "Float", 1))
    desk.tags.problem[0] = "the server has no namespace 'urn:x'"
    assert desk.file((0, 1.5, "Float", 1)).n_repeats == 1
    assert desk.tags.problem == {}


def test_arrays_are_filled_as_far_as_they_go():
    desk = Desk(plan("l/d", signal("v", n_elements=3), signal("a")))
    out = desk.file((0, [NOW, NOW], "DateTime", 1), (1, 4, "Int64", 1))
    (batch,) = out.batches
    assert batch.values.reshape(-1).tolist() == [NOW_NS, NOW_NS, 4]
    out = desk.file((0, [1, 2, 3, 4], "Int64", 2))
    assert out.batches[0].values.reshape(-1).tolist() == [1, 2, 3]
    assert (out.rejects[0].n_samples, out.rejects[0].code) == (1, RejectCode.WRONG_TYPE)
    assert desk.file((0, [], "Int64", 3)).batches == []


def test_a_sensor_of_another_group_is_refused_and_the_others_are_learned():
    directory = SensorDirectory()
    desk = Desk(plan("l/d", signal("a"), signal("b")), directory=directory)
    directory.define("l/d", Layout("f64", (Column("a"),)), "another")
    out = desk.file((0, 1.0, "Double", 1), (1, 2.0, "Double", 1))
    assert [b.values.tolist() for b in out.batches] == [[[2.0]]]
    assert [r.code for r in out.rejects] == [RejectCode.BAD_PATH]
    assert "is defined twice" in desk.tags.problem[0]


def test_types_are_kept_over_runs_and_declared_ones_must_agree():
    directory = SensorDirectory()
    signals = signal("a", kind="discrete", unit="x"), signal("on"), signal("s"), signal("old")
    desk = Desk(plan("l/d", *signals), directory=directory)
    desk.file((0, 1, "Int16", 1), (1, True, "Boolean", 1), (2, "x", "String", 1), (3, 1, "Int16", 1))
    again = Desk(plan("l/d", *signals[:3], signal("new", dtype="bool")), directory=directory)
    assert again.tags.part.tolist()[:3] == desk.tags.part.tolist()[:3]
    columns = {c.name: c for s in range(directory.n_slots) for c in directory.layout(s).columns}
    assert columns["on"].labels == columns["new"].labels == ("false", "true")
    assert (columns["s"].kind.name, columns["a"].unit) == ("DISCRETE", "x")
    assert directory.layout(directory.slot("l/d", "i16")).columns[1].name == "old"
    with pytest.raises(ConfigError, match="l/d/a is i16 since it was first seen, types.a says f64"):
        Desk(plan("l/d", signal("a", dtype="f64")), directory=directory)


def test_a_layout_grows_and_its_other_sensors_follow():
    desk = Desk(plan("l/d", signal("a"), signal("b")))
    desk.file((1, 1.0, "Double", 1))
    desk.file((0, 2.0, "Double", 2))
    out = desk.file((0, 3.0, "Double", 3), (1, 4.0, "Double", 3))
    (batch,) = out.batches
    names = [c.name for c in desk.directory.layout(int(batch.slot[0])).columns]
    assert dict(zip(names, batch.values[0].tolist(), strict=True)) == {"a": 3.0, "b": 4.0}


def test_newer_values_are_told_from_those_that_were_filed():
    desk = Desk(plan("l/d", signal("a"), signal("b"), signal("c")))
    desk.file((0, 1.0, "Double", 1), (1, 1.0, "Double", 1))
    answer = from_data_values(
        [ua.DataValue(ua.Variant(2.0), None, NOW + timedelta(seconds=s)) for s in (2, 1, 2)]
    )
    assert desk.filing.newer(answer) == {0}


def test_joined_answers_keep_their_bytes():
    one, two = (from_data_values([ua.DataValue(ua.Variant(text))]) for text in ("one", "two"))
    both = joined([one, two])
    assert [both.raw(0), both.raw(1)] == [one.raw(0), two.raw(0)]
    assert joined([one]) is one
    assert both.columns.source_ns.tolist() == [NO_TIME] * 2
