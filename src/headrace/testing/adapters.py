"""The kit that every adapter has to pass. Plain coroutine functions; each takes a *rig*: an adapter and its peer.

Example of a third party's test::

    from headrace.testing import adapters as kit

    class MyRig(kit.AdapterRig):
        ...  # how to make the adapter, start and stop what it talks to, make it send

    @pytest.mark.parametrize("check", kit.CHECKS)
    async def test_my_adapter(check):
        await check(MyRig())

The peer is real: a server, a broker, a file. Each check raises AssertionError where a promise of
`headrace.adapters.base` is broken. Time is the computer's, because sockets know no other; nothing waits longer than it
must.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol
from unittest import SkipTest

from headrace.adapters.abilities import Captures
from headrace.adapters.base import Ack, Adapter, AdapterState
from headrace.core.clock import Clock, SystemClock, monotonic_ns
from headrace.core.errors import Closed
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.testing.engines import flat

WAIT_S = 20.0
START_S_MAX = 1.0
STOP_S_MAX = 2.0
NOT_TOLD = "the peer is not told what is durable"
LOSES_NOBODY = "the adapter looks for nobody, so it loses nobody"


class RecordingSink:
    """A sink that keeps what it is given, with credit, durability and refusal under control.

    Parameters
    ----------
    is_durable : whether what was taken becomes durable at once; else `land` does it.
    """

    def __init__(self, clock: Clock | None = None, is_durable: bool = True) -> None:
        self.directory = SensorDirectory()
        self.clock: Clock = SystemClock() if clock is None else clock
        self.is_durable = is_durable
        self.batches: list[FrameBatch] = []
        self.rejects: list[Reject] = []
        self.refusal: Exception | None = None
        self._acks: list[Ack] = []
        self._credit = asyncio.Event()
        self._credit.set()

    @property
    def n_samples(self) -> int:
        """Samples taken so far."""
        return sum(batch.n_samples for batch in self.batches)

    def set_credit(self, has_credit: bool) -> None:
        """Give credit, or none."""
        if has_credit:
            self._credit.set()
        else:
            self._credit.clear()

    async def emit(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Keep a batch, once there is credit."""
        await self._take(ack)
        self.batches.append(batch)

    async def reject(self, reject: Reject, ack: Ack | None = None) -> None:
        """Keep a reject, once there is credit."""
        await self._take(ack)
        self.rejects.append(reject)

    async def _take(self, ack: Ack | None) -> None:
        await self._credit.wait()
        if self.refusal is not None:
            raise self.refusal
        if ack is not None:
            self._acks.append(ack)
            if self.is_durable:
                asyncio.get_running_loop().call_soon(self.land)

    def has_credit(self, n_samples: int) -> bool:
        """Whether there is credit."""
        return self._credit.is_set()

    def land(self) -> None:
        """Everything taken so far is durable now."""
        acks, self._acks = self._acks, []
        for ack in acks:
            ack()


def identities(sink: RecordingSink) -> list[tuple[int, int, int]]:
    """(slot, column, time) of every sample that was taken."""
    return [(slot, column, ts_ns) for batch in sink.batches for slot, column, ts_ns, _ in flat(batch)]


def taken(sink: RecordingSink, first: int = 0) -> set[tuple[str, float | str]]:
    """(path, value) of all samples from the batch numbered `first` on."""
    found = (one for batch in sink.batches[first:] for one in readings(batch, sink.directory, 100_000))
    return {(one.path, one.value) for one in found if one.value is not None}


class AdapterRig(Protocol):
    """An adapter and the peer it talks to, as the checks need them."""

    acknowledges: bool
    """Whether the peer learns that its samples are durable."""
    can_lose: bool
    """Whether the peer can go away and come back."""
    is_pushed_to: bool = False
    """Whether peers come to the adapter, so that it looks for none."""
    # May be left out; see `headrace.testing.fault_rigs`:
    # gives_more: whether more may come than `send` says although nothing is polled.
    # forgets: whether the peer has nothing but its present values for an adapter that was stopped, though it is told.
    # cannot: why it lacks an ability.

    def make(self) -> Adapter:
        """A new adapter for the peer, started or not; retries within a second."""
        ...

    async def up(self) -> None:
        """Start the peer, at the same address each time."""
        ...

    async def down(self) -> None:
        """Stop the peer, if it runs."""
        ...

    async def send(self) -> int:
        """Make the peer offer samples; returns how many at least will arrive (a polled peer may give more)."""
        ...

    async def send_garbage(self) -> None:
        """Make the peer offer what its protocol does not allow."""
        ...

    def n_acknowledged(self) -> int:
        """Messages that the peer knows to be durable."""
        ...


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds; AssertionError after 20 s."""
    clock, began_ns = SystemClock(), monotonic_ns()
    deadline_ns = began_ns + int(WAIT_S * 1e9)
    while not condition():
        now_ns = monotonic_ns()
        assert now_ns < deadline_ns, f"after {WAIT_S:g} s still not: {what}"
        look_s = (now_ns - began_ns) / 1e9  # at a thousand devices takes time
        await clock.sleep(max(0.005, 4 * look_s))
        began_ns = monotonic_ns()


@asynccontextmanager
async def running(rig: AdapterRig, sink: RecordingSink, is_up: bool = True) -> AsyncIterator[Adapter]:
    """A started adapter, with its peer or without; both are stopped at the end."""
    if is_up:
        await rig.up()
    adapter = rig.make()
    try:
        await adapter.start(sink)
        yield adapter
    finally:
        sink.set_credit(True)
        await adapter.stop()
        await rig.down()


async def check_sent_is_received(rig: AdapterRig) -> None:
    """Before anything goes wrong: what the peer says that it sends is what comes, each sample once, and nothing else."""
    sink, offered = RecordingSink(), getattr(rig, "offered", set)
    async with running(rig, sink) as adapter:
        n_sent, known = 0, set(offered())
        for _ in range(3):
            before = sink.n_samples  # some may come before the peer knows that it has sent all
            n = await rig.send()
            n_sent, wanted = n_sent + n, before + n
            known |= offered()
            await until(partial(_has, sink, wanted), f"{n} samples arrived that were sent")
        is_polled = any(device.n_polls for device in adapter.diagnostics().devices)
        await SystemClock().sleep(0.1)  # what is too much comes, too
    assert not sink.rejects, sink.rejects[0].detail
    if known:
        found = taken(sink)
        assert found <= known, f"nobody has sent {sorted(found - known, key=str)}"
    if not is_polled and not getattr(rig, "gives_more", False):
        assert sink.n_samples == n_sent, f"{sink.n_samples} samples came of {n_sent} that were sent"
        n_different = len(set(identities(sink)))
        assert n_different == n_sent, (
            f"{n_sent} samples were sent, and {n_different} of them have a time of their own"
        )


def _has(sink: RecordingSink, n: int) -> bool:
    return sink.n_samples >= n


async def check_samples_arrive(rig: AdapterRig) -> None:
    """What the peer offers comes as frames that fit the directory, and is counted: at the end exactly."""
    sink = RecordingSink()
    async with running(rig, sink) as adapter:
        n = await rig.send()
        await until(lambda: sink.n_samples >= n, f"{n} samples arrived")
        await until(lambda: adapter.diagnostics().n_samples >= n, "samples are counted")
        found = adapter.diagnostics()
        for batch in sink.batches:
            batch.check_columns()
            assert batch.origin == adapter.name, "origin is the adapter's name"
            for slot in batch.slot.tolist():
                layout = sink.directory.layout(slot)
                assert layout.dtype == batch.dtype, "values have their layout's type"
                assert layout.width >= batch.width, "frames fit their layout"
    assert not sink.rejects, sink.rejects[0].detail
    assert adapter.diagnostics().n_samples == sink.n_samples, "all samples are counted, once"
    assert min(found.n_frames, found.n_sensors) > 0, "frames and sensors are counted"
    assert found.name == adapter.name
    assert found.devices[0].last_good_ns > 0, "the age of the newest good sample is told"


async def check_lifecycle_is_idempotent(rig: AdapterRig) -> None:
    """Stop may come before start and twice; diagnostics can be asked for at any time."""
    fresh = rig.make()
    assert fresh.diagnostics().state is AdapterState.STARTING
    if isinstance(fresh, Captures):
        fresh.listen(None)
    await fresh.stop()
    await fresh.stop()
    assert fresh.diagnostics().state is AdapterState.STOPPED
    sink = RecordingSink()
    async with running(rig, sink) as adapter:
        await adapter.stop()
        await adapter.stop()
        assert adapter.diagnostics().state is AdapterState.STOPPED
    n = sink.n_samples
    await SystemClock().sleep(0.1)
    assert sink.n_samples == n, "nothing comes after stop"


async def check_start_returns_at_once(rig: AdapterRig) -> None:
    """Start returns while the peer is away, and says what is the matter; the peer is found when it comes."""
    sink = RecordingSink()
    began_ns = monotonic_ns()
    async with running(rig, sink, is_up=False) as adapter:
        assert (monotonic_ns() - began_ns) / 1e9 < START_S_MAX, "start waits for the peer"
        await until(lambda: bool(adapter.diagnostics().reason), "a reason is told")
        found = adapter.diagnostics()
        if not rig.is_pushed_to:
            assert found.state in (AdapterState.BACKOFF, AdapterState.FAILED), found.state
            assert found.devices[0].next_retry_ns > 0, "the next attempt is told"
        await rig.up()
        n = await rig.send()
        await until(lambda: sink.n_samples >= n, "samples arrive once the peer is there")


async def check_stop_leaves_nothing(rig: AdapterRig) -> None:
    """After stop, which takes two seconds at most, no task, thread or open file of the adapter is left."""
    for is_up in (True, False):
        await _one_life(rig, is_up)  # what is made once for the process is made by the first life
        before = _left_behind()
        await _one_life(rig, is_up)
        await _until_at_most(before)


async def _until_at_most(before: tuple[int, int, int]) -> None:
    def is_clean() -> bool:
        return all(a <= b for a, b in zip(_left_behind(), before, strict=True))

    await until(is_clean, f"no more than {before} tasks, threads, files are left")


async def _one_life(rig: AdapterRig, is_up: bool) -> None:
    sink = RecordingSink()
    async with running(rig, sink, is_up) as adapter:
        if is_up:
            n = await rig.send()
            await until(lambda: sink.n_samples >= n, "samples arrive")
        else:
            await until(lambda: bool(adapter.diagnostics().reason), "a reason is told")
        began_ns = monotonic_ns()
        await adapter.stop()
        assert (monotonic_ns() - began_ns) / 1e9 < STOP_S_MAX, "stop takes too long"


def _left_behind() -> tuple[int, int, int]:
    """Numbers of tasks, threads and open files."""
    return len(asyncio.all_tasks()), threading.active_count(), len(os.listdir("/proc/self/fd"))


async def check_stop_does_not_wait_for_credit(rig: AdapterRig) -> None:
    """Stop takes two seconds at most also while the sink takes nothing."""
    sink = RecordingSink()
    async with running(rig, sink) as adapter:
        n = await rig.send()
        await until(lambda: sink.n_samples >= n, "samples arrive")
        sink.set_credit(False)
        await rig.send()
        began_ns = monotonic_ns()
        await adapter.stop()
        assert (monotonic_ns() - began_ns) / 1e9 < STOP_S_MAX, "stop waits for credit"


async def check_lost_peer_comes_back(rig: AdapterRig) -> None:
    """A lost peer is a state with a reason; when it is back, so are the samples."""
    if not rig.can_lose:
        raise SkipTest("the peer can't be lost")
    sink = RecordingSink()
    async with running(rig, sink) as adapter:
        n = await rig.send()
        await until(lambda: sink.n_samples >= n, "samples arrive")
        await rig.down()
        await until(lambda: adapter.diagnostics().state is AdapterState.BACKOFF, "the loss is noticed")
        assert adapter.diagnostics().reason
        await rig.up()
        wanted = sink.n_samples + await rig.send()
        await until(lambda: sink.n_samples >= wanted, "samples arrive again")
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it says so")


async def check_logs_once(rig: AdapterRig) -> None:
    """One line when the peer is lost, however often it is looked for, and one when it is back."""
    if rig.is_pushed_to:
        raise SkipTest(LOSES_NOBODY)
    sink, lines = RecordingSink(), _Lines()
    log = logging.getLogger("headrace.adapters")
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(lines)
    try:
        async with running(rig, sink, is_up=False) as adapter:
            await until(lambda: bool(adapter.diagnostics().reason), "a reason is told")
            await _retries(adapter, 2)
            assert lines.n(logging.WARNING) == 1, lines.records
            await rig.up()
            n = await rig.send()
            await until(lambda: sink.n_samples >= n, "samples arrive")
            await until(lambda: lines.n(logging.INFO) >= 1, "it is told that the peer is back")
            assert (lines.n(logging.WARNING), lines.n(logging.ERROR)) == (1, 0), lines.records
    finally:
        log.removeHandler(lines)
        log.setLevel(level)


async def _retries(adapter: Adapter, n: int) -> None:
    """Wait until the peer has been looked for `n` times more."""
    due = {adapter.diagnostics().devices[0].next_retry_ns}

    def are_more() -> bool:
        due.add(adapter.diagnostics().devices[0].next_retry_ns)
        return len(due) > n

    await until(are_more, "it is tried again")


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []
        self._levels: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())
        self._levels.append(record.levelno)

    def n(self, level: int) -> int:
        return self._levels.count(level)


async def check_garbage_is_a_value(rig: AdapterRig) -> None:
    """What can't be read is a reject with what came; good samples go on."""
    sink = RecordingSink()
    async with running(rig, sink) as adapter:
        await rig.send_garbage()
        await until(lambda: bool(sink.rejects), "garbage is rejected")
        assert sink.rejects[0].adapter == adapter.name
        assert sink.rejects[0].detail, "it is told what was expected and what came"
        assert sink.rejects[0].source, "it is told where it came from"
        wanted = sink.n_samples + await rig.send()
        await until(lambda: sink.n_samples >= wanted, "good samples arrive after it")
        # What runs elsewhere reports now and then.
        await until(lambda: adapter.diagnostics().n_rejects == len(sink.rejects), "rejects are counted")


async def check_no_credit_slows(rig: AdapterRig) -> None:
    """Without credit nothing is pressed into the sink; with it, what the peer has kept arrives."""
    sink = RecordingSink()
    async with running(rig, sink) as adapter:
        n = await rig.send()
        await until(lambda: sink.n_samples >= n, "samples arrive")
        sink.set_credit(False)
        await SystemClock().sleep(0.1)  # what was on its way has arrived or waits
        before, skipped = sink.n_samples, _n_skipped(adapter)
        n = await rig.send()
        await SystemClock().sleep(0.3)
        assert sink.n_samples == before
        if any(device.n_polls for device in adapter.diagnostics().devices):
            assert _n_skipped(adapter) > skipped, "skipped polls are counted"
        sink.set_credit(True)
        await until(lambda: sink.n_samples >= before + n, "samples arrive with new credit")


def _n_skipped(adapter: Adapter) -> int:
    return sum(device.n_polls_skipped for device in adapter.diagnostics().devices)


async def check_acknowledged_means_durable(rig: AdapterRig) -> None:
    """The peer is told after samples are durable, and then it is told; rejects alike."""
    if not rig.acknowledges:
        raise SkipTest(NOT_TOLD)
    sink = RecordingSink(is_durable=False)
    async with running(rig, sink):
        n = await rig.send()
        await rig.send_garbage()
        await until(lambda: sink.n_samples >= n and bool(sink.rejects), "samples and rejects are taken")
        await SystemClock().sleep(0.1)
        assert rig.n_acknowledged() == 0, "acknowledged before it was durable"
        sink.land()
        await until(lambda: rig.n_acknowledged() > 0, "acknowledged")


async def check_sink_that_refuses(rig: AdapterRig) -> None:
    """A sink that refuses is a state with a reason and not the end; nothing refused is acknowledged."""
    sink = RecordingSink()
    sink.refusal = Closed("the journal is closed")
    async with running(rig, sink) as adapter:
        await rig.send()
        await until(lambda: "journal is closed" in adapter.diagnostics().reason, "the reason is told")
        assert adapter.diagnostics().state not in (AdapterState.CONNECTED, AdapterState.STARTING)
        assert not rig.acknowledges or rig.n_acknowledged() == 0
        if rig.can_lose:
            sink.refusal = None
            n = await rig.send()
            await until(lambda: sink.n_samples >= n, "samples arrive once the sink takes them")


async def check_reload_loses_nothing(rig: AdapterRig) -> None:
    """One instance is stopped and the next goes on: nothing of what was sent before, between and after is missing.

    What the next one can't read, as it has not heard what was said before, it may refuse: refused input is kept.
    """
    sink = RecordingSink(is_durable=False)

    def n_accounted() -> int:
        return len(set(identities(sink))) + sum(reject.n_samples for reject in sink.rejects)

    async with running(rig, sink) as old:
        n_sent = await rig.send()
        await until(partial(_has, sink, n_sent), "samples arrive")
        n_sent += await rig.send()
        await old.stop()
        sink.land()
        sink.is_durable = True  # a peer may wait after so many
        n_sent += await rig.send()
        new = rig.make()
        try:
            await new.start(sink)
            if rig.acknowledges and not getattr(rig, "forgets", False):
                await until(lambda: n_accounted() >= n_sent, "what came between is there")
            wanted = sink.n_samples + await rig.send()
            await until(partial(_has, sink, wanted), "samples arrive at the next instance")
        finally:
            await new.stop()
    found = (one for batch in sink.batches for one in readings(batch, sink.directory, 100_000))
    n_different = len({(one.path, one.ts_ns) for one in found})
    assert n_different == len(set(identities(sink))), "the next instance takes its sensors for others"


CHECKS: tuple[Callable[[AdapterRig], Awaitable[None]], ...] = (
    check_sent_is_received,
    check_samples_arrive,
    check_lifecycle_is_idempotent,
    check_start_returns_at_once,
    check_stop_leaves_nothing,
    check_stop_does_not_wait_for_credit,
    check_lost_peer_comes_back,
    check_logs_once,
    check_garbage_is_a_value,
    check_no_credit_slows,
    check_acknowledged_means_durable,
    check_sink_that_refuses,
    check_reload_loses_nothing,
)
"""The first is on the peer as much as on the adapter: where it fails, the others say nothing."""
