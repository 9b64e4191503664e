"""Making a lossy chunk smaller once more, with its error accounted against the original.

What was measured is gone, so the bound is a budget: a chunk whose values are at most `max_error` from the original may
move by what is left of the bound, and no further. Errors add up at worst: largest ones (triangle), and root mean
squares (Minkowski), so what the headers say stays an upper bound however often this is done. Where the values lie on
levels that were made from the original (`headrace.codecs.quantise`), levels that are an odd multiple apart nest, and
rounding to them is within half their distance of the original itself: nothing adds up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import Unfit, keeps_bound
from headrace.codecs.choice import ANY, CodecChoice
from headrace.codecs.quantise import QuantiseCodec
from headrace.codecs.select import ChosenValues
from headrace.store.warm import Chunk, codec_name, decode_chunk, encode_chunk, pack_chunk, parts, values_of

Array = npt.NDArray[Any]
LEAST_SHARE = 0.05
"""Of the bound that has to be left for a trial."""
_ROUNDED = 1.0 - 1e-9
_SAME = 1e-12


class Spent(NamedTuple):
    """What of a bound is spent: the header's columns of the same names, in the values' raw unit."""

    bound: float
    max_error: float
    rmse: float


def recode_chunk(
    payload: bytes,
    codecs: tuple[str, str],
    of: tuple[int, np.dtype[Any], tuple[int, int]],
    spent: Spent,
    total: float,
    choice: CodecChoice = ANY,
) -> Chunk | None:
    """A lossy chunk within a wider bound, if that is smaller, or its codec is none that may be used and the new one is.

    Parameters
    ----------
    of : number of samples, type of the values, first and last time. spent : so far. total : how far values may be from the original.
    choice : what is said about the codecs; a share of each value is none of it, since `total` is what may be spent of that.

    Returns
    -------
    The chunk, with errors against the original; None where nothing is gained.

    Raises
    ------
    CorruptionError : the payload is damaged.
    """
    ts_ns, values, quality = decode_chunk(payload, codecs, *of)
    if values.dtype.kind != "f" or total <= spent.bound:
        return None
    found, choice = [], replace(choice, share=0.0)
    left = (total - spent.max_error) * _ROUNDED
    if left > LEAST_SHARE * total:
        one = encode_chunk(ts_ns, values, quality, left, choice)
        if one.bound:
            found.append(_added(one, spent, total))
    allowed = choice.allows(QuantiseCodec.name)
    nested = _nested(payload, codecs[1], values, spent, total) if allowed else None
    if nested is not None:
        first, second, _ = parts(payload)
        one = pack_chunk((payload[first:second], codecs[0]), (nested, values), quality)
        found.append(_added(one, spent, total))

    def rank(payload: bytes, value_text: str) -> tuple[float, int]:
        return choice.score(codec_name(value_text), len(payload), len(values)), len(payload)

    best = min(found, key=lambda chunk: rank(chunk.payload, chunk.value_codec), default=None)
    if best is None:
        return None
    before, now = (choice.allows(codec_name(text)) for text in (codecs[1], best.value_codec))
    gains = rank(best.payload, best.value_codec) < rank(payload, codecs[1])
    return best if gains or (now and not before) else None


def _added(chunk: Chunk, spent: Spent, total: float) -> Chunk:
    """The chunk's errors and those before, rounded up."""
    largest = min(total, float(np.nextafter(spent.max_error + chunk.max_error, np.inf)))
    rmse = min(largest, float(np.nextafter(spent.rmse + chunk.rmse, np.inf)))
    return chunk._replace(bound=total, max_error=largest, rmse=rmse)


def _nested(
    payload: bytes, value_text: str, values: Array, spent: Spent, total: float
) -> ChosenValues | None:
    """Coarser levels, where the chunk has levels that were made from the original; None else."""
    codec, body = values_of(payload, value_text)
    if not isinstance(codec, QuantiseCodec) or abs(codec.eps - spent.bound) > _SAME * spent.bound:
        return None
    try:
        finer = codec if codec.step else codec.stepped(body)
        coarser = finer.coarser(total, values)
        if coarser.step <= finer.step:
            return None
        coded = coarser.pack(values)
    except Unfit:
        return None
    decoded = coarser.unpack(coded, values.size, values.dtype)
    return ChosenValues(coarser, coded) if keeps_bound(decoded, values, total) else None
