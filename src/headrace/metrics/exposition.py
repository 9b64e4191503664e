"""Live values of the catalogue's metrics, and their text for scrapers (OpenMetrics 1.0).

The composition root makes one `Metrics` and hands out cells: ``received = metrics.counter(SAMPLES_RECEIVED,
"ovens")``, then ``received.add(5_000)`` once a batch. An update costs less than a microsecond and is safe from
any thread. Values that somebody else keeps (disk space, device states) are read when they are asked for: see
`Metrics.before_scrape`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from headrace.metrics.catalog import CATALOG, PREFIX, Metric, MetricKind

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_CELLS = 10_000
"""Label sets of one metric; further ones are counted together under the label values ``other``."""
OTHER = "other"


class Counter:
    """A value that only grows."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self._lock = Lock()
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        """Grow by `amount`, >= 0."""
        with self._lock:
            self.value += amount

    def reach(self, total: float) -> None:
        """Grow to `total`, which somebody else counts; a lower one changes nothing."""
        with self._lock:
            self.value = max(self.value, total)


class Gauge:
    """A value that comes and goes."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self._lock = Lock()
        self.value: float = 0

    def set(self, value: float) -> None:
        """Make it `value`."""
        self.value = value

    def add(self, amount: float) -> None:
        """Change it by `amount`."""
        with self._lock:
            self.value += amount


class Histogram:
    """How often values fall into fixed buckets, and their sum."""

    __slots__ = ("_edges", "_lock", "counts", "total")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._lock = Lock()
        self._edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        with self._lock:
            self.counts[bisect_left(self._edges, value)] += 1
            self.total += value

    def observe_many(self, values: npt.NDArray[np.float64]) -> None:
        """Count many values: float64[n]."""
        found = np.bincount(np.searchsorted(self._edges, values), minlength=len(self.counts)).tolist()
        with self._lock:
            self.counts = [a + b for a, b in zip(self.counts, found, strict=True)]
            self.total += float(values.sum())

    def replace(self, counts: Sequence[int], total: float) -> None:
        """Take over what somebody else counts; it begins anew where that did, which scrapers understand."""
        with self._lock:
            self.counts, self.total = list(counts), total


Cell = Counter | Gauge | Histogram
C = TypeVar("C", Counter, Gauge, Histogram)


class Metrics:
    """The values of one process. Made by the composition root; nothing here is global."""

    def __init__(self, catalog: tuple[Metric, ...] = CATALOG) -> None:
        self._catalog = catalog
        self._lock = Lock()
        self._cells: dict[str, dict[tuple[str, ...], Cell]] = {m.name: {} for m in catalog}
        self._readers: list[Callable[[], None]] = []

    def counter(self, metric: Metric, *labels: str) -> Counter:
        """The cell of a counter for these label values, in the catalogue's order."""
        return self._cell(metric, MetricKind.COUNTER, labels, Counter)

    def gauge(self, metric: Metric, *labels: str) -> Gauge:
        """The cell of a gauge."""
        return self._cell(metric, MetricKind.GAUGE, labels, Gauge)

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The cell of a histogram."""
        return self._cell(metric, MetricKind.HISTOGRAM, labels, lambda: Histogram(metric.buckets))

    def info(self, metric: Metric, *labels: str) -> None:
        """Say a fact: the label values are the information."""
        self._cell(metric, MetricKind.INFO, labels, Gauge).set(1)

    def _cell(self, metric: Metric, kind: MetricKind, labels: tuple[str, ...], make: Callable[[], C]) -> C:
        if metric.kind is not kind or len(labels) != len(metric.labels):
            raise ValueError(
                f"{metric.name} is a {metric.kind} with labels {metric.labels}, not a {kind} with {labels}"
            )
        cells = self._cells[metric.name]
        with self._lock:
            if labels not in cells and len(cells) >= MAX_CELLS:
                labels = (OTHER,) * len(labels)
            cell: C = cells.setdefault(labels, make())  # type: ignore[assignment]
            return cell

    def forget(self, metric: Metric, *labels: str) -> None:
        """Drop a cell: what its labels name is gone."""
        with self._lock:
            self._cells[metric.name].pop(labels, None)

    def before_scrape(self, read: Callable[[], None]) -> None:
        """Run `read` before each exposition: it sets cells from values that somebody else keeps."""
        self._readers.append(read)

    def expose(self) -> str:
        """All metrics that have a value, as OpenMetrics text."""
        for read in self._readers:
            read()
        lines: list[str] = []
        for metric in self._catalog:
            with self._lock:
                cells = list(self._cells[metric.name].items())
            if cells:
                lines += _head(metric)
                for labels, cell in cells:
                    lines += _lines(metric, labels, cell)
        return "\n".join([*lines, "# EOF"]) + "\n"


def _head(metric: Metric) -> Iterator[str]:
    name = PREFIX + metric.name
    yield f"# TYPE {name} {metric.kind}"
    if metric.unit:
        yield f"# UNIT {name} {metric.unit}"
    yield f"# HELP {name} {metric.meaning}"


def _lines(metric: Metric, labels: tuple[str, ...], cell: Cell) -> Iterator[str]:
    pairs = [f'{k}="{_escaped(v)}"' for k, v in zip(metric.labels, labels, strict=True)]
    if not isinstance(cell, Histogram):
        yield f"{metric.sample}{_braced(pairs)} {_number(cell.value)}"
        return
    seen = 0
    counts, total = cell.counts.copy(), cell.total
    for edge, count in zip((*metric.buckets, math.inf), counts, strict=True):
        seen += count
        bucket = _braced([*pairs, f'le="{_number(float(edge))}"'])
        yield f"{metric.sample}_bucket{bucket} {seen}"
    yield f"{metric.sample}_count{_braced(pairs)} {seen}"
    yield f"{metric.sample}_sum{_braced(pairs)} {_number(total)}"


def _braced(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value)
