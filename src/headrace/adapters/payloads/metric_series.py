"""Series of metrics that were seen, and where their values go: the memory of the scanner of metrics.

A series is one sensor (and one kind of value). It is looked up by its name once, and then found by the bytes of its
labels, which the scanner's table has. Tables have a bound; when they reach it they begin anew.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import metric_scanner as scanner
from headrace.adapters.payloads.base import PayloadError, RuleSettings
from headrace.adapters.payloads.hashed_rows import HashedRows
from headrace.adapters.payloads.keys import DTYPE_OF, DeviceGroup, DeviceGroups
from headrace.adapters.payloads.metric_points import VALUE, MetricName
from headrace.adapters.payloads.metric_scanner import MetricTables
from headrace.adapters.payloads.tag_paths import MEASUREMENT, TagPath, level
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode
from headrace.core.growing import Growing

PARTS = ("f64", "i64")
"""Value types by number: those of a float and of an integer."""
KEY_BYTES_MAX = 4_096
N_SERIES_MAX = 1_000_000
ARENA_BYTES_MAX = 256 << 20
NAMES_CHARS_MAX = 256 << 20
N_SYMBOLS_MAX = 1_000_000
_TAKES = {"f64": (0, 1), "i64": (1,)}
_SAID = ("a float", "an integer")


class _Names(HashedRows):
    """Names and whom they belong to, found by their hash."""

    def __init__(self) -> None:
        super().__init__(scanner.N_COLUMNS)
        self.arena = np.zeros(1 << 16, np.uint8)
        self.n_arena = 0
        self.row_of: dict[tuple[int, bytes], int] = {}

    def name(self, owner: int, name: bytes, series: int) -> int:
        """Make a name known; its row."""
        start, end = self.n_arena, self.n_arena + len(name)
        if end > len(self.arena):
            self.arena = np.concatenate([self.arena, np.zeros(max(end, len(self.arena)), np.uint8)])
        data = np.frombuffer(name, np.uint8)
        self.arena[start:end] = data
        self.n_arena = end
        row = self.add((start, end, -1, int(scanner.hash_name(data, owner)), owner, series))
        self.row_of[owner, name] = row
        return row


class MetricSeries:
    """What an adapter knows of the metrics it gets.

    Parameters
    ----------
    groups : the adapter's devices. naming : paths of devices by measurement and tags; where it does not name the
    measurement that names the sensor. settings : types, units and the bound on keys of a device.
    """

    def __init__(self, groups: DeviceGroups, naming: TagPath, settings: RuleSettings) -> None:
        self._groups = groups
        self._naming = naming
        self._settings = settings
        self._is_named_by_field = f"{{{MEASUREMENT}}}" in naming.group
        self._state = np.zeros(1, np.int64)
        self._scratch = np.zeros(KEY_BYTES_MAX, np.uint8)
        self._devices: list[DeviceGroup] = []
        self._device_of: dict[str, int] = {}
        self._slots = np.zeros((64, len(PARTS)), np.uint32)
        self._version = groups.version
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._names = _Names()
        self._symbol_of: dict[bytes, int] = {}
        self._series_of: dict[tuple[MetricName, int], int] = {}
        self._n_chars = 0
        self._device = Growing(np.int64)
        self._target = Growing(np.int64)
        self._state[:] = 0
        self._names.name(scanner.N_COLUMNS, b"", -1)  # the one before the first

    def make_room(self) -> None:
        """Begin anew where the tables have reached their bound; only between bodies."""
        names = self._names
        if (
            names.n >= N_SERIES_MAX
            or names.n_arena >= ARENA_BYTES_MAX
            or len(self._series_of) >= N_SERIES_MAX
            or self._n_chars >= NAMES_CHARS_MAX
        ):
            self.forget()

    def tables(self, symbols: npt.NDArray[np.int64]) -> MetricTables:
        """What the scanner works with; anew after each change."""
        names = self._names
        return MetricTables(names.arena, names.rows, names.buckets, self._state, symbols, self._scratch)

    # --- looking up ----------------------------------------------------------------------------------

    def series(self, name: MetricName, kind: int, unit: str) -> int:
        """The number of a series; makes a new one known.

        Raises
        ------
        PayloadError : it can't name a sensor, is one too many, or its sensor takes other values.
        """
        known = self._series_of.get((name, kind))
        if known is not None:
            return known
        path = self._naming.path(name.measurement, dict(name.tags))
        is_alone = self._version == self._groups.version
        group = self._groups.group(path, self._settings)
        device = self._device_number(group)
        key = self._key(name)
        if key not in group.table.index:
            self._admit(group, key, kind, name, unit)
        self._set_slots(device)
        self._version = self._groups.version if is_alone else self._version
        dtype, column = group.table.index[key]
        if kind not in _TAKES.get(dtype, ()):
            raise PayloadError(
                RejectCode.WRONG_TYPE, f"{key!r:.60} has {_SAID[kind]}, its sensor holds {dtype}"
            )
        number = len(self._series_of)
        self._device.extend(device, 1)
        self._target.extend(PARTS.index(dtype) | column << scanner.PART_BITS, 1)
        self._series_of[name, kind] = number
        self._n_chars += sum(map(len, (name.measurement, name.field, *chain.from_iterable(name.tags))))
        return number

    def _key(self, name: MetricName) -> str:
        """The last level of the sensor's path."""
        if self._is_named_by_field:
            return level(name.field)
        return level(name.measurement if name.field == VALUE else f"{name.measurement}_{name.field}")

    def _admit(self, group: DeviceGroup, key: str, kind: int, name: MetricName, unit: str) -> None:
        self._groups.check_key(group, key, 0, self._settings)
        settings = self._settings
        unit = settings.units.get(key) or settings.units.get(name.measurement) or unit
        if unit:
            settings = settings.model_copy(update={"units": {key: unit}})
        given = settings.types.get(key) or settings.types.get(name.measurement)
        dtype = PARTS[kind] if given is None else DTYPE_OF[given]
        if kind not in _TAKES.get(
            dtype, ()
        ):  # no sensor yet: it would keep for ever what is perhaps a mistake
            raise PayloadError(RejectCode.WRONG_TYPE, f"{key!r:.60} has {_SAID[kind]}, declared is {given}")
        try:
            self._groups.extend(group, {key: dtype}, settings)
        except ConfigError as e:
            raise PayloadError(RejectCode.BAD_PATH, e.message) from None

    def _device_number(self, group: DeviceGroup) -> int:
        number = self._device_of.get(group.path)
        if number is None:
            number = self._device_of[group.path] = len(self._devices)
            self._devices.append(group)
            if number >= len(self._slots):
                self._slots = np.concatenate([self._slots, np.zeros_like(self._slots)])
        return number

    def _set_slots(self, number: int) -> None:
        slots = self._devices[number].slots
        self._slots[number] = [slots.get(dtype, 0) for dtype in PARTS]

    def learn(self, owner: int, name: bytes, series: int = -1) -> int:
        """Make bytes known to the scanner, of a series or of what owns others; their row."""
        row = self._names.row_of.get((owner, name))
        if row is None:
            row = self._names.name(owner, name, series)
        return row

    def symbol(self, text: bytes) -> int:
        """Our number of a symbol; makes a new one known."""
        number = self._symbol_of.get(text)
        if number is None:
            number = self._symbol_of[text] = len(self._symbol_of)
            self._names.name(scanner.SYMBOL, text, number)
        return number

    # --- slots ---------------------------------------------------------------------------------------

    def targets(self, series: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Part and column of each series."""
        targets: npt.NDArray[np.int64] = self._target.view[series]
        return targets

    def slots(self, series: npt.NDArray[np.int64], part: int) -> npt.NDArray[np.uint32]:
        """The newest slot of each series' device, for one part."""
        if self._version != self._groups.version:
            for number in range(len(self._devices)):
                self._set_slots(number)
            self._version = self._groups.version
        slots: npt.NDArray[np.uint32] = self._slots[self._device.view[series], part]
        return slots
