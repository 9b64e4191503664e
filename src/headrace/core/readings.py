"""Frames as single readings, for people who look at them: path, time, value in its unit, quality.

Slow on purpose (a Python object a sample), and bounded: the hot path never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.core.frames import FrameBatch, Shape
from headrace.core.grids import value_of
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample; `value` is None where it is not a finite number, which its quality says too."""

    path: str
    ts_ns: int
    value: float | int | str | None
    quality: int


def readings(batch: FrameBatch, directory: SensorDirectory, limit: int = 1_000) -> list[Reading]:
    """The samples of the first frames of a batch, absent ones left out.

    Parameters
    ----------
    limit : values to look at, at most; the rest of the batch is not.
    """
    if not batch.n_frames:
        return []
    is_dense = batch.shape is Shape.DENSE
    ends = np.arange(batch.n_frames + 1) * batch.width if batch.start is None else batch.start
    n_frames = max(1, int(np.searchsorted(ends, limit, side="right")) - 1)
    ends = ends[: n_frames + 1]
    part = batch.slice(0, n_frames)
    if is_dense:
        column = np.tile(np.arange(batch.width), n_frames)
    else:
        column = np.zeros(part.n_values, np.int64) if part.column is None else part.column.astype(np.int64)
    frame = np.repeat(np.arange(n_frames), np.diff(ends))
    values, times = part.values.reshape(-1), part.value_times()
    quality = np.zeros(len(values), np.uint8) if part.quality is None else part.quality.reshape(-1)
    found = []
    for at in np.flatnonzero(quality < Quality.ABSENT)[:limit].tolist():
        slot = int(part.slot[frame[at]])
        value = _value(part, directory, slot, int(column[at]), values[at].item())
        path = directory.sensor_path(slot, int(column[at]))
        found.append(Reading(path, int(times[at]), value, int(quality[at])))
    return found


def _value(
    batch: FrameBatch, directory: SensorDirectory, slot: int, column: int, raw: float
) -> float | int | str | None:
    """A raw value as people know it: words of texts, engineering units of a grid."""
    if batch.dictionary is not None:
        return batch.dictionary[int(raw)] if raw < len(batch.dictionary) else None
    known = directory.layout(slot).columns[column]
    if known.scale != 1.0 or known.offset != 0.0:
        raw = value_of(raw, known.scale, known.offset)
    return raw if np.isfinite(raw) else None
