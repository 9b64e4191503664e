"""Every route against its own description: schemathesis makes requests of all kinds, right ones and wrong ones."""

import json
import urllib.request

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.integration.test_cli import RunningPlant

schemathesis.serializer.alias("application/x-protobuf", "application/octet-stream")

PLANT = """
version = 1
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[adapters.log]
protocol = "replay"
files = "oven1.csv"
path = "leon/paint/line1/oven1/{key}"
time = "timestamp"
[adapters.pushed]
protocol = "http"
"""
STREAMS = ("/api/v1/events", "/api/v1/adapters/{name}/tail")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    (folder / "plant.toml").write_text(PLANT)
    (folder / "oven1.csv").write_text(
        "timestamp,inlet\n2026-03-02T06:00:00Z,180.5\n2026-03-02T06:00:01Z,181\n"
    )
    with RunningPlant(folder) as plant:
        yield plant, plant.address(folder)


def test_no_request_brings_it_down_and_answers_are_as_described(served):
    plant, address = served
    with urllib.request.urlopen(address + "/openapi.json", timeout=30) as answer:
        document = json.loads(answer.read())
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig())
    schema.config.update(base_url=address)
    seen, troubles = {}, []
    settings = hypothesis.settings(
        max_examples=8, deadline=None, database=None, phases=[Phase.explicit, Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in STREAMS:
            continue

        codes = seen.setdefault(operation.path, [])

        @hypothesis.given(case=operation.as_strategy())
        @settings
        def ask(case):
            response = case.call(timeout=30)
            codes.append(response.status_code)  # noqa: B023
            # What this engine can't, or not now, is an answer too.
            assert response.status_code < 500 or response.status_code in (501, 503), response.text
            case.validate_response(response, excluded_checks=[not_a_server_error, positive_data_acceptance])

        try:
            ask()
        except (FailureGroup, AssertionError) as e:  # every route's trouble at once
            troubles.append(f"{operation.method} {operation.path}: {getattr(e, 'exceptions', [e])}")
    assert not troubles, "\n\n".join(troubles)
    assert plant.process.poll() is None
    with urllib.request.urlopen(address + "/livez", timeout=30) as answer:
        assert answer.read() == b"ok\n"
    assert len(seen) > 20
    assert any(200 in codes for codes in seen.values())
