"""The last events of a plant, numbered, so that who follows them misses none and sees none twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Lock

from headrace.core.events import Event


class EventLog:
    """The last `maxlen` events; any thread may append.

    Numbers start at 1 and are of this process's life only.
    """

    def __init__(self, maxlen: int) -> None:
        self._events: deque[Event] = deque(maxlen=maxlen)
        self._lock = Lock()
        self.n_ever = 0
        """Number of the newest event."""

    def append(self, event: Event) -> None:
        """Add an event; the oldest one leaves where there is no room."""
        with self._lock:
            self._events.append(event)
            self.n_ever += 1

    def since(self, number: int) -> list[tuple[int, Event]]:
        """Events with a number above `number`, as far as they are still there, each with its number."""
        with self._lock:
            first = self.n_ever - len(self._events) + 1
            return [(n, event) for n, event in enumerate(self._events, first) if n > number]

    def __iter__(self) -> Iterator[Event]:
        with self._lock:
            return iter(list(self._events))

    def __len__(self) -> int:
        return len(self._events)
