"""Other devices and tags for an adapter that runs: which variables are read on as before, and what is new.

A variable is read on where device, server, node id and interval are the same: its item at the server is not touched,
whatever the profile says of unit, labels or the names of others. Of another dead band the server is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.adapters.meters import spread
from headrace.adapters.opcua.config import OpcuaConfig, UaDevicePlan, UaSignal
from headrace.adapters.opcua.handles import GONE, Numbers
from headrace.adapters.opcua.kinds import NO_PART
from headrace.adapters.opcua.session import ServerSession
from headrace.adapters.opcua.tags import TableChange, TagTable

TAG_KEYS = {"devices", "profile", "dead_band", "arrays", "types"}
"""Keys of a section that say which devices there are and what they report."""


def differs_in_tags_only(before: OpcuaConfig, after: OpcuaConfig) -> bool:
    """Whether all that does not belong to single devices and tags is the same."""
    return before.model_dump(exclude=TAG_KEYS) == after.model_dump(exclude=TAG_KEYS)


def by_server(plans: Sequence[UaDevicePlan]) -> dict[str, list[int]]:
    """Numbers of devices by the url of their server."""
    found: dict[str, list[int]] = {}
    for number, plan in enumerate(plans):
        found.setdefault(plan.server.url, []).append(number)
    return found


def groups_of(tags: TagTable, devices: Sequence[int]) -> dict[int, list[int]]:
    """Tags of some devices by their interval in ns."""
    groups: dict[int, list[int]] = {}
    for number in devices:
        groups.setdefault(tags.plans[number].interval_ns, []).extend(tags.tags_of(number))
    return groups


@dataclass(slots=True)
class _Pairs:
    """Tags before and after that are the same sensor; `kept`: read as before."""

    before: list[Sequence[int]] = field(default_factory=list)
    after: list[Sequence[int]] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    banded: list[int] = field(default_factory=list)

    def add(self, before: Sequence[int], after: Sequence[int], kept: bool) -> None:
        self.before.append(before)
        self.after.append(after)
        self.kept.append(kept)

    def arrays(self) -> tuple[Numbers, Numbers, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """The pairs one by one, and whether each is kept."""
        nothing = np.empty(0, np.int64)
        before, after = (
            np.concatenate([nothing, *(np.asarray(some, np.int64) for some in many)])
            for many in (self.before, self.after)
        )
        return before, after, np.repeat(np.array(self.kept, np.bool_), [len(some) for some in self.before])


def plan_change(before: TagTable, after: TagTable) -> TableChange:
    """Compare two tables, device by device; single signals only of devices that differ."""
    known = {plan.path: number for number, plan in enumerate(before.plans)}
    alike: dict[tuple[int, int], bool] = {}
    pairs = _Pairs()
    for number, plan in enumerate(after.plans):
        old = known.get(plan.path)
        if old is None or before.plans[old].server != plan.server:
            continue
        was = before.plans[old]
        tags_before, tags_after = before.tags_of(old), after.tags_of(number)
        key = id(was.signals), id(plan.signals)
        if key not in alike:
            alike[key] = was.signals == plan.signals
        if alike[key] and was.node == plan.node:
            pairs.add(tags_before, tags_after, was.interval_ns == plan.interval_ns)
        else:
            _compare(was, plan, tags_before, tags_after, pairs)
    old_tags, new_tags, kept = pairs.arrays()
    new_of = np.full(len(before), GONE, np.int64)
    new_of[old_tags[kept]] = new_tags[kept]
    is_kept = np.zeros(len(after), np.bool_)
    is_kept[new_tags[kept]] = True
    # What was refused because it had no type is told again where it is asked for anew, and may be taken then.
    same = kept | (before.part[old_tags] != NO_PART)
    return TableChange(after, new_of, is_kept, tuple(pairs.banded), old_tags[same], new_tags[same])


def _compare(was: UaDevicePlan, plan: UaDevicePlan, before: range, after: range, pairs: _Pairs) -> None:
    """Signal by signal."""
    known = {signal.name: (tag, signal) for tag, signal in zip(before, was.signals, strict=True)}
    for tag, signal in zip(after, plan.signals, strict=True):
        old, other = known.get(signal.name, (GONE, signal))
        if old == GONE or not _is_same_variable(other, was.node, signal, plan.node):
            continue
        kept = was.interval_ns == plan.interval_ns and other.dtype == signal.dtype
        pairs.add([old], [tag], kept)
        if kept and other.dead_band != signal.dead_band:
            pairs.banded.append(tag)


def _is_same_variable(before: UaSignal, node: str, after: UaSignal, node_after: str) -> bool:
    same_place = before.address.of_device(node) == after.address.of_device(node_after)
    return same_place and before.n_elements == after.n_elements


@dataclass(frozen=True, slots=True)
class PastSessions:
    """What sessions that are gone have counted: counters only rise."""

    transport_ns: int = 0
    decode_ns: int = 0
    n_connects: int = 0
    n_gaps: int = 0
    n_bytes: int = 0
    latency_counts: tuple[int, ...] = ()
    latency_total_s: float = 0.0

    def with_sessions(self, sessions: Sequence[ServerSession]) -> PastSessions:
        """The same and some more."""
        counts, total_s = self.spread(sessions)
        return PastSessions(
            self.transport_ns + sum(one.transport_ns for one in sessions),
            self.decode_ns + sum(one.meters.decode_ns for one in sessions),
            self.n_connects + sum(one.meters.n_connects for one in sessions),
            self.n_gaps + sum(one.meters.n_gaps for one in sessions),
            self.n_bytes + sum(one.n_bytes for one in sessions),
            counts,
            total_s,
        )

    def spread(self, sessions: Sequence[ServerSession]) -> tuple[tuple[int, ...], float]:
        """Durations of requests, these sessions' included: see `headrace.adapters.meters.spread`."""
        counts, total_s = spread(one.meters.latency for one in sessions)
        if self.latency_counts and counts:
            counts = tuple(a + b for a, b in zip(counts, self.latency_counts, strict=True))
        return counts or self.latency_counts, total_s + self.latency_total_s
