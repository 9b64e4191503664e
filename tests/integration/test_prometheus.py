"""PromQL over the store against a real Prometheus that was given the same samples."""

import json
import math
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest

from headrace.api.promql.answers import PromStore
from headrace.api.promql.nodes import PromQlError
from headrace.api.promql.source import StoreSamples
from headrace.core.clock import NS, VirtualClock
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.runtime.pipe import Pipe
from headrace.runtime.reader import JournalTail, open_store
from headrace.runtime.tree import SensorTree

LEVELS = ("site", "area", "line", "device", "signal")
T0 = 1_767_225_600 * NS
# Samples beside full seconds: whether a window has its first instant differs between versions of Prometheus.
BESIDE_NS = 137_000_000
N = 1_200
LAYOUT = Layout(
    "f64", (Column("temperature", unit="degC"), Column("pieces", kind=Kind.COUNTER), Column("level-1"))
)
PATHS = [
    f"leon/{area}/line{line}/oven{n}" for area in ("paint", "press") for line in (1, 2) for n in (1, 2, 3)
]
PERIOD_S = 5


def values_at(device, n):
    """Temperature, a counter that falls back to zero now and then, and a level."""
    pieces = (n * (device + 1)) % 700
    return [180.0 + 10 * math.sin(n / 37 + device) + device, float(pieces), float((n * 7 + device) % 50) / 4]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The store, half of it committed; one device is silent for a while, one ends early."""
    folder = tmp_path_factory.mktemp("prom") / "store"
    clock = VirtualClock(T0)
    pipe = Pipe(folder, [], clock)
    slots = pipe.directory.define_many(PATHS, LAYOUT)
    lines = []
    for n in range(N):
        ts = T0 + n * PERIOD_S * NS + BESIDE_NS
        clock.set_ns(ts)
        here = [d for d in range(len(PATHS)) if not (d == 3 and 300 < n < 480) and not (d == 7 and n > 700)]
        rows = np.array([values_at(d, n) for d in here])
        pipe.offer(FrameBatch.dense(slots[here], np.full(len(here), ts), rows, arrival_ns=ts, origin="t"))
        if n % 20 == 0:
            pipe.tick()
        if n == N // 2:
            pipe.drain()
        lines += [(d, n, ts) for d in here]
    pipe._flush()
    pipe._writer.wait(pipe.host.journal.last_seq, 10.0)
    reader = open_store(folder)
    yield PromStore(reader, SensorTree(reader.directory), LEVELS), lines
    pipe.close()


@pytest.fixture(scope="module")
def real(store, tmp_path_factory):
    """Address of a real Prometheus with the same samples."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("no prometheus here: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("real")
    text = ["# TYPE temperature gauge", "# TYPE pieces gauge", "# TYPE level_1 gauge"]
    for column, name in enumerate(("temperature", "pieces", "level_1")):
        rows = []
        for device, n, ts in store[1]:
            site, area, line, oven = PATHS[device].split("/")
            labels = f'site="{site}",area="{area}",line="{line}",device="{oven}"'
            labels += ',signal="level-1"' if name == "level_1" else ""
            rows.append(f"{name}{{{labels}}} {values_at(device, n)[column]!r} {ts / 1e9:.3f}")
        text[column] = "\n".join([text[column], *rows])
    (folder / "in.om").write_text("\n".join([*text, "# EOF\n"]))
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "in.om", folder / "data"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (folder / "prometheus.yml").write_text("global: {}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=100y",
        ],
        stdout=log, stderr=log, cwd=folder,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_ready(process, address, folder)
        yield address
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def wait_ready(process, address, folder):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, (folder / "log").read_text()[-2_000:]
        try:
            with urllib.request.urlopen(f"{address}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("Prometheus did not come up")


def ask_real(address, path, **parameters):
    asked = urllib.parse.urlencode(parameters, doseq=True)
    try:
        with urllib.request.urlopen(f"{address}/api/v1/{path}?{asked}", timeout=20) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as e:
        with e:
            return json.loads(e.read())


def plain(data):
    """Series by their labels, values as floats; in no order."""
    if data["resultType"] == "scalar":
        return {"scalar": [(data["result"][0], float(data["result"][1]))]}
    return {
        tuple(sorted(one["metric"].items())): [(t, float(v)) for t, v in one.get("values") or [one["value"]]]
        for one in data["result"]
    }


def check_same(ours, theirs):
    ours, theirs = plain(ours), plain(theirs)
    assert ours.keys() == theirs.keys()
    for labels, points in theirs.items():
        assert [t for t, _ in ours[labels]] == [t for t, _ in points], labels
        for (t, a), (_, b) in zip(ours[labels], points, strict=True):
            assert a == pytest.approx(b, rel=1e-9, abs=1e-9, nan_ok=True), (labels, t)


QUERIES = [
    "1+1", "-2^2", "2*3%4", "1 > bool 2", "2^3^2", "(1+2)*3", "0x1F", "1e3/Inf",
    "temperature", 'temperature{line="line1"}', 'temperature{line!="line1", device=~"oven[12]"}',
    'temperature{area!~"pa.*"}', '{__name__=~"temp.*", device="oven1"}', 'level_1{device="oven3"}', "nothing_at_all",
    "temperature offset 10m", "temperature offset -2m", "-temperature", "temperature > 185", "temperature >= bool 185",
    "185 < temperature", "temperature / 2 + 1", "temperature - on(site,area,line,device) level_1",
    "temperature + ignoring(signal) level_1", "temperature > ignoring(signal) level_1",
    "sum(temperature)", "sum by (line) (temperature)", "avg without (device) (temperature)", "min(temperature) by (area)",
    "max by (area, line) (temperature)", "count(temperature)", "count by (line) (temperature > 185)",
    "stddev(temperature)", "topk(3, temperature)", "bottomk by (line) (1, temperature)", "group by (site) (temperature)",
    "avg_over_time(temperature[1m])", "sum_over_time(temperature[2m30s])", "min_over_time(temperature[5m])",
    "max_over_time(temperature[5m] offset 5m)", "count_over_time(temperature[1m])", "last_over_time(temperature[1m])",
    "rate(pieces[5m])", "increase(pieces[10m])", "delta(temperature[5m])", "irate(pieces[1m])", "idelta(temperature[1m])",
    "sum by (line) (rate(pieces[5m]))", "abs(temperature - 185)", "ceil(temperature)", "round(temperature, 0.5)",
    "clamp(temperature, 180, 185)", "clamp_min(temperature, 183)", "scalar(sum(temperature))", "vector(3)", "time()",
    "temperature and on(device) (temperature > 188)", "temperature unless on(device) (temperature > 188)",
    "(temperature > 188) or (temperature < 175)", "timestamp(temperature)", "sum(temperature) / count(temperature)",
    'avg(avg_over_time(temperature{area="paint", line=~"line1|line2"}[1m0s])) by (line)', "sqrt(level_1)", "sgn(-temperature)",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_prometheus_answers_the_same(store, real, query):
    ours, _ = store
    for seconds in (60, 1_800, 2_300, 5_999):
        at_ns = T0 + seconds * NS
        theirs = ask_real(real, "query", query=query, time=at_ns / 1e9)
        assert theirs["status"] == "success", theirs
        check_same(ours.instant(query, at_ns).data, theirs["data"])
    start_ns, end_ns = T0 + 600 * NS, T0 + 4_200 * NS
    for step_s in (15, 61):
        theirs = ask_real(
            real, "query_range", query=query, start=start_ns / 1e9, end=end_ns / 1e9, step=step_s
        )
        assert theirs["status"] == "success", theirs
        check_same(ours.ranged(query, start_ns, end_ns, step_s * NS).data, theirs["data"])


WRONG = [
    "", "temperature{", "temperature{line=}", "temperature[5m]", "rate(temperature)", "sum(1)", "{}", '{line=~".*"}',
    "1 > 2", "temperature{line=~\"(\"}", "nonsense(temperature)", "temperature offset", "avg_over_time(temperature)",
    "temperature + on(line) temperature", "1 +", "'x' + 1", "clamp(temperature)", "temperature bool 1", "((1)",
    "temperature @", "a b",
]  # fmt: skip


@pytest.mark.parametrize("query", WRONG)
def test_prometheus_refuses_the_same(store, real, query):
    ours, _ = store
    theirs = ask_real(real, "query", query=query, time=T0 / 1e9 + 600)
    if query == "temperature[5m]":  # Prometheus lists the samples of a range; here it wants a function
        assert theirs["status"] == "success"
    else:
        assert theirs["status"] == "error"
    with pytest.raises(PromQlError) as caught:
        ours.instant(query, T0 + 600 * NS)
    assert str(caught.value)
    if theirs["status"] == "error":
        assert theirs["errorType"] == caught.value.kind, theirs


@pytest.mark.parametrize("query", ["a[5m:1m]", "a @ 3", "a * on(x) group_left b", "predict_linear(a[5m], 3)"])
def test_what_is_not_here_is_told_by_name(store, query):
    with pytest.raises(PromQlError, match="not here|no function"):
        store[0].instant(query, T0)


def test_labels_and_series_are_the_same(store, real):
    ours, _ = store
    span = {"start": T0 / 1e9, "end": T0 / 1e9 + 6_000}
    theirs = ask_real(real, "labels", **span)["data"]
    assert ours.label_names([]) == theirs
    for label in (*theirs, "nothing"):
        assert ours.label_values(label, [], 1_000) == ask_real(real, f"label/{label}/values", **span)["data"]
    chosen = ['temperature{line="line1"}', "level_1"]
    assert (
        ours.label_values("device", chosen, 100)
        == ask_real(real, "label/device/values", **{"match[]": chosen}, **span)["data"]
    )
    theirs = ask_real(real, "series", **{"match[]": chosen}, **span)["data"]
    mine = ours.series(chosen, 1_000)
    assert sorted(map(sorted, map(dict.items, mine))) == sorted(map(sorted, map(dict.items, theirs)))
    assert ours.metadata("temperature", 10) == {
        "temperature": [{"type": "gauge", "help": "analog signal", "unit": "degC"}]
    }


@pytest.mark.parametrize(
    "query",
    [
        "temperature", "avg_over_time(temperature[5m])", "max_over_time(temperature[5m])", "sum by (line) (temperature)",
        "count_over_time(temperature[10m])", "sum_over_time(temperature[5m])", "last_over_time(temperature[5m])",
        "min_over_time(temperature[1m])",
    ],
)  # fmt: skip
def test_windows_stand_in_for_samples_where_there_are_too_many(store, monkeypatch, query):
    ours, _ = store
    start_ns, end_ns = T0 + 600 * NS, T0 + 4_200 * NS
    exact = ours.ranged(query, start_ns, end_ns, 60 * NS)
    monkeypatch.setattr("headrace.api.promql.source.SAMPLES_MAX", 10)
    used = []
    windows = StoreSamples._windows
    monkeypatch.setattr(StoreSamples, "_windows", lambda *a: used.append(1) or windows(*a))
    check_same(ours.ranged(query, start_ns, end_ns, 60 * NS).data, exact.data)
    assert used


def test_too_much_is_refused(store, monkeypatch):
    ours, _ = store
    monkeypatch.setattr("headrace.api.promql.source.SAMPLES_MAX", 10)
    with pytest.raises(PromQlError, match="would read about") as caught:
        ours.instant("rate(pieces[1h])", T0 + 3_600 * NS)
    assert caught.value.kind == "execution"
    with pytest.raises(PromQlError, match="exceeded maximum resolution of 11,000 points"):
        ours.ranged("1", T0, T0 + 20_000 * NS, NS)


def test_what_the_newest_samples_lack_is_a_warning(store, monkeypatch):
    ours, _ = store
    said = "the engine is 3 records behind what it took: the newest samples are missing"
    assert ours.instant("temperature", T0 + 3_600 * NS).warnings == []
    monkeypatch.setattr(JournalTail, "notes", lambda self, slots: (said,) if len(slots) else ())
    assert ours.instant("temperature", T0 + 3_600 * NS).warnings == [said]
