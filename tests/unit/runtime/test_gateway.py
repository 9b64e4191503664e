"""An adapter behind a link: both ends in this process, and what can go wrong between them."""

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest
from tests.gateway_pair import PID, Pair

from headrace.adapters import abilities
from headrace.adapters.base import (
    AdapterDiagnostics,
    AdapterState,
    DeviceDiagnostics,
    PartlyRejected,
    Pushed,
    Receipt,
    Receiver,
)
from headrace.core.clock import NS, ScaledClock, SystemClock
from headrace.core.config import parse_plant
from headrace.core.dead_bands import DeadBands
from headrace.core.errors import (
    Closed,
    ConfigError,
    HeadraceError,
    NotConnected,
    Overloaded,
    PluginError,
    Rejected,
    RetryLater,
)
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.problems import InvalidConfig, Problem
from headrace.runtime import gateway, gateway_end, gateway_link, gateway_process
from headrace.runtime.gateway import GatewayAdapter
from headrace.runtime.gateway_end import spawn_gateway
from headrace.runtime.gateway_link import error_fields, error_of
from headrace.runtime.gateway_process import _clock_of
from headrace.testing.adapters import RecordingSink, until
from headrace.testing.plants import HandFed

ALL = ("Captures", "Probes", "Receiver", "Redecodes", "Retags", "Scans", "Suspends")
LAYOUT = Layout("f64", (Column("a"), Column("b")))
TS_NS = 1_767_225_600 * NS


class Far(HandFed):
    """An adapter that is fed by hand at the far end, and can do everything."""

    error = None

    def __init__(self):
        super().__init__("x")
        self.log = []

    async def start(self, sink):
        await super().start(sink)
        if self.error is not None:
            raise self.error
        self.slots = self.define(["s/a/d1", "s/a/d2"])

    def diagnostics(self):
        devices = (
            DeviceDiagnostics("s/a", self.state, last_good_ns=7, n_requests=1, problems=(("t", "dry"),)),
        )
        return AdapterDiagnostics(
            "x",
            "sim",
            self.state,
            devices=devices,
            n_samples=self.n_samples,
            n_sensors=4,
            latency_counts=(1, 2),
        )

    async def send(self, n=1):
        """`n` frames of each group."""
        for i in range(n):
            await self.emit(self.slots, TS_NS + i, [[1.0, 2.0], [3.0, 4.0]])

    async def probe(self, wanted, clock):
        if "error" in wanted:
            raise Rejected("the device says no")
        return {"protocol": "sim", "facts": [["now", clock.now_ns() > 0]], "wanted": wanted}

    async def scan(self, wanted, clock):
        return [abilities.FoundTag("d", "t", "a:1", value=1.5)]

    async def receive(self, pushed):
        if pushed.key == "partly":
            raise PartlyRejected("half of it", Receipt(1, 1, "bad"))
        if pushed.key == "full":
            raise Overloaded("full", 4.0)
        return Receipt(len(pushed.body), reason=pushed.parameters["db"])

    async def retag(self, new):
        self.log.append(new)
        return True

    def redecode(self, reject, directory):
        slot = directory.define("s/a/again", LAYOUT)
        batch = FrameBatch.dense(np.array([slot], np.uint32), np.array([TS_NS]), np.ones((1, 2)), origin="x")
        return [batch], [reject]

    def suspend(self):
        self.log.append("suspend")

    def proceed(self):
        self.log.append("proceed")

    def listen(self, listener):
        self.listener = listener

    def decode_captured(self, captured, directory):
        raise AssertionError("the far end is not asked")


class World:
    """A gateway's adapter, its far end and the sink."""

    def __init__(self, kind=Far):
        self.pair, self.sink = Pair(kind), RecordingSink()
        self.near = self.pair.adapter()

    async def started(self):
        await self.near.prepare(self.sink)
        await self.near.start(self.sink)
        return self

    @property
    def far(self):
        return self.pair.adapters[0]


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr(gateway, "_RETRY_NS_MIN", NS // 100)
    monkeypatch.setattr(gateway, "_RETRY_NS_MAX", NS // 20)
    one = World()
    yield one
    await one.near.stop()


# --- frames ----------------------------------------------------------------------------------------


async def test_frames_come_with_our_slots_and_counts_follow(world):
    taken = world.sink.directory.define("s/other", LAYOUT)
    known = world.sink.directory.define("s/a/d2", LAYOUT)
    await world.near.prepare(world.sink)
    late = world.sink.directory.define("s/a/d1", LAYOUT)  # by the old instance, which still runs
    await world.near.start(world.sink)
    await world.far.send()
    (batch,) = world.sink.batches
    directory = world.sink.directory
    assert [directory.paths[slot] for slot in batch.slot.tolist()] == ["s/a/d1", "s/a/d2"]
    assert batch.slot.tolist() == [late, known]
    assert taken not in batch.slot
    assert batch.values.tolist() == [[1, 2], [3, 4]]
    await until(lambda: world.far.n_acked == 1, "it is acknowledged")
    await until(lambda: world.near.diagnostics().n_samples == 4, "counts follow")
    found = world.near.diagnostics()
    assert (found.state, found.pid) == (AdapterState.CONNECTED, PID + 1)
    assert found.devices[0].problems == (("t", "dry"),)
    assert found.latency_counts == (1, 2)


async def test_groups_that_come_later_and_their_dead_bands_are_told(world):
    await world.started()
    world.sink.directory.define("s/other", LAYOUT)
    bands = DeadBands(np.array([-1.0, 2.5]), np.array([0, NS]), "x")
    sink = world.far.sink
    many = sink.directory.define_many(["s/b/1", "s/b/2"], Layout("u8", (Column("c"),)), "part")
    given = sink.directory.define("s/b/3", LAYOUT, sensors=[5, 6])
    sink.directory.set_dead_bands([given], bands)
    sink.directory.set_dead_bands(many.tolist(), None)
    await world.far.emit(np.array([given], np.uint32), TS_NS, [[1.0, 2.0]])
    directory = world.sink.directory
    slot = int(world.sink.batches[0].slot[0])
    assert directory.paths[slot] == "s/b/3"
    assert directory.sensors(slot).tolist() == [5, 6]
    assert directory.parts[directory.slot("s/b/2", "part")] == "part"
    found = directory.dead_bands[slot]
    assert (found.change.tolist(), found.heartbeat_ns.tolist(), found.origin) == ([-1.0, 2.5], [0, NS], "x")


async def test_rejects_come_over_and_are_acknowledged(world):
    await world.started()
    await world.far.reject(3, b"\xff\x00")
    await until(lambda: world.far.n_acked == 1, "it is acknowledged")
    (reject,) = world.sink.rejects
    assert (reject.n_samples, reject.raw, reject.adapter) == (3, b"\xff\x00", "x")


async def test_a_sensor_of_another_adapter_is_refused_at_the_start(world):
    world.sink.directory.define("s/a", Layout("f64", (Column("d1/a"),)))
    await world.near.prepare(world.sink)
    with pytest.raises(ConfigError, match="s/a/d1"):
        await world.near.start(world.sink)


async def test_a_sensor_of_another_adapter_is_refused_later_and_the_others_are_taken(world):
    """As input that is refused: a source would send again for ever what is never acknowledged, and all that is with it."""
    await world.started()
    world.sink.directory.define("s/b", Layout("f64", (Column("1/a"),)))
    both = world.far.sink.directory.define_many(["s/b/1", "s/b/2"], LAYOUT)
    world.sink.is_durable = False
    await world.far.emit(both, TS_NS, [[1.0, 2.0], [3.0, 4.0]])
    (batch,), (reject,) = world.sink.batches, world.sink.rejects
    assert batch.values.tolist() == [[3, 4]]
    assert [world.sink.directory.paths[slot] for slot in batch.slot.tolist()] == ["s/b/2"]
    assert (reject.code, reject.adapter, reject.n_samples) == (RejectCode.BAD_PATH, "x", 2)
    assert "s/b/1" in reject.detail
    first, second = world.sink._acks
    first()
    await world.near.probe({}, SystemClock())
    assert world.far.n_acked == 0, "only half of it is durable"
    second()
    await until(lambda: world.far.n_acked == 1, "it is acknowledged")
    await world.far.emit(both[:1], TS_NS, [[1.0, 2.0]])
    assert len(world.sink.batches) == 1
    world.sink._acks[2]()
    await until(lambda: world.far.n_acked == 2, "what is refused alone is acknowledged, too")


async def test_what_is_refused_of_a_batch_is_counted_once_where_the_rest_is_not_taken_at_first(world):
    await world.started()
    world.sink.directory.define("s/b", Layout("f64", (Column("1/a"),)))
    both = world.far.sink.directory.define_many(["s/b/1", "s/b/2"], LAYOUT)
    emit, world.sink.emit = world.sink.emit, refuse_all
    with pytest.raises(RetryLater):
        await world.far.emit(both, TS_NS, [[1.0, 2.0], [3.0, 4.0]])
    world.sink.emit = emit
    await world.far.emit(both, TS_NS, [[1.0, 2.0], [3.0, 4.0]])
    assert [reject.n_samples for reject in world.sink.rejects] == [2]
    assert world.sink.n_samples == 2


async def refuse_all(batch, ack=None):
    raise RetryLater("not now", 1.0)


async def test_what_is_refused_is_raised_where_it_was_handed_on(world):
    await world.started()
    world.sink.refusal = Closed("the journal is closed")
    with pytest.raises(Closed, match="journal is closed"):
        await world.far.send()
    with pytest.raises(Closed, match="journal is closed"):
        await world.far.sink.emit(some_frames(world))
    world.sink.refusal = None
    await world.far.sink.emit(some_frames(world))
    assert len(world.sink.batches) == 1
    assert world.far.n_acked == 0


async def test_an_acknowledgement_that_fails_keeps_no_other_waiting(world, caplog):
    await world.started()
    world.sink.is_durable = False
    told = []
    for ack in (lambda: 1 / 0, lambda: told.append("durable")):
        await world.far.sink.emit(some_frames(world), ack)
    world.sink.land()
    await until(lambda: told == ["durable"], "the other is told")
    assert world.pair.n_started == 1
    assert "an acknowledgement failed" in caplog.text


async def test_what_is_counted_is_known_when_it_has_stopped(world):
    """However long it is until the next report."""
    world.pair.report_s = 1_000.0
    await world.started()
    await world.far.send(3)
    await world.near.stop()
    assert world.near.diagnostics().n_samples == world.sink.n_samples == 12


def some_frames(world):
    return FrameBatch.dense(world.far.slots, np.array([1, 2]), np.ones((2, 2)))


async def test_without_credit_everybody_waits_and_who_polls_knows(world, monkeypatch):
    monkeypatch.setattr(gateway_process, "WINDOW", 8)
    await world.started()
    world.sink.has_credit = lambda n: world.sink._credit.is_set()
    world.sink.set_credit(False)
    sink = world.far.sink
    assert sink.has_credit(8)
    waiting = [asyncio.create_task(sink.emit(some_frames(world))) for _ in range(5)]
    await until(lambda: not sink.has_credit(1), "it is known there")
    assert not sink._credits.has(1), "two batches are on their way, the others wait"
    waiting.pop().cancel()
    waiting.pop(0).cancel()
    world.sink.set_credit(True)
    await asyncio.gather(*waiting)
    assert len(world.sink.batches) == 4, "one that was on its way is taken all the same"
    await until(lambda: sink.has_credit(8), "credit comes back")


async def test_what_nobody_takes_before_the_end_is_told(world, monkeypatch, caplog):
    monkeypatch.setattr(gateway, "_STOP_S_MAX", 0.05)
    await world.started()
    world.sink.set_credit(False)
    waiting = asyncio.create_task(world.far.sink.emit(some_frames(world)))
    await until(lambda: world.near._taking._n_open == 1, "it is on its way")
    await world.near.stop()
    assert "1 batches were not taken before it stopped" in caplog.text
    with pytest.raises(Closed, match="the engine is gone"):
        await waiting


# --- lives -----------------------------------------------------------------------------------------


async def test_a_process_that_dies_is_started_again_and_counts_go_on(world, caplog):
    caplog.set_level(logging.INFO)
    await world.started()
    await world.far.send(2)
    await until(lambda: world.near.diagnostics().n_samples == 8, "counts follow")
    world.pair.fails = NotConnected("no process can be had")
    world.sink.is_durable = False
    await world.far.send()
    first = world.far
    world.pair.die()
    await until(lambda: world.near.diagnostics().state is AdapterState.BACKOFF, "the loss is noticed")
    found = world.near.diagnostics()
    assert "its gateway process was ended by SIGKILL" in found.reason or "no process" in found.reason
    assert found.devices[0].next_retry_ns > 0
    assert found.devices[0].last_good_ns == 7
    assert (found.n_sensors, found.pid) == (4, 0)
    await until(lambda: "no process" in world.near.diagnostics().reason, "it is tried again")
    world.sink.land()
    assert first.n_acked == 2, "what is durable after the end is not acknowledged by who is gone"
    world.pair.fails = None
    await until(lambda: world.near.diagnostics().state is AdapterState.CONNECTED, "it is back")
    assert world.far is not first
    world.sink.is_durable = True
    await world.far.send()
    await until(lambda: world.near.diagnostics().n_samples >= 12, "counts go on")
    lines = [r.getMessage() for r in caplog.records if r.name == "headrace.gateway"]
    assert len(lines) == 2
    assert "was ended by SIGKILL; what was not acknowledged its source sends again" in lines[0]
    assert "is back" in lines[1]


async def test_what_came_before_the_death_is_taken_however_long_it_waits(world):
    await world.started()
    world.sink.set_credit(False)
    waiting = asyncio.create_task(world.far.sink.emit(some_frames(world)))
    await until(lambda: world.near._taking._n_open == 1, "it is on its way")
    world.pair.die()
    with pytest.raises(Closed, match="the engine is gone"):
        await waiting
    with pytest.raises(Closed, match="the engine is gone"):
        await world.far.sink.emit(some_frames(world))
    await until(world.near._taking.is_lost.is_set, "the loss is noticed")
    assert world.pair.n_started == 1
    world.sink.set_credit(True)
    await until(lambda: world.pair.n_started == 2, "it is started again")
    assert world.sink.n_samples == 4


async def test_what_can_not_start_in_the_background_has_failed_with_a_reason(world):
    """At the start of a plant nobody waits for a process."""
    world.pair.make = lambda: refuse(ConfigError("no such unit", "adapters.x.unit"))
    await world.near.start(world.sink)
    assert world.near.diagnostics().state is AdapterState.STARTING
    await until(lambda: world.near.diagnostics().state is AdapterState.FAILED, "it is told")
    assert world.near.diagnostics().reason == "adapters.x.unit: no such unit"
    world.pair.make = Far
    await until(lambda: world.near.diagnostics().state is AdapterState.CONNECTED, "it is tried again")


def refuse(error):
    raise error


@pytest.mark.parametrize(
    "error",
    [
        InvalidConfig([Problem("adapters.x.a", "is missing"), Problem("adapters.x.b", "is wrong")]),
        PluginError("adapter 'sim' can't be loaded: no module"),
        RuntimeError("a defect"),
    ],
)
async def test_what_can_not_be_made_is_told_before_anything_starts(world, error):
    world.pair.make = lambda: refuse(error)
    kind = type(error) if isinstance(error, HeadraceError) else PluginError
    with pytest.raises(kind, match=str(error).partition("\n")[0].replace("(", r"\(")) as told:
        await world.near.prepare(world.sink)
    if isinstance(error, InvalidConfig):
        assert told.value.problems == error.problems


async def test_an_error_of_start_is_raised_by_start(world, monkeypatch):
    monkeypatch.setattr(Far, "error", RuntimeError("a defect"))
    await world.near.prepare(world.sink)
    with pytest.raises(PluginError, match="unexpected RuntimeError: a defect"):
        await world.near.start(world.sink)


async def test_another_headrace_needs_a_restart(world, monkeypatch):
    monkeypatch.setattr(gateway, "_VERSION", "0.0.1")
    with pytest.raises(
        ConfigError, match=r"Headrace itself has changed on the disk, from 0\.0\.1 to .*: restart"
    ):
        await world.near.prepare(world.sink)


async def test_a_process_that_dies_while_it_prepares_is_told(world):
    world.pair.make = lambda: world.pair._far._writer.transport.abort() or Far()
    with pytest.raises(NotConnected, match="its gateway process is gone; it was ended by SIGKILL"):
        await world.near.prepare(world.sink)


async def test_nonsense_ends_the_process_and_not_the_engine(world, caplog):
    await world.started()
    world.pair._far.control("dance")
    await until(lambda: world.pair.n_started == 2, "it is started again")
    assert "sends nonsense" in caplog.text


async def test_frames_of_a_group_that_was_never_told_are_refused(world):
    await world.started()
    with pytest.raises(HeadraceError, match="which was never told"):
        await world.far.emit(np.array([77], np.uint32), TS_NS, [[1.0, 2.0]])


async def test_a_process_that_can_not_be_started_is_told(monkeypatch):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(NotConnected, match="can't be started: No such file"):
        await spawn_gateway()


@pytest.mark.timeout(20)
async def test_a_process_that_ends_at_once_says_its_last_words(monkeypatch):
    monkeypatch.setattr(gateway_end, "_BOOT", "import sys; sys.exit('no such module')")
    config = parse_plant({"version": 1, "adapters": {"x": {"protocol": "sim"}}}, Path())
    with pytest.raises(NotConnected, match="ended with exit code 1: no such module"):
        await GatewayAdapter("x", config, SystemClock()).prepare(RecordingSink())


def test_a_gateway_is_made_of_a_whole_plant_file():
    with pytest.raises(PluginError, match="is made of a whole plant file"):
        GatewayAdapter.from_config("x", {}, {}, None)


def test_the_far_end_has_the_plants_clock():
    now_ns = SystemClock().now_ns()
    fast = _clock_of({"speed": 1000.0, "wall_ns": now_ns, "plant_ns": TS_NS})
    assert isinstance(fast, ScaledClock)
    assert 0 <= fast.now_ns() - TS_NS < 100 * NS * 1000
    assert isinstance(_clock_of({"speed": 1.0, "wall_ns": 0, "plant_ns": 0}), SystemClock)


async def test_one_that_does_not_end_cleanly_is_told_and_let_go_of(world, monkeypatch, caplog):
    async def fail(self):
        raise RuntimeError("it can't be stopped")

    await world.started()
    monkeypatch.setattr(Far, "stop", fail)
    await world.near.stop()
    await until(
        lambda: "did not stop cleanly: unexpected RuntimeError: it can't" in caplog.text, "it is told"
    )
    monkeypatch.undo()


async def test_one_that_never_ends_is_let_go_of(world, monkeypatch, caplog):
    async def never(self):
        await asyncio.Event().wait()

    monkeypatch.setattr(gateway, "_STOP_S", 0.05)
    monkeypatch.setattr(gateway_process, "_STOP_S", 0.05)
    await world.started()
    monkeypatch.setattr(Far, "stop", never)
    await world.near.stop()
    assert "did not stop cleanly: its gateway process has not answered 'stop' after 0.05 s" in caplog.text


async def test_one_that_can_not_tell_how_it_is_goes_on_all_the_same(world, monkeypatch, caplog):
    await world.started()

    def fail(self):
        raise RuntimeError("it does not know")

    with monkeypatch.context() as mute:
        mute.setattr(Far, "diagnostics", fail)
        await until(lambda: world.near.diagnostics().state is AdapterState.DEGRADED, "it is told")
        found, heard_ns = world.near.diagnostics(), world.near._taking.heard_ns
        assert found.reason == "it can't tell how it is: RuntimeError: it does not know"
        assert (found.name, found.n_sensors, found.devices[0].path) == ("x", 4, "s/a"), "as it was known last"
        await world.far.send()
        assert world.sink.n_samples == 4
        await until(lambda: world.near._taking.heard_ns > heard_ns + NS // 50, "it says so again and again")
    await until(lambda: world.near.diagnostics().n_samples == 4, "it is asked again")
    assert world.near.diagnostics().state is AdapterState.CONNECTED
    assert caplog.text.count("can't tell how it is") == 1
    assert world.pair.n_started == 1


async def test_one_that_does_not_know_from_the_start_how_it_is_starts_and_stops_all_the_same(
    world, monkeypatch
):
    monkeypatch.setattr(Far, "diagnostics", lambda self: refuse(RuntimeError("it does not know")))
    await world.started()
    found = world.near.diagnostics()
    assert (found.name, found.protocol, found.state) == ("x", "sim", AdapterState.DEGRADED)
    await world.far.send()
    await world.near.stop()
    assert world.sink.n_samples == 4


async def test_one_that_hangs_is_told_and_one_that_lives_says_so_again_and_again(world, monkeypatch):
    """However long its diagnostics take."""
    monkeypatch.setattr(gateway_process, "_REPORT_SHARE", 1e-9)
    monkeypatch.setattr(gateway_process, "ALIVE_S", 0.01)
    await world.started()
    first_ns = world.near._taking.heard_ns
    await until(lambda: world.near._taking.heard_ns > first_ns + NS // 20, "it says so")
    monkeypatch.setattr(gateway, "_QUIET_NS", 0)
    found = world.near.diagnostics()
    assert found.state is AdapterState.DEGRADED
    assert found.reason == "its gateway process has said nothing for 0 s"


async def test_one_that_hangs_is_killed_and_another_takes_its_place(world, monkeypatch, caplog):
    """What it has sent is taken first, however long that waits; what is not acknowledged its source sends again."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(gateway, "_LOOK_S", 0.01)
    await world.started()
    first = world.far
    world.sink.set_credit(False)
    waiting = asyncio.create_task(first.sink.emit(some_frames(world)))
    await until(lambda: world.near._taking._n_open == 1, "it is on its way")
    with monkeypatch.context() as hung:
        hung.setattr(gateway_process.GatewayService, "_report", lambda self: None)
        hung.setattr(gateway, "_HUNG_NS", NS // 50)
        world.near._task.cancel()
        world.near._task = asyncio.create_task(world.near._stay(world.sink))  # it looks by the shorter time
        await until(lambda: world.pair.n_killed == 1, "it is killed")
    assert world.pair.n_started == 1, "it is replaced when what it has sent is taken"
    with pytest.raises(Closed):
        await waiting
    world.sink.set_credit(True)
    await until(lambda: "is back" in caplog.text, "another one is started")
    assert world.far is not first
    assert world.sink.n_samples == 4
    assert world.near.diagnostics().n_killed == 1
    lines = [r.getMessage() for r in caplog.records if r.name == "headrace.gateway"]
    assert [("has said nothing for 0 s and was ended by SIGKILL" in line, "is back" in line) for line in lines] == [
        (True, False), (False, True),
    ]  # fmt: skip


async def test_one_that_hangs_again_and_again_is_started_later_each_time(world, monkeypatch):
    monkeypatch.setattr(gateway, "_LOOK_S", 0.0)
    monkeypatch.setattr(gateway, "_HUNG_NS", 0)
    waits = []
    monkeypatch.setattr(world.near, "_went_wrong", lambda state, why, wait_ns: waits.append(wait_ns))
    await world.near.start(world.sink)
    await until(lambda: len(waits) > 3, "it hangs")
    assert world.near._n_killed >= 3
    assert max(waits) > 2 * min(waits)


async def test_a_process_that_can_not_even_be_killed_is_let_go_of(world, monkeypatch):
    monkeypatch.setattr(gateway, "_LOOK_S", 0.0)
    monkeypatch.setattr(gateway, "_KILLED_S", 0.0)
    await world.started()
    monkeypatch.setattr(gateway, "_HUNG_NS", 0)
    world.near._taking.end.kill = lambda: None
    assert await world.near._until_lost(world.near._taking) == "has said nothing for 0 s and "


async def test_a_stop_that_is_given_up_leaves_no_process(world, monkeypatch):
    async def never(self):
        await asyncio.Event().wait()

    monkeypatch.setattr(gateway_process, "_STOP_S", 0.01)
    await world.started()
    link = world.pair._far
    monkeypatch.setattr(Far, "stop", never)
    stopping = asyncio.create_task(world.near.stop())
    await asyncio.sleep(0.02)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    assert link._writer.is_closing()


@pytest.mark.timeout(20)
async def test_the_end_of_a_process_is_seen_where_another_has_its_socket(monkeypatch):
    """As one that a library has forked, and that outlives it."""
    monkeypatch.setattr(gateway_end, "_BOOT", "import os, time; os.fork() or time.sleep(60); os._exit(3)")
    config = parse_plant({"version": 1, "adapters": {"x": {"protocol": "sim"}}}, Path())
    with pytest.raises(NotConnected, match="ended with exit code 3"):
        await GatewayAdapter("x", config, SystemClock()).prepare(RecordingSink())


async def test_a_message_that_is_too_long_is_nonsense_before_it_is_read(world, caplog):
    await world.started()
    world.pair._far._writer.write(gateway_link._HEAD.pack(2, 0, gateway_link.BYTES_MAX + 1, 1))
    await until(lambda: world.pair.n_started == 2, "it is started again")
    assert "sends nonsense" in caplog.text


async def test_frames_before_it_has_started_are_nonsense(world, caplog):
    await world.near.prepare(world.sink)
    world.pair._far.send(gateway_link.LinkKind.FRAMES, [b""], 1)
    await until(world.near._taking.is_lost.is_set, "it is seen")
    with pytest.raises(NotConnected, match="is gone"):
        await world.near.start(world.sink)
    assert "sends nonsense" in caplog.text


def test_what_libraries_say_is_not_told_but_warnings_are(monkeypatch):
    loggers = {
        name: logging.getLogger(name) for name in ("root", "headrace", "headrace.adapters.x", "pymodbus")
    }
    before = loggers["root"].level, loggers["root"].handlers[:], loggers["headrace"].level
    try:
        gateway_process.log_to(logging.NullHandler(), logging.INFO)
        assert loggers["headrace.adapters.x"].isEnabledFor(logging.INFO)
        assert not loggers["pymodbus"].isEnabledFor(logging.INFO)
        assert loggers["pymodbus"].isEnabledFor(logging.WARNING)
    finally:
        loggers["root"].level, loggers["root"].handlers[:], loggers["headrace"].level = before


# --- abilities -------------------------------------------------------------------------------------


async def test_it_can_what_the_far_end_can(world):
    await world.started()
    near = world.near
    assert [name for name in ALL if isinstance(near, getattr(abilities, name, Receiver))] == [
        name for name in ALL if name != "Redecodes"
    ]
    found = await near.probe({"unit": "1"}, SystemClock())
    assert found == {"protocol": "sim", "facts": [["now", True]], "wanted": {"unit": "1"}}
    with pytest.raises(Rejected, match="the device says no"):
        await near.probe({"error": ""}, SystemClock())
    assert await near.scan({}, SystemClock()) == [abilities.FoundTag("d", "t", "a:1", value=1.5)]
    assert await near.receive(Pushed(b"12345", parameters={"db": "x"})) == Receipt(5, reason="x")
    with pytest.raises(PartlyRejected, match="half of it") as told:
        await near.receive(Pushed(b"", key="partly"))
    assert told.value.receipt == Receipt(1, 1, "bad")
    with pytest.raises(Overloaded) as full:
        await near.receive(Pushed(b"", key="full"))
    assert full.value.wait_s == 4.0
    with pytest.raises(PluginError, match="adapters probe --capture decodes"):
        near.decode_captured([], None)


async def test_an_adapter_that_can_nothing_shows_nothing():
    world = World(HandFed)
    await world.near.prepare(world.sink)
    assert not [name for name in ALL if isinstance(world.near, getattr(abilities, name, Receiver))]
    await world.near.stop()


async def test_redecoding_is_done_by_the_code_that_runs(world):
    await world.started()
    reject = Reject(RejectCode.MALFORMED, "x", "s", "no", b"raw")
    assert isinstance(world.near, abilities.RedecodesElsewhere)
    batches, refused = await world.near.redecode_there(reject)
    assert world.sink.directory.paths[int(batches[0].slot[0])] == "s/a/again"
    assert refused == [reject]


async def test_what_is_redecoded_has_the_slots_of_who_did_it(world):
    """Also where that process ends with its answer."""
    await world.started()
    taking = world.near._taking
    ask = taking.call

    async def last_words(*given, **more):
        found = await ask(*given, **more)
        world.near._taking = None
        return found

    taking.call = last_words
    batches, _ = await world.near.redecode_there(Reject(RejectCode.MALFORMED, "x", "s", "no", b"raw"))
    taking.call, world.near._taking = ask, taking
    assert world.sink.directory.paths[int(batches[0].slot[0])] == "s/a/again"


async def test_who_changes_something_does_not_wait_for_ever(world, monkeypatch):
    async def never(self, new):
        await asyncio.Event().wait()

    monkeypatch.setattr(Far, "retag", never)
    monkeypatch.setattr(gateway, "_CHANGE_S", 0.02)
    await world.started()
    with pytest.raises(NotConnected, match=r"has not answered 'retag' after 0\.02 s"):
        await world.near.retag(world.pair.adapter())


async def test_bodies_for_a_process_that_reads_nothing_are_bounded(world, monkeypatch):
    monkeypatch.setattr(gateway_link, "UNSENT_BYTES_MAX", 1_000)
    await world.started()
    world.pair._far._reader._transport.pause_reading()
    first = asyncio.create_task(world.near.receive(Pushed(b"x" * 4_000_000, parameters={"db": "x"})))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="reads nothing"):
        await world.near.receive(Pushed(b"y", parameters={"db": "x"}))
    world.pair._far._reader._transport.resume_reading()
    assert (await first).n_samples == 4_000_000


async def test_other_tags_go_over_as_it_runs(world):
    await world.started()
    far, other = world.far, world.pair.adapter()
    assert await world.near.retag(other)
    (new,) = far.log
    assert isinstance(new, Far)
    assert world.near._config is other._config
    assert not await world.near.retag(world.pair.adapter("other"))


async def test_who_listens_and_who_waits_is_known_to_the_next_process(world):
    await world.started()
    heard = []
    world.near.listen(heard.append)
    world.near.suspend()
    await until(lambda: world.far.log == ["suspend"], "it waits")
    world.pair.die()
    await until(lambda: world.pair.n_started == 2 and world.pair.adapters, "it is started again")
    await until(lambda: world.far.log == ["suspend"], "it waits again")
    piece = abilities.Captured(7, "a topic", b"\x00\xff\n", abilities.Direction.SENT, {"qos": "1"})
    await until(lambda: world.far.listener is not None, "it is listened to")
    world.far.listener(piece)
    await until(lambda: bool(heard), "it is heard")
    assert heard == [piece]
    world.near.proceed()
    world.near.listen(None)
    await until(lambda: world.far.log == ["suspend", "proceed"], "it goes on")
    await until(lambda: world.far.listener is None, "nobody listens")


async def test_without_a_process_nothing_can_be_asked(world):
    near = world.pair.adapter(checked=Far())
    near.suspend()
    near.listen(None)
    with pytest.raises(NotConnected, match="has no gateway process now"):
        await near.probe({}, SystemClock())
    with pytest.raises(Closed, match="has no gateway process now"):
        await near.receive(Pushed(b""))
    assert not await near.retag(world.near)
    await world.started()
    asked = asyncio.create_task(world.near._taking.call("nothing", None))
    with pytest.raises(PluginError, match="_call_nothing"):
        await asked


async def test_a_question_ends_with_the_process(world, monkeypatch):
    async def never(self, wanted, clock):
        await asyncio.Event().wait()

    monkeypatch.setattr(Far, "probe", never)
    await world.started()
    taking = world.near._taking
    asked = asyncio.create_task(world.near.probe({}, SystemClock()))
    await asyncio.sleep(0.02)
    world.pair.die()
    with pytest.raises(NotConnected, match="is gone"):
        await asked
    with pytest.raises(NotConnected, match="is gone"):
        await taking.call("probe", {})


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("is wrong", "adapters.x"), NotConnected("away"), RetryLater("soon", 2.0), Overloaded("full", 3.0),
        PartlyRejected("half", Receipt(1, 2, "why", False)), Rejected("no"),
        InvalidConfig([Problem("a", "b"), Problem("c", "d")]),
    ],
)  # fmt: skip
def test_errors_are_the_same_at_both_ends(error):
    found = error_of(error_fields(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    for fact in ("wait_s", "where", "receipt", "problems"):
        assert getattr(found, fact, None) == getattr(error, fact, None)


async def test_log_lines_of_the_far_end_are_ours(world, caplog):
    await world.started()
    world.pair._far.control("log", name="headrace.adapters.sim", level=logging.WARNING, text="100 % lost")
    await until(lambda: "100 % lost" in caplog.text, "it is logged")
    assert caplog.records[0].name == "headrace.adapters.sim"
