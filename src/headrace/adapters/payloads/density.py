"""Sparse frames that hold most of their columns, as matrices."""

from __future__ import annotations

import numpy as np

from headrace.core.frames import FrameBatch
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory


def by_width(frames: FrameBatch, directory: SensorDirectory) -> list[FrameBatch]:
    """Frames as one batch for each width, dense where at least half of it is there.

    Parameters
    ----------
    frames : sparse, columns ascending in each, all values of their frame's time.
    """
    width = directory.width[frames.slot]
    if (width == width[0]).all():
        return [_dense(frames, int(width[0]))]
    return [_dense(frames.take(np.flatnonzero(width == w)), int(w)) for w in np.unique(width)]


def _dense(frames: FrameBatch, width: int) -> FrameBatch:
    """Frames of one width as a matrix where at least half of it is there (the rest is absent), else as they are."""
    n_cells = frames.n_frames * width
    if 2 * frames.n_values < n_cells:
        return frames
    assert frames.start is not None
    assert frames.column is not None
    quality, values = frames.quality, frames.values
    if frames.n_values < n_cells:
        at = np.repeat(np.arange(frames.n_frames) * width, np.diff(frames.start)) + frames.column
        values = np.zeros(n_cells, values.dtype)
        marks = np.full(n_cells, Quality.ABSENT, np.uint8)
        values[at], marks[at] = frames.values, 0 if quality is None else quality
        quality = marks
    return FrameBatch.dense(
        frames.slot, frames.ts_ns, values.reshape(-1, width), None if quality is None else quality.reshape(-1, width),
        dictionary=frames.dictionary, origin=frames.origin, arrival_ns=frames.arrival_ns,
    )  # fmt: skip
