"""The intake on the event loop: acks after the sync, credit, a refusing disk, drain and stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.errors import Closed, Fenced, PluginError
from headrace.core.events import Event, Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.ingest.intake import Intake, IntakeState
from headrace.ingest.intake_core import IntakeCore, IntakeSettings
from headrace.ingest.journal import Journal
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.journal_reader import read_records
from headrace.sim.disk import SimulatedDisk

NOW = 1_700_000_000 * NS


class House:
    """An intake whose engine is done at once, or only when told."""

    def __init__(self, **settings: Any) -> None:
        self.disk = SimulatedDisk()
        self.clock = VirtualClock(NOW)
        self.directory = SensorDirectory()
        self.directory.define_many(
            [f"plant/d{i}" for i in range(20)], Layout("u16", (Column("a"), Column("b")))
        )
        self.journal = Journal.open(self.disk, self.clock, nonce=1)
        self.is_engine_running = True
        self.delivered: list[tuple[int, RecordKind]] = []
        self.events: list[Event] = []
        self.failures: list[Exception] = []
        self.acked: list[Any] = []
        self.changed = asyncio.Event()
        core = IntakeCore(
            self.directory,
            self.clock,
            self.journal,
            self.deliver,
            settings=IntakeSettings(
                **{"retry_s_min": 0.001, "retry_s_max": 0.002, "linger_s": 0.001} | settings
            ),
        )
        self.intake = Intake(core, on_event=self.note, on_failed=self.fail)

    def deliver(self, seq: int, kind: RecordKind, what: FrameBatch | int) -> None:
        self.delivered.append((seq, kind))
        if self.is_engine_running:
            self.intake.processed(seq)

    def note(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    def fail(self, error: Exception) -> None:
        self.failures.append(error)
        self.changed.set()

    def ack(self, name: Any) -> Any:
        def done() -> None:
            self.acked.append((name, self.journal.durable_seq))
            self.changed.set()

        return done

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[House]:
    house = House(**settings)
    await house.intake.start()
    try:
        yield house
    finally:
        await house.intake.stop()


def batch(slot: int = 1, n_frames: int = 1) -> FrameBatch:
    return FrameBatch.dense(
        np.full(n_frames, slot, np.uint32),
        NOW + np.arange(n_frames),
        np.ones((n_frames, 2), np.uint16),
        origin="ovens",
    )


def reject() -> Reject:
    return Reject(RejectCode.MALFORMED, "broker", "topic", "not JSON", b"{")


async def test_acks_run_on_the_loop_once_durable() -> None:
    async with running() as house:
        loop_thread = threading.get_ident()
        seen: list[int] = []
        for i in range(20):
            await house.intake.emit(batch(i), house.ack(i))
        await house.intake.emit(batch(), lambda: seen.append(threading.get_ident()))
        await house.intake.reject(reject(), house.ack("reject"))
        await house.until(lambda: len(house.acked) == 21)
        assert [name for name, _ in house.acked] == [*range(20), "reject"]
        assert seen == [loop_thread]
        frames = [r for r in read_records(house.disk) if r.kind is RecordKind.FRAMES]
        assert sum(r.batch().n_frames for r in frames) == 21
        assert all(durable >= frames[0].seq for _, durable in house.acked)
        assert house.intake.directory is house.directory
        assert house.intake.clock is house.clock


async def test_drain_returns_when_all_is_durable_and_acknowledged() -> None:
    async with running(linger_s=0.02) as house:
        await house.intake.emit(batch(), house.ack("a"))
        await house.intake.drain()
        assert [name for name, _ in house.acked] == ["a"]
        await house.intake.drain()


async def test_a_full_record_is_written_without_lingering() -> None:
    async with running(record_values_max=10, linger_s=60) as house:
        await house.intake.emit(batch(n_frames=5), house.ack("full"))
        await house.until(lambda: house.acked)


async def test_an_empty_batch_is_acknowledged() -> None:
    async with running() as house:
        await house.intake.emit(batch(n_frames=0), house.ack("empty"))
        await house.until(lambda: house.acked)


async def test_emit_waits_for_the_engine_and_a_poll_sees_that_it_would() -> None:
    async with running(limit_samples=10) as house:
        house.is_engine_running = False
        assert house.intake.has_credit(10)
        await house.intake.emit(batch(n_frames=5), house.ack("first"))
        await house.until(lambda: house.acked)
        assert not house.intake.has_credit(2)
        second = asyncio.create_task(house.intake.emit(batch()))
        await asyncio.sleep(0)
        assert not second.done()
        status = house.intake.status()
        assert (status.n_in_flight, status.utilisation, status.n_waiting) == (10, 1.0, 1)
        house.intake.processed(house.delivered[-1][0])
        house.intake.processed(house.delivered[-1][0])
        async with asyncio.timeout(10):
            await second


async def test_processed_may_be_told_by_any_thread() -> None:
    async with running(limit_samples=4) as house:
        house.is_engine_running = False
        await house.intake.emit(batch(n_frames=2))
        second = asyncio.create_task(house.intake.emit(batch()))
        await house.intake.drain()
        seqs = [seq for seq, _ in house.delivered]
        await asyncio.to_thread(lambda: [house.intake.processed(s) for s in seqs])
        async with asyncio.timeout(10):
            await second


async def test_a_thread_may_wait_for_the_journal() -> None:
    async with running() as house:
        await house.intake.emit(batch())
        house.intake.core.flush()
        seq = house.delivered[-1][0]
        waiting = asyncio.create_task(asyncio.to_thread(house.intake.wait_durable, seq, 10.0))
        await house.intake.drain()
        assert await waiting
        assert house.intake.writer_cpu_ns > 0


async def test_the_engine_may_be_ahead_of_the_start() -> None:
    house = House()
    house.intake.processed(7)
    await house.intake.start()
    await house.intake.emit(batch())
    await house.intake.drain()
    assert house.intake.core.n_in_flight == 0
    await house.intake.stop()


async def test_ticks_follow_the_plants_clock() -> None:
    async with running() as house:
        for _ in range(3):
            await asyncio.sleep(0)
            house.clock.advance(1)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await house.intake.drain()
        ticks = [r.tick_ns() for r in read_records(house.disk) if r.kind is RecordKind.TICK]
        assert ticks == [NOW + i * NS for i in (1, 2, 3)]


async def test_a_refusing_disk_is_told_once_and_everything_goes_on_when_it_takes_again() -> None:
    async with running(limit_samples=10) as house:
        house.disk.is_read_only = True
        await house.intake.emit(batch(), house.ack("during"))
        await house.until(lambda: house.events)
        status = house.intake.status()
        assert status.state is IntakeState.REFUSED
        assert "the file system is read-only" in status.reason
        assert house.intake.has_credit(8)
        await house.intake.emit(batch(n_frames=4), house.ack("during too"))
        waiting = asyncio.create_task(house.intake.emit(batch(), house.ack("waits")))
        async with asyncio.timeout(10):
            while house.intake._timer is not None:  # lingered, and refused
                await asyncio.sleep(0.001)
        assert not waiting.done()
        house.disk.is_read_only = False
        async with asyncio.timeout(10):
            await waiting
        await house.until(lambda: len(house.acked) == 3 and len(house.events) == 2)
        assert [e.kind for e in house.events] == ["journal.refused", "journal.recovered"]
        assert house.intake.status().state is IntakeState.RUNNING
        assert house.intake.status().reason == ""
        assert house.failures == []


async def test_a_new_owner_fails_the_intake_and_everybody_who_waits() -> None:
    async with running(limit_samples=2) as house:
        Journal.open(house.disk, house.clock, nonce=2)
        await house.intake.emit(batch(), house.ack("never"))
        waiting = asyncio.create_task(house.intake.emit(batch()))
        with pytest.raises(Fenced):
            await house.intake.drain()
        with pytest.raises(Fenced):
            await waiting
        with pytest.raises(Fenced):
            await house.intake.emit(batch())
        assert isinstance(house.failures[0], Fenced)
        assert len(house.failures) == 1
        assert not house.intake.has_credit(1)
        assert house.intake.status().state is IntakeState.FAILED
        assert "another owner" in house.intake.status().reason
    assert house.acked == []


async def test_a_defect_of_the_engine_fails_the_intake_once() -> None:
    house = House()

    def broken(seq: int, kind: RecordKind, what: Any) -> None:
        raise ZeroDivisionError("engine")

    house.intake.core._deliver = broken
    await house.intake.start()
    await house.intake.emit(batch())
    with pytest.raises(ZeroDivisionError):
        await house.intake.drain()
    house.intake._fail(ValueError("a second one is no news"))
    assert [type(f) for f in house.failures] == [ZeroDivisionError]
    await house.intake.stop()


async def test_another_part_may_end_it_from_its_thread() -> None:
    house = House()
    await house.intake.start()
    house.is_engine_running = False
    await house.intake.emit(batch(), house.ack("a"))
    await house.intake.drain()
    threading.Thread(target=house.intake.fail, args=(ZeroDivisionError("a runner"),)).start()
    await house.until(lambda: house.failures)
    with pytest.raises(ZeroDivisionError, match="a runner"):
        await house.intake.emit(batch(), house.ack("b"))
    assert house.intake.status().state is IntakeState.FAILED
    await house.intake.stop()
    assert [name for name, _ in house.acked] == ["a"]


async def test_a_defect_of_an_adapter_comes_back_to_it_and_takes_no_credit() -> None:
    async with running() as house:
        with pytest.raises(PluginError):
            await house.intake.emit(batch(slot=99))
        await house.intake.emit(batch(), house.ack("good"))
        await house.until(lambda: house.acked)
        assert house.failures == []


async def test_an_ack_that_fails_keeps_no_other_from_running() -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    async with running() as house:

        def broken() -> None:
            raise ZeroDivisionError

        await house.intake.emit(batch(), broken)
        await house.intake.emit(batch(), house.ack("next"))
        await house.until(lambda: house.acked)
    assert problems[0]["message"] == "an acknowledgement failed"


async def test_a_stopped_intake_takes_nothing_and_lets_nobody_wait() -> None:
    house = House(limit_samples=2)
    with pytest.raises(Closed):
        await house.intake.emit(batch())
    await house.intake.stop()
    await house.intake.start()
    house.is_engine_running = False
    await house.intake.emit(batch(), house.ack("taken"))
    waiting = asyncio.create_task(house.intake.emit(batch()))
    await asyncio.sleep(0)
    await house.intake.stop()
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await house.intake.reject(reject())
    assert [name for name, _ in house.acked] == ["taken"]
    assert not house.intake.has_credit(1)
    assert house.intake.status().state is IntakeState.STOPPED
    await house.intake.stop()


async def test_credit_that_comes_together_with_the_end_is_given_back() -> None:
    house = House(limit_samples=2)
    await house.intake.start()
    house.is_engine_running = False
    await house.intake.emit(batch())
    waiting = asyncio.create_task(house.intake.emit(batch()))
    await house.intake.drain()
    house.intake.core.processed(house.delivered[-1][0])
    house.intake.core.settle()  # wakes the waiter, which runs only after the failure
    house.intake._fail(Fenced("over"))
    with pytest.raises(Fenced):
        await waiting
    assert house.intake.core.n_in_flight == 0
    await house.intake.stop()


async def test_events_and_failures_need_no_listener() -> None:
    house = House()
    house.intake = Intake(house.intake.core)
    await house.intake.start()
    house.disk.is_read_only = True
    await house.intake.emit(batch())
    async with asyncio.timeout(10):
        while house.intake.status().state is not IntakeState.REFUSED:
            await asyncio.sleep(0.001)
    house.disk.is_read_only = False
    await house.intake.drain()
    house.intake._fail(Fenced("over"))
    await house.intake.stop()


def test_a_thread_that_tells_after_the_loop_has_ended_tells_nobody() -> None:
    house: list[House] = []

    async def life() -> None:
        house.append(House())
        await house[0].intake.start()
        await house[0].intake.stop()

    asyncio.run(life())
    house[0].intake.processed(3)
