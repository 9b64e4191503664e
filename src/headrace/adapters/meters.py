"""Small instruments that every adapter carries: latencies, back-off, the one line when lost and when back."""

from __future__ import annotations

import errno
import os
from bisect import bisect_left
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.core.clock import NO_TIME, NS
from headrace.metrics.catalog import ADAPTER_REQUEST_DURATION

N_LATENCIES = 1_024
N_SKEWS = 64
_BUCKETS = ADAPTER_REQUEST_DURATION.buckets


def fraction(key: str) -> float:
    """A number in [0, 1) that looks random and is the same for the same key: phases and jitter."""
    return xxhash.xxh3_64_intdigest(key.encode()) / 2.0**64


class LatencyRing:
    """The latest 1,024 durations; answers percentiles, and how all that ever were spread over the metric's buckets."""

    def __init__(self) -> None:
        self.counts = [0] * (len(ADAPTER_REQUEST_DURATION.buckets) + 1)
        self.total_s = 0.0
        self._seconds = [0.0] * N_LATENCIES  # NumPy takes longer for one number
        self._n = 0

    def add(self, seconds: float) -> None:
        """Note one duration."""
        self._seconds[self._n % N_LATENCIES] = seconds
        self._n += 1
        self.counts[bisect_left(_BUCKETS, seconds)] += 1
        self.total_s += seconds

    def percentiles(self) -> tuple[float, float]:
        """(p50, p99) in seconds; zeros before the first duration."""
        if not self._n:
            return 0.0, 0.0
        p50, p99 = np.percentile(self._seconds[: self._n], (50, 99))
        return float(p50), float(p99)


def spread(rings: Iterable[LatencyRing]) -> tuple[tuple[int, ...], float]:
    """Durations of several rings together: how many in each bucket, and their sum in seconds."""
    every = list(rings)
    counts = tuple(sum(column) for column in zip(*(ring.counts for ring in every), strict=True))
    return counts, sum(ring.total_s for ring in every)


class SkewMeter:
    """How far a source's clock is ahead of ours: the median of the latest 64 looks at its newest sample.

    What was on its way makes a clock seem to be behind. A source that sends history is no clock: who replays has none.
    """

    def __init__(self) -> None:
        self._ahead_ns = np.zeros(N_SKEWS, np.int64)
        self._n = 0

    def note(self, ts_ns: npt.NDArray[np.int64], arrival_ns: int) -> None:
        """Look at the source times of what has arrived; `NO_TIME` among them is none."""
        newest_ns = int(ts_ns.max(initial=NO_TIME))
        if newest_ns != NO_TIME:
            self._ahead_ns[self._n % N_SKEWS] = newest_ns - arrival_ns
            self._n += 1

    @property
    def skew_ns(self) -> int:
        """The source's clock less ours; `NO_TIME` before the first look."""
        return int(np.median(self._ahead_ns[: self._n])) if self._n else NO_TIME


class Backoff:
    """Waiting times after failures: doubling from `first_ns` to `most_ns`, each between half and whole.

    Parameters
    ----------
    key : makes the jitter differ between instances, so that a thousand devices don't come back at once.
    """

    def __init__(self, key: str, first_ns: int, most_ns: int) -> None:
        self.key = key
        self.first_ns = first_ns
        self.most_ns = most_ns
        self.n_failures = 0

    def next_ns(self) -> int:
        """The wait after one more failure, ns."""
        whole = min(self.first_ns << min(self.n_failures, 40), self.most_ns)
        self.n_failures += 1
        return int(whole * (0.5 + 0.5 * fraction(f"{self.key}:{self.n_failures}")))

    def reset(self) -> None:
        """Forget the failures."""
        self.n_failures = 0


def seconds(duration_ns: int) -> float:
    """Nanoseconds as seconds, for `Clock.sleep`."""
    return duration_ns / NS


def reason_of(error: OSError) -> str:
    """Why the system refused, in its own words and without addresses: ``Connection refused``."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__
