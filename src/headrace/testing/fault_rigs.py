"""What checks of faults need: what a rig may be able to do besides the plain ones, and how samples are counted."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

from headrace.adapters.base import Adapter
from headrace.core.clock import SystemClock
from headrace.core.readings import readings
from headrace.testing.adapters import AdapterRig, RecordingSink, until
from headrace.testing.engines import flat
from headrace.testing.proxy import FaultProxy, WireFault

NO_PROXY = "nothing goes over a wire of ours: the rig has no peer, talk_to, absurd and offered"
Offered = set[tuple[str, float | str]]


@runtime_checkable
class ProxiedRig(AdapterRig, Protocol):
    """A rig whose adapter talks TCP to its peer, and can be made to talk to another address instead."""

    deadline_s: float
    """Within which the adapter has to notice that the peer has fallen silent."""

    def peer(self) -> tuple[str, int]:
        """Host and port of the peer."""
        ...

    def talk_to(self, host: str, port: int) -> None:
        """Adapters that are made from now on talk to this address."""
        ...

    def absurd(self, data: bytes) -> bytes:
        """A chunk that the peer has sent, with a length in it that can't be."""
        ...

    def offered(self) -> Offered:
        """(path, value) of samples that come after the latest `send`, all of them at least once."""
        ...


@runtime_checkable
class FleetRig(ProxiedRig, Protocol):
    """A rig whose adapter has many devices, each at an address of its own."""

    connects_per_s: float
    """How many connections its adapters may make in a second; they are made with a pacer of that rate."""

    def make_fleet(self, addresses: Sequence[tuple[str, int]]) -> Adapter:
        """A new adapter with one device at each address, all alike; polled ten times a second, if it polls."""
        ...


@runtime_checkable
class TimedRig(AdapterRig, Protocol):
    """A rig whose peer says itself when a sample was taken."""

    async def send_at(self, ts_ns: int) -> int:
        """As `send`, with this source time."""
        ...


@runtime_checkable
class RetypingRig(AdapterRig, Protocol):
    """A rig whose peer may change the type of a value."""

    async def send_other_type(self) -> int:
        """Offer what `send` does, but one known sensor with another type; returns how many samples that concerns."""
        ...


class JumpingClock:
    """The computer's clock, but wrong by what it was told; waiting takes as long as it should."""

    def __init__(self) -> None:
        self.offset_ns = 0

    def now_ns(self) -> int:
        return SystemClock().now_ns() + self.offset_ns

    async def sleep(self, seconds: float) -> None:
        await SystemClock().sleep(seconds)


class _Defects(logging.Handler):
    """Keeps what was logged as a defect of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@asynccontextmanager
async def proxied(
    rig: ProxiedRig, sink: RecordingSink, fault: Callable[[], WireFault] | None = None
) -> AsyncIterator[tuple[Adapter, FaultProxy]]:
    """A started adapter that talks to its peer through a proxy, with a fault from the beginning where one is given.

    A defect that is logged meanwhile, and an unexpected error that is told as a reason, is an AssertionError.
    """
    defects, log = _Defects(), logging.getLogger("headrace.adapters")
    await rig.up()
    proxy = FaultProxy(rig.peer())
    await proxy.start()
    if fault is not None:
        proxy.to_peer, proxy.to_client = fault(), fault()
    rig.talk_to(*proxy.address)
    adapter = rig.make()
    log.addHandler(defects)
    try:
        await adapter.start(sink)
        yield adapter, proxy
        assert "internal error" not in adapter.diagnostics().reason, adapter.diagnostics().reason
    finally:
        log.removeHandler(defects)
        sink.set_credit(True)
        proxy.heal()
        await adapter.stop()
        await proxy.stop()
        await rig.down()
    assert not defects.found, defects.found[0]


def identities(sink: RecordingSink) -> list[tuple[int, int, int]]:
    """(slot, column, time) of every sample that was taken."""
    return [(slot, column, ts_ns) for batch in sink.batches for slot, column, ts_ns, _ in flat(batch)]


def n_distinct(sink: RecordingSink) -> int:
    """Samples that differ in sensor or time: what a store keeps of them."""
    return len(set(identities(sink)))


def taken(sink: RecordingSink, first: int = 0) -> Offered:
    """(path, value) of all samples from the batch numbered `first` on."""
    found = (one for batch in sink.batches[first:] for one in readings(batch, sink.directory, 100_000))
    return {(one.path, one.value) for one in found if one.value is not None}


class SampleFlow:
    """Sends, and waits until what was sent has come: by identity where the peer is told, else by number."""

    def __init__(self, rig: AdapterRig, sink: RecordingSink) -> None:
        self._rig, self._sink = rig, sink
        self.n_sent = 0

    async def send(self) -> int:
        """Send; how many samples the sink has to have then."""
        n = await self._rig.send()
        self.n_sent += n
        return self.n_sent if self._rig.acknowledges else self._sink.n_samples + n

    async def arrive(self, wanted: int, when: str) -> None:
        """Wait until `send`'s samples are there."""
        count = n_distinct if self._rig.acknowledges else _n_samples
        await until(lambda: count(self._sink) >= wanted, f"samples arrive {when}")

    async def go_on(self, when: str) -> None:
        """Send and wait."""
        await self.arrive(await self.send(), when)


def _n_samples(sink: RecordingSink) -> int:
    return sink.n_samples


async def until_sent(rig: AdapterRig, sink: RecordingSink, when: str) -> None:
    """Send, and wait until as many samples more have come."""
    wanted = sink.n_samples + await rig.send()
    await until(lambda: sink.n_samples >= wanted, f"samples arrive {when}")


def n_accounted(sink: RecordingSink) -> int:
    """Samples that were taken or refused."""
    return sink.n_samples + sum(reject.n_samples for reject in sink.rejects)


def are_accounted(sink: RecordingSink, n: int) -> bool:
    """Whether so many were taken or refused."""
    return n_accounted(sink) >= n
