"""What a simulation is made of: its scenario, its pipelines, its settings, and what it reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from headrace.pipeline.flows import FlowSpec
from headrace.sim.traffic import Mode


def flows(aggregates: Sequence[str]) -> tuple[FlowSpec, ...]:
    """The pipelines of a simulated plant: windows of everything, scaled ones of some, a dead band."""
    window = {"op": "window", "every": "10s", "agg": tuple(aggregates)}
    ten = FlowSpec("ten", "**", (window,), "{parent}/{signal}_{agg}_10s")
    some = FlowSpec(
        "some", "**/s{0,2}",
        ({"op": "scale", "factor": 2}, {"op": "range", "max": 900}, {"op": "window", "every": "1m", "agg": ["mean"]}),
        "{parent}/{signal}_hot_1m",
    )  # fmt: skip
    moved = FlowSpec("moved", "**/s1", ({"op": "dead_band", "change": 20},), "{parent}/{signal}_moved")
    return ten, some, moved


class Scenario(StrEnum):
    """What a simulation is about: all at once, or one way in which devices report, without crashes."""

    SPINE = "spine"
    STEADY = "steady"
    SHIFT = "shift"
    BURST = "burst"
    IDLE = "idle"
    CHURN = "churn"


@dataclass(frozen=True, slots=True)
class SimSettings:
    """What a scenario is made of.

    Parameters
    ----------
    unrest : how often, of 1, a source sends something out of the ordinary in a step. faults : how often, of 1,
    a life is given to end at a fault; and disks to refuse for a while, links to break, acks to get lost.
    """

    n_sensors: int
    n_steps: int
    modes: tuple[Mode, ...]
    unrest: float = 0.1
    faults: float = 0.0


def settings_of(scenario: Scenario, n_sensors: int | None = None) -> SimSettings:
    """The settings of a scenario."""
    if scenario is Scenario.SPINE:
        return SimSettings(n_sensors or 16, 40, tuple(Mode), unrest=0.15, faults=0.8)
    n = n_sensors or 50
    if n >= 1_000:
        return SimSettings(n, 26, (Mode(scenario.value),), unrest=0.05)
    return SimSettings(n, 60, (Mode(scenario.value),))


@dataclass(frozen=True, slots=True)
class SimReport:
    """What a simulation did, and what was wrong."""

    seed: int
    scenario: str
    n_sensors: int
    n_steps: int
    n_lives: int
    n_sent: int
    n_redelivered: int
    n_samples: int
    n_stored: int
    n_rejects: int
    n_revisions: int
    n_compactions: int
    problems: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        """Whether the auditors found nothing."""
        return not self.problems

    @property
    def command(self) -> str:
        """What replays it."""
        own = settings_of(Scenario(self.scenario)).n_sensors
        sensors = "" if self.n_sensors == own else f" --sensors {self.n_sensors}"
        return f"uv run headrace sim {self.scenario} --seed {self.seed}{sensors}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "problems": list(self.problems), "command": self.command}

    def __str__(self) -> str:
        """The problems, and the command that replays them."""
        lines = "".join(f"\n  {p}" for p in self.problems) or " all is well"
        return f"seed {self.seed}, {self.scenario}:{lines}\nreplay it with: {self.command}"
