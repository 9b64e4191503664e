import math
import threading
import time

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from headrace.metrics import exposition
from headrace.metrics.catalog import (
    ADAPTER_REQUEST_DURATION,
    BUILD,
    CATALOG,
    JOURNAL_BYTES,
    SAMPLES_IN_FLIGHT,
    SAMPLES_RECEIVED,
    SAMPLES_REJECTED,
    SAMPLES_STORED,
    MetricKind,
)
from headrace.metrics.exposition import Metrics


def scrape(metrics):
    """What a real scraper reads: (sample, labels) → value."""
    return {
        (s.name, *sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(metrics.expose())
        for s in family.samples
    }


def test_nothing_measured_is_an_empty_page():
    assert Metrics().expose() == "# EOF\n"


def test_counters_only_grow():
    metrics = Metrics()
    received = metrics.counter(SAMPLES_RECEIVED, "ovens")
    received.add()
    received.add(4_999)
    assert metrics.counter(SAMPLES_RECEIVED, "ovens") is received
    stored = metrics.counter(SAMPLES_STORED)
    stored.reach(10)
    stored.reach(7)
    assert scrape(metrics) == {
        ("headrace_samples_received_total", ("adapter", "ovens")): 5_000,
        ("headrace_samples_stored_total",): 10,
    }


def test_gauges_come_and_go():
    metrics = Metrics()
    flying = metrics.gauge(SAMPLES_IN_FLIGHT)
    flying.set(5)
    flying.add(-2)
    assert scrape(metrics) == {("headrace_samples_in_flight",): 3}


def test_histograms_count_into_buckets():
    metrics = Metrics()
    took = metrics.histogram(ADAPTER_REQUEST_DURATION, "ovens")
    took.observe(0.001)
    took.observe(0.0011)
    took.observe_many(np.array([0.02, 0.02, 99.0]))
    took.observe_many(np.empty(0))
    found = scrape(metrics)

    def bucket(le):
        return found["headrace_adapter_request_duration_seconds_bucket", ("adapter", "ovens"), ("le", le)]

    assert [bucket(le) for le in ("0.001", "0.003", "0.01", "0.03", "10.0", "+Inf")] == [1, 2, 2, 4, 4, 5]
    assert found["headrace_adapter_request_duration_seconds_count", ("adapter", "ovens")] == 5
    assert found["headrace_adapter_request_duration_seconds_sum", ("adapter", "ovens")] == pytest.approx(
        99.0421
    )


def test_a_histogram_that_somebody_else_counts_is_taken_over():
    metrics = Metrics()
    took = metrics.histogram(ADAPTER_REQUEST_DURATION, "ovens")
    for n in (3, 1):  # the second is of an adapter that began anew
        took.replace((n, *[0] * 8, 1), 0.5)
        found = scrape(metrics)
        assert found["headrace_adapter_request_duration_seconds_count", ("adapter", "ovens")] == n + 1
        assert found["headrace_adapter_request_duration_seconds_sum", ("adapter", "ovens")] == 0.5


def test_facts_are_labels():
    metrics = Metrics()
    metrics.info(BUILD, "0.1.0")
    assert scrape(metrics) == {("headrace_build_info", ("version", "0.1.0")): 1}


def test_a_scraper_reads_the_whole_catalogue():
    metrics = Metrics()
    for metric in CATALOG:
        make = {
            MetricKind.COUNTER: metrics.counter, MetricKind.GAUGE: metrics.gauge,
            MetricKind.HISTOGRAM: metrics.histogram, MetricKind.INFO: metrics.info,
        }[metric.kind]  # fmt: skip
        make(metric, *(f"some {label}" for label in metric.labels))
    families = {f.name: f for f in text_string_to_metric_families(metrics.expose())}
    assert len(families) == len(CATALOG)
    for metric in CATALOG:
        family = families[f"headrace_{metric.name}"]
        assert (family.type, family.unit, family.documentation) == (metric.kind, metric.unit, metric.meaning)


@pytest.mark.parametrize("text", ['say "hi"', "back\\slash", "two\nlines", "é{}=,"])
def test_label_values_may_be_anything(text):
    metrics = Metrics()
    metrics.counter(SAMPLES_RECEIVED, text).add(3)
    assert scrape(metrics) == {("headrace_samples_received_total", ("adapter", text)): 3}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"), (2.5, "2.5"), (2**60 + 1, str(2**60 + 1)), (math.inf, "+Inf"), (-math.inf, "-Inf"),
        (math.nan, "NaN"), (np.int64(7), "7"), (np.float64(0.1), "0.1"),
    ],
)  # fmt: skip
def test_numbers_are_written_exactly(value, text):
    metrics = Metrics()
    metrics.gauge(JOURNAL_BYTES).set(value)
    assert f"headrace_journal_bytes {text}\n" in metrics.expose()
    scrape(metrics)


def test_values_that_others_keep_are_read_when_asked_for():
    metrics, sizes = Metrics(), iter([10, 20])
    metrics.before_scrape(lambda: metrics.gauge(JOURNAL_BYTES).set(next(sizes)))
    assert scrape(metrics) == {("headrace_journal_bytes",): 10}
    assert scrape(metrics) == {("headrace_journal_bytes",): 20}


def test_label_sets_are_bounded(monkeypatch):
    monkeypatch.setattr(exposition, "MAX_CELLS", 2)
    metrics = Metrics()
    for name in ("a", "b", "c", "d", "a"):
        metrics.counter(SAMPLES_RECEIVED, name).add()
    assert {k[1][1]: v for k, v in scrape(metrics).items()} == {"a": 2, "b": 1, "other": 2}


def test_a_metric_is_used_as_it_is_declared():
    metrics = Metrics()
    with pytest.raises(ValueError, match="samples_rejected is a counter with labels"):
        metrics.counter(SAMPLES_REJECTED, "ovens")
    with pytest.raises(ValueError, match="samples_stored is a counter with labels .*, not a gauge"):
        metrics.gauge(SAMPLES_STORED)


def test_no_update_is_lost_between_threads():
    metrics = Metrics()
    stored, flying = metrics.counter(SAMPLES_STORED), metrics.gauge(SAMPLES_IN_FLIGHT)
    took = metrics.histogram(ADAPTER_REQUEST_DURATION, "ovens")

    def work():
        for _ in range(5_000):
            stored.add()
            flying.add(1)
            took.observe(0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        scrape(metrics)
    assert (stored.value, flying.value, sum(took.counts)) == (20_000, 20_000, 20_000)


def test_an_update_costs_less_than_a_microsecond():
    metrics = Metrics()
    stored, took = metrics.counter(SAMPLES_STORED), metrics.histogram(ADAPTER_REQUEST_DURATION, "ovens")
    n = 20_000
    best_ns = [math.inf, math.inf]
    for _ in range(5):
        for i, update in enumerate((stored.add, lambda: took.observe(0.5))):
            before = time.thread_time_ns()
            for _ in range(n):
                update()
            best_ns[i] = min(best_ns[i], (time.thread_time_ns() - before) / n)
    assert best_ns[0] < 1_000
    assert best_ns[1] < 1_500
