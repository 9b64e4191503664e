"""Finding sensors by pattern: by group where the pattern's levels allow it, many paths at a time.

A level of a pattern never matches a '/', so for a signal that is one level below its group the last level of the
pattern is matched against the names of a layout once, and the levels before it against the paths of the groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from headrace.core.layouts import Column
from headrace.core.paths import pattern_regex
from headrace.core.sensors import SensorDirectory, join_path

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
MATCHED_SINGLY_MAX = 2_000
_SELF = re.compile(r"\.\./\{self\}([^{}/]*)")
_WILD = re.compile(r"[*{]")


class Finding:
    """One search of a directory."""

    def __init__(self, directory: SensorDirectory, pattern: str) -> None:
        self._directory = directory
        self._n = directory.n_slots
        self._whole = pattern_regex(pattern)
        levels = pattern.strip("/").split("/")
        while levels[-2:] == ["**", "**"]:
            levels.pop()
        self._levels = levels
        tail = _WILD.split("/".join(levels))[-1]
        self._tail = "" if levels[-1] == "**" else tail.rpartition("}")[2]
        self._matched: dict[str, Bools] = {}

    def slots_and_columns(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        """All sensors that match: the newest slot of each, in order of slot and column."""
        slots, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for some, its_columns in [*self._of_newest(), *self._of_dropped()]:
            slots.append(np.repeat(some, len(its_columns)))
            columns.append(np.tile(its_columns, len(some)))
        slot, column = np.concatenate(slots), np.concatenate(columns)
        if len(slots) > 2:
            order = np.lexsort((column, slot))
            slot, column = slot[order], column[order]
        return slot.astype(np.uint32), column.astype(np.uint16)

    # --- newest slots --------------------------------------------------------------------------------

    def _of_newest(self) -> Iterator[tuple[I64, I64]]:
        """(slots, columns that match of each), layout by layout."""
        directory, n = self._directory, self._n
        newest = np.ones(n, np.bool_)
        renewed = directory.renewed[directory.renewed < n]
        newest[directory.previous[renewed]] = False
        slots = np.flatnonzero(newest)
        index = directory.layout_index[slots]
        order = (
            np.argsort(index, kind="stable")
            if len(index) and (index != index[0]).any()
            else np.arange(len(slots))
        )
        first = np.flatnonzero(np.append(True, np.diff(index[order]) != 0))[: len(order)]
        for some in np.split(slots[order], first[1:]):
            if len(some):
                yield from self._of_layout(some)

    def _of_layout(self, slots: I64) -> Iterator[tuple[I64, I64]]:
        """The same of slots of one layout."""
        columns = self._directory.layout(int(slots[0])).columns
        flat = [i for i, c in enumerate(columns) if c.name and "/" not in c.name]
        below, path_only = self._split(self._levels, flat, columns)
        if below:
            yield slots, np.array(below, np.int64)
        for pattern, some in path_only:
            hit = slots[self._of_paths(pattern)[slots]]
            if len(hit):
                yield hit, np.array(some, np.int64)
        for i, column in enumerate(columns):
            if not column.name:
                yield slots[self._of_paths("/".join(self._levels))[slots]], np.array([i])
            elif "/" in column.name:
                yield self._of_far(slots, column), np.array([i])

    def _split(
        self, levels: list[str], flat: list[int], columns: tuple[Column, ...]
    ) -> tuple[list[int], list[tuple[str, list[int]]]]:
        """Columns that match whatever the group is, and patterns of groups whose columns do."""
        if not flat or levels == ["**"]:
            return flat, []
        if levels[-1] != "**":
            last = pattern_regex(levels[-1])
            named = [i for i in flat if last.fullmatch(columns[i].name)]
            if not named or len(levels) == 1:
                return [], []
            return (named, []) if levels[:-1] == ["**"] else ([], [("/".join(levels[:-1]), named)])
        # "a/b/**": what is below a/b, and what is a/b itself.
        below, exact = self._split(levels[:-1], flat, columns)
        return below, [("/".join(levels), flat), *exact]

    def _of_paths(self, pattern: str) -> Bools:
        """Which groups' paths match a pattern."""
        known = self._matched.get(pattern)
        if known is None:
            known = self._matched[pattern] = match_paths(self._directory, pattern, self._n)
        return known

    def _of_far(self, slots: I64, column: Column) -> I64:
        """Slots of which a column that stands beside or far below its group matches."""
        suffix = _SELF.fullmatch(column.name)
        if suffix is not None and not _may_end(self._tail, suffix[1]):
            return slots[:0]
        directory = self._directory
        hits = [
            s for s in slots.tolist() if self._whole.fullmatch(join_path(directory.paths[s], column.name))
        ]
        return np.array(hits, np.int64)

    # --- older slots ---------------------------------------------------------------------------------

    def _of_dropped(self) -> Iterator[tuple[I64, I64]]:
        """Older slots with the columns that no later layout of their group has."""
        directory = self._directory
        superseded = set(directory.previous[directory.renewed].tolist())
        for newest in directory.renewed.tolist():
            if newest in superseded or newest >= self._n:
                continue
            slot, previous = newest, int(directory.previous[newest])
            seen: set[int] = set()
            while previous >= 0:
                seen.update(directory.sensors(slot).tolist())
                slot, previous = previous, int(directory.previous[previous])
                left = [i for i, one in enumerate(directory.sensors(slot).tolist()) if one not in seen]
                hits = [i for i in left if self._whole.fullmatch(directory.sensor_path(slot, i))]
                if hits:
                    yield np.array([slot]), np.array(hits)


def _may_end(tail: str, suffix: str) -> bool:
    """Whether a path that ends in `suffix` can end in `tail`."""
    return tail.endswith(suffix) or suffix.endswith(tail)


def match_paths(directory: SensorDirectory, pattern: str, n: int) -> Bools:
    """Which of the first `n` groups have a path that matches: about 50 ns a path where there are many."""
    regex = pattern_regex(pattern)
    if n <= MATCHED_SINGLY_MAX:
        return np.array([regex.fullmatch(path) is not None for path in directory.paths[:n]], np.bool_)
    import pyarrow as pa
    import pyarrow.compute as pc

    starts, data = directory.paths.buffers(n)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(starts)), pa.py_buffer(data)]
    paths = pa.Array.from_buffers(pa.large_string(), n, buffers)
    out = np.zeros(n, np.bool_)
    head = _WILD.split(pattern)[0]
    chosen = np.arange(n)
    if len(head) > 1:
        # "a/**" matches "a" too.
        chosen = np.flatnonzero(pc.starts_with(paths, pattern=head.strip("/")).to_numpy(zero_copy_only=False))
        paths = paths.take(pa.array(chosen)) if len(chosen) < n else paths
    hit = pc.match_substring_regex(paths, pattern=f"^(?:{regex.pattern})$")
    out[chosen] = hit.to_numpy(zero_copy_only=False)
    return out
