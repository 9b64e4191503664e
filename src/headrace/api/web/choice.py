"""What a page shows: which sensors in which colours, and which span; kept in its address, so that it can be shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace.api.web.resolution import MS
from headrace.api.web.trends import CURVES_MAX
from headrace.core.clock import NS
from headrace.core.errors import ConfigError
from headrace.core.paths import format_duration, parse_duration_ns

_LENGTH_NS = 5 * 60 * NS


@dataclass(frozen=True)
class Choice:
    """Sensors and span.

    Parameters
    ----------
    colors : path → number of its colour, in the order of choosing. length_ns, end_ns : as `VisibleSpan` has them.
    is_untouched : whether nobody has chosen yet: a few sensors may be put up for a first look.
    """

    colors: Mapping[str, int]
    length_ns: int = _LENGTH_NS
    end_ns: int | None = None
    is_untouched: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The sensors."""
        return tuple(self.colors)

    @classmethod
    def from_address(cls, parameters: Sequence[tuple[str, str]]) -> Choice:
        """Of a page's address: ``s`` for each sensor, ``last`` or ``from_ms`` and ``to_ms``. What makes no sense is left out."""
        paths = [value for name, value in parameters if name == "s" and value][:CURVES_MAX]
        words = dict(parameters)
        choice = cls({path: i for i, path in enumerate(dict.fromkeys(paths))}, is_untouched="s" not in words)
        try:
            if "last" in words:
                return replace(choice, length_ns=max(parse_duration_ns(words["last"]), MS))
            start, end = int(words["from_ms"]), int(words["to_ms"])
        except (KeyError, ValueError, ConfigError):
            return choice
        if start < end < 10**14 and start > -(10**14):
            return replace(choice, length_ns=(end - start) * MS, end_ns=end * MS)
        return choice

    def to_address(self) -> list[tuple[str, str]]:
        """The inverse of `from_address`."""
        found = [("s", path) for path in self.colors] or [("s", "")]
        if self.end_ns is None:
            return [*found, ("last", format_duration(self.length_ns // MS * MS))]
        end_ms = self.end_ns // MS
        return [*found, ("from_ms", str(end_ms - self.length_ns // MS)), ("to_ms", str(end_ms))]

    def span_dict(self) -> dict[str, Any]:
        """The span for a browser."""
        return {
            "length_ms": self.length_ns // MS,
            "end_ms": None if self.end_ns is None else self.end_ns // MS,
        }

    def toggled(self, path: str) -> Choice:
        """With a sensor added, or taken off. Each keeps its colour; the oldest goes where there is no more room."""
        colors = dict(self.colors)
        if path in colors:
            del colors[path]
        else:
            if len(colors) >= CURVES_MAX:
                del colors[next(iter(colors))]
            taken = colors.values()
            colors[path] = next(i for i in range(CURVES_MAX) if i not in taken)
        return replace(self, colors=colors, is_untouched=False)

    def begun(self, paths: Sequence[str]) -> Choice:
        """With sensors for a first look; stays untouched while there are none."""
        return replace(self, colors={path: i for i, path in enumerate(paths)}, is_untouched=not paths)

    def looking(self, length_ns: int, end_ns: int | None) -> Choice:
        """At another span."""
        return replace(self, length_ns=length_ns, end_ns=end_ns)
