"""What the machine did while a benchmark ran, as Linux tells it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from headrace.core.clock import NS, cpu_ns, monotonic_ns


def _busy_ns() -> int:
    """CPU time that all processes have used since boot (user, nice, system, irq, softirq)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = sum(int(fields[i]) for i in (0, 1, 2, 5, 6))
    return ticks * NS // os.sysconf("SC_CLK_TCK")


def _own_ns() -> int:
    """CPU time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu_ns() + int((children.ru_utime + children.ru_stime) * NS)


class Machine:
    """Watches how many cores other processes use from now on; children that have ended are no others."""

    def __init__(self) -> None:
        self._busy_ns, self._own_ns, self._wall_ns = _busy_ns(), _own_ns(), monotonic_ns()

    def cores_used_by_others(self) -> float:
        """Cores that other processes kept busy on average since this object was made."""
        wall_ns = max(1, monotonic_ns() - self._wall_ns)
        return max(0.0, (_busy_ns() - self._busy_ns - (_own_ns() - self._own_ns)) / wall_ns)
