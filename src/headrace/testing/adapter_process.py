"""Kill -9 at the worst moment, for any adapter whose peer is told: durable here, and the peer does not know it yet.

The plant is a process of its own (``headrace run``), the peer is real, and between them stands a
`headrace.testing.proxy.FaultProxy` that lets no acknowledgement through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from headrace.testing.proxy import FaultProxy, Silence


class KilledRig(Protocol):
    """A plant in a process, and what it takes its samples from, with a proxy between them."""

    proxy: FaultProxy
    acknowledges_by: str
    """The way of the proxy by which acknowledgements go: ``to_peer`` where the adapter connects, else ``to_client``."""

    async def up(self) -> None:
        """Start the process, and wait until its adapter is connected, or can be pushed to."""
        ...

    async def offer(self) -> None:
        """Begin to offer some samples, each with a time of its own; they are acknowledged later."""
        ...

    async def durable(self) -> None:
        """Wait until the plant says that all of them are in its journal."""
        ...

    def kill(self) -> None:
        """End the process as a power cut does."""
        ...

    async def acknowledged(self) -> None:
        """Wait until the peer knows that all of them are durable."""
        ...

    async def stored(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """End the process in order: values that its store then gives, in order of time; and those that were offered."""
        ...


async def check_killed_before_it_was_acknowledged(rig: KilledRig) -> None:
    """What was durable when the process was killed and comes again, because nobody knew, is stored once."""
    await rig.up()
    setattr(rig.proxy, rig.acknowledges_by, Silence())
    await rig.offer()
    await rig.durable()
    rig.kill()
    rig.proxy.cut()
    rig.proxy.heal()
    await rig.up()
    await rig.acknowledged()
    found, wanted = await rig.stored()
    assert len(found) >= len(wanted), f"{len(wanted) - len(found)} of {len(wanted)} were lost"
    assert list(found) == list(wanted), "not each of them is there once"
