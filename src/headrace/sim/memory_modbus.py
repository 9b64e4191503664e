"""Modbus devices without sockets: their gateways answer in memory, and count what they are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from headrace.adapters.base import Sink
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.collector import Collector
from headrace.adapters.modbus.endpoints import Endpoint
from headrace.adapters.modbus.poller import ConnectionPoller, PolledDevice
from headrace.adapters.modbus.transport import ModbusTransport
from headrace.adapters.pacing import ConnectGate


class MemoryGateway:
    """Some devices behind one host: register 0 of each counts the requests that read it, so that a poll shows that is lost.

    The others hold their own number.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.n_connections = 0

    def answer(self, unit: int, pdu: bytes) -> bytes:
        """The answer to a request for holding registers."""
        first, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        registers = list(range(first, first + count))
        if first == 0:
            registers[0] = self.counts[unit] = self.counts.get(unit, 0) + 1
        return bytes((pdu[0], 2 * count)) + b"".join(n.to_bytes(2, "big") for n in registers)


class _MemoryTransport(ModbusTransport):
    def __init__(self, endpoint: Endpoint, gateway: MemoryGateway, on_lost: Callable[[str], None]) -> None:
        super().__init__(endpoint, on_lost)
        self._gateway = gateway
        gateway.n_connections += 1

    async def request(self, unit: int, pdu: bytes, timeout_s: float) -> bytes:
        """Ask the gateway."""
        return self._gateway.answer(unit, pdu)


class _MemoryPoller(ConnectionPoller):
    gateways: Mapping[str, MemoryGateway]

    async def _connect(self, now_ns: int) -> None:
        self._transport = _MemoryTransport(self.endpoint, self.gateways[self.endpoint.host], self._drop)
        self.n_connects += 1


class MemoryModbus(ModbusAdapter):
    """The Modbus adapter at simulated gateways: the host of a url is the gateway's name."""

    gateways: ClassVar[Mapping[str, MemoryGateway]] = {}

    async def start(self, sink: Sink) -> None:
        """Begin to poll; what is polled is handed on at once, as this plant knows nothing of real time."""
        await super().start(sink)
        assert self._running is not None
        self._running.collector._slice_s = 0.0

    def _poller(
        self, devices: list[PolledDevice], sink: Sink, collector: Collector, gate: ConnectGate
    ) -> ConnectionPoller:
        backoff = self._backoff(str(devices[0].plan.endpoint))
        poller = _MemoryPoller(self.name, devices, sink, collector, gate, 0, backoff)
        poller.gateways = self.gateways
        return poller
