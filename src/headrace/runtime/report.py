"""What a running plant says of itself: status, summary, metrics. Read when somebody asks, kept nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from headrace.adapters.base import AdapterDiagnostics, AdapterState, Circuit
from headrace.core.clock import NO_TIME, NS, Clock, monotonic_ns
from headrace.core.disk import Disk, LocalDisk
from headrace.core.errors import HeadraceError, StorageError
from headrace.ingest.intake import Intake
from headrace.metrics import catalog
from headrace.metrics.catalog import Metric
from headrace.metrics.exposition import Metrics
from headrace.metrics.process import measure_process
from headrace.runtime.diagnostics import adapter_summary
from headrace.runtime.host import Host
from headrace.runtime.phrases import RAW_BYTES
from headrace.runtime.times import rfc3339
from headrace.runtime.version import version
from headrace.store.disks import url_of

_RATE_NS = 2 * NS
_TAGS_PAUSE = 20


class Report:
    """Reads the counters of a plant's parts.

    Parameters
    ----------
    disk : the store's folder. store_disk : all of the store.
    """

    def __init__(self, metrics: Metrics, clock: Clock, disk: LocalDisk, store_disk: Disk) -> None:
        self._metrics, self._clock, self._disk = metrics, clock, disk
        self._url = url_of(store_disk)
        self._host: Host | None = None
        self._started_ns = NO_TIME
        self._rate = (0, 0, 0.0)
        self._devices: dict[tuple[str, str], None] = {}
        self._names: set[str] = set()
        self._tags_due_ns = 0

    def watch(
        self,
        host: Host,
        intake: Intake,
        adapters: Callable[[], list[AdapterDiagnostics]],
        stale_after_ns: int,
    ) -> None:
        """Begin: these are the parts, and how long a signal may be without a usable value."""
        self._host, self._intake, self._adapters = host, intake, adapters
        self._stale_after_ns = stale_after_ns
        self._started_ns = self._clock.now_ns()
        self._rate = (monotonic_ns(), 0, 0.0)
        measure_process(self._metrics, version(), self._disk)
        self._metrics.before_scrape(self._scrape)

    # --- figures -------------------------------------------------------------------------------------

    def samples(self) -> dict[str, int]:
        """Samples by fate: once drained, received = stored + duplicates + rejected + thinned."""
        if self._host is None:
            return dict.fromkeys(
                ("received", "stored", "duplicates", "rejected", "thinned", "derived", "in_flight"), 0
            )
        counters, flushed = self._host.core.counters, self._host.engine.committer.counters
        cores = [core.counters for core in self._host.engine.cores]
        return {
            "received": sum(counters.received.values()),
            "stored": sum(c.accepted + c.late for c in cores) - flushed.n_duplicates,
            "duplicates": sum(c.duplicates for c in cores) + flushed.n_duplicates,
            "rejected": sum(counters.rejected.values()),
            "thinned": sum(counters.thinned.values()),
            "derived": sum(c.derived for c in cores),
            "in_flight": self._host.core.n_in_flight,
        }

    def stages_ns(self) -> dict[str, float]:
        """CPU of each stage, ns a received sample."""
        if self._host is None:
            return {}
        counters, flushed = self._host.core.counters, self._host.engine.committer.counters
        adapters = self._adapters()
        total = {
            "transport": sum(a.transport_ns for a in adapters),
            "decode": sum(a.decode_ns for a in adapters),
            "normalise": counters.normalise_ns.total(),
            "journal": counters.record_ns + self._intake.writer_cpu_ns,
            "pipeline": sum(core.counters.cpu_ns for core in self._host.engine.cores),
            "encode": flushed.encode_ns,
            "write": flushed.write_ns,
        }
        n = max(1, sum(counters.received.values()))
        return {name: round(ns / n, 1) for name, ns in total.items()}

    def _per_second(self, received: int) -> float:
        """Samples a second over the last seconds."""
        at_ns, before, rate = self._rate
        now_ns = monotonic_ns()
        if now_ns - at_ns > _RATE_NS:
            rate = (received - before) * NS / (now_ns - at_ns)
            self._rate = (now_ns, received, rate)
        return round(rate, 1)

    def _store(self) -> dict[str, Any]:
        out: dict[str, Any] = {"url": self._url, "folder": str(self._disk.root)}
        out |= {"size_bytes": 0, "samples": 0, "fresh_to": None}
        try:
            out["free_bytes"] = self._disk.free_bytes()
        except StorageError as e:
            out["problem"] = str(e)
        if self._host is not None:
            try:
                # As of the last commit: whoever asks must not wait for a bucket.
                segments = self._host.store.status(self._host.store.view)
                out.update(
                    size_bytes=segments.size_bytes, samples=segments.n_samples, segments=segments.n_segments,
                    tiers={one.name: {"size_bytes": one.size_bytes, "samples": one.n_samples} for one in segments.tiers},
                )  # fmt: skip
            except HeadraceError as e:
                out["problem"] = str(e)
            refusal = self._host.engine.committer.counters.refusal
            if refusal:
                out["problem"] = refusal
        return out

    # --- answers -------------------------------------------------------------------------------------

    def status(self, config_hash: str) -> dict[str, Any]:
        """One screen of facts, JSON-ready; `config_hash` is of the configuration that runs."""
        samples = self.samples()
        adapters = [adapter_summary(a) for a in self._adapters()] if self._host else []
        out = {
            "version": version(),
            "since": rfc3339(self._started_ns),
            "now": rfc3339(self._clock.now_ns()),
            "config_hash": config_hash,
            "sensors": self._host.directory.n_sensors if self._host else 0,
            "samples": samples,
            "rate": {"samples_per_s": self._per_second(samples["received"])},
            "store": self._store(),
            "journal": {"size_bytes": 0, "durable_seq": -1, "refusal": ""},
            "lag_s": 0.0,
            "adapters": adapters,
            "stages": self.stages_ns(),
        }
        if self._host is not None:
            journal = self._host.journal
            out["journal"] = {
                "size_bytes": journal.size_bytes,
                "durable_seq": journal.durable_seq,
                "refusal": self._intake.status().reason,
            }
            rejects = self._host.rejects
            out["rejects"] = {"size_bytes": rejects.size_bytes, "dropped": rejects.n_dropped}
            out["lag_s"] = self._lag_s()
            replay = self._host.recovered.replay
            out["recovery"] = {
                "records": replay.n_records,
                "replayed_records": replay.n_done,
                "accepting_s": round(self._host.recovered.accepting_s, 3),
                "caught_up_s": None if replay.caught_up_s is None else round(replay.caught_up_s, 3),
            }
        return out

    def _lag_s(self) -> float:
        """How far the shards' time is behind the plant's."""
        assert self._host is not None
        behind = [core.now_ns for core in self._host.engine.cores if core.now_ns != NO_TIME]
        return round(max(0, self._clock.now_ns() - min(behind)) / NS, 3) if behind else 0.0

    def summary(self) -> dict[str, Any]:
        """What happened since the start; final once the plant has stopped."""
        store = self._store()
        per_sample = store["size_bytes"] / store["samples"] if store["samples"] else 0.0
        return {
            **self.samples(),
            "sensors": self._host.directory.n_sensors if self._host else 0,
            "bytes_per_sample": round(per_sample, 3),
            "ratio": round(RAW_BYTES / per_sample, 2) if per_sample else 0.0,
            "cpu_ns_per_sample": self.stages_ns(),
            "store": store,
        }

    def _scrape(self) -> None:
        """Bring the metrics up to date."""
        metrics, samples = self._metrics, self.samples()
        assert self._host is not None
        core, journal = self._host.core, self._host.journal
        for adapter, n in core.counters.received.items():
            metrics.counter(catalog.SAMPLES_RECEIVED, adapter).reach(n)
        for (adapter, code), n in core.counters.rejected.items():
            metrics.counter(catalog.SAMPLES_REJECTED, adapter, str(code)).reach(n)
        metrics.counter(catalog.SAMPLES_STORED).reach(samples["stored"])
        metrics.counter(catalog.SAMPLES_DUPLICATE).reach(samples["duplicates"])
        metrics.counter(catalog.SAMPLES_THINNED).reach(samples["thinned"])
        metrics.gauge(catalog.SAMPLES_IN_FLIGHT).set(samples["in_flight"])
        metrics.gauge(catalog.CREDIT_UTILISATION).set(core.credits.utilisation)
        metrics.gauge(catalog.JOURNAL_BYTES).set(journal.size_bytes)
        rejects = self._host.rejects
        metrics.gauge(catalog.REJECTS_BYTES).set(rejects.size_bytes)
        metrics.counter(catalog.REJECTS_DROPPED).reach(rejects.n_dropped)
        metrics.counter(catalog.REJECTS_REPLAYED).reach(rejects.n_removed)
        metrics.gauge(catalog.QUEUE_UTILISATION, "journal").set(
            journal.size_bytes / max(1, journal.limit_bytes)
        )
        buffered = sum(c.size_bytes for c in self._host.engine.cores)
        bound = sum(c.settings.buffer_bytes_max for c in self._host.engine.cores)
        metrics.gauge(catalog.QUEUE_UTILISATION, "hot_buffers").set(buffered / max(1, bound))
        n = max(1, samples["received"])
        for stage, ns in self.stages_ns().items():
            metrics.counter(catalog.STAGE_CPU, stage).reach(ns * n / NS)
        metrics.gauge(catalog.LAG).set(self._lag_s())
        metrics.counter(catalog.WINDOW_REVISIONS).reach(
            sum(c.counters.revisions for c in self._host.engine.cores)
        )
        for tier, size in self._store().get("tiers", {}).items():
            metrics.gauge(catalog.STORE_BYTES, tier).set(size["size_bytes"])
            metrics.gauge(catalog.STORE_SAMPLES, tier).set(size["samples"])
        self._scrape_adapters()

    def _scrape_adapters(self) -> None:
        adapters = self._adapters()
        devices = dict.fromkeys((a.name, d.path) for a in adapters for d in a.devices)
        for gone in [one for one in self._devices if one not in devices]:
            self._metrics.forget(catalog.DEVICE_UP, *gone)
            self._metrics.forget(catalog.DEVICE_LAST_GOOD, *gone)
            self._metrics.forget(catalog.DEVICE_CLOCK_SKEW, *gone)
        self._devices = devices
        self._forget_adapters({adapter.name for adapter in adapters})
        self._scrape_tags(adapters)
        for adapter in adapters:
            skipped = 0
            for device in adapter.devices:
                up = device.state is AdapterState.CONNECTED
                self._metrics.gauge(catalog.DEVICE_UP, adapter.name, device.path).set(float(up))
                if device.last_good_ns != NO_TIME:
                    cell = self._metrics.gauge(catalog.DEVICE_LAST_GOOD, adapter.name, device.path)
                    cell.set(device.last_good_ns / NS)
                if device.clock_skew_ns != NO_TIME:
                    cell = self._metrics.gauge(catalog.DEVICE_CLOCK_SKEW, adapter.name, device.path)
                    cell.set(device.clock_skew_ns / NS)
                skipped += device.n_polls_skipped
            self._metrics.counter(catalog.ADAPTER_POLLS_SKIPPED, adapter.name).reach(skipped)
            self._scrape_counts(adapter)
            if adapter.latency_counts:
                took = self._metrics.histogram(catalog.ADAPTER_REQUEST_DURATION, adapter.name)
                took.replace(adapter.latency_counts, adapter.latency_total_s)

    def _forget_adapters(self, names: set[str]) -> None:
        """An adapter that is there no more has no state."""
        gauges: tuple[tuple[Metric, *tuple[str, ...]], ...] = (
            *((catalog.ADAPTER_STATE, state) for state in AdapterState),
            *((catalog.ADAPTER_CIRCUITS, circuit) for circuit in Circuit),
            (catalog.ADAPTER_TAGS,), (catalog.ADAPTER_TAGS_STALE,), (catalog.ADAPTER_TAGS_STALEST,),
            (catalog.ADAPTER_UNACKNOWLEDGED,), (catalog.ADAPTER_UNACKNOWLEDGED_AGE,),
        )  # fmt: skip
        for gone in self._names - names:
            for metric, *labels in gauges:
                self._metrics.forget(metric, gone, *labels)
        self._names = names

    def _scrape_tags(self, adapters: list[AdapterDiagnostics]) -> None:
        """How many signals are stale. Millions of them take a while to look at: at most a twentieth of the time."""
        began_ns = monotonic_ns()
        if began_ns < self._tags_due_ns:
            return
        assert self._host is not None
        health, now_ns = self._host.core.health, self._clock.now_ns()
        for adapter in adapters:
            paths = [device.path for device in adapter.devices]
            found = health.summary(adapter.name, paths, now_ns, self._stale_after_ns)
            self._metrics.gauge(catalog.ADAPTER_TAGS, adapter.name).set(found.n)
            self._metrics.gauge(catalog.ADAPTER_TAGS_STALE, adapter.name).set(found.n_stale)
            if found.oldest_ns == NO_TIME:
                self._metrics.forget(catalog.ADAPTER_TAGS_STALEST, adapter.name)
            else:
                self._metrics.gauge(catalog.ADAPTER_TAGS_STALEST, adapter.name).set(found.oldest_ns / NS)
        ended_ns = monotonic_ns()
        self._tags_due_ns = ended_ns + _TAGS_PAUSE * (ended_ns - began_ns)

    def _scrape_counts(self, adapter: AdapterDiagnostics) -> None:
        counts = {
            catalog.ADAPTER_POLLS: sum(d.n_polls for d in adapter.devices),
            catalog.ADAPTER_POLLS_LATE: sum(d.n_polls_late for d in adapter.devices),
            catalog.ADAPTER_TIMEOUTS: sum(d.n_timeouts for d in adapter.devices),
            catalog.ADAPTER_CONNECTS: adapter.n_connects,
            catalog.ADAPTER_FRAMES: adapter.n_frames,
            catalog.ADAPTER_BYTES: adapter.n_bytes,
            catalog.ADAPTER_DUPLICATES: adapter.n_duplicates,
            catalog.ADAPTER_OUT_OF_ORDER: adapter.n_out_of_order,
            catalog.ADAPTER_GAPS: adapter.n_gaps,
            catalog.ADAPTER_KILLED: adapter.n_killed,
        }
        for metric, n in counts.items():
            self._metrics.counter(metric, adapter.name).reach(n)
        cpu = {
            "transport": adapter.transport_ns,
            "decode": adapter.decode_ns,
            "normalise": adapter.normalise_ns,
        }
        for part, ns in cpu.items():
            self._metrics.counter(catalog.ADAPTER_CPU, adapter.name, part).reach(ns / NS)
        now_ns = self._clock.now_ns()
        circuits = Counter(device.circuit(now_ns) for device in adapter.devices)
        for circuit in Circuit:
            self._metrics.gauge(catalog.ADAPTER_CIRCUITS, adapter.name, circuit).set(circuits[circuit])
        for state in AdapterState:
            self._metrics.gauge(catalog.ADAPTER_STATE, adapter.name, state).set(float(state is adapter.state))
        self._metrics.gauge(catalog.ADAPTER_UNACKNOWLEDGED, adapter.name).set(adapter.n_unacknowledged)
        if adapter.unacknowledged_ns == NO_TIME:
            self._metrics.forget(catalog.ADAPTER_UNACKNOWLEDGED_AGE, adapter.name)
        else:
            oldest = self._metrics.gauge(catalog.ADAPTER_UNACKNOWLEDGED_AGE, adapter.name)
            oldest.set(adapter.unacknowledged_ns / NS)
