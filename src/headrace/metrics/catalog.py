"""Every metric there is: name, kind, unit, meaning, labels. Declared once; exposition and docs follow from it.

Names are as users see them, without the prefix ``headrace_`` and the ``_total`` that counters get. Units are
base units. There is never a label per sensor: a plant has millions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PREFIX = "headrace_"


class MetricKind(StrEnum):
    """What a metric is; decides how it is updated and written."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the catalogue.

    Parameters
    ----------
    name : without prefix; it ends with its unit where it has one.
    unit : ``seconds``, ``bytes``, ``ratio``; empty for counts.
    labels : names of its labels, in order; each has few values.
    buckets : upper ends of a histogram's buckets, rising.
    """

    name: str
    kind: MetricKind
    meaning: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def sample(self) -> str:
        """Name of its samples as scraped: ``headrace_samples_received_total``."""
        suffix = {MetricKind.COUNTER: "_total", MetricKind.INFO: "_info"}.get(self.kind, "")
        return PREFIX + self.name + suffix


_C, _G, _H, _I = MetricKind

SAMPLES_RECEIVED = Metric(
    "samples_received", _C, "Samples that adapters took from sources.", "", ("adapter",)
)
SAMPLES_STORED = Metric("samples_stored", _C, "Samples accepted and kept; late ones included.")
SAMPLES_DUPLICATE = Metric("samples_duplicate", _C, "Samples recognised as sent twice, kept once.")
SAMPLES_THINNED = Metric("samples_thinned", _C, "Samples left out because the configuration says so.")
SAMPLES_REJECTED = Metric("samples_rejected", _C, "Samples refused, by reason.", "", ("adapter", "code"))
SAMPLES_IN_FLIGHT = Metric("samples_in_flight", _G, "Samples taken but not yet durable in the journal.")

DEVICE_UP = Metric("device_up", _G, "1 while the device answers, else 0.", "", ("adapter", "device"))
DEVICE_LAST_GOOD = Metric(
    "device_last_good_timestamp_seconds", _G, "When the device last gave a good reading.", "seconds",
    ("adapter", "device"),
)  # fmt: skip
ADAPTER_REQUEST_DURATION = Metric(
    "adapter_request_duration_seconds", _H, "From a request to its answer, or to the acknowledgement.", "seconds",
    ("adapter",), (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)  # fmt: skip
ADAPTER_POLLS_SKIPPED = Metric(
    "adapter_polls_skipped", _C, "Polls left out because the last one was still under way or credit was used up.",
    "", ("adapter",),
)  # fmt: skip

ADAPTER_FRAMES = Metric("adapter_frames", _C, "Frames that were handed on.", "", ("adapter",))
ADAPTER_BYTES = Metric(
    "adapter_received_bytes", _C, "Bytes received: payloads of messages and bodies, answers, files.", "bytes",
    ("adapter",),
)  # fmt: skip
ADAPTER_DUPLICATES = Metric(
    "adapter_duplicates", _C, "Inputs that came again, recognised before they were decoded.", "", ("adapter",)
)
ADAPTER_CPU = Metric(
    "adapter_cpu_seconds", _C, "CPU time of an adapter: transport, decode, normalise.", "seconds",
    ("adapter", "part"),
)  # fmt: skip
ADAPTER_STATE = Metric(
    "adapter_state", _G, "1 for the state that the adapter is in, 0 for the others.", "", ("adapter", "state")
)
ADAPTER_CIRCUITS = Metric(
    "adapter_circuits", _G, "Devices by the state of their circuit: closed, half-open, open.", "",
    ("adapter", "circuit"),
)  # fmt: skip
ADAPTER_TAGS = Metric("adapter_tags", _G, "Signals that the adapter has.", "", ("adapter",))
ADAPTER_TAGS_STALE = Metric(
    "adapter_tags_stale", _G, "Signals without a usable value for longer than `[runtime] stale_after`.", "",
    ("adapter",),
)  # fmt: skip
ADAPTER_TAGS_STALEST = Metric(
    "adapter_tags_stalest_timestamp_seconds", _G, "When the stalest of these last gave a usable value.", "seconds",
    ("adapter",),
)  # fmt: skip
ADAPTER_POLLS = Metric("adapter_polls", _C, "Polls that were begun.", "", ("adapter",))
ADAPTER_POLLS_LATE = Metric(
    "adapter_polls_late", _C, "Polls that began a tenth of their interval too late.", "", ("adapter",)
)
ADAPTER_TIMEOUTS = Metric(
    "adapter_timeouts", _C, "Requests that were not answered in time.", "", ("adapter",)
)
ADAPTER_CONNECTS = Metric("adapter_connects", _C, "Connections that were made.", "", ("adapter",))
ADAPTER_OUT_OF_ORDER = Metric(
    "adapter_out_of_order",
    _C,
    "Inputs that came after later ones, by the protocol's own numbers.",
    "",
    ("adapter",),
)
ADAPTER_GAPS = Metric(
    "adapter_gaps", _C, "Times that something was missing, by the protocol's own numbers.", "", ("adapter",)
)
ADAPTER_KILLED = Metric(
    "adapter_killed", _C, "Processes of its own that hung and so were killed.", "", ("adapter",)
)
ADAPTER_UNACKNOWLEDGED = Metric(
    "adapter_unacknowledged", _G, "Inputs taken, not yet durable, and so not acknowledged.", "", ("adapter",)
)
ADAPTER_UNACKNOWLEDGED_AGE = Metric(
    "adapter_unacknowledged_timestamp_seconds", _G, "When the oldest of them came.", "seconds", ("adapter",)
)
DEVICE_CLOCK_SKEW = Metric(
    "device_clock_skew_seconds", _G, "How far the device's clock seems to be ahead of ours.", "seconds",
    ("adapter", "device"),
)  # fmt: skip

STAGE_CPU = Metric("stage_cpu_seconds", _C, "CPU time of a stage of the hot path.", "seconds", ("stage",))
QUEUE_UTILISATION = Metric(
    "queue_utilisation_ratio", _G, "How full a bounded queue is, 0 to 1.", "ratio", ("queue",)
)
CREDIT_UTILISATION = Metric(
    "credit_utilisation_ratio", _G, "Share of the credit in use, 0 to 1; at 1 sources wait.", "ratio"
)
LAG = Metric(
    "lag_seconds", _G, "How far the time that pipelines have reached is behind the plant's.", "seconds"
)
WINDOW_REVISIONS = Metric("window_revisions", _C, "Windows written anew because of late data.")

JOURNAL_BYTES = Metric("journal_bytes", _G, "Size of the journal on disk.", "bytes")
REJECTS_BYTES = Metric("rejects_bytes", _G, "Size of the rejected input kept for replay.", "bytes")
REJECTS_DROPPED = Metric(
    "rejects_dropped",
    _C,
    "Rejected inputs that had to go because their bound was reached: they can't be replayed.",
)
REJECTS_REPLAYED = Metric("rejects_replayed", _C, "Rejected inputs that were replayed and are stored now.")
DISK_FREE_BYTES = Metric("disk_free_bytes", _G, "Free space where the store is.", "bytes")
STORE_BYTES = Metric("store_bytes", _G, "Size of the stored segments.", "bytes", ("tier",))
STORE_SAMPLES = Metric("store_samples", _G, "Samples in the stored segments.", "", ("tier",))

PROCESS_CPU = Metric("process_cpu_seconds", _C, "CPU time of this process, kernel included.", "seconds")
PROCESS_MEMORY = Metric("process_resident_memory_bytes", _G, "Resident memory of this process.", "bytes")
BUILD = Metric("build", _I, "The version that runs.", "", ("version",))

CATALOG: tuple[Metric, ...] = (
    SAMPLES_RECEIVED, SAMPLES_STORED, SAMPLES_DUPLICATE, SAMPLES_THINNED, SAMPLES_REJECTED, SAMPLES_IN_FLIGHT,
    DEVICE_UP, DEVICE_LAST_GOOD, ADAPTER_REQUEST_DURATION, ADAPTER_POLLS_SKIPPED,
    ADAPTER_FRAMES, ADAPTER_BYTES, ADAPTER_DUPLICATES, ADAPTER_CPU, ADAPTER_STATE, ADAPTER_CIRCUITS,
    ADAPTER_TAGS, ADAPTER_TAGS_STALE, ADAPTER_TAGS_STALEST,
    ADAPTER_POLLS, ADAPTER_POLLS_LATE, ADAPTER_TIMEOUTS, ADAPTER_CONNECTS, ADAPTER_OUT_OF_ORDER, ADAPTER_GAPS,
    ADAPTER_KILLED, ADAPTER_UNACKNOWLEDGED, ADAPTER_UNACKNOWLEDGED_AGE, DEVICE_CLOCK_SKEW,
    STAGE_CPU, QUEUE_UTILISATION, CREDIT_UTILISATION, LAG, WINDOW_REVISIONS,
    JOURNAL_BYTES, REJECTS_BYTES, REJECTS_DROPPED, REJECTS_REPLAYED, DISK_FREE_BYTES, STORE_BYTES, STORE_SAMPLES,
    PROCESS_CPU, PROCESS_MEMORY, BUILD,
)  # fmt: skip
"""All metrics, in the order of the documentation."""


def catalog_page() -> str:
    """The documentation page of all metrics, in Markdown."""
    lines = [
        "# Metrics", "",
        "Served at `/metrics` in OpenMetrics text. Points in time are seconds since 1970: an age is `time() - x`.", "",
        "| metric | kind | labels | meaning |", "|---|---|---|---|",
    ]  # fmt: skip
    for metric in CATALOG:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.sample}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(lines) + "\n"
