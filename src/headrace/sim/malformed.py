"""Corrupted and malformed data of every kind of payload, and rules that are wrong until somebody puts them right.

Each kind has an adapter and three devices. What one says is damaged as often as not; another is well and must not
notice; the third is read by a wrong rule, so that nothing of it is taken. Promises that are held against the plant:

- A message's values are samples or rejects, each once: what it gives is the same alone as among others.
- What was acknowledged is there after a crash: samples in the store, refused input among the rejects.
- Once the rule is right a replay takes in what it had refused, in order and once; a second one gives nothing more.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from headrace.adapters.abilities import Captured
from headrace.core.clock import NS
from headrace.core.events import MAX_RAW_BYTES
from headrace.core.sensors import SensorDirectory, sensor_id
from headrace.ingest.rejects_log import RejectFilter
from headrace.sim.auditors import Account
from headrace.sim.faults import Crashed
from headrace.sim.memory_broker import SentMessage
from headrace.sim.payload_examples import (
    HEAD,
    pushed_section,
    topics_section,
)
from headrace.sim.plant_report import PlantReport
from headrace.sim.reporting_device import ReportingDevice, examples, values_by_sensor
from headrace.sim.simulated_plant import SimulatedPlant

WELL, SICK, BENT = "well0", "sick1", "bent"
N_SECONDS, N_SECONDS_AFTER = 20, 4
_LATE_NS = 3 * NS
_ON_TIME_SHARE = 0.95
_TEXTS = ("fields", "number", "csv", "registers", "line", "lines", "json")
_KEPT_IN_PART = ("line", "arrow")
_LEARNING = ("sparkplug",)
"""What says later what earlier messages mean: a replay learns from messages that came behind those it could not read."""


def plant_text(seed: int | None) -> str:
    """The plant file, with mistakes in the rules of the third devices, by a seed; None: all are right."""
    text = HEAD
    for number, (name, example) in enumerate(examples().items()):
        bent = example.rule if seed is None else example.wrong[(seed + number) % len(example.wrong)]
        if example.kind:
            text += pushed_section(name, name) + pushed_section(f"{BENT}{name}", name, bent)
        else:
            text += topics_section(name, example.rule, [(BENT, bent)])
    return text


class Malformed:
    """One run of the scenario."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.plant = SimulatedPlant(seed, folder, plant_text(seed))
        self._rng = np.random.default_rng([seed, 17])
        self.well: list[ReportingDevice] = []
        self.sick: list[ReportingDevice] = []
        self.bent: list[ReportingDevice] = []
        for name, example in examples().items():
            other = f"{BENT}{name}" if example.kind else name
            for adapter in dict.fromkeys((name, other)):
                _ = self.plant.clients(adapter) if example.kind else self.plant.broker(adapter)
            self.well.append(ReportingDevice(self.plant, name, WELL))
            self.sick.append(ReportingDevice(self.plant, name, SICK))
            self.bent.append(ReportingDevice(self.plant, name, BENT, other))
        self.figures: Counter[str] = Counter()

    async def run(self) -> PlantReport:
        """Everything, then the audits."""
        plant = self.plant
        await plant.start()
        for device in self.bent:
            if device.example.kind:  # the one device that the wrong section takes
                ReportingDevice(plant, device.kind, "first", device.adapter).say("")
        crash_at = int(self._rng.integers(N_SECONDS // 4, N_SECONDS - 2))
        for second in range(N_SECONDS):
            if second == crash_at:
                await plant.quiet()
                self._audit_conservation()
                plant.ending.arm(self.seed, 60)
            self._say(with_damage=True)
            await plant.second()
        await plant.quiet()
        plant.ending.disarm()
        self._audit_conservation()
        plant.audit_counts()
        self._audit_rejects_are_kept()
        await self._put_right()
        for _ in range(N_SECONDS_AFTER):
            self._say(with_damage=False)
            await plant.second()
        await plant.quiet()
        self._audit_devices()
        await plant.close()
        self.figures["lives"] = plant.n_lives
        return PlantReport(self.seed, "malformed", tuple(plant.problems), dict(self.figures))

    def _say(self, with_damage: bool) -> None:
        for device in self.well:
            device.say(f"plant/{WELL}", int(self._rng.integers(1, 3)))
        for device in self.sick if with_damage else ():
            for _ in range(int(self._rng.integers(1, 3))):
                device.say_damaged(f"plant/{SICK}", self._rng)
            if self._rng.random() < 0.3:
                device.say(f"plant/{SICK}")
        for device in self.bent if with_damage else ():
            if self._rng.random() < 0.4:
                device.say(BENT, int(self._rng.integers(1, 4)))

    # --- audits --------------------------------------------------------------------------------------

    def _n_in(self, adapter: str, message: SentMessage) -> int:
        """Values of a message, read alone, with nothing known of its device."""
        about = {"content_type": message.kind, "form": message.form}
        one = Captured(message.sent_ns, message.topic, message.payload, about=about)
        kind: Any = self.plant.supervisor.get(adapter)
        batches, rejects = kind.decode_captured([one], SensorDirectory())
        n_in: int = sum(b.n_samples for b in batches) + sum(r.n_samples for r in rejects)
        return n_in

    def _audit_conservation(self) -> None:
        """What was handed to each adapter since the plant started is what it has given, samples and rejects."""
        received = self.plant.intake.core.counters.received
        for adapter, door in self.plant.doors.items():
            n_in_of = {message: self._n_in(adapter, message) for message in dict.fromkeys(door.delivered)}
            for message, n_in in n_in_of.items():
                if not is_plausible(adapter, message, n_in):
                    self.plant.problems.append(f"{adapter}: {n_in} values in {message.payload[:200]!r}")
            n_all = sum(n_in_of[message] for message in door.delivered)
            self.figures["values in"] += n_all
            if n_all != received[adapter]:
                self.plant.problems.append(
                    f"{adapter}: {n_all} values in {len(door.delivered)} messages, {received[adapter]} came of them"
                )

    def _audit_rejects_are_kept(self) -> None:
        """Every message that was refused and acknowledged is among the rejects."""
        kept = self.plant.host.rejects.tables().chosen(RejectFilter())
        raw = Counter((one.reject.adapter, one.reject.raw) for one in kept)
        self.figures["rejects"] = len(kept)
        for device in self.bent:
            if device.example.kind or device.kind in _KEPT_IN_PART:
                continue  # only what was refused of it is kept, as a message of its own
            gone = [m for m in device.sent if not raw[device.adapter, m.payload[:MAX_RAW_BYTES]]]
            if gone:
                self.plant.problems.append(f"{device.adapter}: {len(gone)} refused messages are not kept")
        n_kept: Counter[str] = Counter()
        for one in kept:
            n_kept[one.reject.adapter] += one.reject.n_samples
        for (adapter, _), n in _by_adapter(self.plant.intake.core.counters.rejected).items():
            if n_kept[adapter] < n:
                self.plant.problems.append(f"{adapter}: {n} values were refused, {n_kept[adapter]} are kept")

    def _audit_devices(self) -> None:
        """The device that is well, and the one whose rule was wrong, have all they said, once, at its time."""
        found = values_by_sensor(self.plant)
        for device in (*self.well, *self.bent):
            problem = device.difference(found)
            if problem:
                self.plant.problems.append(problem)
            self.figures["samples"] += len(device.samples)
        sent = [m for device in self.well for m in device.sent]
        late = sum(m.acked_ns - m.sent_ns > _LATE_NS for m in sent)
        self.figures["messages of devices that are well"], self.figures["late"] = len(sent), late
        if late > (1 - _ON_TIME_SHARE) * len(sent):
            self.plant.problems.append(f"{late} of {len(sent)} messages of devices that are well came late")

    # --- putting right -------------------------------------------------------------------------------

    async def _put_right(self) -> None:
        """Apply the right rules and replay, twice."""
        plant = self.plant
        if self._rng.random() < 0.5:
            plant.ending.arm(self.seed + 1, 25)
        first: Counter[str] = Counter()
        for _ in range(10):
            try:
                await plant.apply(plant_text(None))
                plant.intake.emitted.clear()
                first.update(await self._replay())
                for name in _LEARNING:
                    first.update(await self._replay(name))
                break
            except Crashed:
                await plant.crash()
        plant.ending.disarm()
        self._audit_order()
        self.figures["replayed"] = first["replayed"]
        n_stored = plant.n_stored()
        second = await self._replay()
        if second["replayed"]:
            plant.problems.append(f"a second replay took {second['replayed']} rejects once more")
        plant.intake.step()
        plant.host.work(2**31)
        if plant.n_stored() != n_stored:
            plant.problems.append(
                f"a second replay changed the store: {plant.n_stored() - n_stored} samples more"
            )

    async def _replay(self, adapter: str = "") -> Counter[str]:
        """Replay all rejects, or those of an adapter, as ``headrace rejects replay`` does."""
        total: Counter[str] = Counter()
        after = None
        while True:
            document = {"limit": 500, "adapter": adapter, **({} if after is None else {"after": after})}
            found = await self.plant.during(self.plant.operations.replay_rejects(document))
            total.update({name: found[name] for name in ("replayed", "samples", "failing")})
            self.plant.problems += [f"replay: {text}" for text in found["problems"]]
            after = found["next"]
            if after is None:
                break
        self.plant.intake.step()
        self.plant.host.work(2**31)
        return total

    def _audit_order(self) -> None:
        """What a replay took in of a device whose rule was wrong came in the order of its times.

        But for what came twice: a message that the plant could not acknowledge any more was sent, and refused, again.
        """
        directory, emitted = self.plant.host.directory, self.plant.intake.emitted
        sensors = {sensor_id(f"{d.path}/{signal}"): d.path for d in self.bent for signal in d.example.signals}
        taken = Account.of(directory, emitted)
        newest: dict[int, int] = {}
        for sensor, ts_ns in dict.fromkeys(zip(taken.sensor.tolist(), taken.ts_ns.tolist(), strict=True)):
            if sensor in sensors and ts_ns < newest.get(sensor, ts_ns):
                self.plant.problems.append(f"{sensors[sensor]} was not replayed in order")
                return
            newest[sensor] = ts_ns


def is_plausible(adapter: str, message: SentMessage, n_in: int) -> bool:
    """Whether a message can have so many values, by what is known of it besides what its decoder says."""
    if message.n_most is not None and n_in > message.n_most:
        return False
    if message.n_values is None:  # fields that are not known are no mistake in protocol buffers
        return n_in > 0 or adapter not in _TEXTS or _is_blank(adapter, message.payload)
    if message.topic == BENT and not message.kind:
        return 0 < n_in <= message.n_values  # nobody knows how many are in one that can't be read as a whole
    return n_in == message.n_values


def _is_blank(adapter: str, payload: bytes) -> bool:
    """Whether there is nothing in a text; lines may be remarks."""
    if adapter not in ("line", "lines"):
        return not payload.strip()
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in payload.split(b"\n"))


def _by_adapter(rejected: Counter[Any]) -> dict[tuple[str, str], int]:
    out: Counter[tuple[str, str]] = Counter()
    for (adapter, _), n in rejected.items():
        out[adapter, ""] += n
    return dict(out)
