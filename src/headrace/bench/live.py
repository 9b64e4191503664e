"""A load in real time, fed as an adapter of a plant feeds it, and for how long nothing was acknowledged.

What the clients of a plant's API do must never hold up its intake. `LoadAdapter` emits what devices send, spread over
each second, to the sink of a real plant, and an `AckMeter` watches the acknowledgements as a source sees them. The
plant around it, with the api process that clients call, is put together in `headrace.cli.live_bench`.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from headrace.adapters.base import Ack, AdapterDiagnostics, AdapterState, Sink
from headrace.bench.load import DeviceLoad, Input, define_groups
from headrace.bench.machine import Machine
from headrace.bench.stored import count_stored
from headrace.core.clock import NS, cpu_ns, monotonic_ns
from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch
from headrace.runtime.reader import open_store

BATCHES_A_SECOND = 20
"""Devices answer all over a second: with nothing in the way an acknowledgement comes every 50 ms."""


class AckMeter:
    """The longest time in which nothing was acknowledged, and the longest that a batch waited.

    The first acknowledgement starts the watch: the sensors' definitions go to disk before it.
    """

    def __init__(self) -> None:
        self.n_samples = self.n_batches = 0
        """Acknowledged ones."""
        self.worst_stall_ns = self.worst_ack_ns = 0
        self._last_ns: int | None = None
        self._n_waiting = 0
        self._idle = asyncio.Event()

    def ack_of(self, batch: FrameBatch) -> Ack:
        """What the sink shall call once `batch`, which is emitted now, is durable."""
        emitted_ns, n_samples = monotonic_ns(), batch.n_samples
        self._n_waiting += 1
        self._idle.clear()

        def ack() -> None:
            self._acknowledged(emitted_ns, n_samples)

        return ack

    def _acknowledged(self, emitted_ns: int, n_samples: int) -> None:
        now_ns = monotonic_ns()
        if self._last_ns is not None:
            self.worst_stall_ns = max(self.worst_stall_ns, now_ns - self._last_ns)
            self.worst_ack_ns = max(self.worst_ack_ns, now_ns - emitted_ns)
        self._last_ns = now_ns
        self.n_samples += n_samples
        self.n_batches += 1
        self._n_waiting -= 1
        if not self._n_waiting:
            self._idle.set()

    async def all_acknowledged(self) -> None:
        """Return when no emitted batch waits any more."""
        await self._idle.wait()


class LoadAdapter:
    """Emits rounds of a load in real time, one a second, and ends.

    Parameters
    ----------
    inputs : the rounds, made before. on_end : called on the event loop when all are acknowledged, or it failed.
    """

    Config: ClassVar[type[Any]] = object
    name = "load"

    def __init__(self, load: DeviceLoad, inputs: Sequence[Input], on_end: Callable[[], None]) -> None:
        self.load, self._inputs, self._on_end = load, inputs, on_end
        self.meter = AckMeter()
        self.n_samples = 0
        """Emitted ones."""
        self.spent_ns = self.spent_cpu_ns = 0
        self.others = 0.0
        self.failure: BaseException | None = None
        """What the load failed with."""
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def from_config(cls, name: str, config: Any, profiles: Any, plant: Any) -> Self:
        """Not to be had from a plant file."""
        raise ConfigError("the load of a benchmark can't be written into a plant file", f"adapters.{name}")

    async def start(self, sink: Sink) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(sink), name="bench-load")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.failure = None if task.cancelled() else task.exception()
        self._on_end()

    async def stop(self) -> None:
        """End."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def diagnostics(self) -> AdapterDiagnostics:
        """The state and what was emitted."""
        state = AdapterState.STOPPED if self._task is None else AdapterState.CONNECTED
        return AdapterDiagnostics(
            self.name, "bench", state, n_sensors=self.load.spec.sensors, n_samples=self.n_samples
        )

    async def _run(self, sink: Sink) -> None:
        slots = define_groups(self.load, sink.directory)
        machine, cpu, begun_ns = Machine(), cpu_ns(), monotonic_ns()
        try:
            for i, one in enumerate(self._inputs):
                batch = one.batch(slots, sink.clock.now_ns())
                for k, part in enumerate(_parts(batch)):
                    due_ns = begun_ns + i * NS + k * NS // BATCHES_A_SECOND
                    await sink.clock.sleep(max(0, due_ns - monotonic_ns()) / NS)
                    arrived = part.with_(arrival_ns=sink.clock.now_ns())
                    self.n_samples += arrived.n_samples
                    await sink.emit(arrived, self.meter.ack_of(arrived))
            await self.meter.all_acknowledged()
        finally:
            self.spent_ns, self.spent_cpu_ns = monotonic_ns() - begun_ns, cpu_ns() - cpu
            self.others = machine.cores_used_by_others()


def _parts(batch: FrameBatch) -> Iterator[FrameBatch]:
    """A round as the batches in which it comes; fewer where there are few devices."""
    n = min(BATCHES_A_SECOND, batch.n_frames)
    for k in range(n):
        yield batch.slice(batch.n_frames * k // n, batch.n_frames * (k + 1) // n)


def result(adapter: LoadAdapter, store: Path) -> dict[str, Any]:
    """What was measured, and what is in the store now that the plant has ended; a JSON-ready object."""
    meter, spec = adapter.meter, adapter.load.spec
    stored = count_stored(open_store(store).store)
    return {
        "sensors": spec.sensors,
        "group": spec.group,
        "dtype": spec.dtype,
        "shape": spec.shape,
        "seconds": round(adapter.spent_ns / NS, 1),
        "batches": meter.n_batches,
        "samples": adapter.n_samples,
        "acknowledged": meter.n_samples,
        "stored": stored.n_raw,
        "lost": max(0, meter.n_samples - stored.n_raw),
        "duplicated": max(0, stored.n_raw - adapter.n_samples),
        "worst_stall_ms": round(meter.worst_stall_ns / 1e6, 1),
        "worst_ack_ms": round(meter.worst_ack_ns / 1e6, 1),
        "cpu_ns_per_sample": round(adapter.spent_cpu_ns / max(1, adapter.n_samples), 2),
        "rss_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "cores_used_by_others": round(adapter.others, 3),
        "cpus": len(os.sched_getaffinity(0)),
    }
