"""What the API and the command line are told about an adapter."""

import numpy as np

from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics
from headrace.core.clock import NO_TIME, NS
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.ingest.signal_health import SignalAges
from headrace.runtime.diagnostics import TagsWish, adapter_report, carried, tags_report, versions_of

NOW_NS = 1_767_225_600 * NS


def test_ages_are_told_where_the_time_is_known():
    away = DeviceDiagnostics(
        "a/d", AdapterState.BACKOFF, "silent", NOW_NS - 90 * NS, NOW_NS + 5 * NS, clock_skew_ns=-NS // 4
    )  # fmt: skip
    fresh = DeviceDiagnostics("a/e", AdapterState.STARTING)
    one = AdapterDiagnostics(
        "ovens", "modbus", AdapterState.DEGRADED, devices=(away, fresh), n_unacknowledged=3,
        unacknowledged_ns=NOW_NS - NS, rejects_by_code=(("malformed", 2),), config_hash="ab12",
    )  # fmt: skip
    found = adapter_report(one, NOW_NS)
    assert (found["devices"][0]["last_good_age_s"], found["devices"][0]["next_retry_in_s"]) == (90.0, 5.0)
    assert found["devices"][0]["clock_skew_s"] == -0.25
    assert [found["devices"][1][key] for key in ("last_good_age_s", "next_retry_in_s", "clock_skew_s")] == [
        None
    ] * 3
    assert (found["unacknowledged"], found["unacknowledged_since"][:19]) == (3, "2025-12-31T23:59:59")
    assert (found["rejects_by_code"], found["config_hash"]) == ({"malformed": 2}, "ab12")
    assert adapter_report(one)["devices"][0]["last_good_age_s"] is None
    assert adapter_report(AdapterDiagnostics("x", "x", AdapterState.STOPPED))["unacknowledged_since"] is None


def test_the_circuit_of_a_device_is_told():
    device = DeviceDiagnostics("a/d", AdapterState.BACKOFF, next_retry_ns=NOW_NS + 1)
    one = AdapterDiagnostics("ovens", "modbus", AdapterState.BACKOFF, devices=(device,))
    assert adapter_report(one, NOW_NS)["devices"][0]["circuit"] == "open"


def test_tags_are_told_the_longest_silent_first_with_what_their_device_says():
    directory = SensorDirectory()
    slot = directory.define("a/d", Layout("f64", (Column("t"), Column("p"), Column("q"))))
    slots, columns = np.full(3, slot, np.uint32), np.arange(3, dtype=np.uint16)
    last_ns = np.array([NOW_NS - NS, NOW_NS - 60 * NS, NO_TIME])
    ages = SignalAges(slots, columns, last_ns, NOW_NS - 100 * NS)
    devices = [DeviceDiagnostics("a/d", AdapterState.CONNECTED, problems=(("q", "illegal data address"),))]
    found = tags_report(directory, ages, devices, NOW_NS, TagsWish(30 * NS))
    assert (found["tags"], found["stale"], found["stale_after_s"]) == (3, 2, 30.0)
    assert [(one["path"], one["last_good_age_s"], one["stale"], one["problem"]) for one in found["shown"]] == [
        ("a/d/q", None, True, "illegal data address"), ("a/d/p", 60.0, True, ""), ("a/d/t", 1.0, False, ""),
    ]  # fmt: skip
    found = tags_report(directory, ages, devices, NOW_NS, TagsWish(30 * NS, only_stale=True, limit=1))
    assert [one["path"] for one in found["shown"]] == ["a/d/q"]


def test_versions_are_of_what_the_manifest_names():
    assert set(versions_of("mqtt")) == {"gmqtt", "msgspec"}
    assert versions_of("modbus") == versions_of("nobody") == {}


def test_counts_go_on_over_instances():
    def one(n):
        device = DeviceDiagnostics("a/d", AdapterState.CONNECTED, n_polls=n, n_polls_late=n, clock_skew_ns=n)
        return AdapterDiagnostics(
            "x", "x", AdapterState.CONNECTED, devices=(device,), n_connects=n, n_gaps=n, n_out_of_order=n,
            normalise_ns=n, n_unacknowledged=n, unacknowledged_ns=NO_TIME,
        )  # fmt: skip

    found = carried(one(2), one(3))
    assert (found.n_connects, found.n_gaps, found.n_out_of_order, found.normalise_ns) == (5, 5, 5, 5)
    assert (found.n_unacknowledged, found.devices[0].n_polls, found.devices[0].n_polls_late) == (3, 5, 5)
    assert found.devices[0].clock_skew_ns == 3
