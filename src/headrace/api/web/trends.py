"""Reading a few sensors' curves, at a resolution that a chart can show.

Few samples are shown as they are, each with its quality. Many are shown as windows: mean, and the band from the
lowest to the highest, so that no spike is averaged away. All of it is one question to the store and one to the
engine, however many the sensors. It blocks: call it through `Backend.blocking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from headrace.api.listing import SensorFacts, facts_of
from headrace.api.web.resolution import POINTS_MAX, VisibleSpan
from headrace.core.errors import HeadraceError, NotFound
from headrace.core.sensors import Selection
from headrace.core.spans import TimeRange
from headrace.runtime.reader import StoreReader, UnflushedTail
from headrace.store.result import QueryResult

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
CURVES_MAX = 12
_AGG = ("count", "min", "max", "mean", "last")
_RAW_MAX = POINTS_MAX * 3 // 4
"""Up to so many samples of a sensor are shown one by one; leaves room for what comes while it is followed."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One sensor in a span, points by time.

    Parameters
    ----------
    ts_ns : int64[n]. value : float64[n], NaN where there is none.
    low, high, last, count : of windows, float64[n]; None where points are samples.
    quality : of samples, uint8[n]; None where points are windows. text : the newest word of a string sensor.
    """

    path: str
    ts_ns: I64
    value: F64
    low: F64 | None = None
    high: F64 | None = None
    last: F64 | None = None
    count: F64 | None = None
    quality: npt.NDArray[np.uint8] | None = None
    text: str | None = None


@dataclass(frozen=True, eq=False)
class Trend:
    """Curves of one span.

    Parameters
    ----------
    every_ns : length of the windows; None where each point is a sample.
    since_ns : from when on the curves are given; the start of the span, or later for what is only renewed.
    gone : paths that are no sensor's any more.
    """

    span: TimeRange
    every_ns: int | None
    since_ns: int
    curves: tuple[Curve, ...]
    missing: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass
class ChartedSensors:
    """The sensors of one chart, found once and again whenever the plant has new ones."""

    paths: tuple[str, ...]
    facts: dict[str, SensorFacts] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    _n_slots: int = -1
    _selection: Selection | None = None

    def find(self, reader: StoreReader) -> Selection | None:
        """Where they are; None where none of them exists."""
        directory = reader.directory
        if self._n_slots == directory.n_slots:
            return self._selection
        found, gone = [], []
        for path in self.paths:
            try:
                one = reader.store.select(path)
            except (NotFound, HeadraceError):
                gone.append(path)
                continue
            at = (int(one.slot[0]), int(one.column[0]), int(one.sensor[0]))
            self.facts[path] = facts_of(directory, *at)
            found.append(one)
        self.gone, self._n_slots = tuple(gone), directory.n_slots
        self._selection = None
        if found:
            self._selection = Selection(
                np.concatenate([one.slot[:1] for one in found]),
                np.concatenate([one.column[:1] for one in found]),
                np.concatenate([one.sensor[:1] for one in found]),
            )
        return self._selection


def read_trend(reader: StoreReader, sensors: ChartedSensors, look: VisibleSpan) -> Trend:
    """Curves of a whole span: samples where they are few, else windows. Raises as `StoreReader.tail`."""
    tail = reader.tail()
    span = look.at(tail.now_ns)
    windows = _read(reader, sensors, tail, span, look.every_ns)
    most = max((float(np.nansum(one.count)) for one in windows.curves if one.count is not None), default=0.0)
    if most > _RAW_MAX:
        return windows
    return _read(reader, sensors, tail, span, None)


def renew_trend(reader: StoreReader, sensors: ChartedSensors, look: VisibleSpan, before: Trend) -> Trend:
    """The newest part of a span that follows the present, in the resolution that the rest has.

    Parameters
    ----------
    before : what was read last of it.
    """
    tail = reader.tail()
    part = look.newest_part(tail.now_ns, before.every_ns, before.span.end_ns)
    found = _read(reader, sensors, tail, part, before.every_ns)
    return replace(found, span=look.at(tail.now_ns), since_ns=part.start_ns)


def _read(
    reader: StoreReader, sensors: ChartedSensors, tail: UnflushedTail, span: TimeRange, every_ns: int | None
) -> Trend:
    selection = sensors.find(reader)
    if selection is None:
        return Trend(span, every_ns, span.start_ns, (), (), sensors.gone)
    start_ns = span.start_ns if every_ns is None else span.start_ns - span.start_ns % every_ns
    result = reader.store.query_sensors(
        selection, start_ns, span.end_ns, every_ns, () if every_ns is None else _AGG, tail=tail.frames
    )
    asked = [path for path in sensors.paths if path not in sensors.gone]
    missing = (*result.missing, *tail.notes(selection.slot))
    return Trend(span, every_ns, start_ns, curves_of(result, asked), missing, sensors.gone)


def curves_of(result: QueryResult, paths: Sequence[str]) -> tuple[Curve, ...]:
    """An answer's rows as one curve a sensor, in the order of `paths`; a sensor without rows has an empty curve."""
    place = {path: number for number, path in enumerate(result.paths.tolist())}
    curves = []
    for path in paths:
        first, end = np.searchsorted(result.sensor, [place[path], place[path] + 1])
        rows = slice(int(first), int(end))
        ts_ns = result.ts_ns[rows]
        columns = {name: values[rows] for name, values in result.columns.items()}
        if "value" in columns:
            text = None if result.text is None or first == end else result.text[rows][-1]
            value = columns["value"].astype(np.float64)
            curves.append(Curve(path, ts_ns, value, quality=columns["quality"], text=text))
        else:
            mean, low, high, last, count = (
                columns[name].astype(np.float64) for name in ("mean", "min", "max", "last", "count")
            )
            curves.append(Curve(path, ts_ns, mean, low, high, last, count))
    return tuple(curves)
