"""All sensors in the order of their paths: for listing them page by page, and as a tree, level by level.

The directory knows groups in the order in which they were defined. Here their sensors' parents are sorted once, so
that the children of a path and what follows a cursor are found by bisection, also among millions of sensors.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from headrace.core.paths import pattern_regex
from headrace.core.sensors import Selection, SensorDirectory

_AFTER_SLASH = chr(ord("/") + 1)
_Entry = tuple[int, Sequence[int] | None]
"""A slot, and those of its columns that have the parent; None for all."""


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One child of a path.

    Parameters
    ----------
    name : its own level. path : the whole path to it.
    n_sensors : sensors below it, itself included. is_sensor : whether it is one.
    """

    name: str
    path: str
    n_sensors: int
    is_sensor: bool


@dataclass(frozen=True, slots=True)
class Siblings:
    """Sensors with the same parent, mostly those of one device; parallel, sorted by name.

    ``slot: uint32[n]``, ``column: uint16[n]``, ``sensor: uint64[n]``.
    """

    parent: str
    names: list[str]
    slot: npt.NDArray[np.uint32]
    column: npt.NDArray[np.uint16]
    sensor: npt.NDArray[np.uint64]

    def paths(self) -> list[str]:
        """Whole paths of the sensors."""
        return [f"{self.parent}/{name}" for name in self.names] if self.parent else self.names

    def take(self, index: Sequence[int] | slice) -> Siblings:
        """Some of them."""
        names = self.names[index] if isinstance(index, slice) else [self.names[i] for i in index]
        return Siblings(self.parent, names, self.slot[index], self.column[index], self.sensor[index])

    def selection(self) -> Selection:
        """As a selection of the directory."""
        return Selection(self.slot, self.column, self.sensor)


class _Order:
    """Parents of all sensors of a directory, sorted, as of one moment."""

    def __init__(self, directory: SensorDirectory) -> None:
        self.n_slots = directory.n_slots
        by_parent: dict[str, list[_Entry]] = {}
        for slot, columns in _slots(directory, self.n_slots):
            for parent, mine in _parents(directory, slot, columns):
                by_parent.setdefault(parent, []).append((slot, mine))
        # With the slash at its end a parent sorts where its sensors do.
        parents = sorted(by_parent, key=lambda parent: parent + "/")
        self.keys = [parent + "/" for parent in parents]
        self.entries = [by_parent[parent] for parent in parents]
        width = directory.width
        counts = [
            sum(int(width[slot]) if mine is None else len(mine) for slot, mine in entries)
            for entries in self.entries
        ]
        self.before = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _slots(directory: SensorDirectory, n_slots: int) -> Iterator[_Entry]:
    """Each group's newest slot, then older ones with the columns that were dropped since."""
    previous = directory.previous[:n_slots]
    is_newest = np.ones(n_slots, np.bool_)
    is_newest[previous[previous >= 0]] = False
    for newest in np.flatnonzero(is_newest).tolist():
        yield newest, None
        slot, seen = newest, set[int]()
        while (older := int(previous[slot])) >= 0:
            seen.update(directory.sensors(slot).tolist())
            dropped = [i for i, sensor in enumerate(directory.sensors(older).tolist()) if sensor not in seen]
            if dropped:
                yield older, dropped
            slot = older


def _parents(
    directory: SensorDirectory, slot: int, columns: Sequence[int] | None
) -> Iterator[tuple[str, Sequence[int] | None]]:
    """Parents of a slot's sensors, each with its columns."""
    if directory.layout(slot).is_flat:
        yield directory.paths[slot], columns
        return
    found: dict[str, list[int]] = {}
    for i in range(int(directory.width[slot])) if columns is None else columns:
        found.setdefault(directory.sensor_path(slot, i).rpartition("/")[0], []).append(i)
    yield from found.items()


class SensorTree:
    """A directory's sensors, sorted by path; follows the directory as it grows.

    Cost: about 2 µs a group whenever there are new ones; nothing to keep for a sensor.
    """

    def __init__(self, directory: SensorDirectory) -> None:
        self._directory = directory
        self._lock = Lock()
        self._order = _Order(directory)
        self._sorted: dict[int, tuple[list[str], npt.NDArray[np.uint16]]] = {}

    def _present(self) -> _Order:
        with self._lock:
            if self._order.n_slots != self._directory.n_slots:
                self._order = _Order(self._directory)
            return self._order

    @property
    def n_sensors(self) -> int:
        """All of them, derived series included."""
        return int(self._present().before[-1])

    @property
    def n_slots(self) -> int:
        """Slots of the directory that are looked at: it changes when sensors are added."""
        return self._present().n_slots

    # --- as a tree -----------------------------------------------------------------------------------

    def children(self, path: str = "", after: str = "", limit: int = 1_000) -> list[TreeNode]:
        """What is one level below `path`, in order; names behind `after`, at most `limit`. Empty where nothing is.

        Parameters
        ----------
        path : of any level; "" for the top.
        """
        order, path = self._present(), path.strip("/")
        prefix = path + "/" if path else ""
        found = {
            name: TreeNode(name, prefix + name, 1, True)
            for name in self._names(order, path)
            if not after or name + "/" > after + "/"
        }
        at, n = bisect_left(order.keys, prefix + after + _AFTER_SLASH if after else prefix), 0
        while n < limit and at < len(order.keys) and order.keys[at].startswith(prefix):
            name = order.keys[at][len(prefix) :].partition("/")[0]
            if not name:  # the path itself, whose sensors are there already
                at += 1
                continue
            end = bisect_left(order.keys, prefix + name + _AFTER_SLASH, at)
            is_sensor = name in found
            below = int(order.before[end] - order.before[at])
            found[name] = TreeNode(name, prefix + name, below + is_sensor, is_sensor)
            at, n = end, n + 1
        return [found[name] for name in sorted(found, key=lambda name: name + "/")[:limit]]

    def _names(self, order: _Order, parent: str) -> list[str]:
        """Names of the sensors that have this parent."""
        at = bisect_left(order.keys, parent + "/")
        if at == len(order.keys) or order.keys[at] != parent + "/":
            return []
        return self._siblings(parent, order.entries[at]).names

    # --- in order ------------------------------------------------------------------------------------

    def siblings(self, pattern: str = "**", start: str = "") -> Iterator[Siblings]:
        """Sensors whose path matches, parent by parent, in order.

        Parameters
        ----------
        start : begin with this parent, or the next one where it has gone.

        Raises
        ------
        ConfigError : the pattern can't be one.
        """
        whole = pattern_regex(pattern)
        matches = _Matcher(pattern)
        order, fixed = self._present(), _fixed_prefix(pattern)
        at = bisect_left(order.keys, max(fixed, start + "/" if start else ""))
        while at < len(order.keys) and order.keys[at].startswith(fixed):
            parent = order.keys[at][:-1]
            if matches.parent(parent):
                found = self._siblings(parent, order.entries[at])
                if not matches.everything:
                    hits = [i for i, path in enumerate(found.paths()) if whole.fullmatch(path)]
                    found = found if len(hits) == len(found.names) else found.take(hits)
                if found.names:
                    yield found
            at += 1

    def of_parent(self, parent: str) -> Siblings | None:
        """The sensors with this parent; None where there are none."""
        order = self._present()
        at = bisect_left(order.keys, parent + "/")
        if at == len(order.keys) or order.keys[at] != parent + "/":
            return None
        return self._siblings(parent, order.entries[at])

    def _siblings(self, parent: str, entries: list[_Entry]) -> Siblings:
        directory = self._directory
        if len(entries) == 1 and entries[0][1] is None:
            slot = entries[0][0]
            names, column = self._by_name(slot)
            ids = directory.sensors(slot)[column]
            return Siblings(parent, names, np.full(len(names), slot, np.uint32), column, ids)
        rows: list[tuple[str, int, int, int]] = []
        for slot, mine in entries:
            ids = directory.sensors(slot).tolist()
            for i in range(len(ids)) if mine is None else mine:
                name = directory.sensor_path(slot, i).rpartition("/")[2]
                rows.append((name, slot, i, ids[i]))
        rows.sort()
        slots, columns, sensors = zip(*[row[1:] for row in rows], strict=True)
        return Siblings(
            parent, [row[0] for row in rows], np.array(slots, np.uint32), np.array(columns, np.uint16),
            np.array(sensors, np.uint64),
        )  # fmt: skip

    def _by_name(self, slot: int) -> tuple[list[str], npt.NDArray[np.uint16]]:
        """Names of a flat layout, sorted, and their columns."""
        number = int(self._directory.layout_index[slot])
        known = self._sorted.get(number)
        if known is None:
            names = [column.name for column in self._directory.layouts[number].columns]
            order = sorted(range(len(names)), key=names.__getitem__)
            known = self._sorted[number] = [names[i] for i in order], np.array(order, np.uint16)
        return known


class _Matcher:
    """What a pattern says of parents, so that whole devices are passed over without looking at their sensors."""

    def __init__(self, pattern: str) -> None:
        head, _, last = pattern.strip("/").rpartition("/")
        self.everything = pattern.strip("/") == "**"
        self._regex = pattern_regex(head) if head and head != "**" and last != "**" else None

    def parent(self, parent: str) -> bool:
        """Whether sensors of this parent may match."""
        return self._regex is None or self._regex.fullmatch(parent) is not None


def _fixed_prefix(pattern: str) -> str:
    """Levels before the first that has a wildcard, the last level not among them: ``a/b/`` of ``a/b/*/c``.

    ``a/**`` also matches the sensor ``a`` itself, whose parent is above.
    """
    levels = pattern.strip("/").split("/")
    fixed: list[str] = []
    for level in levels[:-2] if levels[-1] == "**" else levels[:-1]:
        if "*" in level or "{" in level:
            break
        fixed.append(level)
    return "".join(level + "/" for level in fixed)
