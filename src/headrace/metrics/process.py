"""What this process uses: CPU time, resident memory, disk space. Read when a scraper asks."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.core.clock import cpu_ns
from headrace.core.disk import Disk
from headrace.core.errors import StorageError
from headrace.metrics.catalog import BUILD, DISK_FREE_BYTES, PROCESS_CPU, PROCESS_MEMORY
from headrace.metrics.exposition import Metrics


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure_process(metrics: Metrics, version: str, disk: Disk | None = None) -> None:
    """Have `metrics` tell what this process uses, and the free space of `disk`, at each scrape."""
    cpu = metrics.counter(PROCESS_CPU)
    memory = metrics.gauge(PROCESS_MEMORY)
    metrics.info(BUILD, version)

    def read() -> None:
        cpu.reach(cpu_ns() / 1e9)
        memory.set(resident_bytes())
        if disk is not None:
            try:
                metrics.gauge(DISK_FREE_BYTES).set(disk.free_bytes())
            except StorageError:
                # A disk that does not answer has no free space; its own error is told where it is written to.
                metrics.gauge(DISK_FREE_BYTES).set(0)

    metrics.before_scrape(read)
