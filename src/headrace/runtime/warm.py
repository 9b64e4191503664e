"""Make a process ready for the live path: kernels compiled or loaded, and memory that is kept.

A few frames of each value type go through shards, buffers and encoding in memory; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np

from headrace.adapters.abilities import Warms
from headrace.adapters.registry import ADAPTERS
from headrace.codecs import warm
from headrace.core.clock import NS
from headrace.core.dead_bands import DeadBands
from headrace.core.errors import HeadraceError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.ingest.ordering import in_place_order
from headrace.ingest.thinning import Thinner
from headrace.pipeline.base import Tick
from headrace.pipeline.flows import Flow, FlowSpec
from headrace.pipeline.windowing import AGGREGATES
from headrace.runtime.arrow_start import start_arrow
from headrace.runtime.engine_core import EngineCore
from headrace.runtime.memory import keep_freed_memory
from headrace.store.aggregates import Weighting, partials_of
from headrace.store.chunks import RowEncoder, ShardFrames
from headrace.store.grouping import plan_blocks
from headrace.store.resolutions import SAMPLES_MIN, encode_rollups
from headrace.store.runs import Runs, SensorSamples
from headrace.store.series import SeriesMap
from headrace.store.wanted import Lane, Wanted, to_bits
from headrace.store.warm_rows import encode_warm
from headrace.store.words import Words

LIVE_TYPES = ("u8", "u16", "i16", "u32", "i32", "f32", "f64")
"""Value types that devices send every day; 64-bit integers compile when the first one comes."""
_START_NS = 1_767_225_600 * NS
_MINUTE = {"op": "window", "every": "1m", "agg": list(AGGREGATES)}
_WARM = FlowSpec("warm", "**", (_MINUTE,), "{parent}/{signal}_{agg}_1m")


def warm_kernels(
    dtypes: tuple[str, ...] = LIVE_TYPES, specs: Sequence[FlowSpec] = (), protocols: Iterable[str] = ()
) -> None:
    """Run the live path once in memory; keep what memory it frees (`keep_freed_memory`).

    Parameters
    ----------
    specs : pipelines whose operators are run too, but for the functions of `map` steps.
    protocols : of adapters whose decoders are made ready; those that can't be loaded are passed over.

    Cost: 1 to 2 s of CPU from the cache, Numba's own start among it; 60 to 90 s without one.
    """
    keep_freed_memory()
    start_arrow()
    warm.warm_kernels()
    _warm_adapters(protocols)
    _warm_intake(dtypes)
    directory = SensorDirectory(shard_bits=0)
    flows = [Flow(spec, directory) for spec in (_WARM, *_own(specs))]
    stored: dict[int, FrameBatch] = {}
    core = EngineCore(directory, flows, [0], lambda slots, *_: {s: stored[s] for s in slots if s in stored})
    seq = 0
    for dtype in dtypes:
        layout = Layout(dtype, (Column("a"), Column("b")))
        slots = directory.define_many([f"warm/{dtype}/one", f"warm/{dtype}/two"], layout)
        for flow in flows:
            flow.extend()
        batches = _batches(slots, dtype)
        stored |= {slot: batches[0].slice(i, i + 1) for i, slot in enumerate(slots.tolist())}
        for batch in batches:
            core.process(seq, batch)
            seq += 1
    core.process(seq, Tick(_START_NS + 600 * NS))
    buffer = core.buffers()[0]
    taken = buffer.take(seq)
    RowEncoder(directory).encode([ShardFrames(0, taken.logs, [], seq, _START_NS)])
    _warm_compaction(dtypes)


def _warm_compaction(dtypes: tuple[str, ...]) -> None:
    """Chunks of single sensors, and their rollups: a compiler that starts with the first compaction would take turns with the intake."""
    one = np.zeros(1, np.int64)
    plan_blocks(one, None, 1, one, 1)  # a flush of few frames of many groups
    directory, n = SensorDirectory(shard_bits=0), 2 * SAMPLES_MIN
    for dtype in dtypes:
        directory.define(f"warm/{dtype}", Layout(dtype, (Column("a"), Column("b", scale=0.5))))
    wanted = Wanted(directory, SeriesMap(directory), directory.find("**"), is_raw=True)
    start = np.arange(wanted.n + 1) * n
    ts_ns = np.tile(_START_NS + np.arange(n) * NS // 2, wanted.n)
    bits = [to_bits(np.zeros(n, numpy_dtype(dtype))) for dtype in dtypes for _ in range(2)]
    runs = Runs(Lane.SIGNED)
    runs.add(
        ts_ns,
        np.concatenate(bits),
        None,
        (np.full(wanted.n, n), np.arange(wanted.n), np.zeros(wanted.n, np.int64)),
    )
    runs.merge(_START_NS + 1, _START_NS + NS * n)  # with gaps to close
    samples, seq = runs.merge(_START_NS, _START_NS + NS * n), np.zeros(wanted.n, np.int64)
    assert np.array_equal(samples.start, start)
    rows = encode_warm(wanted, samples, Words(), seq)
    encode_rollups(wanted, samples, Words(), seq, rows, np.full(wanted.n, NS))


def _warm_adapters(protocols: Iterable[str]) -> None:
    for name in sorted(set(protocols)):
        with suppress(HeadraceError):  # whoever starts it says why it can't be loaded
            kind = ADAPTERS.load(name)
            if issubclass(kind, Warms):
                kind.warm()


def warm_queries() -> None:
    """Load what the first query of a process waits for: Arrow, the decoding of blocks, the aggregates of windows.

    Cost: 1 to 2 s of CPU from the cache, nearly all of it Numba's and Arrow's own start; 30 s without one.
    """
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401 - the first file waits for it

    start_arrow()
    warm.warm_kernels()
    weighting = Weighting(np.zeros(1, np.bool_), 0, NS)
    ts_ns = _START_NS + np.arange(2)
    for values in (np.arange(2), np.arange(2.0)):  # 64-bit unsigned integers compile when the first one comes
        one = SensorSamples(np.zeros(1, np.int64), np.array([0, 2]), ts_ns, values, np.zeros(2, np.uint8))
        partials_of(one, NS, weighting)


def _own(specs: Sequence[FlowSpec]) -> list[FlowSpec]:
    """Pipelines with the operators of others, over what is sent here."""
    out = []
    for i, spec in enumerate(specs):
        steps = tuple(step for step in spec.steps if step["op"] != "map")
        agg = "_{agg}" if spec.window else ""
        out.append(FlowSpec(f"warm{i}", "**", steps, f"{{parent}}/{{signal}}{agg}_warm{i}"))
    return out


def _warm_intake(dtypes: tuple[str, ...]) -> None:
    """A round of polls in random order, in the order of the shards and as bytes."""
    directory = SensorDirectory(shard_bits=0)
    for dtype in dtypes:
        paths = [f"warm/{dtype}/{i}" for i in range(1_000)]
        slots = directory.define_many(paths, Layout(dtype, (Column(""),)))[::-1].copy()
        values = np.zeros((1_000, 1), numpy_dtype(dtype))
        batch = FrameBatch.dense(slots, _START_NS + np.arange(1_000), values)
        in_place_order(batch, directory).to_buffers()
        directory.set_dead_bands(slots[:1].tolist(), DeadBands(np.zeros(1), np.zeros(1, np.int64)))
        Thinner(directory).thin(batch)


def _batches(slots: np.ndarray[tuple[int, ...], np.dtype[np.uint32]], dtype: str) -> list[FrameBatch]:
    """Good frames, frames with a bad value, sparse frames, values with times of their own, and the next window; some are late."""
    values = np.arange(4).reshape(2, 2).astype(numpy_dtype(dtype))
    quality = np.array([[0, Quality.BAD], [0, 0]], np.uint8)

    def at(seconds: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return np.full(2, _START_NS + seconds * NS)

    sparse = FrameBatch.sparse(
        slots, at(2), values.reshape(-1), np.array([0, 2, 4]), np.array([0, 1, 0, 1], np.uint16)
    )
    own_times = np.repeat(at(2), 2)
    rate = np.full(2, 1), np.full(2, 10)
    return [
        FrameBatch.dense(slots, at(0), values),
        FrameBatch.dense(slots, at(1), values, quality),
        sparse,
        sparse.with_(value_ts_ns=own_times),
        FrameBatch.wave(slots, at(2), values.reshape(-1), np.array([0, 2, 4]), rate),
        FrameBatch.dense(slots, at(60), values),
    ]
