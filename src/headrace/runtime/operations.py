"""What people do to a plant while it runs: pause and probe adapters, follow them, change the configuration, replay.

The control port hands requests here as they come, JSON documents whose words are those of the command line.
"""

from __future__ import annotations

import asyncio
import csv
import io
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from headrace.adapters.abilities import FoundTag, Probes, Scans
from headrace.adapters.base import Pushed, Receipt, Receiver
from headrace.core.clock import NO_TIME, Clock, SystemClock
from headrace.core.config import parse_plant, read_plant
from headrace.core.errors import ConfigError, HeadraceError, NotFound, Overloaded, PluginError, Rejected
from headrace.core.quality import word
from headrace.core.readings import Reading
from headrace.ingest.rejects_log import RejectFilter, RejectsLog, parse_reject_id
from headrace.ingest.tag_rows import rows_of
from headrace.runtime.captures import Tape, head_document, piece_document
from headrace.runtime.giving_way import beside
from headrace.runtime.reconfigure import Reconfiguring
from headrace.runtime.replay import RejectsReplay, filter_of
from headrace.runtime.supervision import Supervisor
from headrace.runtime.tagging import TagWish
from headrace.runtime.times import rfc3339

READINGS_MAX = 1_000
"""Readings of one adapter that are shown to somebody who follows it, every half second."""
_FOLLOW_S = 0.5
_PAUSED_S = 30.0
_REJECTS_SHOWN = 100
_REJECTS_SHOWN_MAX = 1_000


class Operations:
    """The verbs of one running plant. All on the event loop.

    Parameters
    ----------
    replay : of its rejects.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        reconfiguring: Reconfiguring,
        log: RejectsLog,
        replay: RejectsReplay,
        clock: Clock,
    ) -> None:
        self._supervisor, self._reconfiguring = supervisor, reconfiguring
        self._log, self._replay, self._clock = log, replay, clock

    # --- adapters ------------------------------------------------------------------------------------

    async def pause(self, name: str, document: Mapping[str, Any]) -> None:
        """Let an adapter stand still: ``{"by", "reason"}``. Raises as `Supervisor.pause`."""
        await self._supervisor.pause(name, _text(document, "by"), _text(document, "reason"))

    async def resume(self, name: str, document: Mapping[str, Any]) -> None:
        """Let it go on: ``{"by"}``. Raises as `Supervisor.resume`."""
        await self._supervisor.resume(name, _text(document, "by"), partial(self._reconfiguring.make, name))

    async def reload(self, name: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Give it a new instance by the plant file: ``{"by"}``; ``{"code": true}``: with its code imported anew.

        Raises as `Reconfiguring.reload`.
        """
        code = bool(document.get("code", False))
        return await self._reconfiguring.reload(name, _text(document, "by"), code=code)

    async def refresh(self, by: str) -> None:
        """Load what has changed on the disk: code of adapters, the plant file. Told as events."""
        await self._reconfiguring.refresh(by)

    async def probe(self, name: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Look at its source once.

        Raises
        ------
        ConfigError, NotConnected : see `Probes.probe`. PluginError : there is nothing to probe.
        HeadraceError : the source answers with an error of its own.
        """
        adapter = self._supervisor.get(name)
        if not isinstance(adapter, Probes):
            raise PluginError(f"adapter {name} has nothing to probe")
        try:
            found = await adapter.probe({k: str(v) for k, v in document.items()}, self._clock)
        except Rejected as e:  # not the request is wrong: it is what the source says
            raise HeadraceError(str(e)) from e
        return probe_report(found)

    async def scan(self, name: str, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All that its source offers.

        Raises
        ------
        ConfigError, NotConnected : see `Scans.scan`. PluginError : it can't tell what there is.
        HeadraceError : the source answers with an error of its own.
        """
        adapter = self._supervisor.get(name)
        if not isinstance(adapter, Scans):
            raise PluginError(f"adapter {name} can't tell what its source offers")
        try:
            found = await adapter.scan({k: str(v) for k, v in document.items()}, self._clock)
        except Rejected as e:
            raise HeadraceError(str(e)) from e
        return [scan_report(tag) for tag in found]

    def follow(self, name: str, pattern: str = "**") -> AsyncIterator[dict[str, Any]]:
        """What an adapter hands on: readings, ``{"skipped": n}`` where some were passed over, ``{}`` when quiet.

        Raises
        ------
        NotFound, ConfigError, HeadraceError : see `Supervisor.tap`; at once, not when it is iterated.
        """
        tap = self._supervisor.tap(name, pattern)

        async def documents() -> AsyncIterator[dict[str, Any]]:
            try:
                while (found := await tap.read(READINGS_MAX, _FOLLOW_S)) is not None:
                    for reading in found[0]:
                        yield reading_report(reading)
                    if found[1]:
                        yield {"skipped": found[1]}
                    if found == ([], 0):
                        yield {}
                    else:  # a person reads no faster, and the event loop has other work
                        await SystemClock().sleep(_FOLLOW_S)
            finally:
                self._supervisor.untap(name, tap)

        return documents()

    def capture(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """What an adapter receives, byte by byte: a head, pieces, ``{"skipped": n}``, ``{}`` when quiet.

        Raises
        ------
        NotFound : no such adapter. HeadraceError : it can't be captured, or somebody does already. At once, not when
        it is iterated.
        """
        supervisor, tape = self._supervisor, Tape()
        supervisor.check_capture(name)
        protocol = supervisor.get(name).diagnostics().protocol
        head = head_document(name, protocol, self._clock.now_ns())

        async def documents() -> AsyncIterator[dict[str, Any]]:
            supervisor.listen(name, tape.take)  # not before: who is gone by now would be listening for ever
            try:
                yield head
                is_heard = True
                while is_heard:
                    is_heard = supervisor.is_heard(
                        name, tape.take
                    )  # what has come before its end is on the tape
                    pieces, skipped = await tape.read(_FOLLOW_S)
                    for one in pieces:
                        yield piece_document(one)
                    if skipped:
                        yield {"skipped": skipped}
                    elif not pieces:
                        yield {}
            finally:
                supervisor.unlisten(name, tape.take)

        return documents()

    async def receive(self, name: str, pushed: Pushed) -> Receipt:
        """Hand a body to an adapter that is pushed to; returns once it is durable.

        Raises
        ------
        NotFound : no such adapter. Overloaded : it is paused, or full. Rejected : it can't be read, or the adapter
        goes to its devices itself.
        """
        adapter = self._supervisor.get(name)
        pause = self._supervisor.pause_of(name)
        if pause is not None:
            raise Overloaded(f"adapter {name} is {pause.text}", _PAUSED_S)
        if not isinstance(adapter, Receiver):
            raise Rejected(f'adapter {name!r} is not pushed to; write one with protocol = "http" for that')
        return await adapter.receive(pushed)

    # --- rejects -------------------------------------------------------------------------------------

    async def rejects(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Counts of rejects by adapter and code, and the newest of them, one by one."""
        wanted = filter_of(document)
        tables = await asyncio.to_thread(self._log.tables)
        return await asyncio.to_thread(rejects_report, tables, wanted, _limit(document, _REJECTS_SHOWN))

    async def reject(self, reject_id: str) -> dict[str, Any]:
        """One reject with its bytes. Raises `NotFound`, `ConfigError`."""
        tables = await asyncio.to_thread(self._log.tables)
        return await asyncio.to_thread(reject_report_of, tables, reject_id)

    async def replay_rejects(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Replay: a filter, ``limit``, ``dry_run``. Raises as `RejectsReplay.run`."""
        wanted = filter_of(document)
        return await self._replay.run(wanted, _limit(document, 1_000), bool(document.get("dry_run", False)))

    # --- configuration -------------------------------------------------------------------------------

    def present_config(self) -> dict[str, Any]:
        """The configuration that runs."""
        return self._reconfiguring.present()

    async def change_config(self, document: Mapping[str, Any], if_match: str, is_dry: bool) -> dict[str, Any]:
        """Apply ``{"toml", "file"}`` or ``{"config"}``, or go back: ``{"undo": true}``; with ``by``.

        Or of the tags alone: ``{"tags": a normalised table, "adapter", "whole"}``, ``{"undo": true, "tags": true}``.

        Raises
        ------
        ConfigError : it says none of these. Else as `Reconfiguring.apply` and `undo`.
        """
        changing, by = self._reconfiguring, _text(document, "by")
        if document.get("undo") and document.get("tags"):
            return await changing.undo_tags(by, if_match=if_match, is_trial=is_dry)
        if document.get("tags") is not None:
            tags = await beside(partial(tag_wish, document))
            return await changing.apply_tags(tags, by, if_match=if_match, is_trial=is_dry)
        if document.get("undo"):
            return await changing.undo(by, if_match=if_match, is_trial=is_dry)
        source = changing.source_of(_text(document, "file"))
        if isinstance(document.get("toml"), str):
            config = read_plant(document["toml"], source)
        elif isinstance(document.get("config"), Mapping):
            config = parse_plant(document["config"], source.file.parent)
        else:
            raise ConfigError('say what to apply: {"toml": "..."}, {"config": {...}} or {"undo": true}')
        return await changing.apply(config, by, if_match=if_match, is_trial=is_dry)


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str) or len(value) > 1 << 24:
        raise ConfigError(f"{key} is not a text", key)
    return value


def tag_wish(document: Mapping[str, Any]) -> TagWish:
    """What somebody wants of a plant's tags: ``{"tags", "adapter", "whole"}``. Raises `ConfigError`."""
    lines = list(csv.reader(io.StringIO(_text(document, "tags"), newline="")))
    rows = rows_of(lines[0] if lines else [], lines[1:], "the table")
    return TagWish(rows, _text(document, "adapter"), bool(document.get("whole", False)))


def _limit(document: Mapping[str, Any], default: int) -> int:
    value = document.get("limit", default)
    if not isinstance(value, int) or not 1 <= value <= _REJECTS_SHOWN_MAX:
        raise ConfigError(f"limit is a number from 1 to {_REJECTS_SHOWN_MAX:,}", "limit")
    return value


def reading_report(reading: Reading) -> dict[str, Any]:
    """One reading, JSON-ready."""
    return {
        "path": reading.path,
        "ts": rfc3339(reading.ts_ns),
        "value": reading.value,
        "quality": word(reading.quality),
    }


def probe_report(found: dict[str, Any]) -> dict[str, Any]:
    """What a probe found, with times as the API writes them.

    Of its ``table`` a column whose name ends in ``_ns`` holds times: its name loses that ending.
    """
    table = found.get("table")
    if table is not None:
        found = {**found, "table": _timed_table(table)}
    lists: dict[str, Any] = {
        key: [_with_times(one) for one in found[key]] for key in ("topics", "nodes") if key in found
    }
    return {**found, **lists}


def _with_times(one: dict[str, Any]) -> dict[str, Any]:
    values = [
        {
            "path": v["path"],
            "ts": None if v["ts_ns"] == NO_TIME else rfc3339(v["ts_ns"]),
            "value": v["value"],
            "quality": v["quality"],
        }
        for v in one["values"]
    ]
    return {**one, "values": values}


def scan_report(tag: FoundTag) -> dict[str, Any]:
    """One thing that a source offers, JSON-ready."""
    found = asdict(tag)
    ts_ns, value = found.pop("ts_ns"), found["value"]
    is_number = not isinstance(value, float) or math.isfinite(value)
    return {**found, "value": value if is_number else None, "ts": rfc3339(ts_ns)}


def _timed_table(table: Mapping[str, Any]) -> dict[str, Any]:
    columns = [str(name) for name in table["columns"]]
    is_time = [name.endswith("_ns") for name in columns]
    rows = [
        [
            rfc3339(cell) if timed and cell is not None else cell
            for cell, timed in zip(row, is_time, strict=True)
        ]
        for row in table["rows"]
    ]
    return {"columns": [name.removesuffix("_ns") for name in columns], "rows": rows}


def rejects_report(tables: Any, wanted: RejectFilter, limit: int) -> dict[str, Any]:
    """Rejects by adapter and code, and the newest `limit` of them, newest first, JSON-ready."""
    counts = [
        {
            **{k: v for k, v in row.items() if not k.endswith("_ns")},
            "first": rfc3339(row["first_ns"]),
            "last": rfc3339(row["last_ns"]),
        }
        for row in tables.summary(wanted)
    ]
    newest = [
        {
            "id": kept.id,
            "adapter": kept.reject.adapter,
            "code": str(kept.reject.code),
            "source": kept.reject.source,
            "detail": kept.reject.detail,
            "arrived": rfc3339(kept.reject.arrival_ns),
            "samples": kept.reject.n_samples,
            "size_bytes": len(kept.reject.raw),
        }
        for kept in reversed(tables.newest(wanted, limit))
    ]
    return {"counts": counts, "rejects": newest, "problems": tables.problems}


def reject_report_of(tables: Any, reject_id: str) -> dict[str, Any]:
    """One reject with its bytes as hexadecimal digits and as text, JSON-ready. Raises `NotFound`."""
    found = tables.chosen(RejectFilter(ids=frozenset([parse_reject_id(reject_id)])), 1)
    if not found:
        raise NotFound(
            f"no reject {reject_id!r} is kept: it was replayed, or dropped because the bound was reached"
        )
    reject = found[0].reject
    return {
        "id": found[0].id,
        "adapter": reject.adapter,
        "code": str(reject.code),
        "source": reject.source,
        "detail": reject.detail,
        "arrived": rfc3339(reject.arrival_ns),
        "samples": reject.n_samples,
        "size_bytes": len(reject.raw),
        "hex": reject.raw.hex(),
        "text": reject.raw.decode("utf-8", "backslashreplace"),
    }
