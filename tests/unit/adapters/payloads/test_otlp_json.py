"""OTLP in JSON: what is no such message is told with its place."""

import json

import pytest
from tests.unit.adapters.payloads.metrics import OTLP, Metrics

from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.otlp_json import wire_of_json


def request(**point):
    """A document with one data point."""
    metric = {"name": "m", "gauge": {"dataPoints": [point]}}
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()


def nested(depth):
    value = {"intValue": 1}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"{", "not JSON"), (b"[" * 100_000, "not JSON"), (b"[1]", "$: expected an object at most 24 deep, got [1]"),
        (b'{"resourceMetrics": 1}', "$.resourceMetrics: expected a list, got 1"), (b'{"resourceMetrics": [1]}', "$.resourceMetrics[0]: expected an object"),
        (request(timeUnixNano=1.5), "expected a value of type fixed64, got 1.5"), (request(timeUnixNano=True), "type fixed64, got True"),
        (request(timeUnixNano=[]), "type fixed64, got []"), (request(timeUnixNano=str(2**64)), "type fixed64"), (request(asDouble=True), "type double, got True"),
        (request(asDouble="x"), "type double, got 'x'"), (request(asDouble=[]), "type double, got []"), (request(flags=2**63), "type int64"),
        (request(attributes=[{"key": 1}]), "attributes[0].key: expected a value of type string, got 1"),
        (request(attributes=[{"key": "a", "value": {"boolValue": 1}}]), "type bool, got 1"),
        (request(attributes=[{"key": "a", "value": {"bytesValue": "?"}}]), "type bytes, got '?'"),
        (request(attributes=[{"key": "a", "value": nested(20)}]), "an object at most 24 deep"),
    ],
)  # fmt: skip
def test_what_is_no_request(document, says):
    with pytest.raises(PayloadError) as e:
        wire_of_json(document)
    assert (e.value.code, says in e.value.detail) == ("malformed", True), e.value.detail


def test_values_as_json_writes_them():
    attributes = [
        {"key": "b", "value": {"bytesValue": "AQI="}},
        {"key": "n", "value": {"int_value": "7"}},
        {"key": "t", "value": {"boolValue": True}},
    ]
    document = {
        "resource_metrics": [{"scope_metrics": [{"metrics": [
            {"name": "a", "sum": {"dataPoints": [{"asDouble": "-Infinity", "timeUnixNano": 7.0, "attributes": attributes, "startTimeUnixNano": None}],
                                  "aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA", "isMonotonic": True}},
            {"name": "b", "gauge": {"dataPoints": [{"asInt": "-3", "timeUnixNano": "9"}]}, "metadata": [{}]},
        ]}]}],
    }  # fmt: skip
    rows, rejects = Metrics().decode(wire_of_json(json.dumps(document).encode()), OTLP)
    assert [(path, ts, value) for path, ts, value, _ in rows] == [
        ("unknown/a;b=0102;n=7;t=true/value", 7, float("-inf")), ("unknown/b/value", 9, -3),
    ]  # fmt: skip
    assert not rejects
