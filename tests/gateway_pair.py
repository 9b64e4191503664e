"""A gateway in this process: both ends of its link on one event loop, for tests that need no process."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from headrace.core.clock import SystemClock
from headrace.core.config import parse_plant
from headrace.runtime.gateway import GatewayAdapter
from headrace.runtime.gateway_end import GatewayEnd
from headrace.runtime.gateway_link import GatewayLink
from headrace.runtime.gateway_process import GatewayService

PID = 4_711


class Pair:
    """Starts gateways whose adapters `make` makes.

    Parameters
    ----------
    make : called with nothing.
    """

    def __init__(self, make, report_s=0.001):
        self.make, self.report_s = make, report_s
        self.n_started = self.n_killed = 0
        self.fails = None
        self._far = None

    async def spawn(self):
        if self.fails is not None:
            raise self.fails
        near, far = socket.socketpair()
        self.n_started, self.adapters = self.n_started + 1, []
        link = await GatewayLink.over(near)
        try:
            self._far = await GatewayLink.over(far)
        except BaseException:
            link.close()
            raise
        service = asyncio.create_task(GatewayService(self._far, self._made, self.report_s).run())

        async def end():
            link.close()
            await asyncio.wait_for(service, 5)
            await link.closed()
            return "was ended by SIGKILL"

        return GatewayEnd(link, PID + self.n_started, end, self.kill)

    def _made(self, config, name):
        adapter = self.make()
        self.adapters.append(adapter)
        return adapter

    def kill(self):
        """As `die`, on the engine's word."""
        self.n_killed += 1
        self.die()

    def die(self):
        """The gateway is gone from one moment to the next."""
        self._far._writer.transport.abort()

    def adapter(self, name="x", protocol="sim", checked=None):
        """A gateway's adapter, not started."""
        section = {"protocol": protocol}
        config = parse_plant({"version": 1, "adapters": {name: section}}, Path())
        return GatewayAdapter(name, config, SystemClock(), checked, self.spawn)
