import re

from headrace.metrics import catalog
from headrace.metrics.catalog import CATALOG, Metric, MetricKind, catalog_page


def test_every_metric_is_in_the_catalogue_once():
    declared = [m for m in vars(catalog).values() if isinstance(m, Metric)]
    assert declared == list(CATALOG)
    assert len({m.name for m in CATALOG}) == len(CATALOG)


def test_names_and_units():
    for metric in CATALOG:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name), metric
        assert metric.unit in ("", "seconds", "bytes", "ratio")
        assert not metric.unit or metric.name.endswith(f"_{metric.unit}"), metric
        assert not metric.name.endswith(("_total", "_info")), metric
        assert metric.meaning.endswith("."), metric
        assert (metric.kind is MetricKind.HISTOGRAM) == bool(metric.buckets)
        assert list(metric.buckets) == sorted(metric.buckets)


def test_there_is_never_a_label_per_sensor():
    assert {label for m in CATALOG for label in m.labels} == {
        "adapter", "circuit", "code", "device", "part", "queue", "stage", "state", "tier", "version",
    }  # fmt: skip


def test_the_page_names_every_metric_as_it_is_scraped():
    page = catalog_page()
    for metric in CATALOG:
        assert f"| `{metric.sample}` | {metric.kind} |" in page
    assert "`headrace_samples_received_total`" in page
    assert "`headrace_build_info`" in page
