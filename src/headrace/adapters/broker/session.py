"""Our session at a broker: connect, subscribe, lose, come back, for ever.

The session outlives its connections: the broker keeps what comes while we are away (clean start off, a stable
client id, an expiry), and what we had not acknowledged comes again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headrace.adapters.base import AdapterState
from headrace.adapters.broker.client import BrokerClient, OldBroker, Publication, Refused, Silent, Stay
from headrace.adapters.broker.config import BrokerAddress, BrokerSection
from headrace.adapters.broker.packets import NO_ID, RETAINED, Arrivals, TopicTable
from headrace.adapters.meters import Backoff, reason_of, seconds
from headrace.adapters.pacing import ConnectPacer
from headrace.core.clock import NO_TIME, NS, Clock
from headrace.core.errors import ConfigError, NotConnected
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode

_EXPIRY_S_MAX = 0xFFFF_FFFF
_log = logging.getLogger("headrace.adapters.broker")


class MessageTaker(Protocol):
    """Who takes the messages of a session."""

    def take(self, came: Arrivals) -> None:
        """Take messages in the order in which they came; must not raise."""
        ...

    def forget(self) -> None:
        """The broker has no session of ours: packet ids mean something new."""
        ...

    def refuse(self, reject: Reject, packet_id: int) -> None:
        """Keep what is no message, then acknowledge it, where it has a packet id and not `NO_ID`; must not raise."""
        ...


class Presence(Protocol):
    """What a session lets the broker's other clients know of itself."""

    def will(self) -> Publication:
        """What the broker says of us when the connection that is about to begin ends without our good-bye."""
        ...

    def arrived(self) -> Sequence[Publication]:
        """What to say once we have subscribed."""
        ...

    def leaving(self) -> Publication:
        """What to say before our good-bye."""
        ...


class BrokerSession:
    """Keeps one connection to the broker up; see `headrace.adapters.broker.inbox.Courier`.

    Parameters
    ----------
    filters : what to subscribe to.
    folder : where secret files lie. presence : what to say of us; None: nothing.

    ``pacer`` gives the turn to connect; several sessions may share one.
    """

    def __init__(
        self,
        name: str,
        config: BrokerSection,
        address: BrokerAddress,
        filters: list[str],
        folder: Path,
        clock: Clock,
        presence: Presence | None = None,
    ) -> None:
        self._presence = presence
        self._topics = TopicTable()
        self._name = name
        self._config = config
        self._address = address
        self._filters = filters
        self._folder = folder
        self._clock = clock
        self._backoff = Backoff(f"{name}:{address}", config.reconnect_first, config.reconnect_most)
        self._client: BrokerClient | None = None
        self._is_told = False
        self._was_connected = False
        self._is_ready = False
        self._is_paused = False
        self._ended = asyncio.Event()
        self._end_reason = ""
        self._drop_reason = ""
        self._version = "3.1.1" if config.version == "3.1.1" else "5"
        self.generation = 0
        self.n_connects = 0
        self._closed_cpu_ns = 0
        self.state = AdapterState.STARTING
        self.reason = ""
        self.since_ns = clock.now_ns()
        self._retry_ns = NO_TIME
        self.pacer = ConnectPacer()

    async def run(self, receiver: MessageTaker) -> None:
        """Stay connected until cancelled; `receiver` takes the messages."""
        while True:
            try:
                await self._connect(receiver)
                await self._ended.wait()
                reason = self._end_reason
                state = AdapterState.BACKOFF
            except OldBroker as e:
                reason, state = str(e), AdapterState.FAILED
                if self._config.version == "auto":
                    self._version = "3.1.1"
                    await self.close()
                    continue
            except Silent as e:
                reason, state = str(e), AdapterState.BACKOFF
                if self._config.version == "auto" and not self._was_connected:
                    self._version = "5" if self._version == "3.1.1" else "3.1.1"
            except (Refused, ConfigError) as e:
                reason, state = str(e), AdapterState.FAILED
            except NotConnected as e:
                reason, state = self._drop_reason or str(e), AdapterState.BACKOFF
            except Exception as e:
                _log.exception("adapter=%s broker=%s: connecting failed", self._name, self._address)
                reason, state = f"internal error: {e!r}", AdapterState.FAILED
            await self.close()
            self._lost(reason, state)
            await self._clock.sleep(seconds(max(0, self._retry_ns - self._clock.now_ns())))

    async def close(self) -> None:
        """Close the connection; the session at the broker stays."""
        client, self._client = self._client, None
        if client is not None:
            self._closed_cpu_ns += client.cpu_ns
            await client.close()

    @property
    def transport_ns(self) -> int:
        """CPU of taking packets from what was received so far."""
        return self._closed_cpu_ns + (0 if self._client is None else self._client.cpu_ns)

    async def leave(self) -> None:
        """Say that we go, then close."""
        if self._presence is not None:
            self.publish(self._presence.leaving())
        await self.close()

    def publish(self, publication: Publication) -> bool:
        """Say something to the broker's other clients; False where there is no connection to say it on."""
        client = self._client
        if client is None or not self._is_ready or self._ended.is_set():
            return False
        client.send(publication)
        return True

    async def _connect(self, receiver: MessageTaker) -> None:
        config = self._config
        self.generation += 1
        self._is_ready = False
        self._drop_reason = ""
        self._ended.clear()
        tls = tls_context(self._address) if self._address.is_tls else None
        properties: dict[str, int] = {}
        if self._version == "5":
            expiry_s = min(config.session_expiry // NS, _EXPIRY_S_MAX)
            properties = {"session_expiry_interval": expiry_s, "receive_maximum": config.receive_maximum}
        client_id = config.client_id or f"headrace-{self._name}"
        client = BrokerClient(
            client_id, partial(self._on_session, receiver), partial(self._on_messages, receiver), self._on_lost,
            Stay.LASTING, None if self._presence is None else self._presence.will(), self._topics, **properties,
        )  # fmt: skip
        client.on_unread = partial(self._on_unread, receiver)
        client.log_in_as(config, self._folder)
        self._client = client
        address = self._address.host, self._address.port
        await self.pacer.turn()
        await client.open(address, tls, config.keepalive, self._version)
        refused = await client.subscribe_all(self._filters, config.qos, config.take_retained)
        if len(refused) == len(self._filters):
            raise Refused(f"the broker refuses our subscriptions: {', '.join(refused)}")
        self._backoff.reset()
        self._was_connected = self._is_ready = True
        for publication in self._presence.arrived() if self._presence is not None else ():
            client.send(publication)
        if self._is_paused:
            self.pause()
        if refused:
            self._enter(AdapterState.DEGRADED, f"the broker refuses: {', '.join(refused)}")
        else:
            self._enter(AdapterState.CONNECTED, "")
        if self._is_told:
            self._is_told = False
            _log.info("adapter=%s broker=%s is back", self._name, self._address)

    def _enter(self, state: AdapterState, reason: str) -> None:
        if state is not self.state:
            self.since_ns = self._clock.now_ns()
        self.state, self.reason = state, reason

    def _lost(self, reason: str, state: AdapterState) -> None:
        self._enter(state, reason)
        self._retry_ns = self._clock.now_ns() + self._backoff.next_ns()
        if not self._is_told:
            self._is_told = True
            _log.warning(
                "adapter=%s broker=%s lost: %s; retrying until it answers", self._name, self._address, reason
            )

    # --- called by the client ------------------------------------------------------------------------

    def _on_session(self, receiver: MessageTaker, is_resumed: bool) -> None:
        self.n_connects += 1  # before its first message, which may come with the broker's answer
        if not is_resumed:
            receiver.forget()

    def _on_messages(self, receiver: MessageTaker, came: Arrivals) -> None:
        if came.marks & RETAINED and not self._config.take_retained:
            is_kept = came.flags & RETAINED != 0
            ids = came.packet_ids[is_kept & (came.packet_ids != NO_ID)]
            if len(ids):
                self.acknowledge(ids)
            came = came.where(~is_kept)
        if len(came):
            receiver.take(came)

    def _on_unread(self, receiver: MessageTaker, packet: bytes, why: str, packet_id: int) -> None:
        detail = f"a PUBLISH packet of {self._address} can't be read: {why}"
        now_ns = self._clock.now_ns()
        reject = Reject(RejectCode.MALFORMED, self._name, "", detail, packet[:MAX_RAW_BYTES], now_ns)
        receiver.refuse(reject, packet_id)

    def _on_lost(self, reason: str) -> None:
        self._end_reason = reason
        self._ended.set()

    # --- called by the inbox -------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether the present connection stands, as far as we know."""
        return self._client is not None and not self._ended.is_set()

    def acknowledge(self, packet_ids: npt.NDArray[np.int64]) -> None:
        """Acknowledge messages of the present connection, if it still stands."""
        if self._client is not None and self.is_up:
            self._client.acknowledge(packet_ids)

    def pause(self) -> None:
        """Read no more for now; but until we have subscribed there are answers to wait for."""
        self._is_paused = True
        if self._client is not None and self._is_ready and not self._ended.is_set():
            self._client.pause()

    def resume(self) -> None:
        """Read again."""
        self._is_paused = False
        if self._client is not None and self._is_ready and not self._ended.is_set():
            self._client.resume()

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read for now."""
        return self._is_paused

    def drop(self, reason: str) -> None:
        """End the connection: what it brought can't be taken and has to come again."""
        self._drop_reason = reason
        self._on_lost(reason)
        if self._client is not None:
            self._client.give_up()

    @property
    def retry_ns(self) -> int:
        """When the next attempt is due; `NO_TIME` while connected."""
        return self._retry_ns if self.state in (AdapterState.BACKOFF, AdapterState.FAILED) else NO_TIME


def tls_context(address: BrokerAddress) -> ssl.SSLContext:
    """Trust and our own certificate; read anew for each connection, for certificates get renewed.

    Raises
    ------
    ConfigError : a file is no certificate, or certificate and key don't belong together.
    """
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file is not None:
            context.load_cert_chain(address.cert_file, address.key_file)
    except OSError as e:
        raise ConfigError(f"TLS files can't be used: {reason_of(e)}") from e
    return context
