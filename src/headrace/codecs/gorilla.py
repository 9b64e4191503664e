"""Gorilla, bit for bit as published: to hand values to tools that read it, and to take theirs. Never the smallest here.

A value is its XOR with the one before: ``0`` where it is the same; ``10`` and the bits within the last window; ``11``, 5 bits
of leading zeros, 6 of length (0 means 64), and the bits. The first value is its 64 bits. Highest bit first. In a *block*
times, whole seconds, stand before their values: 64 bits of the block's start, 14 of the distance of the first time from
it; then how much each interval changes: ``0`` for not at all, ``10`` and 7 bits, ``110`` and 9, ``1110`` and 12, ``1111`` and
32, two's complement, of which 64, 256 and 2,048 are positive.

Source: Pelkonen et al., Gorilla: a fast, scalable, in-memory time series database, VLDB 2015, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import I64, Array, SeriesCodec, Unfit
from headrace.core.errors import CorruptionError

U64 = npt.NDArray[np.uint64]

BLOCK_S = 7_200
"""Blocks start at whole multiples of two hours."""

_FLOAT = np.dtype(np.float64)
_SLACK_BYTES = 16


@dataclass(frozen=True, slots=True)
class GorillaCodec(SeriesCodec):
    """The body is the bits of a block's values, without its times, filled up with zeros to whole bytes; nothing for none.

    Examples
    --------
    >>> import numpy as np
    >>> GorillaCodec().pack(np.array([12.0, 12.0, 24.0])).hex()
    '4028000000000000615e00'
    """

    name: ClassVar[str] = "gorilla"

    def pack(self, values: Array) -> bytes:
        """Encode ``values: float64[n]``; `Unfit` for other types."""
        from headrace.codecs import gorilla_kernels as kernels

        if values.dtype != _FLOAT:
            raise Unfit(f"values of {values.dtype}, float64 expected")
        if not values.size:
            return b""
        words = np.zeros(2 + (64 + kernels.VALUE_BITS_MAX * values.size) // 64, np.uint64)
        n_bits = kernels.write_values(_bits(values), words, np.zeros(2, np.int64))
        return _bytes(words, int(n_bits))

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the payload holds others."""
        from headrace.codecs import gorilla_kernels as kernels

        if dtype != _FLOAT or (n == 0) != (not body) or n > 8 * len(body):
            raise self.damaged(f"it does not hold {n} values of {dtype}")
        bits = np.empty(n, np.uint64)
        if n:
            end = int(kernels.read_values(_words(body), 8 * len(body), bits, np.zeros(2, np.int64)))
            if not 0 <= 8 * len(body) - end < 8:
                raise self.damaged(f"it does not hold {n} values")
        return bits.view(np.float64)


def gorilla_block(ts_s: I64, values: Array) -> bytes:
    """A block of samples as published, filled up with zeros to whole bytes.

    Parameters
    ----------
    ts_s : int64[n], whole seconds, n at least 1. The block starts at the two hours that hold the first.
    values : float64[n].

    Raises
    ------
    Unfit : no samples, other types, or an interval that changes by more than 32 bits of seconds.
    """
    from headrace.codecs import gorilla_kernels as kernels

    if not ts_s.size or ts_s.size != values.size or values.dtype != _FLOAT or ts_s.dtype != np.int64:
        raise Unfit(
            f"{ts_s.size} times and {values.size} values of {values.dtype}: as many float64 as int64 expected"
        )
    size = 64 + kernels.FIRST_BITS + (kernels.TIME_BITS_MAX + kernels.VALUE_BITS_MAX) * ts_s.size
    words = np.zeros(2 + size // 64, np.uint64)
    start = int(ts_s[0]) // BLOCK_S * BLOCK_S
    n_bits = int(
        kernels.write_samples(np.ascontiguousarray(ts_s), _bits(values), start, words, np.zeros(2, np.int64))
    )
    if n_bits == kernels.BROKEN:
        raise Unfit("intervals change by more than 32 bits of seconds")
    return _bytes(words, n_bits)


def gorilla_samples(block: bytes, n: int) -> tuple[I64, Array]:
    """The n samples of a block: times in whole seconds ``int64[n]``, values ``float64[n]``; inverse of `gorilla_block`.

    Raises
    ------
    CorruptionError : the block does not hold n samples; memory is taken for as many as its bits may hold.
    """
    from headrace.codecs import gorilla_kernels as kernels

    if not 0 < n <= 4 * len(block):
        raise CorruptionError(f"a Gorilla block of {len(block):,} bytes does not hold {n:,} samples")
    ts_s, bits = np.empty(n, np.int64), np.empty(n, np.uint64)
    end = int(kernels.read_samples(_words(block), 8 * len(block), ts_s, bits, np.zeros(2, np.int64)))
    if not 0 <= 8 * len(block) - end < 8:
        raise CorruptionError(f"a Gorilla block of {len(block):,} bytes does not hold {n:,} samples")
    return ts_s, bits.view(np.float64)


def _bits(values: Array) -> U64:
    return np.ascontiguousarray(values).view(np.uint64)


def _bytes(words: U64, n_bits: int) -> bytes:
    return words.astype(">u8").tobytes()[: -(-n_bits // 8)]


def _words(body: bytes) -> U64:
    """The words of a stream, and two cleared ones behind it at least."""
    padding = -len(body) % 8 + _SLACK_BYTES
    return np.frombuffer(body + bytes(padding), ">u8").astype(np.uint64)
