"""A proxy before a broker that counts what is acknowledged."""

import asyncio
import contextlib
import itertools


class CountingProxy:
    """Forwards to a broker and counts the PUBACK packets that go there."""

    def __init__(self, port, target):
        self.port, self.target = port, target
        self.n_pubacks = 0
        self.server = None
        self.tasks = set()

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def stop(self):
        if self.server is not None:
            self.server.close()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await self.server.wait_closed()
            self.server = None

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await self.join(reader, writer)

    async def join(self, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.ensure_future(self.forward(reader, up_writer, True)),
            asyncio.ensure_future(self.forward(up_reader, writer, False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for one in (writer, up_writer):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def forward(self, reader, writer, is_counting):
        left = b""
        while data := await reader.read(65_536):
            left = self.count(left + data) if is_counting else b""
            writer.write(data)
            await writer.drain()

    def count(self, data):
        while len(data) >= 2:
            length, at = 0, 1
            for shift in itertools.count(0, 7):
                if at >= len(data):
                    return data
                length |= (data[at] & 0x7F) << shift
                at += 1
                if not data[at - 1] & 0x80:
                    break
            if len(data) < at + length:
                return data
            self.n_pubacks += data[0] & 0xF0 == 0x40
            data = data[at + length :]
        return data
