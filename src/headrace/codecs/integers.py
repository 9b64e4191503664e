"""Integers of one sensor: what grids, differences and quantised values leave behind, in the fewest bytes.

A body is one byte that names the coder, and what the coder wrote. Coders are tried on the numbers themselves;
a reader needs no settings. It has no checksum of its own: the codec that uses it seals the whole.

==== ======== =================================================================================
byte coder    bytes that follow
==== ======== =================================================================================
0    series   `headrace.codecs.series_kernels`: Rice codes, changes, constants, in pieces
1    pco      pcodec's standalone format, int64
2    adaptive `headrace.codecs.adaptive`: Rice codes that follow the numbers
3    centred  order; unless it is 0, shift, a byte too, and coefficients as int16; a centre, signed; then the
              residuals of the linear prediction (`headrace.codecs.lpc`), direct
4    steps    step and rest as varints: the numbers are ``rest + step * i``; then i as a body
5    sparse   first number and usual difference, signed; how many differences are others; the bytes
              of the next part; distances between them, then how much they are off, both direct
6    model    `headrace.codecs.model`: how large they are by a model that learns, entropy-coded
==== ======== =================================================================================

*Direct* is a body of coder 0, 1, 2 or 6, so that none is inside another more than twice.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.packing import get_signed, get_sized, get_varint, put_signed, put_sized, put_varint
from headrace.core.errors import CorruptionError

I64 = npt.NDArray[np.int64]

LEVEL = 8
_PIECE = 1 << 16
_PCO_FROM, _STEPS_FROM = 64, 16  # their heads are larger than what they save on fewer numbers
_MODEL_FROM, _SERIES_TO = 64, 512
_SPARSE_FROM, _SPARSE_EACH, _STEADY_SHARE = 16, 4, 0.4
_WILD_FROM, _WILD_SHARE = 10.0, 0.002  # bits a number, and share of wild differences, from which pco may win
_SERIES, _PCO, _ADAPTIVE, _CENTRED, _STEPS, _SPARSE, _MODEL = (bytes([i]) for i in range(7))


def encode_integers(numbers: I64) -> bytes:
    """The shortest body of ``numbers: int64[n]``, as far as an estimate finds it."""
    if numbers.size < _STEPS_FROM:
        return encode_direct(numbers)
    low, high, step = _survey(numbers)
    if step > 1:
        rest = low % step
        return _STEPS + put_varint(step) + put_varint(rest) + encode_integers((numbers - rest) // step)
    return _encode(numbers, low, high) if low < high else _coded_series(numbers)


def _survey(numbers: I64) -> tuple[int, int, int]:
    """Least, greatest, and what all distances are multiples of."""
    from headrace.codecs.integer_kernels import survey

    found = np.empty(3, np.int64)
    survey(numbers, found)
    low, high, step = found.tolist()
    return low, high, step


class _Prices(NamedTuple):
    """About the bits of numbers by order 0, 1, 2; how many are new; of the differences, how many are wild, how many stay."""

    bits: list[int]
    n_new: int
    n_wild: int
    n_steady: int

    def may_be_pco(self, n: int) -> bool:
        """Whether few numbers come again and again, or many differences are wild: what a model of sizes codes badly."""
        each = min(self.bits) / n
        wild = each > _WILD_FROM and self.n_wild > n * _WILD_SHARE
        return n >= _PCO_FROM and (wild or each > math.log2(self.n_new + 1) + 1.0)


def _prices(numbers: I64, centre: int) -> _Prices:
    from headrace.codecs.integer_kernels import price

    found, seen = np.empty(6, np.uint64), np.zeros(1024, np.uint64)
    with np.errstate(over="ignore"):
        price(numbers.view(np.uint64), np.uint64(centre & 0xFFFFFFFFFFFFFFFF), seen, found)
    *bits, new, wild, steady = found.tolist()
    return _Prices(bits, new, wild, steady)


def _encode(numbers: I64, low: int, high: int) -> bytes:
    """By the order, or the predictor, that is estimated to be the shortest."""
    from headrace.codecs.lpc import NUMBER_MAX

    near = -NUMBER_MAX < low <= high < NUMBER_MAX
    centre = round(float(numbers.mean())) if near else low
    prices = _prices(numbers, centre)
    order = min(range(3), key=prices.bits.__getitem__)
    bodies = [_ordered(numbers, centre, order)]
    if near and (predicted := _predicted(numbers, centre, prices.bits[order])):
        bodies = [predicted]
    if prices.n_steady > _STEADY_SHARE * numbers.size:
        bodies += [
            *_sparse(numbers),
            *([_coded_series(numbers)] if prices.n_steady >= numbers.size - 2 else []),
        ]
    if prices.may_be_pco(numbers.size):
        bodies.append(_coded_pco(numbers))
    return min(bodies, key=len)


def _ordered(numbers: I64, centre: int, order: int) -> bytes:
    if numbers.size < _MODEL_FROM:
        return encode_direct(numbers)
    if order == 0:
        with np.errstate(over="ignore"):
            left = numbers - np.int64(centre)
        return _CENTRED + b"\x00" + put_signed(centre) + encode_direct(left)
    return _coded_model(numbers, order)


def _predicted(numbers: I64, centre: int, price: int) -> bytes | None:
    """By linear prediction, where that is estimated to take fewer bits than `price`."""
    from headrace.codecs.integer_kernels import price_plain
    from headrace.codecs.lpc import predictor, residuals

    found = predictor(numbers, centre)
    if found is None:
        return None
    coefficients, shift = found
    left = np.empty_like(numbers)
    residuals(numbers, centre, coefficients, shift, left)
    with np.errstate(over="ignore"):
        price_left = int(price_plain(left.view(np.uint64), len(coefficients)))
    if price_left + 16 * len(coefficients) >= price:
        return None
    head = bytes([len(coefficients), shift]) + coefficients.astype("<i2").tobytes()
    return _CENTRED + head + put_signed(centre) + encode_direct(left)


def encode_direct(numbers: I64) -> bytes:
    """The shortest body of numbers that follow no line: patches, remainders."""
    from headrace.codecs.adaptive import PLAIN

    if numbers.size >= _SERIES_TO and numbers.min() != numbers.max():
        return _coded_model(numbers, PLAIN)
    other = _coded_adaptive(numbers) if numbers.size < _MODEL_FROM else _coded_model(numbers, PLAIN)
    return min(_coded_series(numbers), other, key=len)


def decode_integers(body: bytes, n: int) -> I64:
    """The n numbers of a body.

    Raises
    ------
    CorruptionError : it does not hold n numbers; memory is taken for n of them at most.
    """
    decode = _DECODERS.get(body[:1])
    try:
        numbers = None if decode is None else decode(body[1:], n)
    except struct.error:
        numbers = None
    if numbers is None:
        raise CorruptionError(f"a body of {len(body):,} bytes does not hold {n:,} integers")
    return numbers


# --- direct ------------------------------------------------------------------------------------------


def _coded_series(numbers: I64) -> bytes:
    from headrace.codecs.series_kernels import series_body

    return _SERIES + series_body(numbers, _PIECE)


def _coded_adaptive(numbers: I64) -> bytes:
    from headrace.codecs.adaptive import PLAIN, adaptive_body, best_order

    orders = {PLAIN, best_order(numbers) if numbers.size > 2 else PLAIN}
    return _ADAPTIVE + min((adaptive_body(numbers, order) for order in sorted(orders)), key=len)


def _coded_model(numbers: I64, order: int) -> bytes:
    from headrace.codecs.model import model_body

    return _MODEL + model_body(numbers, order)


def _coded_pco(numbers: I64) -> bytes:
    from pcodec import ChunkConfig, standalone

    return _PCO + bytes(standalone.simple_compress(numbers, ChunkConfig(compression_level=LEVEL)))


def _decode_direct(body: bytes, n: int) -> I64:
    if body[:1] not in (_SERIES, _PCO, _ADAPTIVE, _MODEL):
        raise CorruptionError(f"a body of {len(body):,} bytes has a coder where it can't be")
    return decode_integers(body, n)


def _series_numbers(body: bytes, n: int) -> I64 | None:
    from headrace.codecs.series_kernels import series_values

    return series_values(body, n, np.dtype(np.int64), _PIECE)


def _pco_numbers(body: bytes, n: int) -> I64 | None:
    from pcodec import standalone

    numbers = np.empty(n, np.int64)
    try:
        progress = standalone.simple_decompress_into(body, numbers)
    except (RuntimeError, TypeError):
        return None
    return numbers if progress.n_processed == n and progress.finished else None


def _adaptive_numbers(body: bytes, n: int) -> I64 | None:
    from headrace.codecs.adaptive import adaptive_numbers

    return adaptive_numbers(body, n)


def _model_numbers(body: bytes, n: int) -> I64 | None:
    from headrace.codecs.model import model_numbers

    return model_numbers(body, n)


# --- of direct ones ----------------------------------------------------------------------------------


def _centred_numbers(body: bytes, n: int) -> I64 | None:
    from headrace.codecs.lpc import ORDER_MAX, SHIFT_MAX, restore

    order = body[0] if body else ORDER_MAX + 1
    shift = body[1] if order and len(body) > 1 else 0
    start = 2 if order else 1
    at = start + 2 * order
    if order > ORDER_MAX or shift > SHIFT_MAX or len(body) <= at or not n:
        return None
    coefficients = np.frombuffer(body[start:at], "<i2").astype(np.int64)
    centre, at = get_signed(body, at)
    numbers = _decode_direct(body[at:], n)
    with np.errstate(over="ignore"):
        restore(numbers, centre, coefficients, shift)
    return numbers


def _stepped_numbers(body: bytes, n: int) -> I64 | None:
    step, at = get_varint(body, 0)
    rest, at = get_varint(body, at)
    if body[at : at + 1] == _STEPS or max(step, rest) >= 2**62:
        return None
    with np.errstate(over="ignore"):
        numbers: I64 = np.int64(rest) + np.int64(step) * decode_integers(body[at:], n)
    return numbers


def _sparse(numbers: I64) -> Iterator[bytes]:
    """A body for numbers that nearly always rise by the same; none where they do not."""
    if numbers.size < _SPARSE_FROM:
        return
    with np.errstate(over="ignore"):
        rise = np.diff(numbers)
        usual = np.sort(rise)[rise.size // 2]
        at = np.flatnonzero(rise != usual)
        if at.size * _SPARSE_EACH > rise.size:
            return
        gaps, others = np.diff(at, prepend=-1) - 1, rise[at] - usual
    distances, off = encode_direct(gaps), encode_direct(others)
    head = put_signed(int(numbers[0])) + put_signed(int(usual)) + put_varint(at.size)
    yield _SPARSE + head + put_sized(distances) + off


def _sparse_numbers(body: bytes, n: int) -> I64 | None:
    first, at = get_signed(body, 0)
    usual, at = get_signed(body, at)
    count, at = get_varint(body, at)
    if count >= n:
        return None
    distances, at = get_sized(body, at)
    gaps, off = _decode_direct(distances, count), _decode_direct(body[at:], count)
    if (gaps < 0).any() or (gaps >= n).any():
        return None
    places = np.cumsum(gaps + 1)
    if count and places[-1] >= n:
        return None
    rise = np.full(n, usual, np.int64)
    rise[0] = first
    with np.errstate(over="ignore"):
        rise[places] += off
        return np.cumsum(rise)


_DECODERS: dict[bytes, Callable[[bytes, int], I64 | None]] = {
    _SERIES: _series_numbers, _PCO: _pco_numbers, _ADAPTIVE: _adaptive_numbers,
    _STEPS: _stepped_numbers, _SPARSE: _sparse_numbers, _MODEL: _model_numbers,
    _CENTRED: _centred_numbers,

}  # fmt: skip
