"""Payloads of Sparkplug B (specification 3.0, chapter 6): the format, in plain Python.

A payload is a protobuf message: its time, a sequence number, and metrics. A metric has a name or the alias that its
node's birth gave it, a time, a data type, flags, properties, and one value. Unknown fields are skipped, the last of a
repeated field counts, and parts of a message that is there twice are put together, as protobuf says.

This is the reference: what `headrace.adapters.payloads.sparkplug_scanner` reads, it reads alike, and what that leaves
aside is read here.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from typing import Any, NamedTuple

from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.wire import DEPTH_MAX, FIXED32, FIXED64, LENGTH, VARINT, WireError, fields
from headrace.adapters.payloads.words import TEXT_MAX, is_word
from headrace.core.events import RejectCode
from headrace.core.quality import Quality


class DataType(IntEnum):
    """Data types of metrics, by their numbers."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATETIME_ARRAY = 34


DTYPE_OF: dict[int, str] = {
    DataType.INT8: "i8", DataType.INT16: "i16", DataType.INT32: "i32", DataType.INT64: "i64",
    DataType.UINT8: "u8", DataType.UINT16: "u16", DataType.UINT32: "i64", DataType.UINT64: "u64",
    DataType.FLOAT: "f32", DataType.DOUBLE: "f64", DataType.BOOLEAN: "u8", DataType.STRING: "u32",
    DataType.DATETIME: "i64", DataType.TEXT: "u32", DataType.UUID: "u32",
}  # fmt: skip
"""Value type of each data type that can be stored; u32 holds codes of texts, so unsigned 32 bits go to i64."""
RANGES: dict[int, tuple[int, int]] = {
    DataType.INT8: (-(2**7), 2**7 - 1), DataType.INT16: (-(2**15), 2**15 - 1), DataType.INT32: (-(2**31), 2**31 - 1),
    DataType.INT64: (-(2**63), 2**63 - 1), DataType.UINT8: (0, 2**8 - 1), DataType.UINT16: (0, 2**16 - 1),
    DataType.UINT32: (0, 2**32 - 1), DataType.UINT64: (0, 2**64 - 1), DataType.DATETIME: (-(2**63), 2**63 - 1),
}  # fmt: skip
CONTROL = ("Node Control/", "Device Control/")
"""What names of commands begin with; they and the number of a node's life are no sensors."""
BDSEQ = "bdSeq"
TEXTS = frozenset({DataType.STRING, DataType.TEXT, DataType.UUID})

# Numbers of the fields of the messages.
TIME, METRICS, SEQ, UUID = 1, 2, 3, 4
NAME, ALIAS, METRIC_TIME, DATATYPE, HISTORICAL, TRANSIENT, NULL, PROPERTIES = 1, 2, 3, 4, 5, 6, 7, 9
INT, LONG, FLOAT, DOUBLE, TRUTH, TEXT, BYTES, DATASET, TEMPLATE, EXTENSION = range(10, 20)
_MEMBERS, _DEFINITION = 2, 5
_KEYS, _VALUES = 1, 2
_PROPERTY_INT, _PROPERTY_LONG, _PROPERTY_TEXT = 3, 4, 8
UNITS = frozenset({"engunit", "engunits", "engineeringunit", "engineeringunits", "unit", "units"})
_STALE, _GOOD = 500, 192
_MASK_32 = 2**32 - 1
_SAID = {INT: "an integer", LONG: "an integer", FLOAT: "a float", DOUBLE: "a double", TRUTH: "true or false",
         TEXT: "a text", BYTES: "bytes", DATASET: "a data set", TEMPLATE: "a template", EXTENSION: "an extension"}  # fmt: skip


class SparkplugTemplate(NamedTuple):
    """A structured value: metrics of its own, or their definition without an instance."""

    metrics: tuple[SparkplugMetric, ...]
    is_definition: bool


class SparkplugMetric(NamedTuple):
    """One metric as it came.

    Parameters
    ----------
    name, alias, time_ms, datatype : None where not given. field : number of the value's field, 0 for none.
    value : as on the wire: unsigned integers, a float, a truth value, bytes of a text, a template.
    quality : what the property ``Quality`` says; unit : what one of `UNITS` says.
    start, end : where it lies in the payload.
    """

    name: str | None
    alias: int | None
    time_ms: int | None
    datatype: int | None
    is_historical: bool
    is_transient: bool
    is_null: bool
    field: int
    value: Any
    quality: int
    unit: str | None
    start: int
    end: int


class SparkplugPayload(NamedTuple):
    """A payload as it came; what it has not is None."""

    time_ms: int | None
    seq: int | None
    metrics: tuple[SparkplugMetric, ...]


# --- messages ----------------------------------------------------------------------------------------


def read_payload(data: bytes) -> SparkplugPayload:
    """All of a payload.

    Raises
    ------
    PayloadError : malformed; it is no such message.

    Cost: 4 to 5 us a metric.
    """
    try:
        return _payload(data)
    except WireError as e:
        raise PayloadError(RejectCode.MALFORMED, f"no Sparkplug B payload: {e}") from None


def _payload(data: bytes) -> SparkplugPayload:
    time_ms = seq = None
    metrics: list[SparkplugMetric] = []
    begin = 0
    for number, kind, bits, start, end in fields(data):
        if number == METRICS and kind == LENGTH:
            metrics.append(_metric(data, start, end, (begin, end), 0))
        elif number == TIME and kind == VARINT:
            time_ms = bits
        elif number == SEQ and kind == VARINT:
            seq = bits
        elif number == UUID and kind == LENGTH:
            _word_at(data, start, end, "its UUID")
        begin = end
    return SparkplugPayload(time_ms, seq, tuple(metrics))


def _metric(data: bytes, at: int, end: int, place: tuple[int, int], depth: int) -> SparkplugMetric:
    name: str | None = None
    numbers: list[int | None] = [None] * 8
    field = 0
    value: Any = None
    properties = b""
    for number, kind, bits, start, after in fields(data, at, end):
        if kind == VARINT and ALIAS <= number <= NULL:
            numbers[number] = bits
        elif kind == VARINT and number in (INT, LONG, TRUTH):
            field, value = number, _whole(number, bits)
        elif kind == LENGTH and number == NAME:
            name = _word_at(data, start, after, "a metric's name")
        elif kind == LENGTH and number == PROPERTIES:
            properties += data[start:after]
        elif kind == LENGTH and TEXT <= number <= EXTENSION:
            joined = value + data[start:after] if number == field == TEMPLATE else data[start:after]
            field, value = number, joined
        elif (kind, number) in ((FIXED32, FLOAT), (FIXED64, DOUBLE)):
            field, value = number, struct.unpack("<f" if kind == FIXED32 else "<d", data[start:after])[0]
    if field == TEMPLATE:
        value = _template(value, place[0], depth)
    quality, unit = _properties(properties)
    datatype = numbers[DATATYPE]
    return SparkplugMetric(
        name, numbers[ALIAS], numbers[METRIC_TIME], None if datatype is None else datatype & _MASK_32,
        bool(numbers[HISTORICAL]), bool(numbers[TRANSIENT]), bool(numbers[NULL]), field, value, quality, unit, *place,
    )  # fmt: skip


def _word_at(data: bytes, start: int, end: int, what: str) -> str:
    try:
        return data[start:end].decode()
    except UnicodeDecodeError:
        raise WireError(f"{what} is no UTF-8 at byte {start:,}") from None


def _whole(number: int, found: int) -> int | bool:
    if number == TRUTH:
        return bool(found)
    return found & _MASK_32 if number == INT else found


def _template(data: bytes, at_payload: int, depth: int) -> SparkplugTemplate:
    if depth == DEPTH_MAX:
        raise WireError(f"templates lie deeper than {DEPTH_MAX} at byte {at_payload:,}")
    metrics: list[SparkplugMetric] = []
    is_definition = False
    for number, kind, bits, start, end in fields(data):
        if number == _MEMBERS and kind == LENGTH:
            metrics.append(_metric(data, start, end, (at_payload, at_payload), depth + 1))
        elif number == _DEFINITION and kind == VARINT:
            is_definition = bool(bits)
    return SparkplugTemplate(tuple(metrics), is_definition)


def _properties(data: bytes) -> tuple[int, str | None]:
    """Quality and unit; the value of each key is the one of the same number."""
    keys: list[str] = []
    values: list[int | str | None] = []
    for number, kind, _, start, end in fields(data):
        if kind == LENGTH and number == _KEYS:
            keys.append(_word_at(data, start, end, "a property's name"))
        elif kind == LENGTH and number == _VALUES:
            values.append(_property(data, start, end))
    quality, unit = _GOOD, None
    for key, value in zip(keys, values, strict=False):
        if key == "Quality" and isinstance(value, int):
            quality = value
        elif isinstance(value, str) and _plain(key) in UNITS:
            unit = value
    return quality, unit


def _plain(key: str) -> str:
    return "".join(character for character in key.lower() if character.isalpha())


def _property(data: bytes, at: int, end: int) -> int | str | None:
    found: int | str | None = None
    for number, kind, bits, start, after in fields(data, at, end):
        if kind == VARINT and number in (_PROPERTY_INT, _PROPERTY_LONG):
            found = bits & _MASK_32 if number == _PROPERTY_INT else bits
        elif kind == LENGTH and number == _PROPERTY_TEXT:
            found = _word_at(data, start, after, "a property")
    return found


# --- values ------------------------------------------------------------------------------------------


def quality_of(code: int) -> Quality:
    """What a metric's quality is here: 192 is good, 500 stale, 0 bad; others go by OPC's classes."""
    if code == _STALE:
        return Quality.UNCERTAIN_STALE
    kind = code & 0xC0 if code < 256 else 0
    return Quality.GOOD if kind == 0xC0 else Quality.UNCERTAIN if kind == 0x40 else Quality.BAD


def value_of(metric: SparkplugMetric, datatype: int) -> float | bool | str:
    """The value of a metric by its data type.

    Raises
    ------
    PayloadError : wrong-type where the type is none that is taken, or the value is not of it; malformed for a metric
        without a value.
    """
    if datatype not in DTYPE_OF:
        raise PayloadError(RejectCode.WRONG_TYPE, not_taken(datatype))
    field, value = metric.field, metric.value
    if not field:
        raise PayloadError(RejectCode.MALFORMED, "it has no value and is not null")
    if datatype in RANGES and field in (INT, LONG):
        return _integer(value, field, datatype)
    if datatype == DataType.BOOLEAN and (field == TRUTH or (field in (INT, LONG) and value < 2)):
        return bool(value)
    if datatype in TEXTS and field == TEXT:
        return _text(value)
    if datatype == DataType.DOUBLE and field in (FLOAT, DOUBLE):
        return float(value)
    if datatype == DataType.FLOAT and (field == FLOAT or (field == DOUBLE and is_float(value))):
        return float(value)
    raise PayloadError(RejectCode.WRONG_TYPE, f"it has {_SAID[field]}, its type is {DataType(datatype).name}")


def not_taken(datatype: int) -> str:
    """Why values of a data type are not taken."""
    if datatype in list(DataType):
        return f"values of type {DataType(datatype).name} are not taken, only numbers, truth values, texts and times"
    return f"there is no data type {datatype}"


def _integer(value: int, field: int, datatype: int) -> int:
    """An integer; negative ones are written with the bits of their type, of 32 bits or of 64."""
    low, high = RANGES[datatype]
    if low < 0:
        width = 32 if field == INT else 64
        signed = value - (1 << width) if value >> (width - 1) else value
        if width == 32 and datatype in (DataType.INT64, DataType.DATETIME):
            signed = value
        elif high < value <= 2 * high + 1:
            signed = value - 2 * high - 2
        value = signed
    if not low <= value <= high:
        raise PayloadError(
            RejectCode.WRONG_TYPE, f"{value} is outside of its type, {DataType(datatype).name}"
        )
    return value


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise PayloadError(RejectCode.MALFORMED, "its text is no UTF-8") from None
    if not is_word(text):
        detail = f"a text longer than {TEXT_MAX:,} characters, or with a NUL in it"
        raise PayloadError(RejectCode.WRONG_TYPE, detail)
    return text


def is_float(value: float) -> bool:
    """Whether a float of 32 bits holds it exactly."""
    try:
        return not math.isfinite(value) or struct.unpack("<f", struct.pack("<f", value))[0] == value
    except OverflowError:
        return False
