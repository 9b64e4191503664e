"""The sensor directory: path ↔ id, groups and their slots, layouts.

A **sensor** is named by a path and known by a `SensorId`: the 64-bit xxh3 of its first path, which a rename
does not change. A **group** is what one device reports together. A *slot* is one (group, layout) pair; it is
a small running number, so that everything on the hot path indexes plain arrays. A new layout of a group gets
a new slot whose `previous` names the old one; the sensors' ids stay.

A device whose values have several types has one group for each, told apart by `part`; derived series are
parts too. All parts of a path live in the same shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.core.errors import ConfigError, CorruptionError, NotFound
from headrace.core.layouts import Layout
from headrace.core.paths import check_path, pattern_regex

U64 = npt.NDArray[np.uint64]
SHARD_BITS_EMBEDDED = 6
DERIVED = "~"
"""Parts of derived groups start with it. They have many series (eight aggregates of each of a million sensors),
which are found by path; their ids are not indexed."""


def sensor_id(path: str) -> int:
    """The `SensorId` of a sensor first named `path`: 64-bit xxh3 of its UTF-8 bytes."""
    return xxhash.xxh3_64_intdigest(path.encode())


def group_key(path: str, part: str = "") -> str:
    """The name of a group: its path, and its part where it has one."""
    return f"{path}#{part}" if part else path


class Growing:
    """An array that grows at the end in amortised constant time; `view` is what is filled."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._data = np.zeros(64, dtype)
        self.n = 0

    @property
    def view(self) -> npt.NDArray[Any]:
        """The filled part."""
        return self._data[: self.n]

    def extend(self, values: npt.ArrayLike, count: int) -> None:
        """Append `count` values (or one value `count` times)."""
        if self.n + count > len(self._data):
            grown = np.zeros(max(2 * len(self._data), self.n + count), self._data.dtype)
            grown[: self.n] = self.view
            self._data = grown
        self._data[self.n : self.n + count] = values
        self.n += count


@dataclass(frozen=True, slots=True)
class Selection:
    """Sensors that a pattern matched: parallel columns, one row a sensor, newest slot of each.

    ``slot: uint32[n]``, ``column: uint16[n]``, ``sensor: uint64[n]``.
    """

    slot: npt.NDArray[np.uint32]
    column: npt.NDArray[np.uint16]
    sensor: U64

    def __len__(self) -> int:
        return len(self.slot)


class SensorDirectory:
    """All sensors of a plant.

    One writer (the thread that runs the adapters); others may read slots they were handed. A million sensors
    in groups of 50 take about 20 MB and are defined in about a second.

    Parameters
    ----------
    shard_bits : k; a group's shard is the top k bits of the hash of its path. 6 embedded, 12 in a cluster.

    ``watchers`` are called after new groups were defined, before their first frame can flow: pipelines take
    them in there, and define the groups that they will write.
    """

    def __init__(self, shard_bits: int = SHARD_BITS_EMBEDDED) -> None:
        self.shard_bits = shard_bits
        self.layouts: list[Layout] = []
        self.paths: list[str] = []
        self.parts: list[str] = []
        self._layout_number: dict[int, int] = {}
        self._slot_of: dict[str, int] = {}
        self._layout_index = Growing(np.int32)
        self._first = Growing(np.int64)
        self._width = Growing(np.int32)
        self._shard = Growing(np.uint16)
        self._local = Growing(np.uint32)
        self._previous = Growing(np.int64)
        self._renewed = Growing(np.int64)
        self._group_id = Growing(np.uint64)
        self._sensor = Growing(np.uint64)
        self._n_local = np.zeros(1 << shard_bits, np.int64)
        self._ids = _IdIndex()
        self._place = np.empty(0, np.int32)
        self._renamed: set[int] = set()
        self.watchers: list[Callable[[], None]] = []

    # --- sizes and columns by slot -------------------------------------------------------------------

    @property
    def n_shards(self) -> int:
        """Number of shards, 2**k."""
        return 1 << self.shard_bits

    @property
    def n_slots(self) -> int:
        """Slots ever given out."""
        return len(self.paths)

    @property
    def n_sensors(self) -> int:
        """Sensors known (a sensor counts once, however many layouts it has been in)."""
        return len(self._ids)

    @property
    def shard(self) -> npt.NDArray[np.uint16]:
        """Shard of each slot."""
        return self._shard.view

    @property
    def local(self) -> npt.NDArray[np.uint32]:
        """Number of each slot within its shard, from 0: the row of its state."""
        return self._local.view

    @property
    def place(self) -> npt.NDArray[np.int32]:
        """Rank of each slot by (shard, local): the order in which state is touched from front to back."""
        if len(self._place) != self.n_slots:
            start = np.cumsum(self._n_local) - self._n_local
            self._place = (start[self.shard] + self.local).astype(np.int32)
        return self._place

    def shard_starts(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """Where each shard's frames start in a batch that is in shard order: int64[n_shards + 1].

        All boundaries are bisected at once, so that a large batch is looked at in a few hundred places only.
        """
        low = np.zeros(self.n_shards + 1, np.int64)
        high = np.full(self.n_shards + 1, len(slot))
        wanted = np.arange(self.n_shards + 1)
        for _ in range(len(slot).bit_length()):
            middle = (low + high) // 2
            before = (middle < high) & (self.shard[slot[np.minimum(middle, len(slot) - 1)]] < wanted)
            low, high = np.where(before, middle + 1, low), np.where(before, high, middle)
        return low

    @property
    def width(self) -> npt.NDArray[np.int32]:
        """Columns of each slot."""
        return self._width.view

    @property
    def previous(self) -> npt.NDArray[np.int64]:
        """The slot that each slot replaced; -1 for none."""
        return self._previous.view

    @property
    def renewed(self) -> npt.NDArray[np.int64]:
        """The slots that replaced another, in order."""
        return self._renewed.view

    @property
    def group_id(self) -> U64:
        """64-bit name of each slot's group (xxh3 of its key): the same for all its layouts."""
        return self._group_id.view

    @property
    def layout_index(self) -> npt.NDArray[np.int32]:
        """Index in `layouts` of each slot."""
        return self._layout_index.view

    def n_local(self, shard: int) -> int:
        """Slots of `shard`."""
        return int(self._n_local[shard])

    def layout(self, slot: int) -> Layout:
        """The layout of a slot."""
        return self.layouts[int(self._layout_index.view[slot])]

    def sensors(self, slot: int) -> U64:
        """Sensor ids of a slot's columns: uint64[D]."""
        if self.is_derived(slot):
            width = int(self._width.view[slot])
            return np.array([sensor_id(self.sensor_path(slot, i)) for i in range(width)], np.uint64)
        first = int(self._first.view[slot])
        ids: U64 = self._sensor.view[first : first + int(self._width.view[slot])]
        return ids

    def is_derived(self, slot: int) -> bool:
        """Whether a pipeline wrote the group; ids of its sensors are computed when somebody asks."""
        return self.parts[slot].startswith(DERIVED)

    def sensor_path(self, slot: int, column: int) -> str:
        """Path of one sensor."""
        return join_path(self.paths[slot], self.layout(slot).columns[column].name)

    def sensor_paths(
        self, slot: npt.NDArray[np.uint32], column: npt.NDArray[np.uint16]
    ) -> npt.NDArray[np.object_]:
        """Paths of many sensors; runs of one slot share the work."""
        out = np.empty(len(slot), np.object_)
        if not len(slot):
            return out
        first = np.flatnonzero(np.append(True, slot[1:] != slot[:-1]))
        columns, ends = column.tolist(), [*first[1:].tolist(), len(slot)]
        for number, a, b in zip(slot[first].tolist(), first.tolist(), ends, strict=True):
            path, names = self.paths[number], self.layout(number).columns
            out[a:b] = [join_path(path, names[c].name) for c in columns[a:b]]
        return out

    # --- defining ------------------------------------------------------------------------------------

    def define(self, path: str, layout: Layout, part: str = "", sensors: Sequence[int] | None = None) -> int:
        """Make a group known, or give it a new layout; the slot of (group, layout).

        Parameters
        ----------
        sensors : ids of the columns, where they differ from the hash of their paths (renamed sensors).

        Raises
        ------
        ConfigError : the path can't be one, two sensors have the same id, or another group has the sensor.
        """
        return int(self.define_many([path], layout, part, None if sensors is None else [sensors])[0])

    def define_many(
        self,
        paths: Sequence[str],
        layout: Layout,
        part: str = "",
        sensors: Sequence[Sequence[int]] | None = None,
    ) -> npt.NDArray[np.uint32]:
        """Define many groups of one layout: slots, uint32[len(paths)]. See `define`."""
        number = self._number_of(layout)
        slots = np.empty(len(paths), np.uint32)
        new: dict[str, int] = {}
        for i, path in enumerate(paths):
            known = self._slot_of.get(group_key(path, part))
            if known is not None and self._layout_index.view[known] == number:
                slots[i] = known
            else:
                slots[i] = self.n_slots + new.setdefault(path, len(new))
        if new:
            chosen = None if sensors is None else dict(zip(paths, sensors, strict=True))
            self._add(list(new), number, part, chosen)
            if not part.startswith(DERIVED):
                for watcher in self.watchers:
                    watcher()
        return slots

    def _number_of(self, layout: Layout) -> int:
        number = self._layout_number.get(layout.id)
        if number is None:
            number = self._layout_number[layout.id] = len(self.layouts)
            self.layouts.append(layout)
        elif self.layouts[number] != layout:
            raise ConfigError(
                f"two layouts have the same 64-bit id {layout.id:016x}; rename one of their signals"
            )
        return number

    def _add(
        self, paths: list[str], number: int, part: str, sensors: dict[str, Sequence[int]] | None
    ) -> None:
        layout, n = self.layouts[number], len(paths)
        names = [] if part.startswith(DERIVED) else [c.name for c in layout.columns]
        ids = np.empty((n, len(names)), np.uint64)
        group_ids = np.empty(n, np.uint64)
        shards = np.empty(n, np.uint16)
        previous = np.empty(n, np.int64)
        shift = 64 - self.shard_bits
        for i, path in enumerate(paths):
            check_path(path)
            key = group_key(path, part)
            previous[i] = self._slot_of.get(key, -1)
            shards[i] = sensor_id(path) >> shift
            group_ids[i] = sensor_id(key)
            ids[i] = sensors[path] if sensors else [sensor_id(join_path(path, name)) for name in names]
        if names:
            self._check_free(paths, part, names, ids, sensors is not None)
        first_slot, first_sensor = self.n_slots, self._sensor.n
        self._local.extend(self._next_locals(shards), n)
        self._shard.extend(shards, n)
        self._layout_index.extend(number, n)
        self._width.extend(layout.width, n)
        self._previous.extend(previous, n)
        again = first_slot + np.flatnonzero(previous >= 0)
        self._renewed.extend(again, len(again))
        self._group_id.extend(group_ids, n)
        self._first.extend(first_sensor + np.arange(n) * len(names), n)
        self._sensor.extend(ids.reshape(-1), ids.size)
        self._ids.add(ids.reshape(-1), first_sensor)
        if sensors is not None:
            self._renamed.update(range(first_slot, first_slot + n))
        # Last, because other threads take their number for that of all slots.
        self.parts += [part] * n
        self.paths += paths
        for i, path in enumerate(paths):
            self._slot_of[group_key(path, part)] = first_slot + i

    def _next_locals(self, shards: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        order = np.argsort(shards, kind="stable")
        count = np.bincount(shards, minlength=self.n_shards)
        start = np.cumsum(count) - count
        locals_ = np.empty(len(shards), np.int64)
        ranked = shards[order]
        locals_[order] = np.arange(len(shards)) - start[ranked] + self._n_local[ranked]
        self._n_local += count
        return locals_

    def _check_free(self, paths: list[str], part: str, names: list[str], ids: U64, renamed: bool) -> None:
        """Refuse an id that stands for another sensor, or for the same sensor of another group."""
        flat = ids.reshape(-1)
        ordered = np.argsort(flat, kind="stable")
        same = np.flatnonzero(flat[ordered][1:] == flat[ordered][:-1])
        if len(same):
            a, b = (divmod(int(ordered[same[0] + k]), len(names)) for k in (0, 1))
            self._refuse(join_path(paths[a[0]], names[a[1]]), join_path(paths[b[0]], names[b[1]]))
        rows = self._ids.find(flat)
        for i in np.flatnonzero(rows >= 0).tolist():
            row, column = divmod(i, len(names))
            slot, other = self._locate(int(rows[i]))
            path, known = join_path(paths[row], names[column]), self.sensor_path(slot, other)
            mine = group_key(paths[row], part) == group_key(self.paths[slot], self.parts[slot])
            # A group's new layout has the sensors it had; under another name only where that is said.
            if not mine or (path != known and not renamed):
                self._refuse(path, known)

    def _refuse(self, path: str, other: str) -> None:
        if path == other:
            raise ConfigError(f"sensor {path!r} is defined twice, by two groups; give one another path")
        raise ConfigError(
            f"sensors {path!r} and {other!r} have the same 64-bit id {sensor_id(path):016x}; rename one of them"
        )

    # --- finding -------------------------------------------------------------------------------------

    def slot(self, path: str, part: str = "") -> int:
        """The newest slot of a group.

        Raises
        ------
        NotFound : no such group.
        """
        slot = self._slot_of.get(group_key(path, part))
        if slot is None:
            raise NotFound(f"no group {group_key(path, part)!r}")
        return slot

    def _locate(self, index: int) -> tuple[int, int]:
        """(slot, column) of a sensor's row in the column of ids."""
        slot = int(np.searchsorted(self._first.view, index, side="right")) - 1
        return slot, index - int(self._first.view[slot])

    def locate(self, sensor: int) -> tuple[int, int]:
        """(newest slot, column) of a sensor id.

        Raises
        ------
        NotFound : no such sensor.
        """
        index = int(self._ids.find(np.array([sensor], np.uint64))[0])
        if index < 0:
            raise NotFound(f"no sensor with id {sensor:016x}")
        return self._locate(index)

    def find(self, pattern: str) -> Selection:
        """Sensors whose whole path matches `pattern`, in order of definition.

        The pattern is matched against groups first (all but the last level), then against the signals of the
        layouts: the work is by group, not by sensor.
        """
        whole = pattern_regex(pattern)
        head, _, last = pattern.strip("/").rpartition("/")
        head_regex = pattern_regex(head) if head and head != "**" and last != "**" else None
        slots: list[npt.NDArray[np.uint32]] = []
        columns: list[npt.NDArray[np.uint16]] = []
        for slot, own in self._slots_and_columns():
            path = self.paths[slot]
            layout = self.layout(slot)
            if head_regex is not None and layout.is_flat and not head_regex.fullmatch(path):
                continue
            hits = [i for i in own if whole.fullmatch(join_path(path, layout.columns[i].name))]
            if hits:
                slots.append(np.full(len(hits), slot, np.uint32))
                columns.append(np.array(hits, np.uint16))
        if not slots:
            return Selection(np.empty(0, np.uint32), np.empty(0, np.uint16), np.empty(0, np.uint64))
        slot_column, column = np.concatenate(slots), np.concatenate(columns)
        ids = np.concatenate([self.sensors(int(s[0]))[c] for s, c in zip(slots, columns, strict=True)])
        return Selection(slot_column, column, ids)

    def _slots_and_columns(self) -> Iterator[tuple[int, Sequence[int]]]:
        """Each group's newest slot with all its columns, then older ones with those that were dropped since."""
        for newest in sorted(self._slot_of.values()):
            yield newest, range(int(self._width.view[newest]))
            slot, previous = newest, int(self._previous.view[newest])
            seen: set[int] = set()
            while previous >= 0:
                seen.update(self.sensors(slot).tolist())
                slot, previous = previous, int(self._previous.view[previous])
                yield slot, [i for i, sensor in enumerate(self.sensors(slot).tolist()) if sensor not in seen]

    # --- saving --------------------------------------------------------------------------------------

    def to_bytes(self, first_slot: int = 0) -> bytes:
        """Slots from `first_slot` on as a Parquet file (one row a slot; layouts in its metadata)."""
        from headrace.core.directory_file import write_directory

        return write_directory(self, first_slot)

    def apply_bytes(self, data: bytes | memoryview) -> None:
        """Define what a file or journal record made by `to_bytes` holds; slots known already are passed over.

        Raises
        ------
        CorruptionError : not such a file, or its slots do not continue this directory's.
        """
        from headrace.core.directory_file import read_directory

        rows = read_directory(data)
        for first, paths, layout, part, sensors in rows:
            if first + len(paths) <= self.n_slots:
                continue
            if first > self.n_slots:
                raise CorruptionError(f"definitions start at slot {first}, expected {self.n_slots}")
            skip = self.n_slots - first
            rest = None if sensors is None else dict(zip(paths, sensors, strict=True))
            try:
                self._add(paths[skip:], self._number_of(layout), part, rest)
            except (ConfigError, TypeError, ValueError, LookupError) as e:
                raise CorruptionError(
                    f"definitions from slot {first} on contradict what is known: {e}"
                ) from e

    def overridden(self, slots: range) -> dict[int, list[int]]:
        """Slot → ids of its columns, of those slots that were given ids; the others' are the hashes of their paths."""
        return {slot: self.sensors(slot).tolist() for slot in sorted(self._renamed) if slot in slots}


def join_path(path: str, name: str) -> str:
    """Path of a group's column: below the group, the group itself (""), or beside it.

    ``../{self}_mean`` of the lone sensor ``a/b/c`` is ``a/b/c_mean``: so all lone sensors share one layout.
    """
    if name.startswith("../"):
        above, _, last = path.rpartition("/")
        return f"{above}/{name[3:].replace('{self}', last)}".lstrip("/")
    return f"{path}/{name}" if name else path


class _IdIndex:
    """Sensor id → row of the newest definition: a sorted array, and a dict for the most recent ids."""

    _RECENT_MAX = 65_536

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._rows = np.empty(0, np.int64)
        self._recent: dict[int, int] = {}
        self._n_both = 0

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent) - self._n_both

    def add(self, ids: U64, first_row: int) -> None:
        rows = np.arange(first_row, first_row + len(ids))
        if len(ids) > self._RECENT_MAX:
            self._merge(ids, rows)
            return
        at = self._find_sorted(ids)
        for sensor, row, old in zip(ids.tolist(), rows.tolist(), at.tolist(), strict=True):
            self._n_both += old >= 0 and sensor not in self._recent
            self._recent[sensor] = row
        if len(self._recent) > self._RECENT_MAX:
            self._merge(np.empty(0, np.uint64), np.empty(0, np.int64))

    def _merge(self, ids: U64, rows: npt.NDArray[np.int64]) -> None:
        recent = np.fromiter(self._recent, np.uint64, len(self._recent))
        recent_rows = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        ids = np.concatenate([self._sorted, recent, ids])
        rows = np.concatenate([self._rows, recent_rows, rows])
        order = np.lexsort((rows, ids))
        ids, rows = ids[order], rows[order]
        last = np.append(ids[1:] != ids[:-1], True)
        self._sorted, self._rows = ids[last], rows[last]
        self._recent, self._n_both = {}, 0

    def _find_sorted(self, ids: U64) -> npt.NDArray[np.int64]:
        at = np.searchsorted(self._sorted, ids)
        at[at == len(self._sorted)] = 0
        if not len(self._sorted):
            return np.full(len(ids), -1)
        return np.where(self._sorted[at] == ids, self._rows[at], -1)

    def find(self, ids: U64) -> npt.NDArray[np.int64]:
        """Newest row of each id; -1 where unknown."""
        rows = self._find_sorted(ids)
        if self._recent:
            for i, sensor in enumerate(ids.tolist()):
                rows[i] = self._recent.get(sensor, rows[i])
        return rows
