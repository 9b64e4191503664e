"""Sensors as they are listed: path, id, unit and kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.core.errors import NotFound
from headrace.core.sensors import SensorDirectory
from headrace.runtime.tree import SensorTree


@dataclass(frozen=True, slots=True)
class SensorFacts:
    """One sensor of the directory.

    Parameters
    ----------
    sensor : its 64-bit id. dtype : type of its values as the source gives them. low, high : limits, None for none.
    """

    path: str
    sensor: int
    unit: str
    kind: str
    dtype: str
    labels: tuple[str, ...]
    low: float | None
    high: float | None
    is_derived: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the id as 16 hexadecimal digits, for 64-bit numbers break in browsers."""
        return {
            "id": f"{self.sensor:016x}",
            "path": self.path,
            "unit": self.unit,
            "kind": self.kind,
            "type": self.dtype,
            "labels": list(self.labels),
            "limits": [self.low, self.high],
            "derived": self.is_derived,
        }


def facts_of(directory: SensorDirectory, slot: int, column: int, sensor: int) -> SensorFacts:
    """A sensor by its place in the directory."""
    layout = directory.layout(slot)
    one = layout.columns[column]
    return SensorFacts(
        path=directory.sensor_path(slot, column),
        sensor=sensor,
        unit=one.unit,
        kind=one.kind.name.lower(),
        dtype=layout.dtype,
        labels=tuple(one.labels),
        low=one.low,
        high=one.high,
        is_derived=directory.is_derived(slot),
    )


def facts_of_id(directory: SensorDirectory, sensor: int) -> SensorFacts:
    """A sensor by its id. Raises `NotFound`."""
    try:
        slot, column = directory.locate(sensor)
    except NotFound:
        slot, column = _find_derived(directory, sensor)
    return facts_of(directory, slot, column, sensor)


def _find_derived(directory: SensorDirectory, sensor: int) -> tuple[int, int]:
    """Slot and column of a derived series, whose ids no index has."""
    for slot in range(directory.n_slots - 1, -1, -1):
        if directory.is_derived(slot):
            ids = directory.sensors(slot).tolist()
            if sensor in ids:
                return slot, ids.index(sensor)
    raise NotFound(f"no sensor has the id {sensor:016x}; sensors?pattern= finds ids by path")


def list_sensors(
    directory: SensorDirectory, tree: SensorTree, pattern: str, after: str, limit: int
) -> list[SensorFacts]:
    """Sensors that match behind the path `after`, at most `limit`, in the tree's order. Raises `ConfigError`."""
    start, _, last = after.rpartition("/")
    found: list[SensorFacts] = []
    for one in tree.siblings(pattern, start if after else ""):
        for i, name in enumerate(one.names):
            if after and one.parent == start and name <= last:
                continue
            found.append(facts_of(directory, int(one.slot[i]), int(one.column[i]), int(one.sensor[i])))
            if len(found) == limit:
                return found
    return found
