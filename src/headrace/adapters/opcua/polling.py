"""Reading everything each interval: in bulk, on a grid of times, without overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from asyncua import ua

from headrace.adapters.meters import fraction, seconds
from headrace.adapters.opcua.asking import Feed, ServerLimits, SessionMeters, in_batches, resolved
from headrace.adapters.opcua.client import PackedParameters, PackedRead, UaConnection, packed_nodes
from headrace.adapters.opcua.messages import numbered, read_answer
from headrace.core.clock import NS, monotonic_ns, thread_cpu_ns
from headrace.core.errors import NotConnected, Rejected
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode

N_SILENT_MAX = 3
"""Reads in a row without an answer after which the connection is made anew."""


class Polling:
    """Reads the tags of one connection.

    Parameters
    ----------
    groups : tags by interval in ns.
    drop : ends the connection, with a reason.
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
        self._packed: dict[tuple[int, int], PackedParameters] = {}
        self._n_at_once = 1
        self._n_silent = 0
        self._asking = asyncio.Lock()

    async def prepare(self, n_max: int) -> None:
        """Find the nodes. Raises as `UaConnection.request`."""
        self._n_at_once = (await ServerLimits.ask(self._connection, n_max)).n_reads
        every = [tag for tags in self._groups.values() for tag in tags]
        self._nodes = resolved(self._connection, every, self._feed)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What is to be done at the same time, until the connection is lost; raises `NotConnected`."""
        there = {ns: [tag for tag in tags if tag in self._nodes] for ns, tags in self._groups.items()}
        return [self._poll(tags, interval_ns) for interval_ns, tags in there.items() if tags]

    async def _poll(self, tags: list[int], interval_ns: int) -> None:
        """Read some tags on their grid of times; what can't be read in time is skipped and counted."""
        polls = self._meters.polls[interval_ns]
        due_ns = self._clock.now_ns() + int(fraction(f"{self._name} {tags[0]}") * min(interval_ns, NS) / 10)
        while True:
            now_ns = self._clock.now_ns()
            if due_ns - now_ns > interval_ns:
                due_ns = now_ns  # the clock was set back
            if now_ns < due_ns:
                await self._clock.sleep(seconds(due_ns - now_ns))
                continue
            if self._feed.has_credit(len(tags)):
                polls.n += 1
                polls.n_late += now_ns - due_ns > interval_ns // 10
                await self._read(tags)
            else:
                polls.n_skipped += 1
            n_steps = max(1, -(-(self._clock.now_ns() + 1 - due_ns) // interval_ns))
            polls.n_skipped += n_steps - 1
            due_ns += n_steps * interval_ns

    async def _read(self, tags: list[int]) -> None:
        try:
            async with self._asking:
                self._n_at_once = await in_batches(tags, self._n_at_once, self._read_some)
            self._n_silent = 0
        except TimeoutError:
            self._meters.n_timeouts += 1
            self._n_silent += 1
            if self._n_silent >= N_SILENT_MAX:
                raise NotConnected(f"connected, but {self._n_silent} reads were not answered") from None

    async def _read_some(self, tags: Sequence[int]) -> None:
        self._meters.n_requests += 1
        place = tags[0], len(tags)
        if place not in self._packed:
            self._packed[place] = packed_nodes([self._nodes[tag] for tag in tags])
        sent_ns = monotonic_ns()
        body = await self._connection.request(PackedRead.of(self._packed[place]), "a read")
        self._meters.latency.add(seconds(monotonic_ns() - sent_ns))
        now_ns = self._clock.now_ns()
        self._feed.ear.hear(now_ns, str(self._connection.server), body, tags)
        cpu_ns = thread_cpu_ns()
        try:
            self._meters.note_sent(body, now_ns)
            values = read_answer(body)
            if len(values) != len(tags):
                raise Rejected(f"{len(values)} values for {len(tags)} nodes")
        except Rejected as e:
            self._meters.n_errors += 1
            self._feed.inbox.reject(
                Reject(
                    RejectCode.MALFORMED, self._name, "answer to a read", f"expected values of {len(tags)} nodes: {e}",
                    body[:MAX_RAW_BYTES], now_ns, len(tags),
                )
            )  # fmt: skip
            return
        self._meters.decode_ns += thread_cpu_ns() - cpu_ns
        self._feed.inbox.add(numbered(values, tags), nothing, self._drop)


def nothing() -> None:
    """A read needs no acknowledgement."""
