"""Values as bits: the ten value types in one form, so that one compiled kernel serves them all.

Inside the kernels a value is a uint64: unsigned integers as they are, signed ones and float32 bits
sign-extended, float64 bits as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import type_byte
from headrace.codecs.bits import U8, U64, extend_sign, get_fixed, get_word, put_fixed, put_word
from headrace.codecs.columns import get_column, put_column, put_plain
from headrace.codecs.compiled import Int, glue, step
from headrace.codecs.grid import FloatScratch, get_float_column, put_float_column, put_plain_floats

Array = npt.NDArray[Any]

UNSIGNED, SIGNED, FLOAT = 0, 1, 2


class Form(NamedTuple):
    """What the values are: wire code of their type, bytes of one, whether unsigned, signed or float."""

    code: int
    width: int
    kind: int


def form_of(dtype: np.dtype[Any]) -> Form:
    """What the kernels need to know of a value type.

    Raises
    ------
    ValueError : not one of the ten value types, or not in this machine's byte order.
    """
    code = type_byte(dtype)[0]
    return Form(code, dtype.itemsize, {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[dtype.kind])


def readonly(array: Array, dtype: npt.DTypeLike) -> Array:
    """The array as kernels take it: contiguous, aligned, not writable; copied only if it is not so.

    Numba compiles a kernel anew for each kind of array, and callers come with all kinds.
    """
    view = np.require(array, dtype, ["C", "A"]).view()
    view.flags.writeable = False
    return view


@step
def load_column(rows: U8, at: tuple[Int, Int], n: Int, form: Form, bits: U64) -> None:
    """The bits of n values of the rows' bytes: number i from place ``first + i * columns``, at = (first, columns)."""
    first, columns = at
    width = form.width
    if width == 2:  # the same several times, but a constant width is one load
        for i in range(n):
            bits[i] = get_fixed(rows, (first + i * columns) * 2, 2)
    elif width == 4:
        for i in range(n):
            bits[i] = get_fixed(rows, (first + i * columns) * 4, 4)
    elif width == 8:
        for i in range(n):
            bits[i] = get_word(rows, (first + i * columns) * 8)
    else:
        for i in range(n):
            bits[i] = np.uint64(rows[first + i * columns])
    if form.kind != UNSIGNED:
        for i in range(n):
            bits[i] = extend_sign(bits[i], width)


@step
def store_column(rows: U8, at: tuple[Int, Int], n: Int, width: Int, bits: U64) -> None:
    """Cut the bits to the width; the places are those of `load_column`."""
    first, columns = at
    if width == 2:
        for i in range(n):
            put_fixed(rows, (first + i * columns) * 2, bits[i], 2)
    elif width == 4:
        for i in range(n):
            put_fixed(rows, (first + i * columns) * 4, bits[i], 4)
    elif width == 8:
        for i in range(n):
            put_word(rows, (first + i * columns) * 8, bits[i])
    else:
        for i in range(n):
            rows[first + i * columns] = np.uint8(bits[i] & np.uint64(255))


@glue
def put_values(bits: U64, n: Int, form: Form, plain: bool, out: U8, pos: Int, floats: FloatScratch) -> Int:
    """Encode bits[:n] at `pos`, `plain` as a raw column; the bits may be used up. Returns the end."""
    if plain:
        if form.kind == FLOAT:
            return put_plain_floats(bits, n, form.width, out, pos)
        return put_plain(bits, n, form.width, out, pos)
    if form.kind == FLOAT:
        return put_float_column(bits, n, form.width, out, pos, floats)
    return put_column(bits, n, form.width, out, pos, floats.integers)


@glue
def get_values(data: U8, pos: Int, end: Int, n: Int, form: Form, floats: FloatScratch) -> bool:
    """Decode data[pos:end] into the bits floats.x[:n]; False where it is not exactly a column of n values."""
    if form.kind == FLOAT:
        return get_float_column(data, pos, end, n, form.width, floats)
    return get_column(data, pos, end, n, form.width, floats.x, floats.integers)
