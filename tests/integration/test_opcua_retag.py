"""Other devices and tags for an OPC UA adapter that runs: what stays the same notices nothing."""

import asyncio
import itertools

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from tests.integration.opcua_life import Life, adapter_of, latest, samples

from headrace.adapters.abilities import Retags
from headrace.adapters.base import AdapterState
from headrace.adapters.broker.simulator import free_port
from headrace.adapters.opcua import subscribing
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.scanner import warm_scanner
from headrace.adapters.opcua.simulator import OpcuaSimulator
from headrace.core.errors import ConfigError, NotConnected, Rejected
from headrace.core.layouts import Column, Layout
from headrace.core.settings import SignalSettings
from headrace.testing.adapters import until

# Two servers for all: to make one takes a second.
pytestmark = pytest.mark.asyncio(loop_scope="module")
MS = 1_000_000
MODES = pytest.mark.parametrize("mode", ["subscribe", "read"])


@pytest.fixture(scope="module")
def made():
    warm_scanner()
    return [OpcuaSimulator(free_port()) for _ in range(2)]


@pytest_asyncio.fixture(loop_scope="module")
async def plants(made, monkeypatch):
    monkeypatch.setattr(subscribing, "KEEP_ALIVE_NS", 100 * MS)
    for one in made:
        await one.start()
        for name in ("n", "a", "b", "c"):
            await one.set(name, 0.5)
    yield made
    for one in made:
        one.max_per_call = 0
        await one.stop()


class Counting:
    """Writes 1, 2, 3, ... to a variable, so that a value that was lost or came twice shows."""

    def __init__(self, plant, name="n"):
        self.plant, self.name, self.n = plant, name, 0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *error):
        self._task.cancel()

    async def _count(self):
        for self.n in itertools.count(1):
            await self.plant.write(self.name, float(self.n))
            await asyncio.sleep(0.004)


def series(sink, path):
    return [value for one, _, value, _ in samples(sink) if one == path]


def is_whole(values):
    return values == list(map(float, range(int(values[0]), int(values[0]) + len(values))))


async def some_more(life, n_more=3):
    n = len(series(life.sink, "l/d/n"))
    await until(lambda: len(series(life.sink, "l/d/n")) > n + n_more, "it is read")


async def through(life, adapters):
    """One change of tags after the other, some values before and after each."""
    for one in adapters:
        await some_more(life)
        assert await life.adapter.retag(one)
    await some_more(life)


def items_of(plant):
    """Numbers of monitored items by node."""
    found = plant._server.iserver.subscription_service.subscriptions.values()
    return {
        (one.read_value_id.NodeId.Identifier, sub.data.RevisedPublishingInterval): one.monitored_item_id
        for sub in found for one in sub.monitored_item_srv._monitored_items.values()
    }  # fmt: skip


@MODES
async def test_tags_and_devices_come_change_and_go_and_the_others_notice_nothing(plants, mode):
    one, two = plants

    def make(signals, *devices):
        urls = {"l/d": one.url(), "l/e": two.url(), "l/s": {"url": one.url(), "interval": "50ms"}}
        return adapter_of(one, signals, {path: urls[path] for path in devices}, mode=mode, queue_size=1_000)

    async with Life(make({"n": None, "a": None}, "l/d")) as life, Counting(one) as counting:
        assert isinstance(life.adapter, Retags)
        await until(lambda: len(series(life.sink, "l/d/n")) > 5, "it is read")
        before = items_of(one)
        for signals, devices in (
            ({"b": None, "n": None, "a": None, "odd": "ns=2;s=none"}, ("l/d",)),
            ({"c": None, "n": SignalSettings(address=one.address("n"), unit="bar")}, ("l/e", "l/d")),
            ({"n": None, "c": None, "lost": "nsu=http://nobody.example/;i=1"}, ("l/s", "l/d", "l/e")),
            ({"n": None}, ("l/d", "l/s")),
        ):  # fmt: skip
            assert await life.adapter.retag(make(signals, *devices))
            wanted = {f"{d}/{s}" for d in devices for s in signals if s not in ("odd", "lost")}
            await until(lambda wanted=wanted: set(latest(life.sink)) >= wanted, f"{wanted} are read")
            assert {d.path for d in life.adapter.diagnostics().devices} == set(devices)
            bad = {"odd", "lost"} & set(signals)
            await until(lambda bad=bad: bool(bad) == bool(life.reason), "troubles are told, and forgotten")
            n = counting.n
            await until(lambda n=n: latest(life.sink)["l/d/n"][0] > n, "counting goes on")
        if mode == "subscribe":
            found = items_of(one)
            assert {key: found[key] for key in found if key in before} == {("n", 20.0): before["n", 20.0]}
            assert set(found) == {("n", 20.0), ("n", 50.0)}, "what is not read any more is let go"
            assert is_whole(series(life.sink, "l/d/n")), "nothing of it was lost or came twice"
        assert series(life.sink, "l/d/n") == sorted(set(series(life.sink, "l/d/n")))
        assert life.adapter.diagnostics().n_connects == 2
        assert not items_of(two), "a server that nobody is left at is let go"
        assert life.adapter.diagnostics().n_sensors == 2


@MODES
async def test_a_device_of_another_interval_begins_where_it_was(plants, mode):
    one = plants[0]

    def make(interval, **more):
        devices = {"l/d": {"url": one.url(), "interval": interval}, "l/e": one.url()}
        return adapter_of(one, {"n": None}, devices, mode=mode, queue_size=1_000, **more)

    async with Life(make("20ms")) as life, Counting(one):
        await through(life, map(make, ("40ms", "30ms", "20ms")))
        if mode == "subscribe":
            assert is_whole(series(life.sink, "l/d/n")), "nothing was lost or came twice"
            assert is_whole(series(life.sink, "l/e/n"))
            assert len(one._server.iserver.subscription_service.subscriptions) == 1
        assert life.adapter.diagnostics().n_connects == 1


async def test_what_the_old_item_has_told_the_new_one_does_not_tell_again(plants, monkeypatch):
    """The old one goes on telling while the new one, of a longer interval, waits for its first turn."""
    one = plants[0]
    staged = OpcuaAdapter._staged

    def make(interval):
        devices = {"l/d": {"url": one.url(), "interval": interval}}
        return adapter_of(one, {"n": None}, devices, queue_size=1_000)

    async with Life(make("20ms")) as life, Counting(one):

        async def slow(*args):
            await staged(*args)
            await some_more(life, 10)

        monkeypatch.setattr(OpcuaAdapter, "_staged", slow)
        await through(life, map(make, ("500ms", "20ms", "300ms")))
        assert is_whole(series(life.sink, "l/d/n")), "nothing was lost or came twice"
        assert life.adapter.diagnostics().n_duplicates, "what came twice is counted"


async def test_what_has_nothing_to_tell_is_not_waited_for(plants, monkeypatch):
    one = plants[0]
    monkeypatch.setattr(subscribing, "KEEP_ALIVE_NS", 60_000 * MS)

    def make(interval):
        return adapter_of(one, {"a": None}, {"l/d": {"url": one.url(), "interval": interval}})

    async with Life(make("20ms")) as life:
        await life.value("l/d/a", 0.5)
        assert await life.adapter.retag(make("40ms"))
        await one.write("a", 7.0)
        await life.value("l/d/a", 7.0)


async def test_a_change_that_is_given_up_before_the_answer_leaves_nothing_behind(plants, monkeypatch):
    one, asked, goes_on = plants[0], asyncio.Event(), asyncio.Event()
    create = subscribing.Subscribing._create

    async def slow(self, *args):
        found = await create(self, *args)
        asked.set()
        await goes_on.wait()
        return found

    async with Life(adapter_of(one, {"n": None}, {"l/d": one.url()})) as life:
        await life.value("l/d/n", 0.5)
        monkeypatch.setattr(subscribing.Subscribing, "_create", slow)
        change = asyncio.ensure_future(life.adapter.retag(adapter_of(one, {"n": None, "a": None})))
        await asked.wait()
        assert one.n_items == 2
        change.cancel()
        asyncio.get_running_loop().call_soon(goes_on.set)
        await asyncio.gather(change, return_exceptions=True)
        assert one.n_items == 1
        assert life.adapter.diagnostics().n_connects == 1, "nor was the connection made anew"


async def test_a_dead_band_is_changed_at_the_item_that_is_there(plants):
    one = plants[0]
    await one.write("a", 0.0)
    async with Life(adapter_of(one, {"a": None, "gone": None}, dead_band={"gone": 1.0})) as life:
        await life.value("l/d/a", 0.0)
        before = items_of(one)
        for band, passes in ((2.0, False), (0.2, True), (None, True)):
            bands = {} if band is None else {"a": band, "gone": band}
            assert await life.adapter.retag(adapter_of(one, {"a": None, "gone": None}, dead_band=bands))
            await one.write("a", 1.0)
            await one.write("a", 5.0)
            await life.value("l/d/a", 5.0)
            await one.write("a", 4.5)
            if passes:
                await life.value("l/d/a", 4.5)
            await one.write("a", 0.0)
            await life.value("l/d/a", 0.0)
            assert (4.5 in series(life.sink, "l/d/a")) == passes
        assert items_of(one) == before


@MODES
async def test_what_is_on_its_way_meanwhile_is_not_lost(plants, mode):
    """Two tables in short turn, with more variables than one request may have."""
    one = plants[0]
    names = [f"m{i}" for i in range(30)]
    for name in names:
        await one.set(name, 1.0)
    one.max_per_call = 7
    first = {"n": None} | dict.fromkeys(names)
    second = dict.fromkeys(reversed(names[5:])) | {"n": None, "a": None}

    def make(signals):
        return adapter_of(one, signals, mode=mode, queue_size=1_000, verify="30ms")

    heard = []
    async with Life(make(first)) as life, Counting(one):
        life.adapter.listen(heard.append)
        for signals in (second, first, second):
            await until(lambda: len(series(life.sink, "l/d/n")) > 4, "it is read")
            assert await life.adapter.retag(make(signals))
        await one.write("m9", 7.0)
        await life.value("l/d/m9", 7.0)
        await life.value("l/d/a", 0.5)
        assert len(latest(life.sink)) == len(first | second)
        if mode == "subscribe":
            assert is_whole(series(life.sink, "l/d/n"))
        assert not life.sink.rejects
        assert life.reason == ""
        mark = life.adapter._running.feed.ear.mark
    batches, rejects = make(second).decode_captured(
        [c for c in heard if c.about["variables"] == mark], life.sink.directory
    )
    assert not rejects
    assert 7.0 in {float(v) for b in batches for v in b.values.reshape(-1)}, "as it was captured"


@pytest.mark.parametrize("what", ["create_monitored_items", "modify_monitored_items", "create_subscription"])
async def test_a_server_that_refuses_leaves_all_as_it_was(plants, what, monkeypatch):
    one, two = plants
    bands = {"a": 0.1}

    def make(signals, dead_band=None, **more):
        urls = {"l/d": {"url": one.url(), **more}, "l/e": two.url()}
        return adapter_of(one, signals, urls, dead_band=dead_band or bands, queue_size=1_000)

    async with Life(make({"n": None, "a": None})) as life, Counting(one), Counting(two):
        await until(lambda: series(life.sink, "l/d/n") and series(life.sink, "l/e/n"), "both are read")
        before = items_of(one), items_of(two)
        service, calls = one._server.iserver.subscription_service, []
        refuse = getattr(service, what)

        async def refused(*args, **named):
            calls.append(args)
            if len(calls) == 1 or what != "modify_monitored_items":
                raise ServiceError(ua.StatusCodes.BadOutOfMemory)
            return refuse(*args, **named)

        monkeypatch.setattr(service, what, refused if what != "modify_monitored_items" else _Awaited(refused))
        more = {"interval": "70ms"} if what == "create_subscription" else {}
        wider = make({"n": None, "a": None, "b": None, "c": None}, {"a": 3.0}, **more)
        with pytest.raises(Rejected, match="with BadOutOfMemory"):
            await life.adapter.retag(wider)
        monkeypatch.undo()
        assert (items_of(one), items_of(two)) == before
        n = [len(series(life.sink, f"l/{d}/n")) for d in "de"]
        await until(
            lambda: all(len(series(life.sink, f"l/{d}/n")) > k + 3 for d, k in zip("de", n, strict=True)),
            "on",
        )
        assert life.state is AdapterState.CONNECTED
        assert set(latest(life.sink)) == {"l/d/n", "l/d/a", "l/e/n", "l/e/a"}
        assert await life.adapter.retag(wider)
        await until(lambda: len(latest(life.sink)) == 8, "the second time it takes it")
        assert is_whole(series(life.sink, "l/e/n"))
        assert life.adapter.diagnostics().n_connects == 2


async def test_a_sensor_of_another_group_leaves_all_as_it_was(plants):
    one = plants[0]
    async with Life(adapter_of(one, {"n": None})) as life, Counting(one):
        await until(lambda: series(life.sink, "l/d/n"), "it is read")
        before = items_of(one)
        life.sink.directory.define("l/d", Layout("f64", (Column("b"),)), "another")
        with pytest.raises(ConfigError, match="is defined twice"):
            await life.adapter.retag(adapter_of(one, {"n": None, "b": None}, types={"b": "f64"}))
        assert items_of(one) == before
        n = len(series(life.sink, "l/d/n"))
        await until(lambda: len(series(life.sink, "l/d/n")) > n + 3, "all goes on")
        assert is_whole(series(life.sink, "l/d/n"))


async def test_servers_that_are_away_or_silent(plants):
    one, two = plants
    devices = {"l/d": one.url(timeout="200ms"), "l/e": two.url(timeout="300ms")}

    def make(signals, **more):
        return adapter_of(one, signals, devices, **more)

    await two.stop()
    async with Life(make({"n": None})) as life:
        await life.value("l/d/n", 0.5)
        await until(lambda: life.adapter.diagnostics().devices[1].reason, "the other is away")
        assert await life.adapter.retag(make({"n": None, "a": None}))
        await life.value("l/d/a", 0.5)
        await two.start()
        await life.value("l/e/a", 0.5)
        two.hang()
        with pytest.raises(NotConnected, match="did not answer within 0.3 s"):
            await life.adapter.retag(make({"n": None, "a": None, "b": None}))
        two.resume()
        await until(lambda: life.state is AdapterState.CONNECTED, "it is back")
        assert "l/d/b" not in latest(life.sink), "one that is silent holds the others back, too"
        two.hang()
        given_up = asyncio.ensure_future(life.adapter.retag(make({"n": None, "a": None, "b": None})))
        await until(lambda: given_up.done() or plants[0].n_items == 3, "one has what is new")
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert plants[0].n_items == 2, "nothing of it stays"
        two.resume()
        await until(lambda: life.state is AdapterState.CONNECTED, "it is back")
        cut = asyncio.ensure_future(life.adapter.retag(make({"n": None, "c": None})))
        await asyncio.sleep(0)
        two.drop()
        assert await cut
        await life.value("l/e/c", 0.5)
        await life.value("l/d/c", 0.5)


async def test_what_is_not_only_tags_is_left_to_a_new_instance(plants):
    one = plants[0]
    async with Life(adapter_of(one, {"n": None})) as life:
        await life.value("l/d/n", 0.5)
        assert not await life.adapter.retag(adapter_of(one, {"n": None}, queue_size=3))
        other = adapter_of(one, {"n": None})
        assert not await other.retag(other)
    assert not await life.adapter.retag(other)


@MODES
async def test_a_plant_that_stops_meanwhile_has_the_last_word(plants, mode):
    one = plants[0]
    adapter = adapter_of(one, {"n": None}, mode=mode)
    async with Life(adapter) as life:
        await life.value("l/d/n", 0.5)
        retagging = asyncio.ensure_future(adapter.retag(adapter_of(one, {"n": None, "a": None}, mode=mode)))
        await asyncio.sleep(0)
        await adapter.stop()
        assert await retagging
        assert adapter.diagnostics().state is AdapterState.STOPPED
        assert adapter.diagnostics().n_sensors in (1, 2)


class _Awaited:
    """A service function that is not awaited, of one that is."""

    def __init__(self, ask):
        self._ask = ask

    def __call__(self, *args):
        coroutine = self._ask(*args)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError
