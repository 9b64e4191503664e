"""Polls the devices behind one host and port: in series, each on time, none at another's cost.

One task a connection takes the device that is due next from a heap, so polls never overlap. What goes wrong
stays where it is:

* a device that does not answer costs its deadline, then waits (doubling), and all such *suspects* of a
  connection together get at most a tenth of its time;
* a connection on which nobody answers any more is closed and made anew, with back-off and jitter;
* a poll that is due while there is no credit, no connection or no time is skipped and counted.

Who is due within a millisecond is polled at once: a nap costs as much CPU as a poll, and the event loop's are no shorter.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.adapters.abilities import Captured, Direction, Listener
from headrace.adapters.base import AdapterState, DeviceDiagnostics, Sink
from headrace.adapters.meters import Backoff, LatencyRing, fraction, seconds
from headrace.adapters.modbus.again import poll_text
from headrace.adapters.modbus.captured import about_piece
from headrace.adapters.modbus.collector import Collector
from headrace.adapters.modbus.config import DevicePlan
from headrace.adapters.modbus.endpoints import Endpoint
from headrace.adapters.modbus.reads import (
    GATEWAY,
    PARTED_BY,
    BlockRead,
    DeviceReads,
    Image,
    block_text,
    exception_text,
)
from headrace.adapters.modbus.transport import GarbledAnswer, ModbusTransport, NotTrusted
from headrace.adapters.pacing import ConnectGate
from headrace.adapters.payloads.registers import ImageHole
from headrace.core.clock import NO_TIME, NS, monotonic_ns
from headrace.core.errors import NotConnected
from headrace.core.events import Reject, RejectCode
from headrace.core.sensors import SensorDirectory

SUSPECT_SHARE = 0.1
N_SILENT_MAX = 3
N_MOMENTS = 10
N_PROBLEMS_MAX = 50
EARLY_NS_MAX = 1_000_000
"""How much before its time a device may be polled; a tenth of its interval where that is less."""
_MS = 1_000_000
_log = logging.getLogger("headrace.adapters.modbus")


class _Malformed(Exception):
    """An answer that does not fit its request."""

    def __init__(self, detail: str, request: bytes, pdu: bytes) -> None:
        self.detail = detail
        self.pieces = [(request, pdu)]
        """All answers of the poll, each with its request; this one is the last."""


class _NoDevice(Exception):
    """A gateway says that its device does not answer."""


def phase_ns(plan: DevicePlan) -> int:
    """Where in its interval a device is polled: at one of ten moments, and up to 10 ms after it.

    Bunches let the answers of many connections be decoded together; ten of them, and the jitter inside, keep the
    load even.
    """
    moment = int(N_MOMENTS * fraction(plan.path))
    jitter_ns = int(min(10 * _MS, plan.interval_ns // N_MOMENTS) * fraction(f"{plan.path} jitter"))
    return moment * plan.interval_ns // N_MOMENTS + jitter_ns


class PolledDevice:
    """A device's plan with what is known of it at run time."""

    def __init__(self, plan: DevicePlan, slots: tuple[int, ...], backoff: Backoff, now_ns: int) -> None:
        self.backoff = backoff
        self.retag(plan, slots, now_ns)
        self.told_reason = ""
        self.state = AdapterState.STARTING
        self.reason = ""
        self.changed_ns = now_ns
        self.is_told = False
        self.due_ns = 0
        self.set_ns = 0
        self.retry_ns = NO_TIME
        self.last_good_ns = NO_TIME
        self.n_requests = 0
        self.n_errors = 0
        self.n_timeouts = 0
        self.n_polls_skipped = 0
        self.n_polls = 0
        self.n_polls_late = 0

    def retag(self, plan: DevicePlan, slots: tuple[int, ...], at_ns: int) -> None:
        """Be read by another plan from the next poll on, by what holds at `at_ns`; what it refuses is to be found anew."""
        self.plan = plan
        self.read_map = plan.map_at(at_ns)
        self.width = self.read_map.width
        self.early_ns = min(EARLY_NS_MAX, plan.interval_ns // 10)
        self.until_ns = plan.changes_after(at_ns)
        self.slots = slots
        self.reads = DeviceReads(self.read_map)
        self.troubles: dict[ImageHole, str] = {}

    @property
    def is_suspect(self) -> bool:
        """Whether its latest poll was not answered."""
        return self.backoff.n_failures > 0

    def renew(self, ts_ns: int, directory: SensorDirectory) -> None:
        """From `ts_ns` on another calibration holds: the same registers, other grids, hence new layouts."""
        self.read_map = self.plan.map_at(ts_ns)
        self.until_ns = self.plan.changes_after(ts_ns)
        self.slots = self.plan.define(self.read_map, directory)

    def problems(self) -> tuple[tuple[str, str], ...]:
        """Signals that have no value at present although the device answers, and why."""
        named = {name: text for hole, text in self.troubles.items() for name in self.read_map.names(hole)}
        return tuple(named.items())[:N_PROBLEMS_MAX]

    def enter(self, state: AdapterState, reason: str, now_ns: int) -> None:
        """Be in `state` from now on."""
        if state is not self.state:
            self.changed_ns = now_ns
        self.state, self.reason = state, reason

    def diagnostics(self) -> DeviceDiagnostics:
        """The device at a glance."""
        away = self.state in (AdapterState.BACKOFF, AdapterState.FAILED)
        return DeviceDiagnostics(
            self.plan.path, self.state, self.reason, self.last_good_ns, self.retry_ns if away else NO_TIME,
            self.n_requests, self.n_errors, self.n_timeouts, self.n_polls_skipped, self.n_polls, self.n_polls_late,
            problems=() if away else self.problems(),
        )  # fmt: skip


def _set_phase(device: PolledDevice, now_ns: int) -> None:
    device.set_ns = now_ns
    device.due_ns = now_ns + phase_ns(device.plan)


@dataclass(frozen=True, slots=True)
class PollWish:
    """What a connection is to poll: its devices, and the plans and slots, as of `at_ns`, of those read in another way."""

    devices: list[PolledDevice]
    plans: list[tuple[PolledDevice, DevicePlan, tuple[int, ...]]]
    at_ns: int


class ConnectionPoller:
    """All devices of one endpoint.

    Parameters
    ----------
    gate : bounds how many connections of the adapter are being made at a time, and how fast.
    gap_ns : least plant time between two requests.
    """

    def __init__(
        self,
        name: str,
        devices: list[PolledDevice],
        sink: Sink,
        collector: Collector,
        gate: ConnectGate,
        gap_ns: int,
        backoff: Backoff,
    ) -> None:
        self._name = name
        self._devices = devices
        self._sink = sink
        self._clock = sink.clock
        self._collector = collector
        self._gate = gate
        self._gap_ns = gap_ns
        self._backoff = backoff
        self.endpoint: Endpoint = devices[0].plan.endpoint
        self._transport: ModbusTransport | None = None
        self._closed_cpu_ns = self._closed_bytes = 0
        self._retry_ns = 0
        self._next_request_ns = 0
        self._suspects_ns = 0
        self._n_silent = 0
        self._is_lost = False
        self._due: list[tuple[int, int]] = []
        self._asking = asyncio.Lock()
        self._wish: PollWish | None = None
        self.is_resting = False
        self.latency = LatencyRing()
        self.n_connects = 0
        self.listener: Listener | None = None

    @property
    def transport_ns(self) -> int:
        """CPU of socket and framing so far."""
        return self._closed_cpu_ns + (self._transport.cpu_ns if self._transport else 0)

    @property
    def n_bytes(self) -> int:
        """Bytes received so far."""
        return self._closed_bytes + (self._transport.n_bytes if self._transport else 0)

    async def run(self) -> None:
        """Poll until cancelled; a defect of ours in one poll does not end the others.

        Who was cancelled while resting may go on with another call.
        """
        if not self._due:
            self._phase()
        while True:
            try:
                if self._wish is not None:
                    self._fulfil(self._wish)
                await self._next()
            except Exception as e:
                _log.exception("adapter=%s %s: polling failed", self._name, self.endpoint)
                self._drop(f"internal error: {e!r}")

    @property
    def devices(self) -> list[PolledDevice]:
        """All that it polls."""
        return self._devices

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands."""
        return self._transport is not None

    async def ask(self, pdu: bytes, unit: int, timeout_s: float) -> bytes:
        """One request between the polls, for a person: over this connection, as many devices take but one.

        Raises
        ------
        NotConnected : the connection is, or gets, lost. TimeoutError : no answer in time.
        """
        if self._transport is None:
            raise NotConnected(f"{self.endpoint} is not connected")
        return await self._in_turn(unit, pdu, timeout_s, self._transport)

    def change(self, wish: PollWish | None) -> None:
        """Poll other devices, or by other plans, as soon as no request is on its way; None: as now."""
        self._wish = wish

    def _fulfil(self, wish: PollWish) -> None:
        now_ns = self._clock.now_ns()
        for device, plan, slots in wish.plans:
            is_moved = plan.interval_ns != device.plan.interval_ns
            device.retag(plan, slots, wish.at_ns)
            if is_moved:
                _set_phase(device, now_ns)
        known = set(map(id, self._devices))
        for device in wish.devices:
            if id(device) not in known:
                _set_phase(device, now_ns)
        self._devices, self._wish = wish.devices, None
        self._order()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._closed_cpu_ns += self._transport.cpu_ns
            self._closed_bytes += self._transport.n_bytes
            self._transport.close()
            self._transport = None

    def _phase(self) -> None:
        """Spread the next polls over the interval."""
        now_ns = self._clock.now_ns()
        self._retry_ns = self._next_request_ns = self._suspects_ns = 0
        for device in self._devices:
            _set_phase(device, now_ns)
        self._order()

    def _order(self) -> None:
        """Whoever is due first comes first."""
        self._due = [(device.due_ns, number) for number, device in enumerate(self._devices)]
        heapq.heapify(self._due)

    async def _next(self) -> None:
        """Do what is next: wait, connect, skip or poll."""
        due_ns, number = self._due[0]
        device, now_ns = self._devices[number], self._clock.now_ns()
        if now_ns < device.set_ns - NS:
            self._phase()  # the clock was set back
        elif now_ns < due_ns - device.early_ns:
            await self._rest(due_ns - now_ns)
        elif self._transport is None:
            await self._connect(now_ns)
        elif device.is_suspect and now_ns < self._suspects_ns:
            device.n_polls_skipped += 1
            self._set_due(device, number, self._suspects_ns)
        elif not self._sink.has_credit(device.width):
            device.n_polls_skipped += 1
            self._set_due(device, number, now_ns)
        else:
            device.n_polls += 1
            device.n_polls_late += now_ns - due_ns > device.plan.interval_ns // 10
            until_ns = await self._poll(device, self._transport, now_ns)
            self._set_due(device, number, until_ns)

    async def _rest(self, duration_ns: int) -> None:
        """Wait with nothing on its way."""
        self.is_resting = True
        duration_s = seconds(duration_ns)
        if self._transport is not None:
            self._transport.rest(duration_s)
        try:
            await self._clock.sleep(duration_s)
        finally:
            self.is_resting = False

    def _set_due(self, device: PolledDevice, number: int, not_before_ns: int) -> None:
        """The device is due again on its own grid of times, in the future; what is passed over is counted."""
        now_ns, interval_ns = self._clock.now_ns(), device.plan.interval_ns
        if device.due_ns > now_ns + NS:
            self._phase()  # the clock was set back while the device was asked
            return
        least_ns = max(now_ns + 1, not_before_ns) - device.due_ns
        n_steps = max(1, -(-least_ns // interval_ns))
        device.n_polls_skipped += n_steps - 1
        device.set_ns = now_ns
        device.due_ns += n_steps * interval_ns
        device.retry_ns = device.due_ns
        heapq.heapreplace(self._due, (device.due_ns, number))

    # --- connection ----------------------------------------------------------------------------------

    async def _connect(self, now_ns: int) -> None:
        if now_ns < self._retry_ns:
            await self._rest(self._retry_ns - now_ns)
            return
        timeout_s = max(device.plan.url.timeout_s for device in self._devices)
        try:
            async with self._gate:
                self._transport = await ModbusTransport.connect(self.endpoint, timeout_s, self._drop)
            self.n_connects += 1
        except NotTrusted as e:
            self._drop(str(e), AdapterState.FAILED)
        except NotConnected as e:
            self._drop(str(e))
        self._n_silent = 0

    def _drop(self, reason: str, state: AdapterState = AdapterState.BACKOFF) -> None:
        """The connection is lost (or was not made): wait before the next, say so once."""
        self.close()
        now_ns = self._clock.now_ns()
        self._retry_ns = now_ns + self._backoff.next_ns()
        for device in self._devices:
            device.enter(state, reason, now_ns)
            device.retry_ns = self._retry_ns
        if not self._is_lost:
            self._is_lost = True
            _log.warning(
                "adapter=%s device=%s (%d devices) lost: %s; retrying until it answers",
                self._name, self.endpoint, len(self._devices), reason,
            )  # fmt: skip

    # --- one device ----------------------------------------------------------------------------------

    async def _poll(self, device: PolledDevice, transport: ModbusTransport, began_ns: int) -> int:
        """Read all of a device; the time before which it must not be polled again (0: its interval)."""
        try:
            await self._read_all(device, transport, began_ns)
        except TimeoutError:
            return self._silent(device, f"no answer within {device.plan.url.timeout_s:g} s", began_ns)
        except GarbledAnswer as e:
            device.n_errors += 1
            self._reject(device, str(e), e.raw)
            return self._silent(device, "its answers are garbled", began_ns)
        except NotConnected:
            device.n_errors += 1
        except _NoDevice as e:
            return self._away(device, str(e), began_ns)
        except _Malformed as e:
            self._malformed(device, e.detail, poll_text(e.pieces))
        return 0

    async def _read_all(self, device: PolledDevice, transport: ModbusTransport, began_ns: int) -> None:
        """Read what is due of a device, and something that it refused before; hand on the image."""
        reads = device.reads
        again, due = reads.retry(began_ns), tuple(reads.due)
        total = len(due) + (again is not None)
        answers: list[bytes | int] = []
        back = None
        try:
            for number, read in enumerate(due, 1):
                answers.append(await self._read(device, transport, read, (number, total), is_again=False))
            if again is not None:
                answer = await self._read(device, transport, again, (total, total), is_again=True)
                back = again if isinstance(answer, bytes) else None
        except _Malformed as e:
            e.pieces[:0] = [(read.request, read.pdu(one)) for read, one in zip(due, answers, strict=False)]
            raise
        now_ns = self._clock.now_ns()
        whole = reads.whole_image(answers)
        if whole is None:
            self._take_pieces(device, due, answers, back, now_ns)
        else:
            device.troubles = {}
            self._answered(device, "", now_ns)
            device.last_good_ns = now_ns
            self._hand_on(device, whole, now_ns)

    def _take_pieces(
        self,
        device: PolledDevice,
        due: Sequence[BlockRead],
        answers: Sequence[bytes | int],
        back: BlockRead | None,
        now_ns: int,
    ) -> None:
        """Make an image of what is there, and ask in other pieces from now on; `back`: what is given again."""
        reads, image = device.reads, Image(device.read_map)
        troubles = {read.hole: exception_text(code) for read, code in reads.refused.items()}
        parted: list[tuple[BlockRead, int]] = []
        n_good, reason = 0, ""
        for read, answer in zip(due, answers, strict=True):
            if isinstance(answer, bytes):
                image.put(read, answer)
                n_good += 1
                continue
            troubles[read.hole] = exception_text(answer)
            if answer in PARTED_BY:
                parted.append((read, answer))
            else:
                reason = reason or f"{exception_text(answer)} reading {block_text(read.block)}"
        for read, code in parted:
            reads.part(read, code, now_ns)
        if back is not None:
            reads.join(back)
        device.troubles = troubles
        looking = f"looking for what it refuses of {block_text(parted[0][0].block)}" if parted else ""
        self._answered(device, reason or reads.reason() or looking, now_ns, is_settled=not parted)
        if n_good:
            device.last_good_ns = now_ns
        self._hand_on(device, image.finish(), now_ns)

    def _hand_on(self, device: PolledDevice, data: bytes, now_ns: int) -> None:
        # Modbus tells no time: a value is as old as its answer, in whole milliseconds.
        ts_ns = now_ns // _MS * _MS
        if ts_ns >= device.until_ns:
            device.renew(ts_ns, self._sink.directory)
        self._collector.add(device.read_map, device.slots, ts_ns, data, device.troubles)

    async def _read(
        self,
        device: PolledDevice,
        transport: ModbusTransport,
        read: BlockRead,
        part: tuple[int, int],
        is_again: bool,
    ) -> bytes | int:
        """The data bytes of an answer, or the code of the exception that the device gives."""
        about: Mapping[str, str] = {}
        if self.listener is not None:
            refused = device.reads.refused if part[0] == part[1] else ()
            about = about_piece(str(self.endpoint), read.request, part, is_again, refused)
            self._hear(device, read.request, Direction.SENT, about)
        device.n_requests += 1
        url = device.plan.url
        pdu = await self._in_turn(url.unit, read.request, url.timeout_s, transport)
        if about:
            self._hear(device, pdu, Direction.RECEIVED, about)
        self._n_silent = 0
        self._backoff.reset()
        try:
            answer = read.answered(pdu)
        except ValueError as e:
            device.n_errors += 1
            raise _Malformed(str(e), read.request, pdu) from None
        if isinstance(answer, bytes):
            return answer
        device.n_errors += 1
        if answer in GATEWAY:
            raise _NoDevice(exception_text(answer))
        return answer

    def _hear(
        self, device: PolledDevice, data: bytes, direction: Direction, about: Mapping[str, str]
    ) -> None:
        if self.listener is not None:
            self.listener(Captured(self._clock.now_ns(), device.plan.path, data, direction, about))

    async def _in_turn(self, unit: int, pdu: bytes, timeout_s: float, transport: ModbusTransport) -> bytes:
        """Send a request when the one before it is answered, and not sooner than the cap allows."""
        await self._asking.acquire()
        try:
            now_ns = self._clock.now_ns()
            wait_ns = min(self._next_request_ns - now_ns, self._gap_ns)
            if wait_ns > 0:
                await self._clock.sleep(seconds(wait_ns))
                now_ns = self._clock.now_ns()
            self._next_request_ns = now_ns + self._gap_ns
            sent_ns = monotonic_ns()
            answer = await transport.request(unit, pdu, timeout_s)
            self.latency.add(seconds(monotonic_ns() - sent_ns))
            return answer
        finally:
            self._asking.release()

    def _answered(self, device: PolledDevice, reason: str, now_ns: int, is_settled: bool = True) -> None:
        device.backoff.reset()
        if is_settled and reason != device.told_reason:
            device.told_reason = reason
            if reason:
                _log.warning("adapter=%s device=%s %s", self._name, device.plan.path, reason)
            else:
                _log.info("adapter=%s device=%s gives all its values again", self._name, device.plan.path)
        state = AdapterState.DEGRADED if reason else AdapterState.CONNECTED
        device.enter(state, reason, now_ns)
        if self._is_lost:
            self._is_lost = False
            _log.info("adapter=%s device=%s is back", self._name, self.endpoint)
        elif device.is_told:
            _log.info("adapter=%s device=%s is back", self._name, device.plan.path)
        device.is_told = False

    def _silent(self, device: PolledDevice, reason: str, began_ns: int) -> int:
        """The deadline passed without an answer."""
        device.n_timeouts += 1
        self._n_silent += 1
        until_ns = self._away(device, reason, began_ns)
        nobody = all(other.is_suspect for other in self._devices)
        if nobody and self._n_silent >= N_SILENT_MAX:
            self._drop(f"connected, but {self._n_silent} requests were not answered")
        return until_ns

    def _away(self, device: PolledDevice, reason: str, began_ns: int) -> int:
        """The device is not there, though the connection may be: leave the time to the others."""
        now_ns = self._clock.now_ns()
        self._suspects_ns = now_ns + round((now_ns - began_ns) * (1 / SUSPECT_SHARE - 1))
        if not device.is_suspect and not self._is_lost:
            device.is_told = True
            _log.warning("adapter=%s device=%s lost: %s", self._name, device.plan.path, reason)
        device.enter(AdapterState.BACKOFF, reason, now_ns)
        return now_ns + device.backoff.next_ns()

    def _malformed(self, device: PolledDevice, detail: str, poll: bytes) -> None:
        """The answer does not fit the request: keep it as a reject."""
        self._reject(device, detail, poll)
        reason = f"{detail.rpartition(', got ')[0]}, got something else"
        self._answered(device, reason, self._clock.now_ns())

    def _reject(self, device: PolledDevice, detail: str, raw: bytes) -> None:
        reject = Reject(
            RejectCode.MALFORMED, self._name, device.plan.path, detail, raw, self._clock.now_ns(),
            device.read_map.width,
        )  # fmt: skip
        self._collector.reject(reject)
