"""The contract of adapters: how a protocol's bytes become frames.

**Parts.** A *transport* owns connections and deadlines and hands on bytes; a pure *decoder* with a compiled
read map turns many payloads at once into `FrameBatch` columns and `Reject` values (no I/O, no clock); the
*sink* takes them. Adapters only read from devices.

**Order of calls.** ``from_config`` (no I/O) → ``start(sink)`` → ``stop()``. `start` returns within a second
even when every device is away: it connects in the background and retries for ever. `stop` returns within two
seconds, hands on what was received, leaves no task, thread or socket, and may be called twice or before
`start`. An adapter is started once; a changed configuration makes a new instance.

**Acknowledgement.** `ack` of `Sink.emit` and `Sink.reject` runs on the event loop once the batch is durable;
only then may the source be acknowledged. A source that can't be acknowledged passes None. If `emit` raises,
nothing was taken and nothing may be acknowledged.

**Back-pressure.** `emit` waits for credit: a pushing source is slowed by it (receive window, paused reads). A
polling adapter asks `has_credit` first and skips the poll, counted, where there is none.

**Errors.** Bad input is a `Reject` (always acknowledged, so that it can't stall a stream), a bad reading is a
quality byte. A lost peer is a state, never an exception out of `start`: one log line when lost, one when
back. One device that hangs or dies delays no other beyond its own deadline.

**Time.** Waiting that belongs to the plant (intervals, back-off) is `sink.clock.sleep`; deadlines of real
I/O and the gathering of batches are bounds in real time on the event loop. **Cancellation.** Only an adapter's
own `stop` cancels its tasks; a cancelled `emit` may or may not have taken the batch: its ack decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from headrace.adapters.pacing import ConnectPacer
from headrace.core.clock import NO_TIME, Clock
from headrace.core.errors import Rejected
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

Ack = Callable[[], None]


class Sink(Protocol):
    """Where adapters hand their frames: the way into journal and pipeline."""

    @property
    def directory(self) -> SensorDirectory:
        """Where groups are defined; only the thread of the event loop defines."""
        ...

    @property
    def clock(self) -> Clock:
        """The plant's time."""
        ...

    async def emit(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Take a batch; waits for credit. `ack` runs once the batch is durable."""
        ...

    async def reject(self, reject: Reject, ack: Ack | None = None) -> None:
        """Take refused input; `ack` runs once it is durable."""
        ...

    def has_credit(self, n_samples: int) -> bool:
        """Whether `n_samples` more would be taken without waiting."""
        ...


class AdapterState(StrEnum):
    """How an adapter or one of its devices is."""

    STARTING = "starting"
    CONNECTED = "connected"
    DEGRADED = "degraded"  # some devices or requests fail, others work
    BACKOFF = "backoff"  # nothing works; the next attempt is due later
    FAILED = "failed"  # nothing works before someone changes something (retried slowly all the same)
    PAUSED = "paused"  # somebody asked for it; it stays so until somebody resumes it
    STOPPED = "stopped"


class Circuit(StrEnum):
    """The circuit breaker of a device: whether it is asked at all, so that one that is away costs little."""

    CLOSED = "closed"
    """It answers; it is asked as configured."""
    HALF_OPEN = "half-open"
    """One attempt is due or under way, and decides."""
    OPEN = "open"
    """It is left alone until its back-off, which grows with every failure, has passed."""


_ANSWERING = (AdapterState.CONNECTED, AdapterState.DEGRADED)
_WAITING = (AdapterState.BACKOFF, AdapterState.FAILED)


@dataclass(frozen=True, slots=True)
class DeviceDiagnostics:
    """One device (or broker, or file) of an adapter. Times are int64 ns; `NO_TIME` where there is none.

    ``n_polls`` were begun, ``n_polls_late`` of them a tenth of their interval too late; those that were due are these and
    the skipped ones. ``clock_skew_ns`` is how far the device's clock seems to be ahead of ours, what was on its way
    included.
    """

    path: str
    state: AdapterState
    reason: str = ""
    last_good_ns: int = NO_TIME
    next_retry_ns: int = NO_TIME
    n_requests: int = 0
    n_errors: int = 0
    n_timeouts: int = 0
    n_polls_skipped: int = 0
    n_polls: int = 0
    n_polls_late: int = 0
    clock_skew_ns: int = NO_TIME
    problems: tuple[tuple[str, str], ...] = ()
    """Signals without a good value although the device answers, the first of them, each with the reason."""

    def circuit(self, now_ns: int) -> Circuit:
        """The state of its circuit breaker; that of one which is paused or stopped is open."""
        if self.state in _ANSWERING:
            return Circuit.CLOSED
        is_due = self.state in _WAITING and self.next_retry_ns <= now_ns
        return Circuit.HALF_OPEN if is_due or self.state is AdapterState.STARTING else Circuit.OPEN


@dataclass(frozen=True, slots=True)
class AdapterDiagnostics:
    """An adapter instance at a glance: states, counts since start, CPU, latency of requests or acks.

    ``n_connects`` connections were made, all devices together. ``n_out_of_order`` and ``n_gaps`` are what the protocol's
    own numbering tells, where it has one. ``n_unacknowledged`` inputs are taken and not yet durable, the oldest since
    ``unacknowledged_ns``. ``rejects_by_code`` and ``config_hash`` are filled in by who runs the adapter,
    and ``pid`` where it is in a process of its own; ``n_killed`` of those hung and were killed.
    """

    name: str
    protocol: str
    state: AdapterState
    reason: str = ""
    since_ns: int = NO_TIME
    n_sensors: int = 0
    devices: tuple[DeviceDiagnostics, ...] = ()
    n_samples: int = 0
    n_frames: int = 0
    n_rejects: int = 0
    n_duplicates: int = 0
    transport_ns: int = 0
    decode_ns: int = 0
    latency_s_p50: float = 0.0
    latency_s_p99: float = 0.0
    latency_counts: tuple[int, ...] = ()
    """How many durations fell into each bucket of the metric ``adapter_request_duration_seconds``."""
    latency_total_s: float = 0.0
    normalise_ns: int = 0
    """Filled in by the plant, whose intake gives every frame its time and every value its quality."""
    n_connects: int = 0
    n_out_of_order: int = 0
    n_gaps: int = 0
    n_unacknowledged: int = 0
    unacknowledged_ns: int = NO_TIME
    rejects_by_code: tuple[tuple[str, int], ...] = ()
    config_hash: str = ""
    pid: int = 0
    n_killed: int = 0
    n_bytes: int = 0
    """Bytes of what was received: payloads, bodies, answers, lines of files; of tables as they are in memory."""


@dataclass(frozen=True, slots=True)
class PlantFacts:
    """What an adapter may know of the plant, and what it shares with the others.

    Parameters
    ----------
    levels : names of a path's levels. folder : of the plant file.
    tables : texts that stand for files in the folder, by the name written: those files may have changed since.
    pacer : whoever makes connections waits for its turn there.
    state : folder in the store where this adapter alone may keep what has to outlive the process, as how far it has
    read its source; made by whoever writes there first, never part of a backup, and gone without harm but for work
    that is done again. None where nothing can be kept.
    """

    levels: tuple[str, ...] = ()
    timezone: str = "UTC"
    folder: Path = Path()
    tables: Mapping[str, str] = field(default_factory=dict)
    pacer: ConnectPacer = field(default_factory=ConnectPacer, compare=False)
    state: Path | None = None


class Adapter(Protocol):
    """One configured instance of a protocol's adapter; see the module's text for the rules."""

    Config: ClassVar[type[Any]]
    """The pydantic model of ``[adapters.<name>]``."""
    name: str

    @classmethod
    def from_config(cls, name: str, config: Any, profiles: Any, plant: PlantFacts) -> Self:
        """Build an instance; no I/O but reading files beside the plant file. Raises ConfigError."""
        ...

    async def start(self, sink: Sink) -> None:
        """Begin; returns within a second whatever the devices do."""
        ...

    async def stop(self) -> None:
        """End; hands on what was received, within two seconds. Idempotent."""
        ...

    def diagnostics(self) -> AdapterDiagnostics:
        """The present state and counts; cheap, callable at any time, also before start and after stop."""
        ...


@dataclass(frozen=True, slots=True)
class Pushed:
    """One body that a client pushed, not compressed any more; `key` is its idempotency key or empty."""

    body: bytes
    content_type: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    arrival_ns: int = NO_TIME


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a body: samples that are durable, samples that were refused, and why the first was."""

    n_samples: int = 0
    n_refused: int = 0
    reason: str = ""
    is_read: bool = True
    """Whether it could be read at all."""


class PartlyRejected(Rejected):
    """Some of a body, or all of it, can never be taken; the rest is durable. `receipt` says how much."""

    def __init__(self, message: str, receipt: Receipt) -> None:
        super().__init__(message)
        self.receipt = receipt


@runtime_checkable
class Receiver(Protocol):
    """An adapter that clients push to, instead of one that goes to its devices."""

    async def receive(self, pushed: Pushed) -> Receipt:
        """Take a body; returns only when everything in it is durable.

        Raises
        ------
        PartlyRejected : some of it, or all, can never be taken; the rest is durable. The text says how much and why.
        Overloaded : come again after `wait_s` seconds with the whole of it.
        Closed : the adapter does not run; nothing of it is acknowledged.
        """
        ...
