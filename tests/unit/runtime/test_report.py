"""What a plant says of itself."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace

import numpy as np
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.dead_bands import DeadBands, SignalBand
from headrace.core.disk import LocalDisk
from headrace.core.errors import StorageError
from headrace.metrics.exposition import Metrics
from headrace.runtime import report
from headrace.runtime.diagnostics import TagsWish
from headrace.runtime.report import Report
from headrace.testing.plants import hand_fed_plant

T0 = 1_767_225_600 * NS
WINDOWS = """
[store]
flush_interval = "2s"
[pipelines.seconds]
read = "**"
steps = [{ op = "window", every = "1s", agg = ["mean"] }]
write = "{parent}/{signal}_{agg}_1s"
"""


async def settled(plant):
    await plant.intake.drain()
    end = time.monotonic() + 20
    while plant.summary()["in_flight"]:
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_before_the_start_there_is_nothing_to_say(tmp_path):
    report = Report(Metrics(), VirtualClock(T0), LocalDisk(tmp_path), LocalDisk(tmp_path))
    assert set(report.samples().values()) == {0}
    assert report.stages_ns() == {}
    assert report.summary()["sensors"] == 0
    assert report.summary()["bytes_per_sample"] == 0.0


async def test_bytes_and_ratio_are_of_what_is_committed(tmp_path):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(tmp_path, WINDOWS, clock=clock)
    await plant.start()
    slots = hand.define([f"plant/hall/line/d{i}" for i in range(8)])
    for second in range(12):
        await hand.emit(slots, T0 + second * NS, np.ones((8, 2)))
        await settled(plant)
        clock.advance(1.0)
    await plant.stop()
    summary = plant.summary()
    assert summary["stored"] == 192
    # In the store are derived series too: a sample's bytes are those of all.
    assert summary["store"]["samples"] == 192 + summary["derived"]
    assert summary["bytes_per_sample"] == round(
        summary["store"]["size_bytes"] / summary["store"]["samples"], 3
    )
    assert summary["ratio"] == pytest.approx(16 / summary["bytes_per_sample"], abs=0.006)  # two decimals
    assert set(summary["cpu_ns_per_sample"]) == {
        "transport", "decode", "normalise", "journal", "pipeline", "encode", "write",
    }  # fmt: skip
    assert summary["cpu_ns_per_sample"]["pipeline"] > 0


async def test_what_dead_bands_leave_out_is_thinned(tmp_path):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(tmp_path, WINDOWS, clock=clock)
    await plant.start()
    slots = hand.define([f"plant/hall/line/d{i}" for i in range(4)])
    layout = plant.directory.layout(slots[0])
    bands = DeadBands.of([SignalBand(0.5, 60 * NS)] * layout.width, layout)
    plant.directory.set_dead_bands(slots[:2], bands)
    for second in range(5):
        await hand.emit(slots, T0 + second * NS, np.ones((4, 2)))
        await settled(plant)
        clock.advance(1.0)
    await plant.stop()
    samples = plant.summary()
    assert (samples["received"], samples["stored"], samples["thinned"]) == (40, 24, 16)


async def test_a_scrape_tells_sizes_by_tier_and_how_long_requests_took(tmp_path, monkeypatch):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(tmp_path, clock=clock)
    counts = (5, 2, *[0] * 8)
    diagnostics = hand.diagnostics
    monkeypatch.setattr(
        hand, "diagnostics", lambda: replace(diagnostics(), latency_counts=counts, latency_total_s=0.25)
    )
    await plant.start()
    slots = hand.define(["plant/hall/line/d0"])
    await hand.emit(slots, T0, np.ones((1, 2)))
    await settled(plant)
    await plant.stop()
    lines = plant.metrics.expose().splitlines()
    assert 'headrace_adapter_request_duration_seconds_bucket{adapter="hand",le="0.003"} 7' in lines
    assert 'headrace_adapter_request_duration_seconds_sum{adapter="hand"} 0.25' in lines
    assert 'headrace_store_samples{tier="hot"} 2' in lines
    assert 'headrace_store_samples{tier="warm"} 0' in lines
    assert plant.status()["store"]["tiers"]["hot"]["samples"] == 2


async def test_what_a_restart_replays_is_not_received_again(tmp_path):
    first, hand = hand_fed_plant(tmp_path, clock=VirtualClock(T0))
    await first.start()
    slots = hand.define(["plant/hall/line/d0"])
    await hand.emit(slots, T0, [[1.0, 2.0]])
    await settled(first)
    # As after a kill: nothing was flushed, the journal has it.
    first._host.engine.flush = lambda timeout_s: False
    await first.stop()
    plant, hand = hand_fed_plant(tmp_path, clock=VirtualClock(T0 + NS))
    await plant.start()
    while plant.status()["recovery"]["caught_up_s"] is None:
        assert plant.summary()["stored"] == 0
        await asyncio.sleep(0.01)
    assert plant.status()["recovery"]["replayed_records"] == 1
    assert plant.summary()["stored"] == 0
    slots = hand.define(["plant/hall/line/d0"])
    await hand.emit(slots, T0, [[1.0, 2.0]])
    await settled(plant)
    await plant.stop()
    samples = plant.summary()
    assert (samples["received"], samples["stored"], samples["duplicates"]) == (2, 0, 2)
    assert samples["store"]["samples"] == 2


async def test_lag_and_rate_follow_the_plant(tmp_path):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(tmp_path, clock=clock)
    await plant.start()
    assert plant.status()["lag_s"] == 0.0
    hand.define(["plant/hall/line/d0"])
    await asyncio.sleep(0.01)
    clock.advance(1.0)
    end = time.monotonic() + 20
    while plant.status()["lag_s"] or plant._host.engine.cores[0].now_ns != T0 + NS:
        assert time.monotonic() < end
        await asyncio.sleep(0.005)
    plant.intake._ticker.cancel()
    clock.advance(5.0)
    assert plant.status()["lag_s"] == 5.0
    assert plant.status()["rate"]["samples_per_s"] == 0.0
    await plant.stop()


async def test_a_disk_that_can_not_be_looked_at_is_a_problem_not_a_crash(tmp_path, monkeypatch):
    plant, _ = hand_fed_plant(tmp_path)
    await plant.start()

    def refuse(self):
        raise StorageError("can't look at the disk")

    with monkeypatch.context() as patch:
        patch.setattr(LocalDisk, "free_bytes", refuse)
        assert plant.status()["store"]["problem"] == "can't look at the disk"
    await plant.stop()


async def test_metrics_follow_the_counts(tmp_path):
    plant, hand = hand_fed_plant(tmp_path, clock=VirtualClock(T0))
    await plant.start()
    slots = hand.define(["plant/hall/line/d0"])
    await hand.emit(slots, T0, [[1.0, 2.0]])
    await hand.emit(slots, T0, [[1.0, 2.0]])
    await hand.reject(3)
    await settled(plant)
    text = plant.metrics.expose()
    text = text if isinstance(text, str) else text.decode()
    for line in (
        'headrace_samples_received_total{adapter="hand"} 7',
        "headrace_samples_stored_total 2",
        "headrace_samples_duplicate_total 2",
        'headrace_samples_rejected_total{adapter="hand",code="malformed"} 3',
        "headrace_samples_in_flight 0",
        "headrace_journal_bytes ",
        "headrace_lag_seconds ",
        "headrace_window_revisions_total 0",
        'headrace_queue_utilisation_ratio{queue="hot_buffers"} ',
        'headrace_stage_cpu_seconds_total{stage="pipeline"} ',
        'headrace_adapter_frames_total{adapter="hand"} ',
        'headrace_adapter_received_bytes_total{adapter="hand"} 0',
        'headrace_adapter_state{adapter="hand",state="connected"} 1',
        'headrace_adapter_state{adapter="hand",state="backoff"} 0',
        'headrace_adapter_circuits{adapter="hand",circuit="open"} 0',
    ):
        assert line in text, line
    cpu_s = re.search(r'adapter_cpu_seconds_total{adapter="hand",part="normalise"} (\S+)', text)
    assert float(cpu_s[1]) > 0
    assert plant.adapters()[0].normalise_ns > 0
    await plant.stop()


async def test_a_scrape_tells_of_stale_signals_in_bounded_numbers(tmp_path, monkeypatch):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(tmp_path, '[runtime]\nstale_after = "1m"\n', clock=clock)
    monkeypatch.setattr(report, "_TAGS_PAUSE", 0)
    await plant.start()
    slots = hand.define([f"plant/hall/line/d{i}" for i in range(3)])
    await hand.emit(slots, T0, np.ones((3, 2)))
    await settled(plant)
    clock.advance(50.0)
    await hand.emit(slots[:2], T0 + 50 * NS, np.ones((2, 2)))
    await settled(plant)
    assert 'headrace_adapter_tags_stale{adapter="hand"} 0' in plant.metrics.expose()
    clock.advance(11.0)
    text = plant.metrics.expose()
    assert 'headrace_adapter_tags{adapter="hand"} 6' in text
    assert 'headrace_adapter_tags_stale{adapter="hand"} 2' in text
    assert f'headrace_adapter_tags_stalest_timestamp_seconds{{adapter="hand"}} {T0 // NS}' in text
    monkeypatch.setattr(report, "_TAGS_PAUSE", 10**9)  # looking takes long: a while from now on nobody does
    plant.metrics.expose()
    await hand.emit(slots, T0 + 61 * NS, np.ones((3, 2)))
    await settled(plant)
    assert 'headrace_adapter_tags_stale{adapter="hand"} 2' in plant.metrics.expose()
    found = plant.tags("hand", TagsWish(60 * NS, only_stale=True))
    assert (found["tags"], found["stale"], found["shown"]) == (6, 0, [])
    await plant.supervisor.remove("hand")
    text = plant.metrics.expose()
    assert "headrace_adapter_tags{" not in text
    assert "headrace_adapter_state{" not in text
    await plant.stop()
