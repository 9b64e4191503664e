"""When devices are polled, and what a device that fails costs the others: on a virtual clock."""

import asyncio
import logging
import struct

import numpy as np
import pytest

from headrace.adapters.abilities import Direction
from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.modbus import poller, reads
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.again import poll_text
from headrace.adapters.modbus.config import DevicePlan
from headrace.adapters.modbus.endpoints import parse_url
from headrace.adapters.modbus.poller import phase_ns
from headrace.adapters.modbus.transport import ModbusTransport, NotTrusted
from headrace.core.clock import NO_TIME, NS, VirtualClock
from headrace.core.errors import Closed, NotConnected
from headrace.core.problems import validate_section
from headrace.core.quality import Quality
from headrace.core.settings import SignalSettings
from headrace.testing.adapters import RecordingSink

PROFILE = {
    "t": SignalSettings(address="holding:0:F32"),
    "n": SignalSettings(address="input:9"),
    "on": SignalSettings(address="coil:0"),
}
HANG = object()
START_NS = 1_700_000_000 * NS


class Wire:
    """Takes the place of the network: answers by unit, on the virtual clock."""

    def __init__(self, clock):
        self.clock = clock
        self.answers = {}
        self.is_up = True
        self.takes_s = 0.0
        self.n_connects = 0
        self.missing = set()
        self.asked = []
        self.rests = []
        self.open = []

    async def connect(self, endpoint, timeout_s, on_lost):
        self.n_connects += 1
        if not self.is_up:
            raise NotConnected(f"no connection to {endpoint}: Connection refused")
        one = FakeTransport(self, endpoint, on_lost)
        self.open.append(one)
        return one

    def n_asked(self, unit, function=3):
        return sum(u == unit and f == function for _, u, f in self.asked)


class FakeTransport:
    cpu_ns, n_bytes = 5, 7

    def __init__(self, wire, endpoint, on_lost):
        self.wire, self.endpoint, self.on_lost = wire, endpoint, on_lost

    async def request(self, unit, pdu, timeout_s):
        function, start, count = struct.unpack(">BHH", pdu)
        self.wire.asked.append((self.wire.clock.now_ns(), unit, function))
        await self.wire.clock.sleep(self.wire.takes_s)
        answer = self.wire.answers.get(unit, {}).get(function)
        if answer is HANG:
            await self.wire.clock.sleep(timeout_s)
            raise TimeoutError
        if answer == "lost":
            self.on_lost("closed by the device")
            raise NotConnected("closed by the device")
        if answer is not None:
            return answer
        if self.wire.missing & set(range(start, start + count)):
            return bytes([function | 0x80, 2])
        size = (count + 7) // 8 if function < 3 else 2 * count
        return bytes([function, size]) + bytes(range(2 * start, 2 * start + size))

    def rest(self, duration_s):
        self.wire.rests.append(duration_s)

    def close(self):
        if self in self.wire.open:
            self.wire.open.remove(self)


class Scene:
    """An adapter on a virtual clock with devices behind one port, and others behind their own."""

    def __init__(self, monkeypatch, urls, profile=PROFILE, **config):
        self.clock = VirtualClock(START_NS)
        self.wire = Wire(self.clock)
        self.sink = RecordingSink(self.clock)
        monkeypatch.setattr(ModbusTransport, "connect", self.wire.connect)
        devices = {f"leon/l1/d{i}": url for i, url in enumerate(urls)}
        config = {"profile": "p", "devices": devices, **config}
        settings = validate_section(ModbusAdapter.Config, config, "adapters.x")
        self.adapter = ModbusAdapter.from_config("x", settings, {"p": profile}, PlantFacts())

    async def __aenter__(self):
        await self.adapter.start(self.sink)
        return self

    async def __aexit__(self, *error):
        await self.adapter.stop()

    async def run(self, seconds, step_s=0.01):
        for _ in range(round(seconds / step_s)):
            await settle()
            self.clock.advance(step_s)
        await settle()

    def device(self, number):
        return self.adapter.diagnostics().devices[number]


async def settle():
    for _ in range(12):
        await asyncio.sleep(0)


def one_port(n, timeout="1s"):
    return [f"modbus+tcp://h:1?unit={i + 1}&timeout={timeout}" for i in range(n)]


async def gathered(scene):
    """What was polled, after the slice in which answers are gathered (which is real time)."""
    await asyncio.sleep(0.03)
    return scene.sink.batches


async def test_polls_keep_their_grid_and_give_frames(monkeypatch):
    async with Scene(monkeypatch, one_port(3)) as scene:
        await scene.run(10)
        batches = await gathered(scene)
        assert [scene.wire.n_asked(unit) for unit in (1, 2, 3)] == [10, 10, 10]
        times = np.array([t for t, unit, f in scene.wire.asked if unit == 1 and f == 1])
        np.testing.assert_allclose(np.diff(times), NS, atol=0.11 * NS)
        assert {b.dtype for b in batches} == {"f32", "u16", "u8"}
        assert sum(b.n_samples for b in batches) == 90
        assert [b.sequence for b in batches] == list(range(len(batches)))
        for batch in batches:
            assert (batch.ts_ns % 1_000_000 == 0).all(), "whole milliseconds"
            assert batch.quality is None
        found = scene.adapter.diagnostics()
        assert (found.state, found.reason, found.n_samples, found.n_frames) == (
            AdapterState.CONNECTED,
            "",
            90,
            90,
        )
        assert found.transport_ns == 5
        assert scene.device(0).n_requests == 30
        assert scene.device(0).next_retry_ns == NO_TIME
        assert START_NS < scene.device(0).last_good_ns <= scene.clock.now_ns()
        assert sum(scene.wire.rests) == pytest.approx(10, abs=1.1), "connections know of all that they rest"


async def test_before_the_first_poll_an_adapter_is_starting(monkeypatch):
    async with Scene(monkeypatch, one_port(2), interval="1h") as scene:
        assert scene.adapter.diagnostics().state is AdapterState.STARTING
        await scene.run(4_000, 10)
        assert scene.adapter.diagnostics().state is AdapterState.CONNECTED


def test_phases_are_bunched_and_spread():
    plans = [DevicePlan(f"leon/d{i}", parse_url("modbus+tcp://h"), NS, None) for i in range(1_000)]
    phases_ms = np.array([phase_ns(p) for p in plans]) / 1e6
    assert set((phases_ms // 100).astype(int)) == set(range(10)), "ten moments of the interval"
    assert (phases_ms % 100 <= 10).all(), "with some jitter"
    assert np.bincount((phases_ms // 100).astype(int)).min() > 50


@pytest.mark.parametrize(
    ("apart_ms", "interval", "is_together"), [(0.9, "1s", True), (1.1, "1s", False), (0.9, "5ms", False)]
)
async def test_devices_that_are_due_within_a_millisecond_are_polled_together(
    monkeypatch, apart_ms, interval, is_together
):
    moments = {"leon/l1/d0": 5_000_000, "leon/l1/d1": 5_000_000 + round(apart_ms * 1e6)}
    monkeypatch.setattr(poller, "phase_ns", lambda plan: moments[plan.path])
    async with Scene(monkeypatch, one_port(2), interval=interval, max_requests_per_s=1e10) as scene:
        await scene.run(0.008, 0.0001)
        times = {unit: at - START_NS for at, unit, _ in reversed(scene.wire.asked)}
        assert times[1] == 5_000_000
        assert (times[2] - times[1] < 100_000) is is_together
        await scene.run(3, 0.01)
        assert [scene.device(i).n_polls_skipped + scene.device(i).n_polls for i in (0, 1)] == (
            [4, 4] if interval == "1s" else [601, 601]
        )


async def test_a_poll_that_takes_too_long_makes_others_skip_and_count(monkeypatch):
    async with Scene(monkeypatch, one_port(1), interval="1s") as scene:
        scene.wire.takes_s = 0.8  # three requests a poll
        await scene.run(12)
        assert scene.wire.n_asked(1) in (3, 4)
        assert scene.device(0).n_polls_skipped in (6, 7, 8)


async def test_requests_are_capped(monkeypatch):
    async with Scene(monkeypatch, one_port(4), interval="100ms", max_requests_per_s=10.0) as scene:
        await scene.run(10)
        assert 95 <= len(scene.wire.asked) <= 101
        assert sum(scene.device(i).n_polls_skipped for i in range(4)) > 300


async def test_without_credit_polls_are_skipped_and_counted(monkeypatch):
    async with Scene(monkeypatch, one_port(1)) as scene:
        scene.sink.set_credit(False)
        await scene.run(5)
        assert not scene.wire.asked
        assert scene.device(0).n_polls_skipped == 5
        scene.sink.set_credit(True)
        await scene.run(2)
        assert scene.wire.n_asked(1) == 2


async def test_a_device_that_hangs_costs_the_others_next_to_nothing(monkeypatch, caplog):
    async with Scene(monkeypatch, one_port(3, "200ms"), interval="1s") as scene:
        scene.wire.answers[2] = {1: HANG}
        with caplog.at_level(logging.INFO, "headrace.adapters.modbus"):
            await scene.run(100)
            assert scene.wire.n_asked(1) >= 95
            assert scene.wire.n_asked(3) >= 95
            hung = scene.device(1)
            assert hung.state is AdapterState.BACKOFF
            assert hung.reason == "no answer within 0.2 s"
            assert 2 <= hung.n_timeouts <= 12
            assert hung.n_polls_skipped >= 80
            assert hung.next_retry_ns > scene.clock.now_ns()
            assert scene.adapter.diagnostics().state is AdapterState.DEGRADED
            assert scene.wire.n_connects == 1
            scene.wire.answers.clear()
            await scene.run(60)
        assert scene.device(1).state is AdapterState.CONNECTED
        assert [r.getMessage().partition(" ")[2] for r in caplog.records] == [
            "device=leon/l1/d1 lost: no answer within 0.2 s", "device=leon/l1/d1 is back",
        ]  # fmt: skip


async def test_many_that_hang_together_get_a_tenth_of_the_time(monkeypatch):
    async with Scene(monkeypatch, one_port(6, "500ms"), interval="1s", reconnect_most="1s") as scene:
        scene.wire.answers.update({unit: {1: HANG} for unit in (2, 3, 4, 5, 6)})
        await scene.run(20)  # all are suspects by then
        before = scene.wire.n_asked(1), sum(scene.device(i).n_timeouts for i in range(1, 6))
        await scene.run(200, 0.02)
        spent_s = (sum(scene.device(i).n_timeouts for i in range(1, 6)) - before[1]) * 0.5
        assert 10 < spent_s <= 22
        assert scene.wire.n_asked(1) - before[0] >= 185


async def test_a_connection_on_which_nobody_answers_is_made_anew(monkeypatch):
    async with Scene(monkeypatch, one_port(1, "200ms")) as scene:
        await scene.run(2)
        scene.wire.answers[1] = {1: HANG}
        await scene.run(30)
        assert scene.wire.n_connects >= 2
        assert (
            "3 requests were not answered" in scene.device(0).reason or "no answer" in scene.device(0).reason
        )
        scene.wire.answers.clear()
        await scene.run(60)
        assert scene.device(0).state is AdapterState.CONNECTED


async def test_a_lost_connection_waits_longer_and_longer_and_tells_it_once(monkeypatch, caplog):
    async with Scene(monkeypatch, one_port(2), reconnect_first="1s", reconnect_most="8s") as scene:
        with caplog.at_level(logging.INFO, "headrace.adapters.modbus"):
            await scene.run(3)
            scene.wire.is_up = False
            scene.wire.answers[1] = {3: "lost"}
            await scene.run(60)
            assert 7 <= scene.wire.n_connects <= 20
            assert scene.adapter.diagnostics().state is AdapterState.BACKOFF
            assert scene.adapter.diagnostics().reason.endswith("Connection refused (and 1 more of 2 devices)")
            assert scene.device(0).next_retry_ns >= scene.clock.now_ns() - NS
            assert scene.device(0).n_errors == 1
            scene.wire.is_up = True
            scene.wire.answers.clear()
            await scene.run(20)
        assert [r.getMessage() for r in caplog.records] == [
            "adapter=x device=h:1 (2 devices) lost: closed by the device; retrying until it answers",
            "adapter=x device=h:1 is back",
        ]
        assert scene.adapter.diagnostics().state is AdapterState.CONNECTED
        assert scene.device(1).n_polls_skipped > 40


async def test_a_dead_port_is_no_matter_for_another(monkeypatch):
    async with Scene(monkeypatch, ["modbus+tcp://dead:1", "modbus+tcp://alive:1"]) as scene:
        whole = scene.wire.connect

        async def connect(endpoint, timeout_s, on_lost):
            if endpoint.host == "dead":
                await scene.clock.sleep(3.0)
                raise NotConnected("no route")
            return await whole(endpoint, timeout_s, on_lost)

        monkeypatch.setattr(ModbusTransport, "connect", connect)
        await scene.run(30)
        assert scene.device(0).state is AdapterState.BACKOFF
        assert scene.device(1).n_requests == 90
        assert scene.device(1).n_polls_skipped == 0


async def test_an_exception_marks_the_values_of_its_block(monkeypatch, caplog):
    async with Scene(monkeypatch, one_port(1)) as scene:
        scene.wire.answers[1] = {3: b"\x83\x02"}
        with caplog.at_level(logging.INFO, "headrace.adapters.modbus"):
            await scene.run(3)
        batches = {b.dtype: b for b in await gathered(scene)}
        assert (batches["f32"].quality == Quality.BAD_DEVICE).all()
        assert (batches["f32"].values == 0).all()
        assert batches["u16"].quality is None
        assert batches["u8"].quality is None
        found = scene.device(0)
        assert found.state is AdapterState.DEGRADED
        assert found.reason == "exception 2 (illegal data address) reading holding:0..1"
        assert found.n_errors == 1, "it is not asked again for a while"
        assert found.problems == (("t", "exception 2 (illegal data address)"),)
        assert found.last_good_ns > START_NS
        assert len(caplog.records) == 1
        scene.wire.answers[1] = {f: bytes([f | 0x80, 99]) for f in (1, 3, 4)}
        before = found.last_good_ns
        await scene.run(2)
        assert scene.device(0).reason == "exception 99 (unknown code) reading coil:0..0"
        assert scene.device(0).last_good_ns == before
        scene.wire.answers.clear()
        await scene.run(62, 0.05)
        assert scene.device(0).state is AdapterState.CONNECTED


async def test_a_calibration_makes_a_new_layout_at_its_date(monkeypatch):
    written = {
        "address": "holding:0;scale=0.1", "scale": 2, "dead_band": 1,
        "calibration": [{"from": "2023-11-14T22:13:25Z", "scale": 1.5, "add": -1}],
    }  # fmt: skip
    profile = {"t": validate_section(SignalSettings, written, "t"), "on": SignalSettings(address="coil:0")}
    async with Scene(monkeypatch, one_port(2), profile=profile) as scene:
        await scene.run(10)
        batches = await gathered(scene)
    directory, found = scene.sink.directory, {}
    for batch in batches:
        for frame, slot in enumerate(batch.slot.tolist()):
            column = directory.layout(slot).columns[0]
            grid = column.name, column.scale, column.offset
            found.setdefault(grid, []).append(int(batch.ts_ns[frame]))
            if column.name == "t":
                assert directory.dead_bands[slot].change.tolist() == pytest.approx([1 / column.scale])
    at_ns = START_NS + 5 * NS
    before, after, other = found["t", 0.2, 0.0], found["t", 0.3, -1.0], found["on", 1.0, 0.0]
    assert len(before) == len(after) == 10
    assert max(before) < at_ns <= min(after)
    assert len(other) == 20
    assert directory.n_sensors == 4, "sensors stay what they are"
    late = Scene(monkeypatch, one_port(1), profile=profile)
    late.clock.advance(60.0)
    async with late:
        await late.run(1)
    assert late.sink.directory.layout(0).columns[0].scale == 0.3


async def test_refused_tls_is_a_state_of_its_own(monkeypatch):
    async with Scene(monkeypatch, one_port(1)) as scene:

        async def connect(endpoint, timeout_s, on_lost):
            raise NotTrusted("its certificate is not trusted")

        monkeypatch.setattr(ModbusTransport, "connect", connect)
        await scene.run(2)
        assert scene.device(0).state is AdapterState.FAILED
        assert scene.device(0).next_retry_ns > START_NS


async def test_what_is_refused_is_looked_for_without_a_word_until_it_is_found(monkeypatch, caplog):
    profile = {f"r{i}": SignalSettings(address=f"holding:{i}") for i in range(8)}
    async with Scene(monkeypatch, one_port(1), profile=profile) as scene:
        scene.wire.missing = {3, 6}
        with caplog.at_level(logging.INFO, "headrace.adapters.modbus"):
            await scene.run(1)
            assert scene.device(0).reason == "looking for what it refuses of holding:0..7"
            assert scene.device(0).problems == tuple(
                (f"r{i}", "exception 2 (illegal data address)") for i in range(8)
            )
            await scene.run(5)
            assert scene.device(0).problems == tuple(
                (f"r{i}", "exception 2 (illegal data address)") for i in (3, 6)
            )
            n_errors = scene.device(0).n_errors
            await scene.run(4)
            assert scene.device(0).n_errors == n_errors
            scene.wire.missing = {3}
            await scene.run(250, 0.1)
            assert [name for name, _ in scene.device(0).problems] == ["r3"]
            scene.wire.missing = set()
            await scene.run(130, 0.1)
            assert scene.device(0).problems == ()
            assert scene.device(0).state is AdapterState.CONNECTED
    assert [r.getMessage().partition(" ")[2] for r in caplog.records] == [
        "device=leon/l1/d0 exception 2 (illegal data address) reading holding:3..3 (and 1 more)",
        "device=leon/l1/d0 exception 2 (illegal data address) reading holding:3..3",
        "device=leon/l1/d0 gives all its values again",
    ]  # fmt: skip
    batches = await gathered(scene)
    last = batches[-1]
    assert last.quality is None
    assert last.values[-1].tolist() == [(2 * i << 8) + 2 * i + 1 for i in range(8)]


async def test_a_gateway_without_its_device_is_no_answer(monkeypatch):
    async with Scene(monkeypatch, one_port(2)) as scene:
        scene.wire.answers[2] = {1: b"\x81\x0b"}
        await scene.run(20)
        assert scene.device(1).state is AdapterState.BACKOFF
        assert scene.device(1).reason == "exception 11 (gateway target failed to respond)"
        assert scene.device(1).n_timeouts == 0
        assert scene.device(0).n_requests == 60
        assert all(
            path == "leon/l1/d0"
            for b in await gathered(scene)
            for path in [scene.sink.directory.paths[s] for s in b.slot]
        )


@pytest.mark.parametrize(
    "answer",
    [
        b"\x01\x02\x00\x00",
        b"\x01",
        b"\x01\x01",
        b"\x01\x02\x00",
        b"\x02\x01\x00",
        b"\x81\x02\x00",
        b"\x83\x02",
    ],
    ids=["size", "nothing", "short", "count", "function", "long exception", "exception of another"],
)
async def test_an_answer_that_does_not_fit_is_a_reject(monkeypatch, answer):
    async with Scene(monkeypatch, one_port(1)) as scene:
        scene.wire.answers[1] = {1: answer}
        await scene.run(2)
        await gathered(scene)
        first = scene.sink.rejects[0]
        assert (first.code, first.source, first.n_samples, first.raw) == (
            "malformed",
            "leon/l1/d0",
            3,
            poll_text([(b"\x01\x00\x00\x00\x01", answer)]),
        )
        assert "expected function 1 with 1 data bytes for coil:0..0" in first.detail
        assert scene.adapter.diagnostics().n_rejects == 2
        assert scene.device(0).state is AdapterState.DEGRADED
        assert not scene.sink.batches


class SetClock(VirtualClock):
    """A wall clock that someone sets: what sleeps goes on to sleep for the same time."""

    offset_ns = 0

    def now_ns(self):
        return super().now_ns() + self.offset_ns

    async def sleep(self, seconds):
        self.offset_ns, kept = 0, self.offset_ns
        sleeping = asyncio.ensure_future(super().sleep(seconds))
        await asyncio.sleep(0)
        self.offset_ns = kept
        await sleeping


@pytest.mark.parametrize("step_s", [-86_400, 3_600])
async def test_a_clock_that_is_set_does_not_stop_the_polls(monkeypatch, step_s):
    scene = Scene(monkeypatch, one_port(2))
    scene.clock = scene.wire.clock = scene.sink.clock = SetClock(START_NS)
    async with scene:
        await scene.run(5)
        polls = scene.wire.n_asked(1)
        scene.clock.offset_ns = step_s * NS
        await scene.run(5)
        assert scene.wire.n_asked(1) - polls in (4, 5, 6)


async def test_a_clock_that_is_set_back_while_a_device_is_asked_does_not_stop_the_polls(monkeypatch):
    scene = Scene(monkeypatch, one_port(2))
    scene.clock = scene.wire.clock = scene.sink.clock = SetClock(START_NS)
    async with scene:
        scene.wire.takes_s = 0.05
        await scene.run(5)
        asking = scene.wire.n_asked(1)
        while scene.wire.n_asked(1) == asking:
            await scene.run(0.01)
        scene.clock.offset_ns = -9_000 * 86_400 * NS
        polls = scene.wire.n_asked(1)
        await scene.run(5)
        assert scene.wire.n_asked(1) - polls >= 4


async def test_who_stops_listening_does_not_hear_the_answer_that_is_on_its_way(monkeypatch):
    heard = []
    async with Scene(monkeypatch, one_port(1)) as scene:

        def once(captured):
            heard.append(captured.direction)
            scene.adapter.listen(None)

        scene.adapter.listen(once)
        await scene.run(2)
        assert scene.wire.n_asked(1) == 2
    assert heard == [Direction.SENT]


async def test_a_defect_in_one_poll_does_not_end_the_others(monkeypatch, caplog):
    async with Scene(monkeypatch, one_port(1)) as scene:
        await scene.run(2)
        monkeypatch.setattr(scene.sink, "has_credit", lambda n: 1 / 0)
        with caplog.at_level(logging.ERROR):
            await scene.run(2)
        assert "internal error: ZeroDivisionError" in scene.device(0).reason
        monkeypatch.undo()
        monkeypatch.setattr(ModbusTransport, "connect", scene.wire.connect)
        await scene.run(60)
        assert scene.device(0).state is AdapterState.CONNECTED


async def test_a_sink_that_refuses_is_told_once_and_forgotten_when_it_takes_again(monkeypatch, caplog):
    async with Scene(monkeypatch, one_port(1)) as scene:
        scene.sink.refusal = Closed("the journal is closed")
        for _ in range(3):
            await scene.run(1)
            await gathered(scene)
        found = scene.adapter.diagnostics()
        assert (found.state, found.reason) == (
            AdapterState.DEGRADED,
            "polls are dropped: the journal is closed",
        )
        assert len([r for r in caplog.records if "polls are dropped" in r.getMessage()]) == 1
        scene.sink.refusal = None
        await scene.run(1)
        await gathered(scene)
        assert scene.adapter.diagnostics().state is AdapterState.CONNECTED
        scene.sink.refusal = RuntimeError()
        await scene.run(1)
        await gathered(scene)
        assert scene.adapter.diagnostics().reason == "polls are dropped: RuntimeError()"


async def test_what_the_sink_refuses_of_one_device_type_leaves_the_others(monkeypatch):
    scene = Scene(monkeypatch, one_port(1))
    emit = scene.sink.emit

    async def picky(batch, ack=None):
        if batch.dtype == "f32":
            raise Closed("not this one")
        await emit(batch, ack)

    monkeypatch.setattr(scene.sink, "emit", picky)
    async with scene:
        scene.wire.answers[1] = {4: b"\x04\x01\x00"}
        await scene.run(1)
        await gathered(scene)
        assert len(scene.sink.rejects) == 1
        scene.wire.answers.clear()
        await scene.run(1)
        await gathered(scene)
        assert scene.adapter.diagnostics().reason == "polls are dropped: not this one"


async def test_stop_hands_on_what_was_gathered(monkeypatch):
    scene = Scene(monkeypatch, one_port(1))
    async with scene:
        await scene.run(1)
    assert scene.sink.n_samples == 3
    assert not scene.wire.open
    assert scene.adapter.diagnostics().state is AdapterState.STOPPED


def test_exceptions_have_names():
    assert reads.exception_text(6) == "exception 6 (device busy)"
