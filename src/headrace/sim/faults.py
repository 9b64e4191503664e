"""Faults at named points: kill the real process, or crash the simulated one, at an exact moment.

``HEADRACE_FAULT=journal.sync:17`` in the environment of a real process makes it kill itself (SIGKILL) when it
reaches that point for the 17th time; several are parted by commas. In the simulation `Crashed` is raised
instead, and what the simulated disk had not synced is lost.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from headrace.core.errors import ConfigError
from headrace.core.faults import POINTS, FaultPoints
from headrace.core.registry import nearest

VARIABLE = "HEADRACE_FAULT"


class Crashed(Exception):
    """The simulated process ended here. Not a `HeadraceError`: nothing in the product may catch it."""


def kill_self(point: str) -> None:
    """End this process at once, as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash(point: str) -> None:
    """End the simulated process."""
    raise Crashed(point)


class CountedFaults(FaultPoints):
    """Acts when a point is reached for the n-th time.

    Parameters
    ----------
    nth : pass (from 1) at which to act, by point.
    act : called with the point's name; need not return.
    """

    def __init__(self, nth: Mapping[str, int], act: Callable[[str], None] = crash) -> None:
        for point in nth:
            if point not in POINTS:
                raise ConfigError(f"unknown fault point {point!r}{nearest(point, list(POINTS))}", VARIABLE)
        self._nth = dict(nth)
        self._act = act
        self.passes: Counter[str] = Counter()

    def reach(self, point: str) -> None:
        self.passes[point] += 1
        if self.passes[point] == self._nth.get(point):
            self._act(point)

    def watches(self, point: str) -> bool:
        return point in self._nth


class SeededFaults(FaultPoints):
    """Crashes once, at a pass drawn from the seed, counted over all points.

    Parameters
    ----------
    seed : the same seed crashes at the same pass.
    n_passes_max : the crash comes at pass 1 to `n_passes_max`; a run that ends before does not crash.
    """

    def __init__(self, seed: int, n_passes_max: int) -> None:
        self.crash_at = int(np.random.default_rng(seed).integers(1, n_passes_max + 1))
        self.n_passes = 0

    def reach(self, point: str) -> None:
        self.n_passes += 1
        if self.n_passes == self.crash_at:
            crash(point)

    def watches(self, point: str) -> bool:
        return True


def fault_points(spec: str | None) -> FaultPoints:
    """The fault points of a real process from ``HEADRACE_FAULT``; none where it is unset or empty.

    Raises
    ------
    ConfigError : not of the form ``point:n``, or an unknown point.
    """
    if not spec:
        return FaultPoints()
    nth = {}
    for part in spec.split(","):
        point, _, n = part.strip().partition(":")
        if not n.isdigit() or not int(n):
            raise ConfigError(f"{part!r} is not of the form point:n, as in journal.sync:17", VARIABLE)
        nth[point] = int(n)
    return CountedFaults(nth, kill_self)
