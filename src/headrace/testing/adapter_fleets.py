"""Checks of an adapter with many devices: one that is slow, and a thousand that come back together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from unittest import SkipTest

from headrace.adapters.base import Adapter, AdapterState
from headrace.core.clock import NS, SystemClock, monotonic_ns
from headrace.testing.adapters import AdapterRig, RecordingSink, until
from headrace.testing.fault_rigs import FleetRig
from headrace.testing.proxy import FaultProxy, Slow

KEPT_SHARE = 0.95
N_STORM = 1_000


class Doorkeeper:
    """Lets everybody in at one port of every loopback address, hears and says nothing, and knows when each came."""

    def __init__(self) -> None:
        self.port = 0
        self.came_ns: list[tuple[int, str]] = []
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._is_open = False

    def addresses(self, n: int) -> list[tuple[str, int]]:
        """`n` of its addresses, which need no file descriptors of their own."""
        return [(f"127.20.{number // 250}.{number % 250 + 1}", self.port) for number in range(n)]

    @property
    def n_peers(self) -> int:
        """At how many of its addresses somebody came."""
        return len({host for _, host in self.came_ns})

    async def start(self) -> None:
        """Open, at the same port each time."""
        self._is_open = True
        self._server = await asyncio.start_server(self._serve, "0.0.0.0", self.port, backlog=4_096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close, and let everybody go."""
        self._is_open = False
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            for writer in self._writers:
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came_ns.append((monotonic_ns(), writer.get_extra_info("sockname")[0]))
        self._writers.append(writer)
        if not self._is_open:  # it came while we closed
            writer.transport.abort()


async def check_slow_device_delays_no_other(rig: AdapterRig) -> None:
    """The others of an adapter keep at least 95 % of their polls while one answers far too late."""
    if not isinstance(rig, FleetRig):
        raise SkipTest("the peer is not many devices: the rig has no make_fleet")
    await rig.up()
    proxies = [FaultProxy(rig.peer(), seed=number) for number in range(5)]
    for proxy in proxies:
        await proxy.start()
    adapter, sink = rig.make_fleet([proxy.address for proxy in proxies]), RecordingSink()
    try:
        await adapter.start(sink)
        await until(lambda: _states(adapter) == {AdapterState.CONNECTED}, "all answer")
        proxies[0].to_client = Slow(delay_s=10 * rig.deadline_s)
        await until(lambda: adapter.diagnostics().devices[0].state is AdapterState.BACKOFF, "it is noticed")
        shares = []
        for _ in range(
            3
        ):  # a machine that was busy elsewhere is forgiven; what an adapter does, it does each time
            shares.append(await _kept_share(adapter))
            if shares[-1] >= KEPT_SHARE:
                break
        assert shares[-1] >= KEPT_SHARE, f"the others kept {shares} of their polls"
        proxies[0].heal()
        await until(lambda: _states(adapter) == {AdapterState.CONNECTED}, "all answer again")
    finally:
        await adapter.stop()
        for proxy in proxies:
            await proxy.stop()
        await rig.down()


def _states(adapter: Adapter) -> set[AdapterState]:
    return {device.state for device in adapter.diagnostics().devices}


def _n_away(adapter: Adapter) -> int:
    return sum(device.state is AdapterState.BACKOFF for device in adapter.diagnostics().devices)


async def _until_all(count: Callable[[], int], what: str) -> None:
    """Wait for all of a thousand: on a busy machine for as long as they become more."""
    most = 0

    def has_more() -> bool:
        return count() > most

    while most < N_STORM:
        await until(has_more, f"more than {most} of {N_STORM} {what}")
        most = max(most, count())


async def _kept_share(adapter: Adapter) -> float:
    """Which part of their polls all devices but the first did in a second."""
    before = adapter.diagnostics().devices[1:]
    await SystemClock().sleep(1.0)
    after = adapter.diagnostics().devices[1:]
    done = sum(b.n_requests - a.n_requests for a, b in zip(before, after, strict=True))
    skipped = sum(b.n_polls_skipped - a.n_polls_skipped for a, b in zip(before, after, strict=True))
    assert done, "nothing was polled"
    return done / (done + skipped)


async def check_reconnect_storm(rig: AdapterRig) -> None:
    """A thousand devices that come back together are met one after the other, not all at once."""
    if not isinstance(rig, FleetRig):
        raise SkipTest("the peer is not many devices: the rig has no make_fleet")
    door, sink = Doorkeeper(), RecordingSink()
    await door.start()
    adapter = rig.make_fleet(door.addresses(N_STORM))
    await door.stop()
    try:
        await adapter.start(sink)
        await _until_all(lambda: _n_away(adapter), "are away")
        await door.start()
        await _until_all(lambda: door.n_peers, "were looked for")
        came = [at for at, _ in door.came_ns]
        for window_s in (0.1, 0.5):
            allowed = (
                window_s * rig.connects_per_s * 1.2 + 0.15 * rig.connects_per_s
            )  # and what a stall gathers
            found = _most_within(came, window_s)
            assert found <= allowed, f"{found} connections within {window_s} s, allowed are {allowed:.0f}"
        gaps = {b - a for a, b in itertools.pairwise(came)}
        assert len(gaps) > N_STORM // 4, "they come in step"
    finally:
        began_ns = monotonic_ns()
        await adapter.stop()
        took_s = (monotonic_ns() - began_ns) / NS
        await door.stop()
    assert took_s < 2.0, f"stopping took {took_s:.1f} s"


def _most_within(moments: list[int], window_s: float) -> int:
    """The largest number of moments (ns, rising) in any window of that length."""
    most, first = 0, 0
    for last, at in enumerate(moments):
        while at - moments[first] > window_s * NS:
            first += 1
        most = max(most, last - first + 1)
    return most
