"""Where floats come from: the integers behind them, learned from the chunk itself.

Most sensor floats were integers once: decimals of a display, steps of a converter, a float32. An *origin* says how
an integer becomes the float; what does not fit is patched. A chunk's origin is found on the chunk alone, so that it
can be decoded alone, and its description is paid for in every chunk.

=========== ==============================================================================================
origin      value of the integer i
=========== ==============================================================================================
bits        the float64 whose ordered bits are i
single      the float32 whose ordered bits are i; *text*: as programs print it with 10 digits
decimal     ``i / 10**k``, a correctly rounded division; *product*: ``i * 10**-k``
levels      as decimal, of ``floor(i * step + offset + 0.5)``: a converter's steps, rounded to decimals
scaled      ``i * step + offset``
=========== ==============================================================================================

A decimal may have been rounded to float32 then, and printed and parsed by a parser that rounds at each digit; or only
parsed by such a one, as pandas before 3.1 read CSV.

The bytes of an origin: one with the kind in bits 0-2 (0 bits, 1 decimal, 2 product, 3 single, 4 scaled), what was done to
the value then in bits 3-4 (0 nothing, 1 rounded to float32, 2 and printed, 3 only parsed), bit 5 for levels, bit 6 for a wide step; k in
a byte for a decimal with levels; step and offset for levels and scaled, two float32 or, where wide, two float64. For a
decimal without levels it is one byte: 0x80, k in bits 0-3, what was done in bits 4-5, bit 6 for a product. *Ordered
bits* are the IEEE bits as a signed integer with all but the sign flipped for negatives. ``10**-k`` is the float64 next to
it. How a value is printed and parsed is in `headrace.codecs.origin_kernels` (`printed`, `parsed`, `read`).
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs import origin_kernels as kernels
from headrace.codecs.compiled import wrapping
from headrace.codecs.origin_kernels import (
    AS_IS,
    AS_READ,
    AS_SINGLE,
    AS_TEXT,
    BITS,
    DECIMAL,
    DIGITS_MAX,
    PRODUCT,
    SCALED,
    SINGLE,
)

Array = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_FLOATS32, _FLOATS64 = struct.Struct("<ff"), struct.Struct("<dd")
_MAGNITUDE, _MAGNITUDE_32 = np.int64(0x7FFFFFFFFFFFFFFF), np.int32(0x7FFFFFFF)
_SINGLE_MAX = float(np.finfo(np.float32).max)
_LEVELS, _WIDE, _SHORT, _PRODUCT = 0x20, 0x40, 0x80, 0x40
_MEMO = 2048
NEAR_MAX = 64
"""How many floats beside its integer's a value may lie to be called near."""

_LEVEL_GAP_MIN = 3  # decimals: closer ones may be any (`lie_close`)
_DIGITS_FEW = 5  # more may be by accident
_SCALED_BITS = 24  # a finer converter is none
_LOOK = 256
"""Values that are looked at to find out what the rest may be."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How integers become floats; see the module's text.

    Parameters
    ----------
    kind, cast : of `headrace.codecs.origin_kernels`. digits : of a decimal. step, offset : of levels and scaled.
    """

    kind: int = BITS
    cast: int = AS_IS
    digits: int = 0
    is_levels: bool = False
    step: float = 1.0
    offset: float = 0.0

    def to_bytes(self) -> bytes:
        """One byte for kind and cast, one for digits, step and offset where there are any, as float32 if they are."""
        if self.kind in (DECIMAL, PRODUCT) and not self.is_levels:
            return bytes([_SHORT | (_PRODUCT if self.kind == PRODUCT else 0) | self.cast << 4 | self.digits])
        head = self.kind | self.cast << 3 | (_LEVELS if self.is_levels else 0)
        digits = bytes([self.digits]) if self.kind in (DECIMAL, PRODUCT) else b""
        if not self._has_step:
            return bytes([head]) + digits
        steps = self.step, self.offset
        if all(abs(one) <= _SINGLE_MAX and float(np.float32(one)) == one for one in steps):
            return bytes([head]) + digits + _FLOATS32.pack(*steps)
        return bytes([head | _WIDE]) + digits + _FLOATS64.pack(*steps)

    @classmethod
    def from_bytes(cls, body: bytes) -> tuple[Origin, int]:
        """The origin at the start of a body, and its bytes. Raises ValueError, struct.error or IndexError."""
        head, at = body[0], 1
        if head & _SHORT:
            kind, cast = PRODUCT if head & _PRODUCT else DECIMAL, head >> 4 & 3
            if cast == AS_READ and kind != DECIMAL:
                raise ValueError(f"no such origin: {head:#04x}")
            return cls(kind, cast, head & 15), at
        kind, cast, is_levels = head & 7, head >> 3 & 3, bool(head & _LEVELS)
        digits = 0
        if kind in (DECIMAL, PRODUCT):
            digits, at = body[1], 2
        origin = cls(kind, cast, digits, is_levels)
        if kind > SCALED or (cast == AS_READ and kind != DECIMAL) or digits > DIGITS_MAX:
            raise ValueError(f"no such origin: {head:#04x}, {digits} digits")
        if origin._has_step:
            steps = _FLOATS64 if head & _WIDE else _FLOATS32
            step, offset = steps.unpack_from(body, at)
            return cls(kind, cast, digits, is_levels, step, offset), at + steps.size
        return origin, at

    @property
    def _form(self) -> tuple[int, int, bool]:
        return self.kind, self.cast, self.is_levels

    @property
    def _has_step(self) -> bool:
        return self.is_levels or self.kind == SCALED

    def numbers(self, values: F64) -> I64:
        """The nearest integer to each value."""
        if self.kind == BITS:
            return _ordered(values.view(np.int64))
        if self.kind == SINGLE:
            with np.errstate(over="ignore", invalid="ignore"):
                return _ordered_32(values.astype(np.float32).view(np.int32)).astype(np.int64)
        out = np.empty(len(values), np.int64)
        kernels.to_numbers(values, self._form, self.digits, (self.step, self.offset), out)
        return out

    def numbers_beside(self, values: F64) -> tuple[I64, I64 | None]:
        """The nearest integers, and how many floats the values lie beside what they stand for; None for none."""
        if self.kind in (BITS, SINGLE):
            numbers = self.numbers(values)
            with np.errstate(over="ignore"):
                beside = values.view(np.int64) - self.values(numbers).view(np.int64)
            return numbers, beside if beside.any() else None
        rooms = np.empty(len(values), np.int64), np.empty(len(values), np.int64)
        line = self.step, self.offset
        with wrapping():
            n = kernels.numbers_beside(values, self._form, self.digits, line, _memo(), rooms)
        return rooms[0], rooms[1] if n else None

    def values(self, numbers: I64) -> F64:
        """What the integers stand for: float64[n]."""
        if self.kind == BITS:
            return _ordered(numbers).view(np.float64)
        if self.kind == SINGLE:
            with np.errstate(invalid="ignore"):
                out = _ordered_32(numbers.astype(np.int32)).view(np.float32).astype(np.float64)
            if self.cast != AS_IS:
                self._run(numbers, out)
            return out
        out = np.empty(len(numbers))
        self._run(numbers, out)
        return out

    def _run(self, numbers: I64, out: F64) -> None:
        memo = _memo()
        with wrapping():  # arithmetic modulo 2**64 is meant
            kernels.to_values(numbers, self._form, self.digits, (self.step, self.offset), memo, out)

    def text(self) -> str:
        """In words, for people."""
        cast = {AS_IS: "", AS_SINGLE: " as float32", AS_TEXT: " as float32 text", AS_READ: " as read"}[
            self.cast
        ]
        if self.kind in (DECIMAL, PRODUCT):
            name = f"{self.digits} decimals" + (" by product" if self.kind == PRODUCT else "")
            return name + (f", step {self.step:g}" if self.is_levels else "") + cast
        if self.kind == SCALED:
            return f"step {self.step:g}, offset {self.offset:g}"
        return {BITS: "float64", SINGLE: "float32"}[self.kind] + (" text" if self.cast == AS_TEXT else "")


def is_bits(head: int) -> bool:
    """Whether the first byte of an origin says that numbers are the values' own bits."""
    return not head & _SHORT and head & 7 == BITS


def _ordered(bits: I64) -> I64:
    """Bits whose order is that of the floats; its own inverse."""
    return bits ^ ((bits >> 63) & _MAGNITUDE)


def _ordered_32(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return bits ^ ((bits >> 31) & _MAGNITUDE_32)


def find_origins(values: F64) -> list[Origin]:
    """What ``values: float64[n]`` may come from, at most two; the bits themselves where nothing else is likely."""
    some, found_in = np.empty(_LOOK), np.empty(3, np.int64)
    with wrapping():
        some = some[: kernels.find_decimal(values, some, found_in)]
    if not len(some):
        return [Origin()]
    kind, cast, digits = found_in.tolist()
    decimal = Origin(kind, cast, digits) if kind >= 0 else None
    found = [decimal] if decimal is not None else []
    if decimal is None or decimal.digits > _DIGITS_FEW:
        either = (Origin(SINGLE), Origin(SINGLE, AS_TEXT))
        other = next((one for one in either if _is_likely(one, some)), None) or _scaled(values)
        found += [] if other is None else [other]
    elif (levels := _levels(decimal, values)) is not None:
        found = [levels]
    return found or [Origin()]


def _is_likely(origin: Origin, some: F64) -> bool:
    """Whether nearly all of some values are at most a few floats beside what their integers say."""
    return _off(origin, some)[1] > 0.9 * len(some)


def _off(origin: Origin, some: F64) -> tuple[int, int]:
    """How many values are exactly what their integers say, and how many at most a few floats beside it."""
    line = origin.step, origin.offset
    with wrapping():
        exact, near = kernels.likeness(
            some, (origin.kind, origin.cast, origin.is_levels), origin.digits, line
        )
    return exact, near


def _levels(decimal: Origin, values: F64) -> Origin | None:
    """The converter's steps behind decimals: fewer numbers than the decimals have, evenly spaced but for rounding."""
    if kernels.lie_close(values, decimal.digits):
        return None
    whole = _distinct(decimal.numbers(values))
    if len(whole) < 8:
        return None
    gap = np.diff(whole)
    least = gap.min()
    if least < _LEVEL_GAP_MIN or not (gap % least).any():
        return None
    level = whole.astype(np.float64)
    line = _line(level, gap)
    if line is None:
        return None
    for one in (np.float32, np.float64):
        step, offset = float(one(line[0])), float(one(line[1]))
        number = np.floor((level - offset) / step + 0.5)
        if (np.floor(number * step + offset + 0.5) == level).mean() > 0.98:
            return Origin(DECIMAL, decimal.cast, decimal.digits, True, step, offset)
    return None


def _distinct(values: Array) -> Array:
    """Ascending, each once. NumPy's `unique` hashes first, which takes five times as long here."""
    ordered = np.sort(values)
    once: Array = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    return once


def _line(level: F64, gap: I64) -> tuple[float, float] | None:
    """Step and offset of the line that no level is furthest from; None where they are not whole multiples, rounded."""
    first = int(np.argmin(level[7:] - level[:-7]))
    line = np.array([gap[gap <= gap.min() + 1].mean(), level[first]])
    number = np.empty(len(level))
    if not kernels.fit_line(level, number, first, line):
        return None
    kernels.nearest_line(level, number, line)
    return float(line[0]), float(line[1])


def _scaled(values: F64) -> Origin | None:
    """Steps of a converter, from 0, in full floats."""
    if kernels.are_finer(values, 2.0**-_SCALED_BITS):  # said soon: most are
        return None
    level = _distinct(values[np.isfinite(values)])
    if len(level) < 8:
        return None
    step = float(np.diff(level).min())
    size = float(np.abs(level).max())
    if not step > 0.0 or size / step > 2.0**_SCALED_BITS:
        return None
    if level[0] < 0.0:  # a step fits what is below 0 as it fits what is above
        level = np.sort(np.abs(level))
    step = kernels.fit_steps(level, step)
    return Origin(SCALED, step=step) if step > 0.0 else None


_own = threading.local()


def _memo() -> kernels.Memo:
    """Of the thread that asks."""
    found: kernels.Memo | None = getattr(_own, "memo", None)
    if found is None:
        found = np.empty(_MEMO, np.int64), np.empty(_MEMO), np.zeros(1, np.int64)
        _own.memo = found
    return found
