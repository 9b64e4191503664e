"""``headrace bench adapters``: what an adapter adds to the cost of a sample, beside a bare client of its protocol.

For each adapter the same traffic (`headrace.bench.traffic`) is taken three ways, by turns: by the adapter, into a sink
that keeps nothing; by a bare client and parser, which throw away what they have read; and by a plant with the adapter,
journal, shards and store. CPU time of the process is counted, the kernel's part included; what sends is another process.

*Gate A*: adapter less bare client, as a share of the whole plant, at most 5 %: the upper end of a 95 % bootstrap interval
of the median passes or not. *Gate B*: what decoding costs beyond parsing, in ns a sample, at most 50 in batches and 400
where each message has one sample. Negative: the adapter's own decoder beats the parser.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench.machine import Machine
from headrace.bench.traffic.base import Count, NullSink, Traffic
from headrace.core.clock import SystemClock, cpu_ns
from headrace.core.config import parse_plant
from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.faults import FaultPoints
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory
from headrace.runtime.assemble import Plant, check_plant, host_settings
from headrace.runtime.warm import warm_kernels

TRAFFIC = {
    "http": "headrace.bench.traffic.http:HttpTraffic",
    "kafka": "headrace.bench.traffic.kafka:KafkaTraffic",
    "modbus": "headrace.bench.traffic.modbus:ModbusTraffic",
    "mqtt": "headrace.bench.traffic.mqtt:MqttTraffic",
    "opcua": "headrace.bench.traffic.opcua:OpcuaTraffic",
    "replay": "headrace.bench.traffic.replay:ReplayTraffic",
}
"""Adapter → its traffic."""
SHARE_MAX, BATCHED_NS_MAX, UNBATCHED_NS_MAX = 0.05, 50.0, 400.0
_REPEATS_MIN, _PLANTS, _DECODES, _RESAMPLES = 7, 3, 15, 4_000
_WAIT_S = 60.0
F64 = npt.NDArray[np.float64]
Progress = Callable[[str], None]


def run(
    names: Sequence[str] = (), repeats: int = _REPEATS_MIN, progress: Progress = lambda text: None
) -> dict[str, Any]:
    """Measure; a JSON-ready object.

    Parameters
    ----------
    names : of adapters; none: all. repeats : of each way to take the traffic, but for the plant, which is taken 3 times.

    Raises
    ------
    ConfigError : no such adapter. HeadraceError : not all that was sent arrived.
    """
    for name in names:
        if name not in TRAFFIC:
            raise ConfigError(f"there is no traffic for adapter {name!r}{nearest(name, list(TRAFFIC))}")
    progress("loading kernels")
    warm_kernels()
    machine = Machine()
    found = {name: asyncio.run(_adapter(name, repeats, progress)) for name in names or TRAFFIC}
    others = machine.cores_used_by_others()
    return {
        "adapters": found, "repeats": repeats, "cores_used_by_others": round(others, 3),
        "cpus": len(os.sched_getaffinity(0)),
    }  # fmt: skip


async def _adapter(name: str, repeats: int, progress: Progress) -> dict[str, Any]:
    module, _, kind = TRAFFIC[name].partition(":")
    traffic: Traffic = getattr(importlib.import_module(module), kind)()
    await traffic.up()
    try:
        progress(f"{name}: decoding")
        ours, theirs = _decoding(traffic, True)
        alone, alone_theirs = _decoding(traffic, False)
        await _null(traffic)  # what is loaded and compiled once
        await _bare(traffic)
        null, bare, plant = [], [], []
        for repeat in range(repeats):
            progress(f"{name}: {repeat + 1} of {repeats}")
            null.append(await _null(traffic))
            bare.append(await _bare(traffic))
            if repeat < _PLANTS:
                plant.append(await _plant(traffic))
    finally:
        await traffic.down()
    gate_a = share_of(np.array(null), np.array(bare), float(np.median(plant)))
    decode_ns, normalise_ns = min(ours, theirs), ours - theirs
    gate_b = {
        "batched_ns": round(normalise_ns, 1), "unbatched_ns": round(alone - alone_theirs, 1),
        "pass": normalise_ns <= BATCHED_NS_MAX and alone - alone_theirs <= UNBATCHED_NS_MAX,
    }  # fmt: skip
    null_ns = float(np.median(null))
    return {
        "samples": traffic.n_samples, "reference": traffic.reference,
        "transport_ns": round(max(0.0, null_ns - ours), 1), "decode_ns": round(decode_ns, 1),
        "normalise_ns": round(ours - decode_ns, 1), "adapter_ns": round(null_ns, 1),
        "bare_ns": round(float(np.median(bare)), 1), "pipeline_ns": round(float(np.median(plant)), 1),
        "share_of_pipeline": round(null_ns / float(np.median(plant)), 3),
        "unbatched_decode_ns": round(alone, 1), "gate_a": gate_a, "gate_b": gate_b,
    }  # fmt: skip


def share_of(null: F64, bare: F64, plant_ns: float) -> dict[str, Any]:
    """Gate A: ``(null - bare) / plant_ns`` of repeats that were taken by turns; median, and its 95 % interval by bootstrap."""
    shares = (null - bare) / plant_ns
    random = np.random.default_rng(1)
    medians = np.median(random.choice(shares, (_RESAMPLES, len(shares))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return {
        "median": round(float(np.median(shares)), 4), "low": round(float(low), 4), "high": round(float(high), 4),
        "pass": bool(high <= SHARE_MAX),
    }  # fmt: skip


def _decoding(traffic: Traffic, is_batched: bool) -> tuple[float, float]:
    """Ns a sample from payloads to frames, and to parsed values; the best of some by turns."""
    payloads, n = traffic.payloads(is_batched)
    decode, parse = traffic.decode(payloads, SensorDirectory()), traffic.parse(payloads)
    best = [float("inf")] * 2
    for _ in range(_DECODES):
        for number, work in enumerate((decode, parse)):
            rounds = max(1, 20_000 // n)
            begun = cpu_ns()
            for _ in range(rounds):
                work()
            best[number] = min(best[number], (cpu_ns() - begun) / (n * rounds))
    return best[0], best[1]


async def _null(traffic: Traffic) -> float:
    """Ns a sample of the adapter alone."""
    count = Count(traffic.n_samples)
    adapter = traffic.adapter()
    gc.collect()
    begun = cpu_ns()
    await adapter.start(NullSink(count))
    try:
        await traffic.send(adapter)
        await _complete(count, traffic)
        return (cpu_ns() - begun) / count.n
    finally:
        await adapter.stop()


async def _bare(traffic: Traffic) -> float:
    """Ns a sample of the bare client."""
    count = Count(traffic.n_samples)
    gc.collect()
    begun = cpu_ns()
    taking = asyncio.create_task(traffic.bare(count))
    try:
        await traffic.send(None)
        await _complete(count, traffic)
        return (cpu_ns() - begun) / count.n
    finally:
        await asyncio.wait_for(taking, _WAIT_S)


async def _complete(count: Count, traffic: Traffic) -> None:
    try:
        await asyncio.wait_for(count.complete.wait(), _WAIT_S)
    except TimeoutError as e:
        raise HeadraceError(
            f"{traffic.name}: {count.n:,} of {count.wanted:,} samples came in {_WAIT_S:g} s"
        ) from e


async def _plant(traffic: Traffic) -> float:
    """Ns a sample of a whole plant, until all is in the store."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    clock = SystemClock()
    try:
        adapter = traffic.adapter()
        config = parse_plant({"version": 1}, folder)
        blueprint = replace(check_plant(config), adapters={adapter.name: adapter})
        plant = Plant(blueprint, clock=clock, faults=FaultPoints(), settings=host_settings(config))
        gc.collect()
        begun = cpu_ns()
        await plant.start()
        started_ns = cpu_ns() - begun
        try:
            await traffic.send(adapter)
            async with asyncio.timeout(_WAIT_S):
                while adapter.diagnostics().n_samples < traffic.n_samples:
                    await clock.sleep(0.01)
            n = adapter.diagnostics().n_samples
        finally:
            await plant.stop()
        return (cpu_ns() - begun - started_ns) / n
    finally:
        shutil.rmtree(folder, ignore_errors=True)
