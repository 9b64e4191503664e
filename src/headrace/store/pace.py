"""How much of the machine the work in the background takes: it rests in proportion to what it did."""

from __future__ import annotations

import math
from collections.abc import Callable

from headrace.core.clock import NS, thread_cpu_ns

_SLICE_NS = 50_000_000


class Pace:
    """A share of a core, and of the disk, for one thread.

    Parameters
    ----------
    cpu : share of a core, above 0 to 1. bytes_per_s : read and written. rest : waits so many seconds.

    Attributes
    ----------
    is_behind : whether there is more to do than was planned for: it does not rest then.
    """

    def __init__(
        self,
        cpu: float = 1.0,
        bytes_per_s: float = math.inf,
        rest: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self._cpu, self._bytes_per_s, self._rest = cpu, bytes_per_s, rest
        self._since_ns: int | None = None
        self.rested_s = 0.0
        self.is_behind = False

    def begin(self) -> None:
        """The thread begins a run: what it did before does not count."""
        self._since_ns = thread_cpu_ns()

    def tick(self, n_bytes: int = 0) -> None:
        """A piece of work is done, which read and wrote so many bytes; rest where it is time to."""
        if self._since_ns is None or self.is_behind:
            self.begin()
        if self.is_behind:
            return
        assert self._since_ns is not None
        used_ns = thread_cpu_ns() - self._since_ns
        seconds = max(used_ns / NS * (1.0 / self._cpu - 1.0), n_bytes / self._bytes_per_s)
        if (used_ns >= _SLICE_NS or n_bytes) and seconds > 0.0:
            self.rested_s += seconds
            self._rest(seconds)
            self.begin()
