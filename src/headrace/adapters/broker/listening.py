"""Listening to a broker for some seconds, by a session of its own, which the broker forgets at the end.

At QoS 0: the adapter's session and its messages are not touched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from headrace.adapters.broker.client import BrokerClient, OldBroker, Publication, Silent, Stay
from headrace.adapters.broker.config import BrokerAddress, BrokerSection
from headrace.adapters.broker.packets import Arrivals
from headrace.adapters.broker.session import tls_context
from headrace.adapters.payloads.base import TopicMessage
from headrace.core.clock import NS, Clock
from headrace.core.errors import ConfigError, NotConnected
from headrace.core.paths import parse_duration_ns

LISTEN = "5s"
TOPICS_MAX = 500
_LISTEN_NS_MAX = 60 * NS
KEPT_BYTES = 256 << 10


class Listener(Protocol):
    """Who hears what a broker brings."""

    lost: asyncio.Event
    """Set when the connection ends by itself."""

    def joined(self, publish: Callable[[Publication], None]) -> None:
        """We have subscribed; `publish` says something to the broker's clients, as long as we listen."""
        ...

    def take(self, came: Arrivals) -> None:
        """Take messages in the order in which they came; must not raise."""
        ...


@dataclass(eq=False)
class HeardTopic:
    """One topic: how many messages came, and the newest."""

    n_messages: int
    newest: TopicMessage
    n_bytes: int


@dataclass(eq=False)
class Ear:
    """Takes what comes, bounded: the first 500 topics, 256 KiB of each newest message, where it is not said otherwise."""

    clock: Clock
    topics_max: int = TOPICS_MAX
    kept_bytes: int = KEPT_BYTES
    topics: dict[str, HeardTopic] = field(default_factory=dict)
    n_messages: int = 0
    n_other_topics: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def joined(self, publish: Callable[[Publication], None]) -> None:
        """Say nothing."""

    def take(self, came: Arrivals) -> None:
        """Take messages."""
        for topic, payload in zip(came.topics, came.payloads, strict=True):
            self._take(topic, payload)

    def _take(self, topic: str, payload: bytes) -> None:
        self.n_messages += 1
        message = TopicMessage(topic, payload[: self.kept_bytes + 1], self.clock.now_ns())
        known = self.topics.get(topic)
        if known is not None:
            known.n_messages, known.newest, known.n_bytes = known.n_messages + 1, message, len(payload)
        elif len(self.topics) < self.topics_max:
            self.topics[topic] = HeardTopic(1, message, len(payload))
        else:
            self.n_other_topics += 1


def listening_ns(wanted: Mapping[str, str]) -> int:
    """How long to listen, from ``for`` (default 5s). Raises ConfigError where that is too long."""
    listen_ns = parse_duration_ns(wanted.get("for", LISTEN))
    if not 0 < listen_ns <= _LISTEN_NS_MAX:
        raise ConfigError("listen for at most 60s", "for")
    return listen_ns


async def listen(
    ear: Listener,
    listening: tuple[Sequence[str], int],
    config: BrokerSection,
    address: BrokerAddress,
    folder: Path,
    client_id: str,
) -> None:
    """Connect, subscribe, hear what comes for a while, and leave nothing behind.

    Parameters
    ----------
    listening : filters, and for how many nanoseconds of real time.

    Raises
    ------
    NotConnected : the broker is away, or refuses us or every filter. ConfigError : a secret can't be read.
    """
    filters, listen_ns = listening
    versions = ("5", "3.1.1") if config.version == "auto" else (config.version,)
    client = await _opened(versions, partial(_client, ear, config, folder, client_id), config, address)
    try:
        refused = await client.subscribe_all(filters, 0, take_retained=True)
        if len(refused) == len(filters):
            raise NotConnected(f"the broker refuses our subscriptions: {', '.join(refused)}")
        ear.joined(client.send)
        lost = asyncio.ensure_future(ear.lost.wait())
        try:
            is_lost, _ = await asyncio.wait([lost], timeout=listen_ns / NS)
        finally:
            lost.cancel()
        if is_lost:
            raise NotConnected("the broker closed the connection while we listened")
    finally:
        await client.close()


async def _opened(
    versions: tuple[str, ...],
    make: Callable[[str], BrokerClient],
    config: BrokerSection,
    address: BrokerAddress,
) -> BrokerClient:
    """A client that is logged in, by the first version that the broker speaks."""
    client = make(versions[0])
    try:
        tls = tls_context(address) if address.is_tls else None
        await client.open((address.host, address.port), tls, config.keepalive, versions[0])
    except BaseException as e:
        await client.close()
        if not isinstance(e, (OldBroker, Silent)) or len(versions) == 1:
            raise
        return await _opened(versions[1:], make, config, address)
    return client


def _client(ear: Listener, config: BrokerSection, folder: Path, client_id: str, version: str) -> BrokerClient:
    properties = {"session_expiry_interval": 0} if version == "5" else {}
    # The id is not the adapter's: a broker ends the older of two clients with one id.
    client = BrokerClient(
        f"{client_id}-probe-{os.getpid()}", lambda kept: None, ear.take, lambda reason: ear.lost.set(), Stay.BRIEF, None, None,
        **properties,
    )  # fmt: skip
    client.log_in_as(config, folder)
    return client
