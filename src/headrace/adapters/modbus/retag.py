"""Other devices and tags for an adapter that runs: what stays, what changes, what comes and goes.

A device is the same where its path and the connection to it are; it keeps its state, its counts and its moments.
Its tags are changed between two polls. A connection that no device is left on is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from headrace.adapters.meters import spread
from headrace.adapters.modbus.config import DevicePlan, ModbusConfig
from headrace.adapters.modbus.poller import ConnectionPoller, PolledDevice, PollWish
from headrace.adapters.payloads.registers import ReadMap
from headrace.core.clock import Clock

TAG_KEYS = {"devices", "profile"}
"""Keys of a section that say which devices there are and what they report."""
Planned = tuple[DevicePlan, tuple[int, ...]]
"""A device's plan and the slots of its groups."""
MakeDevice = Callable[[DevicePlan, tuple[int, ...], int], PolledDevice]
Peer = tuple[str, int]


def differs_in_tags_only(before: ModbusConfig, after: ModbusConfig) -> bool:
    """Whether all that does not belong to single devices and tags is the same."""
    return before.model_dump(exclude=TAG_KEYS) == after.model_dump(exclude=TAG_KEYS)


def by_peer(devices: Iterable[PolledDevice]) -> dict[Peer, list[PolledDevice]]:
    """Devices by the host and port that they share a connection to."""
    found: dict[Peer, list[PolledDevice]] = {}
    for device in devices:
        found.setdefault((device.plan.host, device.plan.port), []).append(device)
    return found


class SameReads:
    """Whether two read maps read the same; remembers what it has compared, for many devices share few maps."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bool] = {}

    def __call__(self, before: ReadMap, after: ReadMap) -> bool:
        key = (id(before), id(after))
        if key not in self._known:
            self._known[key] = _is_same(before, after)
        return self._known[key]


def _is_same(before: Any, after: Any) -> bool:
    """Whether two things made of dataclasses, tuples and arrays are the same."""
    if isinstance(before, np.ndarray):
        return bool(np.array_equal(before, after))
    if isinstance(before, tuple):
        return len(before) == len(after) and all(map(_is_same, before, after))
    if is_dataclass(before) and "__eq__" not in vars(
        type(before)
    ):  # it only knows whether it is the very one
        return all(_is_same(getattr(before, f.name), getattr(after, f.name)) for f in fields(before))
    return bool(before == after)


@dataclass(frozen=True, slots=True)
class PastPolling:
    """What connections that are gone have counted: counters only rise."""

    transport_ns: int = 0
    latency_counts: tuple[int, ...] = ()
    latency_total_s: float = 0.0

    def with_pollers(self, pollers: Sequence[ConnectionPoller]) -> PastPolling:
        """The same and some more."""
        counts, total_s = self.spread(pollers)
        return PastPolling(self.transport_ns + sum(p.transport_ns for p in pollers), counts, total_s)

    def spread(self, pollers: Sequence[ConnectionPoller]) -> tuple[tuple[int, ...], float]:
        """Durations of requests, these connections' included: see `headrace.adapters.meters.spread`."""
        counts, total_s = spread(poller.latency for poller in pollers)
        if self.latency_counts and counts:
            counts = tuple(a + b for a, b in zip(counts, self.latency_counts, strict=True))
        return counts or self.latency_counts, total_s + self.latency_total_s


@dataclass(frozen=True, slots=True)
class TagChange:
    """What a running adapter has to do.

    Parameters
    ----------
    devices : all, in their new order. changed, gone : connections. new_peers : devices of each new connection.
    """

    devices: list[PolledDevice]
    changed: list[ConnectionPoller]
    gone: list[ConnectionPoller]
    new_peers: list[list[PolledDevice]]


def plan_change(
    devices: Sequence[PolledDevice],
    pollers: Sequence[ConnectionPoller],
    planned: Sequence[Planned],
    make: MakeDevice,
    clock: Clock,
) -> TagChange:
    """Compare what is polled with what is to be, and tell each connection that has something to change.

    Parameters
    ----------
    planned : every device that there is to be. make : a device that was not there.
    """
    now_ns, same_reads = clock.now_ns(), SameReads()
    known = {_identity(device.plan): device for device in devices}
    after: list[PolledDevice] = []
    plans: dict[int, tuple[PolledDevice, DevicePlan, tuple[int, ...]]] = {}
    for plan, slots in planned:
        device = known.get(_identity(plan))
        if device is None:
            device = make(plan, slots, now_ns)
        elif slots != device.slots or not _is_same_plan(device.plan, plan, same_reads):
            plans[id(device)] = (device, plan, slots)
        after.append(device)
    wanted = by_peer(after)
    changed, gone = [], []
    for poller in pollers:
        some = wanted.pop(poller.peer, None)
        if some is None:
            gone.append(poller)
            continue
        mine = [plans[id(device)] for device in some if id(device) in plans]
        is_changed = bool(mine) or list(map(id, some)) != list(map(id, poller.devices))
        poller.change(PollWish(some, mine) if is_changed else None)
        if is_changed:
            changed.append(poller)
    return TagChange(after, changed, gone, list(wanted.values()))


def _identity(plan: DevicePlan) -> tuple[str, Peer]:
    return plan.path, (plan.host, plan.port)


def _is_same_plan(before: DevicePlan, after: DevicePlan, same_reads: SameReads) -> bool:
    is_same = replace(before, read_map=after.read_map) == after
    return is_same and same_reads(before.read_map, after.read_map)
