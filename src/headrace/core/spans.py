"""Spans of time as users write them: ``--last 1h``, or ``--from ... --to ...``.

A time is ISO 8601: ``2026-03-01``, ``2026-03-01 06:00``, ``2026-03-01T06:00:00.5Z``, ``...+01:00``; up to nine
digits of a second. A time without an offset is plant time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from headrace.core.errors import ConfigError
from headrace.core.paths import parse_duration_ns

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d{2}:\d{2})?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `start_ns` (inside) to `end_ns` (outside), int64 ns UTC."""

    start_ns: int
    end_ns: int


def parse_time_ns(text: str, zone: tzinfo) -> int:
    """Nanoseconds since 1970 UTC of a time; `zone` is the plant's, for times without an offset.

    Of an hour that happens twice in the plant, the first is meant.

    Raises
    ------
    ConfigError : not a time.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"{text!r} is not a time; write 2026-03-01, 2026-03-01T06:00 or 2026-03-01T06:00:00Z"
        )
    day, clock, fraction, offset = match.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(offset or '').upper()}")
    except ValueError as e:
        raise ConfigError(f"{text!r} is not a time: {e}") from e
    if at.tzinfo is None:
        at = at.replace(tzinfo=zone)
    whole_s = (at - _EPOCH) // timedelta(seconds=1)
    ns = whole_s * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
    if not -(2**63) <= ns < 2**63:
        raise ConfigError(
            f"{text!r} is not a time that samples can have: these are from 1677-09-22 to 2262-04-11"
        )
    return ns


def parse_range(
    now_ns: int, zone: tzinfo, *, last: str | None = None, start: str | None = None, end: str | None = None
) -> TimeRange:
    """The span that ``--last``, ``--from`` and ``--to`` name; without ``--to`` it ends at `now_ns`.

    Raises
    ------
    ConfigError : neither or both of ``--last`` and ``--from``, or an empty span.
    """
    if (last is None) == (start is None):
        raise ConfigError("say which span: --last 1h, or --from 2026-03-01T06:00 with or without --to")
    end_ns = now_ns if end is None else parse_time_ns(end, zone)
    start_ns = end_ns - parse_duration_ns(last) if last is not None else parse_time_ns(str(start), zone)
    if start_ns >= end_ns:
        raise ConfigError(
            f"the span is empty: it starts at {start or last} and ends at {end or 'the present'}"
        )
    return TimeRange(start_ns, end_ns)
