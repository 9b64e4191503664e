"""What Prometheus' HTTP interface answers, as JSON-ready documents. All of it blocks while it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.api.promql.evaluate import Evaluator
from headrace.api.promql.labels import NAME_LABEL, SIGNAL_LABEL, Labels, matching, metric_name
from headrace.api.promql.nodes import Matcher, PromQlError
from headrace.api.promql.parser import parse, parse_selector
from headrace.api.promql.source import StoreSamples
from headrace.api.promql.vectors import ScalarSteps, TextValue, VectorSteps
from headrace.core.layouts import Kind
from headrace.core.sensors import SensorDirectory
from headrace.runtime.reader import StoreReader
from headrace.runtime.tree import SensorTree

STEPS_MAX = 11_000
POINTS_MAX = 2_000_000
_NS = 10**9


@dataclass(frozen=True, slots=True)
class PromAnswer:
    """Data of an answer, and what could not be read."""

    data: Any
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class PromStore:
    """What queries are answered from. `levels`: names of a path's levels."""

    reader: StoreReader
    tree: SensorTree
    levels: Sequence[str]

    # --- queries -------------------------------------------------------------------------------------

    def instant(self, text: str, time_ns: int) -> PromAnswer:
        """A query at one time. Raises `PromQlError`."""
        node = parse(text)
        samples = StoreSamples(self.reader, self.tree, self.levels)
        value = Evaluator(samples, np.array([time_ns], np.int64)).evaluate(node)
        at = _seconds(time_ns)
        if isinstance(value, TextValue):
            return PromAnswer({"resultType": "string", "result": [at, value.value]}, [])
        if isinstance(value, ScalarSteps):
            return PromAnswer({"resultType": "scalar", "result": [at, _number(float(value.values[0]))]}, [])
        result = [
            {"metric": labels, "value": [at, _number(float(value.values[i, 0]))]}
            for i, labels in enumerate(value.labels)
            if value.there[i, 0]
        ]
        return PromAnswer({"resultType": "vector", "result": result}, samples.warnings)

    def ranged(self, text: str, start_ns: int, end_ns: int, step_ns: int) -> PromAnswer:
        """A query at many times. Raises `PromQlError`."""
        if end_ns < start_ns:
            raise PromQlError("end timestamp must not be before start time")
        if step_ns <= 0:
            raise PromQlError(
                "zero or negative query resolution step widths are not accepted. Try a positive integer"
            )
        n = (end_ns - start_ns) // step_ns + 1
        if n > STEPS_MAX:
            raise PromQlError(
                f"exceeded maximum resolution of {STEPS_MAX:,} points per timeseries. Try decreasing the query "
                "resolution (?step=XX)"
            )
        node = parse(text)
        samples = StoreSamples(self.reader, self.tree, self.levels)
        steps_ns = start_ns + np.arange(n, dtype=np.int64) * step_ns
        value = Evaluator(samples, steps_ns).evaluate(node)
        if isinstance(value, TextValue):
            raise PromQlError(
                'invalid expression type "string" for range query, must be Scalar or instant Vector'
            )
        if isinstance(value, ScalarSteps):
            value = VectorSteps([{}], value.values[None, :], np.ones((1, n), np.bool_))
        n_points = int(value.there.sum())
        if n_points > POINTS_MAX:
            raise PromQlError(
                f"the answer has {n_points:,} points; {POINTS_MAX:,} at most: a longer step gives fewer",
                "execution",
            )
        times = [_seconds(int(t)) for t in steps_ns.tolist()]
        result = [
            {"metric": labels, "values": _points(times, value.values[i], value.there[i])}
            for i, labels in enumerate(value.labels)
        ]
        return PromAnswer({"resultType": "matrix", "result": result}, samples.warnings)

    # --- what there is -------------------------------------------------------------------------------

    def _matched(self, selectors: Sequence[str]) -> list[tuple[Matcher, ...]]:
        return [parse_selector(text) for text in selectors] or [()]

    def label_names(self, selectors: Sequence[str]) -> list[str]:
        """Labels that series have. Raises `PromQlError`."""
        found = {NAME_LABEL: True}
        known = {*self.levels[:-1], SIGNAL_LABEL, NAME_LABEL}
        for matchers in self._matched(selectors):
            for mine, siblings in matching(self.tree, self.levels, matchers):
                found.update(dict.fromkeys(mine, True))
                if any(metric_name(name) != name for name in siblings.names):
                    found[SIGNAL_LABEL] = True
                if len(found) == len(known):
                    return sorted(found)
        return sorted(found)

    def label_values(self, label: str, selectors: Sequence[str], limit: int) -> list[str]:
        """Values of one label, at most `limit`. Raises `PromQlError`."""
        found: dict[str, bool] = {}
        for matchers in self._matched(selectors):
            for mine, siblings in matching(self.tree, self.levels, matchers):
                if label == NAME_LABEL:
                    found.update(dict.fromkeys(map(metric_name, siblings.names), True))
                elif label == SIGNAL_LABEL:
                    found.update({name: True for name in siblings.names if metric_name(name) != name})
                elif label in mine:
                    found[mine[label]] = True
                if len(found) >= limit:
                    return sorted(found)[:limit]
        return sorted(found)

    def series(self, selectors: Sequence[str], limit: int) -> list[Labels]:
        """Series that match, at most `limit`. Raises `PromQlError`."""
        if not selectors:
            raise PromQlError("no match[] parameter provided")
        found: dict[str, Labels] = {}
        for matchers in self._matched(selectors):
            for mine, siblings in matching(self.tree, self.levels, matchers):
                for name, path in zip(siblings.names, siblings.paths(), strict=True):
                    metric = metric_name(name)
                    own = {NAME_LABEL: metric} if metric == name else {NAME_LABEL: metric, SIGNAL_LABEL: name}
                    found[path] = {**own, **mine}
                    if len(found) >= limit:
                        return list(found.values())
        return list(found.values())

    def metadata(self, metric: str, limit: int) -> dict[str, list[dict[str, str]]]:
        """Type, meaning and unit of metrics, by their name."""
        directory: SensorDirectory = self.reader.directory
        found: dict[str, list[dict[str, str]]] = {}
        for layout in list(directory.layouts):
            for column in layout.columns:
                name = metric_name(column.name.rpartition("/")[2])
                if not column.name or (metric and name != metric) or len(found) >= limit:
                    continue
                kind = "counter" if column.kind is Kind.COUNTER else "gauge"
                one = {"type": kind, "help": f"{column.kind.name.lower()} signal", "unit": column.unit}
                known = found.setdefault(name, [])
                if one not in known:
                    known.append(one)
        return found


def _points(times: list[float], values: np.ndarray, there: np.ndarray) -> list[list[Any]]:
    if there.all():
        return [[t, _number(v)] for t, v in zip(times, values.tolist(), strict=True)]
    return [
        [t, _number(v)]
        for t, v, is_there in zip(times, values.tolist(), there.tolist(), strict=True)
        if is_there
    ]


def _seconds(ts_ns: int) -> float:
    """A time as Prometheus has it, to the millisecond."""
    return round(ts_ns / 1e6) / 1e3


def _number(value: float) -> str:
    """A number as Go's ``FormatFloat(v, 'f', -1, 64)`` writes it."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" in text:
        return str(np.format_float_positional(value, trim="-"))
    return text.removesuffix(".0")
