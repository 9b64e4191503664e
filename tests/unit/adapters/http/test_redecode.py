"""The HTTP adapter: what was refused is decoded again, by another configuration."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.adapters.http.test_adapter import LINE, NDJSON, make, pushed
from tests.unit.adapters.payloads.lines import BODIES, rows_of

from headrace.adapters.abilities import Redecodes
from headrace.core.errors import PluginError, Rejected
from headrace.core.events import Reject, RejectCode
from headrace.core.sensors import SensorDirectory
from headrace.ingest.rejects import decode_rejects, encode_rejects
from headrace.testing.adapters import RecordingSink

T = 1_700_000_000_000_000_000
JSON = "application/json"


async def refused(body, kind="", max_fields=1, config=None, **parameters):
    """Rejects of a body, as the journal gives them back, by an adapter that takes a field of each device."""
    sink, adapter = (
        RecordingSink(),
        make(**{"path": "{host}/{measurement}/{field}", "max_fields": max_fields, **(config or {})}),
    )
    await adapter.start(sink)
    with pytest.raises(Rejected):
        await adapter.receive(pushed(body, kind, **parameters))
    await adapter.stop()
    return decode_rejects(encode_rejects(sink.rejects))


def again(rejects, adapter=None, directory=None):
    """(rows, what is still refused) of rejects, by an adapter that takes more."""
    adapter = make(path="{host}/{measurement}/{field}") if adapter is None else adapter
    directory = SensorDirectory() if directory is None else directory
    rows, left = [], []
    for reject in rejects:
        batches, still = adapter.redecode(reject, directory)
        rows += rows_of(directory, batches)
        left += still
    return rows, left


@pytest.mark.parametrize(
    ("precision", "factor"), [("", 1), ("n", 1), ("ns", 1), ("u", 10**3), ("ms", 10**6), ("s", 10**9), ("h", 3_600 * 10**9)]
)  # fmt: skip
async def test_lines_have_their_times_in_the_precision_of_their_request(precision, factor):
    (reject,) = await refused(b"m,host=h a=1,b=2,c=3 4\nm,host=h b=5\n", precision=precision)
    assert (reject.code, reject.n_samples, reject.source) == (
        "unknown-tag", 3, f"lines of line protocol, precision={precision or 'ns'}",
    )  # fmt: skip
    rows, left = again([reject])
    expected = [("h/m/b", 4 * factor, 2.0), ("h/m/b", 8, 5.0), ("h/m/c", 4 * factor, 3.0)]
    assert sorted((path, ts, value) for path, _, ts, value in rows) == sorted(expected)
    assert left == []


@pytest.mark.parametrize(
    ("kind", "precision", "ts"),
    [
        (NDJSON, "", 1_700_000_000_000),
        (NDJSON, "s", 1_700_000_000),
        (JSON, "n", T),
        (JSON, "ms", 1_700_000_000_000),
    ],
)
async def test_documents_have_their_times_in_the_precision_of_their_request(kind, precision, ts):
    body = b'{"device": "d/m", "a": 1, "b": 2, "ts": %d}' % ts
    (reject,) = await refused(body, kind, precision=precision)
    assert (reject.code, reject.raw) == ("unknown-tag", body)
    unit = {"": "auto", "n": "ns"}.get(precision, precision)
    assert reject.source == f"line 1 of JSON, precision={unit}"
    assert again([reject]) == ([("d/m/a", "f64", T, 1.0), ("d/m/b", "f64", T, 2.0)], [])


async def test_texts_of_time_without_an_offset_are_plant_time():
    (reject,) = await refused(b'{"device": "d/m", "a": 1, "b": 2, "ts": "2026-06-01T12:00:00"}', NDJSON)
    assert {ts for _, _, ts, _ in again([reject])[0]} == {1_780_308_000 * 10**9}


async def test_documents_without_a_time_keep_their_order():
    body = b'{"device": "d/m", "b": 1}\n\n' + b'{"device": "d/m", "a": 1}\n' * 3
    rejects = await refused(body, NDJSON)
    assert [(r.source[:6], r.arrival_ns) for r in rejects] == [("line 3", 9), ("line 4", 10), ("line 5", 11)]
    assert again(rejects)[0] == [("d/m/a", "f64", ts, 1.0) for ts in (9, 10, 11)]


async def test_a_running_adapter_goes_on_with_what_it_learned_meanwhile():
    rejects = await refused(b"m,host=h z=1\nm,host=h b=2\n") + await refused(
        b'{"device": "h/m", "z": 1}\n{"device": "h/m", "c": 3}\n', NDJSON
    )
    sink, adapter = RecordingSink(), make(path="{host}/{measurement}/{field}")
    await adapter.start(sink)
    assert isinstance(adapter, Redecodes)
    json = b'{"device": "h/m", "a": 1}'
    await adapter.receive(replace(pushed(json, NDJSON), arrival_ns=50))
    rows, left = again(rejects, adapter, sink.directory)
    assert (rows, left) == ([("h/m/b", "f64", 8, 2.0), ("h/m/c", "f64", 8, 3.0)], [])
    await adapter.receive(replace(pushed(json, NDJSON), arrival_ns=50))
    await adapter.receive(pushed(b"m,host=h b=4,c=5,d=6 9"))
    assert rows_of(sink.directory, sink.batches)[1:] == [
        ("h/m/a", "f64", 51, 1.0), ("h/m/b", "f64", 9, 4.0), ("h/m/c", "f64", 9, 5.0), ("h/m/d", "f64", 9, 6.0),
    ]  # fmt: skip
    await adapter.stop()


async def test_what_is_no_better_is_still_refused():
    lines = await refused(b"m v=x 1\nm,host=h a=1,b=t 2\n")
    rows, left = again(lines, make(path="{host}/{measurement}/{field}", max_fields=1, types={"b": "i64"}))
    assert [(r.code, r.n_samples) for r in left] == [("malformed", 1), ("wrong-type", 1)]
    (document,) = await refused(b"{", NDJSON)
    rows, (left,) = again([document])
    assert (rows, left.code, left.detail[:8]) == ([], "malformed", "not JSON")


async def test_what_was_cut_is_not_decoded():
    (reject,) = await refused(b"m a=1,b=" + b"9" * 2_000_000, "")
    rows, (left,) = again([reject])
    assert (rows, left.code) == ([], reject.code)
    assert left.detail == (
        "only the first 1,048,576 bytes of it were kept; mend what was wrong with it and let its client send it again"
    )


async def test_large_documents_are_kept_whole():
    body = b'[{"device": "d/m", "a": 1, "b": 2}%s]' % (b" " * 900_000)
    (reject,) = await refused(body, JSON)
    assert reject.raw == body
    rows, left = again([reject])
    assert rows or left
    assert not any("bytes of it were kept" in one.detail for one in left)


async def test_whole_requests_are_not_decoded(monkeypatch):
    rejects = await refused(LINE, "image/png") + await refused(b"m v=1", precision="day")

    async def refuse(*_):
        raise PluginError("they do not fit")

    monkeypatch.setattr(RecordingSink, "emit", refuse)
    rejects += await refused(LINE)
    rows, left = again(rejects)
    assert (rows, [r.code for r in left]) == ([], ["malformed", "malformed", "internal"])
    assert {r.detail for r in left} == {
        "its request was refused as a whole, and no line or document of it was kept; mend what was wrong with it and "
        "let its client send it again"
    }


@pytest.mark.parametrize(
    "source",
    [
        "lines",
        "line 7",
        "",
        "line 7 of JSON, precision=h",
        "lines of line protocol, precision=day",
        "x" * 500,
    ],
)
def test_rejects_of_earlier_versions_are_not_guessed_at(source):
    """Without its precision a time of milliseconds would become one of 1970."""
    reject = Reject(RejectCode.UNKNOWN_TAG, "push", source, "as it was", b"m,host=h a=1 1700000000000\n", 7)
    rows, (left,) = again(decode_rejects(encode_rejects([reject])))
    assert (rows, left.code) == ([], "unknown-tag")
    assert left.detail == (
        f"its source, {source!r:.80}, does not say how it is written; mend what was wrong with it and let its client "
        "send it again"
    )


@settings(max_examples=80)
@given(
    BODIES | st.binary(max_size=200),
    st.sampled_from(["lines of line protocol, precision=s", "line 2 of JSON, precision=ms"]),
)
def test_damaged_rejects_are_values(raw, source):
    """Whatever bytes are kept, they become batches or are refused."""
    again([Reject(RejectCode.MALFORMED, "push", source, "as it was", raw, 7)])
