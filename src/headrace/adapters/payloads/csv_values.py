"""Columns of texts → columns of values, as their sensors store them.

What a cell is follows from its text alone: a number, ``true`` or ``false``, else a text. A column that holds nothing
but numbers takes no Python for each cell; of others, each different text is looked at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.keys import EXACT_MAX, I64_MAX
from headrace.adapters.payloads.number import number
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.payloads.words import TEXT_MAX, is_word
from headrace.core.clock import NO_TIME
from headrace.core.layouts import Column, Kind, numpy_dtype

Bool = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
_NOTHING, _NUMBER, _TRUTH, _TEXT = range(4)
_SAID = ("nothing", "a number", "true or false", "text")
_TRIED_FIRST = 8
_LABELS = ("false", "true")
_TRUTHS = {"true": True, "false": False}
_DAY_AND_TIME = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:[0-5]\d(\.\d{1,9})?)?"
_ZONED, _ZONELESS = _DAY_AND_TIME + r"(Z|[+-]\d\d:\d\d)$", _DAY_AND_TIME + "$"


@dataclass(frozen=True, slots=True)
class WantedCells:
    """How a sensor stores its values: type, whether as texts, whether on a grid, whether only true and false."""

    dtype: str
    is_text: bool = False
    has_grid: bool = False
    is_truth: bool = False

    @classmethod
    def typed(cls, dtype: str) -> WantedCells:
        """What a sensor takes that is new and has this type."""
        return cls(dtype, is_text=dtype == "u32", is_truth=dtype == "u8")

    @classmethod
    def of(cls, dtype: str, column: Column) -> WantedCells:
        """What a known sensor takes."""
        is_text = dtype == "u32" and column.kind is Kind.DISCRETE
        has_grid = (column.scale, column.offset) != (1.0, 0.0)
        return cls(dtype, is_text, has_grid, is_truth=dtype == "u8" and column.labels == _LABELS)


@dataclass(frozen=True, slots=True)
class ReadCells:
    """A column's values (an Arrow array, null where there is none), and the rows whose cells can't be taken."""

    values: Any
    bad: I64
    wanted: WantedCells | None
    """None where no cell holds anything and the sensor is not known."""


class CellColumn:
    """A column of texts, and what each is: nothing, a number, a truth value, or a text."""

    def __init__(self, texts: Any, decimal: str = ".") -> None:
        self.texts = texts
        self._decimal = decimal
        self._encoded: Any = None
        pointed = texts if decimal == "." else pc.replace_substring(texts, decimal, ".")
        numbers = _cast(pointed, pa.float64())
        if numbers is None:
            self._look()
        else:
            self.kind = np.where(numbers.is_valid().to_numpy(False), np.uint8(_NUMBER), np.uint8(_NOTHING))
            self.numbers: F64 = np.asarray(numbers.fill_null(0.0).to_numpy(False), np.float64)
        self.exact: dict[int, int] = self._large()

    def _look(self) -> None:
        """Look at each different text once."""
        self._encoded = encoded = self.texts.dictionary_encode()
        cells = [self._cell(text) for text in encoded.dictionary.to_pylist()]
        at = np.asarray(encoded.indices.fill_null(len(cells)).to_numpy(False), np.int64)
        self.kind = np.array([*(kind for kind, _ in cells), _NOTHING], np.uint8)[at]
        self.numbers = np.array([*(value for _, value in cells), 0.0])[at]

    def _cell(self, text: str) -> tuple[int, float]:
        text = text.strip()
        if not text:
            return _NOTHING, 0.0
        value = number(text.replace(self._decimal, "."))
        if value is not None:
            return _NUMBER, _float(value)
        truth = _TRUTHS.get(text.lower())
        return (_TEXT, 0.0) if truth is None else (_TRUTH, float(truth))

    def _large(self) -> dict[int, int]:
        """Row → integer that a 64-bit float may not hold."""
        found = {}
        for row in np.flatnonzero(np.abs(self.numbers) >= EXACT_MAX).tolist():
            text = self.texts[row].as_py().strip()
            if text.lstrip("+-").isdecimal():
                found[row] = int(text)
        return found

    def read(self, wanted: WantedCells | None) -> ReadCells:
        """The values as a sensor takes them; a sensor that is not known takes what comes first."""
        if wanted is None:
            there = np.flatnonzero(self.kind)
            if not len(there):
                return ReadCells(pa.nulls(len(self.kind), pa.float64()), there, None)
            wanted = self._natural(int(there[0]))
        if wanted.is_text:
            return self._as_texts(wanted)
        if wanted.dtype in ("f64", "f32") or wanted.has_grid:
            is_good = self.kind == _NUMBER
            is_good[[row for row, value in self.exact.items() if abs(value) > EXACT_MAX]] = False
            values = self.numbers if wanted.has_grid else self.numbers.astype(numpy_dtype(wanted.dtype))
        else:
            values, is_good = self._as_integers(wanted)
        bad = np.flatnonzero(~is_good & (self.kind != _NOTHING))
        return ReadCells(pa.array(values, mask=~is_good), bad, wanted)

    def _natural(self, row: int) -> WantedCells:
        """What the first cell makes of a sensor, also where it can't be taken itself."""
        is_large = EXACT_MAX < abs(self.exact.get(row, 0)) <= I64_MAX
        number_type = "i64" if is_large else "f64"
        return WantedCells.typed({_NUMBER: number_type, _TRUTH: "u8"}.get(int(self.kind[row]), "u32"))

    def _as_texts(self, wanted: WantedCells) -> ReadCells:
        if self._encoded is not None:
            words = self._encoded.dictionary.to_pylist()
            if all(word and word == word.strip() and is_word(word) for word in words):
                return ReadCells(
                    self._encoded, np.zeros(0, np.int64), wanted
                )  # they are values as they stand
        texts = pc.utf8_trim_whitespace(self.texts)
        encoded = texts.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        fits = np.array([*(is_word(word) for word in words), True], np.bool_)
        at = np.asarray(encoded.indices.fill_null(len(words)).to_numpy(False), np.int64)
        is_there = self.kind != _NOTHING
        bad = np.flatnonzero(is_there & ~fits[at])
        return ReadCells(pc.if_else(pa.array(is_there & fits[at]), texts, None), bad, wanted)

    def _as_integers(self, wanted: WantedCells) -> tuple[npt.NDArray[Any], Bool]:
        ends = np.iinfo(numpy_dtype(wanted.dtype))
        low, high = int(ends.min), 1 if wanted.is_truth else int(ends.max)
        is_good = (self.kind == _NUMBER) & (np.floor(self.numbers) == self.numbers)
        is_good &= (np.abs(self.numbers) <= EXACT_MAX) & (self.numbers >= low) & (self.numbers <= high)
        if wanted.dtype == "u8":
            is_good |= self.kind == _TRUTH
        values = np.where(is_good, self.numbers, 0.0).astype(numpy_dtype(wanted.dtype))
        for row, value in self.exact.items():
            is_good[row] = low <= value <= high
            values[row] = value if is_good[row] else 0
        return values, is_good

    def why(self, row: int, wanted: WantedCells) -> str:
        """Why the cell of a row can't be taken."""
        text = self.texts[row].as_py()
        if wanted.is_text:
            return f"a text longer than {TEXT_MAX:,} characters, or with a NUL in it"
        if row in self.exact and wanted.dtype in ("f64", "f32"):
            return f"{text:.40}, which a 64-bit float can't hold exactly; declare the key as i64 under types"
        if self.kind[row] == _NUMBER and not wanted.is_truth:
            return f"{text:.40}, which {wanted.dtype} can't hold"
        expected = "true or false, 1 or 0" if wanted.is_truth else "a number"
        return f"{_SAID[self.kind[row]]} {text!r:.40}, expected {expected}"


def _cast(texts: Any, kind: Any) -> Any:
    """Texts as numbers; None where one of them is none.

    Arrow writes a message for each text that it can't cast, which takes 260 ns: the first few are tried alone.
    """
    try:
        pc.cast(texts.slice(0, _TRIED_FIRST), kind)
        return pc.cast(texts, kind)
    except pa.ArrowInvalid:
        return None


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def read_times(texts: Any, times: TimeReader) -> I64:
    """Nanoseconds of a column of times; `NO_TIME` where there is none that can be read.

    Cost: some ten ns each where they are whole numbers or RFC 3339 texts of one kind, 1 us else.
    """
    numbers = _cast(texts, pa.int64())
    if numbers is not None:
        return times.of_numbers(_with_nulls(numbers))
    for pattern, zone in ((_ZONED, "UTC"), (_ZONELESS, None)):
        if pc.all(pc.match_substring_regex(texts, pattern)).as_py():
            try:
                ts_ns = _with_nulls(pc.cast(texts, pa.timestamp("ns", zone)).cast(pa.int64()))
            except pa.ArrowInvalid:  # the 31st of a month that has 30 days, or a year beyond 2262
                break
            return ts_ns if zone else times.of_plant(ts_ns)
    return np.array([_time(text, times) for text in texts.to_pylist()], np.int64)


def _with_nulls(column: Any) -> I64:
    return np.asarray(column.fill_null(NO_TIME).to_numpy(zero_copy_only=False), np.int64)


def _time(text: str | None, times: TimeReader) -> int:
    try:
        return times.read((text or "").strip())
    except PayloadError:
        return NO_TIME
