"""Values that their sensors could not take, decoded once more by the present profiles.

A reject has them as OPC UA writes data values: variant, status, both times, one behind the other. Types, arrays and names
of signals may be others today; the source says which node it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headrace.adapters.opcua.config import UaDevicePlan
from headrace.adapters.opcua.filing import Filing
from headrace.adapters.opcua.messages import Values, numbered
from headrace.adapters.opcua.scanner import GAVE_UP, ValueColumns, scan_values
from headrace.adapters.opcua.tags import TagTable
from headrace.core.events import MAX_RAW_BYTES, Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory


class Refiling:
    """Files refused values by the profiles of some devices; the adapter's own table knows nothing of it.

    Raises
    ------
    ConfigError : a declared type is not the one a sensor has, or another group has the sensor.
    """

    def __init__(
        self, name: str, plans: Sequence[UaDevicePlan], directory: SensorDirectory, time: str
    ) -> None:
        self._name, self._plans, self._directory, self._time = name, plans, directory, time
        self._begin()

    def _begin(self) -> None:
        self._tags = TagTable(self._plans, self._directory)
        self._tags.begin()
        self._filing = Filing(self._name, self._tags, self._directory, self._time)
        self._n_slots = self._directory.n_slots
        self._by_source: dict[str, list[int]] = {}
        for tag in range(len(self._tags)):
            self._by_source.setdefault(self._filing.source(tag), []).append(tag)

    def is_for(self, plans: Sequence[UaDevicePlan], directory: SensorDirectory) -> bool:
        """Whether it would file by these."""
        return self._plans is plans and self._directory is directory

    def redecode(self, reject: Reject) -> tuple[list[FrameBatch], list[Reject]]:
        """What becomes of the values of a reject today."""
        if self._directory.n_slots != self._n_slots:
            self._begin()  # the adapter itself has learnt types meanwhile
        try:
            tag = self._tag_of(reject)
            values = _values(reject.raw)
        except ValueError as e:
            return [], [replace(reject, detail=str(e))]
        self._tags.forget([tag])
        self._tags.problem.pop(tag, None)
        filed = self._filing.file(numbered(values, [tag] * len(values)), reject.arrival_ns)
        self._n_slots = self._directory.n_slots
        return filed.batches, filed.rejects

    def _tag_of(self, reject: Reject) -> int:
        """The tag of a node; of several that read it the one that the reject is of, if that is still there."""
        found = self._by_source.get(reject.source)
        if not found:
            raise ValueError(f"no signal of {self._name} reads {reject.source!r}")
        return next((tag for tag in found if reject.detail.startswith(f"{self._tags.path(tag)} ")), found[0])


def _values(raw: bytes) -> Values:
    """Data values that stand one behind the other. Raises ValueError: these are none, or some are missing."""
    if len(raw) >= MAX_RAW_BYTES:
        raise ValueError(f"only the first {MAX_RAW_BYTES:,} bytes of it were kept")
    data, rows, at = np.frombuffer(raw, np.uint8), [], 0
    while at < len(raw):
        one = ValueColumns.empty(1)
        at = int(scan_values(data, at, len(raw), 1, False, one))
        if at == GAVE_UP:
            raise ValueError("it is no value with its times, as they are kept since this version")
        rows.append(one)
    if not rows:
        raise ValueError("it is a state of the device: no value came with it")
    columns: list[np.ndarray] = [np.concatenate(some) for some in zip(*rows, strict=True)]
    return Values(ValueColumns(*columns), raw)
