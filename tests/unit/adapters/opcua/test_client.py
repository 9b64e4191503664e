"""A connection that is to go on with the session of another one: whatever asyncua does about it."""

import asyncio
from types import SimpleNamespace

import pytest
from asyncua import ua
from tests.unit.adapters.opcua.desk import ScriptedConnection

from headrace.adapters.opcua.client import UaConnection
from headrace.adapters.opcua.config import ServerAddress
from headrace.adapters.pacing import ConnectPacer
from headrace.core.errors import NotConnected

OLD, NEW = ua.NodeId(b"old", 0), ua.NodeId(b"new", 0)


async def nothing(*args):
    return []


def connection(before=None):
    config = SimpleNamespace(max_requests_per_s=50.0)
    access = SimpleNamespace(server=ServerAddress("h", 1), timeout_s=1.0, prepare=nothing, config=config)
    one = UaConnection(access, lambda reason: None, before)
    one._client.uaclient.protocol = SimpleNamespace(data_received=None, authentication_token=None)
    one._client.get_namespace_array = nothing
    return one


async def opened(connect):
    """The newer one of two, and what asyncua's way to load a session said."""
    before = connection()
    before._client.uaclient.session.authentication_token = OLD
    one, loaded = connection(before), []
    client = one._client

    async def connecting():
        connect(client, before._client, loaded)

    client.connect = connecting
    await one.open()
    return one, loaded


def takes(client, before, loaded):
    loaded.append(client._try_load_persisted_session())


def is_refused(client, before, loaded):
    takes(client, before, loaded)
    client._clear_persisted_session()
    client.uaclient.session.restore_authentication_token(NEW)


def refuses_and_does_not_say(client, before, loaded):
    client.uaclient.session.restore_authentication_token(NEW)


def keeps_other_things(client, before, loaded):
    del before._policy_ids
    takes(client, before, loaded)
    client.uaclient.session.restore_authentication_token(NEW)


@pytest.mark.parametrize(
    ("connect", "is_loaded", "is_resumed"),
    [
        (takes, [True], True), (is_refused, [True], False), (refuses_and_does_not_say, [], False),
        (keeps_other_things, [False], False),
    ],
)  # fmt: skip
async def test_a_session_is_gone_on_with_only_where_it_is_the_same(connect, is_loaded, is_resumed):
    one, loaded = await opened(connect)
    assert (loaded, one.is_resumed) == (is_loaded, is_resumed)


async def test_who_closes_ends_at_once_although_asyncua_takes_no_notice():
    """It ends tasks of its own while it closes: what it is told then it may take for theirs."""
    one, begun, aborted = connection(), asyncio.Event(), []

    async def disconnect():
        begun.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if aborted:
                    raise

    transport = SimpleNamespace(abort=lambda: aborted.append(True))
    one._client.disconnect, one._client.uaclient.protocol.transport = disconnect, transport
    closing = asyncio.create_task(one.close())
    await begun.wait()
    closing.cancel()
    await asyncio.wait([closing], timeout=0.4)
    assert (closing.cancelled(), aborted) == (True, [True])


@pytest.mark.parametrize("answer", [b"", b"\x01", b"\xff" * 40])
async def test_an_answer_that_can_not_be_read_ends_the_connection(answer):
    one = ScriptedConnection(Republish=[answer])
    with pytest.raises(
        NotConnected, match="the answer to a request to publish again is no RepublishResponse"
    ):
        await one.ask(ua.RepublishRequest(), ua.RepublishResponse, "a request to publish again")


async def test_requests_wait_for_their_turn_and_those_for_what_is_published_do_not(monkeypatch):
    one, turns, sent = connection(), [], []

    async def send_request(request, deadline_s):
        sent.append((request, len(turns)))
        return b"answer"

    async def turn(pacer):
        turns.append(pacer.per_s)

    monkeypatch.setattr(ConnectPacer, "turn", turn)
    one._client.uaclient.protocol = SimpleNamespace(send_request=send_request)
    for request, deadline_s in (("read", None), ("publish", 0), ("browse", 2.0)):
        assert await one.request(request, request, deadline_s) == b"answer"
    assert sent == [("read", 1), ("publish", 1), ("browse", 2)]
    assert turns == [50.0, 50.0]
