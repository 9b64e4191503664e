"""From rows of several segments to the newest version of every sample: what compaction and ageing write anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.errors import CorruptionError
from headrace.core.sensors import Selection
from headrace.store.decoding import Decoding
from headrace.store.pace import Pace
from headrace.store.query import Scan, Store
from headrace.store.reader import FoundRows
from headrace.store.resolutions import encode_rollups
from headrace.store.runs import SensorSamples
from headrace.store.time_axes import TimeAxes
from headrace.store.view import Source
from headrace.store.wanted import Lane, Wanted
from headrace.store.warm_rows import ChunkRules, encode_warm
from headrace.store.words import Words

I64 = npt.NDArray[np.int64]
Keep = Callable[[FoundRows], npt.NDArray[np.bool_]]
_PIECE_SAMPLES = 500_000
"""About how many samples are encoded between two looks at how much CPU that took: a slice of `headrace.store.pace`, 50 ms."""


class Unreadable(CorruptionError):
    """Some sources are damaged; `names` says which."""

    def __init__(self, message: str, names: set[str]) -> None:
        super().__init__(message)
        self.names = names


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """Samples of some sensors, raw, and the newest journal number of each: ``seq: int64[wanted.n]``.

    ``n_read`` bytes of payloads were read for them.
    """

    wanted: Wanted
    samples: SensorSamples
    words: Words
    seq: I64
    n_read: int = 0

    def encode(self, pace: Pace, rules: ChunkRules) -> pa.Table:
        """Warm rows, piece by piece; `pace` is told what was read for them, and how it goes on."""
        tables, axes = [], TimeAxes()
        pace.tick(self.n_read)
        for piece in _pieces(self.samples):
            tables.append(encode_warm(self.wanted, piece, self.words, self.seq, rules, axes))
            pace.tick()
        return pa.concat_tables(tables)

    def rolled(self, warm: pa.Table, asked: I64, resolutions_ns: tuple[int, ...]) -> pa.Table | None:
        """Rollups of a day: see `headrace.store.resolutions.encode_rollups`."""
        return encode_rollups(self.wanted, self.samples, self.words, self.seq, warm, asked, resolutions_ns)


def merge(
    store: Store,
    sources: Sequence[Source],
    selection: Selection,
    span: tuple[int, int],
    keep: Keep | None = None,
) -> Merged | None:
    """The newest versions of all samples of some sensors in a span; None where there are none.

    Parameters
    ----------
    keep : which of the rows that were found count: bool[n]; None for all.

    Raises
    ------
    Unreadable : rows of some sources are damaged. CorruptionError : a source is, or is missing.
    """
    wanted = Wanted(store.directory, store.series, selection, is_raw=True)
    scan: Scan = store.scan_sources(sources, wanted, *span)
    decoding = Decoding(wanted)
    seq = np.full(wanted.n, -1, np.int64)
    parts, n_read = [(found, place) for found, place, _ in scan.found], 0
    if keep is not None:
        kept = [(found, place, np.flatnonzero(keep(found))) for found, place in parts]
        parts = [(found.take(index), place[index]) for found, place, index in kept]
    if parts:  # all at once: a segment has few rows of each kind
        found, place = FoundRows.join([one for one, _ in parts]), np.concatenate([one for _, one in parts])
        decoding.add_rows(found, place)
        n_read = int(found.rows.n_bytes.sum())
        _newest_seq(wanted, found.rows.column, place, found.rows.seq, seq)
    if decoding.damaged:
        raise Unreadable("; ".join(decoding.damaged), decoding.bad_segments)
    if scan.missing:
        raise CorruptionError("; ".join(scan.missing))
    same = store.series.shared(wanted.slot, wanted.column)
    samples = decoding.samples(*span, same).get(Lane.SIGNED)
    if samples is None or not len(samples):
        return None
    return Merged(wanted, samples, decoding.words, seq, n_read)


def all_columns(store: Store, slots: list[int]) -> Selection:
    """Every sensor of some slots."""
    slot = np.array(slots, np.uint32)
    width = store.directory.width[slot]
    column = np.arange(int(width.sum())) - np.repeat(np.cumsum(width) - width, width)
    each = np.repeat(slot, width)
    return Selection(each, column.astype(np.uint16), np.zeros(len(each), np.uint64))


def _pieces(samples: SensorSamples) -> list[SensorSamples]:
    """Whole sensors, so many at a time."""
    number = samples.start[:-1] // _PIECE_SAMPLES
    first = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
    out = []
    for a, b in zip(first.tolist(), [*first[1:].tolist(), len(number)], strict=True):
        low, high = int(samples.start[a]), int(samples.start[b])
        out.append(
            SensorSamples(
                samples.sensor[a:b], samples.start[a : b + 1] - low, samples.ts_ns[low:high],
                samples.values[low:high], samples.quality[low:high],
            )
        )  # fmt: skip
    return out


def _newest_seq(wanted: Wanted, column: npt.NDArray[np.int32], place: I64, row_seq: I64, seq: I64) -> None:
    """Raise `seq` of each sensor to that of the rows that have it."""
    element = wanted.elements(column, place)
    single = element >= 0
    np.maximum.at(seq, wanted.sensor[element[single]], row_seq[single])
    whole = (column < 0) & (place >= 0)
    newest = np.full(len(wanted.start) - 1, -1, np.int64)
    np.maximum.at(newest, place[whole], row_seq[whole])
    np.maximum.at(seq, wanted.sensor, np.repeat(newest, np.diff(wanted.start)))
