"""What we say as a host: that we are there, and that a node may tell its births again."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence

from headrace.adapters.broker.client import Publication
from headrace.adapters.meters import Backoff
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.adapters.sparkplug.topics import REBIRTH, command_topic, state_topic
from headrace.core.clock import NS, Clock

MS = 1_000_000
ASKED_A_SECOND_MAX = 20
Publish = Callable[[Publication], bool]


class HostState:
    """Our STATE, retained at the broker: online while we are connected, offline by our word or by our will.

    An offline message of an older connection (its will comes late) has an older time, so nodes pass over it; but the
    broker would keep it for those that come later, so it is answered.
    """

    def __init__(self, host_id: str, clock: Clock) -> None:
        self.topic = state_topic(host_id)
        self._clock = clock
        self._time_ms = 0

    def _publication(self, is_online: bool, time_ms: int) -> Publication:
        payload = json.dumps({"online": is_online, "timestamp": time_ms}).encode()
        return Publication(self.topic, payload, 1, is_retained=True)

    def will(self) -> Publication:
        """Offline, of the time at which the connection began."""
        self._time_ms = self._clock.now_ns() // MS
        return self._publication(False, self._time_ms)

    def arrived(self) -> Sequence[Publication]:
        """Online, of the same time."""
        return (self._publication(True, self._time_ms),)

    def leaving(self) -> Publication:
        """Offline, of now."""
        return self._publication(False, self._clock.now_ns() // MS)

    def answer(self, payload: bytes) -> Publication | None:
        """What to say where the broker's word on us is `payload`; None where it is right."""
        try:
            is_offline = json.loads(payload)["online"] is False
        except (ValueError, TypeError, KeyError, RecursionError):
            is_offline = True
        return self._publication(True, self._time_ms) if is_offline else None


class RebirthDesk:
    """Asks nodes for their births, each at most once in a while, all of them at most 20 times a second.

    A request that is not made now is made with a later message of the node.
    """

    def __init__(self, name: str, clock: Clock, first_ns: int, most_ns: int, publish: Publish) -> None:
        self.n_asked = 0
        self._name = name
        self._clock = clock
        self._first_ns, self._most_ns = first_ns, most_ns
        self._publish = publish
        self._waits: dict[tuple[str, str], tuple[Backoff, int]] = {}
        self._latest: deque[int] = deque(maxlen=ASKED_A_SECOND_MAX)

    def ask(self, node_id: tuple[str, str]) -> None:
        """Ask a node, unless it was asked just now."""
        now_ns = self._clock.now_ns()
        wait = self._waits.get(node_id)
        if wait is not None and now_ns < wait[1]:
            return
        if len(self._latest) == ASKED_A_SECOND_MAX and now_ns < self._latest[0] + NS:
            return
        if not self._publish(rebirth_request(node_id, now_ns)):
            return
        backoff = (
            Backoff(f"{self._name}:{node_id}", self._first_ns, self._most_ns) if wait is None else wait[0]
        )
        self._waits[node_id] = backoff, now_ns + backoff.next_ns()
        self._latest.append(now_ns)
        self.n_asked += 1

    def born(self, node_id: tuple[str, str]) -> None:
        """A node has told its birth."""
        self._waits.pop(node_id, None)


def rebirth_request(node_id: tuple[str, str], now_ns: int) -> Publication:
    """The command to a node to tell its births again."""
    value = SparkplugValue(True, DataType.BOOLEAN, REBIRTH, time_ms=now_ns // MS)
    return Publication(command_topic(node_id), write_payload(now_ns // MS, None, [value]))
