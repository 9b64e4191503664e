"""Looking at what an adapter hands on: nothing is slowed, everything is bounded, what was passed over is said."""

import asyncio

import numpy as np
import pytest

from headrace.core.errors import ConfigError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.runtime import taps
from headrace.runtime.taps import Tap, TappedSink
from headrace.testing.adapters import RecordingSink

LAYOUT = Layout("f64", (Column("t"), Column("p")))


@pytest.fixture
def sink():
    return TappedSink(RecordingSink())


def batch_of(sink, n=1, at=1):
    slots = sink.directory.define_many([f"a/o{i}" for i in range(n)], LAYOUT)
    return FrameBatch.dense(slots, np.full(n, at, np.int64), np.arange(2.0 * n).reshape(n, 2))


async def test_a_sink_hands_on_everything_and_taps_see_it(sink):
    tap = Tap(sink.directory)
    acked = []
    sink.taps.append(tap)
    await sink.emit(batch_of(sink, 2), lambda: acked.append(1))
    await sink.reject(Reject(RejectCode.MALFORMED, "x", "y", "z"), lambda: acked.append(2))
    await asyncio.sleep(0)
    assert sink.has_credit(1)
    assert sink.clock is sink._sink.clock
    assert (sink._sink.n_samples, len(sink._sink.rejects), acked) == (4, 1, [1, 2])
    found, passed = await tap.read(100, 1)
    assert [(r.path, r.value) for r in found] == [("a/o0/t", 0), ("a/o0/p", 1), ("a/o1/t", 2), ("a/o1/p", 3)]
    assert passed == 0
    assert await tap.read(100, 0.01) == ([], 0)


async def test_a_pattern_chooses(sink):
    tap = Tap(sink.directory, "a/*/p")
    tap.offer(batch_of(sink, 3))
    assert [r.path for r in (await tap.read(100, 1))[0]] == ["a/o0/p", "a/o1/p", "a/o2/p"]
    with pytest.raises(ConfigError):
        Tap(sink.directory, "a/{")


async def test_a_slow_reader_misses_the_oldest_and_is_told(sink, monkeypatch):
    tap = Tap(sink.directory)
    for at in range(taps._BATCHES_MAX + 6):
        tap.offer(batch_of(sink, 1, at))
    found, passed = await tap.read(10_000, 1)
    assert (len(found), passed, found[0].ts_ns) == (2 * taps._BATCHES_MAX, 12, 6)
    monkeypatch.setattr(taps, "_VALUES_MAX", 10)
    for at in range(4):
        tap.offer(batch_of(sink, 3, at))
    assert len(tap._batches) == 1
    tap.offer(batch_of(sink, 100, 9))
    found, passed = await tap.read(50, 1)
    assert ({r.ts_ns for r in found}, len(found), passed) == ({9}, 50, 4 * 6 + 150)


async def test_the_end_is_told_after_the_rest(sink):
    tap = Tap(sink.directory)
    tap.offer(batch_of(sink))
    tap.close()
    assert len((await tap.read(100, 1))[0]) == 2
    assert await tap.read(100, 1) is None
