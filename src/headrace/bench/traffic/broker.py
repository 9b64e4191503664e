"""What traffic through a broker has in common: the broker, devices that publish, the bare client."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headrace.adapters.base import Ack, Adapter, AdapterState
from headrace.adapters.broker.client import BrokerClient, Stay
from headrace.adapters.broker.config import BrokerAddress, BrokerSection
from headrace.adapters.broker.inbox import Gathered, Inbox, MessageDecoder
from headrace.adapters.broker.packets import PacketFramer, TopicTable
from headrace.adapters.broker.session import BrokerSession, MessageTaker
from headrace.adapters.broker.simulator import SimulatedBroker
from headrace.adapters.mqtt.simulator import PublishingDevice
from headrace.adapters.payloads.base import Decoded
from headrace.bench.traffic.base import Count, Peer
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import HeadraceError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

_WAIT_S = 20.0
_VERSION_5 = 5


class BrokerTraffic:
    """Traffic through mosquitto: what publishes, and clients that have not been there before.

    Parameters
    ----------
    publisher : the peer, ``publisher(pipe, port, n_feeds)``; see `publish_feeds`.
    """

    n_feeds: int

    def __init__(self, publisher: Callable[[Connection, int, int], None]) -> None:
        self._publisher = publisher
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._broker: SimulatedBroker | None = None
        self._peer: Peer | None = None
        self._n_clients = 0
        self._is_listening = asyncio.Event()

    async def up(self) -> None:
        """Start broker and peer, and wait until what it sends is ready."""
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-bench-")
        self._broker = SimulatedBroker(Path(self._folder.name))
        await self._broker.start()
        self._peer = Peer(self._publisher, self._broker.port, self.n_feeds)
        await self._peer.ask(0)

    async def down(self) -> None:
        """End them."""
        if self._peer is not None:
            await self._peer.end()
        if self._broker is not None:
            await self._broker.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def connection(self) -> dict[str, Any]:
        """Where an adapter connects to, and by what name: another one each time."""
        assert self._broker is not None
        self._n_clients += 1
        return {"url": self._broker.url, "client_id": f"bench-{self._n_clients}"}

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        """Have the peer publish, once the adapter has subscribed; the bare client where there is none."""
        assert self._peer is not None
        if adapter is None:
            async with asyncio.timeout(_WAIT_S):
                await self._is_listening.wait()
        else:
            clock = SystemClock()
            async with asyncio.timeout(_WAIT_S):
                while adapter.diagnostics().state is not AdapterState.CONNECTED:
                    await clock.sleep(0.01)
        await self._peer.ask(n_feeds)

    async def take(self, topics: str, count: Count, parse: Callable[[str, bytes], int]) -> None:
        """The bare client: gmqtt, QoS 1, until `count` is complete.

        Parameters
        ----------
        parse : parses a message and says how many samples that were.
        """
        import gmqtt

        async def on_message(client: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
            count.add(parse(topic, payload))
            return 0

        assert self._broker is not None
        client = gmqtt.Client(self.connection()["client_id"])
        client.on_message = on_message
        client.on_connect = lambda client, flags, code, properties: client.subscribe(topics, qos=1)
        client.on_subscribe = lambda client, mid, qos, properties: self._is_listening.set()
        await client.connect("127.0.0.1", self._broker.port)
        await count.complete.wait()
        self._is_listening.clear()
        await client.disconnect()


async def publish_feeds(
    pipe: Connection, port: int, ready: Sequence[tuple[str, bytes]], ends: Sequence[int]
) -> None:
    """The peer: asked for n feeds it publishes what is ready up to ``ends[n]``; for none, nothing."""
    device = PublishingDevice("bench-devices", "127.0.0.1", port)
    await device.start()
    while True:
        try:
            (n_feeds,) = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        pipe.send("begun")
        for topic, payload in ready[: ends[n_feeds] if n_feeds else 0]:
            await device.publish(topic, payload)
        await device.delivered()


# --- a message's whole way, without a broker ---------------------------------------------------------


def packets(messages: Sequence[tuple[str, bytes]]) -> bytes:
    """What a broker sends for messages: PUBLISH of QoS 1, version 5."""
    return b"".join(_packet(*message, number) for number, message in enumerate(messages, 1))


def _packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    name = topic.encode()
    body = b"".join([len(name).to_bytes(2, "big"), name, packet_id.to_bytes(2, "big"), b"\0", payload])
    head, length = bytearray([0x32]), len(body)
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*head, length]) + body


def decoding(decoder: MessageDecoder, messages: Sequence[tuple[str, bytes]]) -> Callable[[], Decoded]:
    """Decodes messages as the inbox does: what the framer has found becomes columns each time, and frames."""
    framer, data, at = PacketFramer(TopicTable()), packets(messages), 0
    gathered = Gathered(1)
    while at < len(data):
        came, at, _, _ = framer.next(data, at, True)
        assert came is not None
        gathered.add(came, SystemClock().now_ns(), 0)
    return lambda: decoder.decode(gathered.columns(), gathered.arrival_ns)


class KeepingSink:
    """Takes batches, which count as durable at once, and keeps them until somebody takes them."""

    def __init__(self, directory: SensorDirectory) -> None:
        self.directory = directory
        self.clock: Clock = SystemClock()
        self._batches: list[FrameBatch] = []

    async def emit(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Take a batch."""
        self._batches.append(batch)
        if ack is not None:
            ack()

    async def reject(self, reject: Reject, ack: Ack | None = None) -> None:
        """Never. Raises HeadraceError."""
        raise HeadraceError(f"the benchmark's own traffic is refused: {reject.detail}")

    def has_credit(self, n_samples: int) -> bool:
        """Always."""
        return True

    def taken(self) -> list[FrameBatch]:
        """What has come since the last call."""
        taken, self._batches = self._batches, []
        return taken


class _Wire:
    """The end of a connection: what is written is thrown away."""

    def __init__(self) -> None:
        self._last_data_in = 0.0
        self._transport = self

    def send_package(self, data: bytes) -> None:
        """Nothing."""

    def pause_reading(self) -> None:
        """Nothing."""

    def resume_reading(self) -> None:
        """Nothing."""


class DeskSession(BrokerSession):
    """An adapter's session whose broker is bytes in memory: all of the real one but the connection."""

    def __init__(self, config: BrokerSection) -> None:
        address = BrokerAddress("127.0.0.1", 1_883, False, None, None, None)
        super().__init__("bench", config, address, [], Path(), SystemClock())

    def way(
        self, sink: KeepingSink, inbox: Inbox, receiver: MessageTaker
    ) -> Callable[[bytes], list[FrameBatch]]:
        """What takes bytes of a connection as one slice: to frames in the sink and the acknowledgement written."""
        taking = partial(self._on_messages, receiver)
        client = BrokerClient("bench", lambda kept: None, taking, lambda reason: None, Stay.BRIEF)
        client._connection_state.protocol_version = _VERSION_5
        wire = client._connection = _Wire()
        self._client, self._is_ready = client, True

        def take(data: bytes) -> list[FrameBatch]:
            client._read(wire, data)
            _at_once(inbox.hand_on())
            return sink.taken()

        return take


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """Do what waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise HeadraceError("a sink that keeps nothing was waited for")


def bare_way(parse: Callable[[bytes], Any]) -> Callable[[bytes], list[Any]]:
    """The same through gmqtt as it is: packets, a plain function for each message that parses it, the acknowledgement."""
    import gmqtt
    from gmqtt.mqtt.package import CommandWithMidPacket
    from gmqtt.mqtt.protocol import MQTTProtocol

    values: list[Any] = []
    client = gmqtt.Client("bench")
    client._connection_state.protocol_version = _VERSION_5
    client.on_message = lambda client, topic, payload, qos, properties: values.append(parse(payload))

    class Wire:
        """A connection's end that builds what it would write."""

        @staticmethod
        def put_package(package: Any) -> None:
            """Have it handled."""
            client._package_handler(package)

        @staticmethod
        def send_command_with_mid(cmd: int, mid: int, dup: bool, reason_code: int = 0) -> None:
            """Build an acknowledgement."""
            CommandWithMidPacket.build_package(cmd, mid, dup, reason_code=reason_code, proto_ver=_VERSION_5)

    client._connection = Wire

    class Protocol:
        """What gmqtt's framing is a method of."""

        _connection = Wire

    def take(data: bytes) -> list[Any]:
        values.clear()
        MQTTProtocol._read_packet(Protocol, data)
        return values

    return take
