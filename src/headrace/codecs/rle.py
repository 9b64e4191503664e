"""Runs of one value: states, setpoints, and sensors that report a change only.

Values that come back are written once: a run names its value by a number, as the distance from the number before it, so
that two states by turns cost nothing but the lengths of the runs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from headrace.codecs.base import I64, Array, SeriesCodec, Unfit, type_byte
from headrace.codecs.integers import decode_integers, encode_direct
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint
from headrace.core.errors import CorruptionError

_MEAN_MIN, _RUN_BITS = 2, 1
_FEW = 64  # different values, which are looked for one by one


@dataclass(frozen=True, slots=True)
class RleCodec(SeriesCodec):
    """Runs of equal bits, of any of the value types.

    The body is a byte with the value type, an index into `headrace.core.layouts.DTYPES`, and as varints the number of
    runs and of different values; the runs' lengths less 1 as integers (`headrace.codecs.integers`) with their bytes
    before them; the different values' bytes in the order in which they come first; and for each run but the first how
    many numbers further its value is than that of the run before, less 1, modulo the number of values, as integers.

    Examples
    --------
    >>> import numpy as np
    >>> states = np.repeat(np.array([0, 3, 0, 1], np.uint8), 250)
    >>> payload = RleCodec().encode(states)
    >>> len(payload) < 25, bool((RleCodec().decode(payload, 1000, states.dtype) == states).all())
    (True, True)
    """

    name: ClassVar[str] = "rle"

    def pack(self, values: Array) -> bytes:
        """Encode ``values: T[n]``; `Unfit` where runs are shorter than two values on average."""
        words = _words(values)
        is_other = words[1:] != words[:-1]
        n_changes = int(np.count_nonzero(is_other))
        if n_changes >= max(1, words.size // _MEAN_MIN):  # said soon: most series are tried in vain
            raise Unfit(f"{n_changes + 1:,} runs in {words.size:,} values")
        lengths, known, number = _cut(words, is_other, n_changes + 1)
        head = type_byte(values.dtype) + put_varint(lengths.size) + put_varint(known.size)
        steps = (np.diff(number) - 1) % max(1, known.size)
        tail = encode_direct(steps) if steps.size else b""
        return head + put_sized(encode_direct(lengths - 1)) + known.tobytes() + tail

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the payload holds others."""
        if body[:1] != type_byte(dtype):
            raise self.damaged(f"it does not hold {n} values of {dtype}")
        try:
            words = _decoded(body, n, dtype.itemsize)
        except (ValueError, IndexError, struct.error, CorruptionError) as e:
            raise self.damaged(str(e)) from e
        return words.view(dtype)


def may_be_runs(values: Array, most: int) -> bool:
    """Whether runs of ``values: T[n]`` are long enough, and so few that they might take fewer than `most` bytes."""
    words = _words(values)
    return runs_may_be(1 + int(np.count_nonzero(words[1:] != words[:-1])), words.size, most)


def runs_may_be(n_runs: int, n: int, most: int) -> bool:
    """The same of so many runs in n values."""
    return n_runs * _MEAN_MIN <= n and n_runs * _RUN_BITS < 8 * most


def _decoded(body: bytes, n: int, width: int) -> Array:
    runs, at = get_varint(body, 1)
    n_known, at = get_varint(body, at)
    if runs > n or n_known > runs or (n_known == 0) != (n == 0):
        raise ValueError(f"{runs} runs of {n_known} values for {n}")
    part, at = get_sized(body, at)
    more = decode_integers(part, runs)
    known = np.frombuffer(body[at : at + n_known * width], f"u{width}")
    if known.size != n_known or (more < 0).any() or (more >= n).any() or int(more.sum()) + runs != n:
        raise ValueError(f"its runs do not add up to {n} values")
    if not n:
        return known
    at += n_known * width
    if runs == 1 and at != len(body):
        raise ValueError("there are bytes behind its only run")
    steps = decode_integers(body[at:], runs - 1) if runs > 1 else np.empty(0, np.int64)
    if (steps < 0).any() or (steps >= n_known).any():
        raise ValueError("a run has a value that is not there")
    number = np.cumsum(np.append(0, steps + 1)) % n_known
    return np.repeat(known[number], more + 1)


def _words(values: Array) -> Array:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _cut(words: Array, is_other: Array, n_runs: int) -> tuple[I64, Array, I64]:
    """Lengths of runs; different words, in the order in which they come first; and which of them each run has."""
    if words.size:
        from headrace.codecs.run_kernels import runs_of_few

        lengths, number = np.empty(n_runs, np.int64), np.empty(n_runs, np.int64)
        known = np.empty(_FEW, np.uint64)
        count = runs_of_few(words.astype(np.uint64), lengths, number, known)
        if count > 0:
            return lengths, known[:count].astype(words.dtype), number
    first = np.flatnonzero(np.append(words.size > 0, is_other))
    return np.diff(first, append=words.size), *_numbered(words[first])


def _numbered(words: Array) -> tuple[Array, I64]:
    """Different words in the order in which they come first, and the number of each."""
    known, first, number = np.unique(words, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    return known[order], rank[number]
