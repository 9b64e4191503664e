"""The HTTP adapter: what clients are told, and when."""

import asyncio
import logging

import pytest

from headrace.adapters.base import AdapterState, PlantFacts, Pushed, Receiver
from headrace.adapters.http import adapter as module
from headrace.adapters.http.adapter import HttpAdapter
from headrace.adapters.http.formats import precision_of
from headrace.adapters.http.simulator import LineMachines, PushAnswer, PushingClient
from headrace.core.clock import NO_TIME, VirtualClock
from headrace.core.errors import Closed, ConfigError, NotConnected, Overloaded, PluginError, Rejected
from headrace.core.problems import InvalidConfig, validate_section

LINE = b"m,host=h v=1.5 1700000000000000000\n"
NDJSON = "application/x-ndjson"


def make(levels=(), **config):
    settings = validate_section(HttpAdapter.Config, {"protocol": "http", **config}, "adapters.push")
    return HttpAdapter.from_config("push", settings, {}, PlantFacts(levels, "Europe/Madrid"))


def pushed(body=LINE, kind="", key="", **parameters):
    return Pushed(body, kind, parameters, key, 7)


async def settle(n=20):
    for _ in range(n):
        await asyncio.sleep(0)


async def test_a_body_is_answered_when_it_is_durable(running, sink):
    assert isinstance(running, Receiver)
    assert running.diagnostics().reason == "nothing was pushed yet; clients POST to /api/v2/write?bucket=push"
    sink.is_durable = False
    answer = asyncio.ensure_future(running.receive(pushed(LINE + b"m v=1i\n" + b"bad\n")))
    await settle()
    assert not answer.done()
    assert running.diagnostics().state is AdapterState.STARTING
    sink.land()
    with pytest.raises(Rejected, match="^1 refused, the rest is stored; the first: line 3: expected a blank"):
        await answer
    found = running.diagnostics()
    assert (found.state, found.reason, found.n_samples, found.n_frames, found.n_rejects) == (
        "connected",
        "",
        2,
        2,
        1,
    )
    assert (found.n_sensors, found.devices[0].n_requests, found.devices[0].path) == (2, 1, "clients")
    assert found.latency_s_p50 > 0
    assert found.decode_ns > 0
    assert found.devices[0].last_good_ns > 0
    assert found.n_bytes > 20
    assert {batch.arrival_ns for batch in sink.batches} == {7}


async def test_a_body_that_nobody_gave_an_arrival_arrives_now(running, sink):
    sink.clock = VirtualClock(1_800_000_000_000_000_000)
    await running.receive(Pushed(b"m v=1"))
    assert [batch.arrival_ns for batch in sink.batches] == [1_800_000_000_000_000_000]


async def test_nothing_of_a_body_without_anything_good_is_stored(running, sink):
    with pytest.raises(Rejected, match="1 refused, nothing is stored; the first: line 1: expected a blank"):
        await running.receive(pushed(b"bad"))
    await running.receive(pushed(b""))
    await running.receive(pushed(b"# nothing\n"))
    assert not sink.batches


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (NDJSON, b'{"device": "a/b", "v": 1}\n\n{"path": "a/b/v", "value": 2}\n'), ("application/json; charset=utf-8", b'[{"device": "a/b", "v": 1}, {"device": "a/b", "v": 2}]'),
        ("text/plain; charset=utf-8", b"b,host=a v=1\nb,host=a v=2"), ("application/x-www-form-urlencoded", b"b,host=a v=1\nb,host=a v=2"),
    ],
)  # fmt: skip
async def test_content_types(running, sink, kind, body):
    await running.receive(pushed(body, kind))
    assert [value for batch in sink.batches for value in batch.values.reshape(-1).tolist()] == [1.0, 2.0]


async def test_json_lines_of_many_slices_are_numbered(running, sink, monkeypatch):
    monkeypatch.setattr("headrace.adapters.http.formats.SLICE_BYTES", 40)
    body = b'{"device": "a/b", "v": 1}\n' * 10 + b"bad\n" + b'{"device": "a/b", "v": 1}\n' * 3 + b"bad"
    with pytest.raises(Rejected, match="2 refused, the rest is stored; the first: line 11: not JSON"):
        await running.receive(pushed(body, NDJSON))
    assert [reject.source for reject in sink.rejects] == [
        "line 11 of JSON, precision=auto", "line 15 of JSON, precision=auto",
    ]  # fmt: skip
    assert sum(batch.n_samples for batch in sink.batches) == 13


@pytest.mark.parametrize(
    ("precision", "factor"), [("", 1), ("ns", 1), ("u", 1_000), ("us", 1_000), ("ms", 10**6), ("s", 10**9), ("h", 3_600 * 10**9)]
)  # fmt: skip
async def test_precision_of_line_protocol(running, sink, precision, factor):
    await running.receive(pushed(b"m v=1 3", precision=precision))
    assert sink.batches[0].ts_ns.tolist() == [3 * factor]


async def test_precision_of_json(running, sink):
    for precision, ts in (("", 1_700_000_000_500), ("s", 1_700_000_000.5), ("n", 1_700_000_000_500_000_000)):
        await running.receive(
            pushed(b'{"device": "a/b", "v": 1, "ts": %s}' % str(ts).encode(), NDJSON, precision=precision)
        )
    assert [batch.ts_ns.tolist() for batch in sink.batches] == [[1_700_000_000_500_000_000]] * 3


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (pushed(kind="image/png"), "malformed", "content type 'image/png' is not known; send text/plain"),
        (pushed(precision="day"), "malformed", "precision 'day' is not known; it is one of ns, us, ms, s, m, h"),
        (pushed(b"{}", NDJSON, precision="m"), "malformed", "is for line protocol"),
        (pushed(b" " * 1_000_001, "application/json"), "malformed", "send an object a line"),
        (pushed(b"m v=1\n" * 400_000), "too-large", "2,400,000 bytes, expected at most 2,000,000; send it in parts"),
    ],
)  # fmt: skip
async def test_requests_that_can_not_be_read_are_rejects(sink, request_, code, text):
    adapter = make(max_body="2MB")
    await adapter.start(sink)
    with pytest.raises(Rejected, match=text):
        await adapter.receive(request_)
    (reject,) = sink.rejects
    assert (reject.code, reject.source, reject.adapter, reject.raw) == (
        code,
        "request",
        "push",
        request_.body[: 1 << 20],
    )
    await adapter.stop()


async def test_a_decoder_that_fails_is_a_reject_of_ours(running, sink, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(running._running.decoder._lines, "decode", fail)
    with pytest.raises(Rejected, match="decoder failed: RuntimeError"):
        await running.receive(pushed())
    assert (sink.rejects[0].code, sink.rejects[0].raw) == ("internal", LINE)
    assert "a decoder failed" in caplog.text


async def test_frames_that_do_not_fit_are_a_reject_of_ours(running, sink, monkeypatch):
    async def refuse(batch, ack=None):
        raise PluginError("they do not fit")

    monkeypatch.setattr(sink, "emit", refuse)
    with pytest.raises(
        Rejected, match="1 refused, nothing is stored; the first: its frames were refused: they do not fit"
    ):
        await running.receive(pushed())
    assert [(reject.code, reject.n_samples) for reject in sink.rejects] == [("internal", 1)]


# --- overload ----------------------------------------------------------------------------------------


async def test_no_credit_is_told_at_once(running, sink):
    sink.set_credit(False)
    with pytest.raises(Overloaded, match="at present; send it again") as caught:
        await running.receive(pushed())
    assert caught.value.wait_s == 1.0
    assert running.diagnostics().devices[0].n_polls_skipped == 1


async def test_bodies_on_their_way_are_bounded(sink):
    adapter = make(max_waiting="50B")
    sink.is_durable = False
    await adapter.start(sink)
    large = asyncio.ensure_future(adapter.receive(pushed(LINE * 3)))  # larger than the bound: alone it may
    await settle()
    with pytest.raises(Overloaded):
        await adapter.receive(pushed())
    sink.land()
    await large
    sink.is_durable = True
    await adapter.receive(pushed())
    await adapter.stop()


async def test_a_client_is_not_kept_for_ever(sink):
    adapter = make(answer_within="10ms")
    sink.is_durable = False
    await adapter.start(sink)
    for _ in range(2):
        with pytest.raises(Overloaded, match="not taken all of it yet"):
            await adapter.receive(pushed(key="k"))
    sink.land()
    await settle()
    await adapter.receive(pushed(key="k"))
    assert (len(sink.batches), adapter.diagnostics().n_duplicates) == (1, 2)
    await adapter.stop()


# --- idempotency keys --------------------------------------------------------------------------------


async def test_a_key_that_comes_again_gets_the_same_answer(running, sink):
    for _ in range(2):
        with pytest.raises(Rejected, match="1 refused, the rest is stored"):
            await running.receive(pushed(LINE + b"bad", key="k"))
    assert len(sink.batches) == len(sink.rejects) == 1
    with pytest.raises(Rejected, match="idempotency key 'k' came with another body before"):
        await running.receive(pushed(LINE, key="k"))


async def test_a_key_under_way_is_waited_for(running, sink):
    sink.is_durable = False
    answers = [asyncio.ensure_future(running.receive(pushed(key="k"))) for _ in range(3)]
    await settle()
    sink.land()
    await asyncio.gather(*answers)
    assert len(sink.batches) == 1


async def test_old_keys_are_forgotten(sink):
    adapter = make(remembered_keys=2)
    await adapter.start(sink)
    for key in ("a", "b", "c", "c", "b", "a", ""):
        await adapter.receive(pushed(key=key))
    assert len(sink.batches) == 5
    assert len(adapter._keys) == 2
    await adapter.stop()


async def test_no_keys_are_remembered_where_none_shall_be(sink):
    adapter = make(remembered_keys=0)
    await adapter.start(sink)
    for _ in range(2):
        await adapter.receive(pushed(key="a"))
    assert len(sink.batches) == 2
    await adapter.stop()


async def test_what_was_not_taken_may_come_again_with_its_key(running, sink, caplog):
    caplog.set_level(logging.INFO, "headrace.adapters.http")
    sink.refusal = Closed("the journal is closed")
    for _ in range(2):
        with pytest.raises(Closed, match="the journal is closed"):
            await running.receive(pushed(key="k"))
    found = running.diagnostics()
    assert (found.state, found.reason) == (AdapterState.DEGRADED, "the journal is closed")
    sink.refusal = None
    await running.receive(pushed(key="k"))
    assert running.diagnostics().state is AdapterState.CONNECTED
    assert len(sink.batches) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "adapter=push can't take what is pushed: the journal is closed", "adapter=push takes what is pushed again",
    ]  # fmt: skip


# --- life --------------------------------------------------------------------------------------------


async def test_stop_waits_a_moment_for_what_is_under_way(running, sink, monkeypatch):
    sink.is_durable = False
    answer = asyncio.ensure_future(running.receive(pushed()))
    await settle()
    asyncio.get_running_loop().call_later(0.01, sink.land)
    await running.stop()
    await answer
    assert running.diagnostics().state is AdapterState.STOPPED
    with pytest.raises(Closed, match="adapter push does not run"):
        await running.receive(pushed())


async def test_stop_gives_up_what_does_not_land(running, sink, monkeypatch):
    monkeypatch.setattr(module, "_FLUSH_S", 0.01)
    sink.is_durable = False
    answer = asyncio.ensure_future(running.receive(pushed()))
    await settle()
    await running.stop()
    with pytest.raises(Closed, match="was stopped; send it again"):
        await answer
    sink.land()  # it lands after all: nobody is there to be told


async def test_a_client_that_hangs_up_does_not_leave_half_a_body(running, sink, monkeypatch):
    monkeypatch.setattr("headrace.adapters.payloads.line_decoder.SLICE_BYTES", 40)
    sink.is_durable = False
    answer = asyncio.ensure_future(running.receive(pushed(LINE * 20)))
    await settle(3)
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)
    await settle(80)
    assert sink.n_samples == 20
    sink.land()


async def test_paths_that_can_be_none():
    assert make(("a", "b", "c")).diagnostics().since_ns == NO_TIME
    with pytest.raises(
        ConfigError, match=r"adapters.push.path: path '\{measurement\}/\{field\}' has 2 levels"
    ):
        make(("a", "b", "c"), path="{measurement}/{field}")
    with pytest.raises(InvalidConfig, match="max_bodie"):
        make(max_bodie="1MB")


def test_precisions_are_checked():
    assert precision_of(pushed(precision="ms")) == "ms"


# --- the simulator -----------------------------------------------------------------------------------


async def test_a_client_tries_until_it_is_answered_for_good():
    answers = [
        PushAnswer(429, "", 0.5),
        NotConnected("no answer"),
        PushAnswer(503),
        PushAnswer(204),
        PushAnswer(400, "bad"),
    ]
    keys = []

    async def post(body, key):
        keys.append(key)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    clock = VirtualClock()
    client = PushingClient(post, "c", clock)
    pushing = asyncio.ensure_future(client.push(LINE))
    waits = []
    while not pushing.done():
        await settle()
        before = clock.now_ns()
        while clock._sleepers:
            clock.set_ns(clock._sleepers[0][0])
        waits += [clock.now_ns() - before] if clock.now_ns() > before else []
    assert (await pushing).status == 204
    assert waits == [500_000_000, 40_000_000, 80_000_000]
    assert (await client.push(b"bad")).text == "bad"
    assert (keys, client.n_acknowledged, client.n_refused, client.n_tries) == (["c-1"] * 4 + ["c-2"], 2, 1, 5)


async def test_machines_write_lines_that_are_read(running, sink):
    machines = LineMachines(3, seed=1)
    for i in range(2):
        await running.receive(pushed(machines.lines(1_700_000_000_000_000_000 + i)))
    assert sum(batch.n_samples for batch in sink.batches) == 24
    assert running.diagnostics().n_sensors == 12
    assert machines.lines(5) != LineMachines(3, seed=2).lines(5)
