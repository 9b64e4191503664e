"""Our membership in a group: connect, consume, lose, come back, for ever.

The library keeps connections and membership by itself. What is done here: noticing that nobody answers, one line when
lost and one when back, slices of messages to the inbox one after the other, and holding the partitions while the sink
takes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import Message

from headrace.adapters.base import AdapterState
from headrace.adapters.kafka.client import KafkaClient, NotAdmitted, Spoilt
from headrace.adapters.kafka.config import KafkaConfig, StartAt, library_settings
from headrace.adapters.kafka.inbox import KafkaInbox, NotTaken
from headrace.adapters.kafka.ledger import OffsetLedger
from headrace.adapters.kafka.worker import Worker
from headrace.adapters.meters import Backoff, seconds
from headrace.adapters.pacing import ConnectPacer
from headrace.adapters.payloads.router import TopicRule
from headrace.core.clock import NO_TIME, Clock, monotonic_ns
from headrace.core.errors import ConfigError, NotConnected

ASK_S = 0.25
HOLD_S = 0.2
CLOSE_S = 0.7
_log = logging.getLogger("headrace.adapters.kafka")


class GroupSession:
    """Keeps us in the group.

    Parameters
    ----------
    rules : whose topics we subscribe to. folder : where files of secrets and certificates lie.
    pacer : gives the turn to connect.
    """

    def __init__(
        self,
        name: str,
        config: KafkaConfig,
        start: StartAt,
        rules: Sequence[TopicRule],
        folder: Path,
        clock: Clock,
        pacer: ConnectPacer | None = None,
    ) -> None:
        self._name = name
        self._config = config
        self._start = start
        self._rules = rules
        self._folder = folder
        self._clock = clock
        self._where = ",".join(config.brokers)
        self._backoff = Backoff(f"{name}:{self._where}", config.reconnect_first, config.reconnect_most)
        self._worker = Worker(f"kafka {name}")
        self._client: KafkaClient | None = None
        self._handing: asyncio.Future[None] | None = None
        self._is_told = False
        self._is_finishing = False
        self._is_lost = False
        self.ledger = OffsetLedger()
        self.state = AdapterState.STARTING
        self.reason = ""
        self.since_ns = clock.now_ns()
        self.n_holds = 0
        self.n_connects = 0
        self._pacer = pacer or ConnectPacer()
        self._retry_ns = NO_TIME

    @property
    def retry_ns(self) -> int:
        """When the next attempt is due; `NO_TIME` while connected."""
        return self._retry_ns if self.state in (AdapterState.BACKOFF, AdapterState.FAILED) else NO_TIME

    async def run(self, inbox: KafkaInbox) -> None:
        """Consume until `finish` is called."""
        while not self._is_finishing:
            try:
                await self._connect()
                await self._consume(inbox)
                continue
            except (NotAdmitted, ConfigError) as e:
                reason, state, is_over = str(e), AdapterState.FAILED, True
            except (NotTaken, Spoilt) as e:
                reason, state, is_over = str(e), AdapterState.BACKOFF, True
            except NotConnected as e:
                reason, state, is_over = str(e), AdapterState.BACKOFF, False
            except Exception as e:
                _log.exception("adapter=%s brokers=%s: consuming failed", self._name, self._where)
                reason, state, is_over = f"internal error: {e!r}", AdapterState.FAILED, True
            self._lost(reason, state)
            if is_over:
                await self._drop(is_reachable=not self._is_lost)
            await self._clock.sleep(seconds(max(0, self._retry_ns - self._clock.now_ns())))

    def finish(self) -> None:
        """Take no more; `run` returns when the sink has what came."""
        self._is_finishing = True

    async def close(self) -> None:
        """Commit what is durable, leave the group, end the thread."""
        is_reachable = self.state in (AdapterState.CONNECTED, AdapterState.DEGRADED)
        closing = asyncio.ensure_future(self._drop(is_reachable))
        await asyncio.wait([closing], timeout=CLOSE_S)
        closing.cancel()
        self._worker.end()

    # --- the consumer --------------------------------------------------------------------------------

    async def _connect(self) -> None:
        client = self._client
        if client is None:
            await self._pacer.turn()
            settings = library_settings(self._config, self._name, self._folder)
            timeout_s = seconds(self._config.timeout)

            def make() -> KafkaClient:
                return KafkaClient(settings, self.ledger, self._start, timeout_s)

            client = self._client = await self._worker.call(make)
        self._is_lost = True
        topics = await self._answer(client)
        if topics is None:
            return
        self._is_lost = False
        self.n_connects += 1
        if not client.is_subscribed:
            patterns = [subscription(rule.pattern.filter, self._config.separator) for rule in self._rules]
            await self._worker.call(lambda: client.subscribe(patterns))
        self._backoff.reset()
        if any(rule.pattern.regex.fullmatch(topic) for rule in self._rules for topic in topics):
            self._enter(AdapterState.CONNECTED, "")
        else:
            named = ", ".join(rule.pattern.text for rule in self._rules)
            self._enter(AdapterState.DEGRADED, f"no topic of the cluster matches yet: {named}")
        if self._is_told:
            self._is_told = False
            _log.info("adapter=%s brokers=%s are back", self._name, self._where)

    async def _answer(self, client: KafkaClient) -> list[str] | None:
        """The topics of the cluster; None where we finish. Raises NotConnected once it is clear that nobody answers."""
        deadline_ns = monotonic_ns() + self._config.timeout
        while not self._is_finishing:
            topics = await self._worker.call(lambda: client.ask(ASK_S))
            if topics is not None:
                return topics
            if monotonic_ns() >= deadline_ns:
                raise NotConnected(
                    f"{self._where} does not answer within {seconds(self._config.timeout):g} s"
                )
        return None

    async def _drop(self, is_reachable: bool) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._worker.call(lambda: client.close(is_reachable))
            self.ledger.revoke(list(self.ledger.progress()))

    async def _consume(self, inbox: KafkaInbox) -> None:
        client = self._client
        assert client is not None
        while not self._is_finishing:
            found = await self._worker.call(client.pull)
            if found:
                await self._hand_on(inbox, found, client)
            self._note(client)

    async def _hand_on(self, inbox: KafkaInbox, found: list[Message], client: KafkaClient) -> None:
        """Give a slice to the inbox; where that lasts, the partitions are held so that we stay in the group."""
        handing = asyncio.ensure_future(inbox.hand_on(found))
        try:
            await asyncio.wait([handing], timeout=HOLD_S)
            self.n_holds += not handing.done()
            while not handing.done():
                await self._worker.call(client.hold)
            if client.is_held:
                await self._worker.call(client.go_on)
        finally:
            if not handing.done():
                handing.cancel()
        await handing

    def _note(self, client: KafkaClient) -> None:
        """What the cluster has to say while it works."""
        while client.losses:
            _log.warning("adapter=%s %s", self._name, client.losses.pop(0))
        if client.complaint:
            self._enter(AdapterState.DEGRADED, client.complaint)
        elif self.state is AdapterState.DEGRADED and self.ledger.progress():
            self._enter(AdapterState.CONNECTED, "")

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
                "adapter=%s brokers=%s lost: %s; retrying until they answer", self._name, self._where, reason
            )


def subscription(levels: str, separator: str) -> str:
    """What to subscribe to for a rule's filter: a regular expression, as the library knows it."""
    any_level = f"[^{separator}]+"
    out = [any_level if level == "+" else level.replace(".", "[.]") for level in levels.split(separator)]
    between = "[.]" if separator == "." else separator
    if out[-1] != "#":
        return f"^{between.join(out)}$"
    head = between.join(out[:-1])
    return f"^{head}({between}.*)?$" if head else "^.*$"
