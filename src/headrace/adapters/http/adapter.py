"""The HTTP adapter: what clients push, durable before they are answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from headrace.adapters.abilities import Captured, Listener
from headrace.adapters.base import (
    AdapterDiagnostics,
    AdapterState,
    DeviceDiagnostics,
    PartlyRejected,
    PlantFacts,
    Pushed,
    Receipt,
    Sink,
)
from headrace.adapters.http.config import HttpConfig
from headrace.adapters.http.formats import WHOLE, BodyDecoder, Slice
from headrace.adapters.http.keys import Outcome, RecentKeys
from headrace.adapters.meters import LatencyRing, SkewMeter, seconds, spread
from headrace.adapters.payloads.json_lines import JsonLinesDecoder
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_decoder import SLICE_BYTES, LineDecoder, warm_lines
from headrace.adapters.payloads.metric_decoder import MetricDecoder, warm_metrics
from headrace.adapters.payloads.router import warm_messages
from headrace.adapters.payloads.tag_paths import TagPath, compile_tag_path, default_template
from headrace.core.clock import NO_TIME, NS, monotonic_ns, thread_cpu_ns
from headrace.core.errors import Closed, ConfigError, HeadraceError, Overloaded, PluginError, Rejected
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

_WAIT_S = 1.0
_FLUSH_S = 1.0
_CREDIT_BYTES = 32
_KEPT = ("precision", "form")
"""Parameters of a request that say how its body is written."""
_log = logging.getLogger("headrace.adapters.http")


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists between start and stop."""

    sink: Sink
    groups: DeviceGroups
    decoder: BodyDecoder


class _Landing:
    """Tells when all parts of a request are durable; begins with one open part, the request itself."""

    def __init__(self) -> None:
        self._n_open = 1
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expect(self) -> None:
        """One part more is handed on."""
        self._n_open += 1

    def ack(self) -> None:
        """One part is durable, or will never be."""
        self._n_open -= 1
        if not self._n_open and not self.done.done():
            self.done.set_result(None)


def _captured(pushed: Pushed) -> Captured:
    """A body with what decoding it takes; other parameters, which may hold a password, are left out."""
    about = {"content_type": pushed.content_type, **{k: pushed.parameters.get(k, "") for k in _KEPT}}
    return Captured(pushed.arrival_ns, "clients", pushed.body, about={k: v for k, v in about.items() if v})


class HttpAdapter:
    """Bodies as frames; see `headrace.adapters.base` for the contract, `Receiver` for the way in."""

    Config: ClassVar[type[HttpConfig]] = HttpConfig

    def __init__(
        self, name: str, config: HttpConfig, naming: tuple[TagPath, TagPath], plant: PlantFacts
    ) -> None:
        self.name = name
        self._config = config
        self._naming = naming
        self._plant = plant
        self._running: _Running | None = None
        self._keys = RecentKeys(config.remembered_keys)
        self._open: dict[asyncio.Task[None], int] = {}
        self._state = AdapterState.STARTING
        self._reason = f"nothing was pushed yet; clients POST to /api/v2/write?bucket={name}"
        self._since_ns = NO_TIME
        self._last_good_ns = NO_TIME
        self._waiting_bytes = 0
        self._n_requests = self._n_overloaded = self._n_sent_again = 0
        self._n_samples = self._n_frames = self._n_rejects = self._n_bytes = 0
        self._decode_ns = 0
        self._latency = LatencyRing()
        self._skew = SkewMeter()
        self._listener: Listener | None = None

    @classmethod
    def warm(cls) -> None:
        """Make the kernels of its decoders ready."""
        warm_lines()
        warm_metrics()
        warm_messages()

    @classmethod
    def from_config(cls, name: str, config: HttpConfig, profiles: Any, plant: PlantFacts) -> HttpAdapter:
        """Compile the path.

        Raises
        ------
        ConfigError : it can't be one.
        """
        template = config.path or default_template(plant.levels)
        try:
            naming = compile_tag_path(template, plant.levels, config.defaults, config.other_tags == "keep")
        except ConfigError as e:
            raise ConfigError(e.message, where=f"adapters.{name}.path") from e
        where = f"adapters.{name}.metrics"
        try:
            metrics = compile_tag_path(
                config.metrics or template, plant.levels, config.defaults, config.other_tags == "keep", True
            )
        except ConfigError as e:
            raise ConfigError(e.message, where=where) from e
        return cls(name, config, (naming, metrics), plant)

    async def start(self, sink: Sink) -> None:
        """Begin to take what is pushed."""
        groups = self._groups(sink.directory)
        self._running = _Running(sink, groups, self._decoder(sink.directory, groups))
        self._since_ns = sink.clock.now_ns()

    def _groups(self, directory: SensorDirectory) -> DeviceGroups:
        return DeviceGroups(directory, self._config.max_devices, self._config.max_sensors, keeps_grids=False)

    def _decoder(self, directory: SensorDirectory, groups: DeviceGroups) -> BodyDecoder:
        rule = self._config.rule
        of_lines, of_metrics = self._naming
        lines = LineDecoder(self.name, directory, groups, of_lines, rule)
        json = JsonLinesDecoder(self.name, groups, self._plant.levels, rule)
        metrics = MetricDecoder(self.name, directory, groups, of_metrics, rule)
        return BodyDecoder(lines, json, metrics, self._plant.timezone)

    async def stop(self) -> None:
        """Take no more; what is under way is waited for a second, then its clients are told to come again."""
        run, self._running = self._running, None
        if run is not None:
            self._since_ns = run.sink.clock.now_ns()
        self._state, self._reason = AdapterState.STOPPED, ""
        if self._open:
            _, late = await asyncio.wait(self._open, timeout=_FLUSH_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode refused lines, or a refused document, by the present configuration."""
        run = self._running
        decoder = self._decoder(directory, self._groups(directory)) if run is None else run.decoder
        return decoder.again(reject)

    def listen(self, listener: Listener | None) -> None:
        """Hear each body as it comes, also one that is sent again, or turned away."""
        self._listener = listener

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode bodies by the present configuration."""
        decoder = self._decoder(directory, self._groups(directory))
        batches: list[FrameBatch] = []
        rejects: list[Reject] = []
        for one in captured:
            kept = {name: one.about[name] for name in _KEPT if name in one.about}
            pushed = Pushed(one.data, one.about.get("content_type", ""), kept, arrival_ns=one.ts_ns)
            for part in self._slices(pushed, decoder):
                batches += part.batches
                rejects += part.rejects
        return batches, rejects

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; all clients together are the one device."""
        run = self._running
        device = DeviceDiagnostics(
            "clients", self._state, self._reason, self._last_good_ns, NO_TIME, self._n_requests, self._n_rejects,
            n_polls_skipped=self._n_overloaded, clock_skew_ns=self._skew.skew_ns,
        )  # fmt: skip
        p50, p99 = self._latency.percentiles()
        counts, total_s = spread([self._latency])
        return AdapterDiagnostics(
            self.name, "http", self._state, self._reason, self._since_ns, run.groups.n_sensors if run else 0, (device,),
            n_samples=self._n_samples, n_frames=self._n_frames, n_bytes=self._n_bytes, n_rejects=self._n_rejects,
            n_duplicates=self._n_sent_again, decode_ns=self._decode_ns, latency_s_p50=p50, latency_s_p99=p99,
            latency_counts=counts, latency_total_s=total_s, n_unacknowledged=len(self._open),
            unacknowledged_ns=next(iter(self._open.values()), NO_TIME),
        )  # fmt: skip

    # --- one request ---------------------------------------------------------------------------------

    async def receive(self, pushed: Pushed) -> Receipt:
        """Take a body; returns only when everything in it is durable. See `Receiver`."""
        run = self._running
        if run is None:
            raise Closed(f"adapter {self.name} does not run")
        self._n_requests += 1
        self._n_bytes += len(pushed.body)
        if pushed.arrival_ns == NO_TIME:
            pushed = replace(pushed, arrival_ns=run.sink.clock.now_ns())
        if self._listener is not None:
            self._listener(_captured(pushed))
        outcome = self._keys.find(pushed)
        if outcome is None:
            self._check_room(pushed, run)
            outcome = self._keys.begin(pushed)
            # A task of its own: a client that hangs up does not leave half a body behind.
            task = asyncio.create_task(self._take(pushed, run, outcome), name=f"http {self.name} request")
            self._open[task] = pushed.arrival_ns
            task.add_done_callback(self._open.pop)
        else:
            self._n_sent_again += 1
        done, _ = await asyncio.wait([outcome], timeout=seconds(self._config.answer_within))
        if not done:
            raise Overloaded("the journal has not taken all of it yet; send it again", _WAIT_S)
        found = outcome.result()
        if isinstance(found, HeadraceError):
            raise found
        return found

    def _check_room(self, pushed: Pushed, run: _Running) -> None:
        """Turn away what would have to wait. Raises Overloaded."""
        size = len(pushed.body)
        is_crowded = self._waiting_bytes and self._waiting_bytes + size > self._config.max_waiting
        if is_crowded or not run.sink.has_credit(1 + min(size, SLICE_BYTES) // _CREDIT_BYTES):
            self._n_overloaded += 1
            raise Overloaded("the journal has all that it can take at present; send it again", _WAIT_S)

    async def _take(self, pushed: Pushed, run: _Running, outcome: Outcome) -> None:
        """Store a body and say what became of it."""
        began_ns = monotonic_ns()
        self._waiting_bytes += len(pushed.body)
        found: HeadraceError | Receipt = Closed(f"adapter {self.name} was stopped; send it again")
        try:
            found = await self._store(pushed, run)
            self._latency.add((monotonic_ns() - began_ns) / NS)
            self._tell(run, "")
        except HeadraceError as e:
            found = e
            self._tell(run, str(e))
        finally:
            self._waiting_bytes -= len(pushed.body)
            if not isinstance(found, Rejected | Receipt):
                self._keys.forget(pushed)
            outcome.set_result(found)

    def _tell(self, run: _Running, reason: str) -> None:
        """Note, and log once, that nothing is taken, or that it is again."""
        if self._running is not run:
            return
        state = AdapterState.DEGRADED if reason else AdapterState.CONNECTED
        if state is not self._state:
            self._since_ns = run.sink.clock.now_ns()
            if reason:
                _log.warning("adapter=%s can't take what is pushed: %s", self.name, reason)
            elif self._state is AdapterState.DEGRADED:
                _log.info("adapter=%s takes what is pushed again", self.name)
        self._state, self._reason = state, reason

    async def _store(self, pushed: Pushed, run: _Running) -> Rejected | Receipt:
        """Decode and hand on a body; returns when all of it is durable. Raises what the sink raises."""
        landing, first, n_refused = _Landing(), "", 0
        slices = self._slices(pushed, run.decoder)
        n_samples, n_refused_samples, is_read = 0, 0, True
        while True:
            cpu_ns = thread_cpu_ns()
            one = next(slices, None)
            self._decode_ns += thread_cpu_ns() - cpu_ns
            if one is None:
                break
            n_samples += await self._hand_on(one, run.sink, landing)
            n_refused, first = n_refused + one.n_refused, first or one.first
            n_refused_samples += sum(reject.n_samples for reject in one.rejects)
            is_read = is_read and all(reject.source != WHOLE for reject in one.rejects)
            await run.sink.clock.sleep(0)
        landing.ack()
        await landing.done
        receipt = Receipt(n_samples, n_refused_samples, first, is_read)
        if not n_refused:
            return receipt
        rest = "the rest is stored" if n_samples else "nothing is stored"
        return PartlyRejected(f"{n_refused:,} refused, {rest}; the first: {first}", receipt)

    def _slices(self, pushed: Pushed, decoder: BodyDecoder) -> Iterator[Slice]:
        """The parts of a body; what can't be decoded at all is one that is refused."""
        size, most = len(pushed.body), self._config.max_body
        code, detail = RejectCode.MALFORMED, ""
        try:
            if size <= most:
                yield from decoder.slices(pushed)
            else:
                code, detail = (
                    RejectCode.TOO_LARGE,
                    f"{size:,} bytes, expected at most {most:,}; send it in parts",
                )
        except Rejected as e:
            detail = str(e)
        except Exception as e:
            _log.exception("adapter=%s: a decoder failed", self.name)
            code, detail = RejectCode.INTERNAL, f"decoder failed: {e!r}"
        if detail:
            raw = pushed.body[:MAX_RAW_BYTES]
            yield Slice([], [Reject(code, self.name, WHOLE, detail, raw, pushed.arrival_ns)], 1, detail)

    async def _hand_on(self, one: Slice, sink: Sink, landing: _Landing) -> int:
        """Hand a slice on; how many samples of it were taken."""
        n_samples = 0
        for batch in one.batches:
            landing.expect()
            try:
                await sink.emit(batch, landing.ack)
            except (
                PluginError
            ) as e:  # a defect of ours, for ever: kept as a reject, or it would come again and again
                landing.ack()
                detail = f"its frames were refused: {e}"
                raw, n = batch.to_bytes()[:MAX_RAW_BYTES], batch.n_samples
                one.rejects.append(
                    Reject(RejectCode.INTERNAL, self.name, WHOLE, detail, raw, batch.arrival_ns, n)
                )
                one.n_refused, one.first = one.n_refused + 1, one.first or detail
                continue
            self._n_frames += batch.n_frames
            n_samples += batch.n_samples
            self._n_samples += batch.n_samples
            self._skew.note(batch.ts_ns, batch.arrival_ns)
            self._last_good_ns = sink.clock.now_ns()
        for reject in one.rejects:
            landing.expect()
            await sink.reject(reject, landing.ack)
            self._n_rejects += 1
        return n_samples
