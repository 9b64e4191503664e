"""A query over its steps: every part of the tree is evaluated for all steps at once.

Samples come from a `SampleSource`; nothing here knows where they are kept. A query that would take too much is
refused before it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.api.promql.functions import call
from headrace.api.promql.nodes import (
    Aggregation,
    Call,
    Matcher,
    Negated,
    Node,
    Number,
    Operation,
    PromQlError,
    Selector,
    Text,
)
from headrace.api.promql.operators import aggregate, kept, operate
from headrace.api.promql.parser import OVER_TIME, RATES
from headrace.api.promql.vectors import I64, RawSeries, ScalarSteps, TextValue, VectorSteps, empty
from headrace.api.promql.windows import latest, latest_time, over

LOOKBACK_NS = 300 * 10**9
"""How old the last sample of an instant vector may be."""
CELLS_MAX = 20_000_000
"""Series times steps of any part of a query."""


@dataclass(frozen=True, slots=True)
class WantedSamples:
    """Samples that a selector needs.

    Parameters
    ----------
    start_ns, end_ns : samples of (start_ns, end_ns]. function : what is done with them: ``last`` for an instant
        vector, else the name of a function. window_ns : windows of this length would do as well; 0 where only
        samples do.
    """

    matchers: tuple[Matcher, ...]
    start_ns: int
    end_ns: int
    function: str
    window_ns: int


class SampleSource(Protocol):
    """Where samples come from."""

    def series(self, wanted: WantedSamples) -> list[RawSeries]:
        """All series that match, with their samples. Raises `PromQlError`."""
        ...


class Evaluator:
    """One query over some steps.

    Parameters
    ----------
    steps_ns : int64[T], rising, with the same distance.
    """

    def __init__(self, source: SampleSource, steps_ns: I64) -> None:
        self._source, self._steps_ns = source, steps_ns
        self._n = len(steps_ns)

    def evaluate(self, node: Node) -> ScalarSteps | VectorSteps | TextValue:
        """The value of a tree. Raises `PromQlError`."""
        if isinstance(node, Text):
            return TextValue(node.value)
        return self._value(node)

    def _value(self, node: Node) -> ScalarSteps | VectorSteps:
        if isinstance(node, Number):
            return ScalarSteps(np.full(self._n, node.value))
        if isinstance(node, Text):
            raise PromQlError("a string has no number; it stands alone only")
        if isinstance(node, Negated):
            of = self._value(node.of)
            return ScalarSteps(-of.values) if isinstance(of, ScalarSteps) else of.with_values(-of.values)
        if isinstance(node, Operation):
            return operate(node, self._value(node.left), self._value(node.right))
        if isinstance(node, Aggregation):
            return self._aggregation(node)
        if isinstance(node, Call):
            return self._call(node)
        if node.range_ns:
            raise PromQlError("a range vector needs a function around it: avg_over_time(temperature[5m])")
        return self._instant(node, "latest")

    def _aggregation(self, node: Aggregation) -> VectorSteps:
        vector = self._value(node.of)
        if isinstance(vector, ScalarSteps):
            raise PromQlError(f"{node.op} wants an instant vector, not a scalar")
        k = None
        if node.parameter is not None:
            found = self._value(node.parameter)
            if isinstance(found, VectorSteps):
                raise PromQlError(f"{node.op} wants a number first")
            k = found.values
        return aggregate(node, vector, k)

    def _call(self, node: Call) -> ScalarSteps | VectorSteps:
        if node.name == "time":
            return ScalarSteps(self._steps_ns / 1e9)
        if node.name in (*OVER_TIME, *RATES):
            selector = node.arguments[0]
            assert isinstance(selector, Selector)
            return self._ranged(node.name, selector)
        if node.name == "timestamp":
            selector = node.arguments[0]
            if not isinstance(selector, Selector):
                raise PromQlError("timestamp wants a selector here")
            return self._instant(selector, "time")
        return call(node.name, [self._value(one) for one in node.arguments], self._n)

    # --- selectors -----------------------------------------------------------------------------------

    def _instant(self, node: Selector, what: str) -> VectorSteps:
        steps_ns = self._steps_ns - node.offset_ns
        found = self._read(node, steps_ns, LOOKBACK_NS, "last")
        ask = latest if what == "latest" else latest_time
        vector = self._stacked(found, [ask(one, steps_ns, LOOKBACK_NS) for one in found])
        return vector if what == "latest" else vector.with_values(vector.values)

    def _ranged(self, name: str, node: Selector) -> VectorSteps:
        steps_ns = self._steps_ns - node.offset_ns
        found = self._read(node, steps_ns, node.range_ns, name)
        vector = self._stacked(found, [over(name, one, steps_ns, node.range_ns) for one in found])
        # Prometheus keeps the name of the metric where the value is one of its own.
        return vector if name == "last_over_time" else vector.with_values(vector.values)

    def _read(self, node: Selector, steps_ns: I64, range_ns: int, function: str) -> list[RawSeries]:
        first_ns, last_ns = int(steps_ns[0]) - range_ns, int(steps_ns[-1])
        found = self._source.series(
            WantedSamples(
                node.matchers, first_ns, last_ns, function, self._window_ns(steps_ns, range_ns, function)
            )
        )
        if len(found) * self._n > CELLS_MAX:
            raise PromQlError(
                f"{len(found):,} series at {self._n:,} steps are too much; name fewer series or a longer step",
                "execution",
            )
        return found

    def _window_ns(self, steps_ns: I64, range_ns: int, function: str) -> int:
        """The longest windows that all steps and ranges are made of; 0 where samples are needed."""
        if function in RATES:
            return 0
        step_ns = int(steps_ns[1] - steps_ns[0]) if self._n > 1 else range_ns
        if function == "last":  # of an instant vector: it has only to be in the step
            return min(step_ns, LOOKBACK_NS)
        return int(np.gcd(step_ns, range_ns))

    def _stacked(self, found: list[RawSeries], rows: list[tuple[np.ndarray, np.ndarray]]) -> VectorSteps:
        if not found:
            return empty(self._n)
        values, there = (np.stack(side) for side in zip(*rows, strict=True))
        return kept(VectorSteps([one.labels for one in found], values, there))
