"""The sim adapter: values that follow from seed and time, faults at their times, frames of each type."""

import asyncio
import logging
import tomllib
from pathlib import Path

import numpy as np
import pytest

from headrace.adapters.abilities import Declares, Probes, Scans
from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.sim import adapter as module
from headrace.adapters.sim.adapter import SimAdapter
from headrace.adapters.sim.config import SimSignal
from headrace.adapters.sim.simulator import SensorKeys, SignalModel
from headrace.core.clock import NS, VirtualClock
from headrace.core.errors import Closed, ConfigError
from headrace.core.layouts import Kind
from headrace.core.problems import InvalidConfig, validate_section
from headrace.core.sensors import SensorDirectory
from headrace.testing.adapters import RecordingSink

T0 = 1_767_225_600 * NS
LEVELS = ("site", "area", "line", "device", "signal")


def make(levels=LEVELS, **config):
    settings = validate_section(SimAdapter.Config, {"protocol": "sim", **config}, "adapters.demo")
    return SimAdapter.from_config("demo", settings, {}, PlantFacts(levels))


async def run(adapter, n, interval_s=1.0, sink=None):
    """Let an adapter tick `n` times on a clock that stands still between."""
    sink = sink or RecordingSink(VirtualClock(T0))
    await adapter.start(sink)
    for _ in range(n):
        await tick(sink, interval_s)
    return sink


async def tick(sink, interval_s=1.0):
    for _ in range(10):
        await asyncio.sleep(0)
    sink.clock.advance(interval_s)
    for _ in range(10):
        await asyncio.sleep(0)


def samples(sink, path):
    """(seconds since T0, value) of a sensor."""
    out = []
    for batch in sink.batches:
        for row, slot in enumerate(batch.slot.tolist()):
            for column, name in enumerate(c.name for c in sink.directory.layout(slot).columns):
                absent = batch.quality is not None and batch.quality[row, column] == 0xC0
                if sink.directory.sensor_path(slot, column) == path and not absent:
                    assert name == path.rpartition("/")[2]
                    out.append(((int(batch.ts_ns[row]) - T0) / NS, batch.values[row, column].item()))
    return out


async def test_one_line_of_configuration_is_enough():
    adapter = make()
    sink = await run(adapter, 3)
    found = adapter.diagnostics()
    await adapter.stop()
    assert (found.state, found.n_samples, found.n_frames, found.n_sensors) == ("connected", 36, 27, 12)
    assert found.devices[0].path == "site1/area1/line1/device1 ... site1/area1/line1/device3"
    assert [t for t, _ in samples(sink, "site1/area1/line1/device2/pieces")] == [1.0, 2.0, 3.0]
    assert {batch.dtype for batch in sink.batches} == {"f64", "u8", "i64"}
    kinds = {
        c.name: (c.kind, c.unit, c.labels)
        for b in sink.batches
        for c in sink.directory.layout(b.slot[0]).columns
    }
    assert kinds["running"] == (Kind.DISCRETE, "", ("stopped", "running"))
    assert kinds["pieces"][0] is Kind.COUNTER
    assert kinds["temperature"] == (Kind.ANALOG, "degC", ())


async def test_a_restart_goes_on_as_if_there_had_been_none():
    whole = await run(one := make(count=2), 6)
    await one.stop()
    sink = await run(first := make(count=2), 3)
    await first.stop()
    await run(second := make(count=2), 3, sink=sink)
    await second.stop()
    for name in ("temperature", "pressure", "running", "pieces"):
        path = f"site1/area1/line1/device2/{name}"
        assert samples(sink, path) == samples(whole, path) != []


def model(seed=1, n=50, **signal):
    return SignalModel(seed, n, [SimSignal(**signal)])


def series(one, n=600, step_ns=NS):
    return np.array([one.values(T0 + i * step_ns, i)[:, 0] for i in range(n)])


@pytest.mark.parametrize("shape", ["sine", "ramp", "walk", "square"])
def test_shapes_stay_within_their_amplitude_and_repeat_where_they_say_so(shape):
    found = series(model(shape=shape, mean=10.0, amplitude=2.0, period="100s"))
    assert found.min() >= 8.0
    assert found.max() <= 12.0
    if shape != "walk":
        assert np.allclose(found[:100], found[100:200])
        assert found.max() > 11.9
        assert found.min() < 8.1
        assert abs(found.mean() - 10.0) < 0.1
    else:
        assert not np.allclose(found[:100], found[100:200])
        assert found.std() > 0.2
        assert np.abs(np.diff(found, axis=0)).max() < 1.5  # it wanders, it does not jump
    assert len(np.unique(found[0])) > 1  # each device has a phase of its own


def test_a_ramp_rises_and_a_square_with_names_is_0_and_1():
    assert (np.sort(np.diff(series(model(shape="ramp", period="100s"), 101), axis=0), axis=0)[1:] > 0).all()
    named = series(model(shape="square", labels=("off", "on"), mean=7.0))
    assert set(np.unique(named)) == {0.0, 1.0}


def test_a_counter_counts_and_begins_anew():
    found = series(model(shape="counter", rate=2.0, period="60s"), 121)
    assert (np.diff(found[:60], axis=0) == 2).all()
    assert (found[60] < 2).all()
    daily = series(model(shape="counter", rate=1.0), 10)
    assert daily[0].max() <= 1  # T0 is midnight


def test_noise_has_its_deviation_and_bounds():
    found = series(model(n=2_000, amplitude=0.0, noise=0.5), 50)
    assert found.std() == pytest.approx(0.5, rel=0.02)
    assert np.abs(found).max() < 0.5 * 3.5
    assert np.corrcoef(found[0], found[1])[0, 1] == pytest.approx(0.0, abs=0.08)


def test_seeds_differ_and_are_whole():
    one, again, other = (series(model(seed=s, noise=1.0), 3) for s in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).all()
    keys = SensorKeys.of(2**63 - 1, 200, 50)
    assert len(np.unique(keys.keys)) == 10_000
    assert 0.0 <= keys.uniform(-5, 1).min() < keys.uniform(-5, 1).max() < 1.0


async def test_faults_come_and_go_at_their_times():
    faults = [
        {"match": "**/d2/a", "kind": "stuck", "after": "2s", "lasts": "2s", "every": "4s"},
        {"match": "**/d1/*", "kind": "silent", "after": "3s", "lasts": "1s"},
        {"match": "**/d3/b", "kind": "silent"},
        {"match": "**/d3/a", "kind": "drift", "by": 100.0, "after": "2s"},
    ]
    signals = {"a": {"amplitude": 1.0, "noise": 0.1}, "b": {"shape": "counter"}}
    adapter = make((), path="s/d{n}", faults=faults, signals=signals)
    sink = await run(adapter, 8)
    clean = await run(other := make((), path="s/d{n}", signals=signals), 8)
    await adapter.stop()
    await other.stop()
    stuck = dict(samples(sink, "s/d2/a"))
    assert stuck[2] == stuck[3] != stuck[4]
    assert stuck[6] == stuck[7] != stuck[8]
    assert {t: v for t, v in samples(clean, "s/d2/a") if t not in (3, 7)} == {
        t: v for t, v in stuck.items() if t not in (3, 7)
    }
    assert (
        [t for t, _ in samples(sink, "s/d1/a")]
        == [t for t, _ in samples(sink, "s/d1/b")]
        == [1, 2, 4, 5, 6, 7, 8]
    )
    assert samples(sink, "s/d3/b") == []
    drift = np.array([v for _, v in samples(sink, "s/d3/a")]) - [v for _, v in samples(clean, "s/d3/a")]
    assert np.allclose(drift, [0, 0, 100, 200, 300, 400, 500, 600])
    assert adapter.diagnostics().n_samples == sum(b.n_samples for b in sink.batches) == 6 * 8 - 8 - 2


async def test_devices_that_are_all_silent_send_no_frame():
    adapter = make(faults=[{"kind": "silent"}])
    sink = await run(adapter, 2)
    await adapter.stop()
    assert (sink.batches, adapter.diagnostics().devices[0].n_requests) == ([], 2)


async def test_the_present_can_be_looked_at_without_a_start():
    adapter = make(
        count=1,
        signals={"a": {"unit": "bar"}, "n": {"shape": "counter"}},
        faults=[{"match": "**/n", "kind": "silent"}],
    )
    assert isinstance(adapter, (Probes, Scans, Declares))
    clock = VirtualClock(T0)
    found = await adapter.scan({}, clock)
    path = "site1/area1/line1/device1"
    assert [(t.device, t.name, t.dtype, t.unit, t.kind, t.ts_ns) for t in found] == [
        (path, "a", "f64", "bar", "analog", T0), (path, "n", "i64", "", "counter", T0),
    ]  # fmt: skip
    assert -1 <= found[0].value <= 1
    assert found[1].value is None
    probed = await adapter.probe({}, clock)
    assert probed["protocol"] == "sim"
    assert probed["values"][0] == {"path": f"{path}/a", "value": found[0].value, "ts_ns": T0}
    with pytest.raises(ConfigError, match="all together"):
        await adapter.scan({"device": "x"}, clock)
    directory = SensorDirectory()
    adapter.declare(directory)
    assert directory.n_sensors == 2
    assert adapter.diagnostics().devices[0].path == path


async def test_a_sink_that_takes_nothing_is_told_once(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "headrace.adapters.sim")
    monkeypatch.setattr(module, "RETRY_FIRST_NS", NS)
    adapter = make()
    sink = RecordingSink(VirtualClock(T0))
    sink.set_credit(False)
    await run(adapter, 2, sink=sink)
    assert adapter.diagnostics().devices[0].n_polls_skipped == 2
    sink.set_credit(True)
    sink.refusal = Closed("the journal is closed")
    for _ in range(8):
        await tick(sink)
    found = adapter.diagnostics()
    assert (found.state, found.reason) == (
        AdapterState.BACKOFF,
        "values are not taken: the journal is closed",
    )
    assert found.devices[0].next_retry_ns > T0
    sink.refusal = None
    for _ in range(8):
        await tick(sink)
    assert adapter.diagnostics().state is AdapterState.CONNECTED
    await adapter.stop()
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"path": "leon/paint/line1/oven"}, "must have {n} in it"),
        ({"path": "leon/oven{n}"}, "and a signal are 3 levels, expected 5: site/area/line/device/signal"),
        ({"path": "leon/paint/line*/oven{n}"}, "can't name a sensor"),
        ({"signals": {"a#": {}}}, "can't name a sensor"),
        ({"signals": {"a/b": {}}}, "has a '/'"),
    ],
)
def test_what_can_not_be_is_told(config, text):
    with pytest.raises(ConfigError, match=text):
        make(**config)


def test_what_does_not_fit_a_signal_is_told():
    for signal in ({"labels": ["a", "b"]}, {"shape": "square", "labels": ["a"]}):
        with pytest.raises(InvalidConfig, match="two names"):
            make(signals={"a": signal})
    with pytest.raises(InvalidConfig):
        make(signals={})


def test_the_sample_is_one():
    text = Path(module.__file__).with_name("sample.toml").read_text()
    found = make(**tomllib.loads(text)["adapters"]["demo"])
    assert found.diagnostics().n_sensors == 20


async def test_one_that_never_began_may_be_stopped():
    adapter = make()
    await adapter.stop()
    assert adapter.diagnostics().state is AdapterState.STOPPED
