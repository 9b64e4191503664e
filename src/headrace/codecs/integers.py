"""Integers of one sensor: what grids, differences and quantised values leave behind, in the fewest bytes.

A body is one byte that names the coder, and what the coder wrote. Coders are tried on the numbers themselves;
a reader needs no settings. It has no checksum of its own: the codec that uses it seals the whole.

==== ======== =================================================================================
byte coder    bytes that follow
==== ======== =================================================================================
0    series   `headrace.codecs.series_kernels`: Rice codes, changes, constants, in pieces
1    pco      pcodec's standalone format, int64
2    adaptive the order, a byte, and `headrace.codecs.adaptive`
3    lpc      order, shift (a byte each), coefficients as int16, then the residuals as a body
4    steps    step and rest as varints: the numbers are ``rest + step * i``; then i as a body
==== ======== =================================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import CorruptionError

I64 = npt.NDArray[np.int64]

_PIECE = 1 << 16
_PCO_FROM = 64  # its header is larger than what it saves on fewer numbers
LEVEL = 8


def encode_integers(numbers: I64) -> bytes:
    """The shortest body of ``numbers: int64[n]``."""
    from headrace.codecs.adaptive import best_order

    step = _common_step(numbers)
    if step > 1:
        rest = int(numbers[0]) % step
        return _STEPS + _varint(step) + _varint(rest) + encode_integers((numbers - rest) // step)
    candidates = list(_direct(numbers, best_order(numbers) if numbers.size > 2 else 0))
    candidates += [_LPC + body for body in _predicted(numbers)]
    return min(candidates, key=len)


def decode_integers(body: bytes, n: int) -> I64:
    """The n numbers of a body.

    Raises
    ------
    CorruptionError : it does not hold n numbers; memory is taken for n of them at most.
    """
    decode = _DECODERS.get(body[:1])
    numbers: I64 | None = None if decode is None else decode(body[1:], n)
    if numbers is None:
        raise CorruptionError(f"a body of {len(body):,} bytes does not hold {n:,} integers")
    return numbers


def _common_step(numbers: I64) -> int:
    """What all differences from the first number are multiples of, 1 where that is not worth a word."""
    if numbers.size < _PCO_FROM:
        return 1
    step = int(np.gcd.reduce(numbers - numbers[0]))
    return step if 1 < step < 2**32 else 1


def _stepped_numbers(body: bytes, n: int) -> I64 | None:
    step, at = _read_varint(body, 0)
    rest, at = _read_varint(body, at)
    if body[at : at + 1] == _STEPS:
        return None
    numbers: I64 = np.int64(rest) + np.int64(step) * decode_integers(body[at:], n)
    return numbers


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """A number below 2**32, and where it ends; 0 and the end where there is none."""
    number = 0
    for i, byte in enumerate(body[at : at + 5]):
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number & 0xFFFFFFFF, at + i + 1
    return 0, len(body)


def _direct(numbers: I64, order: int) -> Iterator[bytes]:
    """Bodies by the coders that need no predictor."""
    from headrace.codecs.adaptive import adaptive_body

    yield _SERIES + _series(numbers)
    if numbers.size >= _PCO_FROM:
        yield _ADAPTIVE + bytes([order]) + adaptive_body(numbers, order)
        yield _PCO + _pco(numbers)


def _adaptive_numbers(body: bytes, n: int) -> I64 | None:
    from headrace.codecs.adaptive import PLAIN, adaptive_numbers

    return adaptive_numbers(body[1:], n, body[0]) if body and body[0] <= PLAIN else None


def _series(numbers: I64) -> bytes:
    from headrace.codecs.series_kernels import series_body

    return series_body(numbers, _PIECE)


def _series_numbers(body: bytes, n: int) -> I64 | None:
    from headrace.codecs.series_kernels import series_values

    return series_values(body, n, np.dtype(np.int64), _PIECE)


def _pco(numbers: I64) -> bytes:
    from pcodec import ChunkConfig, standalone

    return bytes(standalone.simple_compress(numbers, ChunkConfig(compression_level=LEVEL)))


def _pco_numbers(body: bytes, n: int) -> I64 | None:
    from pcodec import standalone

    numbers = np.empty(n, np.int64)
    try:
        progress = standalone.simple_decompress_into(body, numbers)
    except (RuntimeError, TypeError):
        return None
    return numbers if progress.n_processed == n and progress.finished else None


def _predicted(numbers: I64) -> Iterator[bytes]:
    from headrace.codecs.adaptive import PLAIN
    from headrace.codecs.lpc import predictors, residuals

    for coefficients, shift in predictors(numbers):
        left = np.empty_like(numbers)
        residuals(numbers, coefficients, shift, left)
        head = _LPC_HEAD.pack(len(coefficients), shift) + coefficients.astype("<i2").tobytes()
        yield head + min(_direct(left, PLAIN), key=len)


def _predicted_numbers(body: bytes, n: int) -> I64 | None:
    from headrace.codecs.lpc import ORDER_MAX, SHIFT_MAX, restore

    order, shift = _LPC_HEAD.unpack_from(body)
    end = _LPC_HEAD.size + 2 * order
    if (
        not 0 < order <= ORDER_MAX
        or shift > SHIFT_MAX
        or len(body) <= end
        or not n
        or body[end : end + 1] == _LPC
    ):
        return None
    coefficients = np.frombuffer(body[_LPC_HEAD.size : end], "<i2").astype(np.int64)
    numbers = decode_integers(body[end:], n)
    restore(numbers, coefficients, shift)
    return numbers


_LPC_HEAD = struct.Struct("<BB")
_SERIES, _PCO, _ADAPTIVE, _LPC, _STEPS = (bytes([i]) for i in range(5))
_DECODERS: dict[bytes, Callable[[bytes, int], Any]] = {
    _SERIES: _series_numbers, _PCO: _pco_numbers, _ADAPTIVE: _adaptive_numbers, _LPC: _predicted_numbers,
    _STEPS: _stepped_numbers,
}  # fmt: skip
