"""Reading a store from any process, whether its engine runs or not.

What is committed is read from the store. What is not flushed yet comes from the engine where one runs and
answers, otherwise out of its journal, so that a query sees every acknowledged sample also after a crash.
Nothing is locked and nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.core.disk import Disk, LocalDisk
from headrace.core.errors import HeadraceError, NotFound, Unreachable
from headrace.core.frames import FrameBatch
from headrace.core.paths import parse_duration_ns
from headrace.core.sensors import SensorDirectory
from headrace.core.spans import parse_range
from headrace.ingest.journal_format import Record, RecordKind
from headrace.ingest.journal_reader import Damage, read_records
from headrace.runtime.announcement import EngineClient, is_store, read_announcement
from headrace.runtime.tail_format import read_tail
from headrace.runtime.times import local_time
from headrace.store.commits import CommitView, ShardPosition

if TYPE_CHECKING:
    from headrace.store.query import QueryResult, Store

Slots = npt.NDArray[np.uint32]
_TRIES = 4


class TailSource(StrEnum):
    """Where the unflushed samples of an answer come from."""

    ENGINE = "engine"
    JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class UnflushedTail:
    """The unflushed samples of some sensors.

    Parameters
    ----------
    batches : later ones win. now_ns : the plant's time: the engine's present, or when the store was last
    written to. notes : plain sentences on what could not be had.
    """

    source: TailSource
    batches: tuple[FrameBatch, ...]
    now_ns: int
    notes: tuple[str, ...] = ()

    def frames(self, slots: Slots) -> list[FrameBatch]:
        """The frames of `slots` (uint32[n])."""
        out = []
        for batch in self.batches:
            keep = np.isin(batch.slot, slots)
            if keep.all():
                out.append(batch)
            elif keep.any():
                out.append(batch.take(np.flatnonzero(keep)))
        return out


class StoreReader:
    """A store, open for reading.

    Parameters
    ----------
    disk : its folder. zone : the plant's time zone, for times without an offset.

    Examples
    --------
    >>> from headrace.runtime.reader import open_store
    >>> store = open_store("demo-store")  # doctest: +SKIP
    >>> store.query("**/temperature", last="1h", every="1m", agg=["mean", "max"]).to_polars()  # doctest: +SKIP
    """

    def __init__(self, disk: Disk, zone: tzinfo = UTC) -> None:
        from headrace.store.query import Store

        self._disk = disk
        self.zone = zone
        self.store: Store = Store.open(disk)

    @property
    def directory(self) -> SensorDirectory:
        """All sensors."""
        return self.store.directory

    def query(
        self,
        pattern: str,
        *,
        last: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        every: str | None = None,
        agg: Sequence[str] | str = (),
        limit: int | None = None,
    ) -> QueryResult:
        """Samples or aggregates of the sensors that `pattern` matches. Arguments are those of ``headrace query``.

        Parameters
        ----------
        pattern : ``*`` one level, ``**`` any number, ``{a,b}`` either: ``leon/paint/**/temperature``.
        last : ``1h`` back from the plant's present; for a store whose engine does not run, from its end.
        from_, to : the span instead: ``2026-03-01 06:00``, plant time unless an offset is there. The end is
            outside.
        every : length of the windows. agg : what of each window: count, sum, min, max, first, last, mean, var.
        limit : rows at most.

        Returns
        -------
        Columns ``path``, ``ts``, then ``value`` and ``quality``, or a column for each aggregate; as
        Arrow, pandas, Polars, DuckDB. It says how fresh it is and what is missing.

        Raises
        ------
        NotFound : the pattern matches no sensor. ConfigError : an empty span, a word that is none of these.
        """
        aggregates = [agg] if isinstance(agg, str) else list(agg)
        tail = self.tail(pattern)
        self.store.refresh()
        span = parse_range(tail.now_ns, self.zone, last=last, start=from_, end=to)
        every_ns = None if every is None else parse_duration_ns(every)
        result = self.store.query(
            pattern, span.start_ns, span.end_ns, every_ns, aggregates, tail=tail.frames, limit=limit
        )
        n_fresh = sum(b.n_samples for b in tail.batches)
        return replace(
            result,
            missing=(*result.missing, *tail.notes),
            sources={**result.sources, str(tail.source): n_fresh} if n_fresh else result.sources,
        )

    def tail(self, pattern: str) -> UnflushedTail:
        """What is not flushed of the sensors that `pattern` matches.

        Look at it before the commits: what is flushed in between is then there twice, not missing.
        """
        announced = read_announcement(self._disk)
        notes: tuple[str, ...] = ()
        if announced is not None:
            try:
                return self._ask(EngineClient(announced.address, announced.pid), pattern)
            except HeadraceError as e:
                notes = (f"the engine was not heard ({e}); its journal was read instead",)
        return self._replay(pattern, notes)

    def _ask(self, engine: EngineClient, pattern: str) -> UnflushedTail:
        """From the running engine; sensors that it has just met are made known here first."""
        self.store.refresh()
        known = engine.ask(f"/api/v1/directory?after={self.directory.n_slots}")
        if known.body:
            self.directory.apply_bytes(known.body)
        answer = engine.ask("/api/v1/tail", json.dumps({"pattern": pattern}).encode())
        return UnflushedTail(TailSource.ENGINE, tuple(read_tail(answer.body)), answer.now_ns)

    def _replay(self, pattern: str, notes: tuple[str, ...]) -> UnflushedTail:
        """From the journal, behind what each shard has flushed."""
        for _ in range(_TRIES):
            view = self.store.refresh()
            try:
                return _JournalTail(self._disk, view, self.directory).read(pattern, notes)
            except NotFound:
                continue  # an engine flushed and trimmed meanwhile: its newest commit says where to start
        raise Unreachable("the store is flushed faster than its journal can be read; try again")

    def status(self) -> dict[str, Any]:
        """What is in the store, JSON-ready."""
        return self.store.status().to_dict()


class _JournalTail:
    """One pass over the journal behind a view of the commits."""

    def __init__(self, disk: Disk, view: CommitView, directory: SensorDirectory) -> None:
        self._disk, self._view, self._directory = disk, view, directory
        self._now_ns = view.published_ns
        self._damages: list[Damage] = []

    def read(self, pattern: str, notes: tuple[str, ...]) -> UnflushedTail:
        flushed = self._flushed()
        records = self._records(int(flushed.min()))
        wanted = self._wanted(pattern)
        batches = []
        for record in records:
            shards = record.shards
            mine = shards[(flushed[shards] < record.seq) & wanted[shards]]
            batches += [record.batch(int(shard)) for shard in mine]
        if records and self._has_derived(pattern):
            until = local_time(self._view.published_ns, UTC)[:19]
            notes += (f"derived series end with the last flush ({until} UTC): no engine computes the rest",)
        notes += tuple(damage.text for damage in self._damages)
        return UnflushedTail(TailSource.JOURNAL, tuple(batches), self._now_ns, notes)

    def _flushed(self) -> npt.NDArray[np.int64]:
        """Journal number up to which each shard is in segments: int64[n_shards]."""
        nothing = ShardPosition()
        positions = [self._view.shards.get(s, nothing).flushed_seq for s in range(self._directory.n_shards)]
        return np.array(positions, np.int64)

    def _records(self, after_seq: int) -> list[Record]:
        """FRAMES records behind `after_seq`; definitions and time are taken in."""
        found = []
        for record in read_records(self._disk, after_seq, self._damages.append):
            if record.kind is RecordKind.DEFINE:
                record.define(self._directory)
            elif record.kind is RecordKind.TICK:
                self._now_ns = max(self._now_ns, record.tick_ns())
            elif record.kind is RecordKind.FRAMES:
                found.append(record)
        return found

    def _wanted(self, pattern: str) -> npt.NDArray[np.bool_]:
        """Shards that have sensors which `pattern` matches: bool[n_shards]."""
        wanted = np.zeros(self._directory.n_shards, np.bool_)
        wanted[self._directory.shard[self._directory.find(pattern).slot]] = True
        return wanted

    def _has_derived(self, pattern: str) -> bool:
        slots = np.unique(self._directory.find(pattern).slot)
        return any(self._directory.is_derived(int(s)) for s in slots)


def open_store(where: str | Path, zone: tzinfo | None = None) -> StoreReader:
    """Open a store for reading; its engine may run meanwhile.

    Parameters
    ----------
    where : the store's folder, or the plant file that names it.
    zone : time zone for times without an offset; default: that of the plant file, else UTC.

    Raises
    ------
    Unreachable : there is no store. ConfigError : the plant file has problems.
    """
    path = Path(where)
    if path.is_file():
        from headrace.core.config import load_plant

        config = load_plant(path)
        path, zone = config.store_folder, zone or config.plant.zone
    if not is_store(path):
        raise Unreachable(f"{path} is no store; name the folder of one, or a plant file")
    return StoreReader(LocalDisk(path), zone or UTC)
