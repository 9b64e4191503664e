"""Finding sensors by parts of their paths, and a few that are worth a first look. Pure; blocks for a large plant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from headrace.api.listing import SensorFacts, facts_of
from headrace.core.sensors import SensorDirectory

HITS_MAX = 200
_LOOKED_AT = 4_000
_ASK_EVERY = 5_000


@dataclass(frozen=True, slots=True)
class Hits:
    """Sensors that were found, by path. `is_cut` where there are more."""

    sensors: tuple[SensorFacts, ...]
    is_cut: bool


def find_sensors(
    directory: SensorDirectory, text: str, limit: int = HITS_MAX, wanted: Callable[[], bool] = lambda: True
) -> Hits:
    """Sensors whose path has every word of `text` somewhere, whatever their case; measured ones before derived.

    Parameters
    ----------
    wanted : asked now and then; once it says no, the search ends with what it has.

    Cost: about 0.4 µs a group and word, so half a second for a million groups none of which matches.
    """
    words = tuple(dict.fromkeys(text.lower().split()))
    if not words:
        return Hits((), False)
    measured: list[tuple[int, int]] = []
    derived: list[tuple[int, int]] = []
    for slot, columns in _matching(directory, words, wanted):
        into = derived if directory.is_derived(slot) else measured
        into += [(slot, column) for column in columns[: limit + 1 - len(into)]]
        if len(measured) > limit:
            break
    found = (measured + derived)[: limit + 1]
    facts = [facts_of(directory, slot, column, 0) for slot, column in found[:limit]]
    return Hits(tuple(sorted(facts, key=lambda one: (one.is_derived, natural(one.path)))), len(found) > limit)


def _matching(
    directory: SensorDirectory, words: tuple[str, ...], wanted: Callable[[], bool]
) -> Iterator[tuple[int, list[int]]]:
    """Slots and columns that match; of each group its newest slot."""
    n_slots = directory.n_slots
    previous = directory.previous[:n_slots]
    is_newest = np.ones(n_slots, np.bool_)
    is_newest[previous[previous >= 0]] = False
    newest, layout = is_newest.tolist(), directory.layout_index[:n_slots].tolist()
    # A lone sensor's name is its group's path, in which the word is not.
    flat = [one.is_flat or not one.columns[0].name for one in directory.layouts]
    known: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for slot in range(n_slots):
        if slot % _ASK_EVERY == 0 and not wanted():
            return
        if not newest[slot]:
            continue
        path = directory.paths[slot].lower()
        left = tuple(word for word in words if word not in path)
        if any("/" in word for word in left):
            # Such a word can only reach from the device's path into the signal's name.
            is_near = not flat[layout[slot]] or all(
                path.endswith(word.rpartition("/")[0]) for word in left if "/" in word
            )
            columns = _by_whole_path(directory, slot, left) if is_near else []
        else:
            key = (layout[slot], left)
            found = known.get(key)
            if found is None:
                names = [column.name.lower() for column in directory.layouts[layout[slot]].columns]
                found = [i for i, name in enumerate(names) if all(word in name for word in left)]
                known[key] = found
            columns = found
        if columns:
            yield slot, columns


def _by_whole_path(directory: SensorDirectory, slot: int, words: tuple[str, ...]) -> list[int]:
    paths = [directory.sensor_path(slot, i).lower() for i in range(int(directory.width[slot]))]
    return [i for i, path in enumerate(paths) if all(word in path for word in words)]


def natural(path: str) -> list[str | int]:
    """A key that sorts ``oven2`` before ``oven10``."""
    # Text stands at even places and numbers at odd ones, so that like is compared with like.
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d{1,18})", path))]


def first_look(directory: SensorDirectory, n: int = 4) -> list[str]:
    """Paths of a few sensors that show a plant's life: measured ones of several units, and one state with words."""
    by_unit: dict[str, str] = {}
    state = ""
    for slot in range(min(directory.n_slots, _LOOKED_AT)):
        if directory.is_derived(slot):
            continue
        for column, one in enumerate(directory.layout(slot).columns):
            if one.labels and not state:
                state = directory.sensor_path(slot, column)
            elif one.kind.name == "ANALOG" and not one.labels:
                by_unit.setdefault(one.unit, directory.sensor_path(slot, column))
    # Those with a unit first: a value without one says less.
    analog = [path for unit, path in by_unit.items() if unit] + [p for u, p in by_unit.items() if not u]
    chosen = analog[: n - bool(state)]
    return [*chosen, state] if state else chosen
