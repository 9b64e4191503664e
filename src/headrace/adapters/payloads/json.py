"""JSON objects: ``{"ts": 1795446000.5, "temperature": 181.2, "running": true, "motor": {"rpm": 1480}}``.

An object is one instant of the device; a list of objects is as many. Nested objects give keys with dots
(``motor.rpm``). The rule's `root` names where the object lies; its `time` is looked for in the object and then at the
top of the message.

Two shorter forms of many instants: where the time is a list, its object is a table of columns, ``{"ts": [1, 2], "temp":
[181.2, 181.3]}``; where the rule names `columns`, lists are its lines, ``[[1, 181.2], [2, 181.3]]``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from headrace.adapters.payloads.base import MessagePile, PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.json_columns import ShapedRows
from headrace.adapters.payloads.json_shapes import JsonShapes
from headrace.adapters.payloads.keys import DeviceGroup
from headrace.adapters.payloads.rows import N_REFUSED_MAX, Rows
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.events import RejectCode

N_KEYS_MAX = 4_096
DEPTH_MAX = 16


class FieldsDecoder:
    """The decoder of JSON fields: a scanner for shapes that it knows, msgspec for the others.

    Cost: of what is read by msgspec about 0.2 us for the parse and 1 us for the row of a small message; 0.15 us a
    value in large ones.
    """

    has_keys: ClassVar[bool] = True

    def __init__(self, settings: RuleSettings, times: TimeReader) -> None:
        self._settings = settings
        self._times = times
        self._root = split_key(settings.root)
        self._time = split_key(settings.time or "")
        self._decode = msgspec.json.Decoder().decode
        self._shapes: JsonShapes | None = None
        if not (self._root and len(self._time) > 1) and "" not in (*self._root, *self._time):
            self._shapes = JsonShapes(self._root, self._time, times.factor)

    def read_many(self, pile: MessagePile, rows: Rows) -> Sequence[int]:
        """Read the messages whose shape is known; see `ManyReader`."""
        shapes = self._shapes
        if shapes is not None and not shapes.shapes and shapes.has_room and len(pile.payloads) > 1:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._learn(self._decode(pile.payloads[0]), shapes)
        if shapes is None or not shapes.shapes:
            return range(len(pile.messages))
        return rows.workspace(self, lambda: ShapedRows(rows, self._settings)).read(pile, shapes)

    def read(self, message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Add a row for each object."""
        try:
            top: Any = self._decode(message.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise PayloadError(RejectCode.MALFORMED, f"not JSON: {e}") from None
        if self._shapes is not None and self._shapes.has_room:
            self._learn(top, self._shapes)
        self.add(top, message, group, rows)

    def _learn(self, top: Any, shapes: JsonShapes) -> None:
        """Make the scanner know an object, or the first and the last of a list."""
        node: Any = nested(top, self._root) if self._root else top
        for item in (node[0], node[-1]) if type(node) is list and node else (node,):
            if type(item) is dict:
                shapes.learn(item)

    def add(self, top: Any, message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Add what is decoded already: a row for each object. Raises PayloadError."""
        node: Any = nested(top, self._root) if self._root else top
        if type(node) is dict and self._time and type(nested(node, self._time)) is list:
            self._add_table(node, message, group, rows)
        elif type(node) is list and node and self._settings.columns and list in map(type, node):
            self._add_lines(node, message, group, rows)
        elif type(node) is dict:
            row = self._row(node, top, message, rows)
            if row is not None:
                rows.add(message, group, row[0], (row[1], row[2]), self._settings)
        elif type(node) is list and node:
            if not self._add_alike(node, message, group, rows):
                self._add_each(node, top, message, group, rows)
        else:
            where = f" at {self._settings.root!r}" if self._root else ""
            raise PayloadError(
                RejectCode.MALFORMED, f"expected an object{where} or a list of them, got {node!r:.60}"
            )

    def _add_alike(self, node: list[Any], message: TopicMessage, group: DeviceGroup, rows: Rows) -> bool:
        """Add a list of plain objects with the same keys, column by column; False where it isn't one."""
        if set(map(type, node)) != {dict} or len(set(map(tuple, node))) != 1 or len(self._time) > 1:
            return False
        keys, values = tuple(node[0]), [tuple(item.values()) for item in node]
        if not keys or "" in keys or len(keys) > N_KEYS_MAX or any(dict in map(type, row) for row in values):
            return False
        times = [NO_TIME] * len(node)
        if self._time:
            if self._time[0] not in keys or len(keys) == 1:
                return False
            columns = list(zip(*values, strict=True))
            at = keys.index(self._time[0])
            try:
                times = self._times.read_many(columns.pop(at))
            except PayloadError:
                return False
            keys, values = keys[:at] + keys[at + 1 :], list(zip(*columns, strict=True))
        rows.add_many(message, group, times, (keys, values), self._settings)
        return True

    def _add_table(self, node: dict[str, Any], message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Add an object whose members are columns, beside a list of times; one that is no list is of the first."""
        holder: Any = nested(node, self._time[:-1])
        times: list[Any] = holder.pop(self._time[-1])
        item = self._flat(node, message, rows)
        lists: dict[str, list[Any]] = {}
        alone: dict[str, Any] = {}
        for key, value in item.items():
            if type(value) is not list:
                alone[key] = value
            elif len(value) == len(times):
                lists[key] = value
            else:
                detail = f"key {key!r:.60} has {len(value):,} values for {len(times):,} times"
                rows.refuse(message, RejectCode.MALFORMED, detail, max(1, len(value)))
        if not item or len(item) > N_KEYS_MAX or not times:
            detail = f"a table of {len(item):,} columns and {len(times):,} times"
            n_samples = max(1, len(lists) * len(times) + len(alone))
            rows.refuse(message, RejectCode.MALFORMED, detail, n_samples)
            return
        lines = list(zip(*lists.values(), strict=True)) if lists else []
        self._add_timed(message, group, rows, tuple(lists), list(zip(times, lines, strict=bool(lists))))
        if alone:
            self._add_timed(message, group, rows, tuple(alone), [(times[0], tuple(alone.values()))])

    def _add_lines(self, node: list[Any], message: TopicMessage, group: DeviceGroup, rows: Rows) -> None:
        """Add lists whose places the rule's `columns` name."""
        columns, time = self._settings.columns, self._settings.time
        keys = tuple(key for key in columns if key != time)
        timed: list[tuple[Any, tuple[Any, ...]]] = []
        for line in node:
            if type(line) is not list or len(line) != len(columns):
                detail = f"{line!r:.60} is no list of {len(columns)}: {','.join(columns)!s:.120}"
                rows.refuse(message, RejectCode.MALFORMED, detail, len(keys))
                continue
            at = line.pop(columns.index(time)) if time in columns else None
            timed.append((at, tuple(line)))
        self._add_timed(message, group, rows, keys, timed)

    def _add_timed(
        self, message: TopicMessage, group: DeviceGroup, rows: Rows, keys: tuple[str, ...],
        lines: list[tuple[Any, tuple[Any, ...]]],
    ) -> None:  # fmt: skip
        """Add lines of values of the same keys, each with its time as it is written."""
        times: list[int] = []
        values: list[tuple[Any, ...]] = []
        for number, (time, line) in enumerate(lines):
            try:
                times.append(NO_TIME if time is None else self._times.read(time))
            except PayloadError as e:
                rows.refuse(message, e.code, e.detail, len(keys))
                if number - len(values) > N_REFUSED_MAX:
                    detail = f"more than {N_REFUSED_MAX:,} mistakes; what follows was not read"
                    n_samples = max(1, (len(lines) - number - 1) * len(keys))
                    rows.refuse(message, RejectCode.MALFORMED, detail, n_samples)
                    break
                continue
            values.append(line)
        if values:
            rows.add_many(message, group, times, (keys, values), self._settings)

    def _add_each(
        self, node: list[Any], top: Any, message: TopicMessage, group: DeviceGroup, rows: Rows
    ) -> None:
        """Add a list of objects of any kind, one by one."""
        n_refused = 0
        for number, item in enumerate(node):
            row = self._row(item, top, message, rows)
            if row is not None:
                rows.add(message, group, row[0], (row[1], row[2]), self._settings)
                continue
            n_refused += 1
            if n_refused > N_REFUSED_MAX and number + 1 < len(node):
                detail = f"more than {N_REFUSED_MAX:,} mistakes; what follows was not read"
                rows.refuse(message, RejectCode.MALFORMED, detail, len(node) - number - 1)
                return

    def _row(
        self, item: Any, top: Any, message: TopicMessage, rows: Rows
    ) -> tuple[int, tuple[str, ...], tuple[Any, ...]] | None:
        """Time, keys and values of an object; None where it was refused."""
        if type(item) is not dict:
            rows.refuse(message, RejectCode.MALFORMED, f"expected a list of objects, got {item!r:.60} in it")
            return None
        try:
            ts_ns = self._take_time(item, top) if self._time else NO_TIME
        except PayloadError as e:
            rows.refuse(message, e.code, e.detail, max(1, len(item)))
            return None
        if "" in item or dict in map(type, item.values()):
            item = self._flat(item, message, rows)
        if not item or len(item) > N_KEYS_MAX:
            detail = f"an object of {len(item):,} values, expected 1 to {N_KEYS_MAX:,}"
            rows.refuse(
                message, RejectCode.TOO_LARGE if item else RejectCode.MALFORMED, detail, max(1, len(item))
            )
            return None
        return ts_ns, tuple(item), tuple(item.values())

    def _take_time(self, item: dict[str, Any], top: Any) -> int:
        """The time, taken out of the object so that it is no value."""
        holder: Any = item if len(self._time) == 1 else nested(item, self._time[:-1])
        value = holder.pop(self._time[-1], None) if type(holder) is dict else None
        if value is None and top is not item:
            value = nested(top, self._time)
        return NO_TIME if value is None else self._times.read(value)

    def _flat(self, item: dict[str, Any], message: TopicMessage, rows: Rows) -> dict[str, Any]:
        """Nested objects as keys with dots; keys without a name, twice, or too deep are refused."""
        out: dict[str, Any] = {}
        todo = [("", item, 1)]
        while todo:
            prefix, node, depth = todo.pop()
            for name, value in node.items():
                key = prefix + name
                if type(value) is dict and name and depth < DEPTH_MAX:
                    todo.append((f"{key}.", value, depth + 1))
                elif not name or key in out or type(value) is dict:
                    detail = f"key {key!r:.60} has no name, is there twice, or lies deeper than {DEPTH_MAX} objects"
                    rows.refuse(message, RejectCode.UNKNOWN_TAG, detail, _n_values(value))
                else:
                    out[key] = value
        return out


def _n_values(value: object) -> int:
    """Values in decoded JSON that is refused as a whole, at least 1."""
    n, todo = 0, [value]
    while todo:
        one = todo.pop()
        if type(one) is dict:
            todo += one.values()
        else:
            n += one is not None
    return max(1, n)


def nested(data: object, keys: tuple[str, ...]) -> object:
    """What lies at a nested key of decoded JSON; None where there is nothing."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def split_key(text: str) -> tuple[str, ...]:
    """``a.b`` as its parts; empty text has none."""
    return tuple(text.split(".")) if text else ()
