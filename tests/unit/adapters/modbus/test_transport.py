"""Modbus TCP on the wire, against a peer that follows a script."""

import asyncio
import contextlib
import errno
import socket
import struct

import pytest

from headrace.adapters.modbus.endpoints import Endpoint, ModbusLink
from headrace.adapters.modbus.framing import HEADER
from headrace.adapters.modbus.transport import ModbusTransport
from headrace.core.errors import NotConnected

READ = struct.pack(">BHH", 3, 0, 2)
DATA = bytes([3, 4, 0, 1, 0, 2])


class Peer:
    """Answers each request with what `script` returns: chunks of bytes to send, None to close."""

    def __init__(self, script):
        self.script = script
        self.requests = []
        self.lost = []
        self.tasks = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.transport = await ModbusTransport.connect(
            Endpoint(ModbusLink.TCP, "127.0.0.1", port), 1.0, self.lost.append
        )
        return self

    async def __aexit__(self, *error):
        self.transport.close()
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        self.tasks.append(asyncio.current_task())
        try:
            while head := await reader.read(7):
                transaction, _, length, unit = HEADER.unpack(head)
                self.requests.append((transaction, unit, await reader.readexactly(length - 1)))
                for chunk in self.script(transaction, unit, len(self.requests)):
                    if chunk is None:
                        return
                    writer.write(chunk)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def ask(self, unit=1, timeout_s=1.0):
        return self.transport.request(unit, READ, timeout_s)


def frame(transaction, unit, pdu=DATA):
    return HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu


async def test_a_request_is_answered():
    async with Peer(lambda t, u, n: [frame(t, u)]) as peer:
        assert peer.transport.is_open
        assert await peer.ask(unit=17) == DATA
        assert await peer.ask(unit=18) == DATA
        assert peer.requests == [(1, 17, READ), (2, 18, READ)]
        assert peer.transport.cpu_ns >= 0
        assert peer.transport.n_bytes > 0
        assert not peer.lost


@pytest.mark.parametrize("cut", range(1, 13))
async def test_frames_may_be_split_at_every_byte(cut):
    async with Peer(lambda t, u, n: [frame(t, u)[:cut], frame(t, u)[cut:]]) as peer:
        assert await peer.ask() == DATA


async def test_a_late_answer_is_dropped_also_when_joined_with_the_next():
    """The first request is answered too late, in one piece with the answer to the second."""

    def script(transaction, unit, n):
        return [] if n == 1 else [frame(transaction - 1, unit, b"\x03\x04late") + frame(transaction, unit)]

    async with Peer(script) as peer:
        with pytest.raises(TimeoutError):
            await peer.ask(timeout_s=0.05)
        assert await peer.ask() == DATA
        assert peer.transport.n_late == 1


async def test_answers_of_others_and_second_answers_are_dropped():
    async with Peer(lambda t, u, n: [frame(t, u + 1) + frame(t, u) + frame(t, u)]) as peer:
        assert await peer.ask() == DATA
        assert await peer.ask() == DATA
        assert peer.transport.n_late in (3, 4)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        HEADER.pack(1, 0, 1, 1) + bytes(20),
        HEADER.pack(1, 0, 255, 1) + bytes(20),
    ],
    ids=["text", "too short", "too long"],
)
async def test_what_is_no_modbus_ends_the_connection(garbage):
    async with Peer(lambda t, u, n: [garbage]) as peer:
        with pytest.raises(NotConnected, match="not Modbus TCP: "):
            await peer.ask()
        assert not peer.transport.is_open
        assert len(peer.lost) == 1
        with pytest.raises(NotConnected, match="not Modbus TCP"):
            await peer.ask()


@pytest.mark.parametrize("start", [b"", b"\x00\x01\x00\x00\x00\x07\x01\x03"])
async def test_a_peer_that_closes_is_noticed_at_once(start):
    async with Peer(lambda t, u, n: [start, None]) as peer:
        with pytest.raises(NotConnected, match="closed by the device"):
            await peer.ask(timeout_s=30)
        assert peer.lost == ["closed by the device"]


async def test_a_reset_is_told_in_words():
    async with Peer(lambda t, u, n: []) as peer:
        asking = asyncio.ensure_future(peer.ask(timeout_s=30))
        await asyncio.sleep(0.01)
        peer.transport.connection_lost(ConnectionResetError(errno.ECONNRESET, "reset"))
        with pytest.raises(NotConnected, match="connection lost: Connection reset by peer"):
            await asking


async def test_closing_is_no_loss():
    async with Peer(lambda t, u, n: []) as peer:
        asking = asyncio.ensure_future(peer.ask(timeout_s=30))
        await asyncio.sleep(0.01)
        peer.transport.close()
        with pytest.raises(NotConnected, match="closed"):
            await asking
        peer.transport.close()
        await asyncio.sleep(0.01)
        assert not peer.lost


async def test_a_cancelled_request_leaves_the_connection_usable():
    async with Peer(lambda t, u, n: [frame(t, u)] if n > 1 else []) as peer:
        asking = asyncio.ensure_future(peer.ask(timeout_s=0.05))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(0.06)
        assert await peer.ask() == DATA


async def test_a_deadline_that_comes_with_the_answer_changes_nothing():
    async with Peer(lambda t, u, n: []) as peer:
        asking = asyncio.ensure_future(peer.ask(timeout_s=30))
        await asyncio.sleep(0.01)
        peer.transport.data_received(frame(1, 1))
        peer.transport._deadline_s = 0.0
        peer.transport._look()
        assert await asking == DATA


def deadline(transport):
    """When the loop looks at it; None: not at all."""
    return None if transport._timer is None else transport._timer.when()


async def test_one_timer_sees_to_the_deadlines_of_all_requests():
    async with Peer(lambda t, u, n: [frame(t, u)]) as peer:
        began_s = asyncio.get_running_loop().time()
        await peer.ask(timeout_s=30)
        first = peer.transport._timer
        assert began_s + 30 <= first.when() < began_s + 31
        await peer.ask(timeout_s=60)
        assert peer.transport._timer is first, "it goes off early, and is set again"
        await peer.ask(timeout_s=10)
        assert first.cancelled()
        assert deadline(peer.transport) < began_s + 11
    assert deadline(peer.transport) is None


@pytest.mark.parametrize("before_s", [0.02, 30.0])
async def test_a_deadline_is_the_requests_own_whatever_was_asked_before(before_s):
    async with Peer(lambda t, u, n: [frame(t, u)] if n == 1 else []) as peer:
        await peer.ask(timeout_s=before_s)
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await peer.ask(timeout_s=0.06)
        assert 0.06 <= asyncio.get_running_loop().time() - began_s < 5
        assert deadline(peer.transport) is None


async def test_a_timer_that_goes_off_when_nothing_is_asked_does_nothing():
    async with Peer(lambda t, u, n: [frame(t, u)]) as peer:
        await peer.ask(timeout_s=0.02)
        while deadline(peer.transport) is not None:
            await asyncio.sleep(0.005)
        assert await peer.ask() == DATA


async def test_while_nothing_is_asked_no_timer_wakes_the_loop():
    async with Peer(lambda t, u, n: [frame(t, u)] if n == 1 else []) as peer:
        peer.transport.rest(100)
        await peer.ask(timeout_s=30)
        peer.transport.rest(20)
        assert deadline(peer.transport) is not None, "it serves the next request too"
        asking = asyncio.ensure_future(peer.ask(timeout_s=30))
        await asyncio.sleep(0)
        peer.transport.rest(100)
        assert deadline(peer.transport) is not None, "someone waits for it"
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        peer.transport.rest(100)
        assert deadline(peer.transport) is None


async def test_one_request_of_eight_is_metered_and_counts_for_all(monkeypatch):
    looks = iter(range(1_000))
    monkeypatch.setattr("headrace.adapters.modbus.transport.thread_cpu_ns", lambda: next(looks))
    async with Peer(lambda t, u, n: [frame(t, u)]) as peer:
        found = []
        for _ in range(17):
            await peer.ask()
            found.append(peer.transport.cpu_ns)
    # Sending takes one tick, and so does the answer.
    assert found == [2] * 8 + [18] * 8 + [34]
    assert next(looks) == 12


async def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(NotConnected, match=f"no connection to 127.0.0.1:{port}: Connection refused"):
            await ModbusTransport.connect(Endpoint(ModbusLink.TCP, "127.0.0.1", port), 1.0, print)


async def test_a_host_that_does_not_answer():
    """A full queue of connections: the kernel drops what comes then, as a firewall would."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = []
        try:
            for _ in range(3):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(address)
                waiting.append(one)
            with pytest.raises(NotConnected, match=r"no connection to 127.0.0.1:\d+ within 0.1 s"):
                await ModbusTransport.connect(Endpoint(ModbusLink.TCP, *address), 0.1, print)
        finally:
            for one in waiting:
                one.close()
