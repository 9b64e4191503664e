"""Adapters' diagnostics as the API and the command line give them: plain words, RFC 3339 times."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any

import numpy as np

from headrace.adapters.base import AdapterDiagnostics, DeviceDiagnostics
from headrace.adapters.registry import ADAPTERS
from headrace.core.clock import NO_TIME, NS
from headrace.core.sensors import SensorDirectory
from headrace.ingest.signal_health import SignalAges
from headrace.runtime.catalogue import manifest_of
from headrace.runtime.times import rfc3339

TAGS_SHOWN, TAGS_SHOWN_MAX = 1_000, 100_000


@dataclass(frozen=True, slots=True)
class TagsWish:
    """Which signals of an adapter to show, and when one counts as stale."""

    stale_after_ns: int
    only_stale: bool = False
    limit: int = TAGS_SHOWN


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
        "bytes": adapter.n_bytes,
        "rejects": adapter.n_rejects,
        "rejects_by_code": dict(adapter.rejects_by_code),
        "duplicates": adapter.n_duplicates,
        "out_of_order": adapter.n_out_of_order,
        "gaps": adapter.n_gaps,
        "connects": adapter.n_connects,
        "timeouts": sum(d.n_timeouts for d in adapter.devices),
        "unacknowledged": adapter.n_unacknowledged,
        "unacknowledged_since": rfc3339(adapter.unacknowledged_ns),
        "config_hash": adapter.config_hash,
        "pid": adapter.pid or None,
        "cpu_ns_per_sample": {
            "transport": round(adapter.transport_ns / samples, 1),
            "decode": round(adapter.decode_ns / samples, 1),
            "normalise": round(adapter.normalise_ns / samples, 1),
        },
        "latency_s": {"p50": adapter.latency_s_p50, "p99": adapter.latency_s_p99},
    }


def adapter_report(adapter: AdapterDiagnostics, now_ns: int = NO_TIME) -> dict[str, Any]:
    """An adapter with all its devices and the versions of what it is made of, JSON-ready.

    Parameters
    ----------
    now_ns : the plant's time, for ages; `NO_TIME` where it is not known.
    """
    return {
        **adapter_summary(adapter),
        "versions": versions_of(adapter.protocol),
        "devices": [device_report(d, now_ns) for d in adapter.devices],
    }


@cache
def versions_of(protocol: str) -> dict[str, str]:
    """Versions of the packages that a protocol's manifest names in ``packages``, as far as they are installed."""
    found = {}
    names = manifest_of(ADAPTERS, protocol).get("packages", []) if protocol in ADAPTERS else []
    for name in names if isinstance(names, list) else []:
        with contextlib.suppress(PackageNotFoundError):
            found[str(name)] = package_version(str(name))
    return found


def device_report(device: DeviceDiagnostics, now_ns: int = NO_TIME) -> dict[str, Any]:
    """One device, JSON-ready."""
    knows_age = NO_TIME not in (now_ns, device.last_good_ns)
    is_waiting = NO_TIME not in (now_ns, device.next_retry_ns)
    skew_ns = device.clock_skew_ns
    return {
        "path": device.path,
        "state": str(device.state),
        "circuit": str(device.circuit(now_ns)),
        "reason": device.reason,
        "last_good": rfc3339(device.last_good_ns),
        "last_good_age_s": round(max(0, now_ns - device.last_good_ns) / NS, 3) if knows_age else None,
        "next_retry": rfc3339(device.next_retry_ns),
        "next_retry_in_s": round(max(0, device.next_retry_ns - now_ns) / NS, 3) if is_waiting else None,
        "requests": device.n_requests,
        "errors": device.n_errors,
        "timeouts": device.n_timeouts,
        "polls": device.n_polls,
        "polls_skipped": device.n_polls_skipped,
        "polls_late": device.n_polls_late,
        "clock_skew_s": None if skew_ns == NO_TIME else round(skew_ns / NS, 6),
        "problems": dict(device.problems),
    }


def tags_report(
    directory: SensorDirectory,
    ages: SignalAges,
    devices: Sequence[DeviceDiagnostics],
    now_ns: int,
    wish: TagsWish,
) -> dict[str, Any]:
    """Signals of an adapter and when each was last good, the longest silent first, JSON-ready."""
    stale = ages.is_stale(now_ns, wish.stale_after_ns)
    order = np.argsort(ages.last_good_ns, kind="stable")
    if wish.only_stale:
        order = order[stale[order]]
    some = order[: wish.limit]
    problems = {f"{d.path}/{name}": text for d in devices for name, text in d.problems}
    paths = directory.sensor_paths(ages.slot[some], ages.column[some]).tolist()
    rows = zip(paths, ages.last_good_ns[some].tolist(), stale[some].tolist(), strict=True)
    return {
        "tags": len(ages),
        "stale": int(stale.sum()),
        "stale_after_s": wish.stale_after_ns / NS,
        "shown": [
            {
                "path": path,
                "last_good": rfc3339(last_ns),
                "last_good_age_s": None if last_ns == NO_TIME else round(max(0, now_ns - last_ns) / NS, 3),
                "stale": is_stale,
                "problem": problems.get(path, ""),
            }
            for path, last_ns, is_stale in rows
        ],
    }


def carried(before: AdapterDiagnostics, now: AdapterDiagnostics) -> AdapterDiagnostics:
    """The present instance's diagnostics with the counts of those before it: what is counted only grows."""
    known = {device.path: device for device in before.devices}
    return replace(
        now,
        n_samples=before.n_samples + now.n_samples,
        n_frames=before.n_frames + now.n_frames,
        n_bytes=before.n_bytes + now.n_bytes,
        n_rejects=before.n_rejects + now.n_rejects,
        n_duplicates=before.n_duplicates + now.n_duplicates,
        n_out_of_order=before.n_out_of_order + now.n_out_of_order,
        n_gaps=before.n_gaps + now.n_gaps,
        n_connects=before.n_connects + now.n_connects,
        n_killed=before.n_killed + now.n_killed,
        normalise_ns=before.normalise_ns + now.normalise_ns,
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
        n_polls=before.n_polls + now.n_polls,
        n_polls_late=before.n_polls_late + now.n_polls_late,
    )
