"""Credits: bounded, first come first served, nothing lost on cancellation."""

from __future__ import annotations

import asyncio

import pytest

from headrace.core.errors import Closed
from headrace.ingest.credits import Credits


async def turn() -> None:
    """Let every ready task run."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_the_limit_must_be_positive() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Credits(0)


def test_taking_and_giving() -> None:
    credits = Credits(10)
    credits.take(6)
    assert credits.has(4)
    assert not credits.has(5)
    assert credits.utilisation == 0.6
    credits.give(6)
    assert credits.n_used == 0
    assert credits.has(1_000)  # an oversized batch passes alone


async def test_waiters_go_in_turn_even_where_a_later_one_would_fit() -> None:
    credits = Credits(10)
    await credits.acquire(8)
    order: list[str] = []

    async def take(name: str, n: int) -> None:
        await credits.acquire(n)
        order.append(name)

    tasks = [asyncio.create_task(take("big", 6)), asyncio.create_task(take("small", 1))]
    await turn()
    assert order == []
    assert credits.n_waiting == 2
    assert not credits.has(1)
    credits.give(4)
    await turn()
    assert order == ["big"]
    credits.give(4)
    await turn()
    assert order == ["big", "small"]
    await asyncio.gather(*tasks)
    assert credits.n_used == 7


async def test_a_cancelled_wait_takes_nothing_and_lets_the_next_go() -> None:
    credits = Credits(10)
    await credits.acquire(8)
    first = asyncio.create_task(credits.acquire(9))
    second = asyncio.create_task(credits.acquire(2))
    await turn()
    first.cancel()
    await turn()
    assert second.done()
    assert credits.n_used == 10
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_wait_cancelled_when_its_credit_has_just_come_gives_it_back() -> None:
    credits = Credits(10)
    await credits.acquire(8)
    waiting = asyncio.create_task(credits.acquire(9))
    await turn()
    credits.give(8)
    waiting.cancel()
    await turn()
    assert waiting.cancelled()
    assert credits.n_used == 0


async def test_a_waiter_cancelled_together_with_the_one_before_is_passed_over() -> None:
    credits = Credits(10)
    await credits.acquire(10)
    waiting = [asyncio.create_task(credits.acquire(n)) for n in (5, 6, 7)]
    await turn()
    waiting[1].cancel()
    waiting[0].cancel()
    await turn()
    credits.give(10)
    await turn()
    assert waiting[2].done()
    assert credits.n_used == 7


async def test_all_waiters_fail_together() -> None:
    credits = Credits(10)
    await credits.acquire(10)
    waiting = [asyncio.create_task(credits.acquire(n)) for n in (5, 6)]
    await turn()
    waiting[0].cancel()
    credits.fail(Closed("over"))
    with pytest.raises(Closed):
        await waiting[1]
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert credits.n_used == 10
    assert credits.n_waiting == 0


async def test_a_wait_that_fails_and_is_cancelled_at_once_gives_nothing_back() -> None:
    credits = Credits(10)
    await credits.acquire(10)
    waiting = asyncio.create_task(credits.acquire(5))
    await turn()
    credits.fail(Closed("over"))
    waiting.cancel()
    await turn()
    assert credits.n_used == 10
