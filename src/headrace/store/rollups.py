"""One-minute rollups as plain Parquet: what other programs read without knowing anything of this one.

``rollups/1m/<day>/part-<hour>-<slice>of<slices>.parquet`` in the store, days and hours in UTC. A row is one minute of
one sensor of a device that had a usable value in it:

| column | type | |
| --- | --- | --- |
| path | string | the sensor's whole path |
| one for each level | string | ``site``, ``area``, ... as ``[plant] levels`` names them; null where a path has fewer |
| ts | timestamp[ns, UTC] | start of the minute |
| count | int64 | usable samples (good or uncertain) |
| min, max, sum, mean, first, last | float64 | of them, in engineering units |

Rows are sorted by path, then time. Derived series and texts are left out. One line reads them all::

    duckdb -c "SELECT * FROM 'store/rollups/1m/*/*.parquet' WHERE path LIKE '%/temperature'"
    polars.scan_parquet("store/rollups/1m/*/*.parquet")

**The rule for late data.** A part is a pure function of what the store holds of its hour, and is replaced as a whole,
atomically, when samples were committed for that hour later. So each (path, ts) is there once, in its newest version,
at any time, and a run that is cut is simply done again: ``rollups/1m/state.json`` says which commits were seen and which
hours are still to be written.

**When.** From committed segments, in the thread that compacts, never on the way of a sample. An hour is written once it
is over (5 minutes later, so that all shards have been flushed); in plants of up to 100,000 sensors also every 15 minutes
while it lasts, without its newest 5 minutes. What is newer is in the answer of a query.

**Cost.** 40 to 60 ns of CPU for each raw sample of an hour, mostly its decoding, where many devices are alike and rows are
long; up to 1 us where rows hold a few samples of one device. 10 to 20 bytes a row; one file for each 2 million rows of
an hour, at most 64. A run begins no further hour after 60 s of CPU, every five minutes: above some 5 million samples a
second it falls behind, and ``[store] rollups = "off"`` is the better choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core.clock import NS, Clock, thread_cpu_ns
from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound
from headrace.core.sensors import Selection
from headrace.store.commits import sealed_json, unsealed_json
from headrace.store.manifests import BUCKET_DAYS, hot_number
from headrace.store.query import Store
from headrace.store.result import QueryResult
from headrace.store.view import StoreView
from headrace.store.wanted import Wanted

Array = npt.NDArray[Any]
FOLDER = "rollups/1m"
STATE_FILE = f"{FOLDER}/state.json"
MINUTE_NS, HOUR_NS = 60 * NS, 3_600 * NS
AGGREGATES = ("count", "min", "max", "sum", "mean", "first", "last")
_SLICES_MAX = 64
_ROWS_A_FILE = 2_000_000
_SENSORS_A_TURN = 20_000


@dataclass(frozen=True, slots=True)
class RollupPolicy:
    """When hours are written.

    Parameters
    ----------
    lag_s : how long after its end a minute counts as whole: longer than a flush of all shards takes.
    open_every_s : between two versions of the present hour. open_sensors_max : plants with more sensors get hours
    only when they are over. cpu_s_max : CPU of one run; what is left waits for the next.
    """

    lag_s: float = 300.0
    open_every_s: float = 900.0
    open_sensors_max: int = 100_000
    cpu_s_max: float = 60.0


@dataclass(slots=True)
class RollupReport:
    """What a run did; `n_waiting` hours are still to be written."""

    n_parts: int = 0
    n_rows: int = 0
    size_bytes: int = 0
    cpu_ns: int = 0
    n_waiting: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _State:
    """What was seen: newest commit of each incarnation; hours to write; when the present hour was last written."""

    seen: dict[int, int] = field(default_factory=dict)
    hours: set[int] = field(default_factory=set)
    opened_ns: int = 0

    def to_dict(self) -> dict[str, Any]:
        seen = {str(i): m for i, m in sorted(self.seen.items())}
        return {"version": 1, "seen": seen, "hours": sorted(self.hours), "opened_ns": self.opened_ns}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> _State:
        return cls({int(i): m for i, m in data["seen"].items()}, set(data["hours"]), data["opened_ns"])


class Rollups:
    """Keeps the rollups of a store up to date; one at a time for each store.

    Parameters
    ----------
    levels : names of the plant's levels, for their columns.
    """

    def __init__(
        self, store: Store, clock: Clock, levels: Sequence[str], policy: RollupPolicy | None = None
    ) -> None:
        self._store, self._clock, self._levels = store, clock, tuple(levels)
        self._policy = policy or RollupPolicy()

    def run_once(self) -> RollupReport:
        """Look at what was committed since, and write the hours that are due, newest first.

        Raises
        ------
        StorageError : the disk refuses; nothing is lost, run again later.
        """
        report = RollupReport()
        began_ns = thread_cpu_ns()
        disk, view, state = self._store.disk, self._store.refresh(), self._load()
        self._look(view, state)
        disk.replace(STATE_FILE, sealed_json(state.to_dict()))
        for hour in self._due(state):
            if _is_thinned(view, hour * HOUR_NS):
                state.hours.discard(
                    hour
                )  # what is left of its samples must not replace what was written of all
                continue
            if thread_cpu_ns() - began_ns > self._policy.cpu_s_max * NS:
                break
            try:
                self._write(hour, report)
            except (CorruptionError, NotFound) as e:
                report.problems.append(f"rollups of hour {_hour_name(hour)} are not written: {e}")
                continue
            if (hour + 1) * HOUR_NS <= self._whole_ns():
                state.hours.discard(hour)
            else:
                state.opened_ns = self._clock.now_ns()
        disk.replace(STATE_FILE, sealed_json(state.to_dict()))
        report.n_waiting, report.cpu_ns = len(state.hours), thread_cpu_ns() - began_ns
        return report

    def _whole_ns(self) -> int:
        """Minutes that ended by then are whole."""
        return self._clock.now_ns() - int(self._policy.lag_s * NS)

    def _load(self) -> _State:
        # Without a state everything is looked at again, and every hour written anew.
        return _load_state(self._store.disk) or _State()

    # --- what is to do ---------------------------------------------------------------------------------

    def _look(self, view: StoreView, state: _State) -> None:
        """Note the hours of segments that were not seen, and of days that were compacted before."""
        is_first = not state.seen
        for info in view.commits.segments:
            incarnation, m = hot_number(info.name)
            if m <= state.seen.get(incarnation, 0):
                continue
            if info.t_max_ns - info.t_min_ns <= 2 * HOUR_NS:
                state.hours.update(range(info.t_min_ns // HOUR_NS, info.t_max_ns // HOUR_NS + 1))
            else:
                state.hours.update(self._hours_of(info))
            state.seen[incarnation] = max(m, state.seen.get(incarnation, 0))
        if is_first:
            for manifest in view.manifests.values():
                for info in manifest.files:
                    state.hours.update(range(info.t_min_ns // HOUR_NS, info.t_max_ns // HOUR_NS + 1))
            # What is cold may be lossy: rollups that were made of the original are better.
            there = _hours_there(self._store.disk) if view.cold else set()
            for cold in view.cold.values():
                for info in cold.files:
                    hours = range(info.t_min_ns // HOUR_NS, info.t_max_ns // HOUR_NS + 1)
                    state.hours.update(hour for hour in hours if hour not in there)
            for day in view.manifests.values():
                for incarnation, m in day.consumed.items():
                    state.seen[incarnation] = max(m, state.seen.get(incarnation, 0))

    def _hours_of(self, info: Any) -> set[int]:
        """Hours of a segment with rows far apart, from their headers."""
        found: set[int] = set()
        try:
            for rows in self._store.reader.all_headers(info):
                first, last = rows.t_min // HOUR_NS, rows.t_max // HOUR_NS
                for span in np.unique(np.stack([first, last], axis=1), axis=0).tolist():
                    found.update(range(span[0], span[1] + 1))
        except (CorruptionError, NotFound):
            return found  # what is damaged can't be read for a rollup either
        return found

    def _due(self, state: _State) -> list[int]:
        """Hours that are over, newest first, and the present one where it is its turn."""
        whole_ns, now_ns = self._whole_ns(), self._clock.now_ns()
        policy = self._policy
        shows_open = (
            self._store.directory.n_sensors <= policy.open_sensors_max
            and now_ns - state.opened_ns >= policy.open_every_s * NS
        )
        due = []
        for hour in sorted(state.hours, reverse=True):
            is_over = (hour + 1) * HOUR_NS <= whole_ns
            if is_over or (shows_open and hour * HOUR_NS + MINUTE_NS <= whole_ns):
                due.append(hour)
        return due

    # --- one hour --------------------------------------------------------------------------------------

    def _write(self, hour: int, report: RollupReport) -> None:
        raw = self._raw_sensors()
        folder, name = f"{FOLDER}/{_day_name(hour)}", f"part-{hour % 24:02d}-"
        there = [p for p in self._store.disk.list(folder) if p.startswith(f"{folder}/{name}")]
        # An hour keeps its number of slices, so that its parts replace each other.
        n = int(there[0].rpartition("of")[2].split(".")[0]) if there else self._n_slices(len(raw))
        shard = self._store.directory.shard[raw.slot].astype(np.int64)
        number = shard * n // self._store.directory.n_shards
        end_ns = min((hour + 1) * HOUR_NS, self._whole_ns() // MINUTE_NS * MINUTE_NS)
        for one in range(n):
            mine = np.flatnonzero(number == one)
            path = f"{folder}/{name}{one:02d}of{n:02d}.parquet"
            data = self._part(_take(raw, mine), hour * HOUR_NS, end_ns, report)
            if data is not None:
                self._store.disk.replace(path, data)
                report.n_parts += 1
                report.size_bytes += len(data)
            elif path in there:
                self._store.disk.delete(path)

    def _n_slices(self, n_sensors: int) -> int:
        n_files = -(-n_sensors * 60 // _ROWS_A_FILE)
        return min(_SLICES_MAX, max(1, n_files))

    def _raw_sensors(self) -> Selection:
        """All sensors of devices."""
        directory = self._store.directory
        found = directory.find("**")
        derived = np.array([directory.is_derived(s) for s in range(directory.n_slots)], np.bool_)
        return _take(found, np.flatnonzero(~derived[found.slot]))

    def _part(
        self, sensors: Selection, start_ns: int, end_ns: int, report: RollupReport
    ) -> memoryview | None:
        """The minutes of some sensors as a Parquet file; None where there are none."""
        sink, writer = pa.BufferOutputStream(), None
        for turn in self._turns(sensors):
            wanted = Wanted(self._store.directory, self._store.series, turn)
            result = self._store.ask(wanted, start_ns, end_ns, MINUTE_NS, AGGREGATES)
            if result.missing:
                raise CorruptionError(result.missing[0])
            table = self._table(result)
            if not len(table):
                continue
            if writer is None:
                levels = list(self._levels)
                writer = pq.ParquetWriter(
                    sink, table.schema, compression="zstd", use_dictionary=["path", *levels], version="2.6",
                    write_page_checksum=True,
                )  # fmt: skip
            writer.write_table(table)
            report.n_rows += len(table)
        if writer is None:
            return None
        writer.close()
        return memoryview(sink.getvalue())

    def _turns(self, sensors: Selection) -> Iterator[Selection]:
        """Sensors in the order of their paths, so many at a time that memory is bounded."""
        directory = self._store.directory
        pairs = zip(sensors.slot.tolist(), sensors.column.tolist(), strict=True)
        paths = np.array([directory.sensor_path(s, c) for s, c in pairs], np.object_)
        order = np.argsort(paths, kind="stable")
        for first in range(0, len(order), _SENSORS_A_TURN):
            yield _take(sensors, order[first : first + _SENSORS_A_TURN])

    def _table(self, result: QueryResult) -> pa.Table:
        """Rows of a result with its texts left out and its paths' levels as columns."""
        values = {name: result.columns[name].astype(np.float64) for name in AGGREGATES if name != "count"}
        keep = np.flatnonzero(~np.isnan(values["mean"]))
        index = pa.array(result.sensor[keep].astype(np.int32))
        parts = [path.split("/") for path in result.paths.tolist()]

        def words(texts: list[str | None]) -> pa.Array:
            return pa.DictionaryArray.from_arrays(index, pa.array(texts, pa.string())).cast(pa.string())

        columns: dict[str, Any] = {"path": words(result.paths.tolist())}
        for i, level in enumerate(self._levels):
            columns[level] = words([p[i] if i < len(p) else None for p in parts])
        columns["ts"] = pa.array(result.ts_ns[keep]).cast(pa.timestamp("ns", "UTC"))
        columns["count"] = pa.array(result.columns["count"][keep].astype(np.int64))
        columns |= {name: pa.array(column[keep]) for name, column in values.items()}
        return pa.table(columns)


def _load_state(disk: Disk) -> _State | None:
    try:
        return _State.from_dict(unsealed_json(disk.read(STATE_FILE), STATE_FILE))
    except (NotFound, CorruptionError):
        return None


def forget_rollups(disk: Disk, span: tuple[int, int], is_gone: Callable[[list[str]], Array]) -> int:
    """Delete rollups of some sensors in a span of whole days; how many rows.

    Parameters
    ----------
    is_gone : of each of some paths whether its rollups go: bool[n].
    """
    n = 0
    for day in range(span[0] // (24 * HOUR_NS), span[1] // (24 * HOUR_NS)):
        for path in disk.list(f"{FOLDER}/{_day_name(day * 24)}"):
            table = pq.read_table(pa.BufferReader(pa.py_buffer(disk.read(path))))
            coded = table["path"].combine_chunks().dictionary_encode()
            gone = is_gone(coded.dictionary.to_pylist())[coded.indices.to_numpy()]
            n += int(gone.sum())
            if gone.all():
                disk.delete(path)
            elif gone.any():
                sink = pa.BufferOutputStream()
                left = table.filter(pa.array(~gone))
                pq.write_table(left, sink, compression="zstd", version="2.6", write_page_checksum=True)
                disk.replace(path, memoryview(sink.getvalue()))
    return n


def _hours_there(disk: Disk) -> set[int]:
    """Hours that have a part."""
    out = set()
    for path in disk.list(FOLDER):
        day, _, name = path.removeprefix(f"{FOLDER}/").partition("/")
        if name.startswith("part-"):
            out.add(int(np.datetime64(day, "D").astype(np.int64)) * 24 + int(name[5:7]))
    return out


def _is_thinned(view: StoreView, ts_ns: int) -> bool:
    """Whether samples of a moment's partition were dropped."""
    day = ts_ns // (24 * HOUR_NS)
    cold = view.cold.get(day // BUCKET_DAYS)
    warm = view.manifests.get(day)
    return bool((cold is not None and cold.n_dropped) or (warm is not None and warm.n_dropped))


def _take(sensors: Selection, index: Array) -> Selection:
    return Selection(sensors.slot[index], sensors.column[index], sensors.sensor[index])


def _day_name(hour: int) -> str:
    return str(np.datetime64(hour // 24, "D"))


def _hour_name(hour: int) -> str:
    return f"{_day_name(hour)}T{hour % 24:02d}Z"
