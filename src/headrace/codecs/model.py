"""Numbers by a model that learns while it codes: how large they are now, and how often each size has come up so far.

A number z (zigzag of a residual, as in `headrace.codecs.adaptive`) is a *bucket*, entropy-coded, and low bits, stored as
they are. A running mean, which the decoder knows too, says how many low bits are cut off; what is left of a usual number
lies between 8 and 16. Buckets are single values below 16, and quarters of an octave above. How often each has come up is
counted, where bits are cut off its neighbours a little too, so that the shape of the distribution is learned and never stored; it starts
geometric, forgets slowly, and is put into frequencies of 4,096 after 16, 32, 64, then every 128 numbers.

Entropy coding is rANS (J. Duda, arXiv:1311.2540) in 16-bit words with a 32-bit state. The body is a byte with order
and log2 of the first mean, the words from the front, and the low bits backwards from the end.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.codecs.adaptive import SLACK_WORDS, first_mean, get_bits, put_bits, residual
from headrace.codecs.bits import I64, U8, U64, bit_length, unzigzag, zigzag
from headrace.codecs.compiled import Int, entry, leaf, step, wrapping

U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]

_BUCKETS = 40
_ESCAPE = 39
_SINGLE = 16
_TOTAL_BITS = 12
_EACH, _BESIDE = 8, 1
_PRIOR, _COUNTS_MAX = 480, 8_000
_PER = 128
_CLASSES = 9
_FIRST_MAX = 60

_U = np.uint64
_0, _1, _2, _4, _6, _8, _16, _64 = _U(0), _U(1), _U(2), _U(4), _U(6), _U(8), _U(16), _U(64)
_M12, _M13 = _U(4095), _U(8191)
_LOW = _U(1 << 16)
_MEAN_MAX = _U(1 << 60)


def _priors() -> U64:
    """Counts to start with, by the bits of the first mean: geometric, in whole numbers so that all machines agree."""
    edges = [*range(_SINGLE), *((4 + f) << (o - 2) for o in range(4, 10) for f in range(4))]
    out = np.ones((_CLASSES, _BUCKETS), np.uint64)
    for c in range(_CLASSES):
        mean = 3 * (1 << c)  # 32-fold, the middle of its class
        above = [(1 << 64) * mean**edge // (mean + 32) ** edge for edge in edges]
        for b in range(_ESCAPE):
            out[c, b] += _U(_PRIOR * (above[b] - above[b + 1]) >> 64)
    return out


_PRIORS = _priors()
_PRIORS.flags.writeable = False


class Model(NamedTuple):
    """Counts, one more beside each end; by bucket where its frequencies start << 13 | their number; `_PRIORS`."""

    counts: U64
    shares: U64
    priors: U64


class Scratch(NamedTuple):
    """To decode: the model, ``slots: uint32[4096]``, the body's words and `SLACK_WORDS` more."""

    model: Model
    slots: U32
    words: U64


class Streams(NamedTuple):
    """Where n numbers go: shares by number, ``low: uint64[2 * n + SLACK_WORDS]``, cleared, ``coded: uint16[n + 2]`` from its end."""

    taken: U64
    low: U64
    coded: U16


def _new_model() -> Model:
    return Model(np.empty(_BUCKETS + 2, np.uint64), np.empty(_BUCKETS, np.uint64), _PRIORS)


@leaf
def _cut(mean: np.uint64) -> np.uint64:
    """How many low bits are cut off at a mean, of which `mean` is the 16-fold."""
    n = bit_length(mean + _4)
    return _U(n - 8) if n > 8 else _0


@leaf
def _next_mean(mean: np.uint64, z: np.uint64) -> np.uint64:
    """The running mean after a number, which counts as 16 times the mean at most; both means are the 16-fold."""
    return min(_U(mean - (mean >> _4) + min(z, mean + _64)), _MEAN_MAX)


@leaf
def _bucket(v: np.uint64) -> tuple[Int, np.uint64]:
    """The bucket of a cut number, and how many of its low bits are stored."""
    if v < _16:
        return np.int64(v), _0
    octave = _U(bit_length(v) - 1)
    b = np.int64((octave << _2) | ((v >> (octave - _2)) & _U(3)))
    return min(b, np.int64(_ESCAPE)), octave - _2


@step
def _begin(model: Model, first: np.uint64) -> None:
    row = min(bit_length(first), np.int64(_CLASSES - 1))
    model.counts[0] = model.counts[_BUCKETS + 1] = _0
    for b in range(_BUCKETS):
        model.counts[b + 1] = model.priors[row, b]
    _share(model)


@step
def _share(model: Model) -> None:
    """Counts into frequencies that sum to 4,096, each 1 at least; what rounding leaves goes to the most frequent."""
    counts, shares = model.counts, model.shares
    counts[1] += counts[0]
    counts[_BUCKETS] += counts[_BUCKETS + 1]
    counts[0] = counts[_BUCKETS + 1] = _0
    total = _0
    for b in range(_BUCKETS):
        total += counts[b + 1]
    factor = _U(((1 << _TOTAL_BITS) - _BUCKETS) << 32) // total
    left, largest = _U(1 << _TOTAL_BITS), 0
    for b in range(_BUCKETS):
        shares[b] = _1 + ((counts[b + 1] * factor) >> _U(32))
        left -= shares[b]
        largest = b if shares[b] > shares[largest] else largest
    shares[largest] += left
    start = _0
    for b in range(_BUCKETS):
        size = shares[b]
        shares[b] = (start << _U(13)) | size
        start += size
    if total > _U(_COUNTS_MAX):
        for b in range(_BUCKETS):
            counts[b + 1] -= counts[b + 1] >> _1


@leaf
def _count(counts: U64, b: Int, k: np.uint64) -> None:
    """Once more; where low bits are cut off, what is beside it is likelier too."""
    at, beside = np.uint64(b), _U(_BESIDE) if k > _0 else _0
    counts[at] += beside
    counts[at + _1] += _U(_EACH)
    counts[at + _2] += beside


@entry
def encode(x: U64, order: Int, model: Model, streams: Streams) -> tuple[np.uint64, np.uint64, Int]:
    """Returns log2 of the first mean, the low bits, and where in ``streams.coded`` the words start."""
    taken, words, out = streams
    log_first = first_mean(x, order)
    first = _8 << log_first
    bit, mean = _0, first
    _begin(model, first)
    due: Int = np.int64(16)
    for i in range(x.size):
        z = zigzag(residual(x, i, order))
        k = _cut(mean)
        v = z >> k
        b, low = _bucket(v)
        if b == _ESCAPE:
            size = _U(bit_length(z))
            bit = put_bits(words, bit, size - _1, _6)
            bit = put_bits(words, bit, z, size)
        else:
            bit = put_bits(words, bit, z, k + low)
        taken[i] = model.shares[b]
        _count(model.counts, b, k)
        mean = _next_mean(mean, z) if i > 0 else mean
        if i == due:
            _share(model)
            due += min(due, np.int64(_PER))
    state = _LOW
    at = out.size
    for j in range(x.size):
        share = taken[x.size - 1 - j]
        size = share & _M13
        if state >= size << _U(20):
            at -= 1
            out[at] = np.uint16(state & _U(0xFFFF))
            state >>= _16
        whole = np.uint64(np.uint32(state) // np.uint32(size))
        state = (whole << _U(_TOTAL_BITS)) + (state - whole * size) + (share >> _U(13))
    out[at - 1], out[at - 2] = np.uint16(state >> _16), np.uint16(state & _U(0xFFFF))
    return log_first, bit, at - 2


@step
def _fill(model: Model, slots: U32) -> None:
    """For each of 4,096 slots: how far it is from its bucket's start << 19, the bucket's frequency << 6, the bucket."""
    for b in range(_BUCKETS):
        start, size = model.shares[b] >> _U(13), model.shares[b] & _M13
        what = np.uint32((size << _6) | np.uint64(b))
        for i in range(np.int64(size)):
            slots[np.int64(start) + i] = what + (np.uint32(i) << np.uint32(19))


@step
def _backwards(data: U8, pos: Int, end: Int, words: U64) -> None:
    """The bytes data[pos:end] from the last to the first, as words; `SLACK_WORDS` zeros behind them."""
    n = (end - pos + 7) // 8
    for i in range(n + SLACK_WORDS):
        words[i] = _0
    for i in range(end - pos):
        words[i >> 3] |= np.uint64(data[end - 1 - i]) << np.uint64(8 * (i & 7))


@leaf
def _word16(data: U8, pos: Int) -> np.uint64:
    p = np.uint64(pos)
    return np.uint64(data[p]) | (np.uint64(data[p + _1]) << _8)


@step
def _add_up(x: U64, order: Int) -> None:
    """Residuals of an order into the numbers, in place."""
    n = x.size
    if order == 0:
        for i in range(1, n):
            x[i] += x[0]
    elif order == 1:
        for i in range(1, n):
            x[i] += x[i - 1]
    elif order == 2 and n > 1:
        change = x[1]
        x[1] += x[0]
        for i in range(2, n):
            change += x[i]
            x[i] = x[i - 1] + change


@step
def decode(data: U8, start: Int, end: Int, scratch: Scratch, x: U64) -> bool:
    """Read x.size numbers of the body data[start:end]; False where it does not hold them."""
    model, slots, words = scratch
    if end - start < 5 or data[start] >> 2 > _FIRST_MAX:
        return False
    order, first = np.int64(data[start] & 3), _8 << np.uint64(data[start] >> 2)
    _backwards(data, start + 1, end, words)
    state = _word16(data, start + 1) | (_word16(data, start + 3) << _16)
    pos: Int = start + 5
    bit, mean = _0, first
    _begin(model, first)
    _fill(model, slots)
    due: Int = np.int64(16)
    n_bits = np.uint64(8 * end)
    for i in range(x.size):
        k = _cut(mean)
        slot = np.uint64(slots[state & _M12])
        b = slot & _U(63)
        state = ((slot >> _6) & _M13) * (state >> _U(_TOTAL_BITS)) + (slot >> _U(19))
        ahead = (state << _16) | _word16(data, min(pos, end - 2))
        pos += 2 if state < _LOW else 0
        state = ahead if state < _LOW else state
        _count(model.counts, np.int64(b), k)
        if b != _U(_ESCAPE):
            is_single = b < _U(_SINGLE)
            width = k + (_0 if is_single else (b >> _2) - _2)
            z = ((b if is_single else _4 | (b & _U(3))) << width) | get_bits(words, bit, width)
            bit += width
        else:
            size = get_bits(words, bit, _6) + _1
            z = get_bits(words, bit + _6, size)
            bit += size + _6
        if bit + _U(8 * pos) > n_bits:
            return False
        mean = _next_mean(mean, z) if i > 0 else mean
        x[i] = unzigzag(z)
        if i == due:
            _share(model)
            _fill(model, slots)
            due += min(due, np.int64(_PER))
    _add_up(x, order)
    return bool(state == _LOW and (bit + _U(7)) >> _U(3) == np.uint64(end - pos))


def model_body(numbers: I64, order: int) -> bytes:
    """The bytes of ``numbers: int64[n]``, as residuals of an order (`headrace.codecs.adaptive`)."""
    n = numbers.size
    low, coded = np.zeros(2 * n + SLACK_WORDS, np.uint64), np.empty(n + 2, np.uint16)
    streams = Streams(np.empty(n, np.uint64), low, coded)
    with wrapping():
        first, bits, at = encode(numbers.view(np.uint64), order, _new_model(), streams)
    backwards = low.view(np.uint8)[: (int(bits) + 7) // 8][::-1]
    return bytes([order | int(first) << 2]) + coded[at:].tobytes() + backwards.tobytes()


_own = threading.local()


def scratch_for(size: int) -> Scratch:
    """Scratch of the thread that asks, to decode a body of so many bytes."""
    found: Scratch | None = getattr(_own, "scratch", None)
    words = size // 8 + 1 + SLACK_WORDS
    if found is None or found.words.size < words:
        found = Scratch(_new_model(), np.empty(1 << _TOTAL_BITS, np.uint32), np.empty(2 * words, np.uint64))
        _own.scratch = found
    return found
