"""A Modbus server for tests and trials: settable tables, and devices that hang, refuse or go away.

It serves TCP, TLS, and RTU over TCP; `SimulatedLine` puts a serial line (a pseudo-terminal) in front of the last.

The wire protocol is pymodbus's, so that our client is checked against someone else's reading of the standard.
"""

from __future__ import annotations

import asyncio
import os
import pty
import ssl
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerType
from pymodbus.server import ModbusTcpServer, ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

from headrace.adapters.modbus.endpoints import ModbusLink
from headrace.adapters.payloads.register_addresses import Area

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
    missing : registers that the device does not have: requests with one of them get exception 2.
    is_on_line : whether others share its line, so that while it hangs they are answered.
    """

    holding: npt.NDArray[np.uint16] = field(default_factory=_registers)
    input: npt.NDArray[np.uint16] = field(default_factory=_registers)
    coil: npt.NDArray[np.bool_] = field(default_factory=_bits)
    discrete: npt.NDArray[np.bool_] = field(default_factory=_bits)
    refuse: dict[tuple[Area, int | None], int] = field(default_factory=dict)
    missing: set[tuple[Area, int]] = field(default_factory=set)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    is_on_line: bool = False
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
        if not self.is_on_line:
            await self.answering.wait()
        code = self.refuse.get((area, address), self.refuse.get((area, None)))
        if self.missing and any((area, address + i) in self.missing for i in range(count)):
            code = 2
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
    link : TCP, TLS (with `tls`, a server's context), or RTU_TCP, where units that are not there are silent.
    """

    def __init__(
        self,
        units: dict[int, SimulatedUnit],
        host: str = "127.0.0.1",
        port: int = 0,
        link: ModbusLink = ModbusLink.TCP,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.units = units
        self.host = host
        self.port = port
        self.link = link
        self.corrupt: Callable[[bytes], bytes] | None = None
        self._tls = tls
        self._server: ModbusTcpServer | None = None

    def url(self, unit: int = 1, timeout: str = "1s") -> str:
        """What to write in the plant file for one of the units."""
        return f"modbus+{self.link}://{self.host}:{self.port}?unit={unit}&timeout={timeout}"

    async def start(self) -> None:
        """Listen."""
        devices = [unit.device(number) for number, unit in self.units.items()]
        for unit in self.units.values():
            unit.is_on_line = self.link.is_rtu
        options: dict[str, Any] = {"address": (self.host, self.port), "trace_packet": self._trace}
        if self.link is ModbusLink.TLS:
            self._server = ModbusTlsServer(devices, sslctx=self._tls, **options)
        else:
            framer = FramerType.RTU if self.link.is_rtu else FramerType.SOCKET
            self._server = ModbusTcpServer(devices, framer=framer, **options)
        await self._server.serve_forever(background=True)
        listener: Any = self._server.transport
        self.port = listener.sockets[0].getsockname()[1]

    def _trace(self, is_sending: bool, data: bytes) -> bytes:
        if is_sending and self.link.is_rtu:
            unit = self.units.get(data[0])
            if unit is None or not unit.answering.is_set():
                return b""  # on a line who is not there says nothing
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


class SimulatedLine:
    """A serial line, two ends of a pseudo-terminal, with the units of an RTU simulator on it.

    Parameters
    ----------
    path : where the line appears; the same after `stop` and `start`.
    has_echo : whether what is sent is heard, as on many RS-485 converters.
    """

    def __init__(self, path: Path, simulator: ModbusSimulator, has_echo: bool = False) -> None:
        self.path = path
        self.simulator = simulator
        self.has_echo = has_echo
        self.n_received = 0
        self._fds: tuple[int, int] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pumping: asyncio.Task[None] | None = None

    def url(self, unit: int = 1, timeout: str = "1s") -> str:
        """What to write in the plant file for one of the units."""
        return f"modbus+rtu://{self.path}?baud=115200&unit={unit}&timeout={timeout}&echo={int(self.has_echo)}"

    async def start(self) -> None:
        """Put the line there."""
        await self.simulator.start()
        reader, self._writer = await asyncio.open_connection(self.simulator.host, self.simulator.port)
        # Our end of the line's other side stays open, so that who hangs up does not end it.
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        self._fds = ours, theirs
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(theirs))
        asyncio.get_running_loop().add_reader(ours, self._receive)
        self._pumping = asyncio.create_task(self._pump(reader))

    def _receive(self) -> None:
        assert self._fds is not None
        assert self._writer is not None
        data = os.read(self._fds[0], 4_096)
        self.n_received += len(data)
        if self.has_echo:
            self.say(data)
        self._writer.write(data)

    async def _pump(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(4_096):
            self.say(data)

    def say(self, data: bytes) -> None:
        """Put bytes on the line, as whoever is on it does."""
        assert self._fds is not None
        os.write(self._fds[0], data)

    async def stop(self) -> None:
        """Pull the plug."""
        if self._fds is not None:
            asyncio.get_running_loop().remove_reader(self._fds[0])
            for fd in self._fds:
                os.close(fd)
            self._fds = None
            self.path.unlink()
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.gather(self._pumping, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        await self.simulator.stop()
