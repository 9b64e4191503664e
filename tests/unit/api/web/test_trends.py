"""Curves read from a store: samples where they are few, windows where they are many."""

import numpy as np
import pytest

from headrace.api.web.resolution import POINTS_MAX, VisibleSpan
from headrace.api.web.trends import ChartedSensors, read_trend, renew_trend
from headrace.core.clock import NS, VirtualClock
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.quality import Quality
from headrace.runtime.pipe import Pipe
from headrace.runtime.reader import open_store

T0 = 1_767_225_600 * NS
DEVICE = Layout(
    "u16",
    (Column("temperature", unit="degC", scale=0.5), Column("mode", Kind.DISCRETE, labels=("off", "on"))),
)
N = 6_000


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A store of two devices with a sample a second, half of it not flushed; one spike, one bad sample at the end."""
    folder = tmp_path_factory.mktemp("trends") / "store"
    clock = VirtualClock(T0)
    pipe = Pipe(folder, [], clock)
    slots = pipe.directory.define_many(["l/d1", "l/d2"], DEVICE)
    for first in range(0, N, 100):
        ts_ns = np.repeat(T0 + (np.arange(first, first + 100) * NS), 2)
        values = np.full((200, 2), 100, np.uint16)
        values[:, 1] = np.repeat(np.arange(first, first + 100) // 50 % 2, 2)
        quality = np.zeros((200, 2), np.uint8)
        if first == 3_000:
            values[20, 0] = 900
        if first == N - 100:
            quality[-1, 0] = Quality.BAD_DEVICE
        clock.set_ns(int(ts_ns[-1]))
        batch = FrameBatch.dense(
            np.tile(slots, 100), ts_ns, values, quality, arrival_ns=clock.now_ns(), origin="t"
        )
        pipe.offer(batch)
        pipe.tick()
        if first == N // 2:
            pipe.drain()
    pipe._flush()
    pipe._writer.wait(pipe.host.journal.last_seq, 10.0)
    yield open_store(folder)
    pipe.close()


def charted(*paths):
    return ChartedSensors(paths)


def test_a_short_span_is_shown_sample_by_sample_with_quality(reader):
    trend = read_trend(reader, charted("l/d2/temperature", "l/d1/mode"), VisibleSpan(60 * NS))
    assert trend.every_ns is None
    temperature, mode = trend.curves
    assert (temperature.path, mode.path) == ("l/d2/temperature", "l/d1/mode")
    assert 58 <= len(temperature.ts_ns) <= 61
    assert temperature.value[0] == 50.0
    assert temperature.quality[-1] == Quality.BAD_DEVICE
    assert mode.text == "on"


def test_a_long_span_is_shown_in_windows_that_keep_the_spike(reader):
    look = VisibleSpan(N * NS, width_px=300)
    trend = read_trend(reader, charted("l/d1/temperature"), look)
    (curve,) = trend.curves
    assert trend.every_ns == look.every_ns == 30 * NS
    assert len(curve.ts_ns) <= POINTS_MAX
    assert np.nanmax(curve.high) == 450.0
    assert curve.count.sum() >= N - 40
    assert np.nanmin(curve.low) == 50.0


def test_only_the_end_is_renewed_and_agrees_with_the_whole(reader):
    sensors, look = charted("l/d1/temperature"), VisibleSpan(N * NS, width_px=300)
    whole = read_trend(reader, sensors, look)
    part = renew_trend(reader, sensors, look, whole)
    (all_of_it,), (end,) = whole.curves, part.curves
    assert part.since_ns > whole.since_ns
    assert part.span == whole.span
    same = np.isin(all_of_it.ts_ns, end.ts_ns)
    assert same.sum() == len(end.ts_ns) > 0
    assert all_of_it.value[same].tolist() == end.value.tolist()


def test_a_sensor_that_is_not_there_is_named_and_the_others_are_shown(reader):
    trend = read_trend(reader, charted("l/d1/temperature", "l/d9/temperature", "{"), VisibleSpan(60 * NS))
    assert trend.gone == ("l/d9/temperature", "{")
    assert [curve.path for curve in trend.curves] == ["l/d1/temperature"]
    nothing = read_trend(reader, charted("no/such"), VisibleSpan(60 * NS))
    assert (nothing.curves, nothing.gone) == ((), ("no/such",))


def test_a_span_without_samples_has_empty_curves(reader):
    trend = read_trend(reader, charted("l/d1/temperature"), VisibleSpan(60 * NS, T0 - 3_600 * NS))
    assert [len(curve.ts_ns) for curve in trend.curves] == [0]
