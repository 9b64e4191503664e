"""What all requests have in common: whom values go to, how much a request may hold, what is counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from asyncua import ua

from headrace.adapters.base import Sink
from headrace.adapters.meters import LatencyRing, SkewMeter
from headrace.adapters.opcua.captured import AnswerTap
from headrace.adapters.opcua.client import ServiceFailed, UaConnection
from headrace.adapters.opcua.filing import Filing
from headrace.adapters.opcua.inbox import ValueInbox
from headrace.adapters.opcua.messages import sent_ns
from headrace.adapters.opcua.tags import TagTable

_TOO_MUCH = {
    ua.StatusCodes.BadTooManyOperations, ua.StatusCodes.BadResponseTooLarge, ua.StatusCodes.BadRequestTooLarge,
    ua.StatusCodes.BadEncodingLimitsExceeded,
}  # fmt: skip
_LIMITS = (
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
)


@dataclass(slots=True)
class PollMeters:
    """Reads of what is read at one interval."""

    n: int = 0
    n_late: int = 0
    n_skipped: int = 0


@dataclass(slots=True)
class SessionMeters:
    """Counts of one server since start. ``polls`` by interval in ns; ``n_gaps``: publish responses that never came."""

    n_connects: int = 0
    n_requests: int = 0
    n_errors: int = 0
    n_timeouts: int = 0
    n_skipped: int = 0
    n_gaps: int = 0
    decode_ns: int = 0
    polls: defaultdict[int, PollMeters] = field(default_factory=lambda: defaultdict(PollMeters))
    latency: LatencyRing = field(default_factory=LatencyRing)
    skew: SkewMeter = field(default_factory=SkewMeter)

    def note_sent(self, body: bytes, arrival_ns: int) -> None:
        """Look at the server's clock in an answer."""
        self.skew.note(np.array([sent_ns(body)]), arrival_ns)


@dataclass(frozen=True, slots=True)
class Feed:
    """Where the values of a session go."""

    sink: Sink
    tags: TagTable
    filing: Filing
    inbox: ValueInbox
    ear: AnswerTap

    def problem(self, tag: int, reason: str) -> None:
        """A tag can't be read: a state, and a reject the first time."""
        reject = self.filing.tell(tag, reason, self.sink.clock.now_ns())
        if reject is not None:
            self.inbox.reject(reject)

    def has_credit(self, n_samples: int) -> bool:
        """Whether more should be asked for."""
        return self.sink.has_credit(n_samples) and not self.inbox.is_full


@dataclass(slots=True)
class ServerLimits:
    """How many nodes a request may have: what the server says, and less where it turned out to be too much."""

    n_reads: int
    n_items: int

    @classmethod
    async def ask(cls, connection: UaConnection, most: int) -> ServerLimits:
        """What the server says; `most` where it says nothing, or more."""
        found = await connection.read_attributes([ua.NodeId(one) for one in _LIMITS], ua.AttributeIds.Value)
        said = [value.Value.Value if value.Value is not None else 0 for value in found]
        n_reads, n_items = (min(one, most) if isinstance(one, int) and one > 0 else most for one in said)
        return cls(n_reads, n_items)


async def in_batches(tags: Sequence[int], size: int, ask: Callable[[Sequence[int]], Awaitable[None]]) -> int:
    """Ask for all tags, `size` at a time; for half as many where the server says that it is too much.

    Returns
    -------
    How many at a time the server takes. Raises what `ask` raises.
    """
    at = 0
    while at < len(tags):
        try:
            await ask(tags[at : at + size])
        except ServiceFailed as e:
            if e.code not in _TOO_MUCH or size == 1:
                raise
            size = max(1, size // 2)
            continue
        at += size
    return size
