"""Integers of one sensor: what grids, differences and quantised values leave behind, in the fewest bytes.

A body is one byte that names the coder, and what the coder wrote. Coders are tried on the numbers themselves;
a reader needs no settings. It has no checksum of its own: the codec that uses it seals the whole.

==== ======== =================================================================================
byte coder    bytes that follow
==== ======== =================================================================================
0    series   `headrace.codecs.series_kernels`: Rice codes, changes, constants, in pieces
1    pco      pcodec's standalone format, int64
2    lpc      order, shift (a byte each), coefficients as int16, then the residuals as a body
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
    candidates = [_SERIES + _series(numbers)]
    if numbers.size >= _PCO_FROM:
        candidates.append(_PCO + _pco(numbers))
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
    from headrace.codecs.lpc import predictors, residuals

    for coefficients, shift in predictors(numbers):
        left = np.empty_like(numbers)
        residuals(numbers, coefficients, shift, left)
        head = _LPC_HEAD.pack(len(coefficients), shift) + coefficients.astype("<i2").tobytes()
        yield head + min((_SERIES + _series(left), _PCO + _pco(left)), key=len)


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
_SERIES, _PCO, _LPC = b"\x00", b"\x01", b"\x02"
_DECODERS: dict[bytes, Callable[[bytes, int], Any]] = {
    _SERIES: _series_numbers, _PCO: _pco_numbers, _LPC: _predicted_numbers,
}  # fmt: skip
