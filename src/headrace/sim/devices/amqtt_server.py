"""The amqtt broker as a process: ``python -m headrace.sim.devices.amqtt_server HOST PORT``."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from amqtt.broker import Broker


async def serve(host: str, port: int) -> None:
    """Run a broker until SIGTERM or SIGINT."""
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    # To amqtt everyone is anonymous where anonymous clients are allowed, and it keeps nothing for them.
    named = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": False}}
    listener = {"type": "tcp", "bind": f"{host}:{port}", "max_connections": 0}
    broker = Broker({"listeners": {"default": listener}, "plugins": named})
    await broker.start()
    await done.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
