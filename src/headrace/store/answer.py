"""Putting an answer together, slice by slice, and giving its columns the types they deserve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError
from headrace.core.grids import Grid
from headrace.store.aggregates import (
    TIME_WEIGHTED,
    Partials,
    Weighting,
    in_units,
    join,
    means_of,
    order_of,
    partials_of,
)
from headrace.store.result import QueryResult
from headrace.store.runs import SensorSamples
from headrace.store.wanted import Lane, Wanted
from headrace.store.words import Words

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

ROWS_MAX = 50_000_000
"""Most rows of one answer."""
_TEXT_NOTE = "text: the values of string signals are codes; column text has the words"
_FLOAT_NOTE = "64-bit integers beside other types are shown as floats; ask for them alone to get them exact"
_Raw = tuple[I64, I64, Array, npt.NDArray[np.uint8], Array | None]


class Answer:
    """Collects what slices of the selection give.

    Integers stay integers where every sensor asked for is one without a grid.
    """

    def __init__(
        self,
        wanted: Wanted,
        start_ns: int,
        end_ns: int,
        every_ns: int | None,
        agg: tuple[str, ...],
        limit: int | None,
    ) -> None:
        self.wanted = wanted
        self.start_ns, self.end_ns, self.every_ns = start_ns, end_ns, every_ns
        self.agg = agg
        self.n_headers = 0
        self.n_rows = 0
        self._limit = limit
        self._raw: list[_Raw] = []
        self._partials: list[Partials] = []
        self._string_sensors: set[int] = set()
        self._is_in_order = True
        lanes, whole = list(wanted.lanes), wanted.has_plain_integers
        self._dtype: np.dtype[Any] = np.dtype(np.float64)
        if lanes == [Lane.UNSIGNED]:
            self._dtype = np.dtype(np.uint64)
        elif whole and set(lanes) <= {Lane.RAW, Lane.SIGNED}:
            self._dtype = np.dtype(np.int64)
        self._whole_sums = whole and lanes == [Lane.RAW]
        self._mixed = self._dtype.kind == "f" and bool(set(lanes) & {Lane.SIGNED, Lane.UNSIGNED})

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its values."""
        return self._dtype

    @property
    def is_aggregate(self) -> bool:
        """Whether windows are asked for, not samples."""
        return bool(self.agg)

    @property
    def is_full(self) -> bool:
        """Whether more slices would only be cut off."""
        return self._limit is not None and self.n_rows > self._limit

    def add(
        self,
        samples: dict[Lane, SensorSamples],
        headers: Partials | None,
        words: Words,
        rolled: Partials | None = None,
    ) -> None:
        """Take in one slice: its samples, partials that headers gave (engineering units) and rollups (`dtype`)."""
        self._string_sensors |= words.sensors
        if self.is_aggregate:
            self._add_windows(samples, headers, rolled)
            return
        n = sum(len(one) for one in samples.values())
        self.n_rows += n
        if self.n_rows > ROWS_MAX and (self._limit is None or self._limit > ROWS_MAX):
            raise ConfigError(
                f"the answer has more than {ROWS_MAX:,} rows; ask for a shorter span, fewer sensors, a limit, or windows"
            )
        for lane, one in samples.items():
            sensor = one.of_each()
            text = self._texts(one, sensor, words)
            self._raw.append((sensor, one.ts_ns, self._values(lane, one.values, sensor), one.quality, text))

    def _values(self, lane: Lane, values: Array, sensor: I64) -> Array:
        """Samples in the type of the answer."""
        if lane is Lane.RAW and self._dtype.kind == "f":
            grid = self.wanted.sensor_grid
            if not grid.is_plain:
                return grid.values_at(values, sensor)
        return values.astype(self._dtype, copy=False)

    def _texts(self, one: SensorSamples, sensor: I64, words: Words) -> Array | None:
        """Words of string values and of labelled states; None where no sensor has any."""
        labelled = self.wanted.is_labelled[one.sensor]
        if not words.sensors and not labelled.any():
            return None
        strings = np.isin(one.sensor, np.array(sorted(words.sensors), np.int64))
        named = np.flatnonzero(strings | labelled)
        if not len(named):
            return None
        out = np.full(len(sensor), None, np.object_)
        for place in named.tolist():
            number, first, last = int(one.sensor[place]), int(one.start[place]), int(one.start[place + 1])
            names = words.list if strings[place] else self.wanted.labels(number)
            codes = one.values[first:last].astype(np.int64)
            known = (codes >= 0) & (codes < len(names))
            table = np.array([*names, None], np.object_)
            out[first:last] = table[np.where(known, codes, len(names))]
        return out

    def add_windows_as_samples(self, rolled: Partials) -> None:
        """Take in windows where samples are gone: their mean, or last value, at their start, of good quality."""
        is_last = self._dtype.kind != "f" or self.wanted.is_step[rolled.sensor]
        mean = means_of(rolled.sum, rolled.sum_low, rolled.count)
        exact = self.wanted.lane[rolled.sensor] == Lane.RAW
        totals = self.wanted.sensor_grid.take(rolled.sensor).totals(rolled.raw_sum, rolled.count)
        mean = np.where(exact, totals / rolled.count, mean)
        values = np.where(is_last, rolled.last, mean).astype(self._dtype, copy=False)
        self.n_rows += len(rolled)
        self._raw.append((rolled.sensor, rolled.window_ns, values, np.zeros(len(rolled), np.uint8), None))
        self._is_in_order = False

    def _add_windows(
        self, samples: dict[Lane, SensorSamples], headers: Partials | None, rolled: Partials | None
    ) -> None:
        parts = []
        weighting = None
        if TIME_WEIGHTED in self.agg:
            weighting = Weighting(self.wanted.is_step, self.start_ns, self.end_ns)
        for lane, one in samples.items():
            found = partials_of(one, self.every_ns or 0, weighting)
            if lane is Lane.RAW and self._dtype.kind == "f":
                found = in_units(found, self.wanted.sensor_grid.take(found.sensor), exact=True)
            if lane in (Lane.SIGNED, Lane.UNSIGNED) and self._dtype.kind == "f":
                found = in_units(found, Grid.plain(1), exact=False)
            if len(found):
                parts.append(found)
        if headers is not None:
            self.n_headers += len(headers)
            parts.append(headers)
        if rolled is not None:
            parts.append(rolled)
        if parts:
            typed = [one.as_type(self._dtype) for one in parts]
            joined = join(typed[0] if len(typed) == 1 else Partials.concat(typed))
            self.n_rows += len(joined)
            self._partials.append(joined)

    # --- the columns ---------------------------------------------------------------------------------

    def result(
        self,
        fresh_to_ns: int,
        sources: dict[str, int],
        missing: tuple[str, ...],
        rough: tuple[int, str] = (0, ""),
    ) -> QueryResult:
        """The answer; rows by sensor and time. ``rough``: its `resolution_ns`, and a note about it."""
        text: Array | None = None
        if self.is_aggregate:
            sensor, ts_ns, columns = self._windows()
        else:
            sensor, ts_ns, columns, text = self._samples()
        may_be_mixed = self.is_aggregate or not self._is_in_order
        may_be_mixed |= self.wanted.n > 1 and bool((sensor[1:] < sensor[:-1]).any())
        order = order_of(sensor, ts_ns) if may_be_mixed else None
        n = len(sensor) if self._limit is None else min(len(sensor), self._limit)
        chosen: Any = slice(0, n) if order is None else order[:n]
        notes = [_FLOAT_NOTE] if self._mixed else []
        notes += [_TEXT_NOTE] if self._string_sensors else []
        notes += [rough[1]] if rough[1] else []
        wanted = self.wanted
        return QueryResult(
            paths=wanted.paths, units=wanted.units, sensor=sensor[chosen],
            ts_ns=ts_ns[chosen], columns={k: v[chosen] for k, v in columns.items()},
            text=None if text is None else text[chosen], truncated=n < len(sensor), fresh_to_ns=fresh_to_ns,
            sources=sources, missing=missing, notes=tuple(notes), resolution_ns=rough[0],
        )  # fmt: skip

    def _samples(self) -> tuple[I64, I64, dict[str, Array], Array | None]:
        raw = self._raw or [
            (
                np.empty(0, np.int64),
                np.empty(0, np.int64),
                np.empty(0, self._dtype),
                np.empty(0, np.uint8),
                None,
            )
        ]
        if len(raw) == 1:
            sensor, ts_ns, values, quality, text = raw[0]
            return sensor, ts_ns, {"value": values, "quality": quality}, text
        text = None
        if any(part[4] is not None for part in raw):
            text = np.concatenate(
                [np.full(len(p[0]), None, np.object_) if p[4] is None else p[4] for p in raw]
            )
        columns = {
            "value": np.concatenate([p[2] for p in raw]),
            "quality": np.concatenate([p[3] for p in raw]),
        }
        return np.concatenate([p[0] for p in raw]), np.concatenate([p[1] for p in raw]), columns, text

    def _windows(self) -> tuple[I64, I64, dict[str, Array]]:
        if not self._partials:
            empty = np.empty(0, np.int64)
            return empty, empty, {name: np.empty(0, self._type_of(name)) for name in self.agg}
        rows = self._partials[0] if len(self._partials) == 1 else Partials.concat(self._partials)
        exact = self.wanted.lane[rows.sensor] == Lane.RAW
        grid = self.wanted.sensor_grid.take(rows.sensor)
        total = np.where(exact, grid.totals(rows.raw_sum, rows.count), rows.sum)
        columns: dict[str, Callable[[], Array]] = {
            "count": lambda: rows.count, "sum": lambda: rows.raw_sum if self._whole_sums else total,
            "min": lambda: rows.low + 0, "max": lambda: rows.high + 0,  # of two zeros none is less
             "first": lambda: rows.first, "last": lambda: rows.last,
            "mean": lambda: np.where(exact, total / rows.count, _means(rows)), "var": lambda: rows.squares / rows.count,
            TIME_WEIGHTED: lambda: rows.twa,
        }  # fmt: skip
        out = {name: columns[name]().astype(self._type_of(name), copy=False) for name in self.agg}
        if self._string_sensors:  # codes of words have no size
            strings = np.isin(rows.sensor, np.array(sorted(self._string_sensors), np.int64))
            for name in out:
                if name != "count":
                    out[name] = np.where(strings, np.nan, out[name])
        ts_ns = rows.window_ns if self.every_ns else np.full(len(rows), self.start_ns)
        return rows.sensor, ts_ns, out

    def _type_of(self, name: str) -> np.dtype[Any]:
        if name == "count" or (name == "sum" and self._whole_sums):
            return np.dtype(np.int64)
        return np.dtype(np.float64) if name in ("sum", "mean", "var", TIME_WEIGHTED) else self._dtype


def _means(rows: Partials) -> Array:
    mean = means_of(rows.sum, rows.sum_low, rows.count)
    return np.where(np.isnan(mean) | np.isinf(mean), rows.mean, mean)
