"""Stored samples of one group as frames again: for windows that are computed anew, and for replays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headrace.core.frames import FrameBatch
from headrace.core.layouts import numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import Selection
from headrace.store.base import Tail
from headrace.store.decoding import Decoding
from headrace.store.wanted import Wanted, from_bits

if TYPE_CHECKING:
    from headrace.store.query import Store


def read_frames(
    store: Store, slot: int, start_ns: int, end_ns: int, tail: Tail | None = None
) -> tuple[FrameBatch | None, tuple[str, ...]]:
    """All samples of one slot in [start_ns, end_ns), the newest versions, as dense frames in time order.

    Values are in the source's own type, as they came; where a column has nothing at a time its quality is
    `ABSENT`. Samples under other layouts of the group are left out.

    Returns
    -------
    The frames, None where there are none; and a sentence for everything that could not be read.
    """
    directory = store.directory
    width = int(directory.width[slot])
    selection = Selection(
        np.full(width, slot, np.uint32), np.arange(width, dtype=np.uint16), directory.sensors(slot)
    )
    wanted = Wanted(directory, store.series, selection, is_raw=True)
    batches = [] if tail is None else tail(wanted.slots)
    view = store.refresh()
    scan = store.scan(view, wanted, start_ns, end_ns)
    decoding = Decoding(wanted)
    for found, place, _ in scan.found:
        decoding.add_rows(found, place)
    decoding.add_tail(batches)
    parts = list(decoding.samples(start_ns, end_ns).values())
    missing = (*view.damaged, *scan.missing, *decoding.damaged)
    if not any(len(one) for one in parts):
        return None, missing
    samples = parts[0]  # one layout has one type, so all of it is in one lane
    times, row = np.unique(samples.ts_ns, return_inverse=True)
    column = wanted.column[samples.of_each()]
    values = np.zeros((len(times), width), numpy_dtype(directory.layout(slot).dtype))
    quality = np.full(values.shape, Quality.ABSENT, np.uint8)
    values[row, column] = from_bits(samples.values, values.dtype)
    quality[row, column] = samples.quality
    slots = np.full(len(times), slot, np.uint32)
    words = tuple(decoding.words.list) if decoding.words.sensors else None
    return FrameBatch.dense(
        slots, times, values, quality if quality.any() else None, dictionary=words
    ), missing
