"""The HTTP adapter: remote write and OTLP, what is refused of them, and what is taken in again."""

from dataclasses import replace

import pytest
from tests.unit.adapters.http.test_adapter import make, pushed
from tests.unit.adapters.http.test_redecode import again, refused
from tests.unit.adapters.payloads.test_metric_decoder import (
    SYMBOLS,
    double,
    integer,
    points,
    series,
    two,
)
from tests.unit.adapters.payloads.test_otlp_json import request

from headrace.core.errors import ConfigError, Rejected
from headrace.core.sensors import SensorDirectory

PROTOBUF, JSON = "application/x-protobuf", "application/json"
WRITE_2 = f"{PROTOBUF};proto=io.prometheus.write.v2.Request"
PATH = "{host}/{measurement}/{field}"
OTLP = {"form": "otlp"}


def asked(body, kind, parameters):
    return pushed(body, kind, **parameters)


@pytest.mark.parametrize(
    ("body", "kind", "parameters"),
    [
        (series(), PROTOBUF, {}), (series(), f"{PROTOBUF};proto=prometheus.WriteRequest", {}), (two(SYMBOLS, [1, 2, 3, 4]), WRITE_2, {}),
        (points(double()), PROTOBUF, OTLP), (request(asDouble=1.5), f"{JSON}; charset=utf-8", OTLP),
    ],
)  # fmt: skip
async def test_every_form_is_taken(running, sink, body, kind, parameters):
    await running.receive(asked(body, kind, parameters))
    assert [value for batch in sink.batches for value in batch.values.reshape(-1).tolist()] == [1.5]


@pytest.mark.parametrize(
    ("body", "kind", "parameters", "says"),
    [
        (points(double()), "text/plain", OTLP, "content type 'text/plain' is not OTLP"), (b"{", JSON, OTLP, "not JSON"),
        (b"\x0a\x7f", PROTOBUF, {}, "not a message of this form: its metadata"), (b"\x0a\x7f", PROTOBUF, OTLP, "its resources can't be told apart"),
    ],
)  # fmt: skip
async def test_what_is_no_such_message_is_refused_as_a_whole(running, sink, body, kind, parameters, says):
    with pytest.raises(Rejected, match=says):
        await running.receive(asked(body, kind, parameters))
    assert [(reject.source, reject.code) for reject in sink.rejects] == [("request", "malformed")]


@pytest.mark.parametrize(
    ("body", "kind", "parameters", "source"),
    [
        (series() + series(name="n"), PROTOBUF, {}, "series of remote write"),
        (two((*SYMBOLS, b"n"), [1, 2, 3, 4]) + two((), [1, 6, 3, 4]), WRITE_2, {}, "series of remote write"),
        (points(double()) + points(double(), name=b"n"), PROTOBUF, OTLP, "points of OTLP"),
    ],
)  # fmt: skip
async def test_what_was_refused_is_taken_in_again(body, kind, parameters, source):
    """By an adapter that takes more fields of a device, and by one that takes no more."""
    shape = {"path": PATH, "metrics": "{host}/{field}"}
    (reject,) = await refused(body, kind, config={"metrics": "{host}/{field}"}, **parameters)
    assert (reject.source, reject.code, reject.n_samples) == (source, "unknown-tag", 1)
    rows, left = again([reject], make(**shape))
    assert ([(path, value) for path, _, _, value in rows], left) == ([("h/n", 1.5)], [])
    rows, (left,) = again([reject], make(**shape, max_fields=1, max_devices=1, types={"n": "bool"}))
    assert (rows, left.source, left.n_samples) == ([], source, 1)
    rows, (left,) = again([replace(reject, raw=b"\x0a\x7f")], make(**shape))
    assert (rows, left.source, left.code) == ([], source, "malformed")


async def test_a_float_that_was_refused_is_kept_whole():
    (reject,) = await refused(
        points(integer(2**60 + 1)), PROTOBUF, config={"metrics": PATH, "types": {"value": "f64"}}, **OTLP
    )
    ((path, dtype, ts_ns, value),), left = again([reject], make(path=PATH, metrics=PATH))
    assert (path, dtype, ts_ns, value, left) == ("h/m/value", "i64", 7, 2**60 + 1, [])


async def test_paths_of_metrics_that_can_be_none():
    with pytest.raises(ConfigError) as e:
        make(metrics="a/{")
    assert e.value.where == "adapters.push.metrics"


async def test_a_body_that_was_captured_is_read_as_what_it_was(sink):
    """That it is OTLP only a parameter says."""
    adapter, heard = make(metrics="{host}/{field}", path=PATH), []
    await adapter.start(sink)
    adapter.listen(heard.append)
    await adapter.receive(asked(points(double()), PROTOBUF, OTLP))
    await adapter.stop()
    batches, rejects = adapter.decode_captured(heard, SensorDirectory())
    assert ([batch.n_samples for batch in batches], rejects) == ([1], [])
