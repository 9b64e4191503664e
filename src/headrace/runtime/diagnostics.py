"""Adapters' diagnostics as the API and the command line give them: plain words, RFC 3339 times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headrace.adapters.base import AdapterDiagnostics, DeviceDiagnostics
from headrace.core.clock import NO_TIME
from headrace.runtime.times import rfc3339


def adapter_summary(adapter: AdapterDiagnostics) -> dict[str, Any]:
    """An adapter in one object without its devices, JSON-ready."""
    last_good_ns = max((d.last_good_ns for d in adapter.devices), default=NO_TIME)
    samples = max(1, adapter.n_samples)
    return {
        "name": adapter.name,
        "protocol": adapter.protocol,
        "state": str(adapter.state),
        "reason": adapter.reason,
        "since": rfc3339(adapter.since_ns),
        "sensors": adapter.n_sensors,
        "devices": len(adapter.devices),
        "devices_connected": sum(d.state == "connected" for d in adapter.devices),
        "last_good": rfc3339(last_good_ns),
        "last_good_ns": None if last_good_ns == NO_TIME else last_good_ns,
        "samples": adapter.n_samples,
        "frames": adapter.n_frames,
        "rejects": adapter.n_rejects,
        "duplicates": adapter.n_duplicates,
        "cpu_ns_per_sample": {
            "transport": round(adapter.transport_ns / samples, 1),
            "decode": round(adapter.decode_ns / samples, 1),
        },
        "latency_s": {"p50": adapter.latency_s_p50, "p99": adapter.latency_s_p99},
    }


def adapter_report(adapter: AdapterDiagnostics) -> dict[str, Any]:
    """An adapter with all its devices, JSON-ready."""
    return {**adapter_summary(adapter), "devices": [device_report(d) for d in adapter.devices]}


def device_report(device: DeviceDiagnostics) -> dict[str, Any]:
    """One device, JSON-ready."""
    return {
        "path": device.path,
        "state": str(device.state),
        "reason": device.reason,
        "last_good": rfc3339(device.last_good_ns),
        "next_retry": rfc3339(device.next_retry_ns),
        "requests": device.n_requests,
        "errors": device.n_errors,
        "timeouts": device.n_timeouts,
        "polls_skipped": device.n_polls_skipped,
        "problems": dict(device.problems),
    }


def carried(before: AdapterDiagnostics, now: AdapterDiagnostics) -> AdapterDiagnostics:
    """The present instance's diagnostics with the counts of those before it: what is counted only grows."""
    known = {device.path: device for device in before.devices}
    return replace(
        now,
        n_samples=before.n_samples + now.n_samples,
        n_frames=before.n_frames + now.n_frames,
        n_rejects=before.n_rejects + now.n_rejects,
        n_duplicates=before.n_duplicates + now.n_duplicates,
        transport_ns=before.transport_ns + now.transport_ns,
        decode_ns=before.decode_ns + now.decode_ns,
        devices=tuple(_carried_device(known.get(d.path), d) for d in now.devices) or before.devices,
    )


def _carried_device(before: DeviceDiagnostics | None, now: DeviceDiagnostics) -> DeviceDiagnostics:
    if before is None:
        return now
    return replace(
        now,
        last_good_ns=max(before.last_good_ns, now.last_good_ns),
        n_requests=before.n_requests + now.n_requests,
        n_errors=before.n_errors + now.n_errors,
        n_timeouts=before.n_timeouts + now.n_timeouts,
        n_polls_skipped=before.n_polls_skipped + now.n_polls_skipped,
    )
