"""One look at the plant for all pages, and none while no page is open."""

import asyncio

import pytest

from headrace.api.control import EngineRefused
from headrace.api.web.pulse import Pulse
from headrace.core.clock import VirtualClock
from headrace.core.errors import Unreachable

STATUS = {
    "adapters": [{"name": "a", "state": "connected"}, {"name": "b", "state": "backoff"}],
    "rate": {"samples_per_s": 5.0},
    "sensors": 3,
}


class FakeControl:
    """The engine's control port, which knows no list of rejects."""

    async def json(self, path):
        raise EngineRefused(404, {"detail": "no such route"}, None)

    async def get(self, path):
        class Answer:
            text = 'headrace_samples_rejected_total{adapter="a",code="malformed"} 7\n'

        return Answer()


class FakeBackend:
    """A plant whose engine may be away."""

    def __init__(self):
        self.clock, self.control = VirtualClock(5), FakeControl()
        self.is_away, self.n_asked, self.devices_of = False, 0, []

    async def status(self):
        self.n_asked += 1
        if self.is_away:
            raise Unreachable("the engine does not answer")
        return STATUS

    async def adapter(self, name):
        self.devices_of.append(name)
        return {"devices": []}

    async def reader(self):
        raise Unreachable("the store is not there yet")


async def test_a_look_asks_after_adapters_in_trouble_only():
    backend = FakeBackend()
    sight = await Pulse(backend).look()
    assert backend.devices_of == ["b"]
    assert (sight.n_sensors, sight.rates, sight.tiers, sight.now_ns) == (3, (5.0,), None, 5)
    assert sight.rejects["counts"] == [{"adapter": "a", "code": "malformed", "samples": 7}]


async def test_an_engine_that_is_away_is_a_finding():
    backend = FakeBackend()
    pulse = Pulse(backend)
    await pulse.look()
    backend.is_away = True
    sight = await pulse.look()
    assert (sight.status, sight.away) == (None, "the engine does not answer")
    assert [one["name"] for one in sight.adapters] == ["a", "b"]


async def test_it_looks_while_somebody_watches():
    backend, seen = FakeBackend(), asyncio.Queue()
    pulse = Pulse(backend)
    pulse.watch(seen.put_nowait)
    pulse.watch(seen.put_nowait)
    await asyncio.wait_for(seen.get(), 5)
    assert await asyncio.wait_for(seen.get(), 5) is pulse.newest
    assert backend.n_asked == 1
    late = []
    pulse.watch(late.append)
    assert late == [pulse.newest]
    for watcher in (seen.put_nowait, seen.put_nowait, late.append, late.append):
        pulse.leave(watcher)
    assert pulse._task is None


@pytest.mark.parametrize("n_steps", range(4))
async def test_it_ends_although_the_engine_answers_at_that_moment(n_steps):
    """One that took no notice would look on for ever."""
    backend, asked, answer = FakeBackend(), asyncio.Event(), asyncio.Event()

    async def status():
        asked.set()
        await answer.wait()
        return STATUS

    backend.status = status
    pulse = Pulse(backend)
    pulse.watch(lambda sight: None)
    task = pulse._task
    await asked.wait()
    await asyncio.sleep(0)
    answer.set()
    for _ in range(n_steps):
        await asyncio.sleep(0)
    pulse.leave(pulse._watchers[0])
    await asyncio.wait([task], timeout=1)
    is_over = task.cancelled()
    task.cancel()
    assert is_over
