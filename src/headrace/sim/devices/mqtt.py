"""A fleet's devices as MQTT publishers.

A device's path with the site replaced by the root of its payload style is its topic. One message a report:

* ``plant/{area}/{line}/{device}``: JSON with the source time in milliseconds and one field a signal;
* ``rows/{area}/{line}/{device}``: a CSV row, the source time in milliseconds and then the signals in order;
* ``values/{area}/{line}/{device}/{signal}``: a plain number without a time, a message for each signal.

Reports by exception and events hold the fields that changed (a CSV row would need them all). QoS 1.

What is published when follows the clock; a broker that is slow or away slows the publisher, which catches up
afterwards, as a device that buffers would.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

import gmqtt
import msgspec
import numpy as np
from gmqtt.mqtt.constants import MQTTv311

from headrace.core.clock import Clock
from headrace.sim.fleet import Fleet
from headrace.sim.reports import DenseFrames, Frames, SparseFrames

USER = "plant"
_MS = 1_000_000
_WINDOW = 1_000
_STEP_MAX_NS = 60_000_000_000
_DRAIN_TIMEOUT_S = 0.5
_encode = msgspec.json.Encoder().encode


class PayloadStyle(StrEnum):
    """How a device writes its messages."""

    JSON = "json"
    CSV = "csv"
    NUMBER = "number"

    @property
    def root(self) -> str:
        """First level of the topics."""
        return {"json": "plant", "csv": "rows", "number": "values"}[self]


class PlantMessage(NamedTuple):
    """What is published at once; `n_samples` values are in it."""

    topic: str
    payload: bytes
    n_samples: int


def messages(fleet: Fleet, frames: Frames, style: PayloadStyle) -> list[PlantMessage]:
    """Reports as messages, in their order.

    Raises
    ------
    ValueError : waveforms, which no style has a payload for, and parts of reports as CSV.
    """
    names = [c.name for c in frames.part.layout.columns]
    topics = [f"{style.root}/{path.partition('/')[2]}" for path in fleet.paths(frames.device)]
    if isinstance(frames, SparseFrames):
        if style is PayloadStyle.CSV:
            raise ValueError(f"{frames.type.profile.name}: a CSV row has all signals, not those that changed")
        if style is PayloadStyle.JSON:
            each = list(_instants(frames, names))
            return [PlantMessage(topics[a], _encode(fields), len(fields) - 1) for a, fields in each]
        rows = zip(topics, frames.column.tolist(), frames.values.tolist(), strict=True)
        return [PlantMessage(f"{t}/{names[column]}", repr(v).encode(), 1) for t, column, v in rows]
    if not isinstance(frames, DenseFrames):
        raise ValueError(f"{frames.type.profile.name}: waveforms are not published")
    n = len(names)
    whole = zip(topics, (frames.ts_ns // _MS).tolist(), frames.values.tolist(), strict=True)
    if style is PayloadStyle.CSV:
        return [PlantMessage(t, ",".join(map(repr, (ts, *row))).encode(), n) for t, ts, row in whole]
    if style is PayloadStyle.JSON:
        return [
            PlantMessage(t, _encode({"ts": ts} | dict(zip(names, row, strict=True))), n)
            for t, ts, row in whole
        ]
    return [
        PlantMessage(f"{t}/{name}", repr(value).encode(), 1)
        for t, _, row in whole
        for name, value in zip(names, row, strict=True)
    ]


def _instants(frames: SparseFrames, names: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """What a device reports at one instant, as (first row, fields)."""
    new = (np.diff(frames.device) != 0) | (np.diff(frames.ts_ns) != 0)
    first = np.flatnonzero(np.append(True, new)).tolist()
    columns, values = frames.column.tolist(), frames.values.tolist()
    for a, b in zip(first, [*first[1:], len(values)], strict=True):
        fields = {names[column]: value for column, value in zip(columns[a:b], values[a:b], strict=True)}
        yield a, {"ts": int(frames.ts_ns[a]) // _MS, **fields}


class MessagesInFlight:
    """gmqtt's store of messages in flight, which tells when one is acknowledged."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.n_acknowledged = 0
        self.n_forgotten = 0
        self._messages: dict[int, bytes] = {}
        self._changed = changed

    @property
    def n(self) -> int:
        """Messages in flight; a ``__len__`` would make gmqtt take an empty store for none."""
        return len(self._messages)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in flight."""
        return not self._messages

    def push_message(self, number: int, package: bytes) -> None:
        """A message was sent."""
        self._messages[number] = package

    def remove_message_by_mid(self, number: int) -> None:
        """A message was acknowledged."""
        if self._messages.pop(number, None) is not None:
            self.n_acknowledged += 1
            self._changed()

    def get_all(self) -> list[tuple[int, bytes]]:
        """What gmqtt sends again on a session that the broker still knows, in order."""
        return list(self._messages.items())

    async def wait_empty(self) -> None:
        """Connecting does not wait for what is in flight."""

    def clear(self) -> None:
        """The broker knows the session no more: nobody will acknowledge what was in flight."""
        self.n_forgotten += len(self._messages)
        self._messages.clear()
        self._changed()


class QosOneClient:
    """A client of a broker that publishes with QoS 1, a bounded number of messages at a time.

    Parameters
    ----------
    name : its client id; the session stays when the connection is lost.
    window : messages that may be unacknowledged.
    """

    def __init__(self, name: str, window: int = _WINDOW) -> None:
        self._name = name
        self._window = window
        self._room = asyncio.Event()
        self._in_flight = MessagesInFlight(self._room.set)
        self._connected = asyncio.Event()
        self._client: Any = None

    @property
    def n_acknowledged(self) -> int:
        """Messages that the broker has taken."""
        return self._in_flight.n_acknowledged

    @property
    def n_forgotten(self) -> int:
        """Messages of which nobody knows, because the broker lost the session."""
        return self._in_flight.n_forgotten

    async def connect(self, host: str, port: int) -> None:
        """Connect, and from now on again whenever the connection is lost.

        Raises
        ------
        OSError : no broker there.
        """
        client = gmqtt.Client(self._name, clean_session=False, persistent_storage=self._in_flight)
        client.on_connect = lambda *_: self._connected.set()
        client.on_disconnect = lambda *_: self._connected.clear()
        client.set_auth_credentials(USER)
        client.set_config({"reconnect_delay": 0.2, "reconnect_retries": -1})
        await client.connect(host, port, version=MQTTv311)
        self._client = client

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish a message; waits while the broker is behind or away."""
        while self._in_flight.n >= self._window or not self._connected.is_set():
            await self._connected.wait()
            await self._has_room(self._window)
        self._client.publish(topic, payload, qos=1)

    async def drained(self) -> None:
        """Wait until the broker has acknowledged everything."""
        await self._has_room(1)

    async def _has_room(self, window: int) -> None:
        while self._in_flight.n >= window:
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Part. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.disconnect()


class Publisher:
    """Publishes what a fleet reports, as time goes by.

    Parameters
    ----------
    styles : payload style by profile name; JSON where there is none.
    step_s : how often it publishes, in plant time.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        address: tuple[str, int],
        styles: dict[str, PayloadStyle],
        step_s: float = 0.25,
    ) -> None:
        self.n_published = 0
        self.n_samples = 0
        self._fleet = fleet
        self._clock = clock
        self._address = address
        self._styles = styles
        self._step_s = step_s
        self._client = QosOneClient("simulated-plant")
        self._task: asyncio.Task[None] | None = None

    @property
    def n_acknowledged(self) -> int:
        """Messages that the broker has taken."""
        return self._client.n_acknowledged

    @property
    def n_forgotten(self) -> int:
        """Messages of which nobody knows, because the broker lost the session."""
        return self._client.n_forgotten

    async def start(self) -> None:
        """Connect and begin with what is reported from now on.

        Raises
        ------
        OSError : no broker there.
        """
        await self._client.connect(*self._address)
        self._task = asyncio.create_task(self._run(self._clock.now_ns()), name="publisher")

    async def ended(self) -> None:
        """Wait until it publishes no more, which only an error brings about; raises it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Wait a moment for acknowledgements, then part. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await task
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    await self.drained()
        finally:
            await self._client.close()

    async def drained(self) -> None:
        """Wait until the broker has acknowledged everything."""
        await self._client.drained()

    async def publish(self, t0_ns: int, t1_ns: int) -> None:
        """Publish what is reported in ``t0 <= t < t1``; waits while the broker is behind or away."""
        for frames in self._fleet.frames(t0_ns, t1_ns):
            style = self._styles.get(frames.type.profile.name, PayloadStyle.JSON)
            for message in messages(self._fleet, frames, style):
                await self._client.publish(message.topic, message.payload)
                self.n_published += 1
                self.n_samples += message.n_samples

    async def _run(self, from_ns: int) -> None:
        while True:
            await self._clock.sleep(self._step_s)
            to_ns = min(self._clock.now_ns(), from_ns + _STEP_MAX_NS)
            await self.publish(from_ns, to_ns)
            from_ns = max(from_ns, to_ns)
