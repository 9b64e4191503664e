"""What the page says of a plant."""

import json

import pytest

from headrace.api.web import plant_facts
from headrace.api.web.plant_facts import PlantSight
from headrace.core.clock import NS
from headrace.core.spans import parse_time_ns
from headrace.runtime.times import rfc3339
from headrace.store.view import TierSize

NOW = 1_795_665_281 * NS


def adapter(name="oven", state="connected", reason="", last_ns=NOW, **more):
    return {
        "name": name, "protocol": "modbus", "state": state, "reason": reason, "sensors": 1_200, "devices": 3,
        "devices_connected": 3, "last_good": rfc3339(last_ns), "samples": 10_000, "rejects": 0,
        "latency_s": {"p50": 0.002, "p99": 0.05}, **more,
    }  # fmt: skip


def device(path, state="connected", reason="", retry_s=None):
    return {
        "path": path, "state": state, "reason": reason, "last_good": rfc3339(NOW - 90 * NS),
        "next_retry": None if retry_s is None else rfc3339(NOW + retry_s * NS), "requests": 12_345, "errors": 2,
        "timeouts": 0, "polls_skipped": 1,
    }  # fmt: skip


def status(**more):
    return {
        "state": "running", "failure": "", "sensors": 2_000, "lag_s": 0.4, "rate": {"samples_per_s": 1_836.4},
        "samples": {"received": 1_000_000, "rejected": 0, "in_flight": 321}, "stages": {"decode": 30.0, "journal": 10.0},
        "store": {"free_bytes": 82_000_000_000}, "journal": {"size_bytes": 4_000_000, "refusal": ""}, **more,
    }  # fmt: skip


TIERS = (TierSize("hot", 1_000_000, 1_000_000, 1), TierSize("warm", 0, 0, 0))


def sight(**more):
    return PlantSight(
        NOW, **{"status": status(), "adapters": [adapter()], "tiers": TIERS, "n_sensors": 2_000, **more}
    )


def by_label(shown):
    return {one["label"]: one for one in plant_facts.figures(shown)}


def test_figures_of_a_plant_that_runs():
    found = by_label(sight(rates=(1.0, 2.0)))
    assert (found["Throughput"]["value"], found["Throughput"]["unit"]) == ("1,836", "/s")
    assert found["Throughput"]["spark"] == [1.0, 2.0]
    assert (found["Lag"]["value"], found["Lag"]["unit"], found["Lag"]["tone"]) == ("400", "ms", "")
    assert (found["Compression"]["value"], found["Compression"]["hint"]) == ("16.0×", "1.00 B a sample")
    assert (found["On disk"]["value"], found["On disk"]["unit"]) == ("1", "MB")
    assert found["Sensors"]["hint"] == "3 of 3 up"
    assert (found["Rejected"]["value"], found["Rejected"]["tone"]) == ("0", "")


def test_figures_that_deserve_a_look_say_so():
    late = status(lag_s=12.0, samples={"received": 1_000, "rejected": 25, "in_flight": 0})
    found = by_label(sight(status=late))
    assert found["Lag"]["tone"] == "warn"
    assert (found["Rejected"]["tone"], found["Rejected"]["hint"]) == ("warn", "2.5% of all")
    assert by_label(sight(status=status(lag_s=90.0)))["Lag"]["tone"] == "bad"


def test_without_engine_or_store_figures_are_dashes():
    found = by_label(PlantSight(NOW))
    assert {one["value"] for label, one in found.items() if label != "On disk"} == {"–"}
    known = by_label(sight(status=None))
    assert (known["Sensors"]["value"], known["Compression"]["value"]) == ("2,000", "16.0×")


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (12_345, "12.3 k"),
        (999_999, "1,000 k"),
        (4_567_890, "4.57 M"),
        (3e9, "3 G"),
    ],
)
def test_counts_are_short(n, text):
    assert plant_facts.short_count(n) == text


def test_the_headline_says_what_is_wrong():
    assert plant_facts.headline(sight())["tone"] == "good"
    assert plant_facts.headline(sight(status=status(state="starting")))["tone"] == "wait"
    full = status(journal={"size_bytes": 1, "refusal": "the disk is full"})
    assert plant_facts.headline(sight(status=full)) == {
        "state": "running", "tone": "warn", "banner": "the disk is full", "detail": "",
    }  # fmt: skip
    away = plant_facts.headline(sight(status=None, away="it does not answer", away_s=12.0))
    assert (away["state"], away["tone"], away["detail"]) == ("no engine", "bad", "it does not answer")
    assert "has not answered for 12.0 s" in away["banner"]


def test_lights_put_trouble_first_and_say_why():
    sick = adapter("press", "degraded")
    devices = {
        "press": {
            "devices": [device("p1"), device("p2", "backoff", "no route", 4), device("p3", "failed", "x", 9)]
        }
    }
    found = plant_facts.lights(
        sight(
            adapters=[adapter(), sick, adapter("gone", "failed", "no such host", NOW - 3_700 * NS)],
            troubles=devices,
        )
    )
    assert [(one["name"], one["tone"]) for one in found] == [
        ("gone", "bad"),
        ("press", "warn"),
        ("oven", "good"),
    ]
    assert (found[0]["reason"], found[0]["age"]) == ("no such host", "1 h 2 min ago")
    assert (found[1]["reason"], found[1]["retry"]) == ("no route", "retry in 4 s")
    assert (found[2]["age"], found[2]["devices"], found[2]["reason"]) == ("now", "3/3", "")
    (unknown,) = plant_facts.lights(sight(status=None))
    assert (unknown["state"], unknown["tone"]) == ("unknown", "off")


def test_ages_and_waits():
    assert plant_facts.age_of(None, NOW) == "never"
    assert plant_facts.age_of(rfc3339(NOW - 90 * NS), NOW) == "1 min 30 s ago"
    assert plant_facts.wait_until(rfc3339(NOW - NS), NOW) == "retrying"
    assert parse_time_ns(rfc3339(NOW), None) == NOW


def test_devices_are_filtered_bounded_and_those_in_trouble_come_first():
    many = [device(f"line1/d{n}") for n in range(300)] + [device("line2/sick", "backoff", "timed out", 3)]
    found = plant_facts.device_rows({**adapter(), "devices": many}, "", NOW)
    assert found["rows"][0]["path"] == "line2/sick"
    assert (found["rows"][0]["retry"], found["rows"][0]["requests"]) == ("retry in 3 s", "12.3 k")
    assert (len(found["rows"]), found["shown"], found["total"]) == (200, "200 of 301", "301")
    assert plant_facts.device_rows({**adapter(), "devices": many}, "TIMED", NOW)["shown"] == "1"


def test_storage_by_tier_and_cpu_by_stage():
    found = plant_facts.storage(sight())
    assert [(one["name"], one["size"], one["ratio"]) for one in found["tiers"]] == [
        ("journal", "4 MB", "–"), ("hot", "1 MB", "16.0×"), ("warm", "0 B", "–"),
    ]  # fmt: skip
    assert [one["share"] for one in found["tiers"]] == [80, 20, 0]
    assert [(one["name"], one["share"]) for one in found["stages"]] == [("decode", 75.0), ("journal", 25.0)]
    assert plant_facts.storage(PlantSight(NOW))["stages"] == []


def test_rejects_as_kept_or_only_counted():
    kept = {
        "counts": [
            {"adapter": "a", "code": "bad-time", "samples": 3, "last": rfc3339(NOW - 5 * NS)},
            {"adapter": "a", "code": "malformed", "samples": 70, "last": rfc3339(NOW)},
        ],
        "rejects": [
            {
                "adapter": "a",
                "code": "bad-time",
                "source": "t/x",
                "detail": "no time",
                "arrived": rfc3339(NOW),
            }
        ],
    }
    found = plant_facts.refused(sight(rejects=kept))
    assert [(one["code"], one["n"], one["age"]) for one in found["counts"]] == [
        ("malformed", "70", "now"), ("bad-time", "3", "5.0 s ago"),
    ]  # fmt: skip
    assert found["newest"][0]["detail"] == "no time"
    text = 'x 1\nheadrace_samples_rejected_total{adapter="b",code="malformed"} 7\nheadrace_samples_rejected_total{adapter="b",code="bad-time"} 0\n'
    counted = plant_facts.refused(sight(rejects=plant_facts.rejects_of_metrics(text)))
    assert [(one["adapter"], one["code"], one["n"]) for one in counted["counts"]] == [("b", "malformed", "7")]


def test_everything_shown_is_json():
    shown = sight()
    json.dumps(
        [
            plant_facts.figures(shown),
            plant_facts.lights(shown),
            plant_facts.storage(shown),
            plant_facts.refused(shown),
        ]
    )
