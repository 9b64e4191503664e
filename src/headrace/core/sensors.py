"""The sensor directory: path ↔ id, groups and their slots, layouts.

A **sensor** is named by a path and known by a `SensorId`: the 64-bit xxh3 of its first path, which a rename
does not change. A **group** is what one device reports together. A *slot* is one (group, layout) pair; it is
a small running number, so that everything on the hot path indexes plain arrays. A new layout of a group gets
a new slot whose `previous` names the old one; the sensors' ids stay.

A device whose values have several types has one group for each, told apart by `part`; derived series are
parts too. All parts of a path live in the same shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.core.dead_bands import DeadBands
from headrace.core.errors import ConfigError, CorruptionError, NotFound
from headrace.core.growing import Growing, PackedTexts, PartNames
from headrace.core.id_index import IdIndex
from headrace.core.layouts import Layout
from headrace.core.paths import check_path, check_paths

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
SHARD_BITS_EMBEDDED = 6
_LOOKED_AT = 1 << 14  # slots of a batch, up to which all of them are
DERIVED = "~"
"""Parts of derived groups start with it. They have many series (eight aggregates of each of a million sensors),
which are found by path; their ids are not indexed."""


def sensor_id(path: str) -> int:
    """The `SensorId` of a sensor first named `path`: 64-bit xxh3 of its UTF-8 bytes."""
    return xxhash.xxh3_64_intdigest(path.encode())


def group_key(path: str, part: str = "") -> str:
    """The name of a group: its path, and its part where it has one."""
    return f"{path}#{part}" if part else path


def hashes(texts: list[bytes]) -> U64:
    """`sensor_id` of many paths in UTF-8."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts))


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

    One writer (the thread that runs the adapters); others may read slots they were handed. Ten million sensors
    in groups of 50 take 0.3 GB and are defined in some seconds; ten million lone ones 1.3 GB.

    Parameters
    ----------
    shard_bits : k; a group's shard is the top k bits of the hash of its path. 6 embedded, 12 in a cluster.

    ``watchers`` are called after new groups were defined, before their first frame can flow: pipelines take
    them in there, and define the groups that they will write. ``dead_bands``: of slots that have some.
    """

    def __init__(self, shard_bits: int = SHARD_BITS_EMBEDDED) -> None:
        self.shard_bits = shard_bits
        self.layouts: list[Layout] = []
        self.paths = PackedTexts()
        self.parts = PartNames()
        self._layout_number: dict[int, int] = {}
        self._groups = IdIndex()
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
        self._ids = IdIndex()
        self._place = np.empty(0, np.int32)
        self._places = self._place, np.empty(0, np.uint32)
        self._renamed: set[int] = set()
        self.watchers: list[Callable[[], None]] = []
        self.dead_bands: dict[int, DeadBands] = {}

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
        """Rank of each slot by (shard, local): the order in which state is touched from front to back.

        Of the slots that are known at one moment, though another thread defines more meanwhile.
        """
        n, place = self.n_slots, self._place
        if len(place) != n:
            shard = self.shard[:n]
            count = np.bincount(shard, minlength=self.n_shards)
            start = np.cumsum(count) - count
            place = self._place = (start[shard] + self.local[:n]).astype(np.int32)
        return place

    @property
    def places(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
        """`place`, and its inverse: the slot at each place."""
        place, known = self.place, self._places
        if known[0] is not place:
            at_place = np.empty(len(place), np.uint32)
            at_place[place] = np.arange(len(place), dtype=np.uint32)
            known = self._places = place, at_place
        return known

    def shard_starts(self, slot: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """Where each shard's frames start in a batch that is in shard order: int64[n_shards + 1].

        In a large batch all boundaries are bisected at once, so that it is looked at in a few hundred places only.
        """
        if len(slot) <= _LOOKED_AT:
            return np.searchsorted(self.shard[slot], np.arange(self.n_shards + 1))
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
    def first_sensor(self) -> npt.NDArray[np.int64]:
        """Number of the first sensor of each slot, below `n_sensor_rows`; the others follow. Derived slots have none."""
        return self._first.view

    @property
    def n_sensor_rows(self) -> int:
        """Sensors of all slots, each counted once a slot."""
        return self._sensor.n

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
        if len(slot) < 2:
            out[:] = [self.sensor_path(*one) for one in zip(slot.tolist(), column.tolist(), strict=True)]
            return out
        first = np.flatnonzero(np.append(True, slot[1:] != slot[:-1]))
        columns, ends = column.tolist(), [*first[1:].tolist(), len(slot)]
        for number, a, b in zip(slot[first].tolist(), first.tolist(), ends, strict=True):
            path, names = self.paths[number], self.layout(number).columns
            out[a:b] = [join_path(path, names[c].name) for c in columns[a:b]]
        return out

    def set_dead_bands(self, slots: Iterable[int], bands: DeadBands | None) -> None:
        """Say what is left out of some slots from now on; None for nothing."""
        for slot in slots:
            if bands is None:
                self.dead_bands.pop(slot, None)
            else:
                self.dead_bands[slot] = bands

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
        texts = _encoded(paths)
        slots = self._known(texts, part)
        is_same = slots >= 0
        is_same[is_same] = self.layout_index[slots[is_same]] == number
        fresh: dict[str, int] = {}
        n_slots = self.n_slots
        for i in np.flatnonzero(~is_same).tolist():
            slots[i] = n_slots + fresh.setdefault(paths[i], len(fresh))
        if fresh:
            given: dict[int, Sequence[int]] = {}
            if sensors is not None:
                chosen = dict(zip(paths, sensors, strict=True))
                given = {i: chosen[path] for i, path in enumerate(fresh)}
            new = texts if len(fresh) == len(texts) else _encoded(list(fresh))
            self._append(new, np.full(len(new), number), [part] * len(new), given)
            if not part.startswith(DERIVED):
                for watcher in self.watchers:
                    watcher()
        return slots.astype(np.uint32)

    def _known(self, texts: list[bytes], part: str) -> I64:
        """Newest slot of each group; -1 where there is none."""
        slots = self._groups.find(hashes(_keys(texts, [part] * len(texts))))
        if len(slots) and slots[0] >= 0 and (np.diff(slots) == 1).all():
            number = self.parts.number_of(part)
            if self.paths.has_at(int(slots[0]), texts) and (self.parts.number[slots] == number).all():
                return slots
        for i in np.flatnonzero(slots >= 0).tolist():
            self._check_key(int(slots[i]), texts[i], part)
        return slots

    def _check_key(self, slot: int, text: bytes, part: str) -> None:
        """Refuse a group whose id is that of another one."""
        if self.paths.bytes_of(slot) != text or self.parts[slot] != part:
            known, other = group_key(text.decode(), part), group_key(self.paths[slot], self.parts[slot])
            raise ConfigError(f"groups {known!r} and {other!r} have the same 64-bit id; rename one of them")

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

    def _append(
        self, texts: list[bytes], layout_index: I64, parts: list[str], given: Mapping[int, Sequence[int]]
    ) -> None:
        """Give slots to groups, all of them or none: which layout and part each has; `given`: ids by row."""
        check_paths(texts)
        keys = _keys(texts, parts)
        group_id = hashes(keys)
        previous = self._previous_of(group_id, keys)
        width = np.array([one.width for one in self.layouts], np.int64)[layout_index]
        n_ids = np.where([part.startswith(DERIVED) for part in parts], 0, width)
        first = np.cumsum(n_ids) - n_ids
        path_hash = group_id if keys is texts else hashes(texts)
        new = _NewSlots(
            texts, parts, layout_index, first, path_hash, np.empty(int(n_ids.sum()), np.uint64), given
        )
        self._fill_ids(new, n_ids)
        order = np.argsort(new.ids, kind="stable")
        self._check_free(new, order)
        first_slot, first_sensor, n = self.n_slots, self._sensor.n, len(texts)
        shards = (path_hash >> np.uint64(64 - self.shard_bits)).astype(np.uint16)
        self._local.extend(self._next_locals(shards), n)
        self._shard.extend(shards, n)
        self._layout_index.extend(layout_index, n)
        self._width.extend(width, n)
        self._previous.extend(previous, n)
        again = first_slot + np.flatnonzero(previous >= 0)
        self._group_id.extend(group_id, n)
        self._first.extend(first_sensor + first, n)
        self._sensor.extend(new.ids, len(new.ids))
        self._ids.add(*_newest(new.ids[order], first_sensor + order))
        self._renamed.update(first_slot + row for row in given)
        self.parts.extend(parts)
        # Almost last, because other threads take their number for that of all slots.
        self.paths.extend(texts)
        order = np.argsort(group_id, kind="stable")
        self._groups.add(*_newest(group_id[order], first_slot + order))
        self._renewed.extend(again, len(again))

    def _previous_of(self, group_id: U64, keys: list[bytes]) -> I64:
        """The slot that each new one replaces, known already or defined with it; -1 for none."""
        previous = self._groups.find(group_id)
        for i in np.flatnonzero(previous >= 0).tolist():
            path, _, part = keys[i].partition(b"#")
            self._check_key(int(previous[i]), path, part.decode())
        order = np.argsort(group_id, kind="stable")
        for k in np.flatnonzero(group_id[order][1:] == group_id[order][:-1]).tolist():
            before, after = int(order[k]), int(order[k + 1])
            if keys[before] != keys[after]:
                raise ConfigError(
                    f"groups {keys[after].decode()!r} and {keys[before].decode()!r} have the same 64-bit id; "
                    "rename one of them"
                )
            previous[after] = self.n_slots + before
        return previous

    def _fill_ids(self, new: _NewSlots, n_ids: I64) -> None:
        """Ids of all sensors: hashes of their paths, or those that were given."""
        rows_with = np.flatnonzero(n_ids)
        for index in np.unique(new.layout_index[rows_with]).tolist():
            rows = rows_with[new.layout_index[rows_with] == index]
            texts = new.texts if len(rows) == len(new.texts) else [new.texts[i] for i in rows.tolist()]
            for j, column in enumerate(self.layouts[index].columns):
                if not column.name:
                    of_column = new.path_hash[rows]
                elif column.name.startswith("../"):
                    of_column = hashes([join_path(t.decode(), column.name).encode() for t in texts])
                else:
                    suffix = b"/" + column.name.encode()
                    of_column = hashes([text + suffix for text in texts])
                new.ids[new.first[rows] + j] = of_column
        for row, some in new.given.items():
            if len(some) != n_ids[row]:
                raise ConfigError(f"{len(some)} ids were given for the {int(n_ids[row])} sensors of a group")
            new.ids[new.first[row] : new.first[row] + len(some)] = some

    def _next_locals(self, shards: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        order = np.argsort(shards, kind="stable")
        count = np.bincount(shards, minlength=self.n_shards)
        start = np.cumsum(count) - count
        locals_ = np.empty(len(shards), np.int64)
        ranked = shards[order]
        locals_[order] = np.arange(len(shards)) - start[ranked] + self._n_local[ranked]
        self._n_local += count
        return locals_

    def _check_free(self, new: _NewSlots, order: I64) -> None:
        """Refuse an id that stands for another sensor, or for the same sensor of another group."""
        ordered = new.ids[order]
        for k in np.flatnonzero(ordered[1:] == ordered[:-1]).tolist():
            one, other = new.sensor(int(order[k + 1]), self.layouts), new.sensor(int(order[k]), self.layouts)
            self._check_one(one, other)
        rows = self._ids.find(ordered)
        for k in np.flatnonzero(rows >= 0).tolist():
            slot, column = self._locate(int(rows[k]))
            known = group_key(self.paths[slot], self.parts[slot]), self.sensor_path(slot, column), False
            self._check_one(new.sensor(int(order[k]), self.layouts), known)

    def _check_one(self, one: _NewSensor, other: _NewSensor) -> None:
        # A group's new layout has the sensors it had; under another name only where that is said.
        if one[0] != other[0] or (one[1] != other[1] and not one[2]):
            self._refuse(one[1], other[1])

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
        try:
            slot = int(self._known(_encoded([path]), part)[0])
        except ConfigError:
            slot = -1
        if slot < 0:
            raise NotFound(f"no group {group_key(path, part)!r}")
        return slot

    def slots_at(self, path: str, parts: Sequence[str]) -> dict[str, int]:
        """The newest slot of each of these parts of a path that there is: one look-up, where `slot` has one for each."""
        text = path.encode(errors="ignore")
        found = self._groups.find(hashes(_keys([text] * len(parts), list(parts))))
        out = {}
        for i in np.flatnonzero(found >= 0).tolist():
            try:
                out[parts[i]] = self.slot(path, parts[i])
            except NotFound:
                continue  # the id is that of another group
        return out

    def _locate(self, index: int) -> tuple[int, int]:
        """(slot, column) of a sensor's row in the column of ids."""
        slot = int(self._first.view.searchsorted(index, side="right")) - 1
        return slot, index - int(self._first.view[slot])

    def locate(self, sensor: int) -> tuple[int, int]:
        """(newest slot, column) of a sensor id.

        Raises
        ------
        NotFound : no such sensor.
        """
        index = self._ids.find_one(sensor)
        if index < 0:
            raise NotFound(f"no sensor with id {sensor:016x}")
        return self._locate(index)

    def find(self, pattern: str) -> Selection:
        """Sensors whose whole path matches `pattern`, in order of definition.

        Cost: about 50 ns a group for most patterns, and 10 ns a sensor that is found.
        """
        from headrace.core.finding import Finding

        slot, column = Finding(self, pattern).slots_and_columns()
        return Selection(slot, column, self._sensors_at(slot, column))

    def _sensors_at(self, slot: npt.NDArray[np.uint32], column: npt.NDArray[np.uint16]) -> U64:
        """Ids of some columns."""
        is_derived = np.array([name.startswith(DERIVED) for name in self.parts.names], np.bool_)
        derived = is_derived[self.parts.number[slot]] if len(slot) else np.empty(0, np.bool_)
        at = np.where(derived, 0, self._first.view[slot] + column)
        ids = self._sensor.view[at] if self._sensor.n else np.zeros(len(slot), np.uint64)
        if derived.any():
            paths = self.sensor_paths(slot[derived], column[derived]).tolist()
            ids[derived] = hashes([path.encode() for path in paths])
        return ids

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

        for rows in read_directory(data):
            last = rows.first + len(rows.texts)
            if last <= self.n_slots:
                continue
            if rows.first > self.n_slots:
                raise CorruptionError(f"definitions start at slot {rows.first}, expected {self.n_slots}")
            skip = self.n_slots - rows.first
            try:
                numbers = np.array([self._number_of(layout) for layout in rows.layouts], np.int64)
                given = {row - skip: ids for row, ids in rows.sensors.items() if row >= skip}
                self._append(rows.texts[skip:], numbers[rows.layout[skip:]], rows.parts[skip:], given)
            except (ConfigError, TypeError, ValueError, LookupError) as e:
                raise CorruptionError(
                    f"definitions from slot {rows.first} on contradict what is known: {e}"
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


_NewSensor = tuple[str, str, bool]
"""Key of the group, path of the sensor, and whether its id was given."""


@dataclass(frozen=True, slots=True)
class _NewSlots:
    """Groups that are about to get slots. ``first``: where the ids of each start in `ids`."""

    texts: list[bytes]
    parts: list[str]
    layout_index: I64
    first: I64
    path_hash: U64
    ids: U64
    given: Mapping[int, Sequence[int]]

    def sensor(self, at: int, layouts: list[Layout]) -> _NewSensor:
        """The sensor whose id is at a place of `ids`."""
        row = int(np.searchsorted(self.first, at, side="right")) - 1
        path, column = (
            self.texts[row].decode(),
            layouts[int(self.layout_index[row])].columns[at - int(self.first[row])],
        )
        return group_key(path, self.parts[row]), join_path(path, column.name), row in self.given


def _encoded(paths: Sequence[str]) -> list[bytes]:
    """Paths in UTF-8. Raises `ConfigError` for one that has no UTF-8."""
    try:
        return [path.encode() for path in paths]
    except UnicodeEncodeError:
        return [check_path(path).encode() for path in paths]


def _keys(texts: list[bytes], parts: list[str]) -> list[bytes]:
    """`group_key` of each, in UTF-8; `texts` itself where no group has a part."""
    if not any(parts):
        return texts
    return [text + b"#" + part.encode() if part else text for text, part in zip(texts, parts, strict=True)]


def _newest(ids: U64, rows: I64) -> tuple[U64, I64]:
    """The last row of each of some ids in rising order."""
    last = np.append(ids[1:] != ids[:-1], True)[: len(ids)]
    return (ids, rows) if last.all() else (ids[last], rows[last])
