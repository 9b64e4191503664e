"""What the API and the command line are told about an adapter."""

from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics
from headrace.core.clock import NO_TIME, NS
from headrace.runtime.diagnostics import adapter_report, carried, versions_of

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
