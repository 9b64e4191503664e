"""The load that feeds a plant in real time, and its watch over acknowledgements."""

import asyncio
from types import SimpleNamespace

import pytest

from headrace.adapters.base import AdapterState
from headrace.bench.live import BATCHES_A_SECOND, AckMeter, LoadAdapter
from headrace.bench.load import LoadSpec
from headrace.bench.shapes import make_load
from headrace.core.clock import NS, SystemClock
from headrace.core.errors import ConfigError, PluginError
from headrace.core.sensors import SensorDirectory


class HeldSink:
    """Takes batches and keeps their acknowledgements."""

    def __init__(self, fails_at=None):
        self.directory, self.clock = SensorDirectory(), SystemClock()
        self.batches, self.acks, self._fails_at = [], [], fails_at

    async def emit(self, batch, ack):
        if len(self.batches) == self._fails_at:
            raise PluginError("nothing is taken")
        self.batches.append(batch)
        self.acks.append(ack)


def adapter_of(tmp_path, sensors=400, rounds=1):
    load, ended = make_load(LoadSpec(sensors, 10, "u16", "poll"), tmp_path), asyncio.Event()
    return LoadAdapter(load, [load.input(i, 0) for i in range(rounds)], ended.set), ended


def moments(monkeypatch, *seconds):
    """What the clock of the watch says, one after the other."""
    times = iter([round(s * NS) for s in seconds])
    monkeypatch.setattr("headrace.bench.live.monotonic_ns", lambda: next(times))


def test_the_longest_time_without_an_acknowledgement(monkeypatch):
    moments(monkeypatch, 0.0, 0.1, 0.2, 5.0, 5.1, 7.5)
    meter, batch = AckMeter(), SimpleNamespace(n_samples=10)
    acks = [meter.ack_of(batch) for _ in range(3)]
    for ack in acks:
        ack()
    # The first one, after 5 s, starts the watch.
    assert (meter.worst_stall_ns, meter.worst_ack_ns) == (2.4 * NS, 7.3 * NS)
    assert (meter.n_samples, meter.n_batches) == (30, 3)


async def test_a_round_comes_spread_over_its_second_and_ends_with_its_last_acknowledgement(tmp_path):
    adapter, ended = adapter_of(tmp_path)
    sink = HeldSink()
    assert adapter.diagnostics().state is AdapterState.STOPPED
    await adapter.start(sink)
    assert adapter.diagnostics().state is AdapterState.CONNECTED
    while len(sink.batches) < BATCHES_A_SECOND:
        await asyncio.sleep(0.01)
    assert sum(b.n_samples for b in sink.batches) == adapter.n_samples == 400
    assert sink.batches[-1].arrival_ns - sink.batches[0].arrival_ns > 0.8 * NS
    assert not ended.is_set()
    for ack in sink.acks:
        ack()
    await ended.wait()
    assert adapter.failure is None
    assert adapter.spent_ns > 0.9 * NS
    await adapter.stop()
    await adapter.stop()


async def test_a_small_plant_sends_a_batch_for_each_device(tmp_path):
    adapter, _ = adapter_of(tmp_path, sensors=30)
    sink = HeldSink()
    await adapter.start(sink)
    while len(sink.batches) < 3:
        await asyncio.sleep(0.01)
    await adapter.stop()
    assert [b.n_frames for b in sink.batches] == [1, 1, 1]


async def test_a_stop_ends_it_early(tmp_path):
    adapter, ended = adapter_of(tmp_path, rounds=100)
    await adapter.start(HeldSink())
    await asyncio.sleep(0)
    await adapter.stop()
    await ended.wait()
    assert adapter.failure is None


async def test_what_it_failed_with_is_kept(tmp_path):
    adapter, ended = adapter_of(tmp_path)
    await adapter.start(HeldSink(fails_at=1))
    await ended.wait()
    assert isinstance(adapter.failure, PluginError)
    await adapter.stop()


def test_no_plant_file_has_it():
    with pytest.raises(ConfigError, match="can't be written into a plant file"):
        LoadAdapter.from_config("load", None, None, None)
