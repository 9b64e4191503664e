"""How much of the past a chart shows, and in how many steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.core.clock import NS
from headrace.core.spans import TimeRange

MS = 1_000_000
POINTS_MAX = 2_000
"""Most points of one curve that are sent to a browser, whatever the span."""
_STEPS_MIN, _STEPS_MAX = 120, 1_000
_LENGTH_NS_MIN, _LENGTH_NS_MAX = 10 * MS, 20 * 365 * 86_400 * NS
_TIME_NS_MAX = 2**62
_LIVE_EVERY_S_MIN, _LIVE_EVERY_S_MAX = 1.0, 30.0
_OVERLAP_NS = 10 * NS
_FINE_NS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_LADDER_NS = (
    *(n * MS for n in _FINE_NS),
    *(n * NS for n in (1, 2, 5, 10, 15, 30)),
    *(n * 60 * NS for n in (1, 2, 5, 10, 15, 30)),
    *(n * 3_600 * NS for n in (1, 2, 3, 6, 12)),
    *(n * 86_400 * NS for n in (1, 2, 7, 14, 28)),
)


@dataclass(frozen=True, slots=True)
class VisibleSpan:
    """What a chart looks at.

    Parameters
    ----------
    length_ns : how much. end_ns : up to when; None follows the present.
    width_px : how wide the chart is drawn: a window for each pixel is enough.
    speed : plant seconds a second.
    """

    length_ns: int
    end_ns: int | None = None
    width_px: int = 900
    speed: float = 1.0

    @classmethod
    def from_event(cls, said: Mapping[str, Any], speed: float = 1.0) -> VisibleSpan:
        """What a browser says: ``length_ms``, ``end_ms`` or null, ``width``; nonsense becomes the nearest sense."""
        length_ns = _number(said.get("length_ms"), 900_000) * MS
        end = said.get("end_ms")
        end_ns = None if end is None else min(max(_number(end, 0) * MS, -_TIME_NS_MAX), _TIME_NS_MAX)
        width = min(max(_number(said.get("width"), 900), 100), 8_000)
        return cls(min(max(length_ns, _LENGTH_NS_MIN), _LENGTH_NS_MAX), end_ns, width, speed)

    @property
    def is_live(self) -> bool:
        """Whether it follows the present."""
        return self.end_ns is None

    @property
    def every_ns(self) -> int:
        """Length of the windows that a chart of this width can show: of the ladder of round lengths."""
        steps = min(max(self.width_px, _STEPS_MIN), _STEPS_MAX)
        least = self.length_ns / steps
        return next((one for one in _LADDER_NS if one >= least), _LADDER_NS[-1] * 13)

    @property
    def renew_s(self) -> float:
        """After how many real seconds a chart that follows the present looks again."""
        return min(max(self.every_ns / NS / 2 / self.speed, _LIVE_EVERY_S_MIN), _LIVE_EVERY_S_MAX)

    def at(self, now_ns: int) -> TimeRange:
        """The span when the plant's time is `now_ns`; the sample of this very moment is inside."""
        end_ns = now_ns + 1 if self.end_ns is None else self.end_ns
        return TimeRange(end_ns - self.length_ns, end_ns)

    def newest_part(self, now_ns: int, every_ns: int | None, seen_ns: int) -> TimeRange:
        """The end of the span that may have changed since it was read up to `seen_ns`: whole windows.

        What comes later than ten real seconds is seen when the whole is read again.
        """
        whole = self.at(now_ns)
        start_ns = min(seen_ns, whole.end_ns) - round(_OVERLAP_NS * self.speed) - (every_ns or 0)
        if every_ns is not None:
            start_ns -= start_ns % every_ns
        return TimeRange(max(start_ns, whole.start_ns), whole.end_ns)


def _number(value: Any, otherwise: int) -> int:
    """A browser's number, or `otherwise`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return otherwise
    return round(value)
