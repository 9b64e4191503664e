"""Many warm chunks of the same codecs, decoded together: by one call of a kernel, and one by one where it can't."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import I64, Array
from headrace.codecs.integers import read_pco
from headrace.codecs.origin import OriginCodec, type_mark
from headrace.codecs.ticks import TicksTime
from headrace.core.errors import CorruptionError
from headrace.store.warm import BARE, EVEN, decode_chunk

U8 = npt.NDArray[np.uint8]

TimesOf = Callable[[int], I64 | None]
"""The times that a chunk has in another's payload, by its number."""

SiblingsOf = Callable[[int], tuple[Array, ...]]
"""The values that those of a chunk are predicted from, by its number."""

_TICKS = BARE + TicksTime.name


class Chunks(NamedTuple):
    """G chunks of the same codecs and type.

    Parameters
    ----------
    payload, starts : chunk g is ``payload[starts[g]:starts[g + 1]]``. codecs : as the header columns name them.
    n_frames, first, last : int64[G] each, of the headers: samples, and the first and last time, ns.
    shared : numbers of those that have their times in another's payload.
    """

    payload: U8
    starts: I64
    codecs: tuple[str, str]
    dtype: np.dtype[Any]
    n_frames: I64
    first: I64
    last: I64
    shared: I64


def decode_chunks(
    chunks: Chunks, times_of: TimesOf, siblings_of: SiblingsOf = lambda g: ()
) -> tuple[I64, Array, U8 | None]:
    """Times, values and quality of all, one behind the other; quality is None where all are good.

    Raises
    ------
    CorruptionError : one of them is damaged.
    """
    n = chunks.n_frames.size
    at = np.empty(n + 1, np.int64)
    at[0] = 0
    np.add.accumulate(chunks.n_frames, out=at[1:])
    ts_ns = np.empty(int(at[n]), np.int64)
    given = {g: times_of(g) for g in chunks.shared.tolist()} if chunks.shared.size else {}
    for g, times in given.items():
        if times is None or len(times) != chunks.n_frames[g]:
            raise CorruptionError("the times a chunk refers to are not its own")
        ts_ns[at[g] : at[g + 1]] = times
    together = _Together(chunks, at, ts_ns) if _are_known(chunks.codecs) else None
    alone: list[tuple[slice, Array]] = []
    quality = None
    g = 0
    while g < n:
        g = g if together is None else together.decode_from(g)
        if g == n:
            break
        here = slice(int(at[g]), int(at[g + 1]))
        ts_ns[here], part, marks = _decode_one(chunks, g, given.get(g), siblings_of(g))
        alone.append((here, part))
        if marks is not None:
            quality = np.zeros(ts_ns.size, np.uint8) if quality is None else quality
            quality[here] = marks
        g += 1
    values = np.empty(ts_ns.size, chunks.dtype) if together is None else together.values()
    for here, part in alone:
        values[here] = part
    return ts_ns, values, quality


def _are_known(codecs: tuple[str, str]) -> bool:
    return codecs[1] == OriginCodec.name and codecs[0] in (EVEN, _TICKS)


def _decode_one(
    chunks: Chunks, g: int, times: I64 | None, siblings: tuple[Array, ...]
) -> tuple[I64, Array, U8 | None]:
    data = chunks.payload[chunks.starts[g] : chunks.starts[g + 1]].tobytes()
    span = int(chunks.first[g]), int(chunks.last[g])
    return decode_chunk(data, chunks.codecs, int(chunks.n_frames[g]), chunks.dtype, span, times, siblings)


class _Together:
    """The kernel, and the room it works in."""

    def __init__(self, chunks: Chunks, at: I64, ts_ns: I64) -> None:
        kernels, scratch_for, self._wrapping = _kernels()
        self._decode = kernels.decode_chunks
        self._chunks = chunks
        self._out = np.empty(ts_ns.size)
        n = ts_ns.size if ts_ns.size <= _FEW_NUMBERS else int(chunks.n_frames.max())
        self._rooms = _rooms_for(n)
        how = np.empty(chunks.n_frames.size, np.uint8)
        how.fill(kernels.EVEN if chunks.codecs[0] == EVEN else kernels.TICKS)
        if chunks.shared.size:
            how[chunks.shared] = kernels.GIVEN
        work = scratch_for(_largest(chunks.starts))
        payload = chunks.payload
        if payload.flags.writeable:  # the kernel is compiled for others
            payload = payload[:]
            payload.flags.writeable = False
        headers = chunks.starts, chunks.first, chunks.last, at, how
        self._given = payload, headers, type_mark(chunks.dtype), (work, self._rooms), (ts_ns, self._out)

    def decode_from(self, g: int) -> int:
        """Decode chunks from g on; the number of the first one that has to be decoded alone, or how many there are."""
        is_given = False
        while True:
            with self._wrapping():
                g, pco_at = self._decode(*self._given, g, is_given)
            if pco_at < 0:
                return g
            body = self._chunks.payload[pco_at : self._chunks.starts[g + 1]].tobytes()
            is_given = read_pco(body, self._rooms[0][: int(self._chunks.n_frames[g])])
            if not is_given:
                return g

    def values(self) -> Array:
        """What has been decoded, in its own type."""
        dtype = self._chunks.dtype
        if dtype == self._out.dtype:
            return self._out
        with np.errstate(invalid="ignore", over="ignore"):
            return (self._out if dtype.kind == "f" else self._out.view(np.int64)).astype(dtype)


_FEW_BYTES = _FEW_NUMBERS = 1 << 16
_own = threading.local()


def _largest(starts: I64) -> int:
    """The bytes of the largest chunk, or of all where these are few: to look for it takes as long as to decode one."""
    total = int(starts[-1]) - int(starts[0])
    return total if total <= _FEW_BYTES else int((starts[1:] - starts[:-1]).max())


def _rooms_for(n: int) -> Any:
    """Room of the thread that asks, for chunks of n samples at least."""
    size, rooms = getattr(_own, "rooms", (-1, None))
    if size < n:
        rooms = _kernels()[0].rooms_for(n)
        _own.rooms = n, rooms
    return rooms


@lru_cache(maxsize=1)
def _kernels() -> tuple[Any, Any, Any]:
    """Numba is loaded when they are needed first."""
    from headrace.codecs import chunk_kernels
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.model import scratch_for

    return chunk_kernels, scratch_for, wrapping
