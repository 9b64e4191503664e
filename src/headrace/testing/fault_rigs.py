"""What a rig may be able to do besides the plain things, and how samples are counted.

Each ability of `ABILITIES` is a protocol here. A rig has it, or says in ``cannot`` why it can have none: a check that
needs it is then skipped with that reason, and otherwise fails::

    class MyRig:
        cannot = {"fleet": "a scale is one device", "registers": "it sends texts"}
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable
from unittest import SkipTest

from headrace.adapters.base import Adapter
from headrace.core.clock import SystemClock
from headrace.testing.adapters import AdapterRig, RecordingSink, identities, until
from headrace.testing.proxy import FaultProxy, WireFault

NO_PROXY = "nothing goes over a wire of ours: the rig has no peer, talk_to, absurd and offered"
Offered = set[tuple[str, float | str]]


@runtime_checkable
class ProxiedRig(AdapterRig, Protocol):
    """A rig whose adapter talks TCP to its peer, and can be made to talk to another address instead."""

    deadline_s: float
    """Within which the adapter has to notice that the peer has fallen silent."""

    def peer(self) -> tuple[str, int]:
        """Host and port of the peer; where the adapter is pushed to, of its own door."""
        ...

    def talk_to(self, host: str, port: int) -> None:
        """Adapters that are made from now on talk to this address; where they are pushed to, the peer does."""
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


@runtime_checkable
class OrderedRig(AdapterRig, Protocol):
    """A rig whose peer may send the later of two messages first."""

    async def send_swapped(self) -> int:
        """As `send`, in two messages at least, of which a later one comes first."""
        ...


@runtime_checkable
class RegisterRig(AdapterRig, Protocol):
    """A rig whose peer offers registers, 16 bits each."""

    has_texts: bool
    """Whether they may hold texts, too."""

    def make_registers(self, addresses: Sequence[str]) -> Adapter:
        """A new adapter that reads these tag addresses of the peer; their signals are ``r0``, ``r1``, ... in order."""
        ...

    async def send_registers(self, data: bytes) -> None:
        """Make the peer offer these holding registers from the first on, as their bytes are on the wire."""
        ...


@runtime_checkable
class KilledRig(AdapterRig, Protocol):
    """A rig whose adapter can also run in a process of its own, ``headrace run``, which is killed."""

    folder: Path
    """Where that process may have its plant file and store."""
    acknowledges_by: str
    """The way of the proxy by which acknowledgements go: ``to_peer`` where the adapter connects, ``to_client`` where it is
    pushed to; the rig is a `ProxiedRig` then. Empty where they do not go by TCP, and can't be held back."""
    # withhold: a method that makes the fault for that way which lets no acknowledgement through; may be left out: silence.

    def plant_section(self) -> str:
        """The adapter that `make` makes, with profiles, as text of a plant file. Its levels: site, area, device, signal."""
        ...


ABILITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "wire": ("peer", "talk_to", "absurd", "offered", "deadline_s"),
        "fleet": ("make_fleet", "connects_per_s"),
        "times": ("send_at",),
        "types": ("send_other_type",),
        "order": ("send_swapped",),
        "registers": ("make_registers", "send_registers", "has_texts"),
        "process": ("folder", "acknowledges_by", "plant_section"),
    }
)
"""What each takes: methods and facts of `ProxiedRig`, `FleetRig`, `TimedRig`, `RetypingRig`, `OrderedRig`,
`RegisterRig` and `KilledRig`."""


def check_is_able(rig: Any, abilities: Sequence[str]) -> None:
    """Whether a rig has what a check needs.

    Raises
    ------
    SkipTest : it says in ``cannot`` why it has not. AssertionError : it says nothing, or names what there is not.
    """
    cannot: Mapping[str, str] = getattr(rig, "cannot", {})
    unknown = sorted(set(cannot) - set(ABILITIES))
    assert not unknown, f"cannot: there is no {', '.join(unknown)}, only {', '.join(ABILITIES)}"
    for ability in abilities:
        if cannot.get(ability):
            raise SkipTest(cannot[ability])
        absent = [name for name in ABILITIES[ability] if not hasattr(rig, name)]
        assert not absent, (
            f"the rig has no {', '.join(absent)}: give it them, or say why it has none: "
            f'cannot = {{"{ability}": "..."}}'
        )


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


def n_distinct(sink: RecordingSink) -> int:
    """Samples that differ in sensor or time: what a store keeps of them."""
    return len(set(identities(sink)))


class SampleFlow:
    """Sends, and waits until what was sent has come: by identity where the peer is told, else by number."""

    def __init__(self, rig: AdapterRig, sink: RecordingSink) -> None:
        self._rig, self._sink = rig, sink
        self.n_sent = 0

    async def send(self) -> int:
        """Send; how many samples the sink has to have then."""
        before = self._sink.n_samples  # some may come before the peer knows that it has sent all
        n = await self._rig.send()
        self.n_sent += n
        return self.n_sent if self._rig.acknowledges else before + n

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
