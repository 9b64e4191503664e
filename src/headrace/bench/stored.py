"""What is physically in a store's segments: every sample in every row, not what an answer makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from headrace.core.sensors import DERIVED
from headrace.store.query import Store


@dataclass(frozen=True, slots=True)
class Stored:
    """Samples in the segments, and bytes of whole rows' payloads, of devices and of pipelines."""

    n_raw: int
    n_derived: int
    raw_bytes: int
    derived_bytes: int
    file_bytes: int


def count_stored(store: Store) -> Stored:
    """Read the headers of all live segments."""
    n = {True: 0, False: 0}
    size = {True: 0, False: 0}
    files = 0
    view = store.refresh()
    for source in view.sources(-(2**63), 2**63 - 1):
        segment = store.reader.open(source.info)
        table = segment.table(["path", "n_samples", "n_bytes"])
        derived = pc.match_substring(table["path"], f"#{DERIVED}")
        files += segment.info.size_bytes
        for which in (True, False):
            rows = table.filter(derived if which else pc.invert(derived))
            n[which] += pc.sum(rows["n_samples"].cast("int64")).as_py() or 0
            size[which] += pc.sum(rows["n_bytes"].cast("int64")).as_py() or 0
    return Stored(n[False], n[True], size[False], size[True], files)
