"""What keys a device has sent so far, and as which columns.

A device's keys are sorted into parts by value type, columns in the order of appearance. Devices that have sent
the same keys in the same order share one `KeyTable`, so that a thousand equal devices have one set of layouts and
one set of plans (how the values of a message with these keys go into columns).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.base import PayloadError, RuleSettings, ValueType
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode
from headrace.core.layouts import DTYPES, Column, Kind, Layout
from headrace.core.paths import check_path, check_paths
from headrace.core.sensors import SensorDirectory, join_path

DTYPE_OF: dict[ValueType, str] = {"f64": "f64", "i64": "i64", "bool": "u8", "string": "u32"}
_STORED_AS_SENT = ("f64", "i64")
EXACT_MAX = 2**53
"""Integers up to this are exact in f64."""
I64_MAX = 2**63 - 1
N_PLANS_MAX = 256
N_COLUMNS_KEPT_MAX = 100_000
"""Columns of the newest tables, which stay for a while though no device has them."""
_CLASSES: dict[type, str] = {int: "n", float: "n", bool: "b", str: "s", type(None): "-"}
_TAKES = {"f64": "n", "i64": "n", "u8": "b", "u32": "s"}
_SAID = {"n": "a number", "b": "true or false", "s": "text", "x": "a list"}


@dataclass(frozen=True, eq=False)
class PartTable:
    """The columns of one value type."""

    layout: Layout

    @property
    def dtype(self) -> str:
        """The value type, which names the part of the group."""
        return self.layout.dtype


@dataclass(frozen=True, eq=False)
class PartPlan:
    """How the values of a message with given keys go into the columns of one part.

    Parameters
    ----------
    dtype : the part's value type; columns : uint16[n], ascending.
    pick : takes their n values out of the message's, as a tuple; None where they are all of them in order.
    is_whole : whether they are all columns of the part.
    """

    part: PartTable
    dtype: str
    columns: npt.NDArray[np.uint16]
    n: int
    pick: Any
    is_whole: bool


@dataclass(frozen=True, eq=False)
class RowPlan:
    """What becomes of the values of a message with given keys: parts, and refusals (code, detail, number).

    `is_lasting` says whether the next such message meets the same plan.
    """

    parts: tuple[PartPlan, ...]
    refusals: tuple[tuple[RejectCode, str, int], ...]
    is_lasting: bool


Signature = tuple[tuple[str, ...], tuple[str, ...]]
Added = tuple[tuple[str, Column], ...]
"""Columns to add, or to put in the places of those of the same names, as (value type, column)."""


@dataclass(eq=False)
class KeyTable:
    """The keys of a device, immutable but for its caches."""

    parts: dict[str, PartTable] = field(default_factory=dict)
    index: dict[str, tuple[str, int]] = field(default_factory=dict)
    plans: dict[Signature, RowPlan] = field(default_factory=dict)
    by_type: dict[tuple[tuple[str, ...], tuple[type, ...]], RowPlan] = field(default_factory=dict)
    following: WeakValueDictionary[Added, KeyTable] = field(default_factory=WeakValueDictionary)


class KeyTables:
    """The tables of all devices of an adapter: what is alike is there once, however it came about.

    Tables that no device has any more go, but for the newest ones: the next device often takes the same way. So a
    source that sends other keys all the time, or says the unit of one now so, now so, makes no more tables than it
    has devices; how many keys there may be is bounded by `DeviceGroups`.
    """

    def __init__(self) -> None:
        self.root = KeyTable()
        self._alike: WeakValueDictionary[tuple[int, ...], KeyTable] = WeakValueDictionary()
        self._alike[()] = self.root
        self._newest: deque[KeyTable] = deque()
        self._n_columns = 0

    def extended(self, table: KeyTable, new: Added) -> KeyTable:
        """The table with more columns, or others in their places; the same for the same."""
        known = table.following.get(new)
        if known is None:
            made = _extended(table, new)
            content = tuple(part.layout.id for part in made.parts.values())
            known = self._alike.get(content)
            if known is None:
                known = self._alike[content] = made
                self._keep(made)
            table.following[new] = known
        return known

    def _keep(self, table: KeyTable) -> None:
        self._newest.append(table)
        self._n_columns += len(table.index)
        while self._n_columns > N_COLUMNS_KEPT_MAX and len(self._newest) > 1:
            self._n_columns -= len(self._newest.popleft().index)


def _extended(table: KeyTable, new: Added) -> KeyTable:
    columns = {dtype: list(part.layout.columns) for dtype, part in table.parts.items()}
    index = dict(table.index)
    for dtype, column in new:
        some = columns.setdefault(dtype, [])
        if column.name in index:
            some[index[column.name][1]] = column
            continue
        index[column.name] = dtype, len(some)
        some.append(column)
    grown = {dtype for dtype, _ in new}
    parts = {
        dtype: PartTable(Layout(dtype, tuple(some))) if dtype in grown else table.parts[dtype]
        for dtype, some in columns.items()
    }
    return KeyTable(parts, index)


class DeviceGroup:
    """A device that sends messages: its path, its keys, the slots of its parts, its number among all devices."""

    def __init__(self, path: str, table: KeyTable, slots: dict[str, int], number: int = 0) -> None:
        self.path = path
        self.number = number
        self.table = table
        self.slots = slots
        self.segment = -1
        self.last_arrival_ns = 0


def classes_of(types: Iterable[type]) -> tuple[str, ...]:
    """What kind values of these types are: n number, b truth value, s text, - nothing, x no value at all."""
    return tuple([_CLASSES.get(kind, "x") for kind in types])


class DeviceGroups:
    """All devices of an adapter that takes messages.

    Parameters
    ----------
    n_max, n_sensors_max : bounds on devices and on keys of all of them; more are refused.
    owns_units : whether a unit that the settings do not give is none; else what is known of it stays.
    keeps_grids : whether values are looked up on the grids that sensors have already; else numbers are stored as they
        come, and a grid of an earlier configuration is none any more.

    Attributes
    ----------
    n_sensors : keys of all devices. version : changes whenever a device has got another slot.
    devices : all of them; each has the number of its place.
    """

    def __init__(
        self,
        directory: SensorDirectory,
        n_max: int = 100_000,
        n_sensors_max: int = 10_000_000,
        owns_units: bool = True,
        keeps_grids: bool = True,
    ) -> None:
        self.n_sensors = 0
        self.version = 0
        self.devices: list[DeviceGroup] = []
        self._directory = directory
        self._n_max = n_max
        self._n_sensors_max = n_sensors_max
        self._owns_units = owns_units
        self._keeps_grids = keeps_grids
        self._tables = KeyTables()
        self._by_path: dict[str, DeviceGroup] = {}

    @property
    def directory(self) -> SensorDirectory:
        """Where the groups are defined."""
        return self._directory

    def group(self, path: str, settings: RuleSettings) -> DeviceGroup:
        """The device at `path`; what the directory knows of it from earlier runs is kept.

        Raises
        ------
        PayloadError : bad-path, or unknown-topic where there are too many devices.
        """
        group = self._by_path.get(path)
        if group is None:
            try:
                check_path(path)
            except ConfigError as e:
                raise PayloadError(RejectCode.BAD_PATH, e.message) from None
            if len(self._by_path) >= self._n_max:
                raise PayloadError(RejectCode.UNKNOWN_TOPIC, f"more than {self._n_max:,} devices")
            group = self._by_path[path] = self._restored(path, settings)
            self.devices.append(group)
        return group

    def _restored(self, path: str, settings: RuleSettings) -> DeviceGroup:
        group = DeviceGroup(path, self._tables.root, {}, len(self._by_path))
        for dtype, slot in self._directory.slots_at(path, DTYPES).items():
            known = self._directory.layout(slot).columns
            self._grow(group, tuple((dtype, self._known(column, dtype, settings)) for column in known))
        return group

    def _known(self, column: Column, dtype: str, settings: RuleSettings) -> Column:
        """A column of the directory; what another source said of it (labels, and see `keeps_grids`) stays."""
        if not self._keeps_grids and dtype in _STORED_AS_SENT:
            column = replace(column, scale=1.0, offset=0.0, low=None, high=None)
        own = _column(column.name, dtype, settings)
        if self._owns_units and own == replace(column, unit=own.unit):
            return own
        return replace(column, unit=settings.units.get(column.name, column.unit))

    def extend(self, group: DeviceGroup, new: dict[str, str], settings: RuleSettings) -> None:
        """Give a device more keys (key → value type).

        Raises
        ------
        ConfigError : one of the sensors belongs to another group; nothing was changed.
        """
        self.add(group, tuple((dtype, _column(key, dtype, settings)) for key, dtype in new.items()))

    def add(self, group: DeviceGroup, added: Added) -> None:
        """Give a device more columns, as (value type, column). Raises as `extend`."""
        self._grow(group, added)

    def introduce(
        self,
        some: Sequence[DeviceGroup],
        keys: tuple[str, ...],
        values: tuple[Any, ...],
        settings: RuleSettings,
    ) -> None:
        """Make keys known, with values like these, of devices that have none yet: of all of them together.

        Nothing is done where one of them can't have all: `plan` has to say which, and why.
        """
        new: dict[str, str] = {}
        refusals: list[tuple[RejectCode, str, int]] = []
        for key, kind, value in zip(keys, classes_of(map(type, values)), values, strict=True):
            if kind != "-":
                self._admit(some[0], key, kind, value, settings, new, refusals)
        columns = tuple((dtype, _column(key, dtype, settings)) for key, dtype in new.items())
        if refusals or not columns or self.n_sensors + len(some) * len(columns) > self._n_sensors_max:
            return
        table, paths = self._tables.extended(self._tables.root, columns), [group.path for group in some]
        try:
            check_paths([f"{path}/{key}".encode() for path in paths for key in new])
            slots = {
                dtype: self._directory.define_many(paths, part.layout, dtype).tolist()
                for dtype, part in table.parts.items()
            }
        except ConfigError:
            return
        for number, group in enumerate(some):
            group.table, group.slots = table, {dtype: of[number] for dtype, of in slots.items()}
        self.n_sensors += len(some) * len(columns)
        self.version += 1

    def renew(self, group: DeviceGroup, units: Mapping[str, str]) -> None:
        """Give columns of a device other units; they keep their places."""
        columns = tuple(
            (dtype, replace(column, unit=units.get(column.name, column.unit)))
            for dtype, part in group.table.parts.items()
            for column in part.layout.columns
        )
        self.n_sensors -= len(columns)
        group.table = self._tables.root
        self._grow(group, columns)

    def place(self, group: DeviceGroup, layout: Layout, settings: RuleSettings) -> npt.NDArray[np.uint16]:
        """Which columns of a device are those of `layout`; makes them known, and as they are there.

        Raises
        ------
        PayloadError : one of them can't be, is one too many, or has another value type.
        """
        added: list[tuple[str, Column]] = []
        n_new = 0
        for column in layout.columns:
            dtype, at = group.table.index.get(column.name, ("", 0))
            if not dtype:
                self.check_key(group, column.name, n_new, settings)
                n_new += 1
            elif dtype != layout.dtype:
                detail = f"key {column.name!r:.60} has {layout.dtype}, its sensor holds {dtype}"
                raise PayloadError(RejectCode.WRONG_TYPE, detail)
            elif group.table.parts[dtype].layout.columns[at] == column:
                continue
            added.append((layout.dtype, column))
        try:
            if added:
                self._grow(group, tuple(added))
        except ConfigError as e:
            raise PayloadError(RejectCode.BAD_PATH, e.message) from None
        return np.array([group.table.index[column.name][1] for column in layout.columns], np.uint16)

    def _grow(self, group: DeviceGroup, added: Added) -> None:
        n_before, table = len(group.table.index), self._tables.extended(group.table, added)
        slots = dict(group.slots)
        for dtype in dict.fromkeys(dtype for dtype, _ in added):
            slots[dtype] = self._directory.define(group.path, table.parts[dtype].layout, dtype)
        group.table, group.slots = table, slots
        self.n_sensors += len(table.index) - n_before
        self.version += 1

    def plan(
        self, group: DeviceGroup, keys: tuple[str, ...], values: tuple[Any, ...], settings: RuleSettings
    ) -> RowPlan:
        """The plan for a message of a device; makes new keys known."""
        types = tuple(map(type, values))
        plan = group.table.by_type.get((keys, types))
        if plan is None:
            plan = self._plan(group, (keys, classes_of(types)), values, settings)
            if plan.is_lasting:
                _remember(group.table.by_type, (keys, types), plan)
        return plan

    def _plan(
        self, group: DeviceGroup, signature: Signature, values: tuple[Any, ...], settings: RuleSettings
    ) -> RowPlan:
        """The same, by kinds of values: 20 and 20.5 are both numbers."""
        known = group.table.plans.get(signature)
        if known is not None:
            return known
        keys, classes = signature
        refusals: list[tuple[RejectCode, str, int]] = []
        new: dict[str, str] = {}
        for key, kind, value in zip(keys, classes, values, strict=True):
            if key not in group.table.index and kind not in "-x":
                self._admit(group, key, kind, value, settings, new, refusals)
        # Other devices have the same table, but perhaps shorter paths, or a rule with settings of its own.
        is_lasting = not refusals
        if new:
            try:
                self.extend(group, new, settings)
            except ConfigError as e:
                refusals.append((RejectCode.BAD_PATH, e.message, len(new)))
                is_lasting = False
            known = group.table.plans.get(signature)
            if known is not None and not refusals:
                return known  # another device has gone this way
        plan = _plan_row(group.table, signature, refusals, is_lasting)
        if is_lasting:
            _remember(group.table.plans, signature, plan)
        return plan

    def _admit(
        self,
        group: DeviceGroup,
        key: str,
        kind: str,
        value: Any,
        settings: RuleSettings,
        new: dict[str, str],
        refusals: list[tuple[RejectCode, str, int]],
    ) -> None:
        """Decide on a key that the device has not sent before; what is refused here is so by the rule's settings."""
        try:
            self.check_key(group, key, len(new), settings)
        except PayloadError as e:
            refusals.append((e.code, e.detail, 1))
            return
        given = settings.types.get(key)
        if given is not None and kind == _TAKES[DTYPE_OF[given]]:
            new[key] = DTYPE_OF[given]
        elif given is not None:
            # No sensor yet: it would keep for ever the type that is declared, which is perhaps what is wrong.
            refusals.append((RejectCode.WRONG_TYPE, _wrong_type(key, kind, DTYPE_OF[given]), 1))
        elif kind == "n":
            new[key] = "i64" if type(value) is int and EXACT_MAX < abs(value) <= I64_MAX else "f64"
        else:
            new[key] = "u8" if kind == "b" else "u32"

    def check_key(
        self, group: DeviceGroup, key: str, n_new: int, settings: RuleSettings, may_be_deep: bool = False
    ) -> None:
        """Make sure that a device may have one more key, besides `n_new` that it is about to get.

        Parameters
        ----------
        may_be_deep : whether the key may be several levels.

        Raises
        ------
        PayloadError : unknown-tag where there are too many, bad-path where it can't name a sensor.
        """
        if len(group.table.index) + n_new >= settings.max_keys:
            detail = f"key {key!r:.60} would be one more than max_keys = {settings.max_keys}"
            raise PayloadError(RejectCode.UNKNOWN_TAG, detail)
        if self.n_sensors + n_new >= self._n_sensors_max:
            detail = f"key {key!r:.60} would be one more than the {self._n_sensors_max:,} sensors allowed"
            raise PayloadError(RejectCode.UNKNOWN_TAG, detail)
        try:
            if key:
                check_path(join_path(group.path, key))
            if "/" in key and not may_be_deep:
                raise ConfigError(f"key {key!r:.60} has a '/', which parts levels")
        except ConfigError as e:
            raise PayloadError(RejectCode.BAD_PATH, e.message) from None


def _column(key: str, dtype: str, settings: RuleSettings) -> Column:
    labels = ("false", "true") if dtype == "u8" else ()
    kind = Kind.DISCRETE if dtype in ("u8", "u32") else Kind.ANALOG
    return Column(key, kind, settings.units.get(key, ""), labels=labels)


def _remember(plans: dict[Any, RowPlan], key: Any, plan: RowPlan) -> None:
    if len(plans) >= N_PLANS_MAX:
        plans.clear()
    plans[key] = plan


def _plan_row(
    table: KeyTable, signature: Signature, refusals: list[tuple[RejectCode, str, int]], is_lasting: bool
) -> RowPlan:
    places: dict[str, list[tuple[int, int]]] = {}
    for position, (key, kind) in enumerate(zip(*signature, strict=True)):
        dtype, column = table.index.get(key, ("", 0))
        if kind == "x" or (dtype and kind not in ("-", _TAKES.get(dtype))):
            refusals.append((RejectCode.WRONG_TYPE, _wrong_type(key, kind, dtype), 1))
        elif dtype and kind != "-":
            places.setdefault(dtype, []).append((column, position))
    parts = []
    for dtype, some in places.items():
        some.sort()
        part = table.parts[dtype]
        columns = np.array([column for column, _ in some], np.uint16)
        pick = _picker([position for _, position in some], len(signature[0]))
        parts.append(PartPlan(part, dtype, columns, len(some), pick, len(some) == part.layout.width))
    return RowPlan(tuple(parts), tuple(refusals), is_lasting)


def _wrong_type(key: str, kind: str, dtype: str) -> str:
    expected = "a number, text, true or false"
    if dtype:
        expected = (
            _SAID[_TAKES[dtype]]
            if dtype in _TAKES
            else f"nothing from here: another source fills it with {dtype}"
        )
    return f"key {key!r:.60} has {_SAID[kind]}, expected {expected}"


def _picker(positions: list[int], n_values: int) -> Any:
    if positions == list(range(n_values)):
        return None
    if len(positions) == 1:
        (only,) = positions
        return lambda values: (values[only],)
    return itemgetter(*positions)
