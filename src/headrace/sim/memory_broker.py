"""Where messages of simulated devices wait for a plant: a broker that keeps a session, and clients that push.

Both keep what they send until the plant says that it is durable, and send it again after the plant was away: nothing
is done here that a real broker (MQTT, QoS 1) or a careful client of the HTTP API would not do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headrace.adapters.base import AdapterState, PartlyRejected, Pushed, Receipt
from headrace.adapters.broker.config import BrokerAddress, BrokerSection
from headrace.adapters.broker.packets import one_arrival
from headrace.adapters.broker.session import BrokerSession, MessageTaker
from headrace.core.clock import NO_TIME, Clock
from headrace.core.errors import HeadraceError

BURST = 40
"""Messages that are on the wire before the plant can say that it wants no more for now."""
_PACKET_IDS = 65_535


@dataclass(eq=False, slots=True)
class SentMessage:
    """A message of a device: what it is made of, and what became of it.

    Parameters
    ----------
    topic : of an MQTT message. kind : content type of a body that is pushed. form : its parameter ``form``.
    n_deliveries : how often it was handed to the plant; more than once where an acknowledgement did not come.
    n_values : how many values are in it; None where it was damaged.
    n_most : how many samples and refused samples a damaged one can give at most.
    """

    payload: bytes
    topic: str = ""
    kind: str = ""
    form: str = ""
    sent_ns: int = NO_TIME
    acked_ns: int = NO_TIME
    n_deliveries: int = 0
    n_values: int | None = None
    n_most: int | None = None

    @property
    def is_acked(self) -> bool:
        """Whether the plant has said that it is durable."""
        return self.acked_ns != NO_TIME


class Door(Protocol):
    """A way into one adapter of a plant."""

    delivered: list[SentMessage]
    """What was handed to the plant since it started."""

    def send(self, message: SentMessage) -> None:
        """A device sends."""
        ...

    def deliver(self) -> None:
        """Hand to the plant what it takes at present."""
        ...

    def crashed(self) -> None:
        """The plant is gone, with whatever it did not acknowledge."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether everything sent was acknowledged."""
        ...


class MemoryBroker:
    """A broker with one persistent session, that of an adapter.

    Parameters
    ----------
    window : messages that may be unacknowledged at a time.
    """

    def __init__(self, clock: Clock, window: int) -> None:
        self._clock, self._window = clock, window
        self._waiting: deque[SentMessage] = deque()
        self._unacked: dict[int, SentMessage] = {}
        self._again: deque[int] = deque()
        self._newest_id = 0
        self._session: MemorySession | None = None
        self._receiver: MessageTaker | None = None
        self.delivered: list[SentMessage] = []

    def send(self, message: SentMessage) -> None:
        """A device publishes."""
        self._waiting.append(message)

    @property
    def is_empty(self) -> bool:
        """Whether everything published was acknowledged."""
        return not self._waiting and not self._unacked

    def attach(self, session: MemorySession, receiver: MessageTaker) -> None:
        """A session goes on: what it had not acknowledged comes again, in order."""
        self._session, self._receiver = session, receiver
        self._again = deque(self._unacked)

    def detach(self, session: MemorySession) -> None:
        """Its connection is closed."""
        if self._session is session:
            self._session = self._receiver = None

    def crashed(self) -> None:
        """The plant is gone; the session is kept."""
        self._session = self._receiver = None
        self.delivered = []

    def cut(self) -> None:
        """The connection breaks."""
        if self._session is not None:
            self._session.drop("connection lost")

    def deliver(self) -> None:
        """Send what the session takes; some more, as it says too late that it wants no more."""
        for _ in range(BURST if self._session is not None and not self._session.is_paused else 0):
            if self._again:
                number = self._again.popleft()
                if number in self._unacked:
                    self._hand_on(number, True)
            elif self._waiting and len(self._unacked) < self._window:
                number = self._newest_id = self._newest_id % _PACKET_IDS + 1
                self._unacked[number] = self._waiting.popleft()
                self._hand_on(number, False)
            else:
                return

    def _hand_on(self, number: int, is_again: bool) -> None:
        message = self._unacked[number]
        message.n_deliveries += 1
        self.delivered.append(message)
        assert self._receiver is not None
        self._receiver.take(one_arrival(message.topic, message.payload, number, is_again))

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """The plant has made messages durable."""
        for number in numbers:
            self._unacked.pop(number).acked_ns = self._clock.now_ns()


class MemorySession(BrokerSession):
    """An adapter's session at a `MemoryBroker`: all of the real one but the connection."""

    def __init__(
        self, name: str, config: BrokerSection, address: BrokerAddress, broker: MemoryBroker, clock: Clock
    ) -> None:
        super().__init__(name, config, address, [], Path(), clock)
        self._broker = broker

    async def _connect(self, receiver: MessageTaker) -> None:
        self.generation += 1
        self._drop_reason = ""
        self._ended.clear()
        self.n_connects += 1
        self._backoff.reset()
        self._broker.attach(self, receiver)
        self._enter(AdapterState.CONNECTED, "")

    async def close(self) -> None:
        """Close the connection; the session at the broker stays."""
        self._broker.detach(self)

    @property
    def is_up(self) -> bool:
        """Whether the connection stands."""
        return not self._ended.is_set()

    def acknowledge(self, packet_ids: npt.NDArray[np.int64]) -> None:
        """Acknowledge messages of the present connection, if it still stands."""
        if self.is_up:
            self._broker.acknowledge(packet_ids.tolist())


Receive = Callable[[str, Pushed], Awaitable[Receipt]]


@dataclass(eq=False)
class PushingClients:
    """Clients of an adapter that is pushed to: each body is sent until it is answered for good.

    Parameters
    ----------
    adapter : its name. n_max : requests that may be under way at a time.
    """

    adapter: str
    clock: Clock
    n_max: int = 8
    receive: Receive | None = None
    """The plant's door while it runs."""
    delivered: list[SentMessage] = field(default_factory=list)
    _waiting: deque[SentMessage] = field(default_factory=deque)
    _under_way: dict[asyncio.Task[Receipt], SentMessage] = field(default_factory=dict)

    def send(self, message: SentMessage) -> None:
        """A device pushes."""
        self._waiting.append(message)

    @property
    def is_empty(self) -> bool:
        """Whether everything pushed was answered for good."""
        return not self._waiting and not self._under_way

    def crashed(self) -> None:
        """The plant is gone: what was under way is sent again."""
        self.receive = None
        self._answers()
        for task in self._under_way:
            task.cancel()
        self._waiting.extendleft(reversed(self._under_way.values()))
        self._under_way = {}
        self.delivered = []

    def deliver(self) -> None:
        """Begin with requests, and see what became of those under way."""
        self._answers()
        while self.receive is not None and self._waiting and len(self._under_way) < self.n_max:
            message = self._waiting.popleft()
            message.n_deliveries += 1
            self.delivered.append(message)
            about: Mapping[str, str] = {"form": message.form} if message.form else {}
            answer = self.receive(self.adapter, Pushed(message.payload, message.kind, about))
            self._under_way[asyncio.ensure_future(answer)] = message

    def _answers(self) -> None:
        for task, message in list(self._under_way.items()):
            if not task.done():
                continue
            del self._under_way[task]
            error = None if task.cancelled() else task.exception()
            if not task.cancelled() and (error is None or isinstance(error, PartlyRejected)):
                message.acked_ns = self.clock.now_ns()
                continue
            if error is not None and not isinstance(error, HeadraceError):
                raise error
            self.delivered.remove(message)
            self._waiting.appendleft(message)  # nothing of it was taken: it comes again, whole
