import psutil
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from headrace.core.disk import LocalDisk
from headrace.core.errors import StorageError
from headrace.metrics.exposition import Metrics
from headrace.metrics.process import measure_process, resident_bytes


def values(metrics):
    return {s.name: s.value for f in text_string_to_metric_families(metrics.expose()) for s in f.samples}


def test_memory_is_what_the_system_says():
    assert abs(resident_bytes() - psutil.Process().memory_info().rss) < 32_000_000


def test_what_the_process_uses_is_read_at_each_scrape(tmp_path):
    metrics = Metrics()
    measure_process(metrics, "0.1.0", LocalDisk(tmp_path))
    first = values(metrics)
    sum(range(2_000_000))
    second = values(metrics)
    assert first["headrace_build_info"] == 1
    assert 0 < first["headrace_process_cpu_seconds_total"] < second["headrace_process_cpu_seconds_total"]
    assert first["headrace_process_resident_memory_bytes"] > 1_000_000
    assert first["headrace_disk_free_bytes"] > 0


def test_a_disk_that_does_not_answer_has_no_space(tmp_path, monkeypatch):
    disk = LocalDisk(tmp_path)

    def gone():
        raise StorageError("can't look at the store")

    monkeypatch.setattr(disk, "free_bytes", gone)
    metrics = Metrics()
    measure_process(metrics, "0.1.0", disk)
    assert values(metrics)["headrace_disk_free_bytes"] == 0


def test_a_process_without_a_store():
    metrics = Metrics()
    measure_process(metrics, "0.1.0")
    assert "headrace_disk_free_bytes" not in values(metrics)
