"""gmqtt, changed in four points that its own interface does not reach (written for gmqtt 0.8).

* **Messages by columns.** PUBLISH packets are taken out of the bytes many at a time (`headrace.adapters.broker.packets`);
  connecting, subscribing, signs of life and whatever is no plain message is gmqtt's.

* **Packet ids.** gmqtt acknowledges a message when the coroutine that handles it returns. That costs a task
  for each message and does not tell the packet id, without which a message that comes again can't be recognised.
  Here we get the id at once and write the acknowledgements, many in one packet of bytes. We subscribe to no QoS 2, but a
  session may have an older subscription that does: PUBREC is its acknowledgement.
* **One client, one connection.** gmqtt's own reconnection would let a handler of the old connection acknowledge a
  packet id on the new one, where the broker may have given the id to another message: that message would be lost.
  So it never reconnects; a new connection is a new client.
* **Paused reading.** While a slice is being taken the socket is not read, so the broker feels our pace also at
  QoS 0, and what arrives meanwhile is read at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gmqtt
import numpy as np
import numpy.typing as npt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.mqtt.package import Package

from headrace.adapters.broker.config import BrokerSection
from headrace.adapters.broker.packets import (
    BROKEN,
    MORE,
    NEW_TOPIC,
    NO_ID,
    OTHER,
    Arrivals,
    PacketFramer,
    TopicTable,
    flaw_of,
    one_arrival,
)
from headrace.adapters.meters import reason_of
from headrace.core.clock import NS, monotonic_ns, thread_cpu_ns
from headrace.core.errors import NotConnected, PluginError

_PUBLISH, _QOS_2 = 0x30, 0x04
_PUBACK = 0x40_02_00_00
_PUBREC = 0x50_02_00_00
_HANDLERS = "_handle_qos_1_publish_packet", "_handle_qos_2_publish_packet"
CONNECT_S = 5.0
_CLOSE_S = 0.5
_DELIVERED_S = 30.0
# What matters of it we say ourselves, once.
logging.getLogger("gmqtt").setLevel(logging.CRITICAL)

OnMessages = Callable[[Arrivals], None]
OnUnread = Callable[[bytes, str, int], None]
"""Takes a PUBLISH packet that can't be read, why, and its packet id, or `NO_ID`; it is acknowledged as messages are."""


class Stay(StrEnum):
    """What the broker does with our session when the connection ends."""

    LASTING = "lasting"
    """It keeps the session, and QoS 1 messages that come meanwhile."""
    BRIEF = "brief"
    """It forgets us."""


class Refused(NotConnected):
    """The broker, or its certificate, won't have us: someone has to change something."""


class OldBroker(NotConnected):
    """The broker does not speak MQTT 5."""


class Silent(NotConnected):
    """The broker takes the connection and does not answer: it is stuck, or stumbles over MQTT 5 (amqtt does)."""


class Publication(NamedTuple):
    """What we say to a broker's other clients."""

    topic: str
    payload: bytes
    qos: int = 0
    is_retained: bool = False


class SingleConnection(gmqtt.Client):  # type: ignore[misc]
    """A client that ends with its connection."""

    async def reconnect(self, delay: bool = False) -> None:
        """Called by gmqtt when the connection is lost or the version refused; does nothing."""

    async def delivered(self) -> None:
        """Wait until the broker has acknowledged everything that was sent at QoS 1.

        Raises
        ------
        NotConnected : it has not within 30 s; on a lost connection it never will.
        """
        try:
            async with asyncio.timeout(_DELIVERED_S):
                await self._persistent_storage.wait_empty()
        except TimeoutError as e:
            n_waiting = len(self._persistent_storage.get_all())
            raise NotConnected(
                f"{n_waiting} messages not acknowledged by the broker within {_DELIVERED_S:g} s"
            ) from e


class BrokerClient(SingleConnection):
    """One connection to a broker.

    Parameters
    ----------
    on_session : called when the broker has let us in, before any message: whether it kept our session.
    on_messages : called with messages in the order in which they come, must not raise.
    on_lost : called with the reason when the connection ends by itself.
    stay : whether the broker keeps the session when the connection ends, and what came meanwhile.
    will : what the broker publishes when the connection ends without our good-bye.
    topics : what is known of topics from earlier connections.

    Attributes
    ----------
    on_unread : called with a message that can't be read, must not raise. cpu_ns : CPU of reading packets so far.

    Raises
    ------
    PluginError : gmqtt is of another make, by which messages would be acknowledged before they are durable.
    """

    def __init__(
        self,
        client_id: str,
        on_session: Callable[[bool], None],
        on_messages: OnMessages,
        on_lost: Callable[[str], None],
        stay: Stay,
        will: Publication | None = None,
        topics: TopicTable | None = None,
        **properties: Any,
    ) -> None:
        message = will and gmqtt.Message(will.topic, will.payload, qos=will.qos, retain=will.is_retained)
        super().__init__(
            client_id,
            clean_session=stay is Stay.BRIEF,
            optimistic_acknowledgement=False,
            will_message=message,
            **properties,
        )
        self.cpu_ns = 0
        self._tell_session = on_session
        self._take = on_messages
        self.on_unread: OnUnread = _unread
        self._is_read = False
        self._framer = PacketFramer(topics or TopicTable())
        self._tell_lost = on_lost
        self._answered = asyncio.Event()
        self._lost = asyncio.Event()
        self._granted: Sequence[int] = ()
        self._is_five = True
        self._is_in = False
        self._of_qos_2: set[int] = set()
        handler = self._package_handler
        if not all(hasattr(handler, name) for name in _HANDLERS):
            raise PluginError(
                f"gmqtt {gmqtt.__version__} takes messages otherwise than 0.8, for which this is written"
            )
        handler._handle_qos_1_publish_packet = self._on_qos_1
        handler._handle_qos_2_publish_packet = self._on_qos_2
        self.on_message = self._on_qos_0
        self.on_connect = self._on_connect
        self.on_subscribe = self._on_subscribe
        self.on_disconnect = self._on_disconnect

    def log_in_as(self, config: BrokerSection, folder: Path) -> None:
        """Say who we are, if the configuration does. Raises ConfigError where the password can't be read."""
        if config.user is not None:
            password = None if config.password is None else config.password.read(folder)
            self.set_auth_credentials(config.user, password)

    async def open(
        self, address: tuple[str, int], tls: ssl.SSLContext | None, keepalive_ns: int, version: str
    ) -> None:
        """Connect and log in.

        Raises
        ------
        NotConnected : unreachable.
        Silent : no answer within 5 s.
        Refused : it answers, but does not let us in; the text says why.
        OldBroker : it wants version 3.1.1.
        """
        host, port = address
        self._is_five = version == "5"
        connecting = asyncio.ensure_future(
            self.connect(
                host, port, ssl=tls or False, keepalive=max(1, keepalive_ns // NS),
                version=MQTTv50 if self._is_five else MQTTv311,
            )
        )  # fmt: skip
        try:
            await _until(connecting, self._lost)
        except TimeoutError as e:
            raise Silent(f"it takes the connection, but no answer within {CONNECT_S:g} s") from e
        except NotConnected as e:
            if self._is_five and self._connection_state.protocol_version == MQTTv311:
                raise OldBroker("it does not speak MQTT 5") from e
            raise
        except ssl.SSLCertVerificationError as e:
            raise Refused(f"its certificate is not trusted: {e.verify_message}; see ca_file") from e
        except OSError as e:
            raise NotConnected(f"no connection: {reason_of(e)}") from e
        except gmqtt.mqtt.handler.MQTTConnectError as e:
            raise Refused(f"refused: {e.message.removeprefix('Connection Refused: ')}") from e

    async def subscribe_all(self, filters: Sequence[str], qos: int, take_retained: bool) -> list[str]:
        """Subscribe; the filters that the broker refused.

        Raises
        ------
        NotConnected : the connection was lost, or there was no answer within 5 s.
        """
        handling = 2 if self._is_five and not take_retained else 0
        self._answered.clear()
        self.subscribe(
            [gmqtt.Subscription(one, qos=qos, retain_handling_options=handling) for one in filters]
        )
        try:
            await _until(asyncio.ensure_future(self._answered.wait()), self._lost)
        except TimeoutError as e:
            raise NotConnected(f"no answer to the subscription within {CONNECT_S:g} s") from e
        return [one for one, code in zip(filters, self._granted, strict=False) if code >= 128]

    def send(self, publication: Publication) -> None:
        """Publish something; the connection must stand."""
        self.publish(
            publication.topic, publication.payload, qos=publication.qos, retain=publication.is_retained
        )

    def acknowledge(self, packet_ids: npt.NDArray[np.int64]) -> None:
        """Send PUBACK for each, PUBREC at QoS 2; ids of a lost connection must not come here."""
        acks = packet_ids | _PUBACK
        if self._of_qos_2:
            ids = packet_ids.tolist()
            acks = np.where([one in self._of_qos_2 for one in ids], packet_ids | _PUBREC, acks)
            self._of_qos_2.difference_update(ids)
        self._connection.send_package(acks.astype(">u4").tobytes())

    def pause(self) -> None:
        """Read no more from the socket."""
        self._connection._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        self._connection._transport.resume_reading()

    def give_up(self) -> None:
        """Wait for no answer any more."""
        self._lost.set()

    async def close(self) -> None:
        """Say good-bye, let the broker close, close; whatever it does, within half a second.

        A broker closes when it has read our good-bye, and so all our acknowledgements before it. Closed by us at once
        they may still lie unread when our next connection comes: mosquitto throws them away with the old connection,
        and sends again what was acknowledged.
        """
        self._tell_lost, self._take, self.on_unread = _nobody, _nothing, _unread
        connection = self._connection
        if connection is None:
            return
        try:
            if self._is_in:
                connection._transport.resume_reading()
                connection.send_disconnect()
                await asyncio.wait([connection._protocol.closed], timeout=_CLOSE_S)
        finally:
            connection._transport.abort()
        with contextlib.suppress(OSError):
            await self.disconnect()

    # --- called by gmqtt -----------------------------------------------------------------------------

    async def reconnect(self, delay: bool = False) -> None:
        """See the module's text. Called when the connection is lost or the version refused."""
        self._lost.set()

    async def _create_connection(self, *args: Any, **more: Any) -> Any:
        """A connection whose bytes are read here."""
        connection = await super()._create_connection(*args, **more)
        connection._protocol._read_packet = partial(self._read, connection)
        return connection

    def _read(self, connection: Any, data: bytes) -> int:
        """Take whole packets; how many bytes they are, -1 where these are no packets."""
        began_ns = thread_cpu_ns()
        try:
            return self._read_packets(connection, data)
        finally:
            self.cpu_ns += thread_cpu_ns() - began_ns

    def _read_packets(self, connection: Any, data: bytes) -> int:
        at, why, is_five = 0, NEW_TOPIC, self._connection_state.protocol_version == MQTTv50
        while why != MORE:
            found, at, why, end = self._framer.next(data, at, is_five)
            if found is not None:
                connection._last_data_in = monotonic_ns() / NS
                self._take(found)
            if why == BROKEN:
                # gmqtt would read no more, and wait for the end of its patience.
                self._lost.set()
                self._tell_lost("what it sends is no MQTT")
                return -1
            if why == OTHER:
                # Its first byte, then up to four of its length, each but the last with the highest bit set.
                start = at + 2
                while data[start - 1] & 0x80:
                    start += 1
                self._have_read(connection, data[at:end], data[start:end])
                at = end
        return at

    def _have_read(self, connection: Any, packet: bytes, body: bytes) -> None:
        """Have gmqtt read a packet. It passes over messages that it can't read, and says so to its own log only."""
        head, self._is_read = packet[0], False
        connection.put_package(Package(head, body))
        if head & 0xF0 == _PUBLISH and not self._is_read:
            why, packet_id = flaw_of(head, body)
            if head & _QOS_2 and packet_id != NO_ID:
                self._of_qos_2.add(packet_id)
            self.on_unread(packet, why, packet_id)

    def _on_qos_1(
        self, packet_id: int, payload: bytes, topic: str | bytes, properties: dict[str, Any]
    ) -> None:
        self._is_read = True
        is_again, is_retained = bool(properties["dup"]), bool(properties["retain"])
        self._take(one_arrival(_text(topic), bytes(payload), packet_id, is_again, is_retained))

    def _on_qos_2(
        self, packet_id: int, payload: bytes, topic: str | bytes, properties: dict[str, Any]
    ) -> None:
        self._of_qos_2.add(packet_id)
        self._on_qos_1(packet_id, payload, topic, properties)

    def _on_qos_0(
        self, client: gmqtt.Client, topic: str | bytes, payload: bytes, qos: int, properties: dict[str, Any]
    ) -> None:
        self._is_read = True
        self._take(one_arrival(_text(topic), bytes(payload), is_retained=bool(properties["retain"])))

    def _on_connect(self, client: gmqtt.Client, flags: int, code: int, properties: dict[str, Any]) -> None:
        self._is_in = True
        self._tell_session(bool(flags & 1))

    def _on_subscribe(
        self, client: gmqtt.Client, packet_id: int, granted: Sequence[int], properties: dict[str, Any]
    ) -> None:
        self._granted = granted
        self._answered.set()

    def _on_disconnect(self, client: gmqtt.Client, packet: object, exc: object = None) -> None:
        self._lost.set()
        self._tell_lost("closed by the broker")


async def _until(task: asyncio.Future[Any], lost: asyncio.Event) -> None:
    """Wait for `task`, but no longer than the connection lives or 5 s. Raises what it raises, or NotConnected."""
    losing = asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait({task, losing}, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        elif losing.done():
            raise NotConnected("closed by the broker before it answered")
        else:
            raise TimeoutError
    finally:
        task.cancel()
        losing.cancel()
        await asyncio.gather(task, losing, return_exceptions=True)


def _nobody(reason: str) -> None:
    """Takes the place of `on_lost` once we close ourselves."""


def _unread(packet: bytes, why: str, packet_id: int) -> None:
    """Nobody asks for what can't be read."""


def _nothing(came: Arrivals) -> None:
    """Takes the place of `on_messages` then: what is not acknowledged comes again."""


def _text(topic: str | bytes) -> str:
    return topic if isinstance(topic, str) else topic.decode("utf-8", "replace")
