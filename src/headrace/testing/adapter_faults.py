"""What networks, tired devices and wrong clocks do, as checks that an adapter has to pass.

They go on from `headrace.testing.adapters` and need more of a rig than that does: `NEEDS` says what. All of it goes through
`headrace.testing.proxy`, over real sockets. `headrace.testing.adapter_contract.contract` has them all. Each raises AssertionError where a promise of `headrace.adapters.base` is broken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import SkipTest

from headrace.adapters.abilities import Captured, Captures
from headrace.adapters.base import Adapter, AdapterState
from headrace.core.clock import NS, Clock, ScaledClock, SystemClock, monotonic_ns
from headrace.core.sensors import SensorDirectory
from headrace.testing.adapter_fleets import check_reconnect_storm, check_slow_device_delays_no_other
from headrace.testing.adapters import (
    LOSES_NOBODY,
    NOT_TOLD,
    AdapterRig,
    RecordingSink,
    identities,
    running,
    taken,
    until,
)
from headrace.testing.fault_rigs import (
    NO_PROXY,
    JumpingClock,
    Offered,
    ProxiedRig,
    RetypingRig,
    SampleFlow,
    TimedRig,
    are_accounted,
    n_accounted,
    n_distinct,
    proxied,
    until_sent,
)
from headrace.testing.proxy import (
    Coalesce,
    Cut,
    Duplicate,
    FaultProxy,
    Garbage,
    Hold,
    Late,
    Reorder,
    Rewrite,
    Silence,
    Split,
    WireFault,
    truncate,
)

CUTS = (1, 3, 7)
NO_CREDIT_S = 60.0
_SPEED = 120.0
_DAY_NS = 86_400 * NS
_YEAR_2000_NS = 946_684_800 * NS


# --- the wire ------------------------------------------------------------------------------------------


async def check_cut_in_a_frame(rig: AdapterRig) -> None:
    """A connection that ends within a frame, either way, is made anew; nothing that was sent is missing."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    sink = RecordingSink()
    flow = SampleFlow(rig, sink)
    async with proxied(rig, sink) as (_, proxy):
        await flow.go_on("before the cut")
        for after in CUTS:
            for way in ("to_client", "to_peer"):
                n, fault = proxy.n_connections, Cut(after)
                setattr(proxy, way, fault)
                wanted = await flow.send()
                await _reconnected(proxy, n, f"after {after} bytes {way}")
                proxy.heal()
                await flow.arrive(wanted, f"after a cut behind {after} bytes {way}")
        await flow.go_on("at the end")


def _inward(rig: AdapterRig) -> str:
    """The way of the proxy by which the adapter receives."""
    return "to_peer" if rig.is_pushed_to else "to_client"


async def _reconnected(proxy: FaultProxy, n_before: int, when: str = "after the loss") -> None:
    await until(lambda: proxy.n_connections > n_before, f"a new connection {when}")


async def check_half_open_is_noticed(rig: AdapterRig) -> None:
    """A peer that is silent while its connection stands is a lost peer, within the deadline."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    if rig.is_pushed_to:
        raise SkipTest(LOSES_NOBODY)
    sink = RecordingSink()
    flow = SampleFlow(rig, sink)
    async with proxied(rig, sink) as (adapter, proxy):
        await flow.go_on("before")
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is connected")
        proxy.to_peer, proxy.to_client = Silence(), Silence()
        began_ns = monotonic_ns()
        await until(lambda: adapter.diagnostics().state is not AdapterState.CONNECTED, "silence is noticed")
        took_s = (monotonic_ns() - began_ns) / NS
        assert took_s < 2 * rig.deadline_s + 2.0, f"silence was noticed after {took_s:.1f} s"
        found = adapter.diagnostics()
        assert found.reason, f"it is told why it is {found.state}"
        proxy.heal()
        await flow.go_on("once the peer is back")


async def check_half_open_from_the_beginning(rig: AdapterRig) -> None:
    """A peer that takes the connection and says nothing delays neither start nor what comes after."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    if rig.is_pushed_to:
        raise SkipTest(LOSES_NOBODY)
    sink = RecordingSink()
    flow = SampleFlow(rig, sink)
    async with proxied(rig, sink, Silence) as (adapter, proxy):
        await until(lambda: bool(adapter.diagnostics().reason), "a reason is told")
        assert adapter.diagnostics().state is not AdapterState.CONNECTED
        proxy.heal()
        await flow.go_on("once the peer answers")
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it says so")


async def check_late_reply(rig: AdapterRig) -> None:
    """An answer that comes after its time-out answers nothing else."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    if rig.acknowledges:
        raise SkipTest("the peer is not asked: it sends by itself")
    sink = RecordingSink()
    flow = SampleFlow(rig, sink)
    async with proxied(rig, sink) as (adapter, proxy):
        await flow.go_on("before")
        n = _n_timeouts(adapter)
        proxy.to_client = Late(1.1 * rig.deadline_s)
        await until(lambda: _n_timeouts(adapter) > n, "the time-out is counted")
        await flow.go_on("after a late answer")
        for _ in range(3):  # where the machine was busy it may have asked before the values changed
            mixed_up = await _taken_late(rig, sink, adapter, proxy)
            if not mixed_up:
                break
        assert not mixed_up, f"a late answer was taken for the next one: {mixed_up}"
    assert not sink.rejects, f"a late answer was taken for another: {sink.rejects[0].detail}"


async def _taken_late(rig: ProxiedRig, sink: RecordingSink, adapter: Adapter, proxy: FaultProxy) -> Offered:
    """Old values that are taken when the answer of a request that timed out comes while the next is waited for."""
    n, proxy.to_client = _n_timeouts(adapter), Hold()
    await until(lambda: _n_timeouts(adapter) > n, "the time-out is counted")
    n_bytes, first, stale = proxy.n_bytes["to_peer"], len(sink.batches), rig.offered()
    await rig.send()
    stale -= rig.offered()
    await until(lambda: proxy.n_bytes["to_peer"] > n_bytes, "it asks again")
    proxy.heal()
    await until(lambda: rig.offered() <= taken(sink, first), "what is offered now is read")
    return stale & taken(sink, first)


def _n_timeouts(adapter: Adapter) -> int:
    return sum(device.n_timeouts for device in adapter.diagnostics().devices)


async def _offered_arrives(rig: ProxiedRig, sink: RecordingSink, flow: SampleFlow) -> None:
    """What the peer offers now comes as it is."""
    first = len(sink.batches)
    await flow.go_on("as they are")
    await until(lambda: rig.offered() <= taken(sink, first), f"{sorted(rig.offered(), key=str)} came")


async def check_split_and_joined_frames(rig: AdapterRig) -> None:
    """How TCP cuts and joins what is sent changes nothing of what is read."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    faults: tuple[Callable[[], WireFault], ...] = (lambda: Split(1), lambda: Split(3), lambda: Coalesce(0.02))
    for fault in faults:
        sink = RecordingSink()
        flow = SampleFlow(rig, sink)
        async with proxied(rig, sink, fault):
            await _offered_arrives(rig, sink, flow)
        assert not sink.rejects, sink.rejects[0].detail


async def check_sent_again_is_one_sample(rig: AdapterRig) -> None:
    """What is delivered again, because the connection was lost before we acknowledged it, is the same sample."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    sink = RecordingSink(is_durable=False)
    flow = SampleFlow(rig, sink)
    async with proxied(rig, sink) as (adapter, proxy):
        await flow.go_on("before")
        if not rig.acknowledges:
            proxy.to_client = Duplicate(times=5)
            await _offered_arrives(rig, sink, flow)
            return
        n = proxy.n_connections
        proxy.cut()
        await _reconnected(proxy, n)
        if not rig.is_pushed_to:
            await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is up")
        await flow.go_on("after the loss")
        sink.land()
        await until(lambda: rig.n_acknowledged() > 0, "acknowledged")
        assert n_distinct(sink) == flow.n_sent, "the same sample has two identities"


async def check_garbage_on_the_wire(rig: AdapterRig) -> None:
    """Bytes that are none of the protocol's, a frame too short, a length that can't be: it goes on after them."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    sink = RecordingSink()
    async with proxied(rig, sink) as (_, proxy):
        await SampleFlow(rig, sink).go_on("before")
        faults: tuple[Garbage | Rewrite, ...] = (Garbage(64), truncate(1), Rewrite(rig.absurd))
        for fault in faults:
            setattr(proxy, _inward(rig), fault)
            await rig.send()
            await until(partial(_is_over, fault), "the fault is on its way")
            # What was garbled may be rejected, or even acknowledged: TCP's own checksum is what keeps it out.
            await until_sent(rig, sink, f"after {type(fault).__name__}")


def _is_over(fault: Garbage | Rewrite | Reorder) -> bool:
    return fault.times == 0


async def check_reordered_on_the_wire(rig: AdapterRig) -> None:
    """Bytes that come in another order than they were sent: it goes on after them, and takes nothing for another."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    sink = RecordingSink()
    async with proxied(rig, sink) as (_, proxy):
        flow = SampleFlow(rig, sink)
        known = rig.offered()
        await flow.go_on("before")
        known |= rig.offered()
        fault = Reorder()
        setattr(proxy, _inward(rig), fault)
        await rig.send()
        known |= rig.offered()
        await until(partial(_is_over, fault), "a chunk is kept back")
        await rig.send()
        known |= rig.offered()
        first = len(sink.batches)
        await rig.send()
        known |= rig.offered()
        await until(lambda: rig.offered() <= taken(sink, first), "what is offered after it comes")
        strange = taken(sink) - known
        assert not strange, f"nobody has sent {sorted(strange, key=str)}"


# --- clocks and values ---------------------------------------------------------------------------------


async def check_clock_jumps(rig: AdapterRig) -> None:
    """The plant's clock may jump a day either way, or to the year 2000: polling and reconnecting go on."""
    clock = JumpingClock()
    sink = RecordingSink(clock)
    async with running(rig, sink) as adapter:
        await until_sent(rig, sink, "before")
        start_ns = clock.now_ns()
        for offset_ns in (_DAY_NS, 0, -_DAY_NS, _YEAR_2000_NS - start_ns, 0):
            clock.offset_ns = offset_ns
            await until_sent(rig, sink, f"at {offset_ns / _DAY_NS:+.0f} days")
        if rig.can_lose:
            await rig.down()
            await until(
                lambda: adapter.diagnostics().state is not AdapterState.CONNECTED, "the loss is noticed"
            )
            clock.offset_ns = -_DAY_NS
            await rig.up()
            await until_sent(rig, sink, "when the clock was set back while the peer was away")


async def check_source_times_are_kept(rig: AdapterRig) -> None:
    """A source's times are data: of tomorrow, of yesterday, of 2000 and backwards, each kept as it is or refused."""
    if not isinstance(rig, TimedRig):
        raise SkipTest("the peer does not say itself when a sample was taken: the rig has no send_at")
    sink = RecordingSink()
    async with running(rig, sink):
        now_ns = SystemClock().now_ns() // NS * NS
        for ts_ns in (now_ns, now_ns + _DAY_NS, now_ns - _DAY_NS, _YEAR_2000_NS, now_ns - NS):
            n_refused = len(sink.rejects)
            n = n_accounted(sink) + await rig.send_at(ts_ns)
            await until(partial(are_accounted, sink, n), "each is a sample or a reject, whatever its time")
            times = {one[2] for one in identities(sink)}
            assert ts_ns in times or len(sink.rejects) > n_refused, f"time {ts_ns} came as another"
        assert times, "no time was taken at all"


async def check_type_change(rig: AdapterRig) -> None:
    """A value whose type changes is a sample of the new type or a reject, and all else goes on."""
    if not isinstance(rig, RetypingRig):
        raise SkipTest("the peer can't change the type of a value: the rig has no send_other_type")
    sink = RecordingSink()
    async with running(rig, sink):
        await until_sent(rig, sink, "before")
        n = n_accounted(sink) + await rig.send_other_type()
        await until(partial(are_accounted, sink, n), "each is a sample or a reject")
        for batch in sink.batches:
            batch.check_columns()
            for slot in set(batch.slot.tolist()):
                assert sink.directory.layout(slot).dtype == batch.dtype, "values have their layout's type"
        taken_before, n = sink.n_samples, n_accounted(sink)
        n += await rig.send()  # the peer may keep the other type
        await until(
            lambda: sink.n_samples > taken_before and are_accounted(sink, n), "what is sent after it is told"
        )


async def check_poison_is_taken_once(rig: AdapterRig) -> None:
    """What can never be read is acknowledged once it is durable as a reject: it does not come again and again."""
    if not isinstance(rig, ProxiedRig):
        raise SkipTest(NO_PROXY)
    if not rig.acknowledges:
        raise SkipTest(NOT_TOLD)
    sink = RecordingSink()
    flow = SampleFlow(rig, sink)
    async with proxied(rig, sink) as (_, proxy):
        await rig.send_garbage()
        await until(lambda: bool(sink.rejects), "garbage is rejected")
        await flow.go_on("behind the poison")
        await until(lambda: rig.n_acknowledged() > 0, "acknowledged")
        await SystemClock().sleep(0.1)
        before = len(sink.rejects)
        n = proxy.n_connections
        proxy.cut()
        if not rig.is_pushed_to:
            await _reconnected(proxy, n)
        await flow.go_on("after it")
        assert len(sink.rejects) == before, "poison came again"


async def check_a_minute_without_credit(rig: AdapterRig) -> None:
    """A minute in which the sink takes nothing: the peer is not lost over it, and what it has kept arrives then."""
    clock: Clock = ScaledClock(_SPEED)
    sink = RecordingSink(clock)
    async with running(rig, sink) as adapter:
        await until_sent(rig, sink, "before")
        sink.set_credit(False)
        n = await rig.send()
        await clock.sleep(1.0)  # what was on its way has arrived or waits
        before = sink.n_samples
        await clock.sleep(NO_CREDIT_S)
        assert sink.n_samples == before, "samples were pressed into the sink"
        assert adapter.diagnostics().state in (AdapterState.CONNECTED, AdapterState.DEGRADED)
        sink.set_credit(True)
        await until(lambda: sink.n_samples >= before + n, "what was kept arrives")
        await until_sent(rig, sink, "as before")


async def check_capture_decodes_to_the_same(rig: AdapterRig) -> None:
    """What is heard on the wire, decoded again without a peer, gives the same samples and rejects."""
    if not isinstance(rig.make(), Captures):
        raise SkipTest("the adapter captures nothing")
    sink = RecordingSink()
    heard: list[Captured] = []
    async with running(rig, sink) as adapter:
        assert isinstance(adapter, Captures)
        await until_sent(rig, sink, "before anybody listens")
        adapter.listen(heard.append)
        for _ in range(3):  # what is polled may have come before somebody listened
            await until_sent(rig, sink, "while somebody listens")
        adapter.listen(None)
        n = len(heard)
        assert n, "nothing was heard"
        await until_sent(rig, sink, "when nobody listens any more")
        assert len(heard) == n, "it goes on after the end"
    directory = SensorDirectory()
    alone = rig.make()
    assert isinstance(alone, Captures)
    batches, rejects = alone.decode_captured(heard, directory)
    again = RecordingSink()
    again.directory, again.batches = directory, list(batches)
    assert taken(again), "nothing comes of it"
    assert taken(again) <= taken(sink), "it gives other samples"
    assert not rejects, rejects[0].detail
    assert alone.decode_captured([], SensorDirectory()) == ([], []), "nothing gives nothing"
    garbled = [replace(one, data=one.data[: len(one.data) // 2] + b"\xff\x00") for one in heard]
    batches, rejects = alone.decode_captured(garbled, SensorDirectory())
    assert rejects, "what can't be read is a reject here too"


CHECKS: tuple[Callable[[Any], Awaitable[None]], ...] = (
    check_cut_in_a_frame,
    check_half_open_is_noticed,
    check_half_open_from_the_beginning,
    check_late_reply,
    check_split_and_joined_frames,
    check_sent_again_is_one_sample,
    check_garbage_on_the_wire,
    check_reordered_on_the_wire,
    check_slow_device_delays_no_other,
    check_reconnect_storm,
    check_clock_jumps,
    check_source_times_are_kept,
    check_type_change,
    check_poison_is_taken_once,
    check_a_minute_without_credit,
    check_capture_decodes_to_the_same,
)
"""All of them; one that needs what a rig has not raises `unittest.SkipTest`, which pytest understands."""

NEEDS: dict[Callable[[Any], Awaitable[None]], tuple[str, ...]] = {
    check_cut_in_a_frame: ("wire",),
    check_half_open_is_noticed: ("wire",),
    check_half_open_from_the_beginning: ("wire",),
    check_late_reply: ("wire",),
    check_split_and_joined_frames: ("wire",),
    check_sent_again_is_one_sample: ("wire",),
    check_garbage_on_the_wire: ("wire",),
    check_reordered_on_the_wire: ("wire",),
    check_poison_is_taken_once: ("wire",),
    check_slow_device_delays_no_other: ("wire", "fleet"),
    check_reconnect_storm: ("wire", "fleet"),
    check_source_times_are_kept: ("times",),
    check_type_change: ("types",),
}
"""Abilities that a rig needs for a check, besides the methods of `AdapterRig`: see `fault_rigs.ABILITIES`."""
