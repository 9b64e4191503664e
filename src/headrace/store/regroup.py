"""Stored samples of one group as frames again: for windows that are computed anew, and for replays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch
from headrace.core.layouts import numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import Selection
from headrace.store.base import Tail
from headrace.store.decoding import Decoding
from headrace.store.runs import SensorSamples
from headrace.store.wanted import Lane, Wanted, from_bits

if TYPE_CHECKING:
    from headrace.store.query import Store

I64 = npt.NDArray[np.int64]


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
    found, missing = read_layouts(store, [slot], start_ns, end_ns, tail)
    return (found[0] if found else None), missing


def read_layouts(
    store: Store, slots: Sequence[int], start_ns: int, end_ns: int, tail: Tail | None = None
) -> tuple[list[FrameBatch], tuple[str, ...]]:
    """The same of several slots, layouts of one group among them.

    Parameters
    ----------
    slots : what is wanted. What was sent under two layouts of a group is there once, the newest.

    Returns
    -------
    A batch for each slot that has samples; and a sentence for everything that could not be read.
    """
    directory = store.directory
    width = directory.width[list(slots)]
    slot = np.repeat(np.array(slots, np.uint32), width)
    column = np.concatenate([np.arange(w, dtype=np.uint16) for w in width.tolist()])
    wanted = Wanted(
        directory, store.series, Selection(slot, column, np.zeros(len(slot), np.uint64)), is_raw=True
    )
    batches = [] if tail is None else tail(wanted.slots)
    view = store.refresh()
    scan = store.scan(view, wanted, start_ns, end_ns)
    decoding = Decoding(wanted)
    for found, place, _ in scan.found:
        decoding.add_rows(found, place)
    decoding.add_tail(batches)
    same = store.series.shared(wanted.slot, wanted.column)
    samples = decoding.samples(start_ns, end_ns, same).get(Lane.SIGNED)
    missing = (*view.damaged, *scan.missing, *decoding.damaged)
    out = []
    if samples is not None and len(samples):
        each = samples.of_each()
        order = np.argsort(wanted.slot[each], kind="stable")
        ends = np.flatnonzero(np.diff(wanted.slot[each[order]])) + 1
        words = tuple(decoding.words.list) if decoding.words.sensors else None
        out = [_frames(wanted, samples, (mine, each[mine]), words) for mine in np.split(order, ends)]
    return out, missing


def _frames(
    wanted: Wanted, samples: SensorSamples, some: tuple[I64, I64], words: tuple[str, ...] | None
) -> FrameBatch:
    """Some samples (their index and sensor), all of one layout, as dense frames."""
    mine, sensor = some
    slot = int(wanted.slot[sensor[0]])
    layout = wanted.directory.layout(slot)
    times, row = np.unique(samples.ts_ns[mine], return_inverse=True)
    values = np.zeros((len(times), layout.width), numpy_dtype(layout.dtype))
    quality = np.full(values.shape, Quality.ABSENT, np.uint8)
    values[row, wanted.column[sensor]] = from_bits(samples.values[mine], values.dtype)
    quality[row, wanted.column[sensor]] = samples.quality[mine]
    slots = np.full(len(times), slot, np.uint32)
    return FrameBatch.dense(slots, times, values, quality if quality.any() else None, dictionary=words)
