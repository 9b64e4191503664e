"""Of which series a day has rollups: what the tiers ask before samples are dropped."""

from __future__ import annotations

import numpy as np

from headrace.core.errors import CorruptionError, NotFound
from headrace.core.paths import format_duration
from headrace.store.grouping import DAY_NS
from headrace.store.headers import EXACT_DTYPES
from headrace.store.reader import SegmentReader
from headrace.store.resolutions import resolutions_of, unpack_blocks
from headrace.store.view import StoreView

Series = tuple[int, int, int]
"""Group, layout, column: the samples that one row is of."""


def kept_resolutions(reader: SegmentReader, view: StoreView, day: int) -> dict[Series, tuple[int, ...]]:
    """Resolutions in ns, coarse ones first, of each series that a day has rollups of. Every rollup's checksum is compared.

    Raises
    ------
    CorruptionError, NotFound : a file is damaged or gone.
    """
    out: dict[Series, tuple[int, ...]] = {}
    manifest = view.manifests.get(day)
    for info in () if manifest is None else manifest.rollups:
        file = reader.open(info)
        for rows in reader.all_headers(info):
            names = [resolutions_of(times) for times, _ in rows.codecs]
            has_header = EXACT_DTYPES[rows.dtype]
            data, starts = file.payloads(rows.offset, rows.n_bytes)
            for row, series in enumerate(_series(rows.group, rows.layout, rows.column)):
                code = int(rows.codec[row])
                unpack_blocks(data[starts[row] : starts[row + 1]].tobytes(), rows.codecs[code][0])
                out[series] = (DAY_NS, *names[code]) if has_header[row] else names[code]
    return out


def rollups_are_complete(reader: SegmentReader, view: StoreView, day: int, finest_ns: int = DAY_NS) -> str:
    """Whether all usable samples of a day could be dropped and rollups go on answering: "", or why not.

    Parameters
    ----------
    finest_ns : windows that there have to be of each series, or shorter ones. For rows of which some have none,
        `kept_resolutions` says which these are.
    """
    manifest = view.manifests.get(day)
    name = str(np.datetime64(day, "D"))
    if manifest is None or not manifest.is_whole:
        return f"{name} is not compacted yet"
    if any(day in view.days_left(info) for info in view.commits.segments) or manifest.beside:
        return f"of {name} samples came late that are in no rollup; they will be when they are merged"
    if not manifest.rollups:
        return f"{name} has no rollups: an earlier release compacted it, or its sensors have too few samples"
    try:
        kept = kept_resolutions(reader, view, day)
        for info in manifest.files:
            for rows in reader.all_headers(info):
                series = _series(rows.group, rows.layout, rows.column)
                for one, count in zip(series, rows.count.tolist(), strict=True):
                    if count and (one not in kept or min(kept[one]) > finest_ns):
                        return f"group {one[0]:016x} has no rollups of {format_duration(finest_ns)} on {name}"
    except (CorruptionError, NotFound) as e:
        return str(e)
    return ""


def _series(group: np.ndarray, layout: np.ndarray, column: np.ndarray) -> list[Series]:
    return list(zip(group.tolist(), layout.tolist(), column.tolist(), strict=True))
