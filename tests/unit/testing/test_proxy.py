"""The fault proxy does what it says, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from headrace.core.clock import monotonic_ns
from headrace.testing.adapters import until
from headrace.testing.proxy import (
    Coalesce,
    Cut,
    Duplicate,
    FaultProxy,
    Garbage,
    Hold,
    Late,
    Reorder,
    Rewrite,
    Silence,
    Slow,
    Split,
    truncate,
)


class Echo:
    """A peer that answers each chunk with the same bytes, and keeps all it has heard."""

    def __init__(self):
        self.heard = []
        self.n_resets = 0
        self.writers = []

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()[:2]

    async def serve(self, reader, writer):
        self.writers.append(writer)
        try:
            while data := await reader.read(1 << 16):
                self.heard.append(data)
                writer.write(data)
        except ConnectionResetError:
            self.n_resets += 1
        except asyncio.CancelledError:
            pass
        writer.close()

    async def stop(self):
        self.server.close()
        for writer in self.writers:
            writer.close()
        await self.server.wait_closed()


@contextlib.asynccontextmanager
async def world(**options):
    """An echo, a proxy before it, and a function that connects to the proxy."""
    echo, writers = Echo(), []
    await echo.start()
    proxy = FaultProxy(echo.address, **options)
    await proxy.start()

    async def connect():
        reader, writer = await asyncio.open_connection(*proxy.address)
        writers.append(writer)
        return reader, writer

    try:
        yield echo, proxy, connect
    finally:
        for writer in writers:
            writer.close()
        await proxy.stop()
        await echo.stop()


async def said(reader, size, timeout_s=2.0):
    async with asyncio.timeout(timeout_s):
        return await reader.readexactly(size)


async def is_quiet(reader, for_s=0.1):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            return await reader.read(1) and False
    return True


async def ended(reader):
    """What still came before the end, and whether it was a reset."""
    got = b""
    try:
        async with asyncio.timeout(2.0):
            while data := await reader.read(100):
                got += data
    except ConnectionResetError:
        return got, True
    return got, False


async def test_it_forwards_both_ways_and_counts():
    async with world() as (echo, proxy, connect):
        reader, writer = await connect()
        for text in (b"one", b"two"):
            writer.write(text)
            assert await said(reader, 3) == text
        assert (proxy.n_connections, proxy.n_open) == (1, 1)
        assert proxy.n_bytes == {"to_peer": 6, "to_client": 6}
        assert len(proxy.accepted_ns) == 1
        writer.close()
        await until(lambda: proxy.n_open == 0, "the connection is gone")
        assert b"".join(echo.heard) == b"onetwo"


async def test_the_end_of_either_side_reaches_the_other():
    async with world() as (echo, _, connect):
        reader, writer = await connect()
        writer.write(b"x")
        await said(reader, 1)
        echo.writers[0].close()
        assert await ended(reader) == (b"", False)


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_cut_ends_in_the_middle_of_an_answer_and_only_so_often(after):
    async with world() as (_, proxy, connect):
        reader, writer = await connect()
        proxy.to_client = Cut(after, times=2)
        writer.write(b"frame")
        assert await ended(reader) == (b"frame"[:after], True)
        reader, writer = await connect()
        writer.write(b"frame")
        assert await ended(reader) == (b"frame"[:after], True)
        reader, writer = await connect()
        writer.write(b"whole")
        assert await said(reader, 5) == b"whole"


async def test_cut_of_a_request_and_cut_by_hand_reach_the_peer_as_a_reset():
    async with world() as (echo, proxy, connect):
        reader, writer = await connect()
        proxy.to_peer = Cut(2)
        writer.write(b"frame")
        await ended(reader)
        await until(lambda: echo.n_resets == 1, "the peer is reset")
        assert b"".join(echo.heard) == b"fr"
        reader, writer = await connect()
        writer.write(b"whole")
        await said(reader, 5)
        proxy.cut()
        assert (await ended(reader))[1]


async def test_silence_loses_and_says_nothing_until_the_client_gives_up():
    async with world() as (echo, proxy, connect):
        reader, writer = await connect()
        proxy.to_client = Silence(after=2)
        writer.write(b"frame")
        assert await said(reader, 2) == b"fr"
        echo.writers[0].close()
        assert await is_quiet(reader), "the end of the peer is not told either"
        proxy.heal()
        assert await is_quiet(reader), "what is lost can't come again"
        writer.close()
        await until(lambda: proxy.n_open == 0, "the connection is gone")
        reader, writer = await connect()
        writer.write(b"whole")
        assert await said(reader, 5) == b"whole"


async def test_silence_towards_the_peer_takes_what_comes():
    async with world() as (echo, proxy, connect):
        proxy.to_peer = Silence()
        reader, writer = await connect()
        writer.write(b"frame")
        assert await is_quiet(reader)
        assert echo.heard == []


async def test_hold_gives_everything_back_in_order():
    async with world() as (echo, proxy, connect):
        reader, writer = await connect()
        proxy.to_client = Hold()
        for text in (b"a", b"b", b"c"):
            writer.write(text)
            await until(lambda t=text: b"".join(echo.heard).endswith(t), "the peer has it")
        assert await is_quiet(reader)
        proxy.heal()
        assert await said(reader, 3) == b"abc"


async def test_late_delays_one_chunk_and_what_is_behind_it():
    async with world() as (_, proxy, connect):
        reader, writer = await connect()
        proxy.to_client = Late(0.15)
        began_ns = monotonic_ns()
        writer.write(b"a")
        await until(lambda: not proxy.to_client.times, "it is on its way")
        writer.write(b"b")
        assert await said(reader, 2) == b"ab"
        assert monotonic_ns() - began_ns > 0.14e9
        began_ns = monotonic_ns()
        writer.write(b"c")
        await said(reader, 1)
        assert monotonic_ns() - began_ns < 0.1e9


async def test_slow_takes_its_time_for_chunks_and_for_bytes():
    async with world() as (_, proxy, connect):
        reader, writer = await connect()
        for fault in (Slow(delay_s=0.1), Slow(bytes_per_s=1_000)):
            proxy.to_client = fault
            began_ns = monotonic_ns()
            writer.write(bytes(100))
            await said(reader, 100)
            assert 0.08e9 < monotonic_ns() - began_ns < 1e9


async def test_split_gives_the_reader_a_byte_at_a_time():
    async with world() as (echo, proxy, connect):
        _, writer = await connect()
        proxy.to_peer = Split(1)
        writer.write(b"0123456789")
        await until(lambda: b"".join(echo.heard) == b"0123456789", "all of it came")
        assert len(echo.heard) >= 8


async def test_coalesce_joins_what_comes_close_together():
    async with world() as (echo, proxy, connect):
        _, writer = await connect()
        proxy.to_peer = Coalesce(0.1)
        for n in range(5):
            writer.write(b"%d" % n)
            await proxy.clock.sleep(0.005)
        await until(lambda: b"".join(echo.heard) == b"01234", "all of it came")
        assert len(echo.heard) == 2, "the first, and the others together"


async def test_duplicates_and_changed_order():
    async with world() as (echo, proxy, connect):
        _, writer = await connect()
        proxy.to_peer = Duplicate()
        for n, text in enumerate((b"a", b"b")):
            writer.write(text)
            await until(lambda n=n: proxy.n_bytes["to_peer"] == n + 1, "the proxy has it")
        await until(lambda: b"".join(echo.heard) == b"aab", "twice, then once")
        proxy.to_peer = Reorder()
        for n, text in enumerate((b"c", b"d", b"e")):
            writer.write(text)
            await until(lambda n=n: proxy.n_bytes["to_peer"] == n + 3, "the proxy has it")
        await until(lambda: b"".join(echo.heard) == b"aabdce", "the second before the first")


async def test_garbage_has_a_seed_and_rewriting_a_hook():
    found = []
    for seed in (1, 1, 2):
        async with world(seed=seed) as (_, proxy, connect):
            reader, writer = await connect()
            proxy.to_client = Garbage(8)
            writer.write(b"abc")
            found.append(await said(reader, 11))
    assert found[0] == found[1] != found[2]
    assert {one[8:] for one in found} == {b"abc"}
    async with world() as (_, proxy, connect):
        reader, writer = await connect()
        for fault, want in (
            (Garbage(b"!!"), b"!!frame"),
            (Rewrite(bytes.upper), b"FRAME"),
            (truncate(2), b"fra"),
        ):
            proxy.to_client = fault
            writer.write(b"frame")
            assert await said(reader, len(want)) == want
            writer.write(b"frame")
            assert await said(reader, 5) == b"frame", "once"


async def test_an_absent_peer_is_a_reset_and_stop_ends_all():
    async with world() as (echo, proxy, connect):
        reader, writer = await connect()
        writer.write(b"x")
        await said(reader, 1)
        await proxy.stop()
        await proxy.stop()
        await ended(reader)
        assert proxy.n_open == 0
        port = proxy.port
        await echo.stop()
        await proxy.start()
        assert proxy.port == port
        reader, _ = await connect()
        assert (await ended(reader))[0] == b""


async def test_what_the_peer_said_last_arrives_before_the_end():
    async with world() as (echo, proxy, connect):
        reader, writer = await connect()
        proxy.to_client = Hold()
        writer.write(b"last words")
        await until(lambda: bool(echo.heard), "the peer has it")
        await until(lambda: proxy.n_bytes["to_client"] == 10, "the proxy has it")
        echo.writers[0].close()
        assert await ended(reader) == (b"last words", False)
    assert list(itertools.chain(proxy._links, proxy._releasing)) == []
