"""Connections are made at a bounded rate, in the order asked for."""

import asyncio
import itertools

import pytest

from headrace.adapters.pacing import ConnectGate, ConnectPacer
from headrace.core.clock import NS, monotonic_ns


def test_a_burst_at_once_then_the_rate_with_jitter():
    pacer, now_ns = ConnectPacer(per_s=100.0, burst=10), 5 * NS
    waits = [pacer.reserve_ns(now_ns) for _ in range(1_000)]
    assert waits[:10] == [0] * 10
    assert abs(waits[-1] - 9.9 * NS) < 0.02 * NS, "990 more take 9.9 s"
    gaps = [b - a for a, b in itertools.pairwise(waits[10:])]
    assert len(set(gaps)) > 500, "not in step"
    assert min(gaps) >= -0.01 * NS
    assert max(gaps) <= 0.02 * NS
    assert pacer.reserve_ns(now_ns + 20 * NS) == 0, "a quiet time gives a new burst"


async def test_the_gate_bounds_how_many_are_inside():
    gate, inside, most = ConnectGate(ConnectPacer(per_s=1e6, burst=1_000), 3), 0, 0

    async def enter(fails):
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            if fails:
                raise OSError("no route")

    found = await asyncio.gather(*(enter(n % 2) for n in range(20)), return_exceptions=True)
    assert (most, inside, sum(isinstance(one, OSError) for one in found)) == (3, 0, 10)


async def test_turns_take_real_time_also_when_one_is_cancelled():
    pacer = ConnectPacer(per_s=50.0, burst=1)
    await pacer.turn()
    began_ns = monotonic_ns()
    waiting = asyncio.ensure_future(pacer.turn())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await pacer.turn()
    assert monotonic_ns() - began_ns > 0.018e9
