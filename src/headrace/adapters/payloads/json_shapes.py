"""Shapes of JSON objects that were seen, as the tree that the scanner walks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads import json_scanner as scanner
from headrace.adapters.payloads.json_scanner import (
    NOTHING,
    NUMBER,
    NUMBERS,
    OPEN,
    TEXT,
    TIME,
    TRUTH,
    JsonTables,
)

N_SHAPES_MAX = 1_024
N_NODES_MAX = 65_536
N_TRIES_MAX = 20_000
N_KEYS_MAX = 4_096
KEY_BYTES_MAX = 1_024
_ROOT_ROW = [-1, -1, -1, -1, -1, -1]
_KINDS: dict[type, int] = {int: NUMBER, float: NUMBER, bool: TRUTH, str: TEXT, type(None): NOTHING}
_LIKE: dict[int, Any] = {NUMBER: 0.5, NUMBERS: 0.5, TRUTH: True, TEXT: "", NOTHING: None}


@dataclass(frozen=True, eq=False)
class JsonShape:
    """One shape: its keys in order (nested ones with dots), values like those that it has, and the place of each."""

    keys: tuple[str, ...]
    values: tuple[Any, ...]
    places: npt.NDArray[np.int64]


class _Unfit(Exception):
    """The object has something that the scanner does not read."""


class JsonShapes:
    """The tree of one topic rule.

    Parameters
    ----------
    root : keys that lead to the rows. time : keys of the time in a row; factor : nanoseconds of its unit, 0 for auto.
    """

    def __init__(self, root: tuple[str, ...], time: tuple[str, ...], factor: int) -> None:
        self.shapes: list[JsonShape] = []
        self._time = time
        self._n_tries = 0
        self._rows = [list(_ROOT_ROW)]
        self._keys: dict[bytes, tuple[int, int]] = {}
        self._arena = bytearray()
        front = [*root, *(time[:1] if root else ())]
        self._front = np.array([self._key(name) for name in front], np.int64).reshape(-1, 2)
        self._facts = np.array([factor, bool(root and time), len(root)], np.int64)
        self.tables = self._tables()

    @property
    def has_room(self) -> bool:
        """Whether more would be learned."""
        return (
            self._n_tries < N_TRIES_MAX and len(self.shapes) < N_SHAPES_MAX and len(self._rows) < N_NODES_MAX
        )

    def learn(self, item: Mapping[str, Any]) -> None:
        """Make the shape of an object known, where the scanner can read it."""
        self._n_tries += 1
        try:
            way = self._way(item)
        except _Unfit:
            return
        node = 0
        for key, kind in way:
            node = self._follow(node, key, kind)
        if self._rows[node][scanner.SHAPE] < 0:
            self._rows[node][scanner.SHAPE] = len(self.shapes)
            self.shapes.append(_shape(way))
            self.tables = self._tables()

    def _way(self, item: Mapping[str, Any]) -> list[tuple[tuple[str, ...], int]]:
        """The nodes of an object: where each is, and its kind. Raises _Unfit."""
        way: list[tuple[tuple[str, ...], int]] = []
        self._walk(item, (), way)
        has_lists = {kind & 7 == NUMBERS for _, kind in way if kind & 7 != OPEN and kind != scanner.CLOSE}
        names = [".".join(path) for path, kind in way if kind < TIME and kind not in (OPEN, scanner.CLOSE)]
        if len(has_lists) != 1 or not 0 < len(names) <= N_KEYS_MAX or len(set(names)) != len(names):
            raise _Unfit
        if has_lists == {True} and (
            not any(kind == TIME | NUMBERS for _, kind in way) or not _are_even(item)
        ):
            raise _Unfit
        return way

    def _walk(
        self, item: Mapping[str, Any], path: tuple[str, ...], way: list[tuple[tuple[str, ...], int]]
    ) -> None:
        for name, value in item.items():
            here = (*path, name)
            if not name or not _is_plain(name) or len(here) > scanner.DEPTH_MAX:
                raise _Unfit
            is_time = here == self._time
            if type(value) is dict and not is_time:
                way.append((here, OPEN))
                self._walk(value, here, way)
                way.append((here, scanner.CLOSE))
                continue
            kind = _kind(value)
            if is_time and kind not in (NUMBER, TEXT, NUMBERS):
                raise _Unfit
            way.append((here, kind | TIME if is_time else kind))

    def _follow(self, node: int, path: tuple[str, ...], kind: int) -> int:
        """The node behind `node`, which is made where there is none."""
        start, end = (-1, -1) if kind == scanner.CLOSE else self._key(path[-1])
        last, child = -1, self._rows[node][scanner.CHILD]
        while child >= 0:
            row = self._rows[child]
            if row[scanner.KEY] == start and row[scanner.KIND] == kind:
                return child
            last, child = child, row[scanner.SIBLING]
        new = len(self._rows)
        self._rows.append([start, end, kind, -1, -1, -1])
        self._rows[node if last < 0 else last][scanner.CHILD if last < 0 else scanner.SIBLING] = new
        return new

    def _key(self, name: str) -> tuple[int, int]:
        data = name.encode()
        place = self._keys.get(data)
        if place is None:
            place = self._keys[data] = len(self._arena), len(self._arena) + len(data)
            self._arena += data
        return place

    def _tables(self) -> JsonTables:
        arena = np.frombuffer(bytes(self._arena) or b"\x00", np.uint8)
        return JsonTables(arena, np.array(self._rows, np.int64), self._facts, self._front)


def _shape(way: list[tuple[tuple[str, ...], int]]) -> JsonShape:
    some = [(path, kind) for path, kind in way if kind < TIME and kind not in (OPEN, scanner.CLOSE)]
    has_value = np.array([kind != NOTHING for _, kind in some])
    places = np.cumsum(has_value) - 1
    return JsonShape(
        tuple(".".join(path) for path, _ in some), tuple(_LIKE[kind] for _, kind in some), places
    )


def _kind(value: Any) -> int:
    """What kind of member a value makes. Raises _Unfit."""
    if type(value) is list:
        if not value or not set(map(type, value)) <= {int, float}:
            raise _Unfit
        return NUMBERS
    try:
        return _KINDS[type(value)]
    except KeyError:
        raise _Unfit from None


def _are_even(item: Mapping[str, Any]) -> bool:
    """Whether all is lists of one length, none of them nested."""
    return len({len(value) if type(value) is list else -1 for value in item.values()}) == 1


def _is_plain(name: str) -> bool:
    """Whether a key stands in JSON as it is."""
    return len(name) <= KEY_BYTES_MAX and '"' not in name and "\\" not in name and name.isprintable()
