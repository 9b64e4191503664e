"""Times written as text, in kernels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.kernels import lean_leaf

U8 = npt.NDArray[np.uint8]
_NS, _NO_SHIFT = 1_000_000_000, 1_000_000
_BLANK, _PLUS, _COMMA, _MINUS, _DOT, _ZERO, _COLON = 32, 43, 44, 45, 46, 48, 58
_T, _Z, _T_SMALL, _Z_SMALL = 84, 90, 116, 122
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


@lean_leaf
def _two(data: U8, at: int) -> int:
    """The number that two digits are; none where they are no digits."""
    tens, ones = np.int64(data[at]) - _ZERO, np.int64(data[at + 1]) - _ZERO
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1_000_000
    return int(tens * 10 + ones)


@lean_leaf
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 of a date (Hinnant, "chrono-compatible low-level date algorithms")."""
    year -= 1 if month <= 2 else 0
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@lean_leaf
def _shift(data: U8, at: int, end: int, is_zoned: bool) -> int:
    """Seconds that a Z, an offset, or nothing at all means; `_NO_SHIFT` where it is something else."""
    if not is_zoned:
        return 0 if at == end else _NO_SHIFT
    if at == end - 1 and (data[at] == _Z or data[at] == _Z_SMALL):
        return 0
    if at != end - 6 or (data[at] != _PLUS and data[at] != _MINUS) or data[at + 3] != _COLON:
        return _NO_SHIFT
    hours, minutes = _two(data, at + 1), _two(data, at + 4)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return _NO_SHIFT
    return (hours * 60 + minutes) * (60 if data[at] == _PLUS else -60)


@lean_leaf
def time_of_text(data: U8, at: int, end: int, is_zoned: bool) -> int:
    """Nanoseconds of RFC 3339 text with seconds; `NO_TIME` where it is written otherwise.

    Parameters
    ----------
    is_zoned : whether it ends in Z or an offset; else it ends without one, and is counted as if in UTC.
    """
    if end - at < (20 if is_zoned else 19) or data[at + 4] != _MINUS or data[at + 7] != _MINUS:
        return NO_TIME
    if (data[at + 10] != _T and data[at + 10] != _T_SMALL and data[at + 10] != _BLANK) or data[
        at + 13
    ] != _COLON:
        return NO_TIME
    year = _two(data, at) * 100 + _two(data, at + 2)
    month, day, hour = _two(data, at + 5), _two(data, at + 8), _two(data, at + 11)
    minute, second = _two(data, at + 14), _two(data, at + 17)
    if (
        data[at + 16] != _COLON
        or year < 1_700
        or year > 2_200
        or month < 1
        or month > 12
        or hour < 0
        or hour > 23
    ):
        return NO_TIME
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day < 1 or day > _DAYS[month - 1] + (1 if is_leap and month == 2 else 0):
        return NO_TIME
    if minute < 0 or minute > 59 or second < 0 or second > 59:
        return NO_TIME
    at += 19
    fraction, unit = np.int64(0), np.int64(_NS)
    if at < end and (data[at] == _DOT or data[at] == _COMMA):
        at += 1
        start = at
        while at < end and data[at] >= _ZERO and data[at] <= _ZERO + 9:
            if unit > 1:
                unit //= 10
                fraction += (np.int64(data[at]) - _ZERO) * unit
            at += 1
        if at == start:
            return NO_TIME
    shift = _shift(data, at, end, is_zoned)
    if shift == _NO_SHIFT:
        return NO_TIME
    seconds = np.int64(_days(year, month, day)) * 86_400 + hour * 3_600 + minute * 60 + second - shift
    return int(seconds * np.int64(_NS) + fraction)
