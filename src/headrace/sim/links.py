"""Links in memory with the promises of MQTT QoS 1.

A message is kept until it is acknowledged, and sent again after every reconnect; an acknowledgement may get
lost on its way.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from headrace.sim.traffic import Message


class Link:
    """One source's way to the plant.

    Parameters
    ----------
    window : messages that may be unacknowledged at a time. ack_loss : how often, of 1, an acknowledgement does
    not arrive; the message then comes again with the next connection.
    """

    def __init__(self, seed: int, window: int, ack_loss: float) -> None:
        self._rng = np.random.default_rng([seed, 13])
        self._window, self._ack_loss = window, ack_loss
        self._outbox: deque[Message] = deque()
        self._unacked: dict[int, Message] = {}
        self._lost_acks: set[int] = set()
        self.connection = 0
        self.n_redelivered = 0

    def put(self, message: Message) -> None:
        """The source sends."""
        self._outbox.append(message)

    @property
    def is_empty(self) -> bool:
        """Whether everything sent was acknowledged."""
        return not self._outbox and not self._unacked

    @property
    def n_unsent(self) -> int:
        """Messages that wait to be sent."""
        return len(self._outbox)

    def peek(self) -> Message | None:
        """The next message that may be sent."""
        return self._outbox[0] if self._outbox and len(self._unacked) < self._window else None

    def take(self) -> Message:
        """Send the next message."""
        message = self._outbox.popleft()
        self._unacked[message.number] = message
        return message

    def acknowledge(self, connection: int, number: int) -> None:
        """The plant acknowledges a message, over the connection that it came by."""
        if connection != self.connection or number not in self._unacked:
            return
        if self._rng.random() < self._ack_loss:
            self._lost_acks.add(number)
        else:
            del self._unacked[number]

    def reconnect(self, lossless: bool = False) -> None:
        """The plant is gone or back: all that is unacknowledged is sent again, in order."""
        self.connection += 1
        if lossless:
            self._ack_loss = 0.0
        self.n_redelivered += len(self._unacked)
        self._outbox.extendleft(reversed(self._unacked.values()))
        self._unacked, self._lost_acks = {}, set()

    @property
    def waits_for_nothing(self) -> bool:
        """Whether all that is unacknowledged had its acknowledgement lost: only a reconnect helps."""
        return bool(self._unacked) and self._lost_acks >= self._unacked.keys()
