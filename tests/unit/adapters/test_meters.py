"""The small instruments of adapters."""

import errno
import socket

import numpy as np
import pytest

from headrace.adapters.meters import (
    N_LATENCIES,
    N_SKEWS,
    Backoff,
    LatencyRing,
    SkewMeter,
    fraction,
    reason_of,
    seconds,
    spread,
)
from headrace.core.clock import NO_TIME

MS = 1_000_000


def test_a_fraction_is_spread_and_repeats():
    found = [fraction(f"device{i}") for i in range(2_000)]
    assert found == [fraction(f"device{i}") for i in range(2_000)]
    assert 0 <= min(found) < 0.01
    assert 0.99 < max(found) < 1
    assert abs(sum(found) / len(found) - 0.5) < 0.02


def test_latencies_are_of_the_latest():
    ring = LatencyRing()
    assert ring.percentiles() == (0.0, 0.0)
    for i in range(100):
        ring.add(float(i))
    assert ring.percentiles() == pytest.approx((49.5, 98.01))
    for _ in range(N_LATENCIES):
        ring.add(7.0)
    assert ring.percentiles() == (7.0, 7.0)


def test_latencies_of_several_connections_are_counted_together():
    one, two = LatencyRing(), LatencyRing()
    for duration in (0.0005, 0.001, 0.002):
        one.add(duration)
    two.add(99.0)
    counts, total_s = spread([one, two])
    assert (counts[:2], counts[-1], sum(counts)) == ((2, 1), 1, 4)
    assert total_s == pytest.approx(99.0035)
    assert spread([]) == ((), 0)


def test_backoff_doubles_with_jitter_up_to_its_bound_and_begins_anew():
    backoff = Backoff("a", 100 * MS, 1_000 * MS)
    waits = [backoff.next_ns() / MS for _ in range(60)]
    for wait, whole in zip(waits, [100, 200, 400, 800, *[1_000] * 56], strict=True):
        assert whole / 2 <= wait <= whole
    assert len(set(waits)) == 60, "each at another time"
    backoff.reset()
    assert backoff.next_ns() / MS == waits[0]
    assert Backoff("b", 100 * MS, 1_000 * MS).next_ns() / MS != waits[0], "others at another time"


def test_the_skew_of_a_clock_is_told_by_its_newest_samples():
    meter = SkewMeter()
    meter.note(np.array([NO_TIME]), 1_000)
    meter.note(np.array([], np.int64), 1_000)
    assert meter.skew_ns == NO_TIME
    for n in range(5):
        meter.note(np.array([1_500 + n, 3, NO_TIME]), 1_000 + n)
    meter.note(np.array([0]), 10**9)
    assert meter.skew_ns == 500, "one that comes late is no matter"
    for _ in range(N_SKEWS):
        meter.note(np.array([10]), 20)
    assert meter.skew_ns == -10, "a clock that was set is told"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 5)"),
            "Connection refused",
        ),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("Multiple exceptions"), "Multiple exceptions"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_reasons_are_said_in_words(error, text):
    assert reason_of(error) == text


def test_seconds():
    assert seconds(1_500_000_000) == 1.5
