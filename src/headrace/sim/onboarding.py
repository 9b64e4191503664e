"""A factory with thousands of sensors that is taken into service beside one that runs, and taken back.

The running factory has devices that are polled, by the adapter that gets the new ones too, and devices that report by
themselves. A tag table brings the new factory in: a trial says what would change, then it is applied, then undone.
Promises that are held against the plant:

- What runs has no gap: every poll's number and every reported number is there, in time, and once.
- The new sensors are read once they are there, and no longer once they were taken back; what was read stays.
- Tables and plant file are what they were, and a plant that starts anew runs as before.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from headrace.core.clock import NS
from headrace.ingest.tag_rows import TagRow, rows_to_csv
from headrace.sim.memory_modbus import MemoryGateway, MemoryModbus
from headrace.sim.payload_examples import HEAD, topics_section
from headrace.sim.plant_report import PlantReport
from headrace.sim.reporting_device import ReportingDevice, examples, values_by_sensor
from headrace.sim.simulated_plant import STEPS_A_SECOND, SimulatedPlant

N_SENSORS = 3_000
N_SIGNALS = 50
_N_OLD, _N_REPORTING, _N_GATEWAYS = 6, 4, 4
_N_SECONDS = 6
_PLANT = """
[profiles.counter]
n = { address = "holding:0" }
[adapters.ovens]
protocol = "modbus"
profile = "counter"
interval = "1s"
devices = "ovens.csv"
tags = "ovens-tags.csv"
"""


class Onboarding:
    """One run of the scenario."""

    def __init__(self, seed: int, folder: Path, n_sensors: int = N_SENSORS) -> None:
        self.seed, self.folder, self.n_sensors = seed, folder, n_sensors
        self.gateways = {name: MemoryGateway() for name in ["old", *_new_gateways()]}
        kind = type("MemoryModbus", (MemoryModbus,), {"gateways": self.gateways})
        text = HEAD + _PLANT + topics_section("fields", examples()["fields"].rule)
        self.plant = SimulatedPlant(seed, folder, text, {"modbus": kind})
        self.plant.limit_samples = 4 * n_sensors
        self.plant.broker("fields")
        self._rng = np.random.default_rng([seed, 19])
        old = "".join(f"{path},modbus+tcp://old?unit={n + 1}\n" for n, path in enumerate(_old_paths()))
        (folder / "ovens.csv").write_text(f"path,url\n{old}", encoding="utf-8")
        (folder / "ovens-tags.csv").write_text("profile,signal,address\n", encoding="utf-8")
        self.reporting = [ReportingDevice(self.plant, "fields", f"dev{n}") for n in range(_N_REPORTING)]

    def rows(self) -> list[TagRow]:
        """The tag table of the new factory."""
        return [
            TagRow("ovens", f"{path}/s{s}", url, f"holding:{s}", unit="bar", interval="2s")
            for path, url in self._new_devices()
            for s in range(N_SIGNALS)
        ]

    def _new_devices(self) -> list[tuple[str, str]]:
        names = _new_gateways()
        return [
            (f"new/{names[n % len(names)]}/press{n}", f"modbus+tcp://{names[n % len(names)]}?unit={1 + n // len(names)}")
            for n in range(self.n_sensors // N_SIGNALS)
        ]  # fmt: skip

    async def run(self) -> PlantReport:
        """Everything, then the audits."""
        plant, before = self.plant, self._files()
        await plant.start()
        await self._seconds(int(self._rng.integers(3, _N_SECONDS)))
        document = {"tags": rows_to_csv(self.rows()), "by": "ann"}
        trial = await self._change(document, is_dry=True)
        self._audit_trial(trial, before)
        done = await self._change(document, trial["from"])
        self._expect(done["applied"], "the tag table was not applied")
        await self._seconds(_N_SECONDS)
        self._audit_new(at_least=_N_SECONDS // 2 - 1)
        back = await self._change({"undo": True, "tags": True, "by": "ann"})
        self._expect(back["applied"] and self._files() == before, "the tag table was not taken back")
        asked = [sum(gateway.counts.values()) for gateway in self.gateways.values()]
        await self._seconds(_N_SECONDS // 2)
        still = [sum(gateway.counts.values()) for gateway in self.gateways.values()]
        self._expect(still[0] > asked[0] and still[1:] == asked[1:], "what was taken back is still read")
        self._expect(self.gateways["old"].n_connections == 1, "what runs was connected anew")
        await plant.quiet()
        plant.audit_counts(has_corrections=False)
        self._audit_running()
        self._audit_new(at_least=_N_SECONDS // 2 - 1)
        await plant.during(plant.supervisor.stop(5.0))
        plant.intake.step()
        await plant.crash()
        self._expect(
            len(plant.supervisor.diagnostics()[0].devices) == _N_OLD, "a new start has other devices"
        )
        figures = Counter(
            lives=plant.n_lives, sensors=self.n_sensors, samples=plant.n_stored(), polls=sum(asked)
        )
        await plant.close()
        return PlantReport(self.seed, "onboarding", tuple(plant.problems), dict(figures))

    async def _seconds(self, n: int) -> None:
        for _ in range(n):
            self._report()
            await self.plant.second()

    def _report(self) -> None:
        for device in self.reporting:
            device.say(f"plant/{device.name}")

    async def _change(self, document: dict[str, Any], seen: str = "", is_dry: bool = False) -> dict[str, Any]:
        """Change the configuration while the plant goes on."""
        self._report()
        return await self.plant.during(self.plant.operations.change_config(document, seen, is_dry), 2)

    def _files(self) -> dict[str, str]:
        return {file.name: file.read_text("utf-8") for file in self.folder.iterdir() if file.is_file()}

    # --- audits --------------------------------------------------------------------------------------

    def _expect(self, is_so: bool, problem: str) -> None:
        if not is_so:
            self.plant.problems.append(problem)

    def _audit_trial(self, trial: dict[str, Any], before: dict[str, str]) -> None:
        found = trial["tags"]["ovens"]
        n_devices = len(self._new_devices())
        said = (found["devices_added"], found["signals_added"], found["devices_changed"])
        expected = (n_devices, n_devices * N_SIGNALS, 0)
        self._expect(said == expected, f"the trial says {said}, expected {expected}")
        self._expect(not trial["applied"] and self._files() == before, "the trial changed something")

    def _audit_running(self) -> None:
        """Every poll of the old devices is there once and in time, and everything that was reported."""
        found = values_by_sensor(self.plant)
        for number, path in enumerate(_old_paths(), 1):
            samples = sorted(found.get(f"{path}/n", {}).items())
            values = [int(value) for _, value in samples]
            n_asked = self.gateways["old"].counts[number]
            if values != list(range(1, n_asked + 1)):
                self.plant.problems.append(f"{path}: {n_asked} polls, stored are {values}")
            longest_ns = max((b - a for (a, _), (b, _) in pairwise(samples)), default=0)
            if longest_ns > NS + NS // STEPS_A_SECOND:
                self.plant.problems.append(f"{path} was not polled for {longest_ns / NS:.2f} s")
        self.plant.problems += [text for device in self.reporting if (text := device.difference(found))]

    def _audit_new(self, at_least: int) -> None:
        """The new sensors have samples, and of their polls none is lost or there twice."""
        found = values_by_sensor(self.plant)
        few = [row.path for row in self.rows() if len(found.get(row.path, {})) < at_least]
        if few:
            self.plant.problems.append(
                f"{len(few)} new sensors have fewer than {at_least} samples, as {few[0]}"
            )
        for path, url in self._new_devices():
            values = [int(value) for _, value in sorted(found.get(f"{path}/s0", {}).items())]
            if values != list(range(1, len(values) + 1)):
                self.plant.problems.append(f"{path} at {url}: stored are the polls {values}")


def _new_gateways() -> list[str]:
    return [f"gate{n}" for n in range(_N_GATEWAYS)]


def _old_paths() -> list[str]:
    return [f"leon/old/oven{n}" for n in range(_N_OLD)]
