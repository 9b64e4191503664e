import asyncio

import pytest

from headrace.core.clock import (
    NS,
    ScaledClock,
    SystemClock,
    VirtualClock,
    cpu_ns,
    monotonic_ns,
    thread_cpu_ns,
)


async def test_the_system_clock_runs():
    clock = SystemClock()
    before = clock.now_ns()
    await clock.sleep(0.001)
    assert clock.now_ns() >= before + NS // 1_000


async def test_a_scaled_clock_runs_faster_from_its_start():
    clock = ScaledClock(1_000, start_ns=5 * NS)
    before_ns = monotonic_ns()
    await clock.sleep(10)
    took_ns = monotonic_ns() - before_ns
    assert took_ns >= 10_000_000
    assert 15 * NS <= clock.now_ns() <= 5 * NS + 1_000 * (took_ns + NS)


def test_a_scaled_clock_starts_at_the_present_and_moves_forward():
    assert abs(ScaledClock(2).now_ns() - SystemClock().now_ns()) < 60 * NS
    with pytest.raises(ValueError, match="above 0"):
        ScaledClock(0)


async def test_a_virtual_clock_wakes_sleepers_in_order_of_their_times():
    clock, woken = VirtualClock(100), []

    async def sleeper(name, seconds):
        await clock.sleep(seconds)
        woken.append((name, clock.now_ns()))

    tasks = [asyncio.create_task(sleeper(n, s)) for n, s in [("b", 2), ("a", 1), ("c", 2), ("late", 9)]]
    await asyncio.sleep(0)
    clock.advance(2)
    await asyncio.gather(*tasks[:3])
    assert woken == [("a", 100 + 2 * NS), ("b", 100 + 2 * NS), ("c", 100 + 2 * NS)]
    assert not tasks[3].done()
    tasks[3].cancel()
    clock.advance(10)
    with pytest.raises(asyncio.CancelledError):
        await tasks[3]


async def test_a_virtual_clock_moves_backwards_without_waking_anyone():
    clock = VirtualClock(10 * NS)
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    clock.set_ns(2 * NS)
    await asyncio.sleep(0)
    assert (clock.now_ns(), task.done()) == (2 * NS, False)
    clock.set_ns(11 * NS)
    await task


async def test_a_sleep_of_nothing_lets_others_run_and_returns():
    clock, seen = VirtualClock(), []
    task = asyncio.create_task(clock.sleep(0))
    task.add_done_callback(seen.append)
    await clock.sleep(-1)
    await task
    assert clock.now_ns() == 0


def test_measuring_clocks_run():
    before = cpu_ns(), thread_cpu_ns(), monotonic_ns()
    sum(range(200_000))
    after = cpu_ns(), thread_cpu_ns(), monotonic_ns()
    assert all(b < a for b, a in zip(before, after, strict=True))
