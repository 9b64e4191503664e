"""Captures: what an adapter received, byte by byte, as a file, and that file decoded again.

A capture file is text, one JSON object a line: a head, then pieces with their bytes in base64. It holds what came from
the source and no secrets of ours (`headrace.adapters.abilities.Captures`); what a source itself sends in its values is in
it, so it is made by who may read the journal, from the control port, and is not kept by anybody else.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from headrace.adapters.abilities import Captured, Captures, Direction
from headrace.core.errors import ConfigError, PluginError
from headrace.core.quality import word
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.runtime.times import rfc3339

FORMAT = 1
WAITING_BYTES_MAX = 8 << 20
"""Pieces that wait for a reader who is too slow; the oldest are left out and counted."""
_PIECE_BYTES = 200
_VALUES_SHOWN = 200


class Tape:
    """Keeps pieces until they are read, within a bound; never makes the adapter wait. All on the event loop."""

    def __init__(self, bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._pieces: deque[Captured] = deque()
        self._size_bytes = 0
        self._come = asyncio.Event()
        self._n_skipped = 0

    def take(self, one: Captured) -> None:
        """Keep a piece."""
        self._pieces.append(one)
        self._size_bytes += len(one.data) + _PIECE_BYTES
        while self._size_bytes > self._bytes_max and len(self._pieces) > 1:
            self._size_bytes -= len(self._pieces.popleft().data) + _PIECE_BYTES
            self._n_skipped += 1
        self._come.set()

    async def read(self, wait_s: float) -> tuple[list[Captured], int]:
        """What came since the last call, and how many pieces were left out; nothing after `wait_s` without one."""
        try:
            async with asyncio.timeout(wait_s):
                await self._come.wait()
        except TimeoutError:
            return [], 0
        self._come.clear()
        pieces, self._pieces, self._size_bytes = list(self._pieces), deque(), 0
        skipped, self._n_skipped = self._n_skipped, 0
        return pieces, skipped


def head_document(adapter: str, protocol: str, now_ns: int) -> dict[str, Any]:
    """The first line of a capture."""
    return {"headrace_capture": FORMAT, "adapter": adapter, "protocol": protocol, "began": rfc3339(now_ns)}


def piece_document(one: Captured) -> dict[str, Any]:
    """One piece, JSON-ready."""
    out: dict[str, Any] = {"ts_ns": one.ts_ns, "direction": str(one.direction), "source": one.source}
    if one.about:
        out["about"] = dict(one.about)
    return {**out, "data": base64.b64encode(one.data).decode()}


class CapturedPieces:
    """The pieces of a capture file, once.

    Attributes
    ----------
    n_left_out : pieces that the capture itself says were left out. cut : where the file was cut, as a sentence; empty
    where it is whole. Both are known when all pieces were read.
    """

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self.n_left_out = 0
        self.cut = ""

    def __iter__(self) -> Iterator[Captured]:
        """Raises ConfigError: a line can't be read; not for the last one, which may be cut."""
        for number, text in self._numbered:
            if not text.strip():
                continue
            try:
                found = _parsed(number, text)
            except ConfigError:
                if text.endswith("\n"):
                    raise
                self.cut = (
                    f"line {number:,} is cut after {len(text.encode()):,} bytes: what it was is not decoded"
                )
                return  # a line without an end is the last one
            if "data" in found:
                yield _piece(number, found)
            elif isinstance(n := found.get("skipped"), int):
                self.n_left_out += n


def read_capture(lines: Iterable[str]) -> tuple[dict[str, Any], CapturedPieces]:
    """Head and pieces of a capture file, whose lines end as they do in it.

    Raises
    ------
    ConfigError : it is none, or a line of it can't be read.
    """
    numbered = iter(enumerate(lines, 1))
    head = _parsed(*next(numbered, (1, "")))
    if head.get("headrace_capture") != FORMAT:
        raise ConfigError(
            "it does not begin as a capture does; make one with: headrace adapters capture NAME"
        )
    return head, CapturedPieces(numbered)


def _parsed(number: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"line {number} of the capture is no JSON object")
    return found


def _piece(number: int, found: dict[str, Any]) -> Captured:
    try:
        about = {str(k): str(v) for k, v in found.get("about", {}).items()}
        data = base64.b64decode(found["data"], validate=True)
        return Captured(int(found["ts_ns"]), str(found["source"]), data, Direction(found["direction"]), about)
    except (KeyError, ValueError, TypeError, AttributeError) as e:
        raise ConfigError(f"line {number} of the capture can't be read: {e!r}") from e


def decode_report(name: str, protocol: str, adapter: object, pieces: CapturedPieces) -> dict[str, Any]:
    """What an adapter's decoder alone makes of a capture, as a probe tells what it found; nothing is stored.

    Raises
    ------
    PluginError : it can't decode captures. ConfigError : of `read_capture`.
    """
    if not isinstance(adapter, Captures):
        raise PluginError(f"adapter {name} can't decode a capture")
    captured, directory = list(pieces), SensorDirectory()
    batches, rejects = adapter.decode_captured(captured, directory)
    found = [one for batch in batches for one in readings(batch, directory, _VALUES_SHOWN)]
    rows = [[one.path, one.ts_ns, one.value, word(one.quality)] for one in found[:_VALUES_SHOWN]]
    rows += [[r.source, r.arrival_ns, None, f"{r.code}: {r.detail}"] for r in rejects[:_VALUES_SHOWN]]
    n_bytes = sum(len(one.data) for one in captured)
    return {
        "protocol": protocol,
        "samples": sum(batch.n_samples for batch in batches),
        "rejects": len(rejects),
        "facts": [
            ["adapter", f"{name} ({protocol})"],
            ["capture", f"{len(captured):,} pieces, {n_bytes:,} bytes"],
            ["samples", f"{sum(batch.n_samples for batch in batches):,}"],
            ["rejects", f"{len(rejects):,}"],
            *(
                [["left out", f"{pieces.n_left_out:,} pieces, while it was made"]]
                if pieces.n_left_out
                else []
            ),
            *([["cut", pieces.cut]] if pieces.cut else []),
        ],
        "table": {"columns": ["path or source", "ts_ns", "value", "quality"], "rows": rows},
    }
