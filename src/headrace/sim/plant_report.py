"""What a simulation of a plant of real adapters did, and what was wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PlantReport:
    """One run.

    Parameters
    ----------
    figures : how much there was of what, by name.
    """

    seed: int
    scenario: str
    problems: tuple[str, ...]
    figures: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems

    @property
    def command(self) -> str:
        """What replays it."""
        return f"uv run headrace sim {self.scenario} --seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "seed": self.seed,
            "scenario": self.scenario,
            **self.figures,
            "problems": list(self.problems),
            "command": self.command,
        }

    def __str__(self) -> str:
        """The problems, and the command that replays them."""
        lines = "".join(f"\n  {p}" for p in self.problems) or " all is well"
        return f"seed {self.seed}, {self.scenario}:{lines}\nreplay it with: {self.command}"
