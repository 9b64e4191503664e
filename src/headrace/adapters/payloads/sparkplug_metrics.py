"""Metrics that births of Sparkplug nodes have named, and where their values go: the memory of the scanner.

A *space* is what gives aliases their meaning: a node, or a device of one. Its birth names all its metrics anew; where it
names what is known already, nothing changes. Otherwise the space gets a new number, so that no alias of the old birth
is found any more; rows of the old one are thrown away when there are as many as of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import sparkplug_scanner as scanner
from headrace.adapters.payloads.base import PayloadError, RuleSettings
from headrace.adapters.payloads.keys import DeviceGroup, DeviceGroups
from headrace.adapters.payloads.sparkplug import (
    BDSEQ,
    CONTROL,
    DTYPE_OF,
    TEMPLATE,
    DataType,
    SparkplugMetric,
    not_taken,
)
from headrace.adapters.payloads.sparkplug_scanner import NodeMetricTables
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode
from headrace.core.layouts import DTYPES, Column, Kind

N_SPARE_ROWS = 65_536
TRUTH_LABELS = ("false", "true")

Place = Callable[[Mapping[str, str], str], tuple[str, str]]
"""Ids of a space and a metric's name → path of the group, name of the column. Raises PayloadError."""


class MetricRefusal(NamedTuple):
    """Why a metric's values can't be taken."""

    code: RejectCode
    detail: str


@dataclass(eq=False, slots=True)
class KnownMetric:
    """A metric that was named, by a birth or by its name and type in data.

    Parameters
    ----------
    row : in the scanner's table. target : part and column, `REFUSED`, or `SKIPPED`. group : row of its group.
    refusal : why it is refused.
    """

    name: str
    alias: int | None
    datatype: int
    unit: str | None = None
    row: int = -1
    target: int = scanner.REFUSED
    group: int = -1
    refusal: MetricRefusal | None = None

    @property
    def key(self) -> tuple[str, int | None, int]:
        """What data refer to."""
        return self.name, self.alias, self.datatype


@dataclass(eq=False)
class MetricSpace:
    """A node or device: its ids, and its metrics by name and alias."""

    ids: Mapping[str, str]
    number: int = -1
    metrics: dict[str, KnownMetric] = field(default_factory=dict)
    by_alias: dict[int, KnownMetric] = field(default_factory=dict)
    owners: dict[tuple[int, int], str] = field(default_factory=dict)
    """Whose sensor each (group, target) is."""
    dead_ms: int | None = None
    """Since when its metrics are marked as bad."""

    def stored(self) -> Iterator[KnownMetric]:
        """Metrics that are sensors."""
        return (metric for metric in self.metrics.values() if metric.target >= 0)


class SparkplugMetrics:
    """All spaces of an adapter, and the scanner's tables.

    Parameters
    ----------
    place : where a metric goes. settings : the bound on keys of a device.
    """

    def __init__(self, groups: DeviceGroups, place: Place, settings: RuleSettings) -> None:
        self._groups = groups
        self._place = place
        self._settings = settings
        self._spaces: list[MetricSpace] = []
        self._group_rows: list[DeviceGroup] = []
        self._row_of: dict[str, int] = {}
        self._slots = np.zeros((64, len(DTYPES)), np.uint32)
        self._version = groups.version
        self._n_live = 0
        self._forget()

    def _forget(self) -> None:
        self._rows = np.full((64, scanner.N_COLUMNS), -1, np.int64)
        self._n = 0
        self._arena = np.zeros(1 << 12, np.uint8)
        self._n_arena = 0
        self._buckets = np.full((2, 256), -1, np.int64)
        self._first = np.full(64, -1, np.int64)
        self._numbered: list[MetricSpace] = []

    def numbered(self, number: int) -> MetricSpace:
        """The space of a number."""
        return self._numbered[number]

    @property
    def tables(self) -> NodeMetricTables:
        """What the scanner works with; anew after each change."""
        return NodeMetricTables(self._arena, self._rows, self._buckets[0], self._buckets[1], self._first)

    def make_room(self) -> None:
        """Throw away what older births have left; only between slices."""
        if self._n <= 2 * self._n_live + N_SPARE_ROWS:
            return
        self._forget()
        for space in self._spaces:
            self._renumber(space)

    # --- naming --------------------------------------------------------------------------------------

    def space(self, ids: Mapping[str, str]) -> MetricSpace:
        """A new space, without metrics."""
        space = MetricSpace(ids)
        self._spaces.append(space)
        self._renumber(space)
        return space

    def define(self, space: MetricSpace, metrics: Sequence[SparkplugMetric]) -> None:
        """Take a birth's metrics for all that the space has."""
        named = {metric.name: metric for one in metrics for metric in _flattened(one, "")}
        is_known = len(named) == len(space.metrics) and all(
            (old := space.metrics.get(name)) is not None and old.key == new.key and not old.refusal
            for name, new in named.items()
        )
        if is_known:
            self._renew_units(space, named)
            return
        self._n_live += len(named) - len(space.metrics)
        space.metrics, space.owners = named, {}
        self._admit(space, list(named.values()))
        self._renumber(space)

    def admit(self, space: MetricSpace, metric: SparkplugMetric, name: str) -> KnownMetric | None:
        """A metric that no birth has named, by its own name and type; None where it does not give them."""
        if metric.name is None or metric.datatype not in DTYPE_OF:
            return None
        alias = None if metric.alias in space.by_alias else metric.alias
        known = KnownMetric(name, alias, metric.datatype, metric.unit)
        space.metrics[name] = known
        self._n_live += 1
        self._admit(space, [known])
        self._add(space, [known])
        return known

    def _renumber(self, space: MetricSpace) -> None:
        """Give a space a new number, and add its metrics under it."""
        space.number = len(self._numbered)
        self._numbered.append(space)
        if space.number >= len(self._first):
            self._first = np.concatenate([self._first, np.full(len(self._first), -1, np.int64)])
        space.by_alias = {}
        self._add(space, list(space.metrics.values()))

    def _add(self, space: MetricSpace, metrics: Sequence[KnownMetric]) -> None:
        """Add a row for each metric."""
        names = [metric.name.encode() for metric in metrics]
        first, last = self._n, self._n + len(metrics)
        ends = self._n_arena + np.cumsum([len(name) for name in names], dtype=np.int64)
        self._make_long(last, int(ends[-1]) if names else 0)
        self._arena[self._n_arena : self._n_arena + sum(map(len, names))] = np.frombuffer(
            b"".join(names), np.uint8
        )
        rows = self._rows[first:last]
        rows[:, scanner.SPACE], rows[:, scanner.NEXT] = space.number, -1
        rows[:, scanner.END], rows[:, scanner.START] = ends, np.append(self._n_arena, ends[:-1])[: len(names)]
        for row, metric in zip(rows, metrics, strict=True):
            # A value whose sensor is of another type than the metric is turned by the reference.
            is_plain = metric.target < 0 or DTYPES[metric.target & 0xFF] == DTYPE_OF[metric.datatype]
            row[scanner.ALIAS] = scanner.NO_ALIAS if metric.alias is None else _signed(metric.alias)
            row[scanner.KIND], row[scanner.GROUP] = metric.datatype, metric.group
            row[scanner.TARGET] = metric.target if is_plain else scanner.REFUSED
        for number, metric in enumerate(metrics, first):
            metric.row = number
            if metric.alias is not None:
                space.by_alias[metric.alias] = metric
        self._n, self._n_arena = last, int(ends[-1]) if names else self._n_arena
        scanner.hash_names(self._arena, self._rows, first, last)
        if 4 * last > self._buckets.shape[1]:
            self._buckets = np.full((2, 4 << last.bit_length()), -1, np.int64)
            first = 0
        scanner.insert(self.tables, first, last)

    def _make_long(self, n_rows: int, n_bytes: int) -> None:
        """Make room for rows and bytes of names."""
        if n_rows > len(self._rows):
            rows = np.full((2 * n_rows, scanner.N_COLUMNS), -1, np.int64)
            rows[: self._n] = self._rows[: self._n]
            self._rows = rows
        if n_bytes > len(self._arena):
            arena = np.zeros(2 * n_bytes, np.uint8)
            arena[: self._n_arena] = self._arena[: self._n_arena]
            self._arena = arena

    # --- sensors -------------------------------------------------------------------------------------

    def _admit(self, space: MetricSpace, metrics: Sequence[KnownMetric]) -> None:
        """Decide where metrics go, and make new sensors known."""
        owners: dict[tuple[int, str], str] = {}
        new: dict[int, list[tuple[KnownMetric, str, Column]]] = {}
        places: list[tuple[KnownMetric, str]] = []
        for metric in metrics:
            metric.refusal = None
            if metric.name == BDSEQ or metric.name.startswith(CONTROL):
                metric.target = scanner.SKIPPED
                continue
            try:
                row, name, column = self._check(space, metric, new)
                other = owners.setdefault((row, name), metric.name)
                if other != metric.name:
                    detail = f"metrics {other!r:.60} and {metric.name!r:.60} would be one sensor; rename one"
                    raise PayloadError(RejectCode.BAD_PATH, detail)
            except PayloadError as e:
                metric.target, metric.refusal = scanner.REFUSED, MetricRefusal(e.code, e.detail)
                continue
            metric.group = row
            places.append((metric, name))
            if column is not None:
                new.setdefault(row, []).append((metric, DTYPE_OF[metric.datatype], column))
        for row, added in new.items():
            self._grow(row, added)
        for metric, name in places:
            self._aim(space, metric, name)
        self._renew_units(space, {metric.name: metric for metric, _ in places})

    def _check(
        self, space: MetricSpace, metric: KnownMetric, new: Mapping[int, Sequence[object]]
    ) -> tuple[int, str, Column | None]:
        """Group and name of a metric's sensor, and its column where that is new. Raises PayloadError."""
        if metric.datatype not in DTYPE_OF:
            raise PayloadError(RejectCode.WRONG_TYPE, not_taken(metric.datatype))
        if not metric.name:
            raise PayloadError(RejectCode.BAD_PATH, "a birth has a metric without a name")
        path, name = self._place(space.ids, metric.name)
        row = self._row_of.get(path)
        if row is None:
            is_alone = self._version == self._groups.version
            group = self._groups.group(path, self._settings)
            row = self._row_of[path] = len(self._group_rows)
            self._group_rows.append(group)
            self._changed(row, is_alone)
        group = self._group_rows[row]
        if name in group.table.index:
            return row, name, None
        self._groups.check_key(group, name, len(new.get(row, ())), self._settings, may_be_deep=True)
        return row, name, _column(name, metric)

    def _grow(self, row: int, added: Sequence[tuple[KnownMetric, str, Column]]) -> None:
        """Give a group more columns; those that another group has are refused, and no others."""
        is_alone = self._version == self._groups.version
        try:
            self._groups.add(self._group_rows[row], tuple((dtype, column) for _, dtype, column in added))
            self._changed(row, is_alone)
        except ConfigError as e:
            if len(added) == 1:
                added[0][0].refusal = MetricRefusal(RejectCode.BAD_PATH, e.message)
                return
            half = len(added) // 2
            self._grow(row, added[:half])
            self._grow(row, added[half:])

    def _aim(self, space: MetricSpace, metric: KnownMetric, name: str) -> None:
        """Point a metric at its sensor, if that holds such values."""
        if metric.refusal is not None:
            return
        table = self._group_rows[metric.group].table
        dtype, column = table.index[name]
        labels = table.parts[dtype].layout.columns[column].labels
        if _family(DTYPE_OF[metric.datatype], metric.datatype == DataType.BOOLEAN) != _family(
            dtype, labels == TRUTH_LABELS
        ):
            detail = (
                f"metric {metric.name!r:.60} is {DataType(metric.datatype).name}, its sensor holds {dtype}"
            )
            metric.refusal = MetricRefusal(RejectCode.WRONG_TYPE, detail)
            return
        target = DTYPES.index(dtype) | column << scanner.PART_BITS
        other = space.owners.setdefault((metric.group, target), metric.name)
        if other != metric.name:
            detail = f"metrics {other!r:.60} and {metric.name!r:.60} would be one sensor; rename one"
            metric.refusal = MetricRefusal(RejectCode.BAD_PATH, detail)
            return
        metric.target = target

    def _renew_units(self, space: MetricSpace, named: Mapping[str, KnownMetric]) -> None:
        """Give sensors the units that a birth says."""
        changed: dict[int, dict[str, str]] = {}
        for name, new in named.items():
            metric = space.metrics[name]
            if metric.target < 0 or new.unit is None:
                continue
            layout = self._group_rows[metric.group].table.parts[DTYPES[metric.target & 0xFF]].layout
            column = layout.columns[metric.target >> scanner.PART_BITS]
            if column.unit != new.unit:
                changed.setdefault(metric.group, {})[column.name] = new.unit
        for row, units in changed.items():
            is_alone = self._version == self._groups.version
            self._groups.renew(self._group_rows[row], units)
            self._changed(row, is_alone)

    # --- slots ---------------------------------------------------------------------------------------

    def slots(self, rows: npt.NDArray[np.int64], part: int) -> npt.NDArray[np.uint32]:
        """The newest slot of each group, for one part."""
        if self._version != self._groups.version:
            for row in range(len(self._group_rows)):
                self._set_slots(row)
            self._version = self._groups.version
        slots: npt.NDArray[np.uint32] = self._slots[rows, part]
        return slots

    def _changed(self, row: int, is_alone: bool) -> None:
        """Take note of a group's slots; `is_alone`: nobody else has changed groups before."""
        self._set_slots(row)
        self._version = self._groups.version if is_alone else self._version

    def _set_slots(self, row: int) -> None:
        if row >= len(self._slots):
            self._slots = np.concatenate([self._slots, np.zeros_like(self._slots)])
        slots = self._group_rows[row].slots
        self._slots[row] = [slots.get(dtype, 0) for dtype in DTYPES]


def _flattened(metric: SparkplugMetric, prefix: str) -> Iterator[KnownMetric]:
    """A metric, and behind a template its members by ``template.member``; definitions name nothing."""
    name = f"{prefix}{metric.name or ''}"
    datatype = metric.datatype or 0
    template = metric.value if metric.field == TEMPLATE else None
    if template is not None and template.is_definition:
        return
    if template is not None or datatype == DataType.TEMPLATE:
        yield KnownMetric(name, None if prefix else metric.alias, DataType.TEMPLATE)
        for member in template.metrics if template is not None else ():
            yield from _flattened(member, f"{name}.")
    else:
        yield KnownMetric(name, None if prefix else metric.alias, datatype, metric.unit)


def _signed(alias: int) -> int:
    """The bits of an unsigned integer as a signed one."""
    return alias - 2**64 if alias >= 2**63 else alias


def _column(name: str, metric: KnownMetric) -> Column:
    is_truth = metric.datatype == DataType.BOOLEAN
    is_discrete = is_truth or DTYPE_OF[metric.datatype] == "u32"
    unit = "ms" if metric.datatype == DataType.DATETIME and metric.unit is None else metric.unit or ""
    kind = Kind.DISCRETE if is_discrete else Kind.ANALOG
    return Column(name, kind, unit, labels=TRUTH_LABELS if is_truth else ())


def _family(dtype: str, is_truth: bool) -> str:
    """Number, truth value or text: values of one are never those of another."""
    if dtype == "u32":
        return "text"
    return "truth" if dtype == "u8" and is_truth else "number"
