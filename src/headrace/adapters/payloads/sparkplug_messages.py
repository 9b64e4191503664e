"""Sparkplug B payloads in messages of any kind, as a payload of topic rules (``values = "sparkplug"``).

For nodes whose messages come by another way than a Sparkplug broker: names and types are those of the births among the
messages, which give an alias its meaning for the device that the rule's path names. There are no sessions: deaths, gaps
and missing births are not noticed, and units are the rule's. Where the broker is at hand the adapter does more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from headrace.adapters.payloads.base import PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroup
from headrace.adapters.payloads.rows import Rows
from headrace.adapters.payloads.sparkplug import (
    BDSEQ,
    CONTROL,
    DTYPE_OF,
    TEMPLATE,
    SparkplugMetric,
    not_taken,
    quality_of,
    read_payload,
    value_of,
)
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode
from headrace.core.quality import Quality

N_NAMES_MAX = 65_535
_MS = 1_000_000
_Named = tuple[str, SparkplugMetric, int | None]


class SparkplugDecoder:
    """The decoder of Sparkplug payloads. Cost: about 8 us a metric."""

    has_keys: ClassVar[bool] = True

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None:
        if settings.time is not None:
            raise ConfigError('a Sparkplug payload has its times where they belong; remove "time"')
        self._settings = settings
        self._names: dict[str, dict[int, str]] = {}
        self._types: dict[str, dict[str, int]] = {}

    def read(self, message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Add a row for each time that metrics have."""
        payload = read_payload(message.payload)
        by_time: dict[int, dict[str, Any]] = {}
        for name, metric, time_ms in self._named(group.path, payload.metrics, payload.time_ms):
            if name == BDSEQ or name.startswith(CONTROL):
                continue
            key = name.replace("/", ".")
            try:
                value, ts_ns = self._value(group.path, name, metric), _time(time_ms)
                row = by_time.setdefault(ts_ns, {})
                if key in row:
                    raise PayloadError(RejectCode.MALFORMED, "it is there twice with one time")
                row[key] = value
            except PayloadError as e:
                rows.refuse(message, e.code, f"metric {name!r:.60}: {e.detail}")
        for ts_ns, row in by_time.items():
            rows.add(message, group, ts_ns, (tuple(row), tuple(row.values())), self._settings)

    def _named(
        self, path: str, metrics: tuple[SparkplugMetric, ...], time_ms: int | None, prefix: str = ""
    ) -> Iterator[_Named]:
        """Metrics with their names; members of templates as ``template.member``."""
        names = self._names.setdefault(path, {})
        for metric in metrics:
            name = metric.name
            if prefix:
                name = f"{prefix}{name or ''}"
            elif name is None:
                name = names.get(metric.alias or 0, "")
            elif metric.alias is not None and len(names) < N_NAMES_MAX:
                names[metric.alias] = name
            own_ms = time_ms if metric.time_ms is None else metric.time_ms
            if metric.field != TEMPLATE:
                yield name, metric, own_ms
            elif not metric.value.is_definition:
                yield from self._named(path, metric.value.metrics, own_ms, f"{name}.")

    def _value(self, path: str, name: str, metric: SparkplugMetric) -> float | bool | str | None:
        """A metric's value; None for null. Raises PayloadError."""
        types = self._types.setdefault(path, {})
        datatype = types.get(name) if metric.datatype is None else metric.datatype
        if not name or datatype is None:
            what = f"alias {metric.alias}" if not name else "it"
            raise PayloadError(RejectCode.UNKNOWN_TAG, f"{what} is not known: no birth has named it yet")
        if metric.datatype is not None and len(types) < N_NAMES_MAX:
            types[name] = datatype
        if datatype not in DTYPE_OF:
            raise PayloadError(RejectCode.WRONG_TYPE, not_taken(datatype))
        if metric.is_null:
            return None
        if quality_of(metric.quality) is not Quality.GOOD:
            detail = f"its quality is {metric.quality}; the sparkplug adapter stores such values, topic rules do not"
            raise PayloadError(RejectCode.DEVICE_ERROR, detail)
        return value_of(metric, datatype)


def _time(time_ms: int | None) -> int:
    if time_ms is None:
        return NO_TIME
    if time_ms * _MS >= -NO_TIME:
        raise PayloadError(RejectCode.BAD_TIME, f"{time_ms} ms is after the year 2262")
    return time_ms * _MS
