"""Listening to a broker for some seconds: which topics come, what they carry, what the rules make of it.

A session of its own, which the broker forgets at the end, at QoS 0: the adapter's session and its messages are not
touched. What is decoded here goes into a directory that is thrown away.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from headrace.adapters.mqtt.client import BrokerClient, OldBroker, Silent, Stay
from headrace.adapters.mqtt.config import BrokerAddress, MqttConfig
from headrace.adapters.mqtt.session import tls_context
from headrace.adapters.payloads.base import TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.probing import made_of, rule_of, shown
from headrace.adapters.payloads.router import MessageRouter, TopicRule
from headrace.core.clock import NS, Clock
from headrace.core.errors import ConfigError, NotConnected
from headrace.core.paths import parse_duration_ns
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory

WANTED = ("topic", "for")
LISTEN = "5s"
TOPICS_MAX = 500
_LISTEN_NS_MAX = 60 * NS
_KEPT_BYTES = 256 << 10


@dataclass(eq=False)
class HeardTopic:
    """One topic: how many messages came, and the newest."""

    n_messages: int
    newest: TopicMessage
    n_bytes: int


@dataclass(eq=False)
class Ear:
    """Takes what comes, bounded: the first 500 topics, 256 KiB of each newest message."""

    clock: Clock
    topics: dict[str, HeardTopic] = field(default_factory=dict)
    n_messages: int = 0
    n_other_topics: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def take(
        self, topic: str, payload: bytes, packet_id: int | None, is_again: bool, is_retained: bool
    ) -> None:
        """Take one message."""
        self.n_messages += 1
        message = TopicMessage(topic, payload[: _KEPT_BYTES + 1], self.clock.now_ns())
        known = self.topics.get(topic)
        if known is not None:
            known.n_messages, known.newest, known.n_bytes = known.n_messages + 1, message, len(payload)
        elif len(self.topics) < TOPICS_MAX:
            self.topics[topic] = HeardTopic(1, message, len(payload))
        else:
            self.n_other_topics += 1


@dataclass(frozen=True, slots=True)
class Listening:
    """What to listen to, and for how long.

    Parameters
    ----------
    filters : MQTT's own, with + and #. listen_ns : in real time.
    """

    filters: tuple[str, ...]
    listen_ns: int

    @classmethod
    def of(cls, wanted: Mapping[str, str], rules: Sequence[TopicRule]) -> Listening:
        """From ``topic`` (default: what the rules subscribe to) and ``for``.

        Raises
        ------
        ConfigError : an unknown word, a filter that is none, or a time that is too long.
        """
        for key in wanted:
            if key not in WANTED:
                raise ConfigError(f"an mqtt probe knows no {key!r}{nearest(key, list(WANTED))}", key)
        topic = wanted.get("topic", "")
        levels = topic.split("/")
        if "#" in "".join(levels[:-1]) or any(len(n) > 1 and ("+" in n or "#" in n) for n in levels):
            raise ConfigError(
                f"{topic!r} is no filter: + stands for one level, # for the rest at the end", "topic"
            )
        listen_ns = parse_duration_ns(wanted.get("for", LISTEN))
        if not 0 < listen_ns <= _LISTEN_NS_MAX:
            raise ConfigError("listen for at most 60s", "for")
        return cls((topic,) if topic else tuple(r.pattern.filter for r in rules), listen_ns)


async def listen(
    ear: Ear, listening: Listening, config: MqttConfig, address: BrokerAddress, folder: Path, client_id: str
) -> None:
    """Connect, subscribe, hear what comes for a while, and leave nothing behind.

    Raises
    ------
    NotConnected : the broker is away, or refuses us or every filter. ConfigError : a secret can't be read.
    """
    versions = ("5", "3.1.1") if config.version == "auto" else (config.version,)
    client = await _opened(versions, partial(_client, ear, config, folder, client_id), config, address)
    try:
        refused = await client.subscribe_all(listening.filters, 0, take_retained=True)
        if len(refused) == len(listening.filters):
            raise NotConnected(f"the broker refuses our subscriptions: {', '.join(refused)}")
        await asyncio.wait_for(ear.lost.wait(), listening.listen_ns / NS)
        raise NotConnected("the broker closed the connection while we listened")
    except TimeoutError:
        return
    finally:
        await client.close()


async def _opened(
    versions: tuple[str, ...], make: Callable[[str], BrokerClient], config: MqttConfig, address: BrokerAddress
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


def _client(ear: Ear, config: MqttConfig, folder: Path, client_id: str, version: str) -> BrokerClient:
    properties = {"session_expiry_interval": 0} if version == "5" else {}
    # The id is not the adapter's: a broker ends the older of two clients with one id.
    client = BrokerClient(
        f"{client_id}-probe-{os.getpid()}", lambda kept: None, ear.take, lambda reason: ear.lost.set(), Stay.BRIEF,
        **properties,
    )  # fmt: skip
    if config.user is not None:
        password = None if config.password is None else config.password.read(folder)
        client.set_auth_credentials(config.user, password)
    return client


def heard(ear: Ear, name: str, rules: Sequence[TopicRule]) -> dict[str, Any]:
    """What was heard and what the rules make of each topic's newest message, JSON-ready; times in ns."""
    directory = SensorDirectory()
    router = MessageRouter(name, rules, DeviceGroups(directory, TOPICS_MAX))
    topics = []
    for topic, one in sorted(ear.topics.items()):
        found = {
            "topic": topic,
            "messages": one.n_messages,
            "payload": shown(one.newest.payload),
            "payload_bytes": one.n_bytes,
            "rule": rule_of(topic, rules),
            "values": [],
            "problems": [],
        }
        if one.n_bytes > _KEPT_BYTES:
            found["problems"] = [f"too large to look into here: {one.n_bytes:,} bytes"]
        else:
            found.update(made_of(router, [one.newest], directory))
        topics.append(found)
    return {"messages": ear.n_messages, "topics": topics, "messages_of_other_topics": ear.n_other_topics}
