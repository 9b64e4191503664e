"""What the engine tells its api process when it starts it: one line of JSON on the child's stdin.

Not in arguments nor in the environment: other users of the machine can read those, and there are keys in it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from headrace.core.clock import Clock, ScaledClock, SystemClock
from headrace.core.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How to answer for one engine.

    Parameters
    ----------
    store : the store's folder. control, key : the engine's control port. pid : the engine's process.
    fd : number of the public socket, bound and listening. levels : names of a path's levels.
    speed : plant seconds a second; `plant_ns` was the plant's time when the machine's was `wall_ns`.
    tokens : role → token; empty where everybody on this machine may do everything. tls : None for plain HTTP.
    """

    store: str
    control: str
    key: str
    pid: int
    fd: int = -1
    levels: tuple[str, ...] = ("site", "area", "line", "device", "signal")
    timezone: str = "UTC"
    speed: float = 1.0
    wall_ns: int = 0
    plant_ns: int = 0
    tokens: dict[str, str] = field(default_factory=dict)
    tls: TlsFiles | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The inverse of `to_json`."""
        data: dict[str, Any] = json.loads(text)
        tls = None if data["tls"] is None else TlsFiles(**data["tls"])
        return cls(**{**data, "levels": tuple(data["levels"]), "tls": tls})

    def clock(self) -> Clock:
        """The plant's clock, as the engine has it."""
        if self.speed == 1.0:
            return SystemClock()
        passed_ns = SystemClock().now_ns() - self.wall_ns
        return ScaledClock(self.speed, self.plant_ns + round(passed_ns * self.speed))


def settings_clock(clock: Clock) -> dict[str, Any]:
    """The fields of `ApiSettings` that make another process keep the time of `clock`."""
    speed = getattr(clock, "speed", 1.0)
    return {"speed": float(speed), "wall_ns": SystemClock().now_ns(), "plant_ns": clock.now_ns()}
