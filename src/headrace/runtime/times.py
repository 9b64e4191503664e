"""Times as they are written: RFC 3339 with nanoseconds in JSON, plant time for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from headrace.core.clock import NO_TIME, NS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(ts_ns: int) -> str | None:
    """A time as RFC 3339 in UTC with nanoseconds, the form of all JSON; None for `NO_TIME`.

    Examples
    --------
    >>> rfc3339(1_500_000_000)
    '1970-01-01T00:00:01.500000000Z'
    """
    if ts_ns == NO_TIME:
        return None
    seconds, rest_ns = divmod(ts_ns, NS)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"


def local_time(ts_ns: int, zone: tzinfo) -> str:
    """A time for people, to the millisecond, in `zone`.

    Examples
    --------
    >>> from zoneinfo import ZoneInfo
    >>> local_time(1_500_000_000, ZoneInfo("Europe/Madrid"))
    '1970-01-01 01:00:01.500'
    """
    if ts_ns == NO_TIME:
        return "never"
    moment = (_EPOCH + timedelta(seconds=ts_ns // NS)).astimezone(zone)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ts_ns % NS // 1_000_000:03d}"
