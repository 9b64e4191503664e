"""A device of a simulation that remembers what it said, to hold what is stored against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from headrace.adapters.registry import PAYLOADS
from headrace.sim.memory_broker import SentMessage
from headrace.sim.payload_damage import PayloadDamage, damaged, n_values_most
from headrace.sim.payload_examples import OF_TOPICS, PUSHED, Instant, PayloadExample, device_path
from headrace.sim.simulated_plant import SimulatedPlant

FIRST_N = 10


def examples() -> dict[str, PayloadExample]:
    """The example of every kind, by the name of its adapter. Raises KeyError for a payload without one."""
    return {**{name: OF_TOPICS[name] for name in PAYLOADS.built_in}, **PUSHED}


class ReportingDevice:
    """A device that says one thing a second or so.

    Parameters
    ----------
    kind : of its payloads. name : its own. adapter : that takes what it says, where that has not the name of the kind.
    """

    def __init__(self, plant: SimulatedPlant, kind: str, name: str, adapter: str = "") -> None:
        self.plant, self.kind, self.name, self.adapter = plant, kind, name, adapter or kind
        self.example = examples()[kind]
        self.path = device_path(kind, name)
        self.sent: list[SentMessage] = []
        self.samples: dict[tuple[str, int], float] = {}
        self.measured: list[Instant] = []

    def instants(self, count: int) -> list[Instant]:
        """What it measures now, and some moments before."""
        now_ms = self.plant.clock.now_ns() // 1_000_000
        for back in reversed(range(count)):
            n = FIRST_N + len(self.measured)
            self.measured.append(Instant((now_ms - 10 * back) * 1_000_000, n, n / 4))
        return self.measured[-count:]

    def message(self, payload: bytes, topic: str) -> SentMessage:
        """A message that is sent now."""
        one = SentMessage(
            payload, topic, self.example.kind, self.example.form, sent_ns=self.plant.clock.now_ns()
        )
        self.sent.append(one)
        self.plant.doors[self.adapter].send(one)
        return one

    def send(self, some: Sequence[Instant], topic: str) -> SentMessage:
        """Send what it has measured, well written."""
        self.samples |= self.example.samples(self.path, some)
        message = self.message(self.example.encode(self.name, some), topic)
        message.n_values = len(some) * len(self.example.signals)
        return message

    def say(self, topic: str, count: int = 1) -> None:
        """Send what it measures now."""
        self.send(self.instants(count if self.example.has_time else 1), topic)

    def say_damaged(self, topic: str, rng: np.random.Generator) -> None:
        """Say something that gets damaged."""
        kinds = list(PayloadDamage)
        kind = kinds[int(rng.integers(len(kinds)))]
        some = self.instants(int(rng.integers(1, 4)) if self.example.has_time else 1)
        message = self.message(damaged(self.example.encode(self.name, some), kind, rng), topic)
        message.n_most = n_values_most(len(some) * len(self.example.signals), kind, message.payload)

    def difference(self, found: Mapping[str, Mapping[int, float]]) -> str:
        """How what is stored of it differs from what it has sent; empty where it does not."""
        if not self.example.has_time:
            return self._difference_of_numbers(found)
        mine = {
            (p, t): v for p, some in found.items() if p.startswith(f"{self.path}/") for t, v in some.items()
        }
        missing = [key for key in self.samples if mine.get(key) != self.samples[key]]
        more = [key for key in mine if key not in self.samples]
        if not missing and not more:
            return ""
        n = len(self.samples)
        return f"{self.path}: of {n} samples {len(missing)} are not there, {len(more)} are too many"

    def _difference_of_numbers(self, found: Mapping[str, Mapping[int, float]]) -> str:
        """Without times of their own: each number is there once for each time that it was handed over, at most."""
        seen = Counter(found.get(f"{self.path}/n", {}).values())
        for number, message in enumerate(self.sent, FIRST_N):
            if not 1 <= seen.pop(float(number), 0) <= message.n_deliveries:
                return f"{self.path}: number {number} is not there once"
        return f"{self.path}: numbers that nobody sent: {sorted(seen)[:5]}" if seen else ""


def values_by_sensor(plant: SimulatedPlant) -> dict[str, dict[int, float]]:
    """What a reader finds: values by time, by path."""
    found = plant.everything()
    out: dict[str, dict[int, float]] = {}
    if found is not None:
        paths = found.paths.tolist()
        rows = zip(found.sensor.tolist(), found.ts_ns.tolist(), found.columns["value"].tolist(), strict=True)
        for sensor, ts_ns, value in rows:
            out.setdefault(paths[sensor], {})[ts_ns] = value
    return out
