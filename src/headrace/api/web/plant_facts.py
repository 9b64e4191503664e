"""What the page says of a plant, from what engine and store say: figures, lights, tiers, rejects. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from headrace.core.clock import NS
from headrace.core.spans import parse_time_ns
from headrace.runtime import phrases
from headrace.runtime.phrases import RAW_BYTES
from headrace.store.view import TierSize

TONES = {
    "connected": "good", "starting": "wait", "degraded": "warn", "backoff": "bad", "failed": "bad",
    "paused": "off", "stopped": "off",
}  # fmt: skip
"""How a state of an adapter or device looks; shapes say the same to who can't tell the colours."""
_IN_TROUBLE = ("bad", "warn")
_LAG_S_WARN, _LAG_S_BAD = 5.0, 30.0
DEVICES_SHOWN = 200


@dataclass(frozen=True)
class PlantSight:
    """A plant at one moment.

    Parameters
    ----------
    now_ns : the plant's time. status : as the engine says; None where it does not answer, `away` then says why.
    troubles : of adapters that are not well, all their devices. tiers : of the store, None before there is one.
    rejects : counts and newest. rates : samples a second of the last minutes.
    """

    now_ns: int
    status: Mapping[str, Any] | None = None
    adapters: Sequence[Mapping[str, Any]] = ()
    troubles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tiers: tuple[TierSize, ...] | None = None
    n_sensors: int = 0
    rejects: Mapping[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    away: str = ""
    away_s: float = 0.0


def short_count(n: float) -> str:
    """A number of things in four characters or so: ``1,234``, ``12.3 k``, ``4.57 M``."""
    for least, factor, unit in ((1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if abs(n) >= least:
            return f"{n / factor:.3g}{unit}" if abs(n) / factor < 999.5 else f"{n / factor:,.0f}{unit}"
    return phrases.count(n)


def ratio_of(size_bytes: float, n_samples: float) -> str:
    """How many times smaller than 16 bytes a sample: ``12.1×``; a dash where nothing is stored."""
    return f"{RAW_BYTES * n_samples / size_bytes:.1f}×" if size_bytes and n_samples else "–"


# --- header ------------------------------------------------------------------------------------------


def headline(sight: PlantSight) -> dict[str, Any]:
    """State in a word, and the sentence of a banner where something is wrong."""
    if sight.status is None:
        for_s = f" for {phrases.span(sight.away_s)}" if sight.away_s >= 1 else ""
        text = f"The engine has not answered{for_s}. Charts show what is stored; nothing new comes in."
        return {"state": "no engine", "tone": "bad", "banner": text, "detail": sight.away}
    state, problem = str(sight.status["state"]), _problem(sight.status)
    if problem:
        return {"state": state, "tone": "warn", "banner": problem, "detail": ""}
    return {"state": state, "tone": "good" if state == "running" else "wait", "banner": "", "detail": ""}


def _problem(status: Mapping[str, Any]) -> str:
    said = (status.get("failure"), status["journal"]["refusal"], status["store"].get("problem"))
    return next((str(one) for one in said if one), "")


# --- figures -----------------------------------------------------------------------------------------


def figures(sight: PlantSight) -> list[dict[str, Any]]:
    """The row of figures: label, value, unit, a hint below, and a tone where it deserves a look."""
    status = sight.status
    samples: Mapping[str, Any] = status["samples"] if status else {}
    size_bytes = sum(tier.size_bytes for tier in sight.tiers or ())
    n_stored = sum(tier.n_samples for tier in sight.tiers or ())
    known = sight.tiers is not None
    return [
        {**_rate(status), "spark": list(sight.rates)},
        _lag(status),
        _figure("Sensors", phrases.count(sight.n_sensors) if known else "–", hint=_devices(sight.adapters)),
        _figure("Compression", ratio_of(size_bytes, n_stored), hint=_each(size_bytes, n_stored)),
        _figure("On disk", *_parted(phrases.size(size_bytes)), hint=_free(status)),
        _rejected(samples),
    ]


def _figure(label: str, value: str, unit: str = "", *, hint: str = "", tone: str = "") -> dict[str, Any]:
    return {"label": label, "value": value, "unit": unit, "hint": hint, "tone": tone}


def _parted(text: str) -> tuple[str, str]:
    """``12.3 MB`` → (``12.3``, ``MB``)."""
    value, _, unit = text.rpartition(" ")
    return (value, unit) if value else (unit, "")


def _rate(status: Mapping[str, Any] | None) -> dict[str, Any]:
    if status is None:
        return _figure("Throughput", "–")
    received = status["samples"]["received"]
    value, unit = _parted(short_count(status["rate"]["samples_per_s"]))
    hint = f"{short_count(received)} received"
    return _figure("Throughput", value, f"{unit}/s" if unit else "/s", hint=hint)


def _lag(status: Mapping[str, Any] | None) -> dict[str, Any]:
    if status is None:
        return _figure("Lag", "–")
    lag_s = float(status["lag_s"])
    tone = "bad" if lag_s > _LAG_S_BAD else "warn" if lag_s > _LAG_S_WARN else ""
    in_flight = status["samples"]["in_flight"]
    value, unit = _parted(phrases.span(lag_s)) if lag_s < 60 else (phrases.span(lag_s), "")
    return _figure("Lag", value, unit, hint=f"{short_count(in_flight)} in flight", tone=tone)


def _devices(adapters: Sequence[Mapping[str, Any]]) -> str:
    if not adapters:
        return ""
    n = sum(one["devices"] for one in adapters)
    return f"{phrases.count(sum(one['devices_connected'] for one in adapters))} of {phrases.count(n)} up"


def _each(size_bytes: float, n_stored: float) -> str:
    return f"{size_bytes / n_stored:.2f} B a sample" if size_bytes and n_stored else "nothing stored yet"


def _free(status: Mapping[str, Any] | None) -> str:
    free = status["store"].get("free_bytes") if status else None
    return f"{phrases.size(free)} free" if free is not None else ""


def _rejected(samples: Mapping[str, Any]) -> dict[str, Any]:
    n = samples.get("rejected", 0)
    if not samples:
        return _figure("Rejected", "–")
    share = 100 * n / max(1, samples["received"])
    hint = "nothing refused" if not n else f"{share:.2g}% of all"
    return _figure("Rejected", *_parted(short_count(n)), hint=hint, tone="warn" if n else "")


# --- adapters ----------------------------------------------------------------------------------------


def lights(sight: PlantSight) -> list[dict[str, Any]]:
    """One light an adapter, those in trouble first."""
    found = [_light(one, sight.troubles.get(one["name"]), sight) for one in sight.adapters]
    if sight.status is None:
        found = [{**one, "state": "unknown", "tone": "off", "reason": "", "retry": ""} for one in found]
    return sorted(found, key=lambda one: _IN_TROUBLE.index(one["tone"]) if one["tone"] in _IN_TROUBLE else 9)


def _light(
    adapter: Mapping[str, Any], trouble: Mapping[str, Any] | None, sight: PlantSight
) -> dict[str, Any]:
    tone = TONES.get(adapter["state"], "wait")
    sick = [d for d in (trouble or {}).get("devices", ()) if TONES.get(d["state"]) in _IN_TROUBLE]
    reason = str(adapter["reason"]) or next((d["reason"] for d in sick if d["reason"]), "")
    retries = sorted(d["next_retry"] for d in sick if d["next_retry"])
    return {
        "name": adapter["name"],
        "protocol": adapter["protocol"],
        "state": adapter["state"],
        "tone": tone,
        "devices": f"{phrases.count(adapter['devices_connected'])}/{phrases.count(adapter['devices'])}",
        "sensors": phrases.count(adapter["sensors"]),
        "age": age_of(adapter["last_good"], sight.now_ns),
        "reason": reason if tone != "good" else "",
        "retry": wait_until(retries[0], sight.now_ns) if retries else "",
        "rejects": short_count(adapter["rejects"]) if adapter["rejects"] else "",
    }


def age_of(moment: str | None, now_ns: int) -> str:
    """How long ago a time of JSON was; less than a second is ``now``: it would only flicker."""
    if not moment:
        return "never"
    ts_ns = parse_time_ns(moment, UTC)
    return "now" if now_ns - ts_ns < NS else phrases.age(ts_ns, now_ns)


def wait_until(moment: str, now_ns: int) -> str:
    """``retry in 4 s``."""
    left_s = (parse_time_ns(moment, UTC) - now_ns) / NS
    if left_s < 1:
        return "retrying"
    return f"retry in {phrases.span(left_s)}" if left_s >= 60 else f"retry in {left_s:.0f} s"


def device_rows(adapter: Mapping[str, Any], text: str, now_ns: int) -> dict[str, Any]:
    """Devices of one adapter whose path or reason has `text`, those in trouble first; bounded."""
    words = text.lower().split()
    hits = [
        one
        for one in adapter["devices"]
        if all(word in f"{one['path']} {one['state']} {one['reason']}".lower() for word in words)
    ]
    hits.sort(key=lambda one: (TONES.get(one["state"], "wait") == "good", one["path"]))
    rows = [
        {
            "path": one["path"],
            "state": one["state"],
            "tone": TONES.get(one["state"], "wait"),
            "age": age_of(one["last_good"], now_ns),
            "retry": wait_until(one["next_retry"], now_ns) if one["next_retry"] else "",
            "reason": one["reason"],
            "requests": short_count(one["requests"]),
            "errors": short_count(one["errors"]),
            "timeouts": short_count(one["timeouts"]),
            "skipped": short_count(one["polls_skipped"]),
        }
        for one in hits[:DEVICES_SHOWN]
    ]
    latency = adapter["latency_s"]
    return {
        "name": adapter["name"],
        "protocol": adapter["protocol"],
        "state": adapter["state"],
        "tone": TONES.get(adapter["state"], "wait"),
        "reason": adapter["reason"],
        "latency": f"{phrases.span(latency['p50'])} (p50), {phrases.span(latency['p99'])} (p99)",
        "samples": short_count(adapter["samples"]),
        "rows": rows,
        "shown": f"{len(rows):,} of {len(hits):,}" if len(hits) > len(rows) else f"{len(hits):,}",
        "total": f"{len(adapter['devices']):,}",
    }


# --- store and rejects -------------------------------------------------------------------------------


def storage(sight: PlantSight) -> dict[str, Any]:
    """Bytes by tier with their share, samples and ratio; where the CPU time of a sample goes."""
    journal = int(sight.status["journal"]["size_bytes"]) if sight.status else 0
    tiers = [TierSize("journal", journal, 0, 0), *(sight.tiers or ())]
    total = max(1, sum(tier.size_bytes for tier in tiers))
    stages = sight.status["stages"] if sight.status else {}
    total_ns = sum(stages.values())
    return {
        "tiers": [
            {
                "name": tier.name,
                "size": phrases.size(tier.size_bytes),
                "share": round(100 * tier.size_bytes / total, 2),
                "samples": short_count(tier.n_samples) if tier.n_samples else "–",
                "ratio": ratio_of(tier.size_bytes, tier.n_samples),
            }
            for tier in tiers
        ],
        "stages": [
            {"name": name, "ns": f"{ns:,.0f}", "share": round(100 * ns / max(1.0, total_ns), 1)}
            for name, ns in stages.items()
        ],
        "total_ns": f"{total_ns:,.0f}" if stages else "–",
    }


def refused(sight: PlantSight) -> dict[str, Any]:
    """Rejects by adapter and code, the most first, and the newest."""
    counts = sorted(sight.rejects.get("counts", ()), key=lambda one: -one["samples"])
    return {
        "counts": [
            {
                "adapter": one["adapter"],
                "code": one["code"],
                "n": short_count(one["samples"]),
                "age": age_of(one["last"], sight.now_ns) if one.get("last") else "",
            }
            for one in counts
        ],
        "newest": [
            {
                "adapter": one["adapter"],
                "code": one["code"],
                "source": one["source"],
                "detail": one["detail"],
                "age": age_of(one["arrived"], sight.now_ns),
            }
            for one in list(sight.rejects.get("rejects", ()))[:20]
        ],
    }


def rejects_of_metrics(text: str) -> dict[str, Any]:
    """Counts of rejects out of an exposition, for engines that keep none of them."""
    counts = []
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if name == "headrace_samples_rejected_total":
            labels, _, value = rest.rpartition("} ")
            pairs = dict(pair.split("=", 1) for pair in labels.split(","))
            n = int(float(value.split()[0]))
            if n:
                counts.append(
                    {"adapter": pairs["adapter"].strip('"'), "code": pairs["code"].strip('"'), "samples": n}
                )
    return {"counts": counts, "rejects": []}
