"""What we say as a host: that we are there, and that a node may tell its births again."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence

from headrace.adapters.broker.client import Publication
from headrace.adapters.meters import Backoff, seconds
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.adapters.sparkplug.topics import REBIRTH, command_topic, state_topic
from headrace.core.clock import NS, Clock

MS = 1_000_000
ASKED_A_SECOND_MAX = 20
_AGAIN_NS = 100 * MS
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

    A request that can't be made now (no connection yet, asked just now, too many at once) is made when it can: the node
    may have nothing to say for a long time. One that was made is repeated with a later message of the node.
    """

    def __init__(self, name: str, clock: Clock, first_ns: int, most_ns: int, publish: Publish) -> None:
        self.n_asked = 0
        self._name = name
        self._clock = clock
        self._first_ns, self._most_ns = first_ns, most_ns
        self._publish = publish
        self._waits: dict[tuple[str, str], tuple[Backoff, int]] = {}
        self._latest: deque[int] = deque(maxlen=ASKED_A_SECOND_MAX)
        self._due_ns: dict[tuple[str, str], int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def ask(self, node_id: tuple[str, str]) -> None:
        """Ask a node, now or as soon as it may be asked."""
        if node_id in self._due_ns or self._is_closed:
            return
        now_ns = self._clock.now_ns()
        due_ns = self._waits[node_id][1] if node_id in self._waits else now_ns
        if now_ns < due_ns or not self._asked(node_id, now_ns):
            self._due_ns[node_id] = due_ns
            self._look_after(due_ns - now_ns)

    def born(self, node_id: tuple[str, str]) -> None:
        """A node has told its birth."""
        self._waits.pop(node_id, None)
        self._due_ns.pop(node_id, None)

    def close(self) -> None:
        """Ask nobody any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _asked(self, node_id: tuple[str, str], now_ns: int) -> bool:
        """Ask a node whose time has come; False where nobody can be asked now."""
        if len(self._latest) == ASKED_A_SECOND_MAX and now_ns < self._latest[0] + NS:
            return False
        if not self._publish(rebirth_request(node_id, now_ns)):
            return False
        wait = self._waits.get(node_id)
        backoff = (
            Backoff(f"{self._name}:{node_id}", self._first_ns, self._most_ns) if wait is None else wait[0]
        )
        self._waits[node_id] = backoff, now_ns + backoff.next_ns()
        self._latest.append(now_ns)
        self.n_asked += 1
        return True

    def _look_after(self, wait_ns: int) -> None:
        """Look who is due, no later than then, and not at once: it may be that nobody can be asked."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds(max(wait_ns, _AGAIN_NS))
        if self._timer is not None and self._timer.when() <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(at, self._ask_due)

    def _ask_due(self) -> None:
        """Ask those whose time has come, who has waited longest first, as many as may be asked."""
        self._timer = None
        now_ns = self._clock.now_ns()
        for node_id in [one for one, due_ns in self._due_ns.items() if due_ns <= now_ns]:
            if not self._asked(node_id, now_ns):
                break
            del self._due_ns[node_id]
        if self._due_ns:
            self._look_after(min(self._due_ns.values()) - now_ns)


def rebirth_request(node_id: tuple[str, str], now_ns: int) -> Publication:
    """The command to a node to tell its births again."""
    value = SparkplugValue(True, DataType.BOOLEAN, REBIRTH, time_ms=now_ns // MS)
    return Publication(command_topic(node_id), write_payload(now_ns // MS, None, [value]))
