"""Subscriptions: the server samples and tells what changes; we acknowledge what is durable.

Publish requests are how a client gives credit to a server: it can't publish without one. So where the sink has no
credit none is sent, and the server's queues fill; what they lose they mark (`headrace.adapters.opcua.kinds.overflows`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from headrace.adapters.meters import seconds
from headrace.adapters.opcua.asking import in_batches
from headrace.adapters.opcua.client import ServiceFailed, read_request
from headrace.adapters.opcua.handles import Numbers, Renewed
from headrace.adapters.opcua.messages import Published, Values, numbered, publish_answer, read_answer
from headrace.adapters.opcua.reader import Groups, Item, Reader, SessionLink, Staged
from headrace.adapters.opcua.statuses import status_text
from headrace.adapters.opcua.tags import TableChange
from headrace.core.clock import NO_TIME, NS, monotonic_ns, thread_cpu_ns
from headrace.core.errors import NotConnected, Rejected

KEEP_ALIVE_NS = 5 * NS
"""How often at least a server shall say that it is there."""
N_SILENT = 2
"""Keep-alives that may be missed."""
LIFETIME_NS = 120 * NS
"""How long a server shall keep a subscription that is not asked for."""
N_VERIFIED_MAX = 100
N_AGAIN_MAX = 64
"""Messages that are asked for once more where some have not come: servers keep few. So many in vain, and none is any more."""
_MS = 1_000_000
_GRACE_NS = 20 * _MS
TURN_NS = 5 * NS
"""For how long a change of intervals waits for what is to be published in the old way."""
_BAD = 0x8000_0000
_NO_FILTER = {
    ua.StatusCodes.BadMonitoredItemFilterUnsupported, ua.StatusCodes.BadMonitoredItemFilterInvalid,
    ua.StatusCodes.BadFilterNotAllowed, ua.StatusCodes.BadDeadbandFilterInvalid,
}  # fmt: skip
_log = logging.getLogger("headrace.adapters.opcua")


@dataclass(slots=True)
class Subscription:
    """One at the server: its number, how often it publishes, and for how long it may be silent."""

    number: int
    interval_ns: int
    silence_ns: int


class Subscribing(Reader):
    """The subscriptions of one connection, one for each interval."""

    def __init__(self, link: SessionLink, groups: Groups) -> None:
        super().__init__(link, groups)
        self.can_resume = True
        self._subscriptions: dict[int, Subscription] = {}
        self._acks: list[ua.SubscriptionAcknowledgement] = []
        self._asking = asyncio.Lock()
        self._taking = asyncio.Lock()
        self._n_vain = 0
        self._is_loss_told = False
        self._n_asked = 0
        self._n_publishing = 0
        self._heard_ns = monotonic_ns()
        self._next_verified = 0
        self._revised: dict[str, int] = {}
        self._next_sequence: dict[int, int] = {}
        self._bands: dict[int, float] = {}
        self._unwanted: dict[int, Item] = {}
        self._turns: dict[int, asyncio.Event] = {}
        self._renewed = Renewed()

    @property
    def revised(self) -> str:
        """What the server does otherwise than asked."""
        return "; ".join(f"{what} ({n:,} items)" if n else what for what, n in self._revised.items())

    # --- making --------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await self._make(self._intervals, self._items)
        self._heard_ns = monotonic_ns()

    async def _make(self, intervals: Sequence[int], handles: Iterable[int]) -> None:
        """Subscriptions that are not there yet, and items. They publish then, so that first values come together."""
        by_interval: dict[int, list[int]] = {interval_ns: [] for interval_ns in intervals}
        for handle in handles:
            by_interval[self._items[handle].interval_ns].append(handle)
        made = []
        for interval_ns, some in by_interval.items():
            if interval_ns not in self._subscriptions:
                self._subscriptions[interval_ns] = await self._create_subscription(interval_ns)
                made.append(self._subscriptions[interval_ns].number)
            await self._in_batches(some, partial(self._monitor, interval_ns))
        if made:
            request = ua.SetPublishingModeRequest()
            request.Parameters.PublishingEnabled = True
            request.Parameters.SubscriptionIds = made
            await self._connection.ask(request, ua.SetPublishingModeResponse, "the start of publishing")

    async def _in_batches(
        self, handles: Sequence[int], ask: Callable[[Sequence[int]], Awaitable[None]]
    ) -> None:
        self._limits.n_items = await in_batches(handles, self._limits.n_items, ask)

    async def _create_subscription(self, interval_ns: int) -> Subscription:
        """One that publishes nothing yet."""
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
        revised_ns = int(made.RevisedPublishingInterval * _MS)
        silence_ns = N_SILENT * revised_ns * made.RevisedMaxKeepAliveCount
        return Subscription(int(made.SubscriptionId), revised_ns, silence_ns)

    def _note(self, what: str, n: int) -> None:
        self._revised[what] = self._revised.get(what, 0) + n

    async def _monitor(self, interval_ns: int, handles: Sequence[int]) -> None:
        """Make the items of some variables; those that can't be are problems of their tags."""
        results = await self._with_bare(handles, partial(self._create, interval_ns))
        sampling_ms = (self._config.sampling or interval_ns) / _MS
        for handle, one in zip(handles, results, strict=True):
            if one.StatusCode.value >= _BAD:
                self._tell(handle, status_text(one.StatusCode.value))
                continue
            self._items[handle].number = one.MonitoredItemId
            if one.RevisedSamplingInterval > 1.01 * sampling_ms:
                self._note(f"samples every {one.RevisedSamplingInterval:g} ms", 1)
            if one.RevisedQueueSize < self._config.queue_size:
                self._note(f"keeps {one.RevisedQueueSize} values", 1)

    async def _with_bare(
        self, handles: Sequence[int], ask: Callable[[Sequence[int], bool], Awaitable[list[Any]]]
    ) -> list[Any]:
        """Results for all; those that know no dead band are asked for without one."""
        results = await ask(handles, True)
        bare = [i for i, one in enumerate(results) if one.StatusCode.value in _NO_FILTER]
        if bare:
            for i, one in zip(bare, await ask([handles[i] for i in bare], False), strict=True):
                results[i] = one
            self._note("knows no dead band", len(bare))
        return results

    async def _create(self, interval_ns: int, handles: Sequence[int], has_filter: bool) -> list[Any]:
        request = ua.CreateMonitoredItemsRequest()
        items = []
        for handle in handles:
            item = ua.MonitoredItemCreateRequest()
            item.ItemToMonitor = ua.ReadValueId(
                NodeId=self._items[handle].node, AttributeId=ua.AttributeIds.Value
            )
            item.MonitoringMode = ua.MonitoringMode.Reporting
            item.RequestedParameters = self._wanted(handle, has_filter)
            items.append(item)
        request.Parameters.ItemsToCreate = items
        return await self._ask_items(interval_ns, request, ua.CreateMonitoredItemsResponse, len(items))

    async def _modify(self, interval_ns: int, handles: Sequence[int], has_filter: bool) -> list[Any]:
        request = ua.ModifyMonitoredItemsRequest()
        request.Parameters.ItemsToModify = [
            ua.MonitoredItemModifyRequest(self._items[handle].number, self._wanted(handle, has_filter))
            for handle in handles
        ]
        return await self._ask_items(interval_ns, request, ua.ModifyMonitoredItemsResponse, len(handles))

    async def _ask_items(self, interval_ns: int, request: Any, answer: Any, n: int) -> list[Any]:
        """Results for `n` items. Raises as `UaConnection.ask`; NotConnected, too, where there are not so many."""
        self._meters.n_requests += 1
        request.Parameters.SubscriptionId = self._subscriptions[interval_ns].number
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        found = list((await self._connection.ask(request, answer, "a request for monitored items")).Results)
        if len(found) != n:
            raise NotConnected(
                f"the server answers a request for {n:,} monitored items with {len(found):,} results"
            )
        return found

    def _wanted(self, handle: int, has_filter: bool) -> Any:
        """How a variable is to be monitored."""
        item = self._items[handle]
        wanted = ua.MonitoringParameters()
        wanted.ClientHandle = handle
        wanted.SamplingInterval = (self._config.sampling or item.interval_ns) / _MS
        wanted.QueueSize = self._config.queue_size
        wanted.DiscardOldest = True
        # Without a filter a modified item may keep the one it has.
        wanted.Filter = None
        if has_filter and (item.dead_band or item.number):
            kind = ua.DeadbandType.Absolute if item.dead_band else ua.DeadbandType.None_
            wanted.Filter = ua.DataChangeFilter(
                Trigger=ua.DataChangeTrigger.StatusValue, DeadbandType=int(kind), DeadbandValue=item.dead_band
            )
        return wanted

    # --- other tags ----------------------------------------------------------------------------------

    async def _ask_for(self, staged: Staged, change: TableChange, groups: Groups) -> None:
        new = [interval_ns for interval_ns in groups if interval_ns not in self._subscriptions]
        handles = [h for h in staged.tags if h in self._items]
        making = asyncio.ensure_future(self._make([*self._subscriptions, *new], handles))
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            # Only the answer says by which numbers to delete what was asked for; without it that would stay at the server.
            await asyncio.gather(making, return_exceptions=True)
            raise
        banded = set(change.banded)
        for handle, tag in zip(*self._handles.present, strict=True) if banded else ():
            new_tag = int(change.new_of[tag])
            if new_tag in banded and handle in self._items:
                self._bands[handle] = self._items[handle].dead_band
                self._items[handle].dead_band = change.after.signal_of(new_tag).dead_band
        await self._change_bands(list(self._bands))
        left = set(self._left(change).tolist())
        items = [self._items[h] for h, tag in zip(*self._handles.present, strict=True) if tag in left]
        await asyncio.gather(*(self._turn(ns) for ns in {item.interval_ns for item in items if item.number}))

    @staticmethod
    def _left(change: TableChange) -> Numbers:
        """Tags whose variables get another item in the place of theirs."""
        return change.same_before[~change.is_kept[change.same_after]]

    async def _turn(self, interval_ns: int) -> None:
        """Let a subscription publish once more: what its items have seen lies with the server until then.

        It may have nothing to tell, so there is a bound; of one that publishes less often than that a value may be lost.
        """
        one = self._subscriptions[interval_ns]
        turn = self._turns.setdefault(one.number, asyncio.Event())
        try:
            # `wait_for` of Python 3.11 takes no notice of being cancelled where what it waits for comes at that moment.
            async with asyncio.timeout(min(2 * one.interval_ns + _GRACE_NS, TURN_NS) / NS):
                await turn.wait()
        except TimeoutError:
            pass
        finally:
            self._turns.pop(one.number, None)

    def _renew(self, staged: Staged) -> None:
        """Note what variables that were read before had last, and take what has come of the new items."""
        tags = self._feed.tags
        handles = [h for h, tag in staged.tags.items() if tags.last_source_ns[tag] != NO_TIME]
        if handles:
            told_ns = tags.last_source_ns[self._handles.tags(handles)]
            self._renewed.begin(handles, told_ns, monotonic_ns() + self._lag_ns)
        for values, ack in staged.held:
            self._feed.inbox.add(self._unheard(values)[0], ack, self._link.drop)

    def _unheard(self, values: Values) -> tuple[Values, Values | None]:
        """Values by tag, and by handle those that wait; see `Handles.take`. Nothing that came in another way already."""
        unheard = self._renewed.unheard(values, monotonic_ns())
        self._feed.inbox.n_repeats += len(values) - len(unheard)
        return self._handles.take(unheard)

    async def _change_bands(self, handles: Sequence[int]) -> None:
        """Tell the server of the dead bands of some; of those that are not made yet it is told when they are."""
        for interval_ns in self._subscriptions:
            some = [h for h in handles if self._items[h].number and self._items[h].interval_ns == interval_ns]
            await self._in_batches(some, partial(self._modify_some, interval_ns))

    async def _modify_some(self, interval_ns: int, handles: Sequence[int]) -> None:
        for one in await self._with_bare(handles, partial(self._modify, interval_ns)):
            if one.StatusCode.value >= _BAD:
                raise ServiceFailed("a change of monitored items", one.StatusCode.value)

    async def _undo(self, staged: Staged, items: Mapping[int, Item]) -> None:
        bands, self._bands = self._bands, {}
        for handle, band in bands.items():
            self._items[handle].dead_band = band
        self._let_go(items)
        await self._settled(self._change_bands(list(bands)))
        await self.finish()

    def commit(self, change: TableChange, groups: Groups) -> None:
        """The tags have become those of `change`; publish requests for what is new, where others are on their way."""
        super().commit(change, groups)
        self._bands = {}
        for one in self._publishing() if self._n_publishing else ():
            self._link.crew.add(one)

    def _let_go(self, items: Mapping[int, Item]) -> None:
        self._unwanted |= items

    async def finish(self) -> None:
        """Delete items that are not read any more, and subscriptions of intervals that there are no more."""
        await self._settled(self._delete())

    async def _settled(self, asking: Coroutine[Any, Any, None]) -> None:
        """What the server must know; else the connection is made anew, which comes to the same."""
        try:
            await asking
        except (NotConnected, TimeoutError, ServiceFailed) as e:
            self.can_resume = False
            self._link.drop(f"the change of variables could not be brought to its end: {e}")

    async def _delete(self) -> None:
        items, self._unwanted = self._unwanted, {}
        for interval_ns, subscription in list(self._subscriptions.items()):
            if interval_ns not in self._intervals:
                del self._subscriptions[interval_ns]
                request = ua.DeleteSubscriptionsRequest()
                request.Parameters.SubscriptionIds = [subscription.number]
                await self._connection.ask(
                    request, ua.DeleteSubscriptionsResponse, "the end of a subscription"
                )
                continue
            numbers = [one.number for one in items.values() if one.number and one.interval_ns == interval_ns]
            await self._in_batches(numbers, partial(self._delete_some, interval_ns))

    async def _delete_some(self, interval_ns: int, numbers: Sequence[int]) -> None:
        request = ua.DeleteMonitoredItemsRequest()
        request.Parameters.SubscriptionId = self._subscriptions[interval_ns].number
        request.Parameters.MonitoredItemIds = list(numbers)
        self._meters.n_requests += 1
        await self._connection.ask(request, ua.DeleteMonitoredItemsResponse, "the end of monitored items")

    # --- the same session again ----------------------------------------------------------------------

    async def resume(self, link: SessionLink) -> None:
        """Go on with the subscriptions that are there; what was published and has not come is asked for again."""
        await super().resume(link)
        self._n_asked = self._n_vain = 0
        self._is_loss_told = False
        # What was told may have been refused: it is what broke the connection, then.
        self._renewed = Renewed()
        for one in self._subscriptions.values():
            first = self._next_sequence.get(one.number, 1)
            # It can't have published more often than it was asked to.
            n_gone_max = max(1, self._n_publishing)
            await self._ask_again(one.number, range(first, first + N_AGAIN_MAX), n_gone_max)
        self._n_publishing = 0
        self._heard_ns = monotonic_ns()

    async def _ask_for_missed(self, answer: Published) -> None:
        """Take what was published before an answer and has not come, as far as the server still has it."""
        missed = range(self._next_sequence.get(answer.subscription, answer.sequence), answer.sequence)
        if missed and self._n_vain < N_AGAIN_MAX:
            try:
                await self._ask_again(answer.subscription, missed[-N_AGAIN_MAX:], N_AGAIN_MAX)
            except ServiceFailed:
                self._n_vain = N_AGAIN_MAX  # it does not know the service: what is missed is a loss

    async def _ask_again(self, subscription: int, sequences: Iterable[int], n_gone_max: int) -> None:
        """Take some messages once more, in their order. After so many in a row that are gone no further one is asked for."""
        n_gone = 0
        for sequence in sequences:
            is_there = await self._republish(subscription, sequence)
            n_gone = 0 if is_there else n_gone + 1
            self._n_vain = 0 if is_there else self._n_vain + 1
            if n_gone == n_gone_max:
                return

    async def _republish(self, subscription: int, sequence: int) -> bool:
        """Take a message of a subscription once more; whether the server had it."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.RetransmitSequenceNumber = sequence
        self._meters.n_requests += 1
        try:
            found = await self._connection.ask(request, ua.RepublishResponse, "a request to publish again")
        except ServiceFailed as e:
            if e.code == ua.StatusCodes.BadMessageNotAvailable:
                return False
            raise
        message = found.NotificationMessage
        if not message.NotificationData:
            return False
        response = ua.PublishResponse()
        response.Parameters = ua.PublishResult(SubscriptionId=subscription, NotificationMessage=message)
        self._take(bytes(struct_to_binary(response)))
        return bool(message.SequenceNumber == sequence)

    # --- running -------------------------------------------------------------------------------------

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What is to be done at the same time, until the connection is lost; raises `NotConnected`."""
        return [*self._publishing(), self._watch(), self._verify()]

    def _publishing(self) -> list[Coroutine[Any, Any, None]]:
        """Publish requests so that there is one more than subscriptions."""
        n, self._n_publishing = self._n_publishing, max(self._n_publishing, len(self._subscriptions) + 1)
        return [self._publish() for _ in range(self._n_publishing - n)]

    @property
    def _silence_ns(self) -> int:
        """For how long the server may be silent."""
        longest_ns = max(one.silence_ns for one in self._subscriptions.values())
        return longest_ns + int(self._link.access.timeout_s * NS)

    async def _publish(self) -> None:
        """Ask the server to publish, again and again; one of a few such tasks."""
        while True:
            async with self._asking:
                while not self._feed.has_credit(len(self._items)):
                    self._meters.n_skipped += 1
                    await self._clock.sleep(seconds(min(self._intervals)))
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
            except BaseException:
                # Perhaps it never came there; to acknowledge twice does no harm.
                self._acks = request.Parameters.SubscriptionAcknowledgements + self._acks
                raise
            finally:
                self._n_asked -= 1
            self._heard_ns = monotonic_ns()
            async with self._taking:  # what comes meanwhile is newer than what is asked for again
                answer = self._read(body)
                if answer is not None:
                    await self._ask_for_missed(answer)
                    self._hand_on(answer)

    def _take(self, body: bytes) -> None:
        """Hand on what was published before."""
        answer = self._read(body)
        if answer is not None:
            self._hand_on(answer)

    def _read(self, body: bytes) -> Published | None:
        """What was published; None where the bytes are no publish response."""
        now_ns = self._clock.now_ns()
        self._feed.ear.hear(now_ns, str(self._connection.server), body, self._handles)
        cpu_ns = thread_cpu_ns()
        try:
            answer = publish_answer(body)
        except Rejected as e:
            self._refuse("publish response", "notifications", e, body)
            return None
        finally:
            self._meters.decode_ns += thread_cpu_ns() - cpu_ns
        self._meters.note_sent(body, now_ns)
        if answer.surplus:
            self._refuse("publish response", "values", Rejected(answer.surplus), body)
        return answer

    def _hand_on(self, answer: Published) -> None:
        self._count_gaps(answer)
        if answer.subscription in self._turns:
            self._turns[answer.subscription].set()
        if answer.status >= _BAD:
            raise NotConnected(f"the server ended the subscription: {status_text(answer.status)}")
        began_ns = monotonic_ns()
        parts = [self._unheard(values) for values in answer.values]
        n_open = len(parts) + sum(waiting is not None for _, waiting in parts)

        def landed() -> None:
            nonlocal n_open
            n_open -= 1
            if not n_open:
                self._meters.latency.add(seconds(monotonic_ns() - began_ns))
                self._acks.append(ua.SubscriptionAcknowledgement(answer.subscription, answer.sequence))

        for values, waiting in parts:
            self._feed.inbox.add(values, landed, self._link.drop)
            if waiting is not None and self._staged is not None:
                self._staged.held.append((waiting, landed))

    def _count_gaps(self, answer: Published) -> None:
        """Count what the sequence numbers say has been published and has not come."""
        wanted = self._next_sequence.get(answer.subscription, answer.sequence)
        n_gone = max(0, answer.sequence - wanted)
        self._meters.n_gaps += n_gone
        if n_gone and not self._is_loss_told:
            self._is_loss_told = True
            _log.warning(
                "adapter=%s server=%s: %s published messages are gone, from number %s of subscription %s on: the server has"
                " them no more; more of them are only counted", self._link.name, self._link.access.server, n_gone, wanted,
                answer.subscription,
            )  # fmt: skip
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

    async def _verify(self) -> None:
        """Now and then: look for nodes that were missing, and whether the subscription tells the truth."""
        while True:
            await real_sleep(self._config.verify)
            n_skipped, table = self._meters.n_skipped, self._handles.n_changes
            suspects: set[int] = set()
            try:
                async with self._link.changing:
                    await self._look_again()
                suspects = await self._untold(self._some())
                if suspects:
                    await real_sleep(self._lag_ns)
                    suspects &= await self._untold([h for h in sorted(suspects) if h in self._items])
            except TimeoutError:
                self._meters.n_timeouts += 1
                continue
            except ServiceFailed as e:
                raise NotConnected(str(e)) from e
            # After a change of tags, or without credit, there may be good reasons for what was not told.
            if suspects and (n_skipped, table) == (self._meters.n_skipped, self._handles.n_changes):
                path = self._feed.tags.path(self._handles.tag_of(min(suspects)))
                raise NotConnected(
                    f"connected, but {len(suspects)} variables change and the subscription does not tell: {path}"
                )

    @property
    def _lag_ns(self) -> int:
        """How long after a change the subscription may tell of it."""
        longest_ns = max(self._intervals) + (self._config.sampling or 0)
        return 2 * longest_ns + int(self._link.access.timeout_s * NS)

    async def _look_again(self) -> None:
        """Make the items that could not be made."""
        missing = [handle for handle, item in self._items.items() if not item.number]
        if missing:
            await self._make(self._intervals, missing)

    def _some(self) -> list[int]:
        """The next variables to look at; those with a dead band may rightly differ."""
        items = {handle: self._items.get(handle) for handle in self._handles.present[0]}
        some = [handle for handle, item in items.items() if item and item.number and not item.dead_band]
        n = min(len(some), N_VERIFIED_MAX, self._limits.n_reads)
        first = self._next_verified % max(len(some), 1)
        self._next_verified = first + n
        return (some + some)[first : first + n]

    async def _untold(self, handles: Sequence[int]) -> set[int]:
        """Those whose value on the server is another and newer one than the last that was published."""
        found: set[int] = set()
        self._limits.n_reads = await in_batches(handles, self._limits.n_reads, partial(self._compare, found))
        return found

    async def _compare(self, found: set[int], handles: Sequence[int]) -> None:
        """Add to `found` those of some; not of those that are not read any more."""
        handles = [handle for handle in handles if handle in self._items]
        if not handles:
            return
        self._meters.n_requests += 1
        request = read_request([self._items[handle].node for handle in handles])
        values = read_answer(await self._connection.request(request, "a read"))
        newer = self._feed.filing.newer(self._handles.take(numbered(values, handles))[0])
        tags = self._handles.tags(handles).tolist()
        found |= {handle for handle, tag in zip(handles, tags, strict=True) if tag in newer}


async def real_sleep(duration_ns: int) -> None:
    """Wait in real time: a server's silence is not the plant's clock's."""
    is_over = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(duration_ns / NS, is_over.set)
    try:
        await is_over.wait()
    finally:
        timer.cancel()
