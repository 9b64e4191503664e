"""One sensor's samples out of a store, as the source sent them: what codecs get to see."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError, CorruptionError, NotFound
from headrace.core.layouts import Layout, numpy_dtype
from headrace.core.sensors import Selection, SensorDirectory
from headrace.core.spans import parse_range
from headrace.runtime.reader import StoreReader
from headrace.store.decoding import Decoding
from headrace.store.runs import SensorSamples
from headrace.store.series import SeriesMap
from headrace.store.wanted import Lane, Wanted, from_bits

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SensorSeries:
    """One sensor's samples of one type and grid, in rising time: ``ts_ns: int64[n]``, ``values: T[n]``.

    Parameters
    ----------
    left_out : how many samples its source sent in other types or grids, by what those are: ``f32``, ``u16 x 0.1 - 40``.
    """

    path: str
    ts_ns: I64
    values: Array
    left_out: dict[str, int] = field(default_factory=dict)


def read_sensor(reader: StoreReader, pattern: str, last: str) -> SensorSeries:
    """The samples of one sensor, under all layouts of its group, in the newest type and grid that they have there.

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
    path, selection = _selected(store.directory, store.series, pattern)
    wanted = Wanted(store.directory, store.series, selection, is_raw=True)
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
        raise NotFound(f"{path} has no samples in the last {last}; --last takes a longer span")
    return _newest_kind(path, wanted, samples, decoding.words.sensors)


def _selected(directory: SensorDirectory, series: SeriesMap, pattern: str) -> tuple[str, Selection]:
    """The path of the one sensor that matches, and where it stands in each layout that its group had with it."""
    found = directory.find(pattern)
    paths = sorted(set(directory.sensor_paths(found.slot, found.column).tolist()))
    if not paths:
        raise NotFound(f"no sensor matches {pattern!r}")
    if len(paths) > 1:
        raise ConfigError(
            f"{pattern!r} matches {len(paths):,} sensors ({paths[0]}, {paths[1]} ...); name one of them"
        )
    newest, number = int(found.slot[-1]), int(series.of(found.slot[-1:], found.column[-1:])[0])
    places = [(s, c) for s in series.slots(newest) for c in np.flatnonzero(series.numbers(s) == number)]
    slot, column = (np.array(x) for x in zip(*places, strict=True))
    return paths[0], Selection(
        slot.astype(np.uint32), column.astype(np.uint16), np.zeros(len(slot), np.uint64)
    )


def _newest_kind(path: str, wanted: Wanted, samples: SensorSamples, words: set[int]) -> SensorSeries:
    """The samples that are of the newest type and grid among them; raw values of others mean something else."""
    each = samples.of_each()
    numbers, counts = np.unique(each, return_counts=True)
    kind_of = {
        i: _kind(wanted.directory.layout(int(wanted.slot[i])), int(wanted.column[i]), is_words=i in words)
        for i in numbers.tolist()
    }
    # Layouts that come later have higher slots. The newest of all may have no samples in the span.
    newest = max(kind_of, key=lambda i: int(wanted.slot[i]))
    alike = [i for i, kind in kind_of.items() if kind == kind_of[newest]]
    left_out: Counter[str] = Counter()
    for i, n in zip(numbers.tolist(), counts.tolist(), strict=True):
        if i not in alike:
            left_out[kind_of[i]] += n
    mine = np.flatnonzero(np.isin(each, alike))
    mine = mine[np.argsort(samples.ts_ns[mine], kind="stable")]  # layouts lie one behind the other
    bits = samples.values[mine]
    if newest in words:
        values = np.unique(bits, return_inverse=True)[1].astype(np.uint32)
    else:
        values = from_bits(bits, numpy_dtype(wanted.directory.layout(int(wanted.slot[newest])).dtype))
    return SensorSeries(path, samples.ts_ns[mine], values, dict(left_out))


def _kind(layout: Layout, column: int, *, is_words: bool) -> str:
    """What raw values of a column are, as text: the same where codecs may see them as one series."""
    if is_words:  # whose codes are made anew, whatever they were stored as
        return "words"
    scale, offset = layout.columns[column].scale, layout.columns[column].offset
    times = "" if scale == 1 else f" x {scale!r}"
    plus = "" if offset == 0 else f" {'-' if offset < 0 else '+'} {abs(offset)!r}"
    return f"{layout.dtype}{times}{plus}"
