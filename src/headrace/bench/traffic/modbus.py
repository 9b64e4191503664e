"""Units of 62 floats behind one connection, each polled every 10 ms; beside it pymodbus and NumPy at the same pace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import numpy as np

from headrace.adapters.base import Adapter
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.collector import PollImages, decode_images
from headrace.adapters.payloads.register_addresses import parse_address
from headrace.adapters.payloads.registers import RegisterTag, compile_read_map
from headrace.bench.traffic.base import FACTS, Count, Peer
from headrace.core.clock import NS, SystemClock
from headrace.core.layouts import Column
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings

_FLOATS, _POLLS, _SLICE = 62, 1_000, 100
_UNITS, _INTERVAL_MS = 5, 10


class ModbusTraffic:
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "modbus"
    n_samples = _FLOATS * _POLLS
    n_feeds = 3
    reference = "pymodbus, numpy.frombuffer of each poll"
    libraries: ClassVar[Mapping[str, str]] = {"pymodbus": "pymodbus"}

    def __init__(self) -> None:
        self._peer: Peer | None = None
        self._port = 0

    async def up(self) -> None:
        self._peer = Peer(_device)
        self._port = await self._peer.ask("port")

    async def down(self) -> None:
        if self._peer is not None:
            await self._peer.end()

    def adapter(self, n_feeds: int = 1) -> Adapter:
        profile = {f"t{i}": SignalSettings(address=f"holding:{2 * i}:F32") for i in range(_FLOATS)}
        config = {
            "protocol": "modbus", "profile": "oven", "interval": f"{_INTERVAL_MS}ms", "max_requests_per_s": 10_000.0,
            "devices": {f"bench/line/oven{i}": f"modbus+tcp://127.0.0.1:{self._port}?unit={i}" for i in range(1, 1 + _UNITS)},
        }  # fmt: skip
        settings = validate_section(ModbusAdapter.Config, config, "adapters.modbus")
        return ModbusAdapter.from_config("modbus", settings, {"oven": profile}, FACTS)

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        """A device is asked, it sends nothing by itself."""

    async def bare(self, count: Count) -> None:
        from pymodbus.client import AsyncModbusTcpClient

        client, clock = AsyncModbusTcpClient("127.0.0.1", port=self._port), SystemClock()
        await client.connect()

        async def poll(unit: int) -> None:
            due_ns = clock.now_ns()
            while not count.complete.is_set():
                answer = await client.read_holding_registers(0, count=2 * _FLOATS, device_id=unit)
                _floats(np.array(answer.registers, ">u2").tobytes())
                count.add(_FLOATS)
                due_ns = max(due_ns + _INTERVAL_MS * 1_000_000, clock.now_ns())
                await clock.sleep((due_ns - clock.now_ns()) / NS)

        await asyncio.gather(*(poll(unit) for unit in range(1, 1 + _UNITS)))
        client.close()

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        n_floats = _FLOATS if is_batched else 1
        values = np.arange(n_floats * _SLICE, dtype=">f4").reshape(_SLICE, n_floats)
        return [row.tobytes() for row in values], n_floats * _SLICE

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        n_floats = len(payloads[0]) // 4
        tags = [RegisterTag(Column(f"t{i}"), parse_address(f"holding:{2 * i}:F32")) for i in range(n_floats)]
        read_map = compile_read_map(tags)
        slots = tuple(directory.define("bench/line/oven", part.layout) for part in read_map.parts)

        def work() -> Any:
            images = PollImages()
            for i, data in enumerate(payloads):
                images.add(slots, i, data)
            return decode_images(read_map, images, 0, "modbus")

        return work

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        return lambda: [_floats(data) for data in payloads]


def _floats(data: bytes) -> Any:
    return np.frombuffer(data, ">f4").astype(np.float64)


def _device(pipe: Connection) -> None:
    """The device's process."""
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it shows its last packets when a client goes
    asyncio.run(_answer(pipe))


async def _answer(pipe: Connection) -> None:
    from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit

    units = {i: SimulatedUnit() for i in range(1, 1 + _UNITS)}
    for unit in units.values():
        unit.holding[: 2 * _FLOATS] = np.linspace(0.0, 400.0, _FLOATS).astype(">f4").view(">u2")
    simulator = ModbusSimulator(units)
    await simulator.start()
    await asyncio.to_thread(pipe.recv)
    pipe.send(simulator.port)
    await asyncio.Event().wait()
