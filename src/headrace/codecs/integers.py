"""Integers of one sensor: what grids, differences and quantised values leave behind, in the fewest bytes.

A body is one byte that names the coder, and what the coder wrote. Coders are tried on the numbers themselves;
a reader needs no settings. It has no checksum of its own: the codec that uses it seals the whole.

==== ======== =================================================================================
byte coder    bytes that follow
==== ======== =================================================================================
0    palette  how many different numbers there are; the bytes of the next part; these numbers, direct;
              then of each number which of them it is, as zigzag, direct
1    pco      pcodec's standalone format, int64
2    adaptive `headrace.codecs.adaptive`: Rice codes that follow the numbers
3    centred  order; shift, a byte too, and coefficients as int16; a centre, signed; then what linear
              prediction (`headrace.codecs.lpc`) leaves, direct
4    steps    step and rest as varints: the numbers are ``rest + step * i``; then i as a body
5    sparse   first number and usual difference, signed; how many differences are others; the bytes
              of the next part; distances between them, then how much they are off, both direct,
              centred or around
6    around   a centre, signed; then how far they are from it, direct
7    same     a number, signed, which all of them are
8..  model    `headrace.codecs.model`, whose first byte this is: how large they are by a model that
              learns, entropy-coded
==== ======== =================================================================================

*Direct* is a body of coder 2, 7 or 8 and more. A part of no numbers has no bytes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.packing import get_varint, put_signed, put_sized, put_varint
from headrace.core.errors import CorruptionError

I64 = npt.NDArray[np.int64]

LEVEL = 8
_PCO_FROM, _STEPS_FROM = 64, 16  # their heads are larger than what they save on fewer numbers
_MODEL_FROM = 64
_FAR_FROM = 32  # a centre costs up to two bytes more than it saves on fewer numbers
_SPARSE_EACH, _STEADY_SHARE = 4, 0.6
_SMALL, _SMALL_BAND = (
    5.0,
    1.4,
)  # of numbers of so few bits the prices are rough: all orders within the band are tried
_FEW_SHARE = 0.25  # of numbers that are new: pco may win where few come again and again
_WILD_FROM, _WILD_SHARE = (
    10.0,
    0.0015,
)  # bits a number and share of wild differences from which it may win too
_PALETTE, _PCO, _ADAPTIVE, _CENTRED, _STEPS, _SPARSE, _AROUND, _SAME = (bytes([i]) for i in range(8))
_PALETTE_MAX = 32  # different numbers: more are not coded better than by how large they are


def encode_integers(numbers: I64) -> bytes:
    """The shortest body of ``numbers: int64[n]``, as far as an estimate finds it."""
    if numbers.size < _STEPS_FROM:
        return _few(numbers)
    seen = _examined(numbers)
    if seen.step > 1:
        rest = seen.low % seen.step
        head = _STEPS + put_varint(seen.step) + put_varint(rest)
        return head + encode_integers((numbers - rest) // seen.step)
    return _encode(numbers, seen) if seen.low < seen.high else _SAME + put_signed(seen.low)


def encode_sparse(numbers: I64) -> bytes | None:
    """A body of numbers that nearly always rise by the same, of ticks above all; None of others."""
    return _coded_sparse(numbers) if numbers.size >= _STEPS_FROM else None


class _Seen(NamedTuple):
    """Least, greatest, what all distances are multiples of, a centre, and where the step is 1 what numbers would cost.

    About the bits by order 0, 1, 2; how many numbers are new; of the differences, how many are wild, how many stay; order,
    shift and about the bits of a linear prediction, order 0 where none promises enough; its coefficients and what it leaves.
    """

    low: int
    high: int
    step: int
    centre: int
    bits: tuple[int, int, int]
    n_new: int
    n_wild: int
    n_steady: int
    order: int
    shift: int
    bits_left: int
    coefficients: I64
    left: I64

    def may_be_pco(self, n: int) -> bool:
        """Whether few numbers come again and again, or many differences are wild: what a model of sizes codes badly."""
        each = min(self.bits) / n
        wild = each > _WILD_FROM and self.n_wild > n * _WILD_SHARE
        few = self.n_new < n * _FEW_SHARE and each > math.log2(self.n_new + 1) + 1.0
        return n >= _PCO_FROM and (wild or few)


def _examined(numbers: I64) -> _Seen:
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.integer_kernels import FOUND, examine
    from headrace.codecs.lpc import ORDER_MAX, ROOM, window

    n = numbers.size
    found, coefficients, left = (
        np.zeros(FOUND, np.int64),
        np.empty(ORDER_MAX, np.int64),
        np.empty(n, np.int64),
    )
    rooms = np.empty(n), np.zeros(ROOM), np.empty(1024, np.uint64)
    with wrapping():
        examine(numbers, window(n), rooms, coefficients, left, found)
    low, high, step, centre, b0, b1, b2, new, wild, steady, order, shift, left_bits = found.tolist()
    costs = (b0, b1, b2), new, wild, steady
    return _Seen(low, high, step, centre, *costs, order, shift, left_bits, coefficients, left)


def _encode(numbers: I64, seen: _Seen) -> bytes:
    """By the order, or the predictor, that is estimated to be the shortest."""
    least = min(seen.bits)
    bodies = [_predicted(seen, least)]
    if bodies[0] is None:
        most = least * (_SMALL_BAND if least < _SMALL * numbers.size else 1.0)
        bodies = [_ordered(numbers, seen.centre, order) for order in range(3) if seen.bits[order] <= most]
    if seen.n_steady > _STEADY_SHARE * numbers.size:
        bodies.append(_coded_sparse(numbers))
    if seen.n_new <= _PALETTE_MAX and numbers.size >= _MODEL_FROM:
        bodies.append(_coded_palette(numbers, min(len(body) for body in bodies if body is not None)))
    if seen.may_be_pco(numbers.size):
        bodies.append(_coded_pco(numbers))
    return min((body for body in bodies if body is not None), key=len)


def _few(numbers: I64) -> bytes:
    from headrace.codecs.adaptive import best_order

    body = encode_direct(numbers)
    return min(body, _coded_adaptive(numbers, best_order(numbers)), key=len) if numbers.size > 2 else body


def _ordered(numbers: I64, centre: int, order: int) -> bytes:
    if numbers.size < _MODEL_FROM:
        return _few(numbers)
    if order == 0:
        return _around(numbers, centre)
    return _coded_model(numbers, order)


def _predicted(seen: _Seen, price: int) -> bytes | None:
    """By linear prediction, where that is estimated to take fewer bits than `price`."""
    order = seen.order
    if order == 0 or seen.bits_left + 16 * order >= price:
        return None
    head = bytes([order, seen.shift]) + seen.coefficients[:order].astype("<i2").tobytes()
    return _CENTRED + head + put_signed(seen.centre) + encode_direct(seen.left)


def encode_direct(numbers: I64) -> bytes:
    """The shortest body of numbers that follow no line: patches, remainders."""
    from headrace.codecs.adaptive import PLAIN

    if numbers.size and numbers[0] == numbers[-1] and numbers.min() == numbers.max():
        return _SAME + put_signed(int(numbers[0]))
    return _coded_model(numbers, PLAIN) if numbers.size >= _MODEL_FROM else _coded_adaptive(numbers, PLAIN)


def decode_integers(body: bytes, n: int) -> I64:
    """The n numbers of a body.

    Raises
    ------
    CorruptionError : it does not hold n numbers; memory is taken for n of them at most.
    """
    numbers = _pco_numbers(body, n) if body[:1] == _PCO else _decode(body, n)
    if numbers is None:
        raise CorruptionError(f"a body of {len(body):,} bytes does not hold {n:,} integers")
    return numbers


# --- direct ------------------------------------------------------------------------------------------


def _decode(body: bytes, n: int) -> I64 | None:
    """In one kernel, unless pco is behind steps."""
    from headrace.codecs import integer_kernels as kernels
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.model import scratch_for

    numbers = np.empty(n, np.int64)
    places = np.empty(n if body[:1] in (_PALETTE, _STEPS, _SPARSE) else 0, np.int64)
    with wrapping():
        found = kernels.decode(np.frombuffer(body, np.uint8), 0, scratch_for(len(body)), places, numbers)
    if found == kernels.ELSEWHERE and body[:1] == _STEPS:
        return _stepped_pco(body[1:], n)
    return numbers if found == kernels.SOUND else None


def _stepped_pco(body: bytes, n: int) -> I64 | None:
    step, at = get_varint(body, 0)
    rest, at = get_varint(body, at)
    numbers = _pco_numbers(body[at:], n)
    if numbers is None or max(step, rest) >= 2**62:
        return None
    with np.errstate(over="ignore"):
        return np.int64(rest) + np.int64(step) * numbers


def _pco_numbers(body: bytes, n: int) -> I64 | None:
    numbers = np.empty(n, np.int64)
    return numbers if read_pco(body, numbers) else None


def read_pco(body: bytes, numbers: I64) -> bool:
    """Read a body of coder 1 into ``numbers: int64[n]``; False where it does not hold n."""
    from pcodec import standalone

    try:
        progress = standalone.simple_decompress_into(body[1:], numbers)
    except (RuntimeError, TypeError):
        return False
    return bool(body[:1] == _PCO and progress.n_processed == numbers.size and progress.finished)


# --- coders ------------------------------------------------------------------------------------------


def _coded_adaptive(numbers: I64, order: int) -> bytes:
    from headrace.codecs.adaptive import adaptive_body

    return _ADAPTIVE + adaptive_body(numbers, order)


def _coded_model(numbers: I64, order: int) -> bytes:
    from headrace.codecs.model import model_body

    return model_body(numbers, order)


def _coded_pco(numbers: I64) -> bytes:
    """Of the numbers, and of their differences: what pco finds by itself for integers, in two thirds of the time."""
    from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

    bodies = []
    for delta in (DeltaSpec.no_op(), DeltaSpec.try_consecutive(1)):
        config = ChunkConfig(compression_level=LEVEL, mode_spec=ModeSpec.classic(), delta_spec=delta)
        bodies.append(bytes(standalone.simple_compress(numbers, config)))
    return _PCO + min(bodies, key=len)


def _coded_palette(numbers: I64, wanted: int) -> bytes | None:
    """A few different numbers, the most frequent first, and which of them each is.

    None where they are too many, or by their entropy it would take more than the `wanted` bytes.
    """
    from headrace.codecs.adaptive import PLAIN
    from headrace.codecs.integer_kernels import few_levels

    levels, counts, which = (np.empty(n, np.int64) for n in (_PALETTE_MAX, _PALETTE_MAX, numbers.size))
    n = int(few_levels(numbers, levels, counts, which))
    if n < 0 or _entropy_bits(counts[:n]) > 8 * wanted:
        return None
    order = np.argsort(-counts[:n], kind="stable")
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    rank = (rank >> 1) ^ -(rank & 1)
    head = _PALETTE + put_varint(n) + put_sized(encode_direct(levels[order]))
    return head + _coded_model(rank[which], PLAIN)


def _entropy_bits(counts: I64) -> float:
    n = float(counts.sum())
    return float(counts @ np.log2(n / counts))


def _coded_sparse(numbers: I64) -> bytes | None:
    """A body for numbers that nearly always rise by the same; none where they do not."""
    from headrace.codecs.compiled import wrapping
    from headrace.codecs.integer_kernels import sparse

    most = (numbers.size - 1) // _SPARSE_EACH
    gaps, others, usual = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(1, np.int64)
    with wrapping():
        n = sparse(numbers.view(np.uint64), gaps, others.view(np.uint64), usual.view(np.uint64))
    if n < 0:
        return None
    head = put_signed(int(numbers[0])) + put_signed(int(usual[0])) + put_varint(int(n))
    return _SPARSE + head + put_sized(_part(gaps[:n])) + _part(others[:n])


def _part(numbers: I64) -> bytes:
    """Direct, or what is left of a centre."""
    n = numbers.size
    if not n:
        return b""
    ordered = np.sort(numbers)
    if ordered[0] == ordered[-1]:
        return _SAME + put_signed(int(ordered[0]))
    centre = int(ordered[n // 2])
    if not centre:
        return encode_direct(numbers)
    around = _around(numbers, centre)
    if ordered[0] > 0 and n >= _FAR_FROM and _is_far(ordered, centre):
        return around
    return min(encode_direct(numbers), around, key=len)


def _is_far(ordered: I64, centre: int) -> bool:
    """Whether numbers lie so close to a centre that what is left of it takes a bit less each: most within a quarter of it."""
    n = ordered.size
    low, high = int(ordered[n // 8]), int(ordered[-1 - n // 8])
    return max(centre - low, high - centre) * 4 < centre


def _around(numbers: I64, centre: int) -> bytes:
    with np.errstate(over="ignore"):
        return _AROUND + put_signed(centre) + encode_direct(numbers - np.int64(centre))
