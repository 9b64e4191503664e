"""A Modbus TCP server for tests and trials: settable tables, and devices that hang, refuse or go away.

The wire protocol is pymodbus's, so that our client is checked against someone else's reading of the standard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from headrace.adapters.payloads.registers import Area

TABLE_SIZE = 2_000


def _registers() -> npt.NDArray[np.uint16]:
    return np.zeros(TABLE_SIZE, np.uint16)


def _bits() -> npt.NDArray[np.bool_]:
    return np.zeros(TABLE_SIZE, np.bool_)


@dataclass
class SimulatedUnit:
    """One unit's tables, 2,000 items each, and its faults.

    Parameters
    ----------
    refuse : exception code by (area, first item of the request); ``(area, None)`` refuses the whole area.
    """

    holding: npt.NDArray[np.uint16] = field(default_factory=_registers)
    input: npt.NDArray[np.uint16] = field(default_factory=_registers)
    coil: npt.NDArray[np.bool_] = field(default_factory=_bits)
    discrete: npt.NDArray[np.bool_] = field(default_factory=_bits)
    refuse: dict[tuple[Area, int | None], int] = field(default_factory=dict)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    n_requests: int = 0

    def __post_init__(self) -> None:
        self.resume()

    def hang(self) -> None:
        """From now on take requests and answer none."""
        self.answering.clear()

    def resume(self) -> None:
        """Answer again, also what is waiting."""
        self.answering.set()

    async def answer(
        self, function: int, first: int, address: int, count: int, current: list[int], values: Any
    ) -> ExcCodes | None:
        """Called by the server for each request: put our tables in place, or do what the faults say."""
        self.n_requests += 1
        area = next(a for a in Area if a.function == function)
        await self.answering.wait()
        code = self.refuse.get((area, address), self.refuse.get((area, None)))
        if code is not None:
            return ExcCodes(code)
        if area.has_bits:
            bits = np.packbits(getattr(self, area), bitorder="little").view("<u2")
            current[: len(bits)] = bits.tolist()
        else:
            current[: TABLE_SIZE + 1] = [*getattr(self, area).tolist(), 0]
        return None

    def device(self, unit: int) -> SimDevice:
        """The unit as pymodbus wants it."""
        bits = [SimData(0, count=TABLE_SIZE, values=False, datatype=DataType.BITS)]
        registers = [SimData(0, count=TABLE_SIZE, values=0, datatype=DataType.REGISTERS)]
        return SimDevice(unit, (bits, bits, registers, registers), action=self.answer)


class ModbusSimulator:
    """A server with some units on one port.

    Parameters
    ----------
    units : by unit id.
    corrupt : changes the bytes of every answer before it is sent.
    port : 0 takes a free one; the same port is taken again after `stop` and `start`.
    """

    def __init__(self, units: dict[int, SimulatedUnit], host: str = "127.0.0.1", port: int = 0) -> None:
        self.units = units
        self.host = host
        self.port = port
        self.corrupt: Callable[[bytes], bytes] | None = None
        self._server: ModbusTcpServer | None = None

    def url(self, unit: int = 1, timeout: str = "1s") -> str:
        """What to write in the plant file for one of the units."""
        return f"modbus+tcp://{self.host}:{self.port}?unit={unit}&timeout={timeout}"

    async def start(self) -> None:
        """Listen."""
        devices = [unit.device(number) for number, unit in self.units.items()]
        self._server = ModbusTcpServer(devices, address=(self.host, self.port), trace_packet=self._trace)
        await self._server.serve_forever(background=True)
        listener: Any = self._server.transport
        self.port = listener.sockets[0].getsockname()[1]

    def _trace(self, is_sending: bool, data: bytes) -> bytes:
        return self.corrupt(data) if is_sending and self.corrupt is not None else data

    def drop(self) -> None:
        """Close every client's connection, go on listening."""
        assert self._server is not None
        for connection in list(self._server.active_connections.values()):
            connection.close()

    async def stop(self) -> None:
        """Close everything; what hangs is let go."""
        for unit in self.units.values():
            unit.resume()
        if self._server is not None:
            await self._server.shutdown()
            self._server = None
