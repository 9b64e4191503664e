"""The tags of an adapter: which sensors they are, of which type, and what came of them last.

A tag is one variable on one server; its number is the client handle of its monitored item. What type it has says the
configuration, an earlier run, or the first value that comes. From then on it stays, as a sensor's type does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.adapters.opcua.addresses import NodeAddress
from headrace.adapters.opcua.config import UaDevicePlan, UaSignal
from headrace.adapters.opcua.handles import GONE, Numbers
from headrace.adapters.opcua.kinds import BOOLEAN, NO_PART, PARTS, TEXT, part_of
from headrace.adapters.opcua.plain import Sensors
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError, NotFound
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.sensors import SensorDirectory

_TRUTH = ("false", "true")
_KIND_MASK = 0x3F
_DECLARED = {"bool": "u8", "string": TEXT}


@dataclass(frozen=True, slots=True)
class TableChange:
    """What becomes of the tags of one table in another.

    Parameters
    ----------
    after : the other one. new_of : int64[T], the new number of each old tag whose variable is read as before; else `GONE`.
    is_kept : bool[T of after], those numbers. banded : new tags that are kept, with another dead band.
    same_before, same_after : pairs of tags that are the same sensor of the same variable, though perhaps read otherwise.
    """

    after: TagTable
    new_of: Numbers
    is_kept: npt.NDArray[np.bool_]
    banded: tuple[int, ...]
    same_before: Numbers
    same_after: Numbers


class TagTable:
    """All tags of an adapter, device by device, signal by signal.

    Attributes
    ----------
    device, signal : int32[T], place of the tag's device and of its signal in the profile.
    part : int8[T], index in `PARTS`, or `NO_PART` while it is not known.
    cell : int64[T], its first sensor; n_cells : int64[T], how many it has (an array has several).
    slot, column : uint32[C], uint16[C], where each sensor's values go, once the part is known.
    problem : text by tag, of those that can't be read now.
    """

    def __init__(self, plans: Sequence[UaDevicePlan], directory: SensorDirectory) -> None:
        self.plans = plans
        self._directory = directory
        n_signals = [len(plan.signals) for plan in plans]
        n = sum(n_signals)
        self.first_tag = np.concatenate([[0], np.cumsum(n_signals)])
        self.device = np.repeat(np.arange(len(plans), dtype=np.int32), n_signals)
        self.signal = np.concatenate([np.arange(count, dtype=np.int32) for count in n_signals])
        self.n_cells = np.array([s.n_elements or 1 for plan in plans for s in plan.signals], np.int64)
        self.is_array = np.array([s.n_elements > 0 for plan in plans for s in plan.signals], np.bool_)
        self.cell = np.cumsum(self.n_cells) - self.n_cells
        n_cells = int(self.n_cells.sum())
        self.part = np.full(n, NO_PART, np.int8)
        self.slot = np.zeros(n_cells, np.uint32)
        self.column = np.zeros(n_cells, np.uint16)
        self.problem: dict[int, str] = {}
        self._columns: list[dict[str, tuple[Column, ...]]] = [{} for _ in plans]
        self.last_source_ns = np.full(n, NO_TIME)
        self.last_bits = np.zeros(n, np.uint64)
        self.last_kind = np.zeros(n, np.int16)
        self.last_status = np.zeros(n, np.uint32)
        self.forget()
        self._sensors: Sensors | None = None

    @property
    def sensors(self) -> Sensors:
        """Its columns, as the kernel takes them."""
        if self._sensors is None:
            self._sensors = Sensors(
                self.part, self.is_array, self.cell, self.slot, self.column, self.last_source_ns, self.last_bits,
                self.last_kind, self.last_status,
            )  # fmt: skip
        return self._sensors

    def __len__(self) -> int:
        return len(self.device)

    # --- words ---------------------------------------------------------------------------------------

    def signal_of(self, tag: int) -> UaSignal:
        """The signal of a tag."""
        return self.plans[int(self.device[tag])].signals[int(self.signal[tag])]

    def address(self, tag: int) -> NodeAddress:
        """Where its server keeps a tag."""
        return self.signal_of(tag).address.of_device(self.plans[int(self.device[tag])].node)

    def path(self, tag: int) -> str:
        """The sensor (of an array: what its sensors begin with) of a tag."""
        return f"{self.plans[int(self.device[tag])].path}/{self.signal_of(tag).name}"

    def tags_of(self, device: int) -> range:
        """The tags of a device."""
        return range(int(self.first_tag[device]), int(self.first_tag[device + 1]))

    # --- types ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take what the directory knows from earlier runs, and what the configuration says.

        Raises
        ------
        ConfigError : a declared type is not the one a sensor has, or another group has the sensor.
        """
        found: dict[int, tuple[int, bool]] = {}
        for number, plan in enumerate(self.plans):
            known = self._restored(plan)
            self._columns[number] = {part: tuple(columns) for part, columns in known.items()}
            parts = {column.name: (part, column) for part, columns in known.items() for column in columns}
            for tag, signal in zip(self.tags_of(number), plan.signals, strict=True):
                declared = _DECLARED.get(signal.dtype, signal.dtype)
                part, column = parts.get(signal.columns[0], ("", None))
                if part and declared and part != declared:
                    raise ConfigError(
                        f"sensor {plan.path}/{signal.columns[0]} is {part} since it was first seen, "
                        f"types.{signal.name} says {signal.dtype}; leave the type out, or rename the signal"
                    )
                if part or declared:
                    is_truth = signal.dtype == "bool" or (column is not None and column.labels == _TRUTH)
                    found[tag] = PARTS.index(part or declared), is_truth
        self._define(found)

    def learn(self, kinds: Mapping[int, int]) -> dict[int, str]:
        """Give tags the types of their first values (tag → kind).

        Returns
        -------
        Tags that can't have theirs, with the reason: another group has the sensor.
        """
        found = {tag: (part_of(kind), kind & _KIND_MASK == BOOLEAN) for tag, kind in kinds.items()}
        try:
            self._define(found)
        except ConfigError as e:
            if len(kinds) == 1:
                return dict.fromkeys(kinds, e.message)
            return {t: text for tag, kind in kinds.items() for t, text in self.learn({tag: kind}).items()}
        return {}

    def _restored(self, plan: UaDevicePlan) -> dict[str, list[Column]]:
        """Columns that the directory has of a device, by part; what the profile says of them now counts."""
        said = {name: signal for signal in plan.signals for name in signal.columns}
        out: dict[str, list[Column]] = {}
        for part in PARTS:
            try:
                slot = self._directory.slot(plan.path, part)
            except NotFound:
                continue
            known = self._directory.layout(slot).columns
            out[part] = [
                _column(said[c.name], c.name, part, c.labels == _TRUTH) if c.name in said else c
                for c in known
            ]
        return out

    def _define(self, found: Mapping[int, tuple[int, bool]]) -> None:
        """Make columns of tags (tag → part, whether it is a truth value)."""
        added: dict[tuple[int, str], list[Column]] = {}
        tags: dict[tuple[int, str], list[int]] = {}
        for tag, (code, is_truth) in sorted(found.items()):
            key = device, part = int(self.device[tag]), PARTS[code]
            columns = added.setdefault(key, list(self._columns[device].get(part, ())))
            names = {column.name for column in columns}
            signal = self.signal_of(tag)
            columns += [_column(signal, name, part, is_truth) for name in signal.columns if name not in names]
            tags.setdefault(key, []).append(tag)
        alike: dict[tuple[str, tuple[Column, ...]], list[int]] = {}
        for (device, part), columns in added.items():
            alike.setdefault((part, tuple(columns)), []).append(device)
        for (part, some), devices in alike.items():
            layout = Layout("u32" if part == TEXT else part, some)
            slots = self._directory.define_many([self.plans[d].path for d in devices], layout, part)
            place = {column.name: i for i, column in enumerate(some)}
            for device, slot in zip(devices, slots.tolist(), strict=True):
                self._columns[device][part] = some
                self.part[tags[device, part]] = PARTS.index(part)
                self._place(device, part, slot, place)

    def _place(self, device: int, part: str, slot: int, place: Mapping[str, int]) -> None:
        """All tags of a part of a device are in its new slot."""
        code = PARTS.index(part)
        for tag in self.tags_of(device):
            if self.part[tag] == code:
                for cell, name in enumerate(self.signal_of(tag).columns, int(self.cell[tag])):
                    self.slot[cell], self.column[cell] = slot, place[name]

    def become(self, other: TagTable, change: TableChange) -> None:
        """Be `other` from now on, which is of no use then; what came last of the same sensors stays known."""
        for name in ("last_source_ns", "last_bits", "last_kind", "last_status"):
            getattr(other, name)[change.same_after] = getattr(self, name)[change.same_before]
        kept = {int(change.new_of[tag]): reason for tag, reason in self.problem.items()}
        kept.pop(GONE, None)
        other.problem = kept
        vars(self).update(vars(other))

    # --- repeats -------------------------------------------------------------------------------------

    def forget(self, tags: Iterable[int] | None = None) -> None:
        """Forget what came last, so that it is taken when it comes again."""
        at = slice(None) if tags is None else list(tags)
        self.last_source_ns[at] = NO_TIME
        self.last_kind[at] = -1
        self.last_status[at] = 0
        self.last_bits[at] = 0


def _column(signal: UaSignal, name: str, part: str, is_truth: bool) -> Column:
    """The column of a signal; what is true or false, and texts, are discrete unless the profile says otherwise."""
    said = signal.settings
    low, high = (None if v is None or math.isinf(v) else v for v in said.limits)
    is_discrete = (is_truth or part == TEXT) and said.kind is Kind.ANALOG
    kind = Kind.DISCRETE if is_discrete else said.kind
    return Column(
        name, kind, said.unit, low=low, high=high, labels=said.labels or (_TRUTH if is_truth else ())
    )
