"""What differs between two sets of devices: which come, go and change, and which of their signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from headrace.core.profile_tables import cells_of
from headrace.core.settings import SignalSettings
from headrace.ingest.tag_sets import Devices, TaggedDevice

DEVICES_SHOWN, SIGNALS_SHOWN = 1_000, 100


class TagFate(StrEnum):
    """What happens to a device or a signal."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class SignalChange:
    """One signal of a device; what it is before and after, None where it is not there."""

    name: str
    before: SignalSettings | None
    after: SignalSettings | None

    @property
    def fate(self) -> TagFate:
        """What happens to it."""
        return _fate(self.before, self.after)

    def lines(self) -> list[str]:
        """What differs in it: ``unit: degC → K``; of one that comes, what it is."""
        old = {} if self.before is None else cells_of(self.before)
        new = {} if self.after is None else cells_of(self.after)
        if self.after is None:
            return []
        if self.before is None:
            return [f"{key}: {text}" for key, text in new.items()]
        return _cell_lines(old, new)


@dataclass(frozen=True)
class DeviceChange:
    """One device; what it is before and after, None where it is not there."""

    path: str
    before: TaggedDevice | None
    after: TaggedDevice | None

    @property
    def fate(self) -> TagFate:
        """What happens to it."""
        return _fate(self.before, self.after)

    @property
    def signals(self) -> list[SignalChange]:
        """Its signals that come, go or change; those that only change their place among the others do not."""
        old: Mapping[str, SignalSettings] = {} if self.before is None else self.before.signals
        new: Mapping[str, SignalSettings] = {} if self.after is None else self.after.signals
        if old is new:
            return []
        names = dict.fromkeys([*old, *new])
        changed = ((name, old.get(name), new.get(name)) for name in names)
        return [SignalChange(name, a, b) for name, a, b in changed if a is not b and a != b]

    def lines(self) -> list[str]:
        """What differs in the device itself: ``url: ... → ...``."""
        if self.after is None:
            return []
        old = {} if self.before is None else self.before.fields
        if self.before is None:
            return [f"{key}: {text}" for key, text in self.after.fields.items()]
        return _cell_lines(old, self.after.fields)

    def inverse(self) -> DeviceChange:
        """What takes it back."""
        return replace(self, before=self.after, after=self.before)


@dataclass(frozen=True)
class TagDifference:
    """All devices of an adapter that differ, those that go first."""

    devices: tuple[DeviceChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.devices)

    @classmethod
    def between(cls, before: Devices, after: Devices) -> TagDifference:
        """What must change for `before` to become `after`; the order of devices is no difference."""
        gone = [DeviceChange(path, one, None) for path, one in before.items() if path not in after]
        rest = [
            DeviceChange(path, before.get(path), one)
            for path, one in after.items()
            if not _is_same(before.get(path), one)
        ]
        return cls((*gone, *rest))

    def inverse(self) -> TagDifference:
        """What takes it back."""
        return TagDifference(tuple(change.inverse() for change in self.devices))

    def applied(self, before: Devices) -> dict[str, TaggedDevice]:
        """What becomes of `before`: the inverse of `between`."""
        found = dict(before)
        for change in self.devices:
            if change.after is None:
                found.pop(change.path, None)
            else:
                found[change.path] = change.after
        return found

    def counts(self) -> dict[str, int]:
        """How many devices and signals come, go and change: ``devices_added``."""
        out = {f"{what}_{fate}": 0 for what in ("devices", "signals") for fate in TagFate}
        for change in self.devices:
            out[f"devices_{change.fate}"] += 1
            for signal in change.signals:
                out[f"signals_{signal.fate}"] += 1
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the first thousand devices, and of each the first hundred signals."""
        return {
            **self.counts(),
            "devices": [_document(change) for change in self.devices[:DEVICES_SHOWN]],
            "devices_not_shown": max(0, len(self.devices) - DEVICES_SHOWN),
        }


def _is_same(before: TaggedDevice | None, after: TaggedDevice) -> bool:
    if before is None:
        return False
    return before.fields == after.fields and (
        before.signals is after.signals or before.signals == after.signals
    )


def _fate(before: Any, after: Any) -> TagFate:
    if before is None:
        return TagFate.ADDED
    return TagFate.REMOVED if after is None else TagFate.CHANGED


def _cell_lines(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    keys = dict.fromkeys([*old, *new])
    return [
        f"{key}: {old.get(key, '-')} → {new.get(key, '-')}" for key in keys if old.get(key) != new.get(key)
    ]


def _document(change: DeviceChange) -> dict[str, Any]:
    signals: Sequence[SignalChange] = change.signals
    return {
        "path": change.path,
        "change": str(change.fate),
        "lines": change.lines(),
        "signals": [
            {"name": one.name, "change": str(one.fate), "lines": one.lines()}
            for one in signals[:SIGNALS_SHOWN]
        ],
        "signals_not_shown": max(0, len(signals) - SIGNALS_SHOWN),
    }
