"""Metrics pushed over the public port: a real Prometheus, OpenTelemetry's own exporter, and a client of remote write 2."""

import json
import os
import shutil
import socket
import subprocess
import time

import pyarrow as pa
import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from tests.integration.api_client import ask
from tests.integration.test_cli import RunningPlant
from tests.unit.adapters.payloads.protos import CLASSES, new

OPERATOR, VIEWER = "o" * 20, "v" * 20
PLANT = """
version = 1
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[api.tokens]
operator = { env = "TEST_OPERATOR" }
viewer = { env = "TEST_VIEWER" }
[adapters.metrics]
protocol = "http"
path = "{site}/{area}/{line}/{instance}/{field}"
other_tags = "drop"
max_fields = 2000
[adapters.metrics.defaults]
site = "leon"
"""
WRITE = "/prometheus/api/v1/write"
ONE, TWO = "application/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request"
T0_MS = 1_772_431_200_000


class Served:
    """A plant that takes metrics, and its address."""

    def __init__(self, plant, folder):
        self.address = plant.address(folder)

    def ask(self, path, token=OPERATOR, **more):
        headers = {**more.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        return ask(self.address, path, headers=headers, **more)

    def write(self, message, kind=ONE, path=WRITE, **headers):
        body = message if isinstance(message, bytes) else message.SerializeToString()
        if path == WRITE:
            headers["Content-Encoding"] = "snappy"
            body = pa.compress(body, codec="snappy", asbytes=True) if kind else body
        headers["Content-Type"] = kind or ONE
        return self.ask(path, method="POST", body=body, headers=headers)

    def values(self, pattern):
        found = self.ask(f"/api/v1/query?pattern={pattern}&from=2026-01-01&to=2100-01-01")
        assert found.status in (200, 404), found.text  # 404: no such sensor yet
        return [(row["path"], row["value"]) for row in found.json().get("rows", ())]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    (folder / "plant.toml").write_text(PLANT)
    os.environ |= {"TEST_OPERATOR": OPERATOR, "TEST_VIEWER": VIEWER}
    with RunningPlant(folder) as plant:
        yield Served(plant, folder)
    for name in ("TEST_OPERATOR", "TEST_VIEWER"):
        del os.environ[name]


def _up(port):
    """What Prometheus says of its target: ``"1"`` where the newest scrape was in time."""
    own = ask(f"http://127.0.0.1:{port}", "/api/v1/query?query=up").json()["data"]["result"]
    return [one["value"][1] for one in own]


def test_a_real_prometheus_writes_what_it_scrapes_of_itself(served, tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here: apt-get install prometheus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "prometheus.yml").write_text(f"""
global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}
scrape_configs:
  - job_name: self
    static_configs: [{{ targets: ["127.0.0.1:{port}"], labels: {{ site: leon, area: it, line: rack1 }} }}]
remote_write:
  - url: {served.address}{WRITE}
    authorization: {{ credentials: {OPERATOR} }}
    queue_config: {{ batch_send_deadline: 100ms, max_shards: 1 }}
""")  # One shard: where Prometheus thinks two do better, it gives up what the one had on its way, after the flush deadline.
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}",
         "--storage.remote.flush-deadline=1s"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=log,
    )  # fmt: skip
    try:
        until = time.monotonic() + 40
        while not served.values(f"leon/it/rack1/127.0.0.1:{port}/go_goroutines"):
            assert time.monotonic() < until, (tmp_path / "log").read_text()[-2_000:]
            time.sleep(0.2)
        while _up(port) != ["1"]:  # a scrape of a busy machine may be late
            assert time.monotonic() < until, "it can't scrape itself"
            time.sleep(0.2)
        # Before it ends: a batch that is on its way then is given up, and called non-recoverable.
        said = (tmp_path / "log").read_text()
    finally:
        process.terminate()
        process.wait(20)
        log.close()
    assert 1.0 in {value for _, value in served.values(f"leon/it/rack1/127.0.0.1:{port}/up")}
    assert "non-recoverable" not in said, said[-2_000:]


def test_remote_write_2_is_told_how_much_was_written(served):
    message = new(
        "v2", "Request", symbols=["", "__name__", "rpm", "instance", "m1", "area", "a", "line", "l", "1/min"]
    )
    labels = [1, 2, 3, 4, 5, 6, 7, 8]
    series = message.timeseries.add(labels_refs=labels)
    series.metadata.unit_ref = 9
    for n in range(3):
        series.samples.add(value=1_480.0 + n, timestamp=T0_MS + n)
    answer = served.write(message, TWO)
    assert (answer.status, answer.headers["X-Prometheus-Remote-Write-Samples-Written"]) == (204, "3")
    assert answer.headers["X-Prometheus-Remote-Write-Histograms-Written"] == "0"
    assert answer.headers["X-Prometheus-Remote-Write-Exemplars-Written"] == "0"
    assert served.values("leon/a/l/m1/rpm") == [("leon/a/l/m1/rpm", 1_480.0 + n) for n in range(3)]
    sensors = served.ask("/api/v1/sensors?pattern=leon/a/l/m1/rpm").json()["sensors"]
    assert [one["unit"] for one in sensors] == ["1/min"]
    series.histograms.add(timestamp=T0_MS + 9)
    series.samples.add(value=5, timestamp=T0_MS + 9)
    message.timeseries.add(labels_refs=[3, 4]).samples.add(value=1)
    answer = served.write(message, TWO)
    assert (answer.status, answer.headers["X-Prometheus-Remote-Write-Samples-Written"]) == (400, "4")
    assert (answer.json()["taken"], answer.json()["refused"]) == (4, 2)
    assert "a native histogram" in answer.json()["detail"]


def test_what_remote_write_can_not_be(served):
    good = new("prometheus", "WriteRequest").SerializeToString()
    assert served.write(good).status == 204
    assert served.write(good, "application/x-protobuf;proto=prometheus.WriteRequest").status == 204
    assert served.write(good, "application/x-protobuf;proto=other").status == 415
    assert served.write(good, "text/plain").status == 415
    assert served.write(b"\x0a\xff", ONE).status == 400
    for body in (b"", b"\xff" * 5, b"\xff\xff\xff\x7f", b"\xff\xff\x01abc", b"\x80\x01abc"):
        answer = served.write(body, "")
        assert answer.status in (400, 413), body
        assert "snappy" in answer.json()["detail"] or "larger than" in answer.json()["detail"]
    assert served.ask(WRITE, VIEWER, method="POST", body=b"").status == 403
    assert served.ask(WRITE, "", method="POST", body=b"").status == 401


def test_opentelemetrys_own_exporter(served, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    exporter = OTLPMetricExporter(
        f"{served.address}/v1/metrics", headers={"Authorization": f"Bearer {OPERATOR}"}
    )
    reader = PeriodicExportingMetricReader(exporter, 3_600_000)
    provider = MeterProvider([reader], Resource({"area": "otel", "line": "l1"}))
    meter = provider.get_meter("test")
    tags = {"instance": "m7"}
    meter.create_counter("pieces", unit="1").add(7, tags)
    meter.create_gauge("temperature", unit="degC").set(181.25, tags)
    meter.create_histogram("cycle", unit="s", explicit_bucket_boundaries_advisory=[1.0, 2.0]).record(
        1.5, tags
    )
    assert provider.force_flush()
    provider.shutdown()
    assert dict(served.values("leon/otel/l1/m7/*")) == {
        "leon/otel/l1/m7/pieces": 7, "leon/otel/l1/m7/temperature": 181.25, "leon/otel/l1/m7/cycle_count": 1,
        "leon/otel/l1/m7/cycle_sum": 1.5, "leon/otel/l1/m7/cycle_min": 1.5, "leon/otel/l1/m7/cycle_max": 1.5,
        "leon/otel/l1/m7/cycle_bucket_1": 0, "leon/otel/l1/m7/cycle_bucket_2": 1, "leon/otel/l1/m7/cycle_bucket_inf": 1,
    }  # fmt: skip


def exported(*kinds):
    message = new("opentelemetry", "Request")
    resource = message.resource_metrics.add()
    for key, value in (("area", "x"), ("line", "y"), ("instance", "z")):
        resource.resource.attributes.add(key=key, value={"string_value": value})
    metrics = resource.scope_metrics.add().metrics
    for kind in kinds:
        points = getattr(metrics.add(name=kind), kind).data_points
        point = points.add(time_unix_nano=T0_MS * 10**6)
        if kind == "gauge":
            point.as_double = 2.5
    return message


def test_otlp_is_told_what_was_refused(served):
    path = "/v1/metrics"
    answer = served.write(exported("gauge"), path=path)
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"", ONE)
    answer = served.write(exported("gauge", "exponential_histogram"), path=path)
    found = CLASSES["opentelemetry", "Response"].FromString(answer.body).partial_success
    assert (answer.status, found.rejected_data_points) == (200, 1)
    assert "exponential histogram" in found.error_message
    document = {
        "resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "n", "gauge": {"dataPoints": [{}]}}]}]}]
    }
    answer = served.write(json.dumps(document).encode(), "application/json", path)
    assert answer.status == 200
    assert answer.json()["partialSuccess"]["rejectedDataPoints"] == "1"
    assert served.write(b"{}", "application/json", path).json() == {}
    bad = served.write(b"{", "application/json", path)
    assert (bad.status, bad.json()["code"], "not JSON" in bad.json()["message"]) == (400, 3, True)
    bad = served.write(b"\x0a\xff", path=path)
    assert (bad.status, CLASSES["opentelemetry", "Status"].FromString(bad.body).code) == (400, 3)
    assert served.write(b"", "text/plain", path).status == 415
    bad = served.write(b"", path=path, **{"Content-Encoding": "br"})
    assert (bad.status, b"content encoding 'br'" in bad.body) == (415, True)
    assert served.ask(path, VIEWER, method="POST", body=b"").status == 403
    assert served.values("leon/x/y/z/gauge") == [("leon/x/y/z/gauge", 2.5)]
