"""What is made of an adapter's signals: which are taken, where they go, and how their values are to be read.

An adapter knows a signal by its *own path*: what its profile, topic rule or naming makes of it. ``[adapters.<name>.treatments]``
says by patterns of paths what is made of values, profiles say it of single signals, and a table of tags besides which
signals are taken, and under which path. All of it is decided once, when a group is defined: what comes of it is columns,
dead bands and slots (`headrace.ingest.signal_sink`), so a value costs nothing more.

Of what is said of one signal the table counts more than the profile, that more than patterns, key by key; of several
patterns the most specific one counts.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import NamedTuple

from headrace.core.clock import NO_TIME
from headrace.core.dead_bands import SignalBand
from headrace.core.errors import ConfigError
from headrace.core.grids import composed
from headrace.core.layouts import Column, Kind
from headrace.core.paths import pattern_regex
from headrace.core.problems import dotted
from headrace.core.settings import SignalTreatment
from headrace.core.specificity import specificity

TEXT_PART = "text"
"""Part of a group whose values are codes of texts."""
_OF_NUMBERS = ("limits", "scale", "add", "convert_to", "calibration", "dead_band")
_SHOWN = 5
_log = logging.getLogger("headrace.ingest.signals")


class TakenSignal(NamedTuple):
    """Where a signal goes, and what is made of its values; `is_named`: it was meant by itself, not by a pattern."""

    path: str
    treatment: SignalTreatment | None = None
    is_named: bool = False


@dataclass(frozen=True, slots=True)
class TreatedColumn:
    """One column as it is stored: (from when on, column) of each era, the first from `NO_TIME`."""

    eras: tuple[tuple[int, Column], ...]
    band: SignalBand | None = None

    def at(self, ts_ns: int) -> Column:
        """The column as it holds at a time."""
        return next(column for from_ns, column in reversed(self.eras) if from_ns <= ts_ns)


class SignalRules:
    """What is said of the signals of one adapter.

    Parameters
    ----------
    adapter : its name. patterns : pattern of paths → treatment. single : of single signals, by their own paths.
    table : own path → where it goes; what is not in it is left out. None where all is taken.
    zone : of calibrations' dates without an offset.

    Raises
    ------
    ConfigError : a conversion that can't be; its key is told.
    """

    def __init__(
        self,
        adapter: str,
        patterns: Mapping[str, SignalTreatment],
        single: Mapping[str, SignalTreatment] | None = None,
        table: Mapping[str, TakenSignal] | None = None,
        zone: tzinfo = UTC,
    ) -> None:
        self.adapter = adapter
        self.table = None if table is None else _shared(table)
        self._zone = zone
        self._said = dict(patterns), dict(single or {})
        ordered = sorted(patterns, key=specificity, reverse=True)
        self._patterns = [(pattern_regex(one), patterns[one]) for one in ordered]
        self._own_paths = sorted(table or ())
        self._merged: dict[tuple[int, int], tuple[SignalTreatment, object]] = {}
        self._told: set[str] = set()
        for pattern, treatment in patterns.items():
            _check(treatment, dotted(("adapters", adapter, "treatments", pattern)))

    def __bool__(self) -> bool:
        return any(self._said) or self.table is not None

    def find(self, own_path: str) -> TakenSignal | None:
        """Where a signal goes and what is made of it; None where it is left out."""
        path, said = own_path, self._said[1].get(own_path)
        if self.table is not None:
            row = self.table.get(own_path)
            if row is None:
                return None
            path, said = row.path, self._over(said, row.treatment)
        general = next((one for regex, one in self._patterns if regex.fullmatch(path)), None)
        return TakenSignal(path, self._over(general, said), said is not None)

    def _over(self, general: SignalTreatment | None, said: SignalTreatment | None) -> SignalTreatment | None:
        """A treatment with what is said of a signal itself in place of what is said in general; one object for the same two."""
        if general is None or said is None:
            return said if general is None else general
        key = id(general), id(said)
        if key not in self._merged:
            keys = said.model_fields_set & SignalTreatment.model_fields.keys()
            merged = general.model_copy(update={key: getattr(said, key) for key in keys})
            self._merged[key] = merged, (general, said)
        return self._merged[key][0]

    def below(self, own_path: str) -> Iterator[str]:
        """Own paths that the table has at a path and below it."""
        if self.table is not None and own_path in self.table:
            yield own_path
        at = bisect_left(self._own_paths, f"{own_path}/")
        while at < len(self._own_paths) and self._own_paths[at].startswith(f"{own_path}/"):
            yield self._own_paths[at]
            at += 1

    def column(self, own: Column, name: str, part: str, taken: TakenSignal) -> TreatedColumn:
        """What becomes of a column of the adapter.

        Parameters
        ----------
        own : as the adapter has it. name : under which it is stored. part : of its group.
        """
        treatment, column = taken.treatment, replace(own, name=name)
        if treatment is None:
            return TreatedColumn(((NO_TIME, column),))
        given = treatment.model_fields_set
        column = replace(
            column,
            kind=treatment.kind if "kind" in given else own.kind,
            unit=treatment.unit or own.unit,
            labels=treatment.labels or own.labels,
        )
        asked = [key for key in _OF_NUMBERS if key in given]
        is_text = part == TEXT_PART or (part == "u32" and own.kind is Kind.DISCRETE and not own.labels)
        if is_text or (own.kind is Kind.DISCRETE and "kind" not in given):
            if asked and taken.is_named:
                self._tell(
                    taken.path, f"its values are states or texts, which have no {asked[0]}; remove that"
                )
            return TreatedColumn(((NO_TIME, column),))
        try:
            return TreatedColumn(tuple(self._eras(column, treatment)), treatment.band)
        except ConfigError as e:
            self._tell(
                taken.path, f"{e.message}; its values stay as they come, in {column.unit or 'no unit'}"
            )
            return TreatedColumn(((NO_TIME, column),))

    def _eras(self, column: Column, treatment: SignalTreatment) -> Iterator[tuple[int, Column]]:
        low, high = column.low, column.high
        if "limits" in treatment.model_fields_set:
            low, high = (None if v is None or math.isinf(v) else v for v in treatment.limits)
        for from_ns in (NO_TIME, *treatment.changes_ns(self._zone)):
            outer = treatment.grid(from_ns, self._zone, column.unit)
            scale, offset = composed((column.scale, column.offset), outer)
            unit = treatment.convert_to or column.unit
            yield from_ns, replace(column, unit=unit, scale=scale, offset=offset, low=low, high=high)

    def own_column(self, stored: Column, name: str, taken: TakenSignal) -> Column:
        """What the adapter had, seen from what was stored: an adapter that knows its signals from earlier runs gets that."""
        treatment = taken.treatment
        if treatment is None:
            return replace(stored, name=name)
        unit = treatment.unit or ("" if treatment.convert_to else stored.unit)
        return replace(stored, name=name, scale=1.0, offset=0.0, low=None, high=None, unit=unit)

    def _tell(self, path: str, text: str) -> None:
        """Say once what can't be done with a signal: that is known only when the source has told what it is."""
        if path not in self._told:
            self._told.add(path)
            _log.warning("adapter=%s signal=%s: %s", self.adapter, path, text)

    def tell_left_out(self, own_path: str, names: Sequence[str]) -> None:
        """Say once which signals of a device are left out."""
        key = f"{own_path} {names}"
        if key not in self._told:
            self._told.add(key)
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            _log.info(
                "adapter=%s: %d signals of %s are not in its table of tags and are left out: %s",
                self.adapter, len(names), own_path, shown,
            )  # fmt: skip


def _shared(table: Mapping[str, TakenSignal]) -> dict[str, TakenSignal]:
    """The same, with one treatment for all signals of which the same is said: what is made of it is made once."""
    known: dict[tuple[tuple[str, object], ...], SignalTreatment] = {}
    found = {}
    for own_path, taken in table.items():
        one = taken.treatment
        if one is not None:
            keys = sorted(one.model_fields_set & SignalTreatment.model_fields.keys())
            one = known.setdefault(tuple((key, getattr(one, key)) for key in keys), one)
        found[own_path] = taken._replace(treatment=one)
    return found


def _check(treatment: SignalTreatment, where: str) -> None:
    """Resolve a conversion whose units are both known. Raises `ConfigError`."""
    if treatment.convert_to is None or not treatment.unit:
        return
    try:
        treatment.grid()
    except ConfigError as e:
        raise ConfigError(e.message, where) from e
