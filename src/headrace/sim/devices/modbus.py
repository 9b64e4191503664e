"""A fleet's devices behind Modbus TCP gateways.

The server is pymodbus's, so that a reader is checked against someone else's reading of the standard. Several
devices share a port, told apart by their unit id, as behind a real gateway. A device keeps numbers in holding
registers, one value after the other from register 0, and states in coils; both are read-only. Register values
are the fleet's at the present time of the clock, brought up to date for all devices at once when someone reads
and the last update is `refresh_s` old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from headrace.core.clock import NS, Clock
from headrace.core.errors import Unreachable
from headrace.core.layouts import Column
from headrace.sim.device_types import DeviceType
from headrace.sim.fleet import Fleet

U16 = npt.NDArray[np.uint16]
Array = npt.NDArray[Any]

_READ_COILS, _READ_HOLDING = 1, 3
_ORDERS = {"u16": "ABCD", "i16": "ABCD", "u32": "ABCD", "i32": "ABCD", "f32": "CDAB", "f64": "ABCD"}

_NOTHING = [SimData(0, count=1, datatype=DataType.INVALID)]
_ANYTHING = [SimData(0, count=2_000, values=0, datatype=DataType.REGISTERS)]
_NO_BITS = [SimData(0, count=16, values=False, datatype=DataType.BITS)]


@dataclass(frozen=True, eq=False)
class RegisterPlan:
    """Where the devices of a type keep their signals: parts of numbers in registers, of u8 in coils.

    ``first: int64[parts]``, the first register or coil of each part.
    """

    kind: DeviceType
    first: tuple[int, ...]
    n_registers: int
    n_coils: int

    @classmethod
    def of(cls, kind: DeviceType) -> RegisterPlan:
        """Lay a type's signals out, part after part.

        Raises
        ------
        ValueError : a type without values at rest (events, waveforms).
        """
        if kind.parts[0].table is None:
            raise ValueError(
                f"{kind.profile.name} devices report events or waveforms: they have no registers"
            )
        first: list[int] = []
        n_registers, n_coils = 0, 0
        for part in kind.parts:
            width = part.layout.width
            if part.layout.dtype == "u8":
                if any(len(column.labels) > 2 for column in part.layout.columns):
                    raise ValueError(
                        f"{kind.profile.name}: a coil has two states; report more of them as u16"
                    )
                first.append(n_coils)
                n_coils += width
            else:
                first.append(n_registers)
                n_registers += width * _n_words(part.layout.dtype)
        return cls(kind, tuple(first), n_registers, n_coils)

    def addresses(self) -> list[tuple[str, Column]]:
        """Address and column of each signal, in the grammar of ``plant.toml``."""
        out = []
        for part, first in zip(self.kind.parts, self.first, strict=True):
            for i, column in enumerate(part.layout.columns):
                out.append((_address(part.layout.dtype, first, i, column), column))
        return out

    def tables(self, values: Sequence[Array]) -> tuple[U16, U16]:
        """Holding registers ``uint16[F, registers]`` and coils, 16 in a word, ``uint16[F, words]``.

        Parameters
        ----------
        values : T[F, D] of each part, as `Fleet.all_values` gives them.
        """
        n = len(values[0])
        registers = [np.empty((n, 0), np.uint16)]
        coils = [np.empty((n, 0), np.uint8)]
        for part, some in zip(self.kind.parts, values, strict=True):
            if part.layout.dtype == "u8":
                coils.append(some)
            else:
                registers.append(_words(some, _ORDERS[part.layout.dtype]))
        bits = np.concatenate(coils, axis=1)
        packed = np.packbits(np.pad(bits, ((0, 0), (0, -bits.shape[1] % 16))), axis=1, bitorder="little")
        return np.concatenate(registers, axis=1), packed.view("<u2").astype(np.uint16)


class FleetTables:
    """The registers of all devices at the last refresh.

    Parameters
    ----------
    refresh_s : registers change at absolute multiples of it (plant time).
    """

    def __init__(self, fleet: Fleet, refresh_s: float) -> None:
        self.plans = tuple(RegisterPlan.of(kind) for kind in fleet.types)
        self._fleet = fleet
        self._refresh_ns = max(1, round(refresh_s * NS))
        self._at_ns = -1
        self._rows: dict[int, tuple[list[int], list[int]]] = {}

    def read(self, device: int, now_ns: int) -> tuple[list[int], list[int]]:
        """Holding registers and coil words of a device."""
        at_ns = now_ns - now_ns % self._refresh_ns
        if at_ns != self._at_ns or not self._rows:
            for plan in self.plans:
                devices = plan.kind.devices()
                values = self._fleet.all_values(devices, np.full(len(devices), at_ns))
                registers, coils = plan.tables(values)
                rows = zip(registers.tolist(), coils.tolist(), strict=True)
                self._rows.update(zip(devices.tolist(), rows, strict=True))
            self._at_ns = at_ns
        return self._rows[device]


class ModbusGateways:
    """A fleet's devices on some ports of the loopback interface.

    Parameters
    ----------
    gateways : the devices behind each port; their unit ids are 1, 2, ... in that order.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        gateways: Sequence[Sequence[int]],
        refresh_s: float = 0.5,
        host: str = "127.0.0.1",
    ) -> None:
        self.tables = FleetTables(fleet, refresh_s)
        self.n_reads = 0
        self._fleet = fleet
        self._clock = clock
        self._gateways = [list(devices) for devices in gateways]
        self._host = host
        self._servers: list[ModbusTcpServer] = []
        self.urls: dict[str, str] = {}
        """Device path → ``modbus+tcp://host:port?unit=n``, once started."""

    async def start(self) -> None:
        """Listen on one free port for each gateway.

        Raises
        ------
        Unreachable : a port can't be had.
        """
        plan_of = dict(enumerate(self.tables.plans))
        for devices in self._gateways:
            paths = self._fleet.paths(np.array(devices))
            index = self._fleet.type_index(np.array(devices)).tolist()
            units = [
                self._unit(number, device, plan_of[i])
                for number, (device, i) in enumerate(zip(devices, index, strict=True), 1)
            ]
            # Without a unit 0 the server answers for a unit that it doesn't have, but writes a traceback too.
            units.append(SimDevice(0, (_NO_BITS, _NO_BITS, _ANYTHING, _ANYTHING), action=_no_unit))
            server = ModbusTcpServer(units, address=(self._host, 0))
            try:
                await server.serve_forever(background=True)
            except RuntimeError as error:
                await self.stop()
                raise Unreachable(f"can't listen on {self._host}: {error}") from error
            self._servers.append(server)
            listener: Any = server.transport
            port = listener.sockets[0].getsockname()[1]
            for number, path in enumerate(paths, 1):
                self.urls[path] = f"modbus+tcp://{self._host}:{port}?unit={number}"

    async def stop(self) -> None:
        """Close ports and connections. Idempotent."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.shutdown()

    def _unit(self, number: int, device: int, plan: RegisterPlan) -> SimDevice:
        coils = SimData(0, count=max(plan.n_coils, 1), values=False, datatype=DataType.BITS)
        holding = SimData(0, count=max(plan.n_registers, 1), values=0, datatype=DataType.REGISTERS)
        return SimDevice(
            number, ([coils], _NO_BITS, [holding], _NOTHING), action=partial(self._answer, device)
        )

    async def _answer(
        self,
        device: int,
        function: int,
        first: int,
        address: int,
        count: int,
        current: list[int],
        written: Any,
    ) -> ExcCodes | None:
        """Called by the server for each request: put the present values in place."""
        if written is not None or function not in (_READ_COILS, _READ_HOLDING):
            return ExcCodes.ILLEGAL_FUNCTION
        self.n_reads += 1
        registers, coils = self.tables.read(device, self._clock.now_ns())
        row = registers if function == _READ_HOLDING else coils
        current[: len(row)] = row
        return None


async def _no_unit(
    function: int, first: int, address: int, count: int, current: list[int], written: Any
) -> ExcCodes | None:
    """Called for units that a gateway doesn't have."""
    return ExcCodes.GATEWAY_NO_RESPONSE


def _n_words(dtype: str) -> int:
    return int(dtype[1:]) // 16


def _words(values: Array, order: str) -> U16:
    """Values as registers, high word first (ABCD) or last (CDAB): uint16[F, D * words]."""
    n, width = values.shape
    size = values.dtype.itemsize // 2
    words = np.ascontiguousarray(values).astype(values.dtype.newbyteorder(">")).view(">u2")
    words = words.reshape(n, width, size)
    if order == "CDAB":
        words = words[:, :, ::-1]
    return words.reshape(n, width * size).astype(np.uint16)


def _address(dtype: str, first: int, i: int, column: Column) -> str:
    if dtype == "u8":
        return f"coil:{first + i}"
    text = f"holding:{first + i * _n_words(dtype)}:{dtype.upper()}"
    if _n_words(dtype) > 1:
        text += f";order={_ORDERS[dtype]}"
    if column.scale != 1.0:
        text += f";scale={column.scale:g}"
    return text + (f";add={column.offset:g}" if column.offset else "")
