"""Of which series there are rollups that stand for all their samples: what the tiers ask before they drop these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.store.commits import SegmentInfo
from headrace.store.grouping import DAY_NS
from headrace.store.headers import EXACT_DTYPES
from headrace.store.reader import SegmentReader
from headrace.store.resolutions import resolutions_of, unpack_blocks

Series = tuple[int, int, int]
"""Group, layout, column: the samples that one row is of."""


class Rolled(NamedTuple):
    """Rollups of one series over some days: the finest windows that every day has, ns, and usable samples in them."""

    finest_ns: int
    n_usable: int


def rolled_series(reader: SegmentReader, files: Iterable[SegmentInfo]) -> dict[Series, Rolled]:
    """What there is of each series in files with rollups. Every rollup's checksum is compared.

    Raises
    ------
    CorruptionError, NotFound : a file is damaged or gone.
    """
    out: dict[Series, Rolled] = {}
    for info in files:
        file = reader.open(info)
        for rows in reader.all_headers(info):
            names = [resolutions_of(times) for times, _ in rows.codecs]
            has_header = EXACT_DTYPES[rows.dtype]
            data, starts = file.payloads(rows.offset, rows.n_bytes)
            for row, series in enumerate(series_of(rows.group, rows.layout, rows.column)):
                code = int(rows.codec[row])
                unpack_blocks(data[starts[row] : starts[row + 1]].tobytes(), rows.codecs[code][0])
                kept = (DAY_NS, *names[code]) if has_header[row] else names[code]
                before = out.get(series, Rolled(0, 0))
                count = before.n_usable + int(rows.count[row])
                out[series] = Rolled(max(before.finest_ns, min(kept)), count)
    return out


def complete_series(
    rolled: dict[Series, Rolled],
    series: Sequence[Series],
    n_usable: npt.NDArray[np.int64],
    finest_ns: Sequence[int],
) -> npt.NDArray[np.bool_]:
    """Of which rows rollups stand for all samples of their series: bool[n].

    Parameters
    ----------
    series, n_usable : of each row, and its usable samples; all rows of a series are there. finest_ns : windows that there
        have to be of it, or shorter ones.
    """
    total: dict[Series, int] = {}
    for one, n in zip(series, n_usable.tolist(), strict=True):
        total[one] = total.get(one, 0) + n
    nothing = Rolled(0, 0)
    found = (rolled.get(one, nothing) for one in series)
    return np.array(
        [
            not total[one] or (there.n_usable == total[one] and there.finest_ns <= wanted)
            for one, there, wanted in zip(series, found, finest_ns, strict=True)
        ],
        np.bool_,
    )


def series_of(
    group: npt.NDArray[np.uint64],
    layout: npt.NDArray[np.uint64],
    column: npt.NDArray[np.int32] | npt.NDArray[np.int64],
) -> list[Series]:
    """The series of each row."""
    return list(zip(group.tolist(), layout.tolist(), column.tolist(), strict=True))
