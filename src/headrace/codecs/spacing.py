"""Values on a grid of their own, in cells: several grid points each, as many as the bound allows.

Of values that lie `width` apart, a cell of c points has its middle ``(c - 1) / 2 * width`` from the outermost: so
``c = 1 + floor(2 * reach / width)`` points fit, and cells are up to one point wider than twice the bound. On a grid
about as wide as the bound (a temperature in tenths, kept to a tenth) that saves up to a bit a value. A converter's
grid needs to be met only within a share of the bound, which is taken from it.

In bytes: width as float32, phase, points as a varint. The value of cell j is ``(j * points + (points - 1) / 2 - points //
2 + phase / 256) * width``.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from headrace.codecs.levels import F64, I64
from headrace.codecs.packing import get_varint, put_varint

_HEAD = struct.Struct("<fB")
_PHASES = 256
_SAMPLE = 128
_PER_BOUND_MAX = 16
"""Grid points in a bound; with more, cells are hardly wider than twice the bound."""

_SAME = 64
"""Values are one where they differ by less than this share of the bound."""

_STRAY_MAX = 0.2
"""How far off the grid a value may be, as a share of the grid's width."""

_NUMBER_MAX = 2.0**40
_WIDTH_MIN, _WIDTH_MAX = 1e-37, 1e37  # a float32


@dataclass(frozen=True, slots=True)
class Spacing:
    """Grid points ``(i + phase / 256) * width`` and how many of them are one cell.

    Parameters
    ----------
    width : a float32, in the values' unit. phase : 0 to 255. points : of a cell, at least 1.
    """

    width: float
    phase: int
    points: int

    def pack(self) -> bytes:
        """Width as float32, phase as a byte, points as a varint."""
        return _HEAD.pack(self.width, self.phase) + put_varint(self.points)

    @classmethod
    def unpack(cls, body: bytes) -> tuple[Spacing, int]:
        """Inverse of `pack`, and where it ends."""
        width, phase = _HEAD.unpack(body[: _HEAD.size].ljust(_HEAD.size, b"\0"))
        points, at = get_varint(body, _HEAD.size)
        return cls(width, phase, points), at

    def gain(self, reach: float) -> float:
        """How much wider a cell is than twice the bound."""
        return self.points * self.width / (2.0 * reach)

    def numbers(self, x: F64) -> F64:
        """Numbers of the nearest grid points, whole."""
        return np.rint(x / self.width - self.phase / _PHASES)

    def cells(self, x: F64) -> I64:
        """Numbers of the cells that ``x: float64[n]`` lie in: int64[n]."""
        return np.floor_divide(self.numbers(x).astype(np.int64) + self.points // 2, self.points)

    def middles(self, cells: I64) -> F64:
        """What lies in the middle of cells: float64[n]."""
        middle = (self.points - 1) / 2 - self.points // 2 + self.phase / _PHASES
        return (cells.astype(np.float64) * self.points + middle) * self.width


def find_spacing(x: F64, reach: float) -> Spacing | None:
    """The grid of ``x: float64[n]`` and cells that keep `reach`; None where that gains nothing.

    A sample of the values says soon where there is none.
    """
    least = reach / _PER_BOUND_MAX
    if _smallest_gap(np.sort(x[:_SAMPLE]), reach) < least:
        return None
    ordered = np.sort(x)
    width = _smallest_gap(ordered, reach)
    if (
        not max(least, _WIDTH_MIN) <= width < _WIDTH_MAX
        or not np.abs(ordered[[0, -1]]).max() < width * _NUMBER_MAX
    ):
        return None
    width = float(np.float32(_fitted(ordered, width)))
    offsets = x / width
    mean = np.exp(2j * np.pi * (offsets - np.rint(offsets))).mean()
    phase = round(float(np.angle(mean)) / (2 * np.pi) * _PHASES) % _PHASES
    points = Spacing(width, phase, 1)
    stray = float(np.abs(points.middles(points.cells(x)) - x).max())
    if not stray <= _STRAY_MAX * min(width, reach):
        return None
    spacing = Spacing(width, phase, 1 + math.floor(2.0 * (reach - stray) / width))
    return spacing if spacing.gain(reach) > 1.0 else None


def _smallest_gap(ordered: F64, reach: float) -> float:
    """Between values that are not one; infinite where all are."""
    gaps = np.diff(ordered)
    return float(np.min(gaps, initial=math.inf, where=gaps > reach / _SAME))


def _fitted(ordered: F64, width: float) -> float:
    """The width that fits all, from one gap's: first over short gaps, where numbers are sure, then by least squares."""
    gaps = np.diff(ordered)
    for _ in range(3):
        numbers = np.rint(gaps / width)
        short = (numbers > 0) & (numbers < _SAME)
        if not short.any():
            return width
        width = float(gaps[short].sum() / numbers[short].sum())
    distance = ordered - ordered[0]
    for _ in range(2):
        numbers = np.rint(distance / width)
        width = float(distance @ numbers / (numbers @ numbers))
    return width
