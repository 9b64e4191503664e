"""``headrace bench adapters``: what an adapter adds to the cost of a sample, beside a bare client of its protocol.

For each adapter the same traffic (`headrace.bench.traffic`) is taken three ways, by turns: by the adapter, into a sink
that keeps nothing; by a bare client and parser, which throw away what they have read; and by a plant with the adapter,
journal, shards and store. CPU time of the process is counted, the kernel's part included; what sends is another process.
What a plant costs a sample is the difference of a long run and a short one: what it costs to start, to stop, and to write
a small last segment falls out.

*Gate A*: adapter less bare client, as a share of the whole plant, at most 5 %: the upper end of a 95 % bootstrap interval
of the median passes or not. *Gate B*: what decoding costs beyond parsing, in ns a sample, at most 50 in batches and 400
where each message has one sample. A broker's messages are also taken their whole way, from the bytes of the connection to
frames in the sink and acknowledgements, beside the bare client's from the same bytes: the dearer of the two differences counts.
Negative: the adapter's own decoder beats the parser, and its own framing that of the bare client.

Beside the gates, so that none hides a slow client: transport, decode and normalise as shares of the plant; and the decoders'
*floors*, ns a sample in batches, with the ratio to `orjson.loads` of JSON messages of as many values in the same run, which
stays the same where a machine is slow.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from headrace.bench.machine import Machine
from headrace.bench.traffic.base import Count, NullSink, Traffic, WholeWay, missing_packages
from headrace.core.clock import SystemClock, cpu_ns, monotonic_ns
from headrace.core.config import parse_plant
from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.faults import FaultPoints
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory
from headrace.runtime.assemble import Plant, check_plant, host_settings
from headrace.runtime.warm import warm_kernels

TRAFFIC = {
    "exec": "headrace.bench.traffic.exec:ExecTraffic",
    "files": "headrace.bench.traffic.files:FilesTraffic",
    "http": "headrace.bench.traffic.http:HttpTraffic",
    "kafka": "headrace.bench.traffic.kafka:KafkaTraffic",
    "modbus": "headrace.bench.traffic.modbus:ModbusTraffic",
    "mqtt": "headrace.bench.traffic.mqtt:MqttTraffic",
    "opcua": "headrace.bench.traffic.opcua:OpcuaTraffic",
    "replay": "headrace.bench.traffic.replay:ReplayTraffic",
    "sim": "headrace.bench.traffic.sim:SimTraffic",
    "sparkplug": "headrace.bench.traffic.sparkplug:SparkplugTraffic",
}
"""Adapter → its traffic."""
SHARE_MAX, BATCHED_NS_MAX, UNBATCHED_NS_MAX = 0.05, 50.0, 400.0
FLOORS = {"modbus": 10.0, "http": 100.0, "sparkplug": 250.0, "mqtt": 200.0}
"""Adapter whose decoder has one → ns a sample: registers, line protocol, Sparkplug, JSON of known shape."""
_REPEATS_MIN, _PLANTS, _DECODES, _RESAMPLES = 7, 3, 15, 4_000
_ROUND_NS, _DECODING_NS = 4_000_000, 1_500_000_000
_WAIT_S, _DUPLICATES_MAX = 120.0, 0.01
F64 = npt.NDArray[np.float64]
Progress = Callable[[str], None]
N = TypeVar("N", int, float)


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
    all_traffic = {name: _traffic(name) for name in names or TRAFFIC}
    skipped = {name: why for name, one in all_traffic.items() if (why := _lacking(one))}
    for name, why in skipped.items():
        if name in names:
            raise ConfigError(f"adapter {name} can't be measured: {why}")
        progress(f"{name} is left out: {why}")
    progress("loading kernels")
    warm_kernels(protocols=all_traffic)
    machine = Machine()
    found = {
        name: asyncio.run(_adapter(one, repeats, progress))
        for name, one in all_traffic.items()
        if name not in skipped
    }
    floors = {name: floor_of(all_traffic[name], FLOORS[name]) for name in found if name in FLOORS}
    others = machine.cores_used_by_others()
    return {
        "adapters": found, "floors": floors, "skipped": skipped, "repeats": repeats, "cores_used_by_others": round(others, 3),
        "cpus": len(os.sched_getaffinity(0)),
    }  # fmt: skip


def _traffic(name: str) -> Traffic:
    module, _, kind = TRAFFIC[name].partition(":")
    made: Traffic = getattr(importlib.import_module(module), kind)()
    return made


def _lacking(traffic: Traffic) -> str:
    """What has to be installed; empty: nothing."""
    packages = missing_packages(traffic.libraries)
    return (
        f"its bare client needs {', '.join(packages)}: pip install {' '.join(packages)}" if packages else ""
    )


async def _adapter(traffic: Traffic, repeats: int, progress: Progress) -> dict[str, Any]:
    try:
        await traffic.up()
        progress(f"{traffic.name}: decoding")
        batched, alone = _decoding(traffic, True), _decoding(traffic, False)
        ways = (_ways(traffic, True), _ways(traffic, False)) if isinstance(traffic, WholeWay) else ()
        await _null(traffic)  # what is loaded and compiled once
        await _bare(traffic)
        null, bare, short, long = [], [], [], []
        for repeat in range(repeats):
            progress(f"{traffic.name}: {repeat + 1} of {repeats}")
            null.append(await _again(partial(_null, traffic), progress))
            bare.append(await _again(partial(_bare, traffic), progress))
            if repeat < _PLANTS:
                short.append(await _again(partial(_plant, traffic, 1), progress))
                long.append(await _again(partial(_plant, traffic, traffic.n_feeds), progress))
    finally:
        await traffic.down()
    plant_ns = marginal_ns(short, long, traffic)
    return {"samples": traffic.n_samples, "reference": traffic.reference} | figures_of(
        np.array(null), np.array(bare), plant_ns, batched, alone, ways
    )


def marginal_ns(short_ns: Sequence[float], long_ns: Sequence[float], traffic: Traffic) -> float:
    """What a plant costs a sample: CPU of long runs less that of short ones, by the samples that they have more."""
    more = (traffic.n_feeds - 1) * traffic.n_samples
    spent_ns = float(np.median(long_ns) - np.median(short_ns)) / more
    if spent_ns <= 0:
        raise HeadraceError(
            f"{traffic.name}: the machine is too busy to measure what a plant costs; try again"
        )
    return spent_ns


def figures_of(
    null: F64, bare: F64, plant_ns: float, batched: tuple[float, float], alone: tuple[float, float],
    ways: Sequence[tuple[float, float]] = (),
) -> dict[str, Any]:  # fmt: skip
    """The figures of one adapter.

    Parameters
    ----------
    null, bare : of repeats by turns, ns a sample. batched, alone : ns a sample to decode and to parse.
    ways : of both the whole way through our client and the bare one, where it is measured.
    """
    ours, theirs = batched
    decode_ns, null_ns = min(ours, theirs), float(np.median(null))
    dearer = [max(one[0] - one[1] for one in both) for both in ([batched, *ways[:1]], [alone, *ways[1:]])]
    told = {
        name: {"ours_ns": round(mine, 1), "bare_ns": round(others, 1)}
        for name, (mine, others) in zip(("batched", "unbatched"), ways, strict=False)
    }
    return {
        "transport_ns": round(max(0.0, null_ns - ours), 1), "decode_ns": round(decode_ns, 1),
        "normalise_ns": round(ours - decode_ns, 1), "adapter_ns": round(null_ns, 1),
        "bare_ns": round(float(np.median(bare)), 1), "pipeline_ns": round(plant_ns, 1),
        "share_of_pipeline": round(null_ns / plant_ns, 3),
        "shares": {
            "transport": round(max(0.0, null_ns - ours) / plant_ns, 3), "decode": round(decode_ns / plant_ns, 3),
            "normalise": round((ours - decode_ns) / plant_ns, 3),
        },
        "unbatched_decode_ns": round(alone[0], 1),
        "gate_a": share_of(null, bare, plant_ns),
        "gate_b": {
            "batched_ns": round(dearer[0], 1), "unbatched_ns": round(dearer[1], 1),
            "pass": dearer[0] <= BATCHED_NS_MAX and dearer[1] <= UNBATCHED_NS_MAX,
        },
    } | ({"way": told} if told else {})  # fmt: skip


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
    ours, theirs = best_of([(traffic.decode(payloads, SensorDirectory()), n), (traffic.parse(payloads), n)])
    return ours, theirs


def floor_of(traffic: Traffic, floor_ns: float) -> dict[str, Any]:
    """What decoding batches takes beside `orjson.loads` of JSON messages, by turns."""
    import orjson

    from headrace.bench.traffic.mqtt import MqttTraffic

    payloads, n = traffic.payloads(True)
    texts, n_values = MqttTraffic().payloads(True)
    work, loads = traffic.decode(payloads, SensorDirectory()), [text for _, text in texts]
    ours_ns, orjson_ns = best_of([(work, n), (lambda: [orjson.loads(text) for text in loads], n_values)])
    return {
        "decode_ns": round(ours_ns, 1), "floor_ns": floor_ns, "orjson_ns": round(orjson_ns, 1),
        "ratio": round(ours_ns / orjson_ns, 3), "pass": ours_ns <= floor_ns,
    }  # fmt: skip


def _ways(traffic: WholeWay, is_batched: bool) -> tuple[float, float]:
    """The same from the bytes of a connection, through our client and the bare one."""
    payloads, n = traffic.payloads(is_batched)
    ours, theirs = best_of([(traffic.way(payloads, SensorDirectory()), n), (traffic.bare_way(payloads), n)])
    return ours, theirs


def best_of(works: Sequence[tuple[Callable[[], Any], int]]) -> list[float]:
    """Ns of CPU a sample of each (work, its samples), which take turns: the best of some.

    Each takes milliseconds, so that a cold cache at its begin does not count, and all take a second and more: where others
    share a core it is slow for as long as they work.
    """
    best = [float("inf")] * len(works)
    rounds = [_rounds(work) for work, _ in works]
    taken, until_ns = 0, monotonic_ns() + _DECODING_NS
    while taken < _DECODES or monotonic_ns() < until_ns:
        for number, (work, n) in enumerate(works):
            begun = cpu_ns()
            for _ in range(rounds[number]):
                work()
            best[number] = min(best[number], (cpu_ns() - begun) / (n * rounds[number]))
        taken += 1
    return best


def _rounds(work: Callable[[], Any]) -> int:
    """How often work is done for some milliseconds of CPU."""
    work()
    begun = cpu_ns()
    work()
    return max(1, _ROUND_NS // max(1, cpu_ns() - begun))


async def _again(take: Callable[[], Awaitable[N]], progress: Progress) -> N:
    """Take traffic; once more where not all came: a bare client that loses its connection loses messages."""
    try:
        return await take()
    except HeadraceError as e:
        progress(f"{e}; once more")
        return await take()


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
        spent_ns = (cpu_ns() - begun) / count.n
        async with asyncio.timeout(_WAIT_S):
            await taking
        return spent_ns
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


async def _complete(count: Count, traffic: Traffic) -> None:
    try:
        async with asyncio.timeout(_WAIT_S):
            await count.complete.wait()
    except TimeoutError as e:
        raise HeadraceError(
            f"{traffic.name}: {count.n:,} of {count.wanted:,} samples came in {_WAIT_S:g} s"
        ) from e


async def _plant(traffic: Traffic, n_feeds: int) -> int:
    """CPU ns of a whole plant that takes so many feeds, from its start until all is in the store.

    Raises
    ------
    HeadraceError : not all of it came, or is in the store.
    """
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    clock, n = SystemClock(), n_feeds * traffic.n_samples
    try:
        adapter = traffic.adapter(n_feeds)
        config = parse_plant({"version": 1}, folder)
        blueprint = replace(check_plant(config), adapters={adapter.name: adapter})
        plant = Plant(blueprint, clock=clock, faults=FaultPoints(), settings=host_settings(config))
        gc.collect()
        begun = cpu_ns()
        await plant.start()
        try:
            await traffic.send(adapter, n_feeds)
            async with asyncio.timeout(_WAIT_S * n_feeds):
                while adapter.diagnostics().n_samples < n:
                    await clock.sleep(0.01)
        except TimeoutError as e:
            came = adapter.diagnostics().n_samples
            raise HeadraceError(f"{traffic.name}: {came:,} of {n:,} samples came to the plant") from e
        finally:
            await plant.stop(_WAIT_S)
        spent = cpu_ns() - begun
        check_fates(traffic.name, n, plant.summary())
        return round(spent * n / adapter.diagnostics().n_samples)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_fates(name: str, n: int, fates: Mapping[str, Any]) -> None:
    """Make sure that a plant has stored what it was sent: else it would be measured at something else.

    Raises
    ------
    HeadraceError : something was rejected, or more than 1 % are duplicates (polls in the same ms are one).
    """
    received, stored, rejected = fates["received"], fates["stored"], fates["rejected"]
    if received < n or rejected or stored < (1.0 - _DUPLICATES_MAX) * received:
        raise HeadraceError(
            f"{name}: a plant that was sent {n:,} samples received {received:,}, stored {stored:,} and rejected {rejected:,}"
        )
