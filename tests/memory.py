"""How much memory something takes, whatever else the process does meanwhile."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

_RUNS = 5


def peak_bytes(call: Callable[[], object]) -> int:
    """What Python and NumPy hold at most while `call` runs: the least of some runs.

    What other threads allocate is counted as well, and the first run may load kernels: both only ever add to it.
    """
    peaks = []
    for _ in range(_RUNS):
        tracemalloc.start()
        try:
            call()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)
