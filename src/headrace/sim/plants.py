"""The scenarios of plants of real adapters, by name."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from headrace.sim.malformed import Malformed
from headrace.sim.onboarding import Onboarding
from headrace.sim.outages import Outages
from headrace.sim.plant_report import PlantReport


class _Run(Protocol):
    async def run(self) -> PlantReport:
        """Everything, then the audits."""
        ...


PLANTS: dict[str, Callable[[int, Path], _Run]] = {
    "malformed": Malformed,
    "onboarding": Onboarding,
    "outages": Outages,
}
"""Name of a scenario → a run of it, from a seed and an empty folder."""


def run_plant(seed: int, scenario: str) -> PlantReport:
    """Run one scenario; everything follows from the seed."""
    with tempfile.TemporaryDirectory(prefix="headrace-sim-") as folder:
        return asyncio.run(PLANTS[scenario](seed, Path(folder)).run())
