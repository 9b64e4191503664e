"""Sensors as Prometheus names series: ``temperature{site, area, line, device}``.

The last level of a path is the metric, the levels above are labels. What can't be in a metric's name becomes ``_``,
and the label ``signal`` has the name as it is. A path with more levels than the plant's has the rest in the last label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from headrace.api.promql.nodes import Matcher, MatchOp, PromQlError
from headrace.core.sensors import Selection
from headrace.runtime.tree import SensorTree, Siblings

NAME_LABEL, SIGNAL_LABEL = "__name__", "signal"
SERIES_MAX = 20_000
"""Series of one selector at most."""
_BAD = re.compile(r"[^a-zA-Z0-9_:]")
_GOOD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
Labels = dict[str, str]


@lru_cache(maxsize=65_536)
def metric_name(signal: str) -> str:
    """The metric of a signal."""
    if _GOOD.fullmatch(signal):
        return signal
    name = _BAD.sub("_", signal)
    return name if _GOOD.fullmatch(name) else f"_{name}"


def level_labels(parent: str, levels: Sequence[str]) -> Labels:
    """Labels of a sensor's parent; `levels` names all levels of a path, the signal's too."""
    names = levels[:-1]
    parts = parent.split("/") if parent else []
    found = dict(zip(names, parts, strict=False))
    if len(parts) > len(names):
        found[names[-1]] = "/".join(parts[len(names) - 1 :])
    return found


def matches_all_of(regex: str, values: list[str]) -> npt.NDArray[np.bool_]:
    """Which values a regular expression matches wholly: bool[n]. RE2, whose time is bounded by the values' length.

    Raises
    ------
    PromQlError : the expression can't be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), regex)  # alone: it may not close the group around it
        hits = pc.match_substring_regex(pa.array(values, pa.string()), f"^(?:{regex})$")
    except (pa.ArrowInvalid, UnicodeEncodeError) as e:
        raise PromQlError(f"the regular expression {regex[:100]!r} can't be read: {str(e)[:200]}") from e
    found: npt.NDArray[np.bool_] = hits.to_numpy(zero_copy_only=False)
    return found


class _Condition:
    """The matchers of one label, over values that are looked at once each."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self._matchers = matchers
        self._known: dict[str, bool] = {}

    def holds(self, value: str) -> bool:
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = all(_holds(one, value) for one in self._matchers)
        return known


def _holds(matcher: Matcher, value: str) -> bool:
    if matcher.op is MatchOp.EQUAL:
        return value == matcher.value
    if matcher.op is MatchOp.DIFFERENT:
        return value != matcher.value
    hit = bool(matches_all_of(matcher.value, [value])[0])
    return hit == (matcher.op is MatchOp.MATCHES)


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """Series that a selector matched: labels and sensors, parallel."""

    labels: list[Labels]
    paths: list[str]
    sensors: Selection


def select(
    tree: SensorTree, levels: Sequence[str], matchers: Sequence[Matcher], limit: int = SERIES_MAX
) -> FoundSeries:
    """Series that meet all matchers.

    Raises
    ------
    PromQlError : more than `limit` of them, or a regular expression that can't be read.
    """
    labels: list[Labels] = []
    paths: list[str] = []
    parts: list[Siblings] = []
    for mine, one in matching(tree, levels, matchers):
        parts.append(one)
        paths += one.paths()
        labels += [_all_labels(mine, name) for name in one.names]
        if len(paths) > limit:
            raise PromQlError(
                f"the selector matches more than {limit:,} series; name a line or a device", "execution"
            )
    if not parts:
        return FoundSeries(
            [], [], Selection(np.empty(0, np.uint32), np.empty(0, np.uint16), np.empty(0, np.uint64))
        )
    sensors = Selection(
        np.concatenate([one.slot for one in parts]),
        np.concatenate([one.column for one in parts]),
        np.concatenate([one.sensor for one in parts]),
    )
    return FoundSeries(labels, paths, sensors)


def _all_labels(mine: Labels, signal: str) -> Labels:
    metric = metric_name(signal)
    own = {NAME_LABEL: metric} if metric == signal else {NAME_LABEL: metric, SIGNAL_LABEL: signal}
    return {**own, **mine}


def matching(
    tree: SensorTree, levels: Sequence[str], matchers: Sequence[Matcher]
) -> Iterator[tuple[Labels, Siblings]]:
    """Parents with their labels and those of their sensors that meet all matchers."""
    by_label: dict[str, list[Matcher]] = {}
    for one in matchers:
        by_label.setdefault(one.label, []).append(one)
    conditions = {label: _Condition(ours) for label, ours in by_label.items()}
    name, signal = conditions.pop(NAME_LABEL, None), conditions.pop(SIGNAL_LABEL, None)

    def is_wanted(own: str) -> bool:
        metric = metric_name(own)
        if name is not None and not name.holds(metric):
            return False
        return signal is None or signal.holds("" if metric == own else own)

    wanted: dict[str, bool] = {}
    for siblings in tree.siblings():
        mine = level_labels(siblings.parent, levels)
        if not all(condition.holds(mine.get(label, "")) for label, condition in conditions.items()):
            continue
        hits = []
        for i, own in enumerate(siblings.names):
            known = wanted.get(own)
            if known is None:
                known = wanted[own] = is_wanted(own)
            if known:
                hits.append(i)
        if hits:
            yield mine, siblings if len(hits) == len(siblings.names) else siblings.take(hits)
