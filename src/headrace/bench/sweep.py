"""``headrace bench throughput --sweep``: cost of a sample against the number of sensors, for every shape.

From ten sensors to ten million. Small plants pay for each batch, large ones for each sample: the lines fall until
the work of a batch is spread over enough samples, and rise where state leaves the processor's caches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.bench.chart import line_chart
from headrace.bench.load import SERIES_FOLDER, SHAPES, LoadSpec
from headrace.bench.throughput import Progress, run

SENSORS_MAX = 10_000_000
_WAVES_MAX = 1_000  # of 12,000 values a second each
_ROUNDS = 64  # a window closes in them
_GROUP = {"dense": 50, "mixed": 50, "sparse": 1_000, "wave": 1}
_KEPT = (
    "shape", "sensors", "group", "rounds", "samples", "cpu_ns_per_sample", "wall_ns_per_sample", "realtime_factor",
    "worst_round_ms", "bytes_per_sample", "journal_bytes_per_sample", "rss_without_input_bytes",
    "cores_used_by_others", "stages", "lost", "duplicated",
)  # fmt: skip


def specs(up_to: int, dtype: str = "u16") -> Iterator[LoadSpec]:
    """Shapes and sizes: powers of ten."""
    for shape in SHAPES:
        sensors = 10
        while sensors <= min(up_to, _WAVES_MAX if shape == "wave" else SENSORS_MAX):
            yield LoadSpec(sensors, min(_GROUP[shape], sensors), dtype, "poll", shape=shape)
            sensors *= 10


def sweep(
    up_to: int = SENSORS_MAX,
    dtype: str = "u16",
    data: Path = SERIES_FOLDER,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Run all; a JSON-ready object with one point for each.

    Parameters
    ----------
    up_to : sensors of the largest plant; waveforms go to 1,000.

    Returns
    -------
    ``points``, and ``reference``: what Polars takes for the windows of the largest dense plant, which tells how
    fast the machine is.

    Raises
    ------
    HeadraceError : a group does not read back as it was sent, or the disk refuses.
    """
    points = []
    reference: dict[str, Any] = {}
    chosen = list(specs(up_to, dtype))
    largest = max((spec for spec in chosen if spec.shape == "dense"), key=lambda spec: spec.sensors)
    for spec in chosen:
        progress(f"{spec.shape}, {spec.sensors:,} sensors")
        result = run(spec, min(_ROUNDS, _rounds_max(spec, up_to)), data, with_reference=spec is largest)
        points.append({name: result[name] for name in _KEPT})
        reference = result.get("reference", reference)
    return {"dtype": dtype, "cpus": len(os.sched_getaffinity(0)), "reference": reference, "points": points}


def _rounds_max(spec: LoadSpec, up_to: int) -> int:
    """So that the input of the largest plants fits in memory, and waveforms of a short sweep do not take all its time."""
    a_second = spec.sensors * (12_000 if spec.shape == "wave" else 1)
    return max(4, min(400_000_000, 500 * up_to) // a_second)


def chart(result: dict[str, Any]) -> str:
    """The sweep as an SVG picture."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in result["points"]:
        lines.setdefault(point["shape"], []).append((point["sensors"], point["cpu_ns_per_sample"]))
    return line_chart(
        "What a sample costs, from its bytes to the segment", ("sensors", "ns of CPU a sample"), lines
    )
