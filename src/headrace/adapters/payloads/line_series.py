"""Series and fields of line protocol that were seen, and where their values go: the memory of the scanner.

A series is known by the bytes of its measurement and tags as they stand in the line, a field by its series, the bytes
of its name and the kind of its value. Both are looked up once and then found by the scanner's tables; a dictionary of
the same bytes serves the reference path. Tables have a bound; when they reach it they begin anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import line_scanner as scanner
from headrace.adapters.payloads.base import PayloadError, RuleSettings
from headrace.adapters.payloads.hashed_rows import HashedRows
from headrace.adapters.payloads.keys import DTYPE_OF, DeviceGroup, DeviceGroups
from headrace.adapters.payloads.line_protocol import LineField, split_key, unescape
from headrace.adapters.payloads.line_scanner import LineTables
from headrace.adapters.payloads.tag_paths import TagPath, level
from headrace.core.errors import ConfigError
from headrace.core.events import RejectCode

PARTS = ("f64", "i64", "u64", "u8", "u32")
"""Value types by number: those of a float, an integer, an unsigned one, a truth value and a text."""
KEY_BYTES_MAX = 4_096
N_SERIES_MAX = 1_000_000
ARENA_BYTES_MAX = 128 << 20
_log = logging.getLogger("headrace.adapters.payloads")
_TAKES = {"f64": (0, 1, 2), "i64": (1, 2), "u64": (1, 2), "u8": (3,), "u32": (4,)}
_SAID = ("a float", "an integer", "an unsigned integer", "true or false", "a text")


class Refusal(NamedTuple):
    """Why a field can't be taken."""

    code: RejectCode
    detail: str


class LineSeries:
    """What an adapter knows of the lines it gets.

    Parameters
    ----------
    groups : the adapter's devices. settings : types, units and the bound on keys of a device.

    Attributes
    ----------
    n_widened : fields of series whose whole numbers go to a sensor of another number type.
    """

    def __init__(self, groups: DeviceGroups, naming: TagPath, settings: RuleSettings) -> None:
        self.n_widened = 0
        self._groups = groups
        self._naming = naming
        self._settings = settings
        self._state = np.zeros(2, np.int64)
        self._rows: list[DeviceGroup] = []
        self._row_of: dict[str, int] = {}
        self._slots = np.zeros((64, len(PARTS)), np.uint32)
        self._version = groups.version
        self._forget()

    def _forget(self) -> None:
        self._series = HashedRows(scanner.N_COLUMNS)
        self._fields = HashedRows(scanner.N_COLUMNS)
        self._arena = np.zeros(1 << 12, np.uint8)
        self._n_arena = 0
        self._seen = np.zeros(64, np.int64)
        self._series_of: dict[bytes, int] = {}
        self._known: dict[tuple[int, bytes, int], int | Refusal] = {}
        self._numbers: dict[tuple[int, str], int] = {}
        self._state[scanner.LAST] = 0

    @property
    def tables(self) -> LineTables:
        """What the scanner works with; anew after each change."""
        return LineTables(
            self._arena, self._series.rows, self._fields.rows, self._series.buckets, self._fields.buckets,
            self._seen, self._state,
        )  # fmt: skip

    def make_room(self) -> None:
        """Begin anew where the tables have reached their bound; only between slices."""
        if self._series.n >= N_SERIES_MAX or self._n_arena >= ARENA_BYTES_MAX:
            self._forget()

    # --- looking up ----------------------------------------------------------------------------------

    def series(self, key: bytes) -> int:
        """The series of a line's key.

        Raises
        ------
        PayloadError : it is too long, malformed, or can't name a device.
        """
        known = self._series_of.get(key)
        return self._new_series(key) if known is None else known

    def _new_series(self, key: bytes) -> int:
        if len(key) > KEY_BYTES_MAX:
            detail = f"measurement and tags have {len(key):,} bytes, expected at most {KEY_BYTES_MAX:,}"
            raise PayloadError(RejectCode.TOO_LARGE, detail)
        path = self._naming.path(*split_key(key))
        row = self._row_of.get(path)
        if row is None:
            is_alone = self._version == self._groups.version
            group = self._groups.group(path, self._settings)
            row = self._row_of[path] = len(self._rows)
            self._rows.append(group)
            self._set_slots(row)
            self._version = self._groups.version if is_alone else self._version
        start, end, hashed = self._keep(key, 0)
        number = self._series.add((start, end, -1, hashed, -1, row, -1, -1))
        self._series_of[key] = number
        return number

    def targets(self, series: int, fields: Sequence[LineField]) -> list[int | Refusal]:
        """Where the value of each field goes (part and column), or why it can't; makes new fields known."""
        known = self._known
        found = [known.get((series, field.key, field.kind)) for field in fields]
        if None in found:
            refusals = self._admit(series, fields)
            found = [refusals.get(field.key) or known[series, field.key, field.kind] for field in fields]
        return found  # type: ignore[return-value]

    def _admit(self, series: int, fields: Sequence[LineField]) -> dict[bytes, Refusal]:
        """Make fields known; those that can't be, and why, for this time."""
        refusals: dict[bytes, Refusal] = {}
        group = self._rows[int(self._series.rows[series, scanner.GROUP])]
        names: dict[bytes, str] = {}
        new: dict[str, str] = {}
        for field in fields:
            try:
                names[field.key] = name = level(unescape(field.key))
                if name not in group.table.index and name not in new:
                    self._groups.check_key(group, name, len(new), self._settings)
                    new[name] = self._dtype(name, field)
            except UnicodeDecodeError as e:
                refusals[field.key] = Refusal(RejectCode.MALFORMED, f"the name of a field is not UTF-8: {e}")
            except PayloadError as e:
                refusals[field.key] = Refusal(e.code, e.detail)
        try:
            if new:
                self._extend(group, new)
        except ConfigError as e:
            refusals |= {
                key: Refusal(RejectCode.BAD_PATH, e.message) for key, name in names.items() if name in new
            }
        for field in fields:
            if field.key not in refusals and (series, field.key, field.kind) not in self._known:
                self._learn(series, field, names[field.key], group)
        return refusals

    def _dtype(self, name: str, field: LineField) -> str:
        """The value type of a field that is new. Raises PayloadError where it is declared as what it is not."""
        given = self._settings.types.get(name)
        if given is None:
            return PARTS[field.kind]
        dtype = DTYPE_OF[given]
        if field.kind not in _TAKES[dtype]:  # no sensor yet: it would keep for ever what is perhaps a mistake
            detail = f"field {name!r:.60} has {_SAID[field.kind]}, declared is {given}"
            raise PayloadError(RejectCode.WRONG_TYPE, detail)
        return dtype

    def _extend(self, group: DeviceGroup, new: dict[str, str]) -> None:
        is_alone = self._version == self._groups.version
        self._groups.extend(group, new, self._settings)
        self._set_slots(self._row_of[group.path])
        self._version = self._groups.version if is_alone else self._version

    def _learn(self, series: int, field: LineField, name: str, group: DeviceGroup) -> None:
        dtype, column = group.table.index[name]
        target: int | Refusal
        if field.kind in _TAKES.get(dtype, ()):
            target = PARTS.index(dtype) | column << scanner.PART_BITS
            if dtype != PARTS[field.kind]:
                self._widens(name, group, field, dtype)
        else:
            detail = f"field {name!r:.60} has {_SAID[field.kind]}, its sensor holds {dtype}"
            target = Refusal(RejectCode.WRONG_TYPE, detail)
        self._known[series, field.key, field.kind] = target
        start, end, hashed = self._keep(field.key, scanner.field_seed(series, field.kind))
        number = self._numbers.setdefault((series, name), len(self._numbers))
        if number >= len(self._seen):
            self._seen = np.concatenate([self._seen, np.zeros(len(self._seen), np.int64)])
        written = target if isinstance(target, int) else scanner.REFUSED
        self._fields.add((start, end, -1, hashed, series, field.kind, written, number))

    def _widens(self, name: str, group: DeviceGroup, field: LineField, dtype: str) -> None:
        """Take note that a field's whole numbers go to a sensor of another type; each is checked to be exact."""
        if not self.n_widened:
            _log.info(
                "%s of field %r of %s goes to a sensor of %s, where it is exact",
                _SAID[field.kind], name, group.path, dtype,
            )  # fmt: skip
        self.n_widened += 1

    def _keep(self, name: bytes, seed: int) -> tuple[int, int, int]:
        """Put a name into the arena: start, end, hash."""
        start, end = self._n_arena, self._n_arena + len(name)
        if end > len(self._arena):
            self._arena = np.concatenate([self._arena, np.zeros(max(end, len(self._arena)), np.uint8)])
        data = np.frombuffer(name, np.uint8)
        self._arena[start:end] = data
        self._n_arena = end
        return start, end, int(scanner.hash_name(data, seed))

    # --- slots ---------------------------------------------------------------------------------------

    def slots(self, series: npt.NDArray[np.int64], part: int) -> npt.NDArray[np.uint32]:
        """The newest slot of each series' device, for one part."""
        if self._version != self._groups.version:  # somebody else has given devices new keys
            for row in range(len(self._rows)):
                self._set_slots(row)
            self._version = self._groups.version
        slots: npt.NDArray[np.uint32] = self._slots[self._series.rows[series, scanner.GROUP], part]
        return slots

    def _set_slots(self, row: int) -> None:
        if row >= len(self._slots):
            self._slots = np.concatenate([self._slots, np.zeros_like(self._slots)])
        slots = self._rows[row].slots
        self._slots[row] = [slots.get(dtype, 0) for dtype in PARTS]
