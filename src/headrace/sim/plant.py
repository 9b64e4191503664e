"""The demonstration plant: four lines whose devices speak Modbus TCP and MQTT over loopback.

28 Modbus devices (ovens, presses, pumps, dryers; 56 signals each) behind eight gateways, and 60 MQTT devices
(meters, conveyors, climate stations, tanks, panels; 10 signals each) on a broker: 2,168 sensors. The plant's
calendars are moved so that it is at work whenever it is started.

In a process of its own, so that its cost is not the pipeline's::

    python -m headrace.sim.plant --seed 1 --speed 60 --folder /tmp/plant

prints one line of JSON when everything runs: the plant file to connect with, and what a reader needs to keep the
same time (`plant_clock`). On SIGTERM or SIGINT it stops within two seconds and prints what it has sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.core.clock import Clock, ScaledClock, SystemClock
from headrace.core.errors import HeadraceError
from headrace.core.layouts import Column, Kind
from headrace.sim.calendars import DAY_SHIFT, THREE_SHIFTS, TWO_SHIFTS, Calendar, shift_into_work
from headrace.sim.devices.broker import Broker, BrokerProgram
from headrace.sim.devices.modbus import ModbusGateways, RegisterPlan
from headrace.sim.devices.mqtt import USER, PayloadStyle, Publisher
from headrace.sim.fleet import Fleet
from headrace.sim.profiles import CLIMATE, CONVEYOR, DRYER, METER, OVEN, PANEL, PRESS, PUMP, TANK

TIMEZONE = "Europe/Madrid"
PLANS = (THREE_SHIFTS, TWO_SHIFTS, DAY_SHIFT, THREE_SHIFTS)
N_LINES = 4
MODBUS_PROFILES = tuple(p.of_size(56) for p in (OVEN, PRESS, PUMP, DRYER))
MQTT_PROFILES = tuple(p.of_size(10) for p in (METER, CONVEYOR, CLIMATE, TANK, PANEL))
STYLES = {"conveyor": PayloadStyle.CSV, "climate": PayloadStyle.NUMBER}
_MODBUS_PER_LINE, _MQTT_PER_LINE = 7, 15
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
    """The sensors of the demonstration plant, by how they are reached."""

    modbus: Fleet
    mqtt: Fleet

    @classmethod
    def of(cls, seed: int, now_ns: int, speed: float) -> PlantFleets:
        """The plant as it is for a seed, at work at `now_ns`; at high speed a break comes soon."""
        calendars = [Calendar(plan, TIMEZONE) for plan in PLANS]
        ahead_s = speed * _BREAK_AFTER_REAL_S if speed >= _FAST else _BREAK_AFTER_S
        shift_ns = shift_into_work(calendars, now_ns, ahead_s)
        fleets = []
        for number, (profiles, per_line) in enumerate(
            ((MODBUS_PROFILES, _MODBUS_PER_LINE), (MQTT_PROFILES, _MQTT_PER_LINE))
        ):
            n_turns = N_LINES * per_line // len(profiles)
            fleets.append(
                Fleet(
                    n_turns * sum(p.size for p in profiles),
                    seed=2 * seed + number,
                    dtype="f64" if number else None,
                    profiles=profiles,
                    devices_per_line=per_line,
                    plans=PLANS,
                    timezone=TIMEZONE,
                    line_offset_s=0,
                    calendar_shift_ns=shift_ns,
                )
            )
        return cls(*fleets)

    @property
    def n_sensors(self) -> int:
        """Sensors of the plant."""
        return self.modbus.n_sensors + self.mqtt.n_sensors

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
    """

    def __init__(
        self,
        seed: int,
        clock: Clock,
        folder: Path,
        speed: float = 1.0,
        store_url: str = "./store",
        broker: BrokerProgram | None = None,
    ) -> None:
        self.fleets = PlantFleets.of(seed, clock.now_ns(), speed)
        self.broker = Broker(folder / "broker", broker)
        self.file = folder / "plant.toml"
        self.publisher: Publisher | None = None
        refresh_s = 0.5 if speed < _FAST else 1.0
        self.gateways = ModbusGateways(self.fleets.modbus, clock, self.fleets.gateways(), refresh_s)
        self._clock = clock
        self._step_s = max(0.25, 0.05 * speed)
        self._store_url = store_url

    async def start(self) -> Path:
        """Start gateways, broker and publisher, in that order, and write the plant file; its path.

        Raises
        ------
        HeadraceError : a part does not start; the others are stopped.
        """
        try:
            await self.gateways.start()
            await self.broker.start()
            address = (self.broker.host, self.broker.port)
            self.publisher = Publisher(self.fleets.mqtt, self._clock, address, STYLES, self._step_s)
            await self.publisher.start()
        except BaseException:
            await self.stop()
            raise
        text = plant_toml(self.fleets, self.gateways.urls, self.broker.url, self._store_url)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text, encoding="utf-8")
        return self.file

    async def stop(self) -> None:
        """Stop publisher, broker and gateways, within two seconds. Idempotent."""
        try:
            if self.publisher is not None:
                await self.publisher.stop()
        finally:
            await self.broker.stop()
            await self.gateways.stop()

    def counts(self) -> dict[str, int]:
        """What was sent: messages, acknowledged ones, their samples, and Modbus requests answered."""
        publisher = self.publisher
        return {
            "sensors": self.fleets.n_sensors,
            "published": publisher.n_published if publisher else 0,
            "acknowledged": publisher.n_acknowledged if publisher else 0,
            "samples_published": publisher.n_samples if publisher else 0,
            "modbus_reads": self.gateways.n_reads,
        }


def demo_plant(seed: int, clock: Clock, folder: Path, speed: float = 1.0) -> DemoPlant:
    """The demonstration plant, not yet started."""
    return DemoPlant(seed, clock, folder, speed)


def plant_toml(fleets: PlantFleets, urls: dict[str, str], broker_url: str, store_url: str) -> str:
    """The plant file that connects to the demonstration plant.

    Parameters
    ----------
    urls : Modbus device path → url.
    """
    lines = [
        "# The demonstration plant. Written by headrace.sim.plant for one run: ports change.",
        "version = 1",
        "",
        "[plant]",
        f"timezone = {_text(TIMEZONE)}",
        "",
        "[store]",
        f"url = {_text(store_url)}",
    ]
    for kind in fleets.modbus.types:
        name = kind.profile.name
        lines += ["", f"[profiles.{name}]"]
        lines += [_signal(address, column) for address, column in RegisterPlan.of(kind).addresses()]
        lines += [
            "",
            f"[adapters.{name}]",
            'protocol = "modbus"',
            f"profile = {_text(name)}",
            'interval = "1s"',
        ]
        lines += ["", f"[adapters.{name}.devices]"]
        lines += [f"{_text(path)} = {_text(urls[path])}" for path in fleets.modbus.paths(kind.devices())]
    lines += [
        "",
        "[adapters.broker]",
        'protocol = "mqtt"',
        f"url = {_text(broker_url)}",
        f"user = {_text(USER)}",
    ]
    lines += ["", "[adapters.broker.topics]", *_topics(fleets.mqtt)]
    return "\n".join(lines) + "\n"


def _signal(address: str, column: Column) -> str:
    """A profile's line: ``temperature = { address = "holding:0:U16;scale=0.1", unit = "degC", ... }``."""
    fields = [f"address = {_text(address)}"]
    if column.unit:
        fields.append(f"unit = {_text(column.unit)}")
    if column.kind is not Kind.ANALOG:
        fields.append(f"kind = {_text(column.kind.name.lower())}")
    if column.low is not None and column.high is not None:
        fields.append(f"limits = [{column.low:g}, {column.high:g}]")
    if column.labels:
        fields.append(f"labels = {json.dumps(column.labels)}")
    return f"{column.name} = {{ {', '.join(fields)} }}"


def _topics(fleet: Fleet) -> Iterator[str]:
    """The topic rules: one for each payload style, as the first level of the topics tells them apart."""
    site = fleet.paths(np.array([0]))[0].partition("/")[0]
    place = "{area}/{line}/{device}"
    for style in PayloadStyle:
        columns = [
            [c.name for c in kind.parts[0].layout.columns]
            for kind in fleet.types
            if STYLES.get(kind.profile.name, PayloadStyle.JSON) is style
        ]
        topic = f"{style.root}/{place}"
        path = f"{site}/{place}"
        fields = {
            PayloadStyle.JSON: ', values = "fields", time = "ts", time_unit = "ms"',
            PayloadStyle.CSV: ', values = "csv", time = "ts", time_unit = "ms"',
            PayloadStyle.NUMBER: ', values = "number"',
        }[style]
        if style is PayloadStyle.CSV:
            fields += f", columns = {json.dumps(['ts', *columns[0]])}"
        if style is PayloadStyle.NUMBER:
            topic, path = f"{topic}/{{signal}}", f"{path}/{{signal}}"
        else:
            path += "/{key}"
        yield f"{_text(topic)} = {{ path = {_text(path)}{fields} }}"


def _text(value: str) -> str:
    return json.dumps(value)


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
    assert plant.publisher is not None
    waiting = [asyncio.create_task(done.wait()), asyncio.create_task(plant.publisher.ended())]
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
