"""From a broker to the sink: the two tasks of an adapter that listens to a broker, how they end, and how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics
from headrace.adapters.broker.inbox import Inbox
from headrace.adapters.broker.session import BrokerSession, MessageTaker
from headrace.adapters.meters import spread

_FLUSH_S = 1.0
_LAND_S = 0.4


@dataclass(frozen=True, slots=True)
class BrokerFlow:
    """What takes messages of a session, between start and stop; adapters add what else exists meanwhile."""

    inbox: Inbox
    session: BrokerSession
    taking: asyncio.Task[None]
    connecting: asyncio.Task[None]

    @classmethod
    def begin(
        cls, name: str, inbox: Inbox, session: BrokerSession, receiver: MessageTaker, *more: Any
    ) -> Self:
        """Begin to connect.

        Parameters
        ----------
        name : of the tasks. receiver : takes what the session brings. more : fields that the adapter adds.
        """
        taking = asyncio.create_task(inbox.run(), name=f"{name} inbox")
        connecting = asyncio.create_task(session.run(receiver), name=f"{name} session")
        return cls(inbox, session, taking, connecting, *more)

    async def end(self) -> None:
        """Take no more, hand on the rest, acknowledge what becomes durable meanwhile, say that we go, close."""
        self.session.pause()
        self.connecting.cancel()
        self.inbox.finish()
        await asyncio.wait([self.taking], timeout=_FLUSH_S)
        self.taking.cancel()
        landing = asyncio.ensure_future(self.inbox.landed())
        await asyncio.wait([landing], timeout=_LAND_S)
        landing.cancel()
        await asyncio.gather(self.taking, self.connecting, landing, return_exceptions=True)
        await self.session.leave()

    def broker(self, address: str, n_timeouts: int = 0) -> DeviceDiagnostics:
        """The broker as a device."""
        inbox, session = self.inbox, self.session
        return DeviceDiagnostics(
            address, session.state, session.reason, inbox.last_good_ns, session.retry_ns,
            n_requests=inbox.n_messages, n_errors=inbox.n_rejects, n_timeouts=n_timeouts,
            clock_skew_ns=inbox.skew.skew_ns,
        )  # fmt: skip

    def diagnostics(
        self,
        who: tuple[str, str],
        stopped_ns: int | None,
        n_sensors: int,
        devices: Sequence[DeviceDiagnostics],
    ) -> AdapterDiagnostics:
        """State and counts.

        Parameters
        ----------
        who : name and protocol. stopped_ns : since when it is stopped, None where it runs.
        """
        inbox, session = self.inbox, self.session
        state, reason, since_ns = session.state, session.reason, session.since_ns
        if stopped_ns is not None:
            state, reason, since_ns = AdapterState.STOPPED, "", max(stopped_ns, since_ns)
        n_unacknowledged, unacknowledged_ns = inbox.unacknowledged
        p50, p99 = inbox.latency.percentiles()
        counts, total_s = spread([inbox.latency])
        return AdapterDiagnostics(
            *who, state, reason, since_ns, n_sensors, tuple(devices),
            n_samples=inbox.n_samples, n_frames=inbox.n_frames, n_bytes=inbox.n_bytes, n_rejects=inbox.n_rejects,
            n_duplicates=inbox.n_duplicates, transport_ns=session.transport_ns, decode_ns=inbox.decode_ns, latency_s_p50=p50, latency_s_p99=p99,
            latency_counts=counts, latency_total_s=total_s, n_connects=session.n_connects,
            n_unacknowledged=n_unacknowledged, unacknowledged_ns=unacknowledged_ns,
        )  # fmt: skip
