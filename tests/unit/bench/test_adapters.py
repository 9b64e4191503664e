"""What adapters add to the cost of a sample: the gates, the object, and what is said where it can't be measured."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from headrace.bench import adapters
from headrace.bench.adapters import TRAFFIC, check_fates, figures_of, marginal_ns, run, share_of
from headrace.bench.traffic import http
from headrace.bench.traffic.base import Peer, WholeWay, missing_packages
from headrace.bench.traffic.modbus import _device
from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

SEVEN = np.full(7, 100.0)
FLOORS_FOUND = {
    "mqtt": {"decode_ns": 31.0, "floor_ns": 200.0, "orjson_ns": 40.0, "ratio": 0.775, "pass": True}
}


def batches(found):
    """All batches in what a decoder has made, however deep."""
    if isinstance(found, FrameBatch):
        return [found]
    if isinstance(found, list | tuple):
        return [batch for one in found for batch in batches(one)]
    return batches(found.batches) if hasattr(found, "batches") else []


@pytest.mark.parametrize("name", TRAFFIC)
@pytest.mark.parametrize("is_batched", [True, False])
async def test_traffic_is_decoded_wholly_and_parsed_by_a_peer(name, is_batched):
    traffic = adapters._traffic(name)
    assert traffic.name == name
    assert not missing_packages(traffic.libraries)
    payloads, n = traffic.payloads(is_batched)
    decode = traffic.decode(payloads, SensorDirectory())
    decode()
    assert sum(batch.n_samples for batch in batches(decode())) == n
    assert len(traffic.parse(payloads)()) > 0
    assert isinstance(traffic, WholeWay) == (name in ("mqtt", "sparkplug"))
    if isinstance(traffic, WholeWay):
        take = traffic.way(payloads, SensorDirectory())
        assert [sum(batch.n_samples for batch in take()) for _ in range(2)] == [n, n]
        assert repr(traffic.bare_way(payloads)()) == repr(traffic.parse(payloads)())


@pytest.mark.parametrize(
    ("null", "median", "high", "passes"),
    [
        (SEVEN + 10, 0.01, 0.01, True),
        (SEVEN - 30, -0.03, -0.03, True),
        (SEVEN + 50, 0.05, 0.05, True),
        (SEVEN + 51, 0.051, 0.051, False),
        (SEVEN + np.array([40, 40, 40, 40, 90, 90, 90]), 0.04, 0.09, False),  # the upper end decides
    ],
)
def test_gate_a_is_the_upper_end_of_the_share(null, median, high, passes):
    found = share_of(null, SEVEN, 1_000.0)
    assert (found["median"], found["high"], found["pass"]) == (median, high, passes)
    assert found["low"] <= median


@pytest.mark.parametrize(
    ("batched", "alone", "passes"),
    [
        ((150.0, 100.0), (900.0, 500.0), True),
        ((151.0, 100.0), (900.0, 500.0), False),
        ((150.0, 100.0), (901.0, 500.0), False),
        ((40.0, 100.0), (90.0, 500.0), True),
    ],
)
def test_gate_b_is_what_decoding_costs_beyond_parsing(batched, alone, passes):
    found = figures_of(SEVEN * 3, SEVEN, 1_000.0, batched, alone)
    assert found["gate_b"] == {
        "batched_ns": batched[0] - batched[1],
        "unbatched_ns": alone[0] - alone[1],
        "pass": passes,
    }
    assert found["transport_ns"] + found["decode_ns"] + found["normalise_ns"] == found["adapter_ns"] == 300.0
    assert found["normalise_ns"] >= 0
    assert (found["bare_ns"], found["pipeline_ns"], found["share_of_pipeline"]) == (100.0, 1_000.0, 0.3)
    assert found["gate_a"]["median"] == 0.2
    assert sum(found["shares"].values()) == pytest.approx(found["share_of_pipeline"], abs=0.002)


@pytest.mark.parametrize(
    ("ways", "batched_ns", "unbatched_ns", "passes"),
    [
        (((90.0, 900.0), (900.0, 5_000.0)), 20.0, 300.0, True),  # what framing saves hides no decoder
        (((951.0, 900.0), (900.0, 5_000.0)), 51.0, 300.0, False),
        (((900.0, 900.0), (5_401.0, 5_000.0)), 20.0, 401.0, False),
    ],
)
def test_gate_b_of_a_broker_is_the_dearer_of_decoding_and_the_whole_way(
    ways, batched_ns, unbatched_ns, passes
):
    found = figures_of(SEVEN * 3, SEVEN, 1_000.0, (70.0, 50.0), (500.0, 200.0), ways)
    assert found["gate_b"] == {"batched_ns": batched_ns, "unbatched_ns": unbatched_ns, "pass": passes}
    assert found["way"]["batched"] == {"ours_ns": ways[0][0], "bare_ns": ways[0][1]}
    assert found["way"]["unbatched"] == {"ours_ns": ways[1][0], "bare_ns": ways[1][1]}
    assert (found["decode_ns"], found["normalise_ns"]) == (50.0, 20.0)


def test_what_a_plant_costs_besides_falls_out():
    traffic = SimpleNamespace(name="x", n_feeds=3, n_samples=100)
    assert marginal_ns([9_000, 7_000, 7_500], [9_500, 12_000, 9_400], traffic) == 10.0
    with pytest.raises(HeadraceError, match="x: the machine is too busy"):
        marginal_ns([9_000], [8_999], traffic)


@pytest.mark.parametrize(
    ("received", "stored", "rejected", "is_right"),
    [
        (100, 100, 0, True),
        (102, 101, 0, True),
        (99, 99, 0, False),
        (101, 100, 1, False),
        (200, 197, 0, False),
    ],
)
def test_a_plant_that_does_not_store_what_it_was_sent_is_no_measure(received, stored, rejected, is_right):
    fates = {"received": received, "stored": stored, "rejected": rejected}
    if is_right:
        check_fates("x", 100, fates)
        return
    with pytest.raises(HeadraceError, match=f"x: a plant that was sent 100 .* rejected {rejected}"):
        check_fates("x", 100, fates)


@pytest.fixture
def quick(monkeypatch):
    """A short form: HTTP alone, two bodies, one plant, whose cost is given."""
    plant = adapters._plant

    async def given(traffic, n_feeds):
        assert await plant(traffic, n_feeds) > 0
        return 1_000 * n_feeds * traffic.n_samples

    for name, value in {
        "_PLANTS": 1,
        "_DECODES": 1,
        "_DECODING_NS": 0,
        "_plant": given,
        "warm_kernels": lambda **_: None,
    }.items():
        monkeypatch.setattr(adapters, name, value)
    monkeypatch.setattr(adapters, "TRAFFIC", {"http": TRAFFIC["http"]})
    for name, value in {"_LINES": 100, "_BODIES": 2}.items():
        monkeypatch.setattr(http, name, value)
    monkeypatch.setattr(http.HttpTraffic, "n_samples", 1_000)
    monkeypatch.setattr(http.HttpTraffic, "n_feeds", 2)


def test_the_object(quick):
    said = []
    result = run(["http"], 2, said.append)
    found = result["adapters"]["http"]
    assert set(found) >= {
        "samples", "transport_ns", "decode_ns", "normalise_ns", "bare_ns", "pipeline_ns", "gate_a", "gate_b",
    }  # fmt: skip
    assert set(found["gate_a"]) == {"median", "low", "high", "pass"}
    assert "way" not in found
    assert set(found["gate_b"]) == {"batched_ns", "unbatched_ns", "pass"}
    assert (found["samples"], found["pipeline_ns"], result["repeats"]) == (1_000, 1_000.0, 2)
    assert found["adapter_ns"] > 0
    assert found["bare_ns"] > 0
    assert said[-1] == "http: 2 of 2"
    floor = result["floors"]["http"]
    assert (set(floor), floor["floor_ns"]) == ({"decode_ns", "floor_ns", "orjson_ns", "ratio", "pass"}, 100.0)
    assert floor["ratio"] == pytest.approx(floor["decode_ns"] / floor["orjson_ns"], rel=0.05)
    json.dumps(result)


async def test_traffic_that_does_not_come_whole_is_taken_once_more():
    said, results = [], [HeadraceError("half of it came"), 5.0]

    async def take():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    assert await adapters._again(take, said.append) == 5.0
    assert said == ["half of it came; once more"]
    results += [HeadraceError("half of it came"), HeadraceError("less came")]
    with pytest.raises(HeadraceError, match="less came"):
        await adapters._again(take, said.append)


def test_a_library_that_is_missing_is_named(quick, monkeypatch):
    monkeypatch.setattr(http.HttpTraffic, "libraries", {"no_such.part": "no-such", "json": "json"})
    why = "its bare client needs no-such: pip install no-such"
    with pytest.raises(ConfigError, match=f"adapter http can't be measured: {why}"):
        run(["http"])
    said = []
    result = run((), 7, said.append)
    assert (result["adapters"], result["skipped"]) == ({}, {"http": why})
    assert f"http is left out: {why}" in said


async def test_a_peer_that_fails_says_why():
    good, failing, gone = Peer(_device), Peer(int), Peer(repr)
    try:
        assert await good.ask("port") > 0
        with pytest.raises(HeadraceError, match=r"peer failed: TypeError: int\(\) argument must be"):
            await failing.ask()
        with pytest.raises(HeadraceError, match="peer has ended, exit 0"):
            await gone.ask()
    finally:
        for peer in (good, failing, gone):
            await peer.end()


def test_the_table(monkeypatch, capsys):
    figures = figures_of(SEVEN + 60, SEVEN, 1_000.0, (150.0, 100.0), (150.0, 100.0))
    monkeypatch.setattr(
        adapters, "run", lambda *given: {"adapters": {"mqtt": figures}, "floors": FLOORS_FOUND, "skipped": {}}
    )
    assert run_command(["bench", "adapters", "mqtt"]) == Exit.DONE
    out = capsys.readouterr().out
    assert "6.0% to 6.0% missed" in out
    assert "50 ok" in out
    assert [line.split() for line in out.splitlines() if line.startswith("mqtt")][1] == [
        "mqtt", "1.0%", "10.0%", "5.0%",
    ]  # fmt: skip
    assert "200 ok" in out
    assert run_command(["bench", "adapters", "--json"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["adapters"]["mqtt"]["gate_b"]["pass"] is True


def test_an_adapter_without_traffic(capsys):
    assert run_command(["bench", "adapters", "mqqt"]) == Exit.CONFIG
    assert "there is no traffic for adapter 'mqqt'" in capsys.readouterr().err
