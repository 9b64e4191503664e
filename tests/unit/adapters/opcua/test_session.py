"""A session with a server that says what it was told to: whatever it answers, we know what to do."""

import asyncio
import contextlib
import logging

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from tests.integration.opcua_life import samples
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
from headrace.adapters.opcua import subscribing as subscribing_module
from headrace.adapters.opcua.asking import ServerLimits, SessionMeters, in_batches
from headrace.adapters.opcua.client import ServiceFailed
from headrace.adapters.opcua.config import OpcuaConfig
from headrace.adapters.opcua.messages import read_answer
from headrace.adapters.opcua.polling import Polling, ReadList
from headrace.adapters.opcua.reader import Crew, Item, SessionLink
from headrace.adapters.opcua.retag import plan_change
from headrace.adapters.opcua.security import ServerAccess, ServerRefuses
from headrace.adapters.opcua.session import ServerSession
from headrace.adapters.opcua.subscribing import Subscribing
from headrace.adapters.opcua.tags import TagTable
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


def link(desk, connection, **more):
    access = ServerAccess(desk.tags.plans[0].server, config(**more), None, 0.01)
    return SessionLink(
        "x", access, connection, desk.feed, SessionMeters(), desk.dropped.append, Crew(), asyncio.Lock()
    )


def subscribing(desk, connection, **more):
    return Subscribing(link(desk, connection, **more), {S: [0, 1, 2]})


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
    await one.prepare({S: [0, 1, 2]})
    assert one.revised == (
        "publishes every 2000 ms; knows no dead band (1 items); samples every 5000 ms (1 items); keeps 1 values (1 items)"
    )
    wanted = [r for r in connection.asked if isinstance(r, ua.CreateMonitoredItemsRequest)]
    filters = [[i.RequestedParameters.Filter is not None for i in r.Parameters.ItemsToCreate] for r in wanted]
    assert filters == [[True, True, False], [False]], "what knows no dead band is asked for without one"
    assert desk.tags.problem == {2: "BadNodeIdUnknown"}
    desk.feed.problem(2, "BadNodeIdUnknown")
    assert len(desk.waiting.rejects) == 1, "a state is told once"


async def test_a_server_that_answers_for_some_items_only_is_no_server():
    connection = ScriptedConnection(
        Read=[read_response(0, 0)], CreateSubscription=[created()], CreateMonitoredItems=[items(0, 0)]
    )
    with pytest.raises(NotConnected, match="answers a request for 3 monitored items with 2 results"):
        await subscribing(three(), connection).prepare({S: [0, 1, 2]})


async def test_publish_responses_of_every_kind():
    desk = three()
    connection = ScriptedConnection(
        Publish=[
            b"what is this?", ServiceFailed("x", CODES.BadTimeout), publish_response(2**32 - 1, 1.5),
            publish_response(1), publish_response(1, 2.5), publish_response(5, 3.5, n_parts=2), publish_response(8),
            ServiceFailed("a publish request", CODES.BadNoSubscription),
        ],
        Republish=[ServiceFailed("x", CODES.BadMessageNotAvailable)],
    )  # fmt: skip
    one = subscribing(desk, connection)
    with pytest.raises(NotConnected, match="answers a publish request with BadNoSubscription"):
        await one._publish()
    assert (one._meters.n_errors, one._meters.n_requests) == (1, 8 + 5)
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
    one = subscribing(desk, connection, verify="1ms")
    assert await one._untold([]) == set()
    one._items = {2: Item(ua.NodeId("c", 2), S, 0.0, 1)}
    one._limits = ServerLimits(10, 10)
    with pytest.raises(NotConnected, match="answers a read with BadSessionIdInvalid"):
        await one._verify()
    assert one._meters.n_timeouts == 1


async def test_an_answer_to_a_read_that_does_not_fit():
    desk = three()
    connection = ScriptedConnection(PackedRead=[b"what?", read_response(1.0), read_response(1.0, 2.0, 3.0)])
    one = Polling(link(desk, connection), {S: [0, 1, 2]})
    some = ReadList([0, 1, 2], [ua.NodeId(tag, 2) for tag in range(3)])
    for _ in range(3):
        await one._read_some(some, range(3))
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
    monkeypatch.setattr(session_module, "UaConnection", lambda access, on_lost, before: next(connections))
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


async def test_values_that_cannot_be_filed_are_not_acknowledged(monkeypatch):
    desk, refused = three(), []
    inbox = desk.feed.inbox

    def fail(values, arrival_ns):
        raise RuntimeError("odd")

    monkeypatch.setattr(desk.feed.filing, "file", fail)
    inbox.add(read_answer(bytes(struct_to_binary(read_response(1.5)))), refused.append, refused.append)
    inbox.finish()
    await inbox.run()
    assert refused == ["values are not taken: odd"]
    assert (inbox.unacknowledged[0], inbox.is_full, desk.sink.batches) == (0, False, [])


def modified(*results):
    response = ua.ModifyMonitoredItemsResponse()
    response.Results = [ua.MonitoredItemModifyResult(StatusCode=ua.StatusCode(code)) for code in results]
    return response


async def test_an_item_that_cannot_be_modified_is_an_error_and_what_cannot_be_undone_ends_the_connection():
    desk = three()
    connection = ScriptedConnection(
        Read=[read_response(0, 0)], CreateSubscription=[created()], SetPublishingMode=[ua.SetPublishingModeResponse()],
        CreateMonitoredItems=[items(0, 0, 0)],
        ModifyMonitoredItems=[modified(CODES.BadFilterNotAllowed), modified(CODES.BadMonitoredItemIdInvalid), NotConnected("over")],
    )  # fmt: skip
    one = subscribing(desk, connection)
    groups = {S: [0, 1, 2]}
    await one.prepare(groups)
    for number, item in enumerate(one._items.values(), 1):
        item.number = number
    other = TagTable(
        [plan("l/d", signal("a", dead_band=3.0), signal("b", **BAND), signal("c"))], desk.sink.directory
    )
    change = plan_change(desk.tags, other)
    assert change.banded == (0,)
    with pytest.raises(ServiceFailed, match="a change of monitored items with BadMonitoredItemIdInvalid"):
        await one.stage(change, groups)
    assert desk.dropped == []
    await one.take_back()
    assert desk.dropped == ["the change of variables could not be brought to its end: over"]
    assert one._items[0].dead_band == 1.0
    await one.take_back()
    assert len(desk.dropped) == 1, "there is nothing to take back any more"


async def test_what_was_not_begun_need_not_be_taken_back(monkeypatch):
    one = session_of(three(), iter(()), monkeypatch)
    await one.take_back()
    await one.finish()


@pytest.mark.parametrize("is_taken", [True, False])
async def test_what_comes_before_a_change_counts_waits_for_it(is_taken):
    desk = three()
    connection = ScriptedConnection(
        Read=[read_response(0, 0)], CreateSubscription=[created()], SetPublishingMode=[ua.SetPublishingModeResponse()],
        CreateMonitoredItems=[items(0, 0, 0), items(0)], DeleteMonitoredItems=[ua.DeleteMonitoredItemsResponse()],
    )  # fmt: skip
    one = subscribing(desk, connection)
    await one.prepare({S: [0, 1, 2]})
    new = plan("l/d", signal("d"), signal("b", **BAND), signal("c"))
    table = TagTable([new], desk.sink.directory)
    change, groups = plan_change(desk.tags, table), {S: [0, 1, 2]}
    await one.stage(change, groups)
    one._take(publish_body(1, 0.5, 1.5, 2.5, 3.5))
    inbox = desk.feed.inbox
    assert inbox.unacknowledged[0] == 1
    inbox.settle()
    if is_taken:
        table.begin()
        desk.tags.become(table, change)
        one.commit(change, groups)
    else:
        await one.take_back()
    one._take(publish_body(2, 10.5, 11.5, 12.5, 13.5))
    await one.finish()
    inbox.finish()
    await inbox.run()
    await asyncio.sleep(0)
    found = {}
    for path, _, value, _ in samples(desk.sink):
        found.setdefault(path.rpartition("/")[2], []).append(value)
    assert found["b"] == [1.5, 11.5]
    assert found["c"] == [2.5, 12.5]
    assert found["a"] == ([0.5] if is_taken else [0.5, 10.5])
    assert found.get("d") == ([3.5, 13.5] if is_taken else None)
    assert [a.SequenceNumber for a in one._acks] == [1, 2], (
        "all of a message is durable, then it is acknowledged"
    )
    assert desk.waiting.rejects == []


def publish_body(sequence, *values):
    return bytes(struct_to_binary(publish_response(sequence, *values)))


async def test_what_is_not_read_any_more_is_not_verified():
    connection = ScriptedConnection()
    await subscribing(three(), connection)._compare(set(), [0, 1])
    assert connection.asked == []


def published_again(*values):
    response = ua.RepublishResponse()
    if values:
        response.NotificationMessage = publish_response(0, *values).Parameters.NotificationMessage
    return response


async def test_what_got_lost_on_its_way_is_asked_for_again():
    desk, gone = three(), ServiceFailed("x", CODES.BadMessageNotAvailable)
    connection = ScriptedConnection(Read=[read_response(0, 0)], CreateSubscription=[created()],
        SetPublishingMode=[ua.SetPublishingModeResponse()], CreateMonitoredItems=[items(0, 0, 0)])  # fmt: skip
    one = subscribing(desk, connection)
    await one.prepare({S: [0, 1, 2]})
    one._take(publish_body(1, 0.5))
    message = published_again(1.5)
    message.NotificationMessage.SequenceNumber = 2
    again = ScriptedConnection(
        Republish=[message, gone, published_again(), ServiceFailed("x", CODES.BadSubscriptionIdInvalid)]
    )
    for _ in range(2):
        await one.resume(link(desk, again))
    with pytest.raises(ServiceFailed, match="BadSubscriptionIdInvalid"):
        await one.resume(link(desk, again))
    assert [r.Parameters.RetransmitSequenceNumber for r in again.asked] == [2, 3, 3, 3]
    one._take(b"what is this?")
    odd = publish_response(3)
    odd.Parameters.NotificationMessage.NotificationData = [ua.EventNotificationList()]
    one._take(bytes(struct_to_binary(odd)))
    assert (one._meters.n_errors, len(desk.waiting.rejects)) == (2, 2)
    desk.feed.inbox.finish()
    await desk.feed.inbox.run()
    await asyncio.sleep(0)
    assert [value for _, _, value, _ in samples(desk.sink)] == [0.5, 1.5]
    assert [(a.SubscriptionId, a.SequenceNumber) for a in one._acks] == [(7, 1), (7, 2)]
    assert one._meters.n_gaps == 0


class Keeper(ScriptedConnection):
    """A server that has some messages still; without `kept` it has no such service."""

    def __init__(self, kept, *published):
        ended = ServiceFailed("a publish request", CODES.BadNoSubscription)
        super().__init__(Publish=[*published, ended])
        self._kept = kept
        self.again = []

    async def request(self, request, what, deadline_s=None):
        if not isinstance(request, ua.RepublishRequest):
            return await super().request(request, what, deadline_s)
        number = request.Parameters.RetransmitSequenceNumber
        self.again.append(number)
        if self._kept is None:
            raise ServiceFailed(what, CODES.BadServiceUnsupported)
        if number not in self._kept:
            raise ServiceFailed(what, CODES.BadMessageNotAvailable)
        await asyncio.sleep(0)  # the other publish request is answered meanwhile
        message = published_again(self._kept[number])
        message.NotificationMessage.SequenceNumber = number
        return bytes(struct_to_binary(message))


async def told(desk):
    desk.feed.inbox.finish()
    await desk.feed.inbox.run()
    return [value for _, _, value, _ in samples(desk.sink)]


async def test_a_message_that_is_gone_does_not_keep_the_later_ones_from_being_asked_for(caplog):
    desk = three()
    one = subscribing(desk, ScriptedConnection())
    one._subscriptions = {S: subscribing_module.Subscription(7, S, S)}
    one._n_publishing = 2
    one._take(publish_body(1, 0.5))
    again = Keeper({3: 3.5, 5: 5.5})
    await one.resume(link(desk, again))
    assert again.again == [2, 3, 4, 5, 6, 7], "so many in a row as it was asked for can't be gone"
    assert await told(desk) == [0.5, 3.5, 5.5]
    assert one._meters.n_gaps == 2
    (line,) = caplog.messages
    assert "1 published messages are gone, from number 2 of subscription 7 on" in line


async def test_what_is_missed_while_connected_is_asked_for_before_what_is_newer():
    desk = three()
    keeper = Keeper(
        {2: 2.5, 4: 4.5}, publish_response(1, 1.5), publish_response(5, 5.5), publish_response(6, 6.5)
    )
    one = subscribing(desk, keeper)
    ends = await asyncio.gather(one._publish(), one._publish(), return_exceptions=True)
    assert {type(e) for e in ends} == {NotConnected}
    assert keeper.again == [2, 3, 4]
    assert one._meters.n_gaps == 1
    assert await told(desk) == [1.5, 2.5, 4.5, 5.5, 6.5]


@pytest.mark.parametrize("kept", [None, {}])
async def test_a_server_that_keeps_nothing_is_not_asked_for_ever(kept):
    answers = [publish_response(1, 1.5), publish_response(1_001, 2.5), publish_response(1_003, 3.5)]
    keeper = Keeper(kept, *answers)
    one = subscribing(three(), keeper)
    with pytest.raises(NotConnected):
        await one._publish()
    first = 1_001 - subscribing_module.N_AGAIN_MAX
    assert keeper.again == ([first] if kept is None else list(range(first, 1_001)))
    assert one._meters.n_gaps == 999 + 1


async def test_an_acknowledgement_that_may_not_have_come_there_is_sent_again():
    one = subscribing(three(), ScriptedConnection(Publish=[NotConnected("cut")]))
    one._acks = acks = [ua.SubscriptionAcknowledgement(7, 1)]
    with pytest.raises(NotConnected):
        await one._publish()
    assert one._acks == acks


class Wire(ScriptedConnection):
    """One that is cut when it ends; `opening` is waited for as it is opened. It notes how it was closed."""

    is_cut = True

    def __init__(self, opening=None, is_resumed=False, **answers):
        super().__init__(**answers)
        self.is_resumed = is_resumed
        self._opening = opening
        self.goodbyes = []
        self.closed = asyncio.Event()

    async def open(self):
        if self._opening is not None:
            await self._opening()

    async def close(self, says_goodbye=True):
        self.goodbyes.append(says_goodbye)
        self.closed.set()

    @property
    def kinds(self):
        return [type(one).__name__.removesuffix("Request") for one in self.asked]


def fresh(publish, *created_items):
    return {
        "Read": [read_response(0, 0)], "CreateSubscription": [created()], "Publish": [publish],
        "SetPublishingMode": [ua.SetPublishingModeResponse()], "CreateMonitoredItems": created_items or [items(0)],
    }  # fmt: skip


class Lives:
    """A session that lives through some connections; `befores`: whose session each was told to go on with."""

    def __init__(self, monkeypatch, *connections):
        self.clock = Watched(len(connections))
        self.desk = three(clock=self.clock)
        self.befores, made = [], iter(connections)
        self.one = self.clock.session = session_of(self.desk, made, monkeypatch, "subscribe")

        def make(access, on_lost, before):
            self.befores.append(before)
            return next(made)

        monkeypatch.setattr(session_module, "UaConnection", make)
        table = TagTable([plan("l/d", signal("d"), signal("a", **BAND))], self.desk.sink.directory)
        self.table, self.change, self.groups = table, plan_change(self.desk.tags, table), {S: [0, 1]}

    async def run(self):
        await lived(self.one, self.clock.is_over)

    async def stage(self):
        await self.one.stage(self.change, self.groups)

    async def commit(self):
        self.table.begin()
        self.desk.tags.become(self.table, self.change)
        self.one.commit(self.one.access, self.change, self.groups)
        await self.one.finish()


@pytest.mark.parametrize("is_taken", [True, False])
async def test_a_session_that_comes_back_when_its_tags_have_changed_is_made_anew(monkeypatch, is_taken):
    """Its subscriptions would tell, by handles of old, of what are other variables by now."""

    async def cut():
        if not is_taken:
            await lives.stage()
        return NotConnected("cut")

    async def change():
        if is_taken:
            await lives.stage()
            await lives.commit()
        else:
            await lives.one.take_back()

    last = fresh(NotConnected("over"), items(*([0] * (1 + is_taken))))
    wires = Wire(**fresh(cut, items(0), items(0))), Wire(change, is_resumed=True), Wire(**last)
    lives = Lives(monkeypatch, *wires)
    await lives.run()
    assert lives.befores == [None, wires[0], None]
    assert [one.goodbyes[0] for one in wires] == [False, True, False]
    assert wires[1].asked == []
    assert "CreateSubscription" in wires[2].kinds


async def test_a_change_that_was_not_begun_here_leaves_a_session_that_comes_back_as_it_is(monkeypatch):
    async def give_up():
        await lives.stage()
        await lives.one.take_back()

    gone = ServiceFailed("x", CODES.BadMessageNotAvailable)
    again = Wire(give_up, is_resumed=True, Republish=[gone], Publish=[NotConnected("over")])
    lives = Lives(monkeypatch, Wire(**fresh(NotConnected("cut"))), again)
    await lives.run()
    assert again.kinds[0] == "Republish"
    assert lives.one.meters.n_connects == 2


async def test_a_session_that_is_cut_as_it_comes_back_comes_back_once_more(monkeypatch):
    async def cut():
        raise NotConnected("cut as it learns the namespaces")

    gone = ServiceFailed("x", CODES.BadMessageNotAvailable)
    wires = (
        Wire(**fresh(NotConnected("cut"))), Wire(cut, is_resumed=True), Wire(is_resumed=True, Republish=[NotConnected("cut")]),
        Wire(is_resumed=True, Republish=[gone], Publish=[NotConnected("over")]),
    )  # fmt: skip
    lives = Lives(monkeypatch, *wires)
    await lives.run()
    assert lives.befores == [None, *wires[:3]], "the newest has what the server wants signed next"
    assert wires[3].kinds[:1] == ["Republish"]
    assert [one.goodbyes[0] for one in wires] == [False] * 4


async def test_a_change_on_a_connection_that_is_given_up_meanwhile_is_for_the_next_one(monkeypatch):
    async def silent():
        await asyncio.Event().wait()

    async def never_created():
        lives.one.drop("nothing was published")
        await wires[0].closed.wait()
        return NotConnected("closed")

    wires = Wire(**fresh(silent, items(0), never_created)), Wire(**fresh(NotConnected("over"), items(0, 0)))
    wires[0].is_cut = False
    lives = Lives(monkeypatch, *wires)
    running = asyncio.create_task(lives.run())
    await asyncio.wait_for(until_connected(lives.one), 5)
    await lives.stage()
    await lives.commit()
    await running
    assert lives.befores == [None, None]
    made = wires[1].asked[wires[1].kinds.index("CreateMonitoredItems")]
    assert len(made.Parameters.ItemsToCreate) == 2, "both tags, at once"


async def until_connected(one):
    while not one.is_connected:
        await asyncio.sleep(0)


async def test_a_server_that_publishes_again_what_was_not_asked_for_is_not_asked_for_ever():
    desk, message = three(), published_again(1.5)
    message.NotificationMessage.SequenceNumber = 7
    again = ScriptedConnection(Republish=[message, message, ServiceFailed("x", CODES.BadMessageNotAvailable)])
    one = subscribing(desk, again)
    one._subscriptions = {S: subscribing_module.Subscription(7, S, S)}
    await one.resume(link(desk, again))
    assert len(again.asked) == 1
    assert desk.feed.inbox.unacknowledged[0] == 1, "it is taken all the same"


async def test_a_change_before_there_are_subscriptions_asks_for_nothing_to_be_published():
    desk = three()
    one = subscribing(desk, ScriptedConnection())
    table = TagTable(desk.tags.plans, desk.sink.directory)
    one.commit(plan_change(desk.tags, table), {S: [0, 1, 2]})
    assert not one._link.crew._tasks, "a server would answer that there is no subscription"


@pytest.mark.parametrize("where", ["open", "close"])
async def test_whoever_ends_a_session_ends_it_although_a_library_takes_no_notice(monkeypatch, where):
    """asyncio.wait_for of Python 3.11 forgets that it was cancelled, where what it waits for is there just then."""
    begun = asyncio.Event()
    monkeypatch.setattr(session_module, "PATIENCE_S", 0.0)

    async def deaf():
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise NotConnected("too late") from None

    async def close(says_goodbye=True):
        if not begun.is_set():
            with contextlib.suppress(NotConnected):
                await deaf()

    wires = Wire(deaf if where == "open" else None, Read=[NotConnected("over")]), Wire(deaf)
    if where == "close":
        wires[0].close = close
    lives = Lives(monkeypatch, *wires)
    task = asyncio.create_task(lives.one.run())
    await begun.wait()
    for _ in range(5):  # the gate is left
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=1)
    is_over = task.cancelled()
    for _ in range(2 * (not is_over)):  # it would not end else
        task.cancel()
        await asyncio.sleep(0)
    assert is_over
    assert lives.befores == [None]
