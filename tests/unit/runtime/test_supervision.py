"""Adapters of a running plant: paused, resumed, replaced, added, removed, each by itself."""

import asyncio
import json

import pytest

from headrace.adapters.abilities import Captured
from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics
from headrace.core.clock import VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import Closed, ConfigError, HeadraceError, NotFound, StorageError
from headrace.runtime.operations import Operations
from headrace.runtime.supervision import PAUSES_FILE, Pause, Pauses, Supervisor
from headrace.testing.adapters import RecordingSink


class Stub:
    """An adapter that notes what happens to it."""

    def __init__(self, name, log, error=None, n_samples=0):
        self.name, self.log, self.error, self.n_samples = name, log, error, n_samples
        self.state = AdapterState.STARTING

    async def start(self, sink):
        self.log.append(f"start {self.name}")
        if self.error:
            raise self.error
        self.state, self.sink = AdapterState.CONNECTED, sink

    async def stop(self):
        if self.state is not AdapterState.STOPPED:
            self.log.append(f"stop {self.name}")
        self.state = AdapterState.STOPPED

    def diagnostics(self):
        device = DeviceDiagnostics("a/d", self.state, "why", 7, n_requests=2, n_polls_skipped=1)
        return AdapterDiagnostics(
            "x", "stub", self.state, devices=(device,), n_samples=self.n_samples, n_frames=1, n_rejects=1
        )


class Waiting(Stub):
    """One that waits in place."""

    def suspend(self):
        self.log.append("suspend")

    def proceed(self):
        self.log.append("proceed")


class Fixture:
    def __init__(self, folder):
        self.disk, self.clock = LocalDisk(folder), VirtualClock(1_000)
        self.log, self.told = [], []

    def supervisor(self, **adapters):
        return Supervisor(adapters, self.disk, self.clock, lambda *event: self.told.append(event))

    async def started(self, **adapters):
        one = self.supervisor(**adapters)
        await one.start(RecordingSink())
        self.log.clear()
        return one

    def stub(self, name="x", **rest):
        return Stub(name, self.log, **rest)


@pytest.fixture
def world(tmp_path):
    return Fixture(tmp_path / "store")


async def test_a_pause_lets_go_of_the_source_and_says_who_and_why(world):
    one = await world.started(x=world.stub(n_samples=5))
    await one.pause("x", "ann@hall", "valve is changed")
    assert world.log == ["stop x"]
    (found,) = one.diagnostics()
    assert (found.state, found.reason) == (AdapterState.PAUSED, "paused by ann@hall: valve is changed")
    assert (found.since_ns, found.devices[0].state, found.n_samples) == (1_000, AdapterState.PAUSED, 5)
    world.clock.advance(5)
    await one.pause("x", "", "still")
    assert one.diagnostics()[0].reason == "paused: still"
    assert one.diagnostics()[0].since_ns == 1_000
    await one.resume("x", "ann", lambda: world.stub("y", n_samples=3))
    (found,) = one.diagnostics()
    assert (found.state, found.n_samples, found.devices[0].n_requests) == (AdapterState.CONNECTED, 8, 4)
    await one.resume("x", "ann", lambda: pytest.fail("it is not paused"))
    assert world.log == ["stop x", "start y"]
    assert [kind for kind, *_ in world.told] == [
        "adapter.started", "adapter.paused", "adapter.paused", "adapter.resumed",
    ]  # fmt: skip


async def test_a_pause_outlives_a_restart_and_ends_with_the_adapter(world):
    await (await world.started(x=world.stub(), y=world.stub("y"))).pause("x", "ann", "repair")
    again = await world.started(x=world.stub("x2"), y=world.stub("y2"))
    assert again.get("x").state is AdapterState.STARTING
    assert again.pause_of("x").reason == "repair"
    assert [d.state for d in again.diagnostics()] == [AdapterState.PAUSED, AdapterState.CONNECTED]
    await again.remove("x")
    assert json.loads((world.disk.root / PAUSES_FILE).read_text()) == {}
    assert again.names == ["y"]


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"x": 3}', '{"x": {"who": 1}}'])
def test_a_list_of_pauses_that_is_none_counts_as_empty(world, text):
    world.disk.replace(PAUSES_FILE, text.encode())
    pauses = Pauses(world.disk)
    pauses.load()
    assert pauses.get("x") is None


async def test_an_adapter_that_waits_in_place_is_not_stopped(world):
    one = await world.started(x=Waiting("x", world.log))
    await one.pause("x", "ann")
    await one.resume("x", "ann", lambda: pytest.fail("no new instance"))
    assert world.log == ["suspend", "proceed"]
    await one.pause("x", "ann")
    await one.replace("x", lambda: Waiting("x2", world.log), lambda: pytest.fail("it does start"))
    assert world.log[3:] == ["stop x"]
    await one.resume("x", "ann", lambda: Waiting("x3", world.log))
    assert world.log[4:] == ["start x3"]


async def test_a_disk_that_refuses_changes_nothing(world, monkeypatch):
    one = await world.started(x=world.stub())

    def refuse(*_):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.disk, "replace", refuse)
        with pytest.raises(StorageError):
            await one.pause("x", "ann")
        assert one.diagnostics()[0].state is AdapterState.CONNECTED
    await one.pause("x", "ann")
    monkeypatch.setattr(world.disk, "replace", refuse)
    with pytest.raises(StorageError):
        await one.resume("x", "ann", lambda: world.stub("y"))
    assert world.log == ["stop x", "start y", "stop y"]
    assert one.diagnostics()[0].state is AdapterState.PAUSED


async def test_a_replacement_starts_after_the_old_one_has_drained(world):
    one = await world.started(x=world.stub(n_samples=4))
    sink = one.get("x").sink
    tap = one.tap("x")
    await one.replace("x", lambda: world.stub("x2", n_samples=2), lambda: pytest.fail("it does start"))
    assert world.log == ["stop x", "start x2"]
    assert one.diagnostics()[0].n_samples == 6
    assert one.get("x").sink is sink
    assert sink.taps == [tap]


async def test_a_replacement_that_cannot_be_made_leaves_the_old_one_alone(world):
    one = await world.started(x=world.stub())

    def broken():
        raise ConfigError("no profile 'oven'", "adapters.x.profile")

    with pytest.raises(ConfigError, match="no profile"):
        await one.replace("x", broken, broken)
    assert world.log == []


async def test_a_replacement_that_does_not_start_gives_way_to_one_like_the_old(world):
    one = await world.started(x=world.stub(n_samples=4))
    taken = ConfigError("sensor a/b belongs to another")
    with pytest.raises(ConfigError, match="belongs to another"):
        await one.replace("x", lambda: world.stub("x2", error=taken), lambda: world.stub("x3", n_samples=1))
    assert world.log == ["stop x", "start x2", "stop x2", "start x3"]
    assert one.diagnostics()[0].state is AdapterState.CONNECTED
    assert one.diagnostics()[0].n_samples == 5


async def test_resuming_with_what_cannot_be_made_or_started_stays_paused(world):
    one = await world.started(x=world.stub())
    await one.pause("x", "ann")
    with pytest.raises(ConfigError):
        await one.resume("x", "ann", lambda: world.stub("y", error=ConfigError("taken")))
    assert one.pause_of("x") is not None
    assert Pauses(world.disk).get("x") is None  # not loaded yet
    assert (await world.started(x=world.stub())).pause_of("x") is not None


async def test_adding_and_removing(world):
    one = await world.started(x=world.stub())
    await one.add("y", world.stub("y"))
    assert one.names == ["x", "y"]
    with pytest.raises(ConfigError, match="already"):
        await one.add("y", world.stub("z"))
    with pytest.raises(ConfigError, match="taken"):
        await one.add("z", world.stub("z", error=ConfigError("taken")))
    tap = one.tap("x")
    await one.remove("x")
    assert await tap.read(1, 1) is None
    one.untap("x", tap)
    assert one.names == ["y"]
    assert world.log == ["start y", "start z", "stop z", "stop x"]
    with pytest.raises(NotFound, match="no adapter 'x'; known: y"):
        await one.pause("x", "ann")


async def test_an_adapter_can_come_back_paused(world):
    one = await world.started(x=world.stub())
    await one.pause("x", "ann", "repair")
    pause = one.pause_of("x")
    await one.remove("x")
    await one.add("x", world.stub("x2"), pause)
    assert one.diagnostics()[0].reason == "paused by ann: repair"
    assert world.log == ["stop x"]
    assert (await world.started(x=world.stub())).pause_of("x") == pause


async def test_changes_of_one_adapter_take_turns(world):
    one = await world.started(x=world.stub())
    await asyncio.gather(
        one.pause("x", "ann"), one.resume("x", "bob", lambda: world.stub("y")), one.pause("x", "cid")
    )
    assert world.log == ["stop x", "start y", "stop y"]
    assert one.pause_of("x").by == "cid"


async def test_nothing_is_changed_while_the_plant_stops(world):
    one = await world.started(x=world.stub())
    tap = one.tap("x")
    await one.stop(1.0)
    assert await tap.read(1, 1) is None
    for change in (
        one.pause("x", "ann"), one.remove("x"), one.add("y", world.stub()),
        one.replace("x", world.stub, world.stub), one.resume("x", "ann", world.stub),
    ):  # fmt: skip
        with pytest.raises(Closed):
            await change


async def test_what_does_not_stop_in_time_is_told(world):
    class Stuck(Stub):
        async def stop(self):
            await asyncio.Event().wait()

    class Broken(Stub):
        async def stop(self):
            raise ValueError("no")

    one = await world.started(y=Broken("y", world.log), x=Stuck("x", world.log))
    await one.stop(0.01)
    assert world.told[-2][:2] == ("adapter.stopped", "adapter y did not stop cleanly: ValueError('no')")
    assert world.told[-1][:2] == ("adapter.stopped", "adapter x did not stop cleanly: it took too long")
    await (await world.started()).stop(1.0)


async def test_before_it_starts_adapters_can_be_looked_at(world):
    one = world.supervisor(x=world.stub())
    assert one.get("x").name == "x"
    assert one.names == ["x"]
    assert one.diagnostics()[0].state is AdapterState.STARTING


async def test_taps_are_bounded(world):
    one = await world.started(x=world.stub())
    some = [one.tap("x") for _ in range(16)]
    with pytest.raises(HeadraceError, match="16 others look"):
        one.tap("x")
    one.untap("x", some[0])
    one.tap("x")


class Turning(Stub):
    """One that goes over to other tags as it runs, where it is told that it can."""

    can = True

    async def retag(self, new):
        self.log.append(f"retag {self.name} as {new.name}")
        return self.can


async def test_an_adapter_that_can_goes_over_to_other_tags_as_it_runs(world):
    one = await world.started(x=Turning("x", world.log))
    old = one.get("x")
    await one.change("x", lambda: Turning("y", world.log), lambda: pytest.fail("it does start"))
    assert (one.get("x"), world.log) == (old, ["retag x as y"])
    old.can = False
    await one.change("x", lambda: Turning("z", world.log), lambda: pytest.fail("it does start"))
    assert world.log[1:] == ["retag x as z", "stop x", "start z"]
    assert one.get("x") is not old
    await one.pause("x", "ann")
    await one.change("x", lambda: Turning("w", world.log), lambda: pytest.fail("it is not started"))
    assert world.log[4:] == ["stop z"], "a paused one has nothing that runs"
    assert one.get("x").name == "w"
    assert [kind for kind, *_ in world.told][1:] == [
        "adapter.retagged", "adapter.reloaded", "adapter.paused", "adapter.reloaded",
    ]  # fmt: skip


# --- captures ------------------------------------------------------------------------------------------


class Heard(Stub):
    """One that can be listened to while it runs."""

    listener = None

    def listen(self, listener):
        self.listener = listener

    def decode_captured(self, captured, directory):
        return [], []


def operations(world, one):
    return Operations(one, None, None, None, world.clock)


async def test_a_capture_goes_on_over_instances_and_ends_with_the_adapter(world):
    first, second = (Heard("x", world.log) for _ in range(2))
    one = await world.started(x=first)
    documents = operations(world, one).capture("x")
    assert (await anext(documents))["adapter"] == "x"
    await one.replace("x", lambda: second, lambda: first)
    second.listener(Captured(5, "d", b"\x01"))
    assert (await anext(documents))["ts_ns"] == 5
    third = Heard("x", world.log)
    await one.pause("x", "ann")
    await one.resume("x", "ann", lambda: third)
    third.listener(Captured(6, "d", b"\x01"))
    assert (await anext(documents))["ts_ns"] == 6
    third.listener(Captured(7, "d", b"\x01"))
    await one.remove("x")
    assert [found["ts_ns"] async for found in documents] == [7]


async def test_an_adapter_is_captured_by_one(world):
    one = await world.started(x=Heard("x", world.log), y=world.stub("y"))
    asked = operations(world, one)
    first, second = asked.capture("x"), asked.capture("x")  # neither has begun
    await anext(first)
    with pytest.raises(HeadraceError, match="is being captured already"):
        await anext(second)
    with pytest.raises(HeadraceError, match="is being captured already"):
        asked.capture("x")
    assert one.get("x").listener is not None, "the other capture goes on"
    await first.aclose()
    assert one.get("x").listener is None
    await anext(asked.capture("x"))
    with pytest.raises(HeadraceError, match="can't be captured"):
        asked.capture("y")
    with pytest.raises(NotFound):
        asked.capture("z")


class Slow(Stub):
    """One that has to get ready."""

    def __init__(self, name, log, refuses=None, **rest):
        super().__init__(name, log, **rest)
        self.refuses = refuses

    async def prepare(self, sink):
        self.log.append(f"prepare {self.name}")
        if self.refuses:
            raise self.refuses


async def test_a_replacement_gets_ready_before_the_old_one_is_stopped(world):
    one = await world.started(x=world.stub())
    await one.replace("x", lambda: Slow("y", world.log), world.stub)
    assert world.log == ["prepare y", "stop x", "start y"]


async def test_one_that_does_not_get_ready_leaves_the_old_one_alone(world):
    old = world.stub()
    one = await world.started(x=old)
    refusing = Slow("y", world.log, ConfigError("its code can't be loaded"))
    with pytest.raises(ConfigError, match="can't be loaded"):
        await one.replace("x", lambda: refusing, world.stub)
    assert world.log == ["prepare y", "stop y"]
    assert one.get("x") is old
    with pytest.raises(ConfigError, match="can't be loaded"):
        await one.add("z", Slow("z", world.log, ConfigError("its code can't be loaded")))
    assert one.names == ["x"]


async def test_one_that_gets_ready_while_it_is_paused_is_let_go_of_again(world):
    """Resuming makes another one, and nobody would stop the first."""
    one = await world.started(x=world.stub())
    await one.pause("x", "ann")
    await one.replace("x", lambda: Slow("y", world.log), world.stub)
    assert world.log == ["stop x", "prepare y", "stop y"]
    world.log.clear()
    await one.resume("x", "ann", lambda: Slow("z", world.log))
    assert world.log == ["prepare z", "start z"]
    await one.add("w", Slow("w", world.log), Pause("ann", 5))
    assert world.log[2:] == []


async def test_one_that_gets_ready_while_the_plant_ends_is_not_started(world):
    old = world.stub()
    one = await world.started(x=old)
    late = Slow("y", world.log)

    async def prepare(sink):
        await one.stop(1.0)

    late.prepare = prepare
    with pytest.raises(Closed, match="is stopping"):
        await one.replace("x", lambda: late, world.stub)
    assert world.log == ["stop x", "stop y"]
    assert one.get("x") is old


async def test_nothing_is_started_where_the_plant_ends_while_the_old_one_stops(world):
    old = world.stub()
    one = await world.started(x=old)
    stop = old.stop

    async def stop_all():
        old.stop = stop
        await one.stop(1.0)

    old.stop = stop_all
    await one.replace("x", lambda: Stub("y", world.log), world.stub)
    assert "start y" not in world.log


async def test_an_adapter_goes_over_to_tags_of_its_own_kind_only(world):
    """In a process of its own, or in the engine: that is another kind."""
    one = await world.started(x=Turning("x", world.log))
    await one.change("x", lambda: Slow("y", world.log), world.stub)
    assert world.log == ["prepare y", "stop x", "start y"]
