"""One sensor's samples out of a store, as the source sent them: what codecs get to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError, CorruptionError, NotFound
from headrace.core.layouts import numpy_dtype
from headrace.core.sensors import Selection
from headrace.core.spans import parse_range
from headrace.runtime.reader import StoreReader
from headrace.store.decoding import Decoding
from headrace.store.wanted import Lane, Wanted, from_bits

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]


def read_sensor(reader: StoreReader, pattern: str, last: str) -> tuple[str, I64, Array]:
    """The path, times ``ts_ns: int64[n]`` and values ``T[n]`` of one sensor, in the newest type that its source sends.

    Values are raw: registers without their scale, codes for the words of strings. What is not flushed yet is there too.

    Parameters
    ----------
    pattern : of exactly one sensor. last : the span, back from the plant's present: ``1d``.

    Raises
    ------
    NotFound : no sensor matches, or it has no samples in the span. ConfigError : several match.
    CorruptionError : some could not be read.
    """
    tail = reader.journal_tail()
    store = reader.store
    found = store.directory.find(pattern)
    paths = sorted(set(store.directory.sensor_paths(found.slot, found.column).tolist()))
    if len(paths) != 1:
        if not paths:
            raise NotFound(f"no sensor matches {pattern!r}")
        raise ConfigError(
            f"{pattern!r} matches {len(paths):,} sensors ({paths[0]}, {paths[1]} ...); name one of them"
        )
    slot, column = found.slot[-1:], found.column[-1:]
    wanted = Wanted(
        store.directory, store.series, Selection(slot, column, np.zeros(1, np.uint64)), is_raw=True
    )
    span = parse_range(tail.now_ns + 1, reader.zone, last=last, start=None, end=None)
    decoding = Decoding(wanted)
    scan = store.scan(store.refresh(), wanted, span.start_ns, span.end_ns)
    for rows, place, _ in scan.found:
        decoding.add_rows(rows, place)
    decoding.add_tail(tail.frames(wanted.slots))
    if scan.missing or decoding.damaged:
        raise CorruptionError("; ".join([*scan.missing, *decoding.damaged]))
    same = store.series.shared(wanted.slot, wanted.column)
    samples = decoding.samples(span.start_ns, span.end_ns, same).get(Lane.SIGNED)
    if samples is None or not len(samples):
        raise NotFound(f"{paths[0]} has no samples in the last {last}; --last takes a longer span")
    if decoding.words.sensors:
        return paths[0], samples.ts_ns, np.unique(samples.values, return_inverse=True)[1].astype(np.uint32)
    dtype = numpy_dtype(store.directory.layout(int(slot[0])).dtype)
    return paths[0], samples.ts_ns, from_bits(samples.values, dtype)
