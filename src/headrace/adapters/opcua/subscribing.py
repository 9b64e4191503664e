"""Subscriptions: the server samples and tells what changes; we acknowledge what is durable.

Publish requests are how a client gives credit to a server: it can't publish without one. So where the sink has no
credit none is sent, and the server's queues fill; what they lose they mark (`headrace.adapters.opcua.kinds.overflows`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from asyncua import ua

from headrace.adapters.meters import seconds
from headrace.adapters.opcua.asking import Feed, ServerLimits, SessionMeters, in_batches, resolved
from headrace.adapters.opcua.client import ServiceFailed, UaConnection, read_request
from headrace.adapters.opcua.config import OpcuaConfig
from headrace.adapters.opcua.messages import Published, numbered, publish_answer, read_answer
from headrace.adapters.opcua.statuses import status_text
from headrace.core.clock import NS, monotonic_ns, thread_cpu_ns
from headrace.core.errors import NotConnected, Rejected
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode

KEEP_ALIVE_NS = 5 * NS
"""How often at least a server shall say that it is there."""
N_SILENT = 2
"""Keep-alives that may be missed."""
LIFETIME_NS = 120 * NS
"""How long a server shall keep a subscription that is not asked for."""
N_VERIFIED_MAX = 100
_MS = 1_000_000
_GRACE_NS = 20 * _MS
_BAD = 0x8000_0000
_NO_FILTER = {
    ua.StatusCodes.BadMonitoredItemFilterUnsupported, ua.StatusCodes.BadMonitoredItemFilterInvalid,
    ua.StatusCodes.BadFilterNotAllowed, ua.StatusCodes.BadDeadbandFilterInvalid,
}  # fmt: skip
_log = logging.getLogger("headrace.adapters.opcua")


class Subscribing:
    """The subscriptions of one connection, one for each interval.

    Parameters
    ----------
    groups : tags by publishing interval in ns.
    drop : ends the connection, with a reason.

    Attributes
    ----------
    revised : what the server does otherwise than asked, in words; empty where nothing.
    """

    def __init__(
        self,
        name: str,
        connection: UaConnection,
        groups: dict[int, list[int]],
        feed: Feed,
        meters: SessionMeters,
        drop: Callable[[str], None],
    ) -> None:
        self._name = name
        self._connection = connection
        self._groups = groups
        self._feed = feed
        self._clock = feed.sink.clock
        self._meters = meters
        self._drop = drop
        self._nodes: dict[int, ua.NodeId] = {}
        self._missing: dict[int, tuple[int, int]] = {}
        self._acks: list[ua.SubscriptionAcknowledgement] = []
        self._asking = asyncio.Lock()
        self._n_asked = 0
        self._heard_ns = monotonic_ns()
        self._silence_ns = 0
        self._limits = ServerLimits(1, 1)
        self._next_verified = 0
        self._revised: dict[str, int] = {}
        self._next_sequence: dict[int, int] = {}

    @property
    def revised(self) -> str:
        """What the server does otherwise than asked."""
        return "; ".join(f"{what} ({n:,} items)" if n else what for what, n in self._revised.items())

    # --- making --------------------------------------------------------------------------------------

    async def prepare(self, config: OpcuaConfig) -> None:
        """Make the subscriptions and their items. Raises as `UaConnection.request`."""
        self._limits = await ServerLimits.ask(self._connection, config.max_nodes)
        made = [await self._make(interval_ns, tags, config) for interval_ns, tags in self._groups.items()]
        request = ua.SetPublishingModeRequest()
        request.Parameters.PublishingEnabled = True
        request.Parameters.SubscriptionIds = made
        await self._connection.ask(request, ua.SetPublishingModeResponse, "the start of publishing")
        self._heard_ns = monotonic_ns()

    async def _make(self, interval_ns: int, tags: list[int], config: OpcuaConfig) -> int:
        """One subscription; its id. It publishes nothing yet, so that the first values come together."""
        request = ua.CreateSubscriptionRequest()
        wanted = request.Parameters
        wanted.RequestedPublishingInterval = interval_ns / _MS
        wanted.RequestedMaxKeepAliveCount = max(1, math.ceil(KEEP_ALIVE_NS / interval_ns))
        wanted.RequestedLifetimeCount = max(
            3 * wanted.RequestedMaxKeepAliveCount, math.ceil(LIFETIME_NS / interval_ns)
        )
        wanted.PublishingEnabled = False
        made = (
            await self._connection.ask(request, ua.CreateSubscriptionResponse, "a subscription")
        ).Parameters
        if made.RevisedPublishingInterval > 1.01 * wanted.RequestedPublishingInterval:
            self._note(f"publishes every {made.RevisedPublishingInterval:g} ms", 0)
        keep_alive_ns = made.RevisedPublishingInterval * made.RevisedMaxKeepAliveCount * _MS
        self._silence_ns = max(self._silence_ns, int(N_SILENT * keep_alive_ns))
        nodes = resolved(self._connection, tags, self._feed)
        self._nodes |= nodes
        self._limits.n_items = await in_batches(
            list(nodes),
            self._limits.n_items,
            partial(self._monitor, made.SubscriptionId, config, interval_ns),
        )
        return int(made.SubscriptionId)

    def _note(self, what: str, n: int) -> None:
        self._revised[what] = self._revised.get(what, 0) + n

    async def _monitor(
        self, subscription: int, config: OpcuaConfig, interval_ns: int, tags: Sequence[int]
    ) -> None:
        """Make the items of some tags; those that can't be are problems of their tags."""
        sampling_ms = (config.sampling or interval_ns) / _MS
        items = [self._item(tag, sampling_ms, config.queue_size) for tag in tags]
        results = await self._create(subscription, items)
        bare = [
            i for i, one in enumerate(results)
            if one.StatusCode.value in _NO_FILTER and self._dead_band(tags[i])
        ]  # fmt: skip
        if bare:
            again = [self._item(tags[i], sampling_ms, config.queue_size, has_filter=False) for i in bare]
            for i, one in zip(bare, await self._create(subscription, again), strict=True):
                results[i] = one
            self._note("knows no dead band", len(bare))
        for tag, one in zip(tags, results, strict=True):
            if one.StatusCode.value >= _BAD:
                self._missing[tag] = subscription, interval_ns
                self._feed.problem(tag, status_text(one.StatusCode.value))
                continue
            self._missing.pop(tag, None)
            if one.RevisedSamplingInterval > 1.01 * sampling_ms:
                self._note(f"samples every {one.RevisedSamplingInterval:g} ms", 1)
            if one.RevisedQueueSize < config.queue_size:
                self._note(f"keeps {one.RevisedQueueSize} values", 1)

    async def _create(self, subscription: int, items: list[Any]) -> list[Any]:
        self._meters.n_requests += 1
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToCreate = items
        what = "a request for monitored items"
        return list((await self._connection.ask(request, ua.CreateMonitoredItemsResponse, what)).Results)

    def _dead_band(self, tag: int) -> float:
        return self._feed.tags.signal_of(tag).dead_band

    def _item(self, tag: int, sampling_ms: float, queue_size: int, has_filter: bool = True) -> Any:
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor = ua.ReadValueId(NodeId=self._nodes[tag], AttributeId=ua.AttributeIds.Value)
        item.MonitoringMode = ua.MonitoringMode.Reporting
        wanted = item.RequestedParameters
        wanted.ClientHandle = tag
        wanted.SamplingInterval = sampling_ms
        wanted.QueueSize = queue_size
        wanted.DiscardOldest = True
        band = self._dead_band(tag)
        wanted.Filter = None
        if band and has_filter:
            wanted.Filter = ua.DataChangeFilter(
                Trigger=ua.DataChangeTrigger.StatusValue,
                DeadbandType=int(ua.DeadbandType.Absolute),
                DeadbandValue=band,
            )
        return item

    # --- running -------------------------------------------------------------------------------------

    def work(self, config: OpcuaConfig, timeout_s: float) -> list[Coroutine[Any, Any, None]]:
        """What is to be done at the same time, until the connection is lost; raises `NotConnected`."""
        self._silence_ns += int(timeout_s * NS)
        n = len(self._groups) + 1
        return [*(self._publish() for _ in range(n)), self._watch(), self._verify(config, timeout_s)]

    async def _publish(self) -> None:
        """Ask the server to publish, again and again; one of a few such tasks."""
        n_tags = len(self._nodes)
        interval_ns = min(self._groups)
        while True:
            async with self._asking:
                while not self._feed.has_credit(n_tags):
                    self._meters.n_skipped += 1
                    await self._clock.sleep(seconds(interval_ns))
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements, self._acks = self._acks, []
            if not self._n_asked:
                self._heard_ns = monotonic_ns()
            self._n_asked += 1
            self._meters.n_requests += 1
            try:
                body = await self._connection.request(request, "a publish request", 0)
            except ServiceFailed as e:
                if e.code == ua.StatusCodes.BadTooManyPublishRequests and self._n_asked > 1:
                    await asyncio.Event().wait()  # the others are as many as it wants
                if e.code != ua.StatusCodes.BadTimeout:
                    raise NotConnected(str(e)) from e
                continue
            finally:
                self._n_asked -= 1
            self._heard_ns = monotonic_ns()
            self._take(body)

    def _take(self, body: bytes) -> None:
        """Hand on what was published."""
        now_ns = self._clock.now_ns()
        self._feed.ear.hear(now_ns, str(self._connection.server), body)
        cpu_ns = thread_cpu_ns()
        try:
            answer = publish_answer(body)
        except Rejected as e:
            self._meters.n_errors += 1
            self._feed.inbox.reject(
                Reject(
                    RejectCode.MALFORMED, self._name, "publish response", f"expected notifications: {e}",
                    body[:MAX_RAW_BYTES], now_ns,
                )
            )  # fmt: skip
            return
        finally:
            self._meters.decode_ns += thread_cpu_ns() - cpu_ns
        self._meters.note_sent(body, now_ns)
        self._count_gaps(answer)
        if answer.status >= _BAD:
            raise NotConnected(f"the server ended the subscription: {status_text(answer.status)}")
        began_ns = monotonic_ns()
        n_open = len(answer.values)

        def landed() -> None:
            nonlocal n_open
            n_open -= 1
            if not n_open:
                self._meters.latency.add(seconds(monotonic_ns() - began_ns))
                self._acks.append(ua.SubscriptionAcknowledgement(answer.subscription, answer.sequence))

        for values in answer.values:
            self._feed.inbox.add(values, landed, self._drop)

    def _count_gaps(self, answer: Published) -> None:
        """Count what the sequence numbers say has been published and has not come."""
        wanted = self._next_sequence.get(answer.subscription, answer.sequence)
        self._meters.n_gaps += max(0, answer.sequence - wanted)
        # A keep-alive has the number that the next one with something in it will have; the last number is followed by 1.
        has_content = bool(answer.values or answer.status or answer.n_other)
        self._next_sequence[answer.subscription] = (answer.sequence + has_content) % 2**32 or 1

    async def _watch(self) -> None:
        """End the connection when nothing is published for too long, not even that there is nothing."""
        is_overdue = False
        while True:
            left_ns = self._heard_ns + self._silence_ns - monotonic_ns()
            if not self._n_asked:
                left_ns = self._silence_ns  # nobody asked: without credit silence is what we want
            if left_ns <= 0 and is_overdue:
                raise NotConnected(
                    f"connected, but nothing was published for {self._silence_ns / NS:.1f} s, not even a keep-alive"
                )
            # If it was this process that stood still, what was published lies in the socket: look there first.
            is_overdue = left_ns <= 0
            await real_sleep(_GRACE_NS if is_overdue else left_ns)

    # --- truth ---------------------------------------------------------------------------------------

    async def _verify(self, config: OpcuaConfig, timeout_s: float) -> None:
        """Now and then: look for nodes that were missing, and whether the subscription tells the truth."""
        lag_ns = 2 * (max(self._groups) + (config.sampling or 0)) + int(timeout_s * NS)
        while True:
            await real_sleep(config.verify)
            n_skipped = self._meters.n_skipped
            try:
                await self._look_again(config)
                suspects = await self._untold(self._some())
                if suspects:
                    await real_sleep(lag_ns)
                    suspects &= await self._untold(sorted(suspects))
            except TimeoutError:
                self._meters.n_timeouts += 1
                continue
            except ServiceFailed as e:
                raise NotConnected(str(e)) from e
            if suspects and n_skipped == self._meters.n_skipped:
                path = self._feed.tags.path(min(suspects))
                raise NotConnected(
                    f"connected, but {len(suspects)} variables change and the subscription does not tell: {path}"
                )

    async def _look_again(self, config: OpcuaConfig) -> None:
        """Make the items that could not be made."""
        for place in sorted(set(self._missing.values())):
            subscription, interval_ns = place
            tags = [tag for tag, one in self._missing.items() if one == place]
            ask = partial(self._monitor, subscription, config, interval_ns)
            self._limits.n_items = await in_batches(tags, self._limits.n_items, ask)

    def _some(self) -> list[int]:
        """The next tags to look at; those with a dead band may rightly differ."""
        tags = [tag for tag in self._nodes if tag not in self._missing and not self._dead_band(tag)]
        n = min(len(tags), N_VERIFIED_MAX, self._limits.n_reads)
        first = self._next_verified % max(len(tags), 1)
        self._next_verified = first + n
        return (tags + tags)[first : first + n]

    async def _untold(self, tags: list[int]) -> set[int]:
        """Tags whose value on the server is another and newer one than the last that was published."""
        if not tags:
            return set()
        self._meters.n_requests += 1
        body = await self._connection.request(read_request([self._nodes[tag] for tag in tags]), "a read")
        return self._feed.filing.newer(numbered(read_answer(body), tags))


async def real_sleep(duration_ns: int) -> None:
    """Wait in real time: a server's silence is not the plant's clock's."""
    is_over = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(duration_ns / NS, is_over.set)
    try:
        await is_over.wait()
    finally:
        timer.cancel()
