"""Samples for queries, out of the store: as they are, or where there are too many as windows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headrace.api.promql.evaluate import WantedSamples
from headrace.api.promql.labels import FoundSeries, select
from headrace.api.promql.nodes import PromQlError
from headrace.api.promql.vectors import RawSeries
from headrace.core.quality import usable
from headrace.runtime.reader import StoreReader, UnflushedTail
from headrace.runtime.tree import SensorTree
from headrace.store.result import QueryResult

SAMPLES_MAX = 4_000_000
"""Samples that a selector reads one by one; more are read as windows."""
WINDOWS_MAX = 4_000_000
WINDOW_NS_MIN = 10**9
_AGGREGATE = {
    "last": "last", "last_over_time": "last", "avg_over_time": "mean", "sum_over_time": "mean",
    "count_over_time": "count", "min_over_time": "min", "max_over_time": "max",
}  # fmt: skip


class StoreSamples:
    """Samples of one query.

    Parameters
    ----------
    levels : names of a path's levels. tail : what is not flushed.
    """

    def __init__(
        self, reader: StoreReader, tree: SensorTree, levels: Sequence[str], tail: UnflushedTail | None = None
    ) -> None:
        self._reader, self._tree, self._levels = reader, tree, levels
        self._tail = reader.tail() if tail is None else tail
        self.warnings: list[str] = []

    def series(self, wanted: WantedSamples) -> list[RawSeries]:
        """All series that match, with their samples of good and uncertain quality. Raises `PromQlError`."""
        found = select(self._tree, self._levels, wanted.matchers)
        if not found.paths:
            return []
        n = self._expected(found, wanted)
        if n <= SAMPLES_MAX:
            return self._samples(found, wanted)
        if wanted.window_ns < WINDOW_NS_MIN:
            raise PromQlError(
                f"the query would read about {n:,.0f} samples; {SAMPLES_MAX:,} at most: ask for fewer series, a "
                f"shorter span, or ranges and steps that are a whole number of seconds",
                "execution",
            )
        return self._windows(found, wanted)

    def _expected(self, found: FoundSeries, wanted: WantedSamples) -> float:
        store = self._reader.store
        weights = store.expected_samples(store.index(found.sensors), wanted.start_ns + 1, wanted.end_ns + 1)
        return float(weights.sum())

    def _ask(
        self, found: FoundSeries, span: tuple[int, int], every_ns: int | None, agg: tuple[str, ...]
    ) -> QueryResult:
        result = self._reader.store.query_sensors(
            found.sensors, span[0], span[1], every_ns, agg, tail=self._tail.frames
        )
        said = (*result.missing, *self._tail.notes(found.sensors.slot))
        self.warnings += [one for one in said if one not in self.warnings]
        return result

    def _samples(self, found: FoundSeries, wanted: WantedSamples) -> list[RawSeries]:
        result = self._ask(found, (wanted.start_ns + 1, wanted.end_ns + 1), None, ())
        good = np.flatnonzero(usable(result.columns["quality"]))
        result = replace(
            result, sensor=result.sensor[good], ts_ns=result.ts_ns[good],
            columns={name: values[good] for name, values in result.columns.items()},
        )  # fmt: skip
        return _split(found, result, result.columns["value"].astype(np.float64), None)

    def _windows(self, found: FoundSeries, wanted: WantedSamples) -> list[RawSeries]:
        window_ns = wanted.window_ns
        n_windows = (wanted.end_ns - wanted.start_ns) // window_ns + 2
        if n_windows * len(found.paths) > WINDOWS_MAX:
            raise PromQlError(
                f"{len(found.paths):,} series over {n_windows:,} windows are too much; name fewer series, or a "
                "longer step",
                "execution",
            )
        aggregate = _AGGREGATE[wanted.function]
        start_ns = wanted.start_ns - wanted.start_ns % window_ns
        result = self._ask(found, (start_ns, wanted.end_ns + 1), window_ns, (aggregate, "count"))
        weight = result.columns["count"].astype(np.float64)
        values = result.columns[aggregate].astype(np.float64)
        # A window stands for the samples up to its end, which is the step that it belongs to.
        moved = replace(result, ts_ns=np.minimum(result.ts_ns + window_ns, wanted.end_ns))
        return _split(found, moved, values, weight)


def _split(
    found: FoundSeries, result: QueryResult, values: np.ndarray, weight: np.ndarray | None
) -> list[RawSeries]:
    """One answer into its series."""
    labels = dict(zip(found.paths, found.labels, strict=True))
    bounds = np.searchsorted(result.sensor, np.arange(len(result.paths) + 1))
    out = []
    for i, path in enumerate(result.paths.tolist()):
        first, end = int(bounds[i]), int(bounds[i + 1])
        if first < end:
            part = None if weight is None else weight[first:end]
            out.append(RawSeries(labels[path], result.ts_ns[first:end], values[first:end], part))
    return out
