"""The thread that runs one call at a time."""

import asyncio
import threading

import pytest

from headrace.adapters.kafka.worker import Worker
from headrace.testing.adapters import until


async def test_calls_run_in_order_and_give_what_they_give():
    worker, order = Worker("w"), []
    first = asyncio.ensure_future(worker.call(lambda: order.append(1)))
    assert await worker.call(lambda: (order.append(2), threading.current_thread().name)[1]) == "w"
    await first
    assert sorted(order) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 / 0)
    worker.end()
    await until(lambda: not worker._thread.is_alive(), "the thread ends")


async def test_a_call_that_nobody_waits_for_goes_on():
    worker, gate, done = Worker("w"), threading.Event(), []
    call = asyncio.ensure_future(worker.call(lambda: (gate.wait(20), done.append(1))))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    await worker.call(lambda: None)
    assert done == [1]
    worker.end()


def test_a_loop_that_is_gone_is_nothing_to_stumble_over():
    gate, kept = threading.Event(), []

    async def leave():
        kept.append(Worker("w"))
        call = asyncio.ensure_future(kept[0].call(lambda: gate.wait(20)))
        await asyncio.sleep(0)
        call.cancel()

    asyncio.run(leave())
    gate.set()
    kept[0].end()
    kept[0]._thread.join(20)
    assert not kept[0]._thread.is_alive()
