"""Payloads of Sparkplug B from values: what is asked of a node, and what simulated nodes say."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from headrace.adapters.payloads import sparkplug as format_of
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.wire import FIXED32, FIXED64, varint, whole, wrap

_QUALITY_TYPE = DataType.INT32


class SparkplugValue(NamedTuple):
    """One metric to be written; what is None is left out.

    Parameters
    ----------
    value : None is null. names_type : whether the data type is written, as births do.
    """

    value: float | bool | str | None
    datatype: int
    name: str | None = None
    alias: int | None = None
    time_ms: int | None = None
    names_type: bool = True
    is_historical: bool = False
    is_transient: bool = False
    quality: int | None = None
    unit: str | None = None


def write_payload(time_ms: int | None, seq: int | None, values: Sequence[SparkplugValue]) -> bytes:
    """A payload of metrics; a sequence number None is that of deaths, which have none."""
    out = b"" if time_ms is None else whole(format_of.TIME, time_ms)
    out += b"".join([wrap(format_of.METRICS, _metric(value)) for value in values])
    return out if seq is None else out + whole(format_of.SEQ, seq)


def _metric(one: SparkplugValue) -> bytes:
    out = b"" if one.name is None else wrap(format_of.NAME, one.name.encode())
    for number, value in ((format_of.ALIAS, one.alias), (format_of.METRIC_TIME, one.time_ms)):
        out += b"" if value is None else whole(number, value)
    if one.names_type:
        out += whole(format_of.DATATYPE, one.datatype)
    for number, is_so in (
        (format_of.HISTORICAL, one.is_historical), (format_of.TRANSIENT, one.is_transient),
        (format_of.NULL, one.value is None),
    ):  # fmt: skip
        out += whole(number, 1) if is_so else b""
    properties = _properties(one)
    out += wrap(format_of.PROPERTIES, properties) if properties else b""
    return out if one.value is None else out + _value(one.value, one.datatype)


def _value(value: float | bool | str, datatype: int) -> bytes:
    if isinstance(value, str):
        return wrap(format_of.TEXT, value.encode())
    if datatype == DataType.BOOLEAN:
        return whole(format_of.TRUTH, int(value))
    if datatype == DataType.FLOAT:
        return varint(format_of.FLOAT << 3 | FIXED32) + struct.pack("<f", value)
    if datatype == DataType.DOUBLE:
        return varint(format_of.DOUBLE << 3 | FIXED64) + struct.pack("<d", value)
    if datatype in (DataType.INT64, DataType.UINT64, DataType.DATETIME):
        return whole(format_of.LONG, int(value))
    return whole(format_of.INT, int(value) & (2**32 - 1))


def _properties(one: SparkplugValue) -> bytes:
    keys = values = b""
    if one.quality is not None:
        keys += wrap(1, b"Quality")
        values += wrap(2, whole(1, _QUALITY_TYPE) + whole(3, one.quality))
    if one.unit is not None:
        keys += wrap(1, b"engUnit")
        values += wrap(2, whole(1, DataType.STRING) + wrap(8, one.unit.encode()))
    return keys + values
