"""Warming: a plant's own operators are compiled before its first batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.adapters.payloads import hashed_rows, json_frames, line_scanner
from headrace.adapters.registry import ADAPTERS
from headrace.codecs import block_kernels
from headrace.core.clock import NS, VirtualClock
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout, numpy_dtype
from headrace.pipeline.flows import FlowSpec
from headrace.pipeline.panes import merge_panes
from headrace.pipeline.time_weights import weigh_dense, weigh_loose
from headrace.runtime.pipe import Pipe
from headrace.runtime.reader import open_store
from headrace.runtime.warm import warm_kernels, warm_queries
from headrace.store import aggregate_kernels
from headrace.store.aggregates import QUERY_AGGREGATES


def test_the_operators_of_the_plants_pipelines_are_compiled_too():
    specs = [
        FlowSpec(
            "a",
            "x/**",
            ({"op": "sliding", "size": "5m", "every": "1m", "agg": ("mean", "max")},),
            "{parent}/{signal}_{agg}",
        ),
        FlowSpec("b", "x/**/t", ({"op": "time_weighted_mean", "every": "1m"},), "{parent}/own"),
        FlowSpec(
            "c",
            "**",
            ({"op": "map", "call": "operator:neg"}, {"op": "resample", "every": "1s"}),
            "{parent}/{signal}_c",
        ),
    ]
    warm_kernels(("u16",), specs, ADAPTERS.names())
    scanners = (json_frames._scan, json_frames.give_arrivals, line_scanner.scan, hashed_rows.insert)
    for kernel in (merge_panes, weigh_dense, weigh_loose, *scanners):
        assert kernel.signatures, kernel


@pytest.mark.timeout(400)  # where kernels are not cached yet, they are compiled first
def test_the_first_flush_compaction_and_ageing_compile_nothing():
    """In a process of its own: in this one others may have compiled what is missing."""
    life = Path(__file__).with_name("compaction_life.py")
    done = subprocess.run([sys.executable, life], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "\n")


@pytest.mark.parametrize("dtype", ["u16", "f32", "f64"])
def test_the_first_query_compiles_nothing(tmp_path, dtype):
    entries = (
        block_kernels.measure_blocks,
        block_kernels.decode_blocks,
        aggregate_kernels.reduce_windows,
        aggregate_kernels.weigh_windows,
    )
    warm_queries()
    known = [len(entry.signatures) for entry in entries]
    assert all(known)
    start_ns = 1_772_431_200 * NS
    pipe = Pipe(tmp_path / "store", [], VirtualClock(start_ns))
    slots = pipe.directory.define_many(
        ["a/b"], Layout(dtype, (Column("t", scale=0.5 if dtype == "u16" else 1.0),))
    )
    for n in range(2):
        ts = np.array([start_ns + n * NS])
        pipe.offer(FrameBatch.dense(slots, ts, np.array([[n]], dtype=numpy_dtype(dtype)), origin="t"))
    pipe.drain()
    pipe.close()
    store = open_store(tmp_path / "store")
    assert len(store.query("**", from_="2026-03-02 06:00", to="2026-03-02 06:01").ts_ns) == 2
    assert (
        len(
            store.query(
                "**", from_="2026-03-02 06:00", to="2026-03-02 06:01", every="1m", agg=QUERY_AGGREGATES
            ).ts_ns
        )
        == 1
    )
    assert [len(entry.signatures) for entry in entries] == known
