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

import numpy as np
import numpy.typing as npt

from headrace.codecs.packing import get_varint
from headrace.core.errors import CorruptionError

I64 = npt.NDArray[np.int64]

LEVEL = 8
"""Of pcodec, in every tier: what higher ones gain is in docs/compression.md, next to nothing."""
_PALETTE, _PCO, _STEPS, _SPARSE = b"\0", b"\1", b"\4", b"\5"


def encode_integers(numbers: I64) -> bytes:
    """The shortest body of ``numbers: int64[n]``, as far as an estimate finds it."""
    from headrace.codecs.integer_coding import INTEGERS, written

    body, at, left = written(numbers, INTEGERS)
    assert body is not None
    return body if left is None else body[:at] + min(body[at:], _coded_pco(left), key=len)


def encode_sparse(numbers: I64) -> bytes | None:
    """A body of numbers that nearly always rise by the same, of ticks above all; None of others."""
    from headrace.codecs.integer_coding import SPARSE, written

    return written(numbers, SPARSE)[0]


def encode_palette(numbers: I64) -> bytes | None:
    """A body of numbers of which few are different, however far apart; None of others."""
    from headrace.codecs.integer_coding import DIFFERENT_MAX
    from headrace.codecs.packing import put_sized, put_varint

    known, which, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    if known.size > DIFFERENT_MAX:
        return None
    order = np.argsort(-counts, kind="stable")
    place = np.argsort(order)[which]
    table = put_sized(encode_direct(known[order]))
    return _PALETTE + put_varint(known.size) + table + encode_direct((place >> 1) ^ -(place & 1))


def encode_direct(numbers: I64) -> bytes:
    """The shortest body of numbers that follow no line: patches, remainders."""
    from headrace.codecs.integer_coding import DIRECT, written

    body = written(numbers, DIRECT)[0]
    assert body is not None
    return body


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


def _coded_pco(numbers: I64) -> bytes:
    """Of the numbers, and of their differences: what pco finds by itself for integers, in two thirds of the time."""
    from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

    bodies = []
    for delta in (DeltaSpec.no_op(), DeltaSpec.try_consecutive(1)):
        config = ChunkConfig(compression_level=LEVEL, mode_spec=ModeSpec.classic(), delta_spec=delta)
        bodies.append(bytes(standalone.simple_compress(numbers, config)))
    return _PCO + min(bodies, key=len)
