"""Outages of sensor networks: devices that keep what they measure while their link is down, and send it later.

Networks of devices reach the plant by MQTT or by HTTP. While the link of a network is down its devices buffer; when it
is back they upload their history in bulk, out of order, some of it twice, while they and everybody else go on. The
plant itself ends now and then, and its disk forgets what was not synced. Promises that are held against it:

- Everything that was acknowledged is stored, once; every device's numbers are complete.
- Devices of networks that are up are not disturbed: at least 95 % of what they send is acknowledged in time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headrace.core.clock import NS
from headrace.sim.memory_broker import SentMessage
from headrace.sim.payload_examples import HEAD, pushed_section, topics_section
from headrace.sim.plant_report import PlantReport
from headrace.sim.reporting_device import ReportingDevice, examples, values_by_sensor
from headrace.sim.simulated_plant import SimulatedPlant

KINDS = ("fields", "csv", "sparkplug", "lines", "json", "otlp")
N_DEVICES, N_SECONDS, N_SECONDS_LATER = 5, 60, 6
LATE_NS = 2 * NS
ON_TIME_SHARE = 0.95
_CHUNK = 25
_TWICE_SHARE = 0.2
_CRASHES_A_SECOND = 0.06


@dataclass(eq=False)
class BufferingDevice:
    """A device that keeps what it measures while its link is down.

    ``alone`` are the messages that it sent with nothing kept.
    """

    device: ReportingDevice
    kept: list[int] = field(default_factory=list)
    alone: list[SentMessage] = field(default_factory=list)

    def measure(self, is_up: bool) -> None:
        """Measure; send it, or keep it."""
        (one,) = self.device.instants(1)
        if not is_up:
            self.kept.append(len(self.device.measured) - 1)
            return
        message = self.device.send([one], f"plant/{self.device.name}")
        if not self.kept:
            self.alone.append(message)

    def upload(self, rng: np.random.Generator) -> None:
        """Send some of what was kept, in no order; a part of it is sent twice."""
        rng.shuffle(self.kept)
        some, self.kept = self.kept[:_CHUNK], self.kept[_CHUNK:]
        if not some:
            return
        self.kept += [n for n in some if rng.random() < _TWICE_SHARE] if self.kept else []
        self.device.send([self.device.measured[n] for n in some], f"plant/{self.device.name}")


class Network:
    """Devices that reach the plant by one link, which is down from time to time.

    Parameters
    ----------
    down : seconds between which it is down.
    """

    def __init__(self, plant: SimulatedPlant, kind: str, down: range) -> None:
        self.kind, self.down = kind, down
        self.devices = [
            BufferingDevice(ReportingDevice(plant, kind, f"dev{number}")) for number in range(N_DEVICES)
        ]

    def second(self, second: int, rng: np.random.Generator) -> None:
        """What happens in a second."""
        is_up = second not in self.down
        for one in self.devices:
            one.measure(is_up)
            if is_up:
                one.upload(rng)


class Outages:
    """One run of the scenario."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        text = HEAD
        for kind in KINDS:
            example = examples()[kind]
            text += pushed_section(kind, kind) if example.kind else topics_section(kind, example.rule)
        self.plant = SimulatedPlant(seed, folder, text)
        self._rng = rng = np.random.default_rng([seed, 18])
        self.plant.limit_samples = int(rng.integers(200, 2_000))  # a few messages of history are as many
        always_up = int(rng.integers(len(KINDS)))
        self.networks: list[Network] = []
        for number, kind in enumerate(KINDS):
            _ = self.plant.clients(kind) if examples()[kind].kind else self.plant.broker(kind)
            begin, length = int(rng.integers(4, 20)), int(rng.integers(15, N_SECONDS - 22))
            down = range(0) if number == always_up else range(begin, begin + length)
            self.networks.append(Network(self.plant, kind, down))

    async def run(self) -> PlantReport:
        """Everything, then the audits."""
        plant, rng = self.plant, self._rng
        await plant.start()
        for second in range(N_SECONDS):
            if rng.random() < _CRASHES_A_SECOND:
                plant.ending.arm(int(rng.integers(2**31)), 20)
            self._second(second)
            await plant.second()
        plant.ending.disarm()
        second = N_SECONDS
        while second < N_SECONDS + N_SECONDS_LATER or any(d.kept for n in self.networks for d in n.devices):
            self._second(second)
            await plant.second()
            second += 1
        await plant.quiet()
        plant.audit_counts(has_corrections=False)
        figures = Counter(lives=plant.n_lives, samples=self._audit_samples())
        self._audit_times(figures)
        await plant.crash()
        self._audit_samples()
        await plant.close()
        return PlantReport(self.seed, "outages", tuple(plant.problems), dict(figures))

    def _second(self, second: int) -> None:
        for network in self.networks:
            network.second(second, self._rng)
        if self._rng.random() < 0.05:  # the plant's own link breaks, too
            brokers = list(self.plant.brokers.values())
            brokers[int(self._rng.integers(len(brokers)))].cut()

    def _audit_samples(self) -> int:
        """Everything that was measured is stored once; how many samples that are."""
        problems, found = self.plant.problems, values_by_sensor(self.plant)
        devices = [one.device for network in self.networks for one in network.devices]
        problems += [text for device in devices if (text := device.difference(found))]
        n_sent, n_stored = sum(len(device.samples) for device in devices), sum(map(len, found.values()))
        if n_sent != n_stored:
            problems.append(f"{n_sent} samples were sent, {n_stored} are stored")
        return n_sent

    def _audit_times(self, figures: Counter[str]) -> None:
        """What was sent by devices that had kept nothing came in time."""
        for network in self.networks:
            alone = [m for one in network.devices for m in one.alone]
            late = sum(not m.is_acked or m.acked_ns - m.sent_ns > LATE_NS for m in alone)
            figures["messages"] += sum(len(one.device.sent) for one in network.devices)
            figures["live messages"] += len(alone)
            figures["late"] += late
            if late > (1 - ON_TIME_SHARE) * len(alone):
                text = f"{network.kind}: {late} of {len(alone)} live messages came late"
                self.plant.problems.append(text)
