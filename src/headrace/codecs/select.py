"""Which codec: the smallest that proves itself on the values at hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.codecs.base import I64, Array, TimeCodec, Unfit, ValueCodec, keeps_bound, same_bits
from headrace.codecs.delta_of_delta import DeltaOfDeltaTime
from headrace.codecs.raw import RawCodec

_LONG, _SAMPLE = 6_144, 2_048


@dataclass(frozen=True, slots=True)
class ChosenValues:
    """The codec that won, and its body."""

    codec: ValueCodec
    body: bytes


@dataclass(frozen=True, slots=True)
class ChosenTimes:
    """The time codec that won, and its body."""

    codec: TimeCodec
    body: bytes


def smallest(
    values: Array, candidates: Iterable[ValueCodec], best: ChosenValues | None = None
) -> ChosenValues:
    """The shortest body of ``values: T[n]`` that decodes to the same bits; `best`, else raw bytes, where none does.

    Candidates that are unfit, or whose decoded values differ, are passed over. Of equal ones the first wins,
    so put the fast ones first. Costs an encode for each candidate and a decode for each that leads.

    Examples
    --------
    >>> import numpy as np
    >>> from headrace.codecs.const import ConstCodec
    >>> from headrace.codecs.pco import PcoCodec
    >>> smallest(np.full(100, 3, np.uint16), [ConstCodec(), PcoCodec()]).codec
    ConstCodec()
    """
    best = best or ChosenValues(RawCodec(), RawCodec().pack(values))
    for codec in candidates:
        try:
            body = codec.pack(values)
        except Unfit:
            continue
        shorter = len(body) < len(best.body)
        if shorter and same_bits(codec.unpack(body, values.size, values.dtype), values):
            best = ChosenValues(codec, body)
    return best


def smallest_within(
    values: Array, candidates: Iterable[ValueCodec], eps: float, best: ChosenValues
) -> ChosenValues:
    """The shortest body of ``values: T[n]`` that decodes to values within `eps` of them; `best` where none is shorter.

    As `smallest`, for lossy candidates: those that are unfit, or whose decoded values pass the bound, are passed over.
    """
    for codec in candidates:
        try:
            body = codec.pack(values)
        except Unfit:
            continue
        shorter = len(body) < len(best.body)
        if shorter and keeps_bound(codec.unpack(body, values.size, values.dtype), values, eps):
            best = ChosenValues(codec, body)
    return best


def likely(values: Array, candidates: Sequence[ValueCodec], n: int = 2) -> list[ValueCodec]:
    """The n candidates that make a sample from the middle of long ``values: T[n]`` smallest; all where they are short."""
    if values.size < _LONG or len(candidates) <= n:
        return list(candidates)
    sample = values[(values.size - _SAMPLE) // 2 :][:_SAMPLE]
    sizes = []
    for place, codec in enumerate(candidates):
        with contextlib.suppress(Unfit):
            sizes.append((len(codec.pack(sample)), place))
    return [candidates[place] for _, place in sorted(sizes)[:n]]


def smallest_times(ts_ns: I64, candidates: Iterable[TimeCodec]) -> ChosenTimes:
    """The shortest body of ``ts_ns: int64[n]`` that decodes to the same times; delta-of-delta else."""
    best = ChosenTimes(DeltaOfDeltaTime(), DeltaOfDeltaTime().pack(ts_ns))
    for codec in candidates:
        try:
            body = codec.pack(ts_ns)
        except Unfit:
            continue
        if len(body) < len(best.body) and same_bits(codec.unpack(body, ts_ns.size), ts_ns):
            best = ChosenTimes(codec, body)
    return best
