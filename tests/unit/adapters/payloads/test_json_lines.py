"""JSON documents that name their sensors."""

import json

import pytest
from tests.unit.adapters.payloads.lines import rows_of

from headrace.adapters.payloads.base import RuleSettings
from headrace.adapters.payloads.json_lines import DOCUMENT_BYTES_MAX, JsonLinesDecoder
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.rows import N_REJECTS_MAX
from headrace.adapters.payloads.times import TimeReader
from headrace.core.sensors import SensorDirectory

NS = 10**9


def make(directory, levels=(), **settings):
    rule = RuleSettings(path="{device}/{key}", **settings)
    return JsonLinesDecoder("push", DeviceGroups(directory), levels, rule)


def decode(*documents, levels=(), **settings):
    directory = SensorDirectory()
    decoder = make(directory, levels, **settings)
    raw = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents]
    batches, rejects = decoder.decode(raw, TimeReader(), 7)
    return rows_of(directory, batches), rejects


def test_samples_and_instants_of_devices():
    rows, rejects = decode(
        {"path": "a/d/t", "ts": 1.5, "value": 20.5}, {"device": "a/d", "ts": "1970-01-01T00:00:02Z", "t": 21, "on": True},
        b" ", b"", {"device": "a/e", "x": {"y": 3}}, [{"path": "a/d/t", "value": 1}, {"path": "a/d/s", "value": "run"}],
    )  # fmt: skip
    assert not rejects
    assert sorted(rows) == [
        ("a/d/on", "u8", 2 * NS, 1), ("a/d/s", "u32", 13, "run"), ("a/d/t", "f64", 12, 1.0),
        ("a/d/t", "f64", 1_500_000_000, 20.5), ("a/d/t", "f64", 2 * NS, 21.0), ("a/e/x.y", "f64", 11, 3.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "code", "n_samples", "text"),
    [
        (b"{", "malformed", 1, "not JSON"), (b"\xff", "malformed", 1, "not JSON"), ([1], "malformed", 1, "expected an object"),
        (b"[" * 100_000, "malformed", 1, "not JSON"), ({"path": "a/b"}, "malformed", 1, "got members path"),
        ({"path": "a/b", "ts": 1, "value": 2, "unit": "K"}, "malformed", 2, "got members path, ts, value, unit"),
        ({"path": 3, "value": 2}, "malformed", 1, "got members"), ({"device": 3, "t": 2, "u": 3}, "malformed", 2, "got members"),
        ({"path": "a/b", "ts": [], "value": 2}, "bad-time", 1, "is not a time"), ({"path": "a", "value": 2}, "bad-path", 1, "can't name"),
        ({"path": "a/", "value": 2}, "bad-path", 1, "empty level"), ({"device": "a//b", "t": 2}, "bad-path", 1, "can't name"),
        ({"path": "a/b", "value": [1]}, "wrong-type", 1, "a list"), ({"device": "a/b"}, "malformed", 1, "an object of 0 values"),
        (b"[%s]" % (b" " * DOCUMENT_BYTES_MAX), "too-large", 1, "expected at most 1,000,000"),
    ],
)  # fmt: skip
def test_what_can_not_be_taken_is_refused(document, code, n_samples, text):
    rows, (reject,) = decode({"device": "x/y", "t": 1}, document)
    assert [path for path, *_ in rows] == ["x/y/t"]
    assert (reject.code, reject.n_samples, reject.source, reject.adapter) == (
        code,
        n_samples,
        "line 2",
        "push",
    )
    assert text in reject.detail


def test_paths_have_the_plants_levels():
    rows, rejects = decode(
        {"device": "a/b", "t": 1}, {"device": "a/b/c", "t": 1, "u": 1}, {"path": "a/t", "value": 1},
        {"path": "a/b/t", "value": 1}, levels=("site", "device", "signal"),
    )  # fmt: skip
    assert [path for path, *_ in rows] == ["a/b/t"] * 2
    assert [(r.code, r.source, r.n_samples) for r in rejects] == [
        ("bad-path", "line 2", 2),
        ("bad-path", "line 3", 1),
    ]


def test_all_values_of_a_device_that_is_one_too_many_are_counted():
    directory = SensorDirectory()
    groups, settings = DeviceGroups(directory, 1), RuleSettings(path="{device}/{key}")
    decoder = JsonLinesDecoder("push", groups, (), settings)
    documents = [b'{"device": "a/b", "t": 1}', b'{"device": "a/c", "ts": 2, "t": 1, "u": 2, "v": 3}']
    _, (reject,) = decoder.decode(documents, TimeReader(), 7)
    assert (reject.code, reject.n_samples, reject.detail) == ("unknown-topic", 3, "more than 1 devices")


def test_a_message_of_mistakes_costs_few_rejects():
    """Half a million mistakes in a megabyte would keep 4 KiB of it each."""
    document = b"[" + b",".join([b'1,{"device":"a/b"}'] * 5_000) + b"]"
    rows, rejects = decode(document)
    assert not rows
    assert len(rejects) == N_REJECTS_MAX
    assert sum(r.n_samples for r in rejects) == 10_000


def test_a_late_mistake_of_another_kind_has_its_own_reject():
    _, rejects = decode(b"[" + b"1," * 50 + b'{"path":"a/","value":1}]')
    assert [r.code for r in rejects] == ["malformed"] * N_REJECTS_MAX + ["bad-path"]
    assert sum(r.n_samples for r in rejects) == 51


def test_a_document_is_not_read_on_behind_a_thousand_mistakes():
    rows, rejects = decode(b"[" + b"1," * 1_500 + b'{"device":"a/b","v":1}]')
    assert not rows
    assert sum(r.n_samples for r in rejects) == 1_501
    assert (
        "more than 1,000 mistakes; what follows was not read" in rejects[-1].detail
        or len(rejects) == N_REJECTS_MAX
    )


def test_a_document_of_the_past_has_the_times_it_had():
    """Its good values have been taken: they must be recognised, also where the device has sent more since."""
    directory = SensorDirectory()
    decoder = make(directory)
    bad = b'[{"device": "a/b", "t": 2, "u": [1]}, {"path": "a/b/t", "value": 3}]'
    good = b'{"device": "a/b", "t": 1}'
    batches, (reject,) = decoder.decode([good, bad], TimeReader(), 7)
    rows = rows_of(directory, batches)
    assert rows == [("a/b/t", "f64", 7, 1.0), ("a/b/t", "f64", 8, 2.0), ("a/b/t", "f64", 9, 3.0)]
    decoder.decode([good], TimeReader(), 50)
    for _ in range(2):
        batches, (still,) = decoder.again(reject.raw, TimeReader(), reject.arrival_ns)
        assert rows_of(directory, batches) == rows[1:]
        assert still.code == reject.code
    batches, _ = decoder.decode([good], TimeReader(), 50)
    assert rows_of(directory, batches) == [("a/b/t", "f64", 51, 1.0)]


def test_a_device_has_its_newest_time_back_also_where_a_decoder_fails(monkeypatch):
    directory = SensorDirectory()
    decoder = make(directory)
    good = b'{"device": "a/b", "t": 1}'
    decoder.decode([good], TimeReader(), 50)
    with monkeypatch.context() as patch:
        patch.setattr("headrace.adapters.payloads.json_lines.FieldsDecoder.add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decoder.again(good, TimeReader(), 7)
    batches, _ = decoder.decode([good], TimeReader(), 50)
    assert rows_of(directory, batches) == [("a/b/t", "f64", 51, 1.0)]
