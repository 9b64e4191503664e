"""The shipped Grafana dashboard: its variables and queries, asked as Grafana asks them."""

import json
import re
import urllib.parse
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.integration.api_client import ask
from tests.integration.test_cli import N_SECONDS, RunningPlant, write_plant

from headrace.metrics.catalog import CATALOG, PREFIX

DASHBOARD = json.loads((Path(__file__).parents[2] / "deploy/grafana/headrace.json").read_text())
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VARIABLES = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
PANELS = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
TARGETS = [
    pytest.param(target, id=f"{panel['title']}-{target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
T0 = 1_772_431_200
"""The first row of the plant's file, 2026-03-02T06:00:00Z."""
LEVELS = ["site", "area", "line", "device"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    write_plant(folder)
    with RunningPlant(folder) as plant:
        at = plant.address(folder)
        plant.wait_for(folder, lambda: ask(at, "/api/v1/status").json()["samples"]["stored"] == 2 * N_SECONDS)
        yield at


def filled(text, values):
    """A query with the values of variables in it; Grafana's own among them."""
    own = {"__interval": "10s", "__rate_interval": "1m0s", "__range": "3600s"}
    return re.sub(r"\$(\w+)", lambda found: {**own, **values}[found[1]], text)


def post(address, path, **fields):
    """What is found, asked with a form as Grafana's source does."""
    body = urllib.parse.urlencode(fields, doseq=True).encode()
    answer = ask(address, f"/prometheus/api/v1/{path}", body=body, headers=FORM)
    found = answer.json()
    assert (answer.status, found["status"]) == (200, "success"), found
    return found["data"]


def offered(address, variable, values):
    """What a variable's list shows: Grafana asks for a label's values, with the selector as match[]."""
    inner = re.fullmatch(r"label_values\((?:(.+), )?(\w+)\)", variable["definition"])
    match = {"match[]": filled(inner[1], values)} if inner[1] else {}
    asked = urllib.parse.urlencode(match)
    answer = ask(address, f"/prometheus/api/v1/label/{inner[2]}/values?{asked}")
    assert answer.status == 200, answer.text
    return answer.json()["data"]


@pytest.mark.parametrize("chosen", ["all", "some"])
def test_each_variable_narrows_the_next(address, chosen):
    values = {}
    for variable in VARIABLES:
        found = offered(address, variable, values)
        assert found
        every = variable.get("allValue")
        # Of several that are chosen, Grafana makes one expression.
        values[variable["name"]] = every if chosen == "all" and every else f"({found[0]}|none)"
    assert list(values) == [*LEVELS, "signal"]
    assert found == ["inlet", "outlet"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("line", [".*", "(line1|line2)"])
def test_each_query_is_answered(address, target, line):
    values = {"site": ".+", "area": ".*", "line": line, "device": "oven1", "signal": "inlet"}
    query = filled(target["expr"], values)
    if target["instant"]:
        found = post(address, "query", query=query, time=T0 + 60)
    else:
        found = post(address, "query_range", query=query, start=T0 + 10, end=T0 + 110, step=10)
    if "$signal" in target["expr"]:
        assert len(found["result"]) == 1
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert label in found["result"][0]["metric"]
        if not target["instant"]:
            assert len(found["result"][0]["values"]) == 11


@pytest.mark.parametrize("target", TARGETS)
def test_metrics_of_the_plant_are_those_that_it_has(target):
    known = {one.sample: one for one in CATALOG}
    named = re.findall(rf"\b{PREFIX}\w+", target["expr"])
    assert bool(named) == ("$signal" not in target["expr"])
    assert target["datasource"]["uid"] == ("${metrics}" if named else "${plant}")
    for name in named:
        assert name in known
        labels = {*re.findall(r"{{(\w+)}}", target["legendFormat"])}
        assert labels <= {*known[name].labels}
        assert name.endswith("_total") == ("rate(" in target["expr"] or "increase(" in target["expr"])


def test_a_scraper_can_read_the_plants_metrics(address):
    families = text_string_to_metric_families(ask(address, "/metrics").text)
    served = {s.name: (s.labels, s.value) for family in families for s in family.samples}
    # A file that has been played to its end is not connected any more.
    assert served["headrace_device_up"] == ({"adapter": "log", "device": "oven1.csv"}, 0)
    # What is not there on a plant without rejects: the panels say 0 for it.
    named = re.findall(rf"\b{PREFIX}\w+", json.dumps([panel["targets"] for panel in PANELS]))
    assert [n for n in dict.fromkeys(named) if n not in served] == ["headrace_samples_rejected_total"]


def test_panels_do_not_cover_each_other():
    ids = [one["id"] for one in DASHBOARD["panels"]]
    assert len({*ids}) == len(ids)
    taken = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in (
            (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
        ):
            assert taken.setdefault(cell, panel["id"]) == panel["id"]
