"""A door before the test cluster, which speaks neither TLS nor SASL: it does both, and hides where the cluster is.

It forwards whole frames. Answers name the door's port for the broker's, so that clients come through it each time. For a
user it says that the cluster can SASL, and answers SaslHandshake and SaslAuthenticate itself.
"""

import asyncio
import contextlib
import struct

_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36
_REFUSED = 58
_HOST = b"127.0.0.1"


class Door:
    """Parameters: the broker's address, a TLS context, and the one user with the password."""

    def __init__(self, broker, tls=None, user=None):
        self.target = int(broker.rpartition(":")[2])
        self.tls, self.user = tls, user
        self.port = 0
        self.told_port = 0  # what answers name, if not our own: somebody stands before us
        self.is_mute = False
        self.tasks = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        # A client that goes away is nothing to tell of.
        with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                await self.join(reader, writer, up_reader, up_writer)
            finally:
                up_writer.close()
        writer.close()

    async def join(self, reader, writer, up_reader, up_writer):
        asked = {}
        ways = [
            asyncio.ensure_future(self.requests(reader, writer, up_writer, asked)),
            asyncio.ensure_future(self.answers(up_reader, writer, asked)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def requests(self, reader, writer, up_writer, asked):
        is_in = self.user is None
        while True:
            frame = await read_frame(reader)
            key, _, number = struct.unpack_from(">hhi", frame)
            asked[number] = key
            body = frame[10 + max(0, struct.unpack_from(">h", frame, 8)[0]) :]
            if key == _HANDSHAKE:
                send(writer, number, struct.pack(">hi", 0, 1) + b"\0\x05PLAIN")
            elif key == _AUTHENTICATE:
                _, user, password = body[4:].split(b"\0")
                is_in = (user.decode(), password.decode()) == self.user
                text = b"" if is_in else b"who are you?"
                send(
                    writer, number, struct.pack(">hh", 0 if is_in else _REFUSED, len(text)) + text + bytes(12)
                )
            elif is_in or key == _API_VERSIONS:
                up_writer.write(struct.pack(">i", len(frame)) + frame)

    async def answers(self, up_reader, writer, asked):
        while True:
            frame = await read_frame(up_reader)
            number = struct.unpack_from(">i", frame)[0]
            if self.user is not None and asked.get(number) == _API_VERSIONS:
                # The cluster knows version 0 alone; where another was asked for it says so, with an error.
                error, n = struct.unpack_from(">hi", frame, 4)
                more = struct.pack(">hhhhhh", _HANDSHAKE, 0, 1, _AUTHENTICATE, 0, 1) * (not error)
                frame = frame[:6] + struct.pack(">i", n + len(more) // 6) + more + frame[10:]
            frame = frame.replace(
                _HOST + struct.pack(">i", self.target), _HOST + struct.pack(">i", self.told_port or self.port)
            )
            if not self.is_mute:
                writer.write(struct.pack(">i", len(frame)) + frame)


async def read_frame(reader):
    return await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])


def send(writer, number, body):
    writer.write(struct.pack(">ii", 4 + len(body), number) + body)
