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
from headrace.adapters.modbus.endpoints import Endpoint
from headrace.adapters.modbus.poller import ConnectionPoller, PolledDevice, PollWish

TAG_KEYS = {"devices", "profile"}
"""Keys of a section that say which devices there are and what they report."""
Planned = tuple[DevicePlan, tuple[int, ...]]
"""A device's plan and the slots of its groups."""
MakeDevice = Callable[[DevicePlan, tuple[int, ...], int], PolledDevice]


def differs_in_tags_only(before: ModbusConfig, after: ModbusConfig) -> bool:
    """Whether all that does not belong to single devices and tags is the same."""
    return before.model_dump(exclude=TAG_KEYS) == after.model_dump(exclude=TAG_KEYS)


def by_endpoint(devices: Iterable[PolledDevice]) -> dict[Endpoint, list[PolledDevice]]:
    """Devices by what they share a connection to."""
    found: dict[Endpoint, list[PolledDevice]] = {}
    for device in devices:
        found.setdefault(device.plan.endpoint, []).append(device)
    return found


class SameThings:
    """Whether two parts of plans are the same; remembers what it has compared, for many devices share few of them."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bool] = {}

    def __call__(self, before: Any, after: Any) -> bool:
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
    n_connects: int = 0
    n_bytes: int = 0

    def with_pollers(self, pollers: Sequence[ConnectionPoller]) -> PastPolling:
        """The same and some more."""
        counts, total_s = self.spread(pollers)
        transport_ns = self.transport_ns + sum(p.transport_ns for p in pollers)
        n_connects = self.n_connects + sum(p.n_connects for p in pollers)
        return PastPolling(
            transport_ns, counts, total_s, n_connects, self.n_bytes + sum(p.n_bytes for p in pollers)
        )

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
    devices : all, in their new order. changed, gone : connections. new_endpoints : devices of each new connection.
    """

    devices: list[PolledDevice]
    changed: list[ConnectionPoller]
    gone: list[ConnectionPoller]
    new_endpoints: list[list[PolledDevice]]


def plan_change(
    devices: Sequence[PolledDevice],
    pollers: Sequence[ConnectionPoller],
    planned: Sequence[Planned],
    make: MakeDevice,
    now_ns: int,
) -> TagChange:
    """Compare what is polled with what is to be, and tell each connection that has something to change.

    Parameters
    ----------
    planned : every device that there is to be, with the slots that hold at `now_ns`. make : a device that was not there.
    """
    is_same = SameThings()
    known = {_identity(device.plan): device for device in devices}
    after: list[PolledDevice] = []
    plans: dict[int, tuple[PolledDevice, DevicePlan, tuple[int, ...]]] = {}
    for plan, slots in planned:
        device = known.get(_identity(plan))
        if device is None:
            device = make(plan, slots, now_ns)
        elif slots != device.slots or not _is_same_plan(device.plan, plan, is_same):
            plans[id(device)] = (device, plan, slots)
        after.append(device)
    wanted = by_endpoint(after)
    changed, gone = [], []
    for poller in pollers:
        some = wanted.pop(poller.endpoint, None)
        if some is None:
            gone.append(poller)
            continue
        mine = [plans[id(device)] for device in some if id(device) in plans]
        is_changed = bool(mine) or list(map(id, some)) != list(map(id, poller.devices))
        poller.change(PollWish(some, mine, now_ns) if is_changed else None)
        if is_changed:
            changed.append(poller)
    return TagChange(after, changed, gone, list(wanted.values()))


def _identity(plan: DevicePlan) -> tuple[str, Endpoint]:
    return plan.path, plan.endpoint


def _is_same_plan(before: DevicePlan, after: DevicePlan, is_same: SameThings) -> bool:
    """Whether nothing would be read otherwise, now or in an era to come."""
    shared = {name: getattr(after, name) for name in ("read_map", "eras", "profile", "bands")}
    return replace(before, **shared) == after and all(
        is_same(getattr(before, name), thing) for name, thing in shared.items()
    )
