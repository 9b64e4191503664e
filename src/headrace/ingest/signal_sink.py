"""An adapter's signals on their way to the intake: its own groups and slots in, those that are stored out.

The adapter meets a directory of its own, in which its signals are as its source has them. For each group that it defines
there, groups of the plant are defined at once, by what `headrace.ingest.signal_rules` says: other names, grids, units and
limits, dead bands, some columns left out. A batch gets the slots of those groups on its way through; its values are
copied only where columns are left out, or go to several devices.

**Calibrations.** From its date on a calibration has a layout of its own, and each frame goes to that of its time, also
where it comes late. Layouts are defined in the order of their dates, so that the later one is always the newer one.

Cost: some ns a frame. An adapter without rules has no such sink, so it costs nothing there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.base import Ack, Sink
from headrace.core.clock import NO_TIME, NS, Clock
from headrace.core.dead_bands import DeadBands, SignalBand
from headrace.core.errors import PluginError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch, Shape
from headrace.core.growing import Growing
from headrace.core.layouts import Column, Layout
from headrace.core.quality import CLASS_MASK, Quality
from headrace.core.sensors import SensorDirectory, join_path
from headrace.ingest.normalize import YEAR_2000_NS
from headrace.ingest.signal_rules import SignalRules, TakenSignal, TreatedColumn

NEVER_NS = 2**63 - 1
_AHEAD_NS = 86_400 * NS
_WHOLE, _APART = 0, 1
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, slots=True)
class _Form:
    """What columns become: (from when on, layout), in order, the first from `NO_TIME`, and their dead bands."""

    layouts: tuple[tuple[int, Layout], ...]
    bands: tuple[SignalBand | None, ...]

    def dead_bands(self, era: int, adapter: str) -> DeadBands | None:
        """The dead bands of an era."""
        return DeadBands.of(self.bands, self.layouts[era][1], adapter)


@dataclass(frozen=True, eq=False, slots=True)
class _Share:
    """Columns of an own group that are stored as one group."""

    path: str
    part: str
    columns: tuple[int, ...]
    form: _Form


@dataclass(eq=False, slots=True)
class _Group:
    """An own group as it was defined last: its shares and their rows, and the bands that the adapter gave it."""

    slot: int
    layout: Layout
    shares: tuple[_Share, ...] = ()
    rows: tuple[int, ...] = ()
    bands: DeadBands | None = None


class OwnDirectory(SensorDirectory):
    """What an adapter knows of its signals; what it defines here is defined in the plant's directory.

    Parameters
    ----------
    plant : where groups are stored. now_ns : which calibrations have begun.
    """

    def __init__(self, plant: SensorDirectory, rules: SignalRules, now_ns: Callable[[], int]) -> None:
        super().__init__()
        self.plant = plant
        self._rules = rules
        self._now_ns = now_ns
        self._own: dict[tuple[str, str], _Group] = {}
        self._of_slot: dict[int, _Group] = {}
        self._looked_for: set[tuple[str, str]] = set()
        self._columns: dict[tuple[Any, ...], tuple[TreatedColumn, object]] = {}
        self._forms: dict[tuple[Any, ...], _Form] = {}
        # By own slot: the slot to which its newest frames go as a whole, -1 where it is taken apart; how it is taken, and
        # its row, or where its cells begin.
        self._direct = Growing(np.int64)
        self._how, self._at = Growing(np.uint8), Growing(np.int64)
        # By cell, a column of an own slot that is taken apart: row and column where it goes; row -1 for nowhere.
        self._cell_row, self._cell_column = Growing(np.int64), Growing(np.uint16)
        # By row, a group that is stored: its width; the slot of its first era; of later ones from when on, and the slot.
        self._row_width, self._first_slot = Growing(np.int64), Growing(np.int64)
        self._from_ns, self._later_slot = np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64)
        self._waiting: dict[int, _Share] = {}
        self._latest_ns, self._next_ns = NO_TIME, NEVER_NS

    # --- what the adapter defines --------------------------------------------------------------------

    def define_many(
        self,
        paths: Sequence[str],
        layout: Layout,
        part: str = "",
        sensors: Sequence[Sequence[int]] | None = None,
    ) -> U32:
        """Define own groups, and what they are stored as. Raises as `SensorDirectory.define`."""
        known = [self._own.get((path, part)) for path in paths]
        same = [one.slot for one in known if one is not None and one.layout == layout]
        if len(same) == len(paths):
            return np.array(same, np.uint32)
        stored = self._stored(list(dict.fromkeys(paths)), layout, part)
        slots = super().define_many(paths, layout, part, sensors)
        for path, slot in zip(paths, slots.tolist(), strict=True):
            group = self._own[path, part] = self._of_slot[slot] = _Group(slot, layout)
            self._aim(group, *stored[path])
        return slots

    def set_dead_bands(self, slots: Iterable[int], bands: DeadBands | None) -> None:
        """Take the adapter's own dead bands; what the rules say of a signal counts more."""
        for slot in slots:
            group = self._of_slot[slot]
            group.bands = bands
            self._set_bands(group)

    def slots_at(self, path: str, parts: Sequence[str]) -> dict[str, int]:
        """As that of the plant's directory: what is stored there from earlier runs is known here, too."""
        self._remember(path, parts)
        return super().slots_at(path, parts)

    def slot(self, path: str, part: str = "") -> int:
        """As that of the plant's directory. Raises `NotFound`."""
        self._remember(path, [part])
        return super().slot(path, part)

    def become(self, rules: SignalRules) -> None:
        """Go by other rules from now on: all groups are stored as these say.

        Raises
        ------
        ConfigError : another group has one of the sensors; the old rules go on.
        """
        before, self._rules = self._rules, rules
        self._columns.clear()
        self._forms.clear()
        alike: dict[tuple[int, str], list[str]] = {}
        for (path, part), group in self._own.items():
            alike.setdefault((group.layout.id, part), []).append(path)
        try:
            found = [
                (part, self._stored(paths, self._own[paths[0], part].layout, part))
                for (_, part), paths in alike.items()
            ]
        except BaseException:
            self._rules = before
            raise
        for part, stored in found:
            for path, (shares, rows) in stored.items():
                self._aim(self._own[path, part], shares, rows)
        self._looked_for.clear()

    # --- what is stored ------------------------------------------------------------------------------

    def _stored(
        self, paths: Sequence[str], layout: Layout, part: str
    ) -> dict[str, tuple[tuple[_Share, ...], tuple[int, ...]]]:
        """Define what own groups are stored as: shares of each, and their rows."""
        by_path = {path: self._shares(path, layout, part) for path in paths}
        every = [share for shares in by_path.values() for share in shares]
        rows = iter(self._define_shares(every))
        return {path: (shares, tuple(next(rows) for _ in shares)) for path, shares in by_path.items()}

    def _shares(self, path: str, layout: Layout, part: str) -> tuple[_Share, ...]:
        places: dict[tuple[str, str], list[tuple[int, TreatedColumn]]] = {}
        left_out = []
        for number, column in enumerate(layout.columns):
            taken = self._rules.find(join_path(path, column.name))
            if taken is None:
                left_out.append(column.name or path)
                continue
            group, name, its_part = _place(path, column.name, part, taken)
            places.setdefault((group, its_part), []).append((number, self._column(column, name, part, taken)))
        if left_out:
            self._rules.tell_left_out(path, left_out)
        return tuple(
            _Share(group, its_part, tuple(n for n, _ in some), self._form(layout.dtype, [c for _, c in some]))
            for (group, its_part), some in places.items()
        )

    def _column(self, own: Column, name: str, part: str, taken: TakenSignal) -> TreatedColumn:
        """What becomes of a column; the same object for the same."""
        key = own, name, part, id(taken.treatment)
        if key not in self._columns:
            # The treatment is kept, so that its id stays its own.
            self._columns[key] = self._rules.column(own, name, part, taken), taken.treatment
        return self._columns[key][0]

    def _form(self, dtype: str, columns: list[TreatedColumn]) -> _Form:
        key = dtype, *map(id, columns)
        if key not in self._forms:
            begins = sorted({from_ns for column in columns for from_ns, _ in column.eras})
            layouts = [(at, Layout(dtype, tuple(column.at(at) for column in columns))) for at in begins]
            changed = [one for i, one in enumerate(layouts) if not i or one[1] != layouts[i - 1][1]]
            self._forms[key] = _Form(tuple(changed), tuple(column.band for column in columns))
        return self._forms[key]

    def _define_shares(self, shares: Sequence[_Share]) -> list[int]:
        """Define groups of the plant: a row each."""
        first, rows = self._row_width.n, {}
        alike: dict[tuple[int, str], list[int]] = {}
        for number, share in enumerate(shares):
            alike.setdefault((id(share.form), share.part), []).append(number)
        slots = np.zeros(len(shares), np.int64)
        later: list[tuple[int, list[int]]] = []
        for (_, part), numbers in alike.items():
            form = shares[numbers[0]].form
            if len(form.layouts) == 1:
                paths = [shares[number].path for number in numbers]
                slots[numbers] = self.plant.define_many(paths, form.layouts[0][1], part)
                self._tell_bands(slots[numbers].tolist(), form.dead_bands(0, self._rules.adapter))
                continue
            for number in numbers:
                slots[number], *rest = self._define_eras(shares[number], self._now_ns())
                later.append((first + number, rest))
        self._first_slot.extend(slots, len(shares))
        self._row_width.extend([len(share.columns) for share in shares], len(shares))
        for row, rest in later:
            rows[row] = shares[row - first]
            self._begin_eras(row, rows[row], rest)
        return list(range(first, first + len(shares)))

    def _define_eras(self, share: _Share, now_ns: int) -> list[int]:
        """Slots of the eras of a group that have begun; those that the plant has of an earlier run, in this order, stay."""
        begun = [layout for from_ns, layout in share.form.layouts if from_ns <= now_ns]
        slot = self.plant.slots_at(share.path, [share.part]).get(share.part, -1)
        chain: list[int] = []
        while slot >= 0 and len(chain) < len(begun):
            chain.insert(0, slot)
            slot = int(self.plant.previous[slot])
        layouts = [self.plant.layout(one) for one in chain]
        n = next(n for n in range(len(chain), -1, -1) if layouts[len(chain) - n :] == begun[:n])
        slots = chain[len(chain) - n :]
        slots += [self.plant.define(share.path, layout, share.part) for layout in begun[n:]]
        for era, one in enumerate(slots):
            self._tell_bands([one], share.form.dead_bands(era, self._rules.adapter))
        return slots

    def _begin_eras(self, row: int, share: _Share, slots: Sequence[int]) -> None:
        """Take note of the eras of a row after its first one; what begins later is waited for."""
        later = share.form.layouts[1:]
        self._make_room(row + 1, len(later))
        for k, (slot, (from_ns, _)) in enumerate(zip(slots, later, strict=False)):
            self._from_ns[row, k], self._later_slot[row, k] = from_ns, slot
            self._latest_ns = max(self._latest_ns, from_ns)
        if len(slots) < len(later):
            self._waiting[row] = share
            self._next_ns = min(self._next_ns, later[len(slots)][0])
        else:
            self._waiting.pop(row, None)

    def _make_room(self, n_rows: int, n_eras: int) -> None:
        rows, eras = self._from_ns.shape
        if n_rows > rows or n_eras > eras:
            shape = max(2 * n_rows, rows), max(n_eras, eras)
            from_ns, later = np.full(shape, NEVER_NS), np.zeros(shape, np.int64)
            from_ns[:rows, :eras], later[:rows, :eras] = self._from_ns, self._later_slot
            self._from_ns, self._later_slot = from_ns, later

    def _advance(self, now_ns: int) -> None:
        """Define the layouts of calibrations that have begun meanwhile."""
        self._next_ns = NEVER_NS
        for row, share in list(self._waiting.items()):
            self._begin_eras(row, share, self._define_eras(share, now_ns)[1:])
        for group in self._own.values():
            self._point(group)
            if group.bands is not None:
                self._set_bands(group)

    def _point(self, group: _Group) -> None:
        """Send the newest frames of an own slot, if they are not taken apart, straight to where they go."""
        if self._how.view[group.slot] == _WHOLE:
            n_eras = len(group.shares[0].form.layouts)
            self._direct.view[group.slot] = self._slots_of(group.rows[0], n_eras)[-1]

    def _aim(self, group: _Group, shares: tuple[_Share, ...], rows: tuple[int, ...]) -> None:
        """Send the frames of an own slot to rows."""
        for row in group.rows:
            self._waiting.pop(row, None)
        group.shares, group.rows = shares, rows
        missing = self.n_slots - self._how.n
        if missing > 0:
            self._direct.extend(-1, missing)
            self._how.extend(_APART, missing)
            self._at.extend(0, missing)
        width = group.layout.width
        self._direct.view[group.slot] = -1
        if len(shares) == 1 and len(shares[0].columns) == width:
            self._how.view[group.slot], self._at.view[group.slot] = _WHOLE, rows[0]
            self._point(group)
        else:
            first = self._cell_row.n
            self._cell_row.extend(-1, width)
            self._cell_column.extend(0, width)
            for share, row in zip(shares, rows, strict=True):
                at = first + np.array(share.columns, np.int64)
                self._cell_row.view[at], self._cell_column.view[at] = row, np.arange(len(at))
            self._how.view[group.slot], self._at.view[group.slot] = _APART, first
        if group.bands is not None:
            self._set_bands(group)

    # --- dead bands ----------------------------------------------------------------------------------

    def _tell_bands(self, slots: list[int], bands: DeadBands | None) -> None:
        if bands is not None or any(slot in self.plant.dead_bands for slot in slots):
            self.plant.set_dead_bands(slots, bands)

    def _set_bands(self, group: _Group) -> None:
        """Put the adapter's own bands where the rules say none."""
        for share, row in zip(group.shares, group.rows, strict=True):
            for era, slot in enumerate(self._slots_of(row, len(share.form.layouts))):
                bands = share.form.dead_bands(era, self._rules.adapter)
                if group.bands is not None:
                    columns = list(share.columns)
                    change, heartbeat_ns = group.bands.change[columns], group.bands.heartbeat_ns[columns]
                    if bands is not None:
                        change = np.where(bands.change < 0, change, bands.change)
                        heartbeat_ns = np.where(bands.change < 0, heartbeat_ns, bands.heartbeat_ns)
                    bands = DeadBands(change, heartbeat_ns, self._rules.adapter)
                self._tell_bands([slot], bands)

    def _slots_of(self, row: int, n_eras: int) -> list[int]:
        """Slots of a row's eras that have begun."""
        first = [int(self._first_slot.view[row])]
        if n_eras == 1:
            return first
        later: list[int] = self._later_slot[row][self._from_ns[row] != NEVER_NS].tolist()
        return first + later

    # --- what is known from earlier runs -------------------------------------------------------------

    def _remember(self, path: str, parts: Sequence[str]) -> None:
        """Know own groups of a path that are stored since an earlier run."""
        new = [
            part for part in parts if (path, part) not in self._own and (path, part) not in self._looked_for
        ]
        self._looked_for.update((path, part) for part in new)
        named = None
        if new and self._rules.table is not None:
            named = [(one[len(path) + 1 :], self._rules.find(one)) for one in self._rules.below(path)]
        for part in new:
            found = self._from_plant(path, part) if named is None else self._from_table(path, part, named)
            if found:
                dtype = self.plant.layout(found[0][0]).dtype
                self.define(path, Layout(dtype, tuple(column for *_, column in found)), part)

    def _from_plant(self, path: str, part: str) -> list[tuple[int, int, Column]]:
        """Slot, place and own column of all that is stored of an own group."""
        slot = self.plant.slots_at(path, [part]).get(part)
        columns = () if slot is None else self.plant.layout(slot).columns
        out = []
        for at, column in enumerate(columns):
            taken = self._rules.find(join_path(path, column.name))
            assert slot is not None
            assert taken is not None
            out.append((slot, at, self._rules.own_column(column, column.name, taken)))
        return out

    def _from_table(
        self, path: str, part: str, named: Sequence[tuple[str, TakenSignal | None]]
    ) -> list[tuple[int, int, Column]]:
        """The same, where a table says where the columns `named` of the group go."""
        places: dict[tuple[str, str], tuple[int, dict[str, tuple[int, Column]]]] = {}
        out = []
        for own_name, taken in named:
            assert taken is not None
            group, name, its_part = _place(path, own_name, part, taken)
            if (group, its_part) not in places:
                slot = self.plant.slots_at(group, [its_part]).get(its_part, -1)
                columns = self.plant.layout(slot).columns if slot >= 0 else ()
                places[group, its_part] = slot, {one.name: (at, one) for at, one in enumerate(columns)}
            slot, known = places[group, its_part]
            if name in known:
                at, column = known[name]
                out.append((slot, at, self._rules.own_column(column, own_name, taken)))
        return sorted(out, key=lambda one: one[:2])

    # --- frames --------------------------------------------------------------------------------------

    def stored(self, batch: FrameBatch) -> list[FrameBatch]:
        """Frames of own groups as they are stored; fewer, or none, where signals are left out.

        Raises
        ------
        PluginError : a slot that was not defined: a defect of the adapter.
        """
        now_ns = self._now_ns()
        if now_ns >= self._next_ns:
            self._advance(now_ns)
        try:
            slot = self._direct.view[batch.slot]
        except IndexError:
            raise PluginError(
                f"adapter={batch.origin}: slot {int(batch.slot.max())} of a frame is unknown, {self._how.n} are defined; "
                "this is a defect of the adapter"
            ) from None
        if not batch.n_frames or (slot.min() >= 0 and self._are_of_now(batch.ts_ns, now_ns)):
            return [batch.with_(slot=slot.astype(np.uint32))]
        is_apart, at = self._how.view[batch.slot] == _APART, self._at.view[batch.slot]
        if not is_apart.any():
            return [batch.with_(slot=self._slots(at, batch.ts_ns, now_ns))]
        out = []
        whole, apart = np.flatnonzero(~is_apart), np.flatnonzero(is_apart)
        if len(whole):
            some = batch.take(whole)
            out.append(some.with_(slot=self._slots(at[whole], some.ts_ns, now_ns)))
        return out + self._taken_apart(batch if not out else batch.take(apart), at[apart], now_ns)

    def _are_of_now(self, ts_ns: I64, now_ns: int) -> bool:
        """Whether all times lie behind the newest calibration that has begun."""
        if self._latest_ns == NO_TIME:
            return True
        return bool(ts_ns.min() >= max(self._latest_ns, YEAR_2000_NS) and ts_ns.max() <= now_ns + _AHEAD_NS)

    def _slots(self, row: I64, ts_ns: I64, now_ns: int) -> U32:
        """The slot of each frame: that of the era in which its time lies; without a time that can be right, of now."""
        slot = self._first_slot.view[row]
        if not self._from_ns.size:
            return slot.astype(np.uint32)
        row = np.where(row < len(self._from_ns), row, -1)
        is_wrong = (ts_ns < YEAR_2000_NS) | (ts_ns > now_ns + _AHEAD_NS)
        ts_ns = np.where(is_wrong, now_ns, ts_ns)
        for k in range(self._from_ns.shape[1]):
            has_begun = (row >= 0) & (self._from_ns[row, k] <= ts_ns)
            slot = np.where(has_begun, self._later_slot[row, k], slot)
        return slot.astype(np.uint32)

    def _taken_apart(self, batch: FrameBatch, first_cell: I64, now_ns: int) -> list[FrameBatch]:
        """Frames whose columns are left out or go to several groups."""
        if batch.shape is Shape.WAVE:
            row = self._cell_row.view[first_cell]
            kept = np.flatnonzero(row >= 0)
            some = batch.take(kept)
            return [some.with_(slot=self._slots(row[kept], some.ts_ns, now_ns))] if len(kept) else []
        if batch.shape is Shape.DENSE:
            frame = np.repeat(np.arange(batch.n_frames), batch.width)
            cell = (first_cell[:, None] + np.arange(batch.width)).reshape(-1)
        else:
            assert batch.start is not None
            assert batch.column is not None
            frame = np.repeat(np.arange(batch.n_frames), np.diff(batch.start))
            cell = first_cell[frame] + batch.column
        quality = None if batch.quality is None else batch.quality.reshape(-1)
        row = self._cell_row.view[cell]
        is_kept = row >= 0
        if quality is not None:
            is_kept &= quality & CLASS_MASK != Quality.ABSENT
        kept = np.flatnonzero(is_kept)
        if not len(kept):
            return []
        kept = kept[np.lexsort((row[kept], frame[kept]))]
        frame, row = frame[kept], row[kept]
        is_first = np.append(True, (frame[1:] != frame[:-1]) | (row[1:] != row[:-1]))
        first = np.flatnonzero(is_first)
        frame, row = frame[first], row[first]
        values = batch.values.reshape(-1)[kept]
        quality = None if quality is None else quality[kept]
        slot, ts_ns = self._slots(row, batch.ts_ns[frame], now_ns), batch.ts_ns[frame]
        rest: dict[str, Any] = {
            name: getattr(batch, name) for name in ("dictionary", "arrival_ns", "origin", "sequence")
        }
        start, width = np.append(first, len(kept)), self._row_width.view[row]
        is_whole = batch.value_ts_ns is None and (width == width[0]).all() and (np.diff(start) == width).all()
        if is_whole:
            shape = len(slot), int(width[0])
            marks = None if quality is None else quality.reshape(shape)
            return [FrameBatch.dense(slot, ts_ns, values.reshape(shape), marks, **rest)]
        if quality is not None:
            rest["quality"] = quality
        if batch.value_ts_ns is not None:
            rest["value_ts_ns"] = batch.value_ts_ns[kept]
        return [FrameBatch.sparse(slot, ts_ns, values, start, self._cell_column.view[cell[kept]], **rest)]


def _place(path: str, name: str, part: str, taken: TakenSignal) -> tuple[str, str, str]:
    """Group, column and part under which a column of an own group is stored.

    Signals of several own groups may go to one device: the part says which one they are of, as groups are not shared.
    """
    if taken.path == join_path(path, name):
        return path, name, part
    if not name:
        return taken.path, "", part
    group, _, its_name = taken.path.rpartition("/")
    return group, its_name, part if group == path else f"{part}@{path}"


class SignalSink:
    """The sink of an adapter whose signals have rules; see the module's text.

    Parameters
    ----------
    sink : where stored frames go.
    """

    def __init__(self, sink: Sink, rules: SignalRules) -> None:
        self._sink = sink
        self.directory = OwnDirectory(sink.directory, rules, sink.clock.now_ns)

    @property
    def clock(self) -> Clock:
        """The plant's time."""
        return self._sink.clock

    async def emit(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Take a batch; waits for credit. `ack` runs once all that is stored of it is durable."""
        stored = self.directory.stored(batch)
        for one in stored[:-1]:
            await self._sink.emit(one)
        if stored:
            await self._sink.emit(stored[-1], ack)
        elif ack is not None:
            asyncio.get_running_loop().call_soon(ack)

    async def reject(self, reject: Reject, ack: Ack | None = None) -> None:
        """Take refused input."""
        await self._sink.reject(reject, ack)

    def has_credit(self, n_samples: int) -> bool:
        """Whether `n_samples` more would be taken without waiting."""
        return self._sink.has_credit(n_samples)
