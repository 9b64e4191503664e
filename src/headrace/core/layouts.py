"""Layouts: the columns of a group at a time.

A layout says what the values of a frame mean: names, kinds, units, grid, limits. It is immutable and named
by the hash of its content, so that two devices of one type share one layout and old data stay readable
after a tag is added (that makes a new layout). Which sensors a group's columns are follows from the group's
path and the column's name.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.core.errors import ConfigError
from headrace.core.grids import Grid
from headrace.core.paths import check_path

DTYPES: tuple[str, ...] = ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64")
"""Value types by wire code; states and strings are codes (u8 … u32) with labels or a dictionary."""

MAX_COLUMNS = 65_535


@lru_cache(maxsize=64)
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of a value type's name: ``u16`` → ``uint16``."""
    return np.dtype(name[0] + str(int(name[1:]) // 8))


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a NumPy type: ``uint16`` → ``u16``."""
    return f"{dtype.kind}{dtype.itemsize * 8}"


class Kind(IntEnum):
    """What a signal is; decides interpolation, codecs and health."""

    ANALOG = 0
    DISCRETE = 1
    COUNTER = 2
    EVENT = 3
    WAVEFORM = 4


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a layout: one sensor of each group that has the layout.

    Parameters
    ----------
    name : the signal, the last level of the sensor's path; empty for a lone sensor (a group of one), whose
        path is the group's; ``../name`` for a series derived from a lone sensor, which stands beside it.
    unit : as in UCUM or as the plant writes it; empty for none.
    scale, offset : the grid, ``engineering value = raw * scale + offset`` as `headrace.core.grids` rounds it.
    low, high : limits in engineering units; values outside get quality ``bad-range``.
    labels : names of the codes 0, 1, ... of a discrete signal.

    Raises
    ------
    ConfigError : a name that can't end a path, a grid that is not one, limits in the wrong order.
    """

    name: str
    kind: Kind = Kind.ANALOG
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name:
            check_path(self.name.removeprefix("../").replace("{self}", "self"))
        numbers = [self.scale, self.offset, *(v for v in (self.low, self.high) if v is not None)]
        if not all(math.isfinite(v) for v in numbers) or self.scale == 0:
            raise ConfigError(
                f"signal {self.name!r}: scale, offset and limits are finite numbers, and scale is not 0; got {numbers}"
            )
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ConfigError(
                f"signal {self.name!r}: limits {self.low} to {self.high} leave nothing; swap them"
            )

    def to_dict(self) -> dict[str, Any]:
        """The column as JSON-ready values; what has its default is left out."""
        out: dict[str, Any] = {"name": self.name}
        if self.kind is not Kind.ANALOG:
            out["kind"] = self.kind.name.lower()
        if self.unit:
            out["unit"] = self.unit
        for key, default in (("scale", 1.0), ("offset", 0.0), ("low", None), ("high", None)):
            value = getattr(self, key)
            if value != default:
                # 2 and 2.0 are one scale, so they must be one text.
                out[key] = float(value)
        if self.labels:
            out["labels"] = list(self.labels)
        return out

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Column:
        """The inverse of `to_dict`."""
        fields = dict(data)
        fields["kind"] = Kind[fields.get("kind", "analog").upper()]
        fields["labels"] = tuple(fields.get("labels", ()))
        return cls(**fields)


@dataclass(frozen=True)
class Layout:
    """The columns of a group and the one value type they share.

    Raises
    ------
    ConfigError : no columns, too many, a name twice, or a value type that does not exist.
    """

    dtype: str
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"value type {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if not 1 <= len(self.columns) <= MAX_COLUMNS:
            raise ConfigError(f"a layout has 1 to {MAX_COLUMNS:,} columns, got {len(self.columns):,}")
        names = [c.name for c in self.columns]
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise ConfigError(f"signal {twice!r} is there twice in one group; rename one of them")

    @property
    def width(self) -> int:
        """Number of columns, D."""
        return len(self.columns)

    @cached_property
    def id(self) -> int:
        """64-bit xxh3 of the content: the layout's name on disk and on links."""
        return int(xxhash.xxh3_64_intdigest(self.to_json().encode()))

    def to_json(self) -> str:
        """Canonical JSON: the bytes whose hash is the layout's name."""
        return self._json

    @cached_property
    def _json(self) -> str:  # every file of rows says it again
        data = {"dtype": self.dtype, "columns": [c.to_dict() for c in self.columns]}
        return json.dumps(data, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """The inverse of `to_json`."""
        data = json.loads(text)
        return cls(dtype=data["dtype"], columns=tuple(Column.from_dict(c) for c in data["columns"]))

    @cached_property
    def is_flat(self) -> bool:
        """Whether each column's path is the group's and one level more."""
        return all(c.name and "/" not in c.name for c in self.columns)

    @cached_property
    def scale(self) -> npt.NDArray[np.float64]:
        """Grid step of each column: float64[D]."""
        return np.array([c.scale for c in self.columns])

    @cached_property
    def offset(self) -> npt.NDArray[np.float64]:
        """Grid offset of each column: float64[D]."""
        return np.array([c.offset for c in self.columns])

    @cached_property
    def grid(self) -> Grid:
        """What turns raw values into engineering values, column by column."""
        return Grid.of((c.scale, c.offset) for c in self.columns)

    @property
    def has_grid(self) -> bool:
        """Whether any column's raw values differ from engineering values."""
        return not self.grid.is_plain

    @cached_property
    def raw_limits(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """Lowest and highest allowed raw value of each column in the layout's own type, or None.

        Limits are turned into raw values once, so that the check on the hot path compares integers.
        """
        if all(c.low is None and c.high is None for c in self.columns):
            return None
        dtype = numpy_dtype(self.dtype)
        low, high = np.empty(self.width, dtype), np.empty(self.width, dtype)
        for i, c in enumerate(self.columns):
            low[i], high[i] = _raw_limits(c, dtype)
        return low, high


def _raw_limits(column: Column, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Raw values between which `column` is inside its limits; for a negative scale they change places."""
    ends = [None if v is None else (v - column.offset) / column.scale for v in (column.low, column.high)]
    if column.scale < 0:
        ends.reverse()
    low, high = ends
    if dtype.kind == "f":
        most = float(np.finfo(dtype).max)
        return (-np.inf if low is None or low < -most else low), (
            np.inf if high is None or high > most else high
        )
    least, most_int = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    # A millionth of a step forgives the division's rounding.
    whole_low = least if low is None else max(math.ceil(low - 1e-6), least)
    whole_high = most_int if high is None else min(math.floor(high + 1e-6), most_int)
    # Limits that the type can't reach: no value is inside them.
    return (most_int, least) if whole_low > most_int or whole_high < least else (whole_low, whole_high)
