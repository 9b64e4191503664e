"""Late samples against what is committed: the last look for duplicates, at the flush.

A late sample that the unflushed tail knows nothing of may be a version of something committed long ago. Here
the rows that could hold it are read (mostly headers say that there are none), and a sample with the same
value and quality is dropped. What can't be read can't be compared: then the sample is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch
from headrace.core.sensors import Selection, SensorDirectory
from headrace.store.decoding import Decoding
from headrace.store.frame_log import FrameLog
from headrace.store.late import LateLog
from headrace.store.runs import SensorSamples
from headrace.store.series import hashed
from headrace.store.time_index import HashRuns
from headrace.store.wanted import LANE_DTYPES, NOWHERE, Lane, Wanted

if TYPE_CHECKING:
    from headrace.store.query import Store

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]


def settle(store: Store, late: Sequence[LateLog]) -> tuple[list[FrameBatch], list[tuple[FrameLog, I64]]]:
    """Late samples that have to be stored, and the rows of each log that were duplicates of committed ones.

    Cost: about 1 us a sample that something was committed for, else a look at headers.
    """
    batches: list[FrameBatch] = []
    duplicates: list[tuple[FrameLog, I64]] = []
    for one in late:
        rows = np.flatnonzero(~one.settled)
        batch = one.log.batch()
        if len(rows):
            same = rows[_is_committed(store, one.log, rows)]
            duplicates.append((one.log, same))
            keep = np.ones(one.log.n_rows, np.bool_)
            keep[same] = False
            batch = batch.take(np.flatnonzero(keep))
        if batch.n_frames:
            batches.append(batch)
    return batches, duplicates


def _is_committed(store: Store, log: FrameLog, rows: I64) -> npt.NDArray[np.bool_]:
    """Whether the newest committed version of each row's sample has its value and quality."""
    slot, column, ts_ns = log.places(rows)
    first_ns, end_ns = int(ts_ns.min()), int(ts_ns.max()) + 1
    out = np.zeros(len(rows), np.bool_)
    view = store.view
    if not view.sources(first_ns, end_ns):
        return out
    wanted = Wanted(store.directory, store.series, _selection(store.directory, slot, column))
    scan = store.scan(view, wanted, first_ns, end_ns)
    decoding = Decoding(wanted)
    for found, place, _ in scan.found:
        decoding.add_rows(found, place)
    committed = decoding.samples(first_ns, end_ns)
    element = wanted.elements(column.astype(np.int32), wanted.places_of_slots(slot))
    sensor = wanted.sensor[np.maximum(element, 0)]
    values, quality = log.at(rows, np.zeros(len(rows), np.int64))
    if log.dictionary is not None:
        values = decoding.words.translate(values, log.dictionary)
    for lane, samples in committed.items():
        mine = np.flatnonzero((element != NOWHERE) & (wanted.lane[sensor] == lane))
        raw = values[mine]
        if lane is Lane.FLOAT and log.dictionary is None:
            raw = wanted.grid.values_at(raw, element[mine])
        raw = raw.astype(LANE_DTYPES[lane])
        out[mine] = _has_same(samples, sensor[mine], ts_ns[mine], (raw, quality[mine]))
    return out


def _selection(
    directory: SensorDirectory, slot: npt.NDArray[np.uint32], column: npt.NDArray[np.uint16]
) -> Selection:
    """The sensors of some samples, each once."""
    one = np.unique(slot.astype(np.uint64) << np.uint64(16) | column.astype(np.uint64))
    slots, columns = (one >> np.uint64(16)).astype(np.uint32), (one & np.uint64(0xFFFF)).astype(np.uint16)
    return Selection(slots, columns, np.zeros(len(one), np.uint64))


def _has_same(
    samples: SensorSamples, sensor: I64, ts_ns: I64, data: tuple[Array, Array]
) -> npt.NDArray[np.bool_]:
    """Whether `samples` has each (sensor, time) with the same value bits and quality."""
    there = samples.of_each()
    runs, zero = HashRuns(), np.zeros(1, np.int64)
    runs.add(hashed(there.view(np.uint64), zero, samples.ts_ns), np.arange(len(there)))
    at, row = runs.find(hashed(sensor.view(np.uint64), zero, ts_ns))
    same = (there[row] == sensor[at]) & (samples.ts_ns[row] == ts_ns[at])
    same &= np.ascontiguousarray(samples.values[row]).view(np.uint64) == data[0][at].view(np.uint64)
    same &= samples.quality[row] == data[1][at]
    out = np.zeros(len(sensor), np.bool_)
    out[at[same]] = True
    return out
