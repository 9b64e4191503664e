"""Reading a store from any process, whether its engine runs or not.

What is committed is read from the store. What is not flushed yet comes from the engine where one runs and
answers, otherwise out of its journal, so that a query sees every acknowledged sample also after a crash.
Nothing is locked and nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NO_TIME
from headrace.core.disk import Disk
from headrace.core.errors import HeadraceError, NotFound, Unreachable
from headrace.core.frames import FrameBatch
from headrace.core.paths import parse_duration_ns
from headrace.core.sensors import SensorDirectory
from headrace.core.spans import parse_range
from headrace.ingest.journal_format import Record, RecordKind
from headrace.ingest.journal_reader import Damage, read_records
from headrace.runtime.announcement import EngineAnswer, EngineClient, is_store, read_announcement
from headrace.runtime.tail_format import read_tail
from headrace.runtime.times import local_time, rfc3339
from headrace.store.commits import CommitView, ShardPosition
from headrace.store.disks import is_cloud, open_disk, plant_disk
from headrace.store.query import Store
from headrace.store.result import QueryResult

Slots = npt.NDArray[np.uint32]
_TRIES = 4


class UnflushedTail(Protocol):
    """Where what is not flushed yet comes from."""

    name: str
    """``engine`` or ``journal``."""
    now_ns: int
    """The plant's time: the engine's present, or when the store was last written to."""

    def frames(self, slots: Slots) -> list[FrameBatch]:
        """Unflushed frames of `slots` (uint32[n]); later batches win."""
        ...

    def notes(self, slots: Slots) -> tuple[str, ...]:
        """What could not be had, in plain sentences."""
        ...


class EngineSilent(HeadraceError):
    """The engine that announced itself does not answer, or is not ready to."""


class EngineTail:
    """The tail of an engine that runs.

    Raises
    ------
    EngineSilent : it does not answer, now or when it is asked for frames.
    """

    name = "engine"

    def __init__(self, engine: EngineClient, store: Store) -> None:
        self._engine = engine
        # Sensors that it has met since its last commit are made known here first.
        known = self._ask(f"/api/v1/directory?after={store.directory.n_slots}")
        if known.body:
            with store.defining:
                store.directory.apply_bytes(known.body)
        self.now_ns = known.now_ns
        self._n_behind = 0

    def _ask(self, path: str, body: bytes | None = None) -> EngineAnswer:
        try:
            return self._engine.ask(path, body, "application/octet-stream")
        except HeadraceError as e:
            raise EngineSilent(f"the engine was not heard ({e})") from e

    def frames(self, slots: Slots) -> list[FrameBatch]:
        """Asks the engine."""
        answer = self._ask("/api/v1/tail", np.ascontiguousarray(slots, np.uint32).tobytes())
        self.now_ns, self._n_behind = answer.now_ns, answer.n_behind
        return read_tail(answer.body)

    def notes(self, slots: Slots) -> tuple[str, ...]:
        """Whether the engine is behind its intake."""
        if not self._n_behind:
            return ()
        return (
            f"the engine is {self._n_behind:,} records behind what it took: the newest samples are missing",
        )


@dataclass
class JournalTail:
    """The tail as a journal has it, behind what each shard has flushed.

    Derived series are not in the journal: an engine computes them again when it starts.
    """

    directory: SensorDirectory
    view: CommitView
    records: list[Record] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    now_ns: int = 0
    name = "journal"

    @classmethod
    def load(cls, disk: Disk, view: CommitView, store: Store) -> JournalTail:
        """Look through the journal; definitions in it are made known to the store's directory.

        Raises
        ------
        NotFound : it was trimmed meanwhile; the newest commits say where to start.
        """
        directory = store.directory
        tail = cls(directory, view, now_ns=view.published_ns)
        first = int(tail._flushed().min())
        # While a shard was never flushed nothing is trimmed: from the oldest there is.
        for record in read_records(disk, None if first < 0 else first, tail.damages.append):
            if record.kind is RecordKind.DEFINE:
                with store.defining:
                    record.define(directory)
            elif record.kind is RecordKind.TICK:
                tail.now_ns = max(tail.now_ns, record.tick_ns())
            elif record.kind is RecordKind.FRAMES:
                tail.records.append(record)
        return tail

    def _flushed(self) -> npt.NDArray[np.int64]:
        """Journal number up to which each shard is in segments: int64[n_shards]."""
        nothing = ShardPosition()
        positions = [self.view.shards.get(s, nothing).flushed_seq for s in range(self.directory.n_shards)]
        return np.array(positions, np.int64)

    def frames(self, slots: Slots) -> list[FrameBatch]:
        """Decodes the records that have frames of the shards of `slots`."""
        shard_of, flushed = self.directory.shard, self._flushed()
        chosen = np.zeros(self.directory.n_slots, np.bool_)
        chosen[slots] = True
        shards = np.unique(shard_of[slots])
        found = []
        for record in self.records:
            if (flushed[np.intersect1d(record.shards, shards)] < record.seq).any():
                batch = record.batch()
                keep = np.flatnonzero(chosen[batch.slot] & (flushed[shard_of[batch.slot]] < record.seq))
                if len(keep):
                    found.append(batch.take(keep))
        return found

    def notes(self, slots: Slots) -> tuple[str, ...]:
        """Damage, and derived series that end with the last flush."""
        said = [damage.text for damage in self.damages]
        if self.records and any(self.directory.is_derived(int(slot)) for slot in slots):
            until = (
                "never written"
                if not self.view.published_ns
                else local_time(self.view.published_ns, UTC)[:19]
            )
            said.append(
                f"derived series end with the last flush ({until} UTC); a started engine computes the rest"
            )
        return tuple(said)


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
        self._disk = disk
        self.zone = zone
        self.store = Store.open(disk)

    @property
    def disk(self) -> Disk:
        """The store's folder."""
        return self._disk

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
        every : length of the windows. agg : what of each window: count, sum, min, max, first, last, mean, var, twa.
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
        every_ns = None if every is None else parse_duration_ns(every)

        def ask(tail: UnflushedTail) -> QueryResult:
            # A plant's present is inside "the last hour": the sample of this very moment counts.
            span = parse_range(tail.now_ns + 1, self.zone, last=last, start=from_, end=to)
            seen: list[Slots] = []

            def frames(slots: Slots) -> list[FrameBatch]:
                seen.append(slots)
                return tail.frames(slots)

            result = self.store.query(
                pattern, span.start_ns, span.end_ns, every_ns, aggregates, tail=frames, limit=limit
            )
            sources = {
                k if k != "tail_frames" else f"{tail.name}_frames": n for k, n in result.sources.items()
            }
            missing = (*result.missing, *tail.notes(seen[-1]))
            return replace(result, sources=sources, missing=missing, fresh_to_ns=tail.now_ns)

        announced = read_announcement(self._disk)
        if announced is None:
            return ask(self.journal_tail())
        try:
            return ask(self.engine_tail(EngineClient.announced(announced)))
        except EngineSilent as e:
            result = ask(self.journal_tail())
            return replace(result, missing=(*result.missing, f"{e}; its journal was read instead"))

    def status(self) -> dict[str, Any]:
        """What is in the store, JSON-ready: bytes, samples, sensors, and up to when."""
        found = self.store.status()
        return {
            "size_bytes": found.size_bytes,
            "samples": found.n_samples,
            "segments": found.n_segments,
            "sensors": self.directory.n_sensors,
            "free_bytes": self._disk.free_bytes(),
            "fresh_to": rfc3339(self.journal_tail().now_ns or NO_TIME),
        }

    def tail(self) -> UnflushedTail:
        """What is not flushed: of the engine where one answers, else of its journal. Raises as `journal_tail`."""
        announced = read_announcement(self._disk)
        if announced is not None:
            try:
                return self.engine_tail(EngineClient.announced(announced))
            except EngineSilent:
                pass  # it is starting, or has just ended
        return self.journal_tail()

    def engine_tail(self, engine: EngineClient) -> EngineTail:
        """The tail of a running engine. Raises `EngineSilent`."""
        self.store.refresh()
        return EngineTail(engine, self.store)

    def journal_tail(self) -> JournalTail:
        """The tail as the journal has it.

        Raises
        ------
        Unreachable : an engine that does not answer trims the journal faster than it can be read.
        """
        for _ in range(_TRIES):
            view = self.store.refresh().commits
            try:
                return JournalTail.load(self._disk, view, self.store)
            except NotFound:
                continue  # an engine flushed and trimmed meanwhile: its newest commit says where to start
        raise Unreachable("the store is flushed faster than its journal can be read; try again")


def open_store(where: str | Path, zone: tzinfo | None = None) -> StoreReader:
    """Open a store for reading; its engine may run meanwhile.

    Parameters
    ----------
    where : the store's folder, its url where it is in a bucket, or the plant file that names it.
    zone : time zone for times without an offset; default: that of the plant file, else UTC.

    Raises
    ------
    Unreachable : there is no store. ConfigError : the plant file has problems.
    """
    if is_cloud(where):
        return StoreReader(open_disk(where), zone or UTC)
    path = Path(where)
    if path.is_file():
        from headrace.core.config import load_plant

        config = load_plant(path)
        path, zone = config.store_folder, zone or config.plant.zone
        if config.store.is_bucket:
            return StoreReader(plant_disk(config), zone)
    if not is_store(path):
        raise Unreachable(f"{path} is no store; name the folder of one, or a plant file")
    return StoreReader(open_disk(path), zone or UTC)
