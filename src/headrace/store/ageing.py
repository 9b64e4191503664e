"""Ageing: a partition is written anew as the rules of the tiers want it, and changes in one step.

Rows are kept as they are, written anew within a bound, or dropped. Rows that are lossless are merged and cut into long
chunks, whose headers come from their samples, which are the original. Rows that are lossy already stay one by one: their
headers' aggregates are those of the original, and go along bit for bit. A file of which every row stays is named by
the new manifest as it is. As in `headrace.store.compactor`, files get names that say their content, then the manifest is
published: killed at any moment, the next run finds the old partition, and files that nobody names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.clock import Clock
from headrace.core.errors import CorruptionError, NotFound
from headrace.core.faults import FaultPoints
from headrace.core.layouts import Column, numpy_dtype
from headrace.core.paths import format_duration
from headrace.core.sensors import Selection
from headrace.store.commits import SegmentInfo
from headrace.store.grouping import DAY_NS
from headrace.store.manifests import (
    COLD_FOLDER,
    ROLLUP_FOLDER,
    WARM_FOLDER,
    ColdManifest,
    DayTaken,
    Manifest,
    write_manifest,
)
from headrace.store.merging import merge
from headrace.store.pace import Pace
from headrace.store.partition_rows import PartitionRows
from headrace.store.query import Store
from headrace.store.ranges import load_ranges, save_ranges
from headrace.store.reader import FoundRows
from headrace.store.recode import Spent, recode_chunk
from headrace.store.rolled_days import Series, complete_series, rolled_series, series_of
from headrace.store.rollups import forget_rollups
from headrace.store.row_bounds import RowBounds
from headrace.store.segment import write_segment
from headrace.store.siblings import are_siblings, share_values
from headrace.store.tiers import Step, TierFate, TierRules, TierStage
from headrace.store.time_axes import own_times, share_times
from headrace.store.view import Source, StoreView
from headrace.store.warm import decode_chunk, encode_chunk
from headrace.store.warm_rows import ChunkRules

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
KEEP, RECODE, DROP, ALONE = 0, 1, 2, 3
_LONG_ENOUGH = 0.5
"""Of a cold chunk: rows as long as that are not merged where nothing else is to be gained."""
_JOINED_BYTES_MAX = 64 << 20
"""Of encoded rows that are held in memory so that those of a device get into one file."""
_WIDER = 1.0 + 1e-6
_TRIALS = 12
_ROUNDED = 1.0 - 1e-9


@dataclass(slots=True)
class Aged:
    """What a step did, or would do.

    ``problems`` has a sentence for each thing that had to be left as it is, and is tried again; ``stays`` one for what no
    trial changes, until the rules or the samples are others.
    """

    n_samples: int = 0
    n_recoded: int = 0
    n_dropped: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    max_error: float = 0.0
    problems: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """A partition's rows, and what becomes of each.

    ``action``: KEEP, RECODE or DROP; ``eps``: the bound in engineering units, 0 for lossless; ``share``: of each value, which
    counts instead where it is not 0; ``block``: samples of a chunk.
    ``dropped``: series of which only rollups are left.
    """

    step: Step
    rows: PartitionRows
    slots: I64
    columns: list[Column]
    action: npt.NDArray[np.int8]
    eps: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    block: I64
    dropped: set[Series]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a new version names: files that stay, files that were written, and files with rollups by day."""

    kept: list[SegmentInfo]
    written: list[SegmentInfo]
    rolled: dict[int, RolledFiles]


class RolledFiles(NamedTuple):
    """Files with rollups of a day, and the names of those whose samples were dropped."""

    files: tuple[SegmentInfo, ...] = ()
    alone: tuple[str, ...] = ()


class Ager:
    """Does the steps that `headrace.store.tiers.plan` finds; in the thread that compacts.

    Parameters
    ----------
    slice_samples : about how many samples are merged at a time. choice_of : what is said about the codecs of a path.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        rules: TierRules,
        *,
        faults: FaultPoints,
        pace: Pace,
        slice_samples: int,
        choice_of: Callable[[str], CodecChoice] = lambda path: ANY,
    ) -> None:
        self.rules, self._choice_of = rules, choice_of
        self._store, self._clock = store, clock
        self._faults, self._pace, self._slice = faults, pace, slice_samples

    def age(self, view: StoreView, step: Step) -> Aged:
        """Write a partition as the rules want it.

        Raises
        ------
        CorruptionError, NotFound : a file of it is damaged or gone; it stays as it is. StorageError : the disk refuses.
        """
        done = Aged()
        infos = sources_of(view, step)
        rolled = rolled_files(view, step)
        if any(stage is TierStage.DELETED for stage in self._stages(step)):
            forget_rollups(
                self._store.disk, (step.start_ns, step.end_ns), lambda paths: self._deleted(step, paths)
            )
            rolled = self._sorted(view, step, rolled, lambda table: self._deletes(step, table))
        if not infos:
            self._publish(view, step, _Parts([], [], rolled), done)
            return done
        work = self._decide(view, step, infos, done)
        if work.dropped:
            rolled = self._sorted(view, step, rolled, lambda table: _left_alone(work.dropped, table))
        changed = np.zeros(len(infos), np.bool_)
        changed[np.unique(work.rows.place[work.action != KEEP, 0])] = True
        changed |= self._promising(view, work, changed)
        done.bytes_before = sum(info.size_bytes for info in infos)
        done.n_samples = int(work.rows.n_samples.sum())
        self._pace.tick(done.bytes_before - int(work.rows.n_bytes.sum()))  # headers
        files = [info for info, one in zip(infos, changed, strict=True) if not one]
        n_kept = len(files)
        if changed.any():
            number = self._next_number(view, step)
            for part, table in enumerate(self._tables(work, changed, done)):
                files.append(self._write(step, number, part, table))
                self._pace.tick(files[-1].size_bytes)
        done.bytes_after = sum(info.size_bytes for info in files)
        if changed.any() or step.late_days or not done.problems:
            self._publish(view, step, _Parts(files[:n_kept], files[n_kept:], rolled), done)
        return done

    def estimate(self, view: StoreView, step: Step) -> Aged:
        """What a step would do; its bytes and error from a trial of some rows. Changes nothing. Raises as `age`."""
        done = Aged()
        infos = sources_of(view, step)
        done.bytes_before = sum(info.size_bytes for info in infos)
        if not infos:
            return done
        work = self._decide(view, step, infos, done, fixes=False)
        rows = work.rows
        done.n_samples = int(rows.n_samples.sum())
        again = np.flatnonzero(work.action == RECODE)
        done.n_recoded = int(rows.n_samples[again].sum())
        before, after = self._trial(
            work, again[np.linspace(0, len(again) - 1, min(len(again), _TRIALS)).astype(int)], done
        )
        kept = int(rows.n_bytes[work.action == KEEP].sum())
        left = kept + rows.n_bytes[again].sum() * (after / before if before else 1.0)
        done.bytes_after = round(done.bytes_before * left / max(1, int(rows.n_bytes.sum())))
        return done

    def _trial(self, work: _Work, chosen: I64, done: Aged) -> tuple[int, int]:
        """Bytes of some rows before and after; the largest error goes to `done`."""
        before = after = 0
        for row in chosen.tolist():
            mask = np.zeros(len(work.rows), np.bool_)
            mask[row] = True
            (table,) = work.rows.tables(mask)
            choice = self._choice(work, row)
            tried = tried_row(table, float(work.eps[row]), abs(work.columns[row].scale), choice)
            before += int(work.rows.n_bytes[row])
            after += tried[0]
            done.max_error = max(done.max_error, tried[1])
            self._pace.tick()
        return before, after

    def _stages(self, step: Step) -> list[TierStage]:
        age_ns = self._clock.now_ns() - step.end_ns
        return [
            max(self.rules.stage(n, age_ns), step.early.get(n, TierStage.WARM)) for n in self.rules.governing
        ]

    def _deletes(self, step: Step, table: pa.Table) -> Array:
        return np.where(self._deleted(step, table["path"].to_pylist()), DROP, KEEP)

    def _deleted(self, step: Step, paths: list[str]) -> Bools:
        now_ns = self._clock.now_ns()
        fates = (self.rules.fate(path, now_ns - step.end_ns, now_ns, step.early) for path in paths)
        return np.array([one.stage is TierStage.DELETED for one in fates], np.bool_)

    # --- deciding ------------------------------------------------------------------------------------

    def _decide(
        self, view: StoreView, step: Step, infos: Sequence[SegmentInfo], done: Aged, *, fixes: bool = True
    ) -> _Work:
        """What becomes of each row; `fixes`: whether ranges that are not known yet are fixed."""
        rows = PartitionRows.load(self._store, infos)
        directory = self._store.directory
        slots = rows.slots(directory)
        if (slots < 0).any():
            n = len(np.unique(rows.group[slots < 0]))
            raise CorruptionError(f"{n} groups are not in the sensor directory; restore it")
        columns = rows.columns_of(directory, slots)
        fates = self.fates(step, rows)
        stage = np.array([one.stage for one in fates], np.int8)[rows.path]
        action = np.zeros(len(rows), np.int8)
        action[stage == TierStage.DELETED] = DROP
        wanted = ~rows.is_text & (stage == TierStage.ROLLUPS)
        dropped = self._decide_rollups(view, step, (rows, wanted), action, done)
        eps = share = np.zeros(len(rows))
        block = np.array([one.cold_block for one in fates], np.int64)[rows.path]
        if step.is_cold:
            # Samples that rollups can't stand for stay cold until they are deleted.
            cold = (action == KEEP) & (stage >= TierStage.COLD)
            lossy = cold & rows.may_be_lossy(columns)
            ranges = load_ranges(self._store.disk)
            n_known = len(ranges)
            bounds = RowBounds(rows, columns, [one.bound for one in fates], ranges)
            eps = bounds.of(np.flatnonzero(lossy), self._clock.now_ns())
            share = bounds.shares(np.flatnonzero(lossy))
            if fixes and len(ranges) > n_known:
                save_ranges(self._store.disk, ranges)
            action[cold & self._gains(rows, np.maximum(eps, share * (rows.bound == 0.0)), block)] = RECODE
        done.n_dropped = int(rows.n_samples[action == DROP].sum())
        return _Work(step, rows, slots, columns, action, eps, share, block, dropped)

    def fates(self, step: Step, rows: PartitionRows) -> list[TierFate]:
        """What becomes of each path."""
        now_ns = self._clock.now_ns()
        age_ns = now_ns - step.end_ns
        return [self.rules.fate(path, age_ns, now_ns, step.early) for path in rows.paths.tolist()]

    def _decide_rollups(
        self, view: StoreView, step: Step, of: tuple[PartitionRows, Bools], action: Array, done: Aged
    ) -> set[Series]:
        """Rows that are dropped because rollups stand for them; their series."""
        rows, wanted = of
        if not wanted.any():
            return set()
        try:
            files = [file for some in rolled_files(view, step).values() for file in some.files]
            alone = rolled_series(self._store.reader, [one for one in files if one.name in view.alone])
            rolled = rolled_series(self._store.reader, [one for one in files if one.name not in view.alone])
        except (CorruptionError, NotFound) as e:
            done.problems.append(f"{step.name} keeps its samples: {e}")
            return set()
        finest = np.array([self.rules.finest_rollup_ns(path) for path in rows.paths.tolist()], np.int64)[
            rows.path
        ]
        series = series_of(rows.group, rows.layout, rows.column)
        complete = complete_series(rolled, series, rows.n_usable, finest.tolist())
        action[wanted & complete] = DROP
        # What came after the samples were dropped stays beside the rollups, for good.
        is_after = np.array([one in alone and one not in rolled for one in series], np.bool_)
        left = np.flatnonzero(wanted & ~complete & ~is_after)
        if len(left):
            n, which = len(np.unique(rows.path[left])), rows.paths[rows.path[left[0]]]
            done.stays.append(
                f"{step.name} keeps samples of {n} sensors, {which} among them: no rollups of "
                f"{format_duration(int(finest[left[0]]))} or shorter stand for them; what came late, and what was compacted "
                "before the rule was there, has none"
            )
        return {series[row] for row in np.flatnonzero(wanted & complete).tolist()}

    def _gains(self, rows: PartitionRows, eps: Array, block: I64) -> Bools:
        """Rows that a trial may make smaller: a bound that was not used, or rows that are short for a cold chunk."""
        n = len(rows.paths)
        lossless = rows.bound == 0.0
        count = np.bincount(rows.path, lossless, n)
        mean = np.bincount(rows.path, rows.n_samples * lossless, n) / np.maximum(count, 1)
        short = (mean[rows.path] < block * _LONG_ENOUGH) & (count[rows.path] > 1)
        gains: Bools = np.where(lossless, (eps > 0.0) | short, eps > rows.bound * _WIDER)
        return gains

    def _promising(self, view: StoreView, work: _Work, changed: Bools) -> Bools:
        """Files of days that get cold, nothing of which has to change, but whose rows are likely to follow from each other."""
        out = np.zeros(len(changed), np.bool_)
        late = {info.name for day in work.step.late_days for info in view.manifests[day].files}
        for number, file in enumerate(work.rows.files if work.step.is_cold else ()):
            if changed[number] or file.info.name not in late:
                continue
            tables = work.rows.tables(work.rows.place[:, 0] == number)
            out[number] = any(are_siblings(share_times(one), self._may_predict) for one in tables)
            self._pace.tick()
        return out

    # --- writing -------------------------------------------------------------------------------------

    def _tables(self, work: _Work, changed: Bools, done: Aged) -> Iterator[pa.Table]:
        """What stays of the changed files, by path: a table for each file. Rows of a device share what they can."""
        for table in _whole_devices(self._slices(work, changed, done)):
            shared = share_times(table)
            yield share_values(shared, self._may_predict, self._pace.tick) if work.step.is_cold else shared

    def _slices(self, work: _Work, changed: Bools, done: Aged) -> Iterator[pa.Table]:
        """The same for each slice of the sensors."""
        rows = work.rows
        inside = changed[rows.place[:, 0]] & (work.action != DROP)
        weight = np.bincount(rows.path[inside], rows.n_samples[inside], len(rows.paths))
        number = (np.cumsum(weight) // self._slice).astype(np.int64)
        for one in np.unique(number[weight > 0]).tolist():
            mine = inside & (number[rows.path] == one)
            kept = mine & (work.action == KEEP)
            tables = rows.tables(kept)
            self._pace.tick(int(rows.n_bytes[kept].sum()))
            tables += self._recoded_lossy(work, mine & (work.action == RECODE) & (rows.bound > 0.0), done)
            tables += self._recoded_lossless(work, mine & (work.action == RECODE) & (rows.bound == 0.0), done)
            table = pa.concat_tables(tables).combine_chunks()
            yield table.take(pc.sort_indices(table, [("path", "ascending"), ("t_min", "ascending")]))

    def _may_predict(self, path: str) -> bool:
        """Whether values may be coded by those of a sibling: where nothing is said about their codec."""
        return self._choice_of(path).is_free

    def _choice(self, work: _Work, row: int) -> CodecChoice:
        """What is said about the codec of a row's values, and the share of each that it may be off."""
        choice = self._choice_of(str(work.rows.paths[work.rows.path[row]]))
        return replace(choice, share=float(work.share[row]) * _ROUNDED) if work.share[row] else choice

    def _recoded_lossless(self, work: _Work, mine: Bools, done: Aged) -> list[pa.Table]:
        """Long chunks of what was measured, one table for each length of chunks."""
        rows, out = work.rows, []
        if not mine.any():
            return []
        # Other rows of the same sensors are lossy, or are of files that stay: they are not merged.
        offsets = rows.offsets(mine)

        def keep(found: FoundRows) -> Bools:
            return np.isin(found.rows.offset, offsets[found.files[0].info.name])

        used = np.unique(rows.place[mine, 0]).tolist()
        sources = [Source(rows.files[i].info, True) for i in used]
        span = work.step.start_ns, work.step.end_ns
        for block in np.unique(work.block[mine]).tolist():
            chosen = np.flatnonzero(mine & (work.block == block))
            key, first = np.unique(work.slots[chosen] << 16 | rows.column[chosen], return_index=True)
            row_of = dict(zip(key.tolist(), chosen[first].tolist(), strict=True))
            selection = Selection(
                (key >> 16).astype(np.uint32), (key & 0xFFFF).astype(np.uint16), rows.sensor[chosen[first]]
            )
            merged = merge(self._store, sources, selection, span, keep)
            if merged is None:
                continue
            wanted = merged.wanted
            order = [row_of[int(s) << 16 | int(c)] for s, c in zip(wanted.slot, wanted.column, strict=True)]
            scale = np.array([abs(work.columns[row].scale) for row in order])
            eps = work.eps[order] / scale * _ROUNDED
            choices = [self._choice(work, row) for row in order]
            out.append(own_times(merged.encode(self._pace, ChunkRules(block, eps, choices))))
            done.n_recoded += len(merged.samples)
        return out

    def _recoded_lossy(self, work: _Work, mine: Bools, done: Aged) -> list[pa.Table]:
        """Rows that are lossy already, each within what is left of its bound."""
        out = []
        index = np.flatnonzero(mine)
        eps_of = {(*work.rows.place[i].tolist(),): i for i in index.tolist()}
        for file, group in sorted({(f, g) for f, g, _ in eps_of}):
            of_group = [(r, i) for (f, g, r), i in eps_of.items() if (f, g) == (file, group)]
            some = np.zeros(len(work.rows), np.bool_)
            some[[i for _, i in of_group]] = True
            (table,) = work.rows.tables(some)
            order = [i for _, i in sorted(of_group)]
            scales = [abs(work.columns[i].scale) for i in order]
            choices = [self._choice(work, row) for row in order]
            out.append(recoded(table, work.eps[order], scales, choices))
            done.n_recoded += int(work.rows.n_samples[order].sum())
            self._pace.tick(int(work.rows.n_bytes[order].sum()))
        return out

    def _sorted(
        self, view: StoreView, step: Step, rolled: dict[int, RolledFiles], fate: Callable[[pa.Table], Array]
    ) -> dict[int, RolledFiles]:
        """Files with rollups, those of samples and those that are alone apart; `fate` of rows: KEEP, ALONE or DROP."""
        number, out = self._next_number(view, step), {}
        for day, (files, before) in rolled.items():
            left: list[SegmentInfo] = []
            alone: list[str] = []
            for info in files:
                table = self._store.reader.open(info).table()
                self._pace.tick(info.size_bytes)
                fates = fate(table)
                if info.name in before:
                    fates[fates == KEEP] = ALONE
                for one in (KEEP, ALONE):
                    mine = fates == one
                    if not mine.any():
                        continue
                    folder = f"{ROLLUP_FOLDER}/{day:06d}/"
                    left.append(
                        info
                        if mine.all()
                        else self._write_in(folder, number, len(left), table.filter(pa.array(mine)))
                    )
                    alone += [left[-1].name] if one == ALONE else []
            out[day] = RolledFiles(tuple(left), tuple(alone))
        return out

    def _write(self, step: Step, number: int, part: int, table: pa.Table) -> SegmentInfo:
        folder = f"{COLD_FOLDER if step.is_cold else WARM_FOLDER}/{step.key:06d}/"
        return self._write_in(folder, number, part, table)

    def _write_in(self, folder: str, number: int, part: int, table: pa.Table) -> SegmentInfo:
        draft = write_segment(folder, [table])
        name = f"{folder}{number:06d}-{part:04d}-{xxhash.xxh3_64_hexdigest(draft.data)}.parquet"
        self._faults.reach("segment.write")
        # Where it exists, a run that was killed wrote the same bytes.
        self._store.disk.put_if_absent(name, draft.data)
        return replace(draft.info, name=name)

    def _next_number(self, view: StoreView, step: Step) -> int:
        known = view.cold.get(step.key) if step.is_cold else view.manifests.get(step.key)
        return 1 if known is None else known.number + 1

    def _publish(self, view: StoreView, step: Step, parts: _Parts, done: Aged) -> None:
        files = (*parts.kept, *parts.written)
        number, now_ns = self._next_number(view, step), self._clock.now_ns()
        # What had to be left as it is is tried again.
        due = "" if done.problems else step.due
        manifest: Manifest | ColdManifest
        if step.is_cold:
            before = view.cold.get(step.key, ColdManifest(step.key))
            days = {}
            for day, one in before.days.items():
                rolled = parts.rolled.get(day, RolledFiles())
                days[day] = replace(one, rollups=rolled.files, alone=rolled.alone)
            for day in step.late_days:
                late, rolled = view.manifests[day], parts.rolled.get(day, RolledFiles())
                is_late = bool(late.beside) or day in before.days
                days[day] = DayTaken(
                    late.number, late.consumed, late.left_out, rolled.files, is_late, rolled.alone
                )
            manifest = ColdManifest(
                step.key, number, now_ns, files, days, due, before.n_dropped + done.n_dropped
            )
        else:
            known, rolled = view.manifests[step.key], parts.rolled.get(step.key, RolledFiles())
            manifest = replace(
                known,
                number=number,
                published_ns=now_ns,
                files=files,
                aged=due,
                rollups=rolled.files,
                alone=rolled.alone,
                beside=_beside(known, parts),
                n_dropped=known.n_dropped + done.n_dropped,
            )
        self._faults.reach("commit.publish")
        if not write_manifest(self._store.disk, manifest):
            raise CorruptionError(f"{manifest.name} was written by another compactor; run one only")


def _whole_devices(slices: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Slices by path, joined where they part a device; one that is too large stays parted."""
    waiting: list[pa.Table] = []
    for table in slices:
        size = sum(one.nbytes for one in waiting)
        if waiting and (_device(waiting[-1], -1) != _device(table, 0) or size > _JOINED_BYTES_MAX):
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
        waiting.append(table)
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _device(table: pa.Table, row: int) -> str:
    return str(table["path"][row].as_py()).rpartition("/")[0]


def recoded(
    table: pa.Table, eps: Array, scale: Sequence[float], choices: Sequence[CodecChoice] | None = None
) -> pa.Table:
    """Lossy rows within wider bounds ``eps: float64[n]`` in engineering units, where that makes them smaller.

    `choices` is what is said about the codecs of each row; None: nothing. Everything but payload, codecs and errors stays what it was, to the bit.
    """
    columns = ("payload", "time_codec", "value_codec", "bound", "max_error", "rmse")
    now: list[tuple[Any, ...]] = list(zip(*(table[name].to_pylist() for name in columns), strict=True))
    frames, dtypes, spans = table["n_frames"].to_pylist(), table["dtype"].to_pylist(), _spans(table)
    for row, (payload, times, values, *errors) in enumerate(now):
        bound, unit = errors[0], scale[row]
        spent = Spent(*(float(bound if one is None else one) / unit for one in errors))
        of = frames[row], numpy_dtype(dtypes[row]), spans[row]
        choice = ANY if choices is None else choices[row]
        chunk = recode_chunk(payload, (times, values), of, spent, float(eps[row]) / unit * _ROUNDED, choice)
        if chunk is not None:
            now[row] = (*chunk[:3], *(one * unit for one in chunk[3:]))
    for name, column in zip(columns, zip(*now, strict=True), strict=True):
        kind = table.schema.field(name).type
        array = (
            pa.array(column, pa.string()).dictionary_encode()
            if pa.types.is_dictionary(kind)
            else pa.array(column, kind)
        )
        table = table.set_column(
            table.schema.get_field_index(name), table.schema.field(name), array.cast(kind)
        )
    sizes = pa.array([len(one[0]) for one in now], pa.uint32())
    return table.set_column(table.schema.get_field_index("n_bytes"), table.schema.field("n_bytes"), sizes)


def tried_row(table: pa.Table, eps: float, scale: float, choice: CodecChoice = ANY) -> tuple[int, float]:
    """Bytes and largest error that a row would have within a bound, both in engineering units."""
    (row,) = table.to_pylist()
    if row["bound"]:
        (again,) = recoded(table, np.array([eps]), [scale], [choice]).to_pylist()
        return again["n_bytes"], again["max_error"]
    dtype = numpy_dtype(row["dtype"])
    codecs = row["time_codec"], row["value_codec"]
    ts_ns, values, quality = decode_chunk(row["payload"], codecs, row["n_frames"], dtype, _spans(table)[0])
    chunk = encode_chunk(ts_ns, values, quality, eps / scale * _ROUNDED, choice)
    return min(len(chunk.payload), row["n_bytes"]), chunk.max_error * scale


def _spans(table: pa.Table) -> list[tuple[int, int]]:
    """First and last time of each row, ns."""
    return list(zip(*(table[name].cast(pa.int64()).to_pylist() for name in ("t_min", "t_max")), strict=True))


def sources_of(view: StoreView, step: Step) -> list[SegmentInfo]:
    """The files of a step's partition."""
    if not step.is_cold:
        return list(view.manifests[step.key].files)
    known = view.cold.get(step.key)
    files = [] if known is None else list(known.files)
    return files + [file for day in step.late_days for file in view.manifests[day].files]


def rolled_files(view: StoreView, step: Step) -> dict[int, RolledFiles]:
    """Files with rollups of a step's partition, by day."""
    first, last = step.start_ns // DAY_NS, step.end_ns // DAY_NS
    return {
        day: RolledFiles(files, tuple(one.name for one in files if one.name in view.alone))
        for day, files in view.rolled.items()
        if first <= day < last
    }


def _left_alone(dropped: set[Series], table: pa.Table) -> Array:
    """What becomes of rows with rollups once the samples of some series are dropped: KEEP or ALONE."""
    names = ("group", "layout", "column")
    series = zip(*(np.asarray(table[name].to_numpy()).tolist() for name in names), strict=True)
    return np.array([ALONE if one in dropped else KEEP for one in series], np.int8)


def _beside(before: Manifest, parts: _Parts) -> tuple[str, ...]:
    """Files of a day whose rows its rollups don't know: where some of those were written anew, all that were."""
    kept = {info.name for info in parts.kept}
    stay = [name for name in before.beside if name in kept]
    mixed = len(stay) < len(before.beside)
    return (*stay, *(info.name for info in parts.written if mixed))
