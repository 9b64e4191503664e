"""A session with a server that says what it was told to: whatever it answers, we know what to do."""

import asyncio
import logging

import pytest
from asyncua import ua
from tests.unit.adapters.opcua.desk import (
    FeedDesk,
    ScriptedConnection,
    plan,
    publish_response,
    read_response,
    signal,
)

from headrace.adapters.base import AdapterState
from headrace.adapters.meters import Backoff
from headrace.adapters.opcua import session as session_module
from headrace.adapters.opcua.asking import ServerLimits, SessionMeters, in_batches
from headrace.adapters.opcua.client import ServiceFailed
from headrace.adapters.opcua.config import OpcuaConfig
from headrace.adapters.opcua.polling import Polling
from headrace.adapters.opcua.security import ServerAccess, ServerRefuses
from headrace.adapters.opcua.session import ServerSession
from headrace.adapters.opcua.subscribing import Subscribing
from headrace.adapters.pacing import ConnectGate, ConnectPacer
from headrace.core.clock import NO_TIME, SystemClock
from headrace.core.errors import NotConnected
from headrace.core.events import RejectCode

S = 10**9
CODES = ua.StatusCodes
BAND = {"dead_band": 1.0}


def config(**more):
    return OpcuaConfig(devices={}, **more)


def created(interval_ms=1_000.0):
    response = ua.CreateSubscriptionResponse()
    response.Parameters.SubscriptionId = 7
    response.Parameters.RevisedPublishingInterval = interval_ms
    response.Parameters.RevisedMaxKeepAliveCount = 5
    return response


def items(*results, sampling_ms=1_000.0, queue_size=10):
    response = ua.CreateMonitoredItemsResponse()
    response.Results = [
        ua.MonitoredItemCreateResult(
            StatusCode=ua.StatusCode(code), RevisedSamplingInterval=sampling_ms, RevisedQueueSize=queue_size
        )
        for code in results
    ]  # fmt: skip
    return response


def subscribing(desk, connection, tags=(0, 1, 2)):
    return Subscribing("x", connection, {S: list(tags)}, desk.feed, SessionMeters(), lambda reason: None)


def three(**more):
    return FeedDesk(plan("l/d", signal("a", **BAND), signal("b", **BAND), signal("c")), **more)


async def test_what_a_server_does_otherwise_is_told():
    desk = three()
    connection = ScriptedConnection(
        Read=[read_response(0, 0)], CreateSubscription=[created(2_000.0)], SetPublishingMode=[ua.SetPublishingModeResponse()],
        CreateMonitoredItems=[
            items(0, CODES.BadFilterNotAllowed, CODES.BadNodeIdUnknown), items(0, sampling_ms=5_000.0, queue_size=1),
        ],
    )  # fmt: skip
    one = subscribing(desk, connection)
    await one.prepare(config())
    assert one.revised == (
        "publishes every 2000 ms; knows no dead band (1 items); samples every 5000 ms (1 items); keeps 1 values (1 items)"
    )
    wanted = [r for r in connection.asked if isinstance(r, ua.CreateMonitoredItemsRequest)]
    filters = [[i.RequestedParameters.Filter is not None for i in r.Parameters.ItemsToCreate] for r in wanted]
    assert filters == [[True, True, False], [False]], "what knows no dead band is asked for without one"
    assert desk.tags.problem == {2: "BadNodeIdUnknown"}
    desk.feed.problem(2, "BadNodeIdUnknown")
    assert len(desk.waiting.rejects) == 1, "a state is told once"


async def test_publish_responses_of_every_kind():
    desk = three()
    connection = ScriptedConnection(
        Publish=[
            b"what is this?", ServiceFailed("x", CODES.BadTimeout), publish_response(2**32 - 1, 1.5),
            publish_response(1), publish_response(1, 2.5), publish_response(5, 3.5, n_parts=2), publish_response(8),
            ServiceFailed("a publish request", CODES.BadNoSubscription),
        ]
    )  # fmt: skip
    one = subscribing(desk, connection)
    with pytest.raises(NotConnected, match="answers a publish request with BadNoSubscription"):
        await one._publish()
    assert (one._meters.n_errors, one._meters.n_requests) == (1, 8)
    assert one._meters.n_gaps == 3 + 2, "after the last number comes 1; a keep-alive has that of the next"
    assert abs(one._meters.skew.skew_ns) < 60 * S
    (reject,) = desk.waiting.rejects
    assert (reject.code, reject.raw) == (RejectCode.MALFORMED, b"what is this?")
    inbox = desk.feed.inbox
    assert inbox.unacknowledged[0] == 4
    inbox.finish()
    await inbox.run()
    await asyncio.sleep(0)
    assert inbox.unacknowledged == (0, NO_TIME)
    assert [a.SequenceNumber for a in one._acks] == [2**32 - 1, 1, 5]


async def test_a_server_that_wants_fewer_publish_requests():
    never = asyncio.Event()

    async def wait():
        await never.wait()

    too_many = ServiceFailed("a publish request", CODES.BadTooManyPublishRequests)
    one = subscribing(three(), ScriptedConnection(Publish=[wait, too_many]))
    tasks = [asyncio.create_task(one._publish()) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not tasks[0].done()
    assert not tasks[1].done(), "the other one is there"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(NotConnected, match="BadTooManyPublishRequests"):
        await subscribing(three(), ScriptedConnection(Publish=[too_many]))._publish()


async def test_a_look_that_is_not_answered_is_counted_and_one_that_fails_ends_the_session():
    desk = three()
    late = TimeoutError()
    connection = ScriptedConnection(
        Read=[late, read_response(code=CODES.BadSessionIdInvalid)], CreateMonitoredItems=[items(0)]
    )
    one = subscribing(desk, connection)
    assert await one._untold([]) == set()
    one._nodes = {2: ua.NodeId("c", 2)}
    one._limits = ServerLimits(10, 10)
    with pytest.raises(NotConnected, match="answers a read with BadSessionIdInvalid"):
        await one._verify(config(verify="1ms"), 0.01)
    assert one._meters.n_timeouts == 1


async def test_an_answer_to_a_read_that_does_not_fit():
    desk = three()
    connection = ScriptedConnection(PackedRead=[b"what?", read_response(1.0), read_response(1.0, 2.0, 3.0)])
    one = Polling("x", connection, {S: [0, 1, 2]}, desk.feed, SessionMeters(), lambda reason: None)
    one._nodes = {tag: ua.NodeId(tag, 2) for tag in range(3)}
    for _ in range(3):
        await one._read_some([0, 1, 2])
    assert [r.detail.partition(": ")[2][:20] for r in desk.waiting.rejects] == [
        "5 bytes are no ReadR", "1 values for 3 nodes"
    ]  # fmt: skip
    assert (one._meters.n_requests, one._meters.n_errors, len(desk.waiting.values)) == (3, 2, 1)


async def test_what_is_too_much_is_halved_and_other_errors_are_not():
    sizes = []

    async def ask(tags):
        sizes.append(len(tags))
        if len(tags) > 2:
            raise ServiceFailed("a read", CODES.BadTooManyOperations)

    assert await in_batches(range(5), 5, ask) == 2
    assert sizes == [5, 2, 2, 1]

    async def refuse(tags):
        raise ServiceFailed("a read", CODES.BadResponseTooLarge)

    with pytest.raises(ServiceFailed):
        await in_batches(range(2), 2, refuse)


class Watched(SystemClock):
    """Keeps what a session says when it waits; after some times it waits for ever."""

    def __init__(self, n):
        self.n, self.said = n, []
        self.session = None
        self.is_over = asyncio.Event()

    async def sleep(self, seconds):
        self.said.append((self.session.state, self.session.reason))
        if len(self.said) == self.n:
            self.is_over.set()
            await asyncio.Event().wait()


def session_of(desk, connections, monkeypatch, mode="read"):
    monkeypatch.setattr(session_module, "UaConnection", lambda access, on_lost: next(connections))
    access = ServerAccess(desk.tags.plans[0].server, config(mode=mode), None, 0.5)
    gate = ConnectGate(ConnectPacer(), 4)
    return ServerSession("x", access, {S: [0]}, desk.feed, gate, Backoff("x", 1_000, 1_000))


async def test_the_first_reason_of_a_loss_is_told(monkeypatch):
    clock = Watched(1)

    async def loses():
        one.drop("first")
        one.drop("second")
        return NotConnected("third")

    one = clock.session = session_of(
        three(clock=clock), iter([ScriptedConnection(Read=[loses])]), monkeypatch
    )
    await lived(one, clock.is_over)
    assert clock.said == [(AdapterState.BACKOFF, "first")]


async def lived(one, until):
    task = asyncio.create_task(one.run())
    await asyncio.wait_for(until.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await one.close()


async def test_every_loss_has_a_reason_and_a_new_client(monkeypatch, caplog):
    errors = [
        TimeoutError(), ServiceFailed("a read", CODES.BadShutdown), NotConnected("no connection: odd"),
        ServerRefuses("not you"), RuntimeError("odd"),
    ]  # fmt: skip
    clock = Watched(len(errors))
    desk = three(clock=clock)
    made = [ScriptedConnection(Read=[error]) for error in errors]
    one = clock.session = session_of(desk, iter(made), monkeypatch)
    await lived(one, clock.is_over)
    assert clock.said == [
        (AdapterState.BACKOFF, "connected, but no answer within 0.5 s"),
        (AdapterState.BACKOFF, "the server answers a read with BadShutdown"),
        (AdapterState.BACKOFF, "no connection: odd"),
        (AdapterState.FAILED, "not you"),
        (AdapterState.BACKOFF, "internal error: RuntimeError('odd')"),
    ]
    assert one.meters.n_connects == len(errors)
    assert [len(connection.asked) for connection in made] == [1] * len(errors), "each client is used once"
    assert caplog.text.count("lost: ") == 1, "a loss is told once"


async def test_what_a_server_does_otherwise_is_logged_and_its_state_is_that_of_its_items(monkeypatch, caplog):
    desk = three()
    connection = ScriptedConnection(
        Read=[read_response(0, 0)], CreateSubscription=[created(2_000.0)], SetPublishingMode=[ua.SetPublishingModeResponse()],
        CreateMonitoredItems=[items(0)], Publish=[NotConnected("over")],
    )  # fmt: skip
    up = asyncio.Event()
    one = session_of(desk, iter([connection]), monkeypatch, "subscribe")
    enter = one._enter

    def entered(state, reason):
        enter(state, reason)
        up.set()

    monkeypatch.setattr(one, "_enter", entered)
    with caplog.at_level(logging.INFO):
        await lived(one, up)
    assert "server=h:1 publishes every 2000 ms" in caplog.text
