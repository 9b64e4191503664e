"""What clients push over the public port: InfluxDB's own client, Telegraf's requests, and what goes wrong; tokens."""

import gzip
import json
import os
import signal

import pytest
from influxdb_client import InfluxDBClient, Point, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client.rest import ApiException
from tests.integration.api_client import ask
from tests.integration.test_cli import RunningPlant

VIEWER, OPERATOR, ADMIN = "v" * 20, "o" * 20, "a" * 20
PLANT = """
version = 1
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[api.tokens]
viewer = { env = "TEST_VIEWER" }
operator = { env = "TEST_OPERATOR" }
admin = { file = "admin.token" }
[adapters.telegraf]
protocol = "http"
path = "{site}/{area}/{line}/{host}/{field}"
other_tags = "drop"
"""
T0 = 1_772_431_200


class Served:
    """A plant with an http adapter, and its address."""

    def __init__(self, plant, folder):
        self.plant, self.folder, self.address = plant, folder, plant.address(folder)

    def ask(self, path, token=OPERATOR, **more):
        headers = {**more.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        return ask(self.address, path, headers=headers, **more)

    def values(self, pattern):
        found = self.ask(f"/api/v1/query?pattern={pattern}&from=2026-01-01", VIEWER).json()
        return [(row["path"], row["value"]) for row in found["rows"]]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    (folder / "plant.toml").write_text(PLANT)
    (folder / "admin.token").write_text(ADMIN + "\n")
    os.environ |= {"TEST_VIEWER": VIEWER, "TEST_OPERATOR": OPERATOR}
    with RunningPlant(folder) as plant:
        yield Served(plant, folder)
    for name in ("TEST_VIEWER", "TEST_OPERATOR"):
        del os.environ[name]


def line(n, host="oven1"):
    return f"oven,site=leon,area=paint,line=line1,host={host} temperature={180 + n}.5 {(T0 + n) * 10**9}\n"


def test_influxdbs_own_client_writes(served):
    with InfluxDBClient(url=served.address, token=OPERATOR, org="any") as client:
        assert client.ping()
        write = client.write_api(write_options=SYNCHRONOUS)
        points = [
            Point("oven").tag("site", "leon").tag("area", "paint").tag("line", "line1").tag("host", "influx")
            .field("temperature", 200.0 + n).time(T0 + n, WritePrecision.S)
            for n in range(5)
        ]  # fmt: skip
        write.write("any bucket", record=points, write_precision=WritePrecision.S)
        assert served.values("**/influx/*") == [
            ("leon/paint/line1/influx/temperature", 200.0 + n) for n in range(5)
        ]
        with pytest.raises(ApiException) as caught:
            write.write("telegraf", record="oven,site=leon temperature=\n")
        assert caught.value.status == 400
        assert json.loads(caught.value.body)["code"] == "invalid"


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    "precision", [WritePrecision.S, WritePrecision.MS, WritePrecision.US, WritePrecision.NS]
)
def test_influxdbs_own_client_packs_and_says_its_precision(served, is_packed, precision):
    host = f"influx-{precision}-{is_packed}"
    per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[precision]
    with InfluxDBClient(url=served.address, token=OPERATOR, org="any", enable_gzip=is_packed) as client:
        points = [
            Point("oven").tag("site", "leon").tag("area", "paint").tag("line", "line1").tag("host", host)
            .field("temperature", 200.0 + n).field("running", True).time((T0 + n) * per_s, precision)
            for n in range(5)
        ]  # fmt: skip
        client.write_api(write_options=SYNCHRONOUS).write("b", record=points, write_precision=precision)
    found = served.ask(f"/api/v1/query?pattern=**/{host}/temperature&from=2026-01-01", VIEWER).json()["rows"]
    assert [(row["ts"], row["value"]) for row in found] == [
        (f"2026-03-02T06:00:0{n}.000000000Z", 200.0 + n) for n in range(5)
    ]
    assert len(served.values(f"**/{host}/running")) == 5


def test_influxdbs_own_client_batches_in_the_background(served):
    with InfluxDBClient(url=served.address, token=OPERATOR, org="any", enable_gzip=True) as client:
        options = WriteOptions(batch_size=500, flush_interval=1_000)
        with client.write_api(write_options=options) as write:  # its end flushes
            for n in range(2_000):
                write.write("b", record=line(n, "batched").strip())
    assert len(served.values("**/batched/*")) == 2_000


def test_what_was_answered_survives_a_kill(tmp_path, monkeypatch):
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "admin.token").write_text(ADMIN)
    monkeypatch.setenv("TEST_VIEWER", VIEWER)
    monkeypatch.setenv("TEST_OPERATOR", OPERATOR)
    with RunningPlant(tmp_path) as plant:
        killed = Served(plant, tmp_path)
        for n in range(20):
            assert killed.ask("/api/v2/write?bucket=b&org=o", body=line(n).encode()).status == 204
        plant.process.send_signal(signal.SIGKILL)
        plant.process.wait(10)
    (tmp_path / "store" / "running.json").unlink()  # as stale as it is, it would be taken for the new one's
    with RunningPlant(tmp_path) as plant:
        assert len(Served(plant, tmp_path).values("**/temperature")) == 20


def test_telegraf_writes_gzip_with_its_own_word_for_the_token(served):
    body = gzip.compress("".join(line(n, "telegraf") for n in range(10)).encode())
    headers = {
        "Authorization": f"Token {OPERATOR}", "Content-Encoding": "gzip", "User-Agent": "Telegraf/1.30",
        "Content-Type": "text/plain; charset=utf-8",
    }  # fmt: skip
    answer = served.ask(
        "/api/v2/write?bucket=telegraf&org=plant&precision=ns", None, body=body, headers=headers
    )
    assert (answer.status, answer.body) == (204, b"")
    assert len(served.values("**/telegraf/temperature")) == 10


def test_the_older_interface_and_json_lines(served):
    body = b"oven,site=leon,area=paint,line=line1,host=old temperature=1 1772431200\n"
    assert served.ask("/write?db=x&precision=s", body=body).status == 204
    assert served.values("**/old/*") == [("leon/paint/line1/old/temperature", 1.0)]
    document = {"path": "leon/paint/line1/json/temperature", "ts": T0, "value": 7.5}
    headers = {"Content-Type": "application/json", "Idempotency-Key": "one"}
    for _ in range(2):
        assert served.ask("/api/v1/write", body=json.dumps(document).encode(), headers=headers).status == 204
    assert served.values("**/json/*") == [("leon/paint/line1/json/temperature", 7.5)]


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"nonsense", {}, 400, "line"),
        (b"abc", {"Content-Encoding": "gzip"}, 400, "no gzip"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], {"Content-Encoding": "gzip"}, 400, "cut short"),
        (
            gzip.compress(bytes(80 << 20)),
            {"Content-Encoding": "gzip"},
            413,
            "larger than 67,108,864 bytes when unpacked",
        ),
        (b"x", {"Content-Encoding": "br"}, 415, "gzip and identity can"),
    ],
)
def test_what_can_not_be_taken(served, body, headers, status, says):
    headers = {"Content-Type": "text/plain", **headers}
    answer = served.ask("/api/v2/write?bucket=b", body=body, headers=headers)
    assert answer.status == status
    assert says in answer.json()["message"]
    ours = served.ask("/api/v1/write", body=body, headers=headers)
    assert ours.status == status
    assert says in ours.json()["detail"]


def test_health_as_influxdb_says_it(served):
    assert served.ask("/health").json()["status"] == "pass"
    assert served.ask("/ping").status == 204


# --- tokens ----------------------------------------------------------------------------------------------


def test_a_token_is_needed(served):
    assert served.ask("/livez", None).status == 200
    assert served.ask("/readyz", None).status == 200
    for path in ("/", "/metrics", "/docs", "/openapi.json", "/api/v1/status", "/prometheus/api/v1/labels"):
        refused = served.ask(path, None)
        assert (refused.status, refused.json()["code"]) == (401, "unauthorized")
        assert "Basic" in refused.headers["WWW-Authenticate"]
        assert served.ask(path, VIEWER[:-1]).status == 401
        assert served.ask(path, VIEWER).status == 200


def test_roles(served):
    assert served.ask("/api/v2/write", VIEWER, body=line(0).encode()).status == 403
    refused = served.ask("/api/v1/adapters/telegraf/pause", VIEWER, body=b"")
    assert "needs the token of an operator" in refused.json()["detail"]
    assert served.ask("/api/v1/config?dry_run=true", OPERATOR, method="PUT", body=b"{}").status == 403
    assert served.ask("/api/v1/config?dry_run=true", ADMIN, method="PUT", body=b"{}").status != 403
    refused = served.ask("/api/v1/config?dry_run=true", OPERATOR, method="PUT", body=b"{}")
    assert "an admin, not of an operator" in refused.json()["detail"]
    # With tokens any host name will do: who knows the token has not been lured here.
    assert served.ask("/api/v1/status", VIEWER, headers={"Host": "plant.example"}).status == 200
    other = served.ask(
        "/api/v1/adapters/telegraf/pause", ADMIN, body=b"", headers={"Origin": "http://evil.example"}
    )
    assert (other.status, other.json()["code"]) == (403, "forbidden")


def test_changes_are_written_down(served):
    served.ask("/api/v1/adapters/telegraf/explode", OPERATOR, body=b"")
    served.ask("/api/v1/rejects/replay?why=test", ADMIN, body=b"{}")
    lines = [json.loads(text) for text in (served.folder / "store" / "audit.jsonl").read_text().splitlines()]
    assert all("/receive/" not in one["path"] for one in lines)
    (replay,) = [one for one in lines if one["path"].startswith("/api/v1/rejects/replay")]
    assert replay["actor"] == "admin at 127.0.0.1"
    assert replay["method"] == "POST"
    assert replay["ts"].endswith("Z")
