"""What a store keeps of one sensor in files of single sensors: how it is coded there, what that takes and what it costs in error.

A segment of the hot tier holds whole groups in one run; nothing of it is one sensor's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from headrace.core.errors import CorruptionError, NotFound
from headrace.store.manifests import COLD_FOLDER
from headrace.store.query import Store
from headrace.store.schema import SIBLINGS
from headrace.store.segment import SegmentFile
from headrace.store.view import StoreView
from headrace.store.warm import SIBLING, codec_name

_NAMES = ("path", "n_samples", "n_bytes", "value_codec", "bound", "max_error", "rmse", *SIBLINGS)


@dataclass(slots=True)
class KeptSamples:
    """Of one tier.

    Parameters
    ----------
    codecs : samples by the codec of their values. siblings : samples that are predicted from another sensor, by its path.
    max_error, rmse : against the original, engineering units: of the worst chunk.
    """

    n_samples: int = 0
    n_bytes: int = 0
    max_error: float = 0.0
    rmse: float = 0.0
    codecs: Counter[str] = field(default_factory=Counter)
    siblings: Counter[str] = field(default_factory=Counter)


def kept_of(store: Store, view: StoreView, path: str) -> dict[str, KeptSamples]:
    """By tier, warm and cold; tiers without samples of it are left out. Segments that can't be read are passed over."""
    found: dict[str, KeptSamples] = {}
    for info in (one for tier, infos in view.segments.items() if tier != "hot" for one in infos):
        tier = "cold" if info.name.startswith(COLD_FOLDER) else "warm"
        try:
            file = store.reader.open(info)
            for group in range(file.n_groups):
                _add(found, tier, file, group, path)
        except (CorruptionError, NotFound):
            continue
    return found


def _add(found: dict[str, KeptSamples], tier: str, file: SegmentFile, group: int, path: str) -> None:
    """Add the rows of a row group that are the sensor's."""
    paths = file.row_group(group, ["path"])
    rows = [] if paths is None else np.flatnonzero(np.asarray(paths["path"]) == path).tolist()
    table = file.row_group(group, [name for name in _NAMES if name in file.names]) if rows else None
    if table is None:
        return
    kept = found.setdefault(tier, KeptSamples())
    for at in rows:
        row = {name: table[name][at].as_py() for name in table.column_names}
        codec = row["value_codec"]
        kept.n_samples += row["n_samples"]
        kept.n_bytes += row["n_bytes"]
        kept.codecs[codec_name(codec.removeprefix(SIBLING))] += row["n_samples"]
        bound = row.get("bound") or 0.0
        kept.max_error = max(kept.max_error, _or(row.get("max_error"), bound))
        kept.rmse = max(kept.rmse, _or(row.get("rmse"), bound))
        for sibling in _siblings(table, at):
            kept.siblings[sibling] += row["n_samples"]


def _siblings(table: pa.Table, at: int) -> list[str]:
    """Paths of the rows that a row's values are predicted from."""
    ahead = (table[name][at].as_py() or 0 for name in SIBLINGS if name in table.column_names)
    return [str(table["path"][at + one].as_py()) for one in ahead if one]


def _or(error: float | None, bound: float) -> float:
    return bound if error is None or np.isnan(error) else float(error)
