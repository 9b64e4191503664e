"""Kill -9 at the worst moment: durable here, and the peer does not know it yet.

The plant is a process of its own (``headrace run``), the peer is real, and between them stands a
`headrace.testing.proxy.FaultProxy` that lets no acknowledgement through.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from unittest import SkipTest
from urllib.parse import urlsplit

from headrace.core.clock import SystemClock
from headrace.store.query import Store
from headrace.testing.adapters import AdapterRig, until
from headrace.testing.fault_rigs import KilledRig, ProxiedRig
from headrace.testing.plant_process import PlantProcess
from headrace.testing.proxy import FaultProxy, Silence

_PLANT = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
"""


class _KilledPlant:
    """The rig's adapter in a process, with a proxy before its peer, or before itself where it is pushed to."""

    def __init__(self, rig: KilledRig) -> None:
        self.rig = rig
        self.process = PlantProcess(rig.folder)
        self.proxy = FaultProxy(("127.0.0.1", 1))

    async def begin(self) -> None:
        """Start the peer, and the proxy where acknowledgements go by one; write the plant file."""
        await self.rig.up()
        if self.rig.acknowledges_by:
            wire: Any = self.rig
            assert isinstance(wire, ProxiedRig), (
                "acknowledgements go by TCP, and the rig has no peer and talk_to"
            )
            self.proxy.target = wire.peer()
            await self.proxy.start()
            wire.talk_to(*self.proxy.address)
        (self.rig.folder / "plant.toml").write_text(_PLANT + self.rig.plant_section())

    async def up(self) -> None:
        """Start the process and wait until its adapter is connected, or can be pushed to."""
        self.process.start()
        await asyncio.to_thread(self.process.up)
        if self.rig.is_pushed_to:
            found = urlsplit(self.process.address())
            self.proxy.target = found.hostname or "", found.port or 0
        else:
            await self.until(lambda: self.process.adapter().get("state") in ("connected", "degraded"))

    async def end(self) -> None:
        """Leave nothing running."""
        self.process.kill()
        await self.proxy.stop()
        await self.rig.down()

    async def until(self, what: Callable[[], Any]) -> None:
        """Wait until it is so."""
        await asyncio.to_thread(self.process.until, what)

    def is_durable(self, n: int) -> bool:
        """Whether `n` samples came in this life, and all that came is in the journal."""
        found = self.process.status().get("samples") or {"received": -1, "in_flight": 0}
        return bool(found["received"] >= n and not found["in_flight"])

    def stored(self) -> list[tuple[str, int]]:
        """(path, time in ns) of each sample that its store has."""
        now_ns = SystemClock().now_ns()
        answer = Store.open(self.process.store, None, SystemClock()).query("**", 0, 2 * now_ns)
        return [(str(row["path"]), int(row["ts"])) for row in answer.to_rows()]


async def check_killed_before_it_was_acknowledged(rig: AdapterRig) -> None:
    """What was durable when the process was killed and comes again, because nobody knew, is stored once."""
    if not isinstance(rig, KilledRig):
        raise SkipTest("there is no process to kill: the rig has no plant_section")
    plant, is_told_later = _KilledPlant(rig), bool(rig.acknowledges_by)
    try:
        await plant.begin()
        await plant.up()
        n_before = 0
        if is_told_later:
            setattr(plant.proxy, rig.acknowledges_by, getattr(rig, "withhold", Silence)())
            await SystemClock().sleep(0.1)  # what was on its way is there
            n_before = rig.n_acknowledged()
        n = await rig.send()
        await plant.until(lambda: plant.is_durable(n))
        plant.process.kill()
        assert not is_told_later or rig.n_acknowledged() == n_before, "the peer was told all the same"
        plant.proxy.cut()
        plant.proxy.heal()
        await plant.up()
        if is_told_later:
            await plant.until(lambda: plant.is_durable(n))
            await until(lambda: rig.n_acknowledged() > n_before, "the peer knows it now")
        assert await asyncio.to_thread(plant.process.stop) == 0, plant.process.said
        check_stored_once(await asyncio.to_thread(plant.stored), n)
    finally:
        await plant.end()


def check_stored_once(found: Iterable[tuple[str, int]], n_sent: int) -> None:
    """Whether a store has what was sent, each sample once: (path, time) of what it has."""
    count = Counter(found)
    twice = [one for one, n in count.items() if n > 1]
    assert not twice, f"{len(twice)} samples are stored twice: {twice[0]}"
    assert len(count) >= n_sent, f"{n_sent - len(count)} of {n_sent} were lost"
    assert len(count) <= n_sent, f"{len(count)} samples are stored, {n_sent} were sent"


CHECKS: tuple[Callable[[Any], Awaitable[None]], ...] = (check_killed_before_it_was_acknowledged,)
NEEDS: dict[Callable[[Any], Awaitable[None]], tuple[str, ...]] = {
    check_killed_before_it_was_acknowledged: ("process",),
}
"""Abilities that a rig needs for a check: see `headrace.testing.fault_rigs.ABILITIES`."""
