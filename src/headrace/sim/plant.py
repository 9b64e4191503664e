"""The demonstration plant: four lines whose devices speak Modbus TCP, OPC UA, MQTT and Sparkplug B over loopback.

24 Modbus devices (ovens, pumps, dryers; 56 signals each) behind six gateways, 8 presses of 48 signals on an OPC UA
server, 60 MQTT devices (meters, conveyors, climate stations, tanks, panels; 10 signals each) on a broker, and on the same
broker 12 robots of 20 signals behind the Sparkplug edge node of each line: 2,568 sensors. The plant's calendars are moved
so that it is at work whenever it is started.

In a process of its own, so that its cost is not the pipeline's::

    python -m headrace.sim.plant --seed 1 --speed 60 --folder /tmp/plant

prints one line of JSON when everything runs: the plant file to connect with, and what a reader needs to keep the
same time (`plant_clock`). On SIGTERM or SIGINT it stops within two seconds and prints what it has sent.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headrace.core.clock import Clock, ScaledClock, SystemClock
from headrace.core.errors import HeadraceError
from headrace.sim.calendars import DAY_SHIFT, THREE_SHIFTS, TWO_SHIFTS, Calendar, shift_into_work
from headrace.sim.devices.broker import Broker, BrokerProgram
from headrace.sim.devices.modbus import ModbusGateways
from headrace.sim.devices.mqtt import Publisher
from headrace.sim.devices.sparkplug import EdgeNodes
from headrace.sim.fleet import Fleet
from headrace.sim.noise import mix_int
from headrace.sim.plant_file import STYLES, TIMEZONE, PlantAddresses, plant_toml
from headrace.sim.profiles import (
    CLIMATE,
    CONVEYOR,
    DRYER,
    METER,
    OVEN,
    PANEL,
    PRESS,
    PUMP,
    ROBOT,
    TANK,
    DeviceProfile,
)

if TYPE_CHECKING:
    from headrace.sim.devices.opcua import OpcuaCell

PLANS = (THREE_SHIFTS, TWO_SHIFTS, DAY_SHIFT, THREE_SHIFTS)
N_LINES = 4
MODBUS_PROFILES = tuple(p.of_size(56) for p in (OVEN, PUMP, DRYER))
OPCUA_PROFILES = (PRESS.of_size(48).in_units(),)
MQTT_PROFILES = tuple(p.of_size(10) for p in (METER, CONVEYOR, CLIMATE, TANK, PANEL))
SPARKPLUG_PROFILES = (ROBOT,)
_GATEWAYS_PER_PROFILE = 2
_FAST = 10.0
_BREAK_AFTER_REAL_S = 8.0
_BREAK_AFTER_S = 3_600.0


def plant_clock(speed: float, anchor_ns: int) -> Clock:
    """The clock of a plant that runs `speed` times as fast since the computer's clock said `anchor_ns`.

    Processes that are given the same two numbers have the same plant time.
    """
    if speed == 1.0:
        return SystemClock()
    return ScaledClock(speed, anchor_ns + round((SystemClock().now_ns() - anchor_ns) * speed))


@dataclass(frozen=True, slots=True)
class PlantFleets:
    """The sensors of the demonstration plant, by how they are reached; without OPC UA where its library is missing."""

    modbus: Fleet
    mqtt: Fleet
    sparkplug: Fleet
    opcua: Fleet | None

    @classmethod
    def of(cls, seed: int, now_ns: int, speed: float, has_opcua: bool = True) -> PlantFleets:
        """The plant as it is for a seed, at work at `now_ns`; at high speed a break comes soon."""
        calendars = [Calendar(plan, TIMEZONE) for plan in PLANS]
        ahead_s = speed * _BREAK_AFTER_REAL_S if speed >= _FAST else _BREAK_AFTER_S
        shift_ns = shift_into_work(calendars, now_ns, ahead_s)

        def fleet(
            number: int, profiles: tuple[DeviceProfile, ...], per_line: int, dtype: str | None
        ) -> Fleet:
            n_turns = N_LINES * per_line // len(profiles)
            return Fleet(
                n_turns * sum(p.size for p in profiles),
                seed=mix_int(seed, number),
                dtype=dtype,
                profiles=profiles,
                devices_per_line=per_line,
                plans=PLANS,
                timezone=TIMEZONE,
                line_offset_s=0,
                calendar_shift_ns=shift_ns,
            )

        return cls(
            modbus=fleet(0, MODBUS_PROFILES, 6, None),
            mqtt=fleet(1, MQTT_PROFILES, 15, "f64"),
            sparkplug=fleet(2, SPARKPLUG_PROFILES, 3, None),
            opcua=fleet(3, OPCUA_PROFILES, 2, None) if has_opcua else None,
        )

    @property
    def all(self) -> tuple[Fleet, ...]:
        """Every fleet."""
        found = (self.modbus, self.mqtt, self.sparkplug, self.opcua)
        return tuple(one for one in found if one is not None)

    @property
    def n_sensors(self) -> int:
        """Sensors of the plant."""
        return sum(fleet.n_sensors for fleet in self.all)

    def gateways(self) -> list[list[int]]:
        """Modbus devices behind each port: those of one profile share some."""
        each = [kind.devices() for kind in self.modbus.types]
        return [part.tolist() for devices in each for part in np.array_split(devices, _GATEWAYS_PER_PROFILE)]


class DemoPlant:
    """The demonstration plant's servers.

    Parameters
    ----------
    folder : where the plant file and the broker's files go.
    store_url : what the plant file says for ``[store] url``.
    broker : which broker runs; None takes mosquitto where it is installed.
    has_opcua : whether there is an OPC UA server; None where its library is installed.
    """

    def __init__(
        self,
        seed: int,
        clock: Clock,
        folder: Path,
        speed: float = 1.0,
        store_url: str = "./store",
        broker: BrokerProgram | None = None,
        *,
        has_opcua: bool | None = None,
    ) -> None:
        has_opcua = is_installed("asyncua") if has_opcua is None else has_opcua
        self.fleets = PlantFleets.of(seed, clock.now_ns(), speed, has_opcua)
        self.broker = Broker(folder / "broker", broker)
        self.file = folder / "plant.toml"
        self.publisher: Publisher | None = None
        self.nodes: EdgeNodes | None = None
        self.cell = _cell(self.fleets.opcua, clock, max(1.0, 0.5 * speed))
        refresh_s = 0.5 if speed < _FAST else 1.0
        self.gateways = ModbusGateways(self.fleets.modbus, clock, self.fleets.gateways(), refresh_s)
        self._clock = clock
        self._step_s = max(0.25, 0.05 * speed)
        self._store_url = store_url

    async def start(self) -> Path:
        """Start gateways, OPC UA server, broker, publisher and edge nodes, and write the plant file; its path.

        Raises
        ------
        HeadraceError : a part does not start; the others are stopped.
        """
        try:
            await self.gateways.start()
            if self.cell is not None:
                await self.cell.start()
            await self.broker.start()
            address = (self.broker.host, self.broker.port)
            self.publisher = Publisher(self.fleets.mqtt, self._clock, address, STYLES, self._step_s)
            await self.publisher.start()
            self.nodes = EdgeNodes(self.fleets.sparkplug, self._clock, address, 2 * self._step_s)
            await self.nodes.start()
        except BaseException:
            await self.stop()
            raise
        cells = {} if self.cell is None else self.cell.urls
        # amqtt says nothing to those who speak MQTT 5; to find that out takes 5 s.
        version = "3.1.1" if self.broker.program is BrokerProgram.AMQTT else ""
        addresses = PlantAddresses(self.gateways.urls, cells, self.broker.url, version)
        text = plant_toml(self.fleets.modbus, self.fleets.mqtt, self.fleets.opcua, addresses, self._store_url)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text, encoding="utf-8")
        return self.file

    async def ended(self) -> None:
        """Wait until a part sends no more, which only an error brings about; `stop` raises it."""
        parts = (self.publisher, self.nodes, self.cell)
        waiting = [asyncio.create_task(part.ended()) for part in parts if part is not None]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def stop(self) -> None:
        """Stop who sends, the servers and the broker, within two seconds. Idempotent."""
        senders: list[Callable[[], Awaitable[None]]] = [
            part.stop for part in (self.publisher, self.nodes, self.cell) if part is not None
        ]
        said = await asyncio.gather(*(stop() for stop in senders), return_exceptions=True)
        await self.broker.stop()
        await self.gateways.stop()
        for error in said:
            if error is not None:
                raise error

    def counts(self) -> dict[str, int]:
        """What was sent: messages, acknowledged ones, their samples, what edge nodes and OPC UA told, Modbus requests."""
        publisher = self.publisher
        return {
            "sensors": self.fleets.n_sensors,
            "published": publisher.n_published if publisher else 0,
            "acknowledged": publisher.n_acknowledged if publisher else 0,
            "samples_published": publisher.n_samples if publisher else 0,
            **{f"sparkplug_{name}": n for name, n in (self.nodes.counts() if self.nodes else {}).items()},
            "opcua_changes": self.cell.n_changes if self.cell else 0,
            "modbus_reads": self.gateways.n_reads,
        }


def is_installed(module: str) -> bool:
    """Whether a library is there."""
    return importlib.util.find_spec(module) is not None


def _cell(fleet: Fleet | None, clock: Clock, step_s: float) -> OpcuaCell | None:
    if fleet is None:
        return None
    from headrace.sim.devices.opcua import OpcuaCell  # its library is an extra

    return OpcuaCell(fleet, clock, step_s)


def demo_plant(seed: int, clock: Clock, folder: Path, speed: float = 1.0) -> DemoPlant:
    """The demonstration plant, not yet started."""
    return DemoPlant(seed, clock, folder, speed)


async def _serve(options: argparse.Namespace, folder: Path) -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    if options.until_eof:

        def read() -> None:
            if not os.read(sys.stdin.fileno(), 4_096):
                loop.remove_reader(sys.stdin.fileno())
                done.set()

        loop.add_reader(sys.stdin.fileno(), read)
    anchor_ns = options.anchor_ns or SystemClock().now_ns()
    clock = plant_clock(options.speed, anchor_ns)
    plant = DemoPlant(options.seed, clock, folder, options.speed, options.store, options.broker)
    file = await plant.start()
    ready = {
        "plant": str(file),
        "broker": plant.broker.program,
        "anchor_ns": anchor_ns,
        "speed": options.speed,
    }
    print(json.dumps(ready | {"sensors": plant.fleets.n_sensors, "pid": os.getpid()}), flush=True)
    waiting = [asyncio.create_task(done.wait()), asyncio.create_task(plant.ended())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await plant.stop()
    print(json.dumps(plant.counts()), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration plant until SIGTERM, SIGINT, or the end of stdin with ``--until-eof``."""
    parser = argparse.ArgumentParser(prog="python -m headrace.sim.plant", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0, help="plant seconds a real second")
    parser.add_argument(
        "--anchor-ns", type=int, help="when plant time and the computer's were the same; default: now"
    )
    parser.add_argument("--folder", type=Path, help="for the plant file; default: a temporary one")
    parser.add_argument("--store", default="./store", help="[store] url in the plant file")
    parser.add_argument("--broker", type=BrokerProgram, choices=list(BrokerProgram))
    parser.add_argument("--until-eof", action="store_true", help="stop when stdin, a pipe, is closed")
    options = parser.parse_args(arguments)
    try:
        if options.folder is not None:
            asyncio.run(_serve(options, options.folder))
        else:
            with tempfile.TemporaryDirectory(prefix="headrace-plant-") as folder:
                asyncio.run(_serve(options, Path(folder)))
    except (HeadraceError, OSError) as error:
        print(f"the plant does not start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
