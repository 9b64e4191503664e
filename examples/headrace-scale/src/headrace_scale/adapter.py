"""The adapter ``scale``: asks a scale for its weight at an interval, over one TCP connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.meters import Backoff, reason_of, seconds
from headrace.core.clock import NO_TIME, NS
from headrace.core.errors import HeadraceError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.settings import DurationNs, Section

_WEIGHT = re.compile(rb"S ([SD]) +(-?\d+(?:\.\d+)?) kg\r\n")
_FAILURES = (OSError, EOFError, HeadraceError, asyncio.LimitOverrunError)
_log = logging.getLogger("headrace.adapters.scale")


class ScaleConfig(Section):
    """A scale that is asked for its weight."""

    protocol: Literal["scale"] = "scale"
    host: str = Field(description="name or address of the scale")
    port: int = Field(default=4305, ge=1, le=65_535)
    path: str = Field(description="of the device; the sensor is its `weight`")
    interval: DurationNs = Field(default=NS, description="between two questions")
    timeout: DurationNs = Field(default=2 * NS, description="of a question and of connecting")
    reconnect_most: DurationNs = Field(default=30 * NS, description="longest wait after failures")


class ScaleAdapter:
    """Weights as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[ScaleConfig]] = ScaleConfig

    def __init__(self, name: str, config: ScaleConfig, plant: PlantFacts) -> None:
        self.name, self._config, self._plant, self._task = name, config, plant, None
        self._state, self._reason = AdapterState.STARTING, ""
        self._backoff = Backoff(name, config.interval, config.reconnect_most)
        self._last_good_ns = self._retry_ns = self._since_ns = NO_TIME
        self._n_samples = self._n_rejects = self._n_polls = self._n_skipped = self._n_timeouts = 0

    @classmethod
    def from_config(cls, name: str, config: ScaleConfig, profiles: Any, plant: PlantFacts) -> ScaleAdapter:
        return cls(name, config, plant)

    async def start(self, sink: Sink) -> None:
        slot = sink.directory.define(self._config.path, Layout("f64", (Column("weight", unit="kg"),)))
        self._task = asyncio.create_task(self._stay(sink, np.array([slot], np.uint32)))

    async def stop(self) -> None:
        self._state, self._reason = AdapterState.STOPPED, ""
        if self._task is not None and self._task.cancel():
            await asyncio.gather(self._task, return_exceptions=True)

    def diagnostics(self) -> AdapterDiagnostics:
        state, reason, n, n_rejects = self._state, self._reason, self._n_samples, self._n_rejects
        retry_ns = self._retry_ns if state is AdapterState.BACKOFF else NO_TIME
        counts = (self._n_polls, n_rejects, self._n_timeouts, self._n_skipped, self._n_polls)
        device = DeviceDiagnostics(self._config.path, state, reason, self._last_good_ns, retry_ns, *counts)
        facts = (self.name, "scale", state, reason, self._since_ns, 1, (device,), n, n, n_rejects)
        return AdapterDiagnostics(*facts)

    async def _stay(self, sink: Sink, slot: Any) -> None:
        """Stay connected until cancelled; whatever fails, the next connection begins afresh."""
        while True:
            try:
                await self._plant.pacer.turn()  # after a power cut all devices of a plant come back together
                async with asyncio.timeout(seconds(self._config.timeout)):
                    reader, writer = await asyncio.open_connection(self._config.host, self._config.port)
                with contextlib.closing(writer):
                    while True:
                        await self._poll(reader, writer, sink, slot)
                        await sink.clock.sleep(seconds(self._config.interval))
            except _FAILURES as e:
                self._n_timeouts += isinstance(e, TimeoutError)
                wait_ns = self._backoff.next_ns()
                self._retry_ns = sink.clock.now_ns() + wait_ns
                self._enter(AdapterState.BACKOFF, reason_of(e) if isinstance(e, OSError) else str(e), sink)
                await sink.clock.sleep(seconds(wait_ns))

    def _enter(self, state: AdapterState, reason: str, sink: Sink) -> None:
        """One line when the scale is lost and one when it is back, however often it is looked for."""
        if state is not self._state:
            level = logging.WARNING if state is AdapterState.BACKOFF else logging.INFO
            _log.log(level, "adapter=%s %s %s", self.name, state, reason)
            self._since_ns = sink.clock.now_ns()
        self._state, self._reason = state, reason

    async def _poll(self, reader: Any, writer: Any, sink: Sink, slot: Any) -> None:
        if not sink.has_credit(1):
            self._n_skipped += 1
            return None
        self._n_polls += 1
        writer.write(b"SI\r\n")
        async with asyncio.timeout(seconds(self._config.timeout)):  # `wait_for` may miss that it is cancelled
            line = await reader.readuntil(b"\n")
        now_ns, found = sink.clock.now_ns(), _WEIGHT.fullmatch(line)
        if found is None:
            self._n_rejects += 1
            about = (self.name, self._config.path, "expected 'S S     12.345 kg'", line, now_ns)
            return await sink.reject(Reject(RejectCode.MALFORMED, *about))
        quality = np.full((1, 1), Quality.GOOD if found[1] == b"S" else Quality.UNCERTAIN, np.uint8)
        values, origin = np.array([[float(found[2])]]), self.name
        await sink.emit(FrameBatch.dense(slot, np.array([now_ns]), values, quality, origin=origin))
        self._n_samples, self._last_good_ns = self._n_samples + 1, now_ns
        self._backoff.reset()
        return self._enter(AdapterState.CONNECTED, "", sink)
