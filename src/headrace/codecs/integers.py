"""Integers of one sensor: what grids, differences and quantised values leave behind, in the fewest bytes.

A body is one byte that names the coder, and what the coder wrote. Coders are tried on the numbers themselves;
a reader needs no settings. It has no checksum of its own: the codec that uses it seals the whole.

==== ======== =================================================================================
byte coder    bytes that follow
==== ======== =================================================================================
0    series   `headrace.codecs.series_kernels`: Rice codes, changes, constants, in pieces
1    pco      pcodec's standalone format, int64
2    adaptive `headrace.codecs.adaptive`: Rice codes that follow the numbers
3    lpc      order, shift (a byte each), coefficients as int16, then the residuals, direct
4    steps    step and rest as varints: the numbers are ``rest + step * i``; then i as a body
5    sparse   first number and usual difference, signed; how many differences are others; the bytes
              of the next part; distances between them, then how much they are off, both direct
==== ======== =================================================================================

*Direct* is a body of one of the first three coders, so that none is inside another more than twice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from headrace.codecs.packing import get_signed, get_sized, get_varint, put_signed, put_sized, put_varint
from headrace.core.errors import CorruptionError

I64 = npt.NDArray[np.int64]

LEVEL = 8
_PIECE = 1 << 16
_PCO_FROM, _STEPS_FROM = 64, 16  # their heads are larger than what they save on fewer numbers
_SPARSE_FROM, _SPARSE_EACH = 16, 4
_SERIES, _PCO, _ADAPTIVE, _LPC, _STEPS, _SPARSE = (bytes([i]) for i in range(6))
_LPC_HEAD = struct.Struct("<BB")


def encode_integers(numbers: I64) -> bytes:
    """The shortest body of ``numbers: int64[n]``."""
    step = _common_step(numbers)
    if step > 1:
        rest = int(numbers[0]) % step
        return _STEPS + put_varint(step) + put_varint(rest) + encode_integers((numbers - rest) // step)
    return min([encode_counts(numbers), *_predicted(numbers)], key=len)


def encode_counts(numbers: I64) -> bytes:
    """The shortest body of numbers that no resonance moves: of ticks, above all."""
    from headrace.codecs.adaptive import best_order

    return min([_direct(numbers, best_order(numbers) if numbers.size > 2 else 0), *_sparse(numbers)], key=len)


def encode_direct(numbers: I64) -> bytes:
    """The shortest body of numbers that follow no line: patches, remainders."""
    from headrace.codecs.adaptive import PLAIN

    return _direct(numbers, PLAIN)


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


def _direct(numbers: I64, order: int) -> bytes:
    """The shortest body by a coder that needs no predictor."""
    coders = [_coded_series, _coded_adaptive, *([_coded_pco] if numbers.size >= _PCO_FROM else [])]
    return min((coder(numbers, order) for coder in coders), key=len)


def _coded_series(numbers: I64, order: int) -> bytes:
    from headrace.codecs.series_kernels import series_body

    return _SERIES + series_body(numbers, _PIECE)


def _coded_adaptive(numbers: I64, order: int) -> bytes:
    from headrace.codecs.adaptive import adaptive_body

    return _ADAPTIVE + adaptive_body(numbers, order)


def _coded_pco(numbers: I64, order: int) -> bytes:
    from pcodec import ChunkConfig, standalone

    return _PCO + bytes(standalone.simple_compress(numbers, ChunkConfig(compression_level=LEVEL)))


def _decode_direct(body: bytes, n: int) -> I64:
    if body[:1] not in (_SERIES, _PCO, _ADAPTIVE):
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


# --- of direct ones ----------------------------------------------------------------------------------


def _predicted(numbers: I64) -> Iterator[bytes]:
    from headrace.codecs.lpc import predictors, residuals

    for coefficients, shift in predictors(numbers):
        left = np.empty_like(numbers)
        residuals(numbers, coefficients, shift, left)
        head = _LPC_HEAD.pack(len(coefficients), shift) + coefficients.astype("<i2").tobytes()
        yield _LPC + head + encode_direct(left)


def _predicted_numbers(body: bytes, n: int) -> I64 | None:
    from headrace.codecs.lpc import ORDER_MAX, SHIFT_MAX, restore

    order, shift = _LPC_HEAD.unpack_from(body)
    end = _LPC_HEAD.size + 2 * order
    if not 0 < order <= ORDER_MAX or shift > SHIFT_MAX or len(body) <= end or not n:
        return None
    coefficients = np.frombuffer(body[_LPC_HEAD.size : end], "<i2").astype(np.int64)
    numbers = _decode_direct(body[end:], n)
    restore(numbers, coefficients, shift)
    return numbers


def _common_step(numbers: I64) -> int:
    """What all differences from the first number are multiples of; 1 where that is not worth its bytes."""
    if numbers.size < _STEPS_FROM or int(numbers.max()) - int(numbers.min()) >= 2**62:
        return 1
    return max(1, int(np.gcd.reduce(numbers - numbers[0])))


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
    _SERIES: _series_numbers, _PCO: _pco_numbers, _ADAPTIVE: _adaptive_numbers, _LPC: _predicted_numbers,
    _STEPS: _stepped_numbers, _SPARSE: _sparse_numbers,
}  # fmt: skip
