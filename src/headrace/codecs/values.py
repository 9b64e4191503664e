"""Values as bits: the ten value types in one form, so that one compiled kernel serves them all.

Inside the kernels a value is an int64: unsigned integers as they are, signed ones and float32 bits
sign-extended, float64 bits as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from headrace.codecs.bits import I64, U8
from headrace.codecs.columns import get_column, put_column, put_plain
from headrace.codecs.compiled import Int, glue, leaf
from headrace.codecs.grid import FloatScratch, get_float_column, put_float_column, put_plain_floats
from headrace.core.layouts import DTYPES, dtype_name

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
    name = dtype_name(dtype)
    if name not in DTYPES or not dtype.isnative:
        raise ValueError(f"values of type {dtype} can't be encoded; expected one of {', '.join(DTYPES)}")
    kind = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[dtype.kind]
    return Form(DTYPES.index(name), dtype.itemsize, kind)


@leaf
def load_column(rows: U8, at: tuple[Int, Int], n: Int, form: Form, bits: I64) -> None:
    """The bits of n values of the rows' bytes: number i from place ``first + i * columns``, at = (first, columns)."""
    first, columns = at
    if form.width == 8:
        words = rows.view(np.int64)
        for i in range(n):
            bits[i] = words[first + i * columns]
        return
    if form.width == 4:
        fours = rows.view(np.uint32)
        for i in range(n):
            bits[i] = fours[first + i * columns]
    elif form.width == 2:
        twos = rows.view(np.uint16)
        for i in range(n):
            bits[i] = twos[first + i * columns]
    else:
        for i in range(n):
            bits[i] = rows[first + i * columns]
    if form.kind != UNSIGNED:
        unused = np.int64(64 - 8 * form.width)
        for i in range(n):
            bits[i] = bits[i] << unused >> unused


@leaf
def store_column(rows: U8, at: tuple[Int, Int], n: Int, width: Int, bits: I64) -> None:
    """Cut the bits to the width; the places are those of `load_column`."""
    first, columns = at
    if width == 8:
        words = rows.view(np.int64)
        for i in range(n):
            words[first + i * columns] = bits[i]
    elif width == 4:
        fours = rows.view(np.uint32)
        for i in range(n):
            fours[first + i * columns] = np.uint32(bits[i] & np.int64(0xFFFFFFFF))
    elif width == 2:
        twos = rows.view(np.uint16)
        for i in range(n):
            twos[first + i * columns] = np.uint16(bits[i] & np.int64(0xFFFF))
    else:
        for i in range(n):
            rows[first + i * columns] = np.uint8(bits[i] & np.int64(0xFF))


@glue
def put_values(bits: I64, n: Int, form: Form, plain: bool, out: U8, pos: Int, floats: FloatScratch) -> Int:
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
        return get_float_column(data, pos, end, n, form.width, floats.x, floats.integers)
    return get_column(data, pos, end, n, form.width, floats.x, floats.integers)
