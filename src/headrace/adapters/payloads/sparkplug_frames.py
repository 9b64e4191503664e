"""The kernels of Sparkplug's scanner as they are called for each slice: with their arrays one by one.

Numba looks at a tuple of arrays for 2 to 3 us at each call, which is as long as it takes to read fifty small messages.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import sparkplug_scanner as scanner
from headrace.adapters.payloads.sparkplug_scanner import MetricColumns, MetricParts, NodeMetricTables, Place
from headrace.core.kernels import lean_kernel

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]


def scan(
    data: U8,
    first: int,
    last: int,
    messages: I64,
    tables: NodeMetricTables,
    columns: MetricColumns,
    takes: int,
) -> Place:
    """See `headrace.adapters.payloads.sparkplug_scanner.scan`."""
    c = columns
    return _scan(
        data, first, last, messages, takes, *tables, c.message, c.metric, c.target, c.ts_ms, c.bits, c.quality, c.counts
    )  # fmt: skip


@lean_kernel
def _scan(  # noqa: PLR0913 see the module's text
    data: U8, first: int, last: int, messages: I64, takes: int, arena: U8, rows: I64, alias_buckets: I64,
    name_buckets: I64, firsts: I64, message: I64, metric: I64, target: I64, ts_ms: I64, bits: I64, quality: U8, counts: I64,
) -> Place:  # fmt: skip
    tables = NodeMetricTables(arena, rows, alias_buckets, name_buckets, firsts)
    columns = MetricColumns(message, metric, target, ts_ms, bits, quality, counts)
    return scanner.scan(data, first, last, messages, tables, columns, takes)


def take_part(
    part: int, rows: I64, columns: MetricColumns, into: MetricParts
) -> tuple[int, int, bool, bool, bool]:
    """See `headrace.adapters.payloads.sparkplug_scanner.take_part`."""
    c = columns
    return _take_part(
        part, rows, c.message, c.metric, c.target, c.ts_ms, c.bits, c.quality, c.counts, into.message, into.group,
        into.start, into.column, into.at,
    )  # fmt: skip


@lean_kernel
def _take_part(  # noqa: PLR0913 see the module's text
    part: int, rows: I64, message: I64, metric: I64, target: I64, ts_ms: I64, bits: I64, quality: U8, counts: I64,
    messages: I64, group: I64, start: I64, column: U16, at: I64,
) -> tuple[int, int, bool, bool, bool]:  # fmt: skip
    columns = MetricColumns(message, metric, target, ts_ms, bits, quality, counts)
    return scanner.take_part(part, rows, columns, MetricParts(messages, group, start, column, at))
