"""The public port over a real plant: queries in every form, sensors, the tree, events, problems."""

import csv
import io
import json
import urllib.parse
import urllib.request

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.api_client import ask
from tests.integration.test_cli import N_SECONDS, SPAN, RunningPlant, write_plant

FROM, TO = SPAN[1], SPAN[3]
INLET = "leon/paint/line1/oven1/inlet"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    write_plant(folder)
    with RunningPlant(folder) as plant:
        at = plant.address(folder)
        stored = lambda: ask(at, "/api/v1/status").json()["samples"]["stored"]  # noqa: E731
        plant.wait_for(folder, lambda: stored() == 2 * N_SECONDS)
        yield at


def query(address, accept="application/json", **parameters):
    asked = urllib.parse.urlencode({"from": FROM, "to": TO, **parameters})
    return ask(address, f"/api/v1/query?{asked}", headers={"Accept": accept})


def test_rows_as_json(address):
    answer = query(address, pattern="**/inlet", limit=3)
    assert answer.headers["Content-Type"] == "application/json"
    found = answer.json()
    assert found["rows"][0] == {
        "path": INLET, "ts": "2026-03-02T06:00:00.000000000Z", "value": 180.0, "quality": "good",
    }  # fmt: skip
    assert len(found["rows"]) == 3
    assert found["truncated"]
    assert found["missing"] == []
    assert found["sources"]["engine_frames"] >= 1


def test_an_answer_is_continued_by_its_cursor(address):
    rows, cursor = [], None
    for _ in range(20):
        more = {"cursor": cursor} if cursor else {"pattern": "**", "agg": "mean", "every": "10s"}
        found = query(address, limit=5, **more).json()
        rows += found["rows"]
        cursor = found["cursor"]
        if cursor is None:
            break
    assert rows == query(address, pattern="**", agg="mean", every="10s").json()["rows"]
    assert len(rows) == 2 * N_SECONDS // 10


@pytest.mark.parametrize("agg", [{}, {"agg": "mean,count", "every": "30s"}, {"agg": "max"}])
def test_every_form_has_the_same_rows(address, agg):
    want = query(address, pattern="**", **agg).json()["rows"]
    names = [name for name in want[0] if name not in ("path", "ts", "quality")]

    def same(path, ts, values):
        return [(one["path"], one["ts"], *(one[n] for n in names)) for one in want] == list(
            zip(path, ts, *values, strict=True)
        )

    arrow = query(address, "application/vnd.apache.arrow.stream", pattern="**", **agg)
    table = pa.ipc.open_stream(arrow.body).read_all()
    parquet = query(address, "application/vnd.apache.parquet", pattern="**", **agg)
    stored = pq.read_table(io.BytesIO(parquet.body))
    for found in (table, stored):
        ts = [f"{str(t)[:10]}T{str(t)[11:19]}.000000000Z" for t in found["ts"].to_pylist()]
        assert same(found["path"].to_pylist(), ts, [found[n].to_pylist() for n in names])
    lines = list(csv.DictReader(io.StringIO(query(address, "text/csv", pattern="**", **agg).text)))
    assert [line["path"] for line in lines] == [one["path"] for one in want]
    assert [float(line[names[0]]) for line in lines] == [one[names[0]] for one in want]


def test_a_limited_table_says_how_it_goes_on(address):
    answer = query(address, "text/csv", pattern="**", limit=2)
    assert answer.text.count("\n") == 3
    assert answer.headers["Headrace-Truncated"] == "true"
    rest = query(address, "text/csv", cursor=answer.headers["Headrace-Cursor"])
    assert rest.text.count("\n") == 2 * N_SECONDS - 2 + 1
    assert rest.headers["Headrace-Truncated"] == "false"


def test_an_empty_answer_still_has_its_columns(address):
    found = ask(
        address, "/api/v1/query?pattern=**&from=2020-01-01&to=2020-01-02", headers={"Accept": "text/csv"}
    )
    assert list(csv.reader(io.StringIO(found.text))) == [["path", "ts", "value", "quality", "text"]]
    assert ask(address, "/api/v1/query?pattern=**&from=2020-01-01&to=2020-01-02").json()["rows"] == []


@pytest.mark.parametrize(
    ("path", "status", "code", "says"),
    [
        ("/api/v1/query?pattern=**", 400, "bad-request", "say which span"),
        ("/api/v1/query?last=1h", 400, "bad-request", "say which sensors"),
        ("/api/v1/query?pattern=**/inlett&last=1h", 404, "not-found", "the nearest path is"),
        ("/api/v1/query?pattern=**&last=1", 400, "bad-request", "is not a duration"),
        ("/api/v1/query?pattern=**&last=1h&agg=men", 400, "bad-request", "did you mean 'mean'"),
        ("/api/v1/query?pattern=**&last=1h&limit=0", 400, "bad-request", "limit"),
        ("/api/v1/query?cursor=abc", 400, "bad-request", "the cursor is none"),
        ("/api/v1/query?pattern={a&last=1h", 400, "bad-request", "braces do not match"),
        ("/api/v1/sensors?pattern={a", 400, "bad-request", "braces do not match"),
        ("/api/v1/sensors/xyz", 400, "bad-request", "id"),
        ("/api/v1/sensors/0000000000000000", 404, "not-found", "no sensor has the id 0000000000000000"),
        ("/api/v1/nothing", 404, "not-found", "nothing is at /api/v1/nothing"),
    ],
)
def test_problems_say_what_is_wrong(address, path, status, code, says):
    answer = ask(address, path)
    assert answer.headers["Content-Type"] == "application/problem+json"
    found = answer.json()
    assert (answer.status, found["status"], found["code"]) == (status, status, code)
    assert says in found["detail"]


def test_a_form_that_there_is_not(address):
    answer = query(address, "image/png", pattern="**")
    assert (answer.status, answer.json()["code"]) == (406, "not-acceptable")


def test_sensors_page_by_page(address):
    first = ask(address, "/api/v1/sensors?limit=1").json()
    assert first["sensors"][0]["path"] == INLET
    assert first["sensors"][0]["type"] == "f64"
    rest = ask(address, f"/api/v1/sensors?cursor={first['cursor']}").json()
    assert [one["path"] for one in rest["sensors"]] == ["leon/paint/line1/oven1/outlet"]
    assert rest["cursor"] is None
    one = ask(address, f"/api/v1/sensors/{first['sensors'][0]['id']}").json()
    assert one == first["sensors"][0]


def test_the_tree_level_by_level(address):
    top = ask(address, "/api/v1/tree").json()
    assert top["children"] == [{"name": "leon", "path": "leon", "sensors": 2, "is_sensor": False}]
    below = ask(address, "/api/v1/tree?path=leon/paint/line1/oven1").json()["children"]
    assert [(one["name"], one["is_sensor"]) for one in below] == [("inlet", True), ("outlet", True)]


def test_events_are_sent(address):
    with urllib.request.urlopen(address + "/api/v1/events", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = []
        while not lines or not lines[-1].startswith("data:"):
            lines.append(answer.readline().decode().strip())
    assert lines[:2] == [": events", ""]
    assert json.loads(lines[-1].removeprefix("data:"))["kind"] == "adapter.started"


def test_the_documentation_has_every_route_and_asks_nobody_else(address):
    schema = ask(address, "/openapi.json").json()
    page = ask(address, "/docs").text
    for path, methods in schema["paths"].items():
        assert path in page
        for operation in methods.values():
            assert operation.get("description"), path
    assert "<script" not in page
    assert "http://" not in page.replace("http://127.0.0.1:8844", "")
    assert "https://" not in page
