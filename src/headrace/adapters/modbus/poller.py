"""Polls the devices behind one host and port: in series, each on time, none at another's cost.

One task a connection takes the device that is due next from a heap, so polls never overlap. What goes wrong
stays where it is:

* a device that does not answer costs its deadline, then waits (doubling), and all such *suspects* of a
  connection together get at most a tenth of its time;
* a connection on which nobody answers any more is closed and made anew, with back-off and jitter;
* a poll that is due while there is no credit, no connection or no time is skipped and counted.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import struct
from dataclasses import dataclass

from headrace.adapters.abilities import Captured, Direction, Listener
from headrace.adapters.base import AdapterState, DeviceDiagnostics, Sink
from headrace.adapters.meters import Backoff, LatencyRing, fraction, seconds
from headrace.adapters.modbus.collector import Collector, PollImage
from headrace.adapters.modbus.config import DevicePlan
from headrace.adapters.modbus.transport import ModbusTransport
from headrace.adapters.pacing import ConnectGate
from headrace.adapters.payloads.registers import Block
from headrace.core.clock import NO_TIME, NS, monotonic_ns
from headrace.core.errors import NotConnected
from headrace.core.events import Reject, RejectCode

SUSPECT_SHARE = 0.1
N_SILENT_MAX = 3
N_MOMENTS = 10
_MS = 1_000_000
_REQUEST = struct.Struct(">BHH")
_EXCEPTIONS = {
    1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure",
    5: "acknowledge", 6: "device busy", 8: "memory parity error", 10: "gateway path unavailable",
    11: "gateway target failed to respond",
}  # fmt: skip
_GATEWAY = (10, 11)
_log = logging.getLogger("headrace.adapters.modbus")


def exception_text(code: int) -> str:
    """A Modbus exception code in words."""
    return f"exception {code} ({_EXCEPTIONS.get(code, 'unknown code')})"


def block_text(block: Block) -> str:
    """A block as ``holding:100..109``."""
    return f"{block.area}:{block.start}..{block.start + block.count - 1}"


def phase_ns(plan: DevicePlan) -> int:
    """Where in its interval a device is polled: at one of ten moments, and up to 10 ms after it.

    Bunches let the answers of many connections be decoded together; ten of them, and the jitter inside, keep the
    load even.
    """
    moment = int(N_MOMENTS * fraction(plan.path))
    jitter_ns = int(min(10 * _MS, plan.interval_ns // N_MOMENTS) * fraction(f"{plan.path} jitter"))
    return moment * plan.interval_ns // N_MOMENTS + jitter_ns


def request_pdus(plan: DevicePlan) -> list[bytes]:
    """What is asked in one poll of a device, in order."""
    return [_REQUEST.pack(b.area.function, b.start, b.count) for b in plan.read_map.blocks]


class PolledDevice:
    """A device's plan with what is known of it at run time."""

    def __init__(self, plan: DevicePlan, slots: tuple[int, ...], backoff: Backoff, now_ns: int) -> None:
        self.backoff = backoff
        self.retag(plan, slots)
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

    def retag(self, plan: DevicePlan, slots: tuple[int, ...]) -> None:
        """Be read by another plan from the next poll on."""
        self.plan = plan
        self.slots = slots
        self.requests = request_pdus(plan)

    @property
    def is_suspect(self) -> bool:
        """Whether its latest poll was not answered."""
        return self.backoff.n_failures > 0

    def enter(self, state: AdapterState, reason: str, now_ns: int) -> None:
        """Be in `state` from now on."""
        if state is not self.state:
            self.changed_ns = now_ns
        self.state, self.reason = state, reason

    def diagnostics(self) -> DeviceDiagnostics:
        """The device at a glance."""
        away = self.state is AdapterState.BACKOFF
        return DeviceDiagnostics(
            self.plan.path, self.state, self.reason, self.last_good_ns, self.retry_ns if away else NO_TIME,
            self.n_requests, self.n_errors, self.n_timeouts, self.n_polls_skipped, self.n_polls, self.n_polls_late,
        )  # fmt: skip


def _set_phase(device: PolledDevice, now_ns: int) -> None:
    device.set_ns = now_ns
    device.due_ns = now_ns + phase_ns(device.plan)


@dataclass(frozen=True, slots=True)
class PollWish:
    """What a connection is to poll: its devices, and the plans and slots of those that are read in another way."""

    devices: list[PolledDevice]
    plans: list[tuple[PolledDevice, DevicePlan, tuple[int, ...]]]


class ConnectionPoller:
    """All devices of one host and port.

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
        self._host, self._port = devices[0].plan.host, devices[0].plan.port
        self._transport: ModbusTransport | None = None
        self._closed_cpu_ns = 0
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
                _log.exception("adapter=%s %s:%d: polling failed", self._name, self._host, self._port)
                self._drop(f"internal error: {e!r}")

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port."""
        return self._host, self._port

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
            raise NotConnected(f"{self._host}:{self._port} is not connected")
        return await self._in_turn(unit, pdu, timeout_s, self._transport)

    def change(self, wish: PollWish | None) -> None:
        """Poll other devices, or by other plans, as soon as no request is on its way; None: as now."""
        self._wish = wish

    def _fulfil(self, wish: PollWish) -> None:
        now_ns = self._clock.now_ns()
        for device, plan, slots in wish.plans:
            is_moved = plan.interval_ns != device.plan.interval_ns
            device.retag(plan, slots)
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
        elif now_ns < due_ns:
            await self._rest(due_ns - now_ns)
        elif self._transport is None:
            await self._connect(now_ns)
        elif device.is_suspect and now_ns < self._suspects_ns:
            device.n_polls_skipped += 1
            self._set_due(device, number, self._suspects_ns)
        elif not self._sink.has_credit(device.plan.read_map.width):
            device.n_polls_skipped += 1
            self._set_due(device, number, now_ns)
        else:
            device.n_polls += 1
            device.n_polls_late += now_ns - due_ns > device.plan.interval_ns // 10
            until_ns = await self._poll(device, self._transport)
            self._set_due(device, number, until_ns)

    async def _rest(self, duration_ns: int) -> None:
        """Wait with nothing on its way."""
        self.is_resting = True
        try:
            await self._clock.sleep(seconds(duration_ns))
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
        timeout_s = max(device.plan.timeout_s for device in self._devices)
        try:
            async with self._gate:
                self._transport = await ModbusTransport.connect(self._host, self._port, timeout_s, self._drop)
            self.n_connects += 1
        except NotConnected as e:
            self._drop(str(e))
        self._n_silent = 0

    def _drop(self, reason: str) -> None:
        """The connection is lost (or was not made): wait before the next, say so once."""
        self.close()
        now_ns = self._clock.now_ns()
        self._retry_ns = now_ns + self._backoff.next_ns()
        for device in self._devices:
            device.enter(AdapterState.BACKOFF, reason, now_ns)
            device.retry_ns = self._retry_ns
        if not self._is_lost:
            self._is_lost = True
            _log.warning(
                "adapter=%s device=%s:%d (%d devices) lost: %s; retrying until it answers",
                self._name, self._host, self._port, len(self._devices), reason,
            )  # fmt: skip

    # --- one device ----------------------------------------------------------------------------------

    async def _poll(self, device: PolledDevice, transport: ModbusTransport) -> int:
        """Read all blocks of a device; the time before which it must not be polled again (0: its interval)."""
        began_ns = self._clock.now_ns()
        data: list[bytes] = []
        failed: list[int] = []
        reason = ""
        for number, block in enumerate(device.plan.read_map.blocks):
            try:
                pdu = await self._request(device, transport, device.requests[number])
            except TimeoutError:
                return self._silent(device, began_ns)
            except NotConnected:
                device.n_errors += 1
                return 0
            if len(pdu) == block.size_bytes + 2 and pdu[:2] == bytes((block.area.function, block.size_bytes)):
                data.append(pdu[2:])
                continue
            device.n_errors += 1
            if pdu[0] != block.area.function | 0x80 or len(pdu) != 2:
                return self._malformed(device, block, pdu)
            if pdu[1] in _GATEWAY:
                return self._away(device, exception_text(pdu[1]), began_ns)
            failed.append(number)
            data.append(bytes(block.size_bytes))
            reason = reason or f"{exception_text(pdu[1])} reading {block_text(block)}"
        self._answered(device, reason)
        if len(failed) < len(data):
            device.last_good_ns = self._clock.now_ns()
        # Modbus tells no time: a value is as old as its answer, in whole milliseconds.
        ts_ns = self._clock.now_ns() // _MS * _MS
        image = PollImage(device.slots, ts_ns, b"".join(data), tuple(failed))
        self._collector.add(device.plan.read_map, image)
        return 0

    async def _request(self, device: PolledDevice, transport: ModbusTransport, pdu: bytes) -> bytes:
        device.n_requests += 1
        self._hear(device, pdu, pdu, Direction.SENT)
        answer = await self._in_turn(device.plan.unit, pdu, device.plan.timeout_s, transport)
        self._hear(device, pdu, answer, Direction.RECEIVED)
        self._n_silent = 0
        self._backoff.reset()
        return answer

    def _hear(self, device: PolledDevice, request: bytes, data: bytes, direction: Direction) -> None:
        if self.listener is not None:
            about = {"peer": f"{self._host}:{self._port}", "request": request.hex()}
            self.listener(Captured(self._clock.now_ns(), device.plan.path, data, direction, about))

    async def _in_turn(self, unit: int, pdu: bytes, timeout_s: float, transport: ModbusTransport) -> bytes:
        """Send a request when the one before it is answered, and not sooner than the cap allows."""
        async with self._asking:
            wait_ns = min(self._next_request_ns - self._clock.now_ns(), self._gap_ns)
            if wait_ns > 0:
                await self._clock.sleep(seconds(wait_ns))
            self._next_request_ns = self._clock.now_ns() + self._gap_ns
            sent_ns = monotonic_ns()
            answer = await transport.request(unit, pdu, timeout_s)
            self.latency.add(seconds(monotonic_ns() - sent_ns))
            return answer

    def _answered(self, device: PolledDevice, reason: str) -> None:
        device.backoff.reset()
        if reason and reason != device.reason:
            _log.warning("adapter=%s device=%s %s", self._name, device.plan.path, reason)
        state = AdapterState.DEGRADED if reason else AdapterState.CONNECTED
        device.enter(state, reason, self._clock.now_ns())
        if self._is_lost:
            self._is_lost = False
            _log.info("adapter=%s device=%s:%d is back", self._name, self._host, self._port)
        elif device.is_told:
            _log.info("adapter=%s device=%s is back", self._name, device.plan.path)
        device.is_told = False

    def _silent(self, device: PolledDevice, began_ns: int) -> int:
        """The deadline passed without an answer."""
        device.n_timeouts += 1
        self._n_silent += 1
        until_ns = self._away(device, f"no answer within {device.plan.timeout_s:g} s", began_ns)
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

    def _malformed(self, device: PolledDevice, block: Block, pdu: bytes) -> int:
        """The answer does not fit the request: keep it as a reject."""
        detail = f"expected function {block.area.function} with {block.size_bytes} data bytes for {block_text(block)}"
        reject = Reject(
            RejectCode.MALFORMED, self._name, device.plan.path, f"{detail}, got {len(pdu)} bytes", pdu,
            self._clock.now_ns(), device.plan.read_map.width,
        )  # fmt: skip
        self._collector.reject(reject)
        self._answered(device, f"{detail}, got something else")
        return 0
