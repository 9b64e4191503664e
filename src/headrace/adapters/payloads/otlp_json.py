"""OTLP as JSON → the same as a protobuf message, so that both are read alike.

Names are in lowerCamelCase or as in the schema; numbers of 64 bits may be texts; what is not known is ignored.

Source: the OTLP specification, "JSON Protobuf Encoding", and protobuf.dev, "ProtoJSON Format".
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.wire import varint, wrap
from headrace.core.events import RejectCode

DEPTH_MAX = 24
# Message → field → (number, what it holds): a kind of value or a message; * before what is repeated.
_POINT = {"startTimeUnixNano": (2, "fixed64"), "timeUnixNano": (3, "fixed64")}
_SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "Request": {"resourceMetrics": (1, "*ResourceMetrics")},
    "ResourceMetrics": {"resource": (1, "Resource"), "scopeMetrics": (2, "*ScopeMetrics")},
    "Resource": {"attributes": (1, "*KeyValue")},
    "ScopeMetrics": {"metrics": (2, "*Metric")},
    "Metric": {
        "name": (1, "string"), "description": (2, "string"), "unit": (3, "string"), "gauge": (5, "Numbers"),
        "sum": (7, "Numbers"), "histogram": (9, "Histograms"), "exponentialHistogram": (10, "Exponentials"),
        "summary": (11, "Summaries"),
    },
    "Numbers": {"dataPoints": (1, "*Number"), "aggregationTemporality": (2, "enum"), "isMonotonic": (3, "bool")},
    "Histograms": {"dataPoints": (1, "*Histogram"), "aggregationTemporality": (2, "enum")},
    "Exponentials": {"dataPoints": (1, "*Exponential")},
    "Summaries": {"dataPoints": (1, "*Summary")},
    "Number": {
        **_POINT, "asDouble": (4, "double"), "asInt": (6, "fixed64"), "attributes": (7, "*KeyValue"), "flags": (8, "int64"),
    },
    "Histogram": {
        **_POINT, "count": (4, "fixed64"), "sum": (5, "double"), "bucketCounts": (6, "*fixed64"),
        "explicitBounds": (7, "*double"), "attributes": (9, "*KeyValue"), "flags": (10, "int64"), "min": (11, "double"),
        "max": (12, "double"),
    },
    "Exponential": {**_POINT, "attributes": (1, "*KeyValue"), "count": (4, "fixed64")},
    "Summary": {
        **_POINT, "count": (4, "fixed64"), "sum": (5, "double"), "quantileValues": (6, "*Quantile"),
        "attributes": (7, "*KeyValue"), "flags": (8, "int64"),
    },
    "Quantile": {"quantile": (1, "double"), "value": (2, "double")},
    "KeyValue": {"key": (1, "string"), "value": (2, "AnyValue")},
    "AnyValue": {
        "stringValue": (1, "string"), "boolValue": (2, "bool"), "intValue": (3, "int64"), "doubleValue": (4, "double"),
        "arrayValue": (5, "Values"), "kvlistValue": (6, "KeyValues"), "bytesValue": (7, "bytes"),
    },
    "Values": {"values": (1, "*AnyValue")},
    "KeyValues": {"values": (1, "*KeyValue")},
}  # fmt: skip
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_decode = msgspec.json.Decoder().decode


def wire_of_json(document: bytes) -> bytes:
    """An ExportMetricsServiceRequest in JSON as its bytes in protobuf.

    Raises
    ------
    PayloadError : malformed; it is no JSON, or no such message.
    """
    try:
        return _message("Request", _decode(document), "$", 0)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise PayloadError(RejectCode.MALFORMED, f"not JSON: {e}") from None


def _message(kind: str, value: Any, where: str, depth: int) -> bytes:
    if type(value) is not dict or depth > DEPTH_MAX:
        raise _bad(where, f"an object at most {DEPTH_MAX} deep", value)
    schema, out = _SCHEMA[kind], []
    for name, item in value.items():
        number, held = schema.get(name) or schema.get(_camel(name), (0, ""))
        if not number or item is None:
            continue
        here = f"{where}.{name}"
        if not held.startswith("*"):
            out.append(_field(number, held, item, here, depth))
        elif type(item) is list:
            out += [_field(number, held[1:], one, f"{here}[{i}]", depth) for i, one in enumerate(item)]
        else:
            raise _bad(here, "a list", item)
    return b"".join(out)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _field(number: int, held: str, value: Any, where: str, depth: int) -> bytes:
    write = _WRITERS.get(held)
    if write is None:
        return wrap(number, _message(held, value, where, depth + 1))
    try:
        return write(number, value)
    except (TypeError, ValueError, struct.error, OverflowError):
        raise _bad(where, f"a value of type {held}", value) from None


def _integer(value: Any, low: int, high: int) -> int:
    if type(value) is float and not value.is_integer():
        raise ValueError
    if type(value) is bool or not isinstance(value, int | float | str):
        raise TypeError
    number = int(value)
    if not low <= number < high:
        raise ValueError
    return number


def _fixed64(number: int, value: Any) -> bytes:
    whole = _integer(value, -(2**63), 2**64) & (2**64 - 1)
    return varint(number << 3 | 1) + whole.to_bytes(8, "little")


def _double(number: int, value: Any) -> bytes:
    if type(value) is bool or not isinstance(value, int | float | str):
        raise TypeError
    real = _WORDS[value] if value in _WORDS else float(value)
    return varint(number << 3 | 1) + struct.pack("<d", real)


def _varint(number: int, value: Any) -> bytes:
    return varint(number << 3) + varint(_integer(value, -(2**63), 2**63))


def _bool(number: int, value: Any) -> bytes:
    if type(value) is not bool:
        raise TypeError
    return varint(number << 3) + varint(value)


def _enum(number: int, value: Any) -> bytes:
    return b"" if type(value) is str else _varint(number, value)  # its name: nothing here depends on it


def _string(number: int, value: Any) -> bytes:
    if type(value) is not str:
        raise TypeError
    return wrap(number, value.encode())


def _bytes(number: int, value: Any) -> bytes:
    return wrap(number, base64.b64decode(value, validate=True))


_WRITERS: dict[str, Callable[[int, Any], bytes]] = {
    "fixed64": _fixed64, "double": _double, "int64": _varint, "bool": _bool, "enum": _enum, "string": _string,
    "bytes": _bytes,
}  # fmt: skip


def _bad(where: str, expected: str, value: Any) -> PayloadError:
    return PayloadError(RejectCode.MALFORMED, f"{where:.120}: expected {expected}, got {value!r:.60}")
