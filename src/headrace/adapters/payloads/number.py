"""One value a message, as text: ``181.25``, ``-3``, ``1.5e3``, ``true``, ``nan``.

The topic names the sensor. Such a sensor is a group of its own. The time is the message's arrival.
"""

from __future__ import annotations

from typing import ClassVar

from headrace.adapters.payloads.base import PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import EXACT_MAX, DeviceGroup
from headrace.adapters.payloads.rows import Rows
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode

_WORDS = {"true": True, "false": False}
_BYTES_MAX = 64


class NumberDecoder:
    """The decoder of single values. Cost: about 1 us a message."""

    has_keys: ClassVar[bool] = False

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None:
        self._settings = settings
        if settings.time is not None:
            raise ConfigError('a message of one value has no time; remove time, or use values = "fields"')

    def read(self, message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Add one row of one value."""
        text = message.payload[: _BYTES_MAX + 1].decode("ascii", "replace").strip()
        value: float | None = _WORDS.get(text.lower())
        if value is None and len(message.payload) <= _BYTES_MAX:
            value = number(text)
        if value is None:
            raise PayloadError(RejectCode.MALFORMED, f"expected a number, true or false, got {text!r:.60}")
        rows.add(message, group, NO_TIME, (("",), (value,)), self._settings)


def number(text: str) -> float | None:
    """A number as it is written, whole ones that f64 can't hold as int; None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    if "_" in text:  # Python's own way to part digits
        return None
    if abs(value) >= EXACT_MAX and text.lstrip("+-").isdecimal():
        return int(text)
    return value
