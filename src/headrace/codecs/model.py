"""Numbers by a model that learns while it codes: how large they are now, and how often each size has come up so far.

A number z (zigzag of a residual, as in `headrace.codecs.adaptive`) is a *bucket*, entropy-coded, and low bits, stored as
they are. A running mean, which the decoder knows too, says how many low bits are cut off; what is left of a usual number
lies between 8 and 16. Buckets are single values below 16, and quarters of an octave above. The mean learns the middle of a
number's bucket, so that a reader need not wait for its low bits. How often each bucket has come up is counted, where bits
are cut off its neighbours a little too, so that the shape of the distribution is learned and never stored; it starts
geometric, forgets slowly, and is put into frequencies of 4,096 after 8, 16, 32, 64, then every 128 numbers.

Entropy coding is rANS (J. Duda, arXiv:1311.2540) in 16-bit words, the high byte first, with a 32-bit state; from 512 numbers
on there are two, for numbers by turns. The body is a byte ``8 + (order | first << 2)`` with log2 of the first mean, the states,
the words from the front, and the low bits backwards from the end. A reader turns it all around first: then low bits are
read upwards, and words downwards.
"""

from __future__ import annotations

import threading

import numpy as np

from headrace.codecs.adaptive import PLAIN, SLACK_WORDS, append_bits, first_mean, get_bits, residual
from headrace.codecs.bits import U8, U32, U64, ZERO, bit_length, unzigzag, zigzag
from headrace.codecs.compiled import Int, entry, leaf, step

Reader = tuple[np.uint64, np.uint64, np.uint64, np.uint64]
"""State; in the scratch: byte of its next word, bit of the low bits; mean."""

_BUCKETS = 40
_ESCAPE = 39
_SINGLE = 16
_TOTAL_BITS = 12
_EACH, _BESIDE = 8, 1
_PRIOR, _COUNTS_MAX = 150, 8_000
_PER = 128
_TWO_FROM = 512
_CLASSES = 9
_FIRST_MAX = 60
_MIDDLE_MAX = 384
_FILLED = 64
_READ_MAX, _WIDE = 33, 64  # low bits that are read at once; more than these, as an escape has

_U = np.uint64
_0, _1, _2, _3, _4, _5, _6, _8, _16, _31, _32, _255 = (
    _U(i) for i in (0, 1, 2, 3, 4, 5, 6, 8, 16, 31, 32, 255)
)
_12, _M12, _M32 = _U(12), _U(4095), _U((1 << 32) - 1)
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


def _tables() -> tuple[U64, U64]:
    widths, bases = np.empty(_BUCKETS, np.uint64), np.empty(_BUCKETS, np.uint64)
    for b in range(_BUCKETS):
        base, low = (b, 0) if b < _SINGLE else (4 | b & 3, (b >> 2) - 2)
        middle = min((2 * base + 1) << low, _MIDDLE_MAX)
        widths[b] = _U(middle << 8 | (low if b < _ESCAPE else _WIDE))
        bases[b] = _U(base)
    widths.flags.writeable = bases.flags.writeable = False
    return widths, bases


_WIDTHS, _BASES = _tables()
"""Of each bucket: twice the middle of its numbers << 8 | how many low bits follow; what its numbers begin with."""

COUNTS_AT = 0
_NEW_AT = _BUCKETS
_STARTS_AT = _NEW_AT + _BUCKETS + 2
_SIZES_AT = _STARTS_AT + _BUCKETS + 1
_FIRSTS_AT = _SIZES_AT + _BUCKETS
_WIDTHS_AT = _FIRSTS_AT + (512 + _FILLED) // 8
_BASES_AT = _WIDTHS_AT + _BUCKETS
MODEL_WORDS = _BASES_AT + _BUCKETS
"""What a model takes of the words of scratch: counts; those since they became frequencies, with one more beside each end; by
bucket, and behind the last, where its frequencies start; their number; the bucket that each 16th of 4,096 slots is in; `_WIDTHS`;
`_BASES`."""

OWNER_AT = 639
"""Where in the words of scratch it says whose memo of `headrace.codecs.origin_kernels` lies behind it; 0 at first."""

WORDS_AT = 4_864
"""Where in the words of scratch streams lie; what is small stands before."""

_SLACK = 192  # words: what a block of damaged bytes may read beyond the stream
FIRST_BYTE = 8
"""The least first byte of a body."""


@leaf
def _cut(mean: np.uint64) -> np.uint64:
    """How many low bits are cut off at a mean, of which `mean` is the 16-fold."""
    return _U(bit_length((mean + _4) | _255) - 8)


@leaf
def _next_mean(mean: np.uint64, what: np.uint64, k: np.uint64) -> np.uint64:
    """The running mean after a number of the bucket of which `_WIDTHS` says this; both means are the 16-fold."""
    return min(_U(mean - (mean >> _4) + (((what >> _8) << k) >> _1)), _MEAN_MAX)


@leaf
def _bucket(v: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64]:
    """The bucket of a cut number, how many of its low bits are stored, and what `_WIDTHS` says of twice its middle.

    The middle without the table, and without the bucket: the mean waits for it, and all of the next number for the mean.
    """
    low = _U(bit_length(v | _8) - 4)
    low = _0 if v < _16 else low + _1
    begins = v >> low
    b = v if v < _16 else min(((low + _2) << _2) | (begins & _3), _U(_ESCAPE))
    return b, low, min(((begins << _1) | _1) << min(low, _8), _U(_MIDDLE_MAX))


@step
def _residuals(x: U64, order: Int, out: U64) -> None:
    """What is coded of each number: its residual of an order, as zigzag."""
    n = _U(x.size)
    for i in range(_0, min(n, _2)):
        out[i] = zigzag(residual(x, np.int64(i), order))
    if order == PLAIN:
        for i in range(_2, n):
            out[i] = zigzag(x[i])
    elif order == 0:
        for i in range(_2, n):
            out[i] = zigzag(x[i] - x[0])
    elif order == 1:
        for i in range(_2, n):
            out[i] = zigzag(x[i] - x[i - _1])
    else:
        for i in range(_2, n):
            out[i] = zigzag(x[i] - x[i - _1] - x[i - _1] + x[i - _2])


@step
def _begin(work: U64, first: np.uint64) -> None:
    row = min(bit_length(first), np.int64(_CLASSES - 1))
    work[_NEW_AT] = work[_NEW_AT + _BUCKETS + 1] = _0
    for b in range(_BUCKETS):
        work[COUNTS_AT + b] = _PRIORS[row, b]
        work[_NEW_AT + 1 + b] = _0
        work[_WIDTHS_AT + b] = _WIDTHS[b]
        work[_BASES_AT + b] = _BASES[b]
    _share(work, _0)


@step
def _share(work: U64, k: np.uint64) -> None:
    """Counts into frequencies that sum to 4,096, each 1 at least: sums of counts are rounded, so that nothing is left over.

    Where k low bits are cut off now, what is beside a number is likelier too.
    """
    counts, new = work[COUNTS_AT : COUNTS_AT + _BUCKETS], work[_NEW_AT : _NEW_AT + _BUCKETS + 2]
    starts, sizes = work[_STARTS_AT : _STARTS_AT + _BUCKETS + 1], work[_SIZES_AT : _SIZES_AT + _BUCKETS]
    beside = _U(_BESIDE) if k > _0 else _0
    total = _0
    for b in range(_BUCKETS):
        counts[b] += _U(_EACH) * new[b + 1] + beside * (new[b] + new[b + 2])
        total += counts[b]
    for b in range(_BUCKETS):
        new[b + 1] = _0
    factor = (_U(((1 << _TOTAL_BITS) - _BUCKETS) << 32) + total - _1) // total
    below = _0
    for b in range(_BUCKETS):
        starts[b] = _U(b) + ((below * factor) >> _32)
        below += counts[b]
    starts[_BUCKETS] = _U(1 << _TOTAL_BITS)
    for b in range(_BUCKETS):
        sizes[b] = starts[b + 1] - starts[b]
    if total > _U(_COUNTS_MAX):
        for b in range(_BUCKETS):
            counts[b] -= counts[b] >> _1


@entry
def encode(x: U64, order: Int, work: U64, out: U8) -> Int:
    """Write a body into ``out: uint8[11 * n + 64]``, and return its size.

    ``work: uint64[WORDS_AT + 3 * n + SLACK_WORDS]`` is room for the model, shares by number, and low bits.
    """
    n = x.size
    taken, words = work[WORDS_AT : WORDS_AT + n], work[WORDS_AT + n :]
    words[0] = _0
    log_first = first_mean(x, order)
    first = _8 << log_first
    _residuals(x, order, taken)
    bit, mean = _0, first
    _begin(work, first)
    due, end = _8, _U(n)
    for i in range(_0, end):
        z = taken[i]
        k = _cut(mean)
        v = z >> k
        b, low, middle = _bucket(v)
        if b == _U(_ESCAPE):
            size = _U(bit_length(z))
            bit = append_bits(words, bit, size - _1, _6)
            bit = append_bits(words, bit, z, size)
        else:
            bit = append_bits(words, bit, z, k + low)
        taken[i] = (work[_U(_STARTS_AT) + b] << _32) | work[_U(_SIZES_AT) + b]
        work[_U(_NEW_AT + 1) + b] += _1
        mean = _next_mean(mean, middle << _8, k) if i > _0 else mean
        if i == due:
            _share(work, _cut(mean))
            due += min(due, _U(_PER))
    out[0] = np.uint8(_U(order) | (_U(log_first + _U(FIRST_BYTE // 4)) << _2))
    at = _put_states(taken, out)
    last = at + np.int64((bit + _U(7)) >> _U(3))
    for i in range((last - at) // 8):
        word = words[i]
        p = np.uint64(last - 8 * i - 8)
        for j in range(8):
            out[p + np.uint64(7 - j)] = np.uint8((word >> np.uint64(8 * j)) & _U(255))
    for i in range((last - at) & ~7, last - at):
        out[last - 1 - i] = np.uint8((words[i >> 3] >> np.uint64(8 * (i & 7))) & _U(255))
    return last


@leaf
def _states_of(n: Int) -> Int:
    """Two states take turns where there are many numbers: a reader works at both at a time."""
    return np.int64(2 if n >= _TWO_FROM else 1)


@step
def _put_states(taken: U64, out: U8) -> Int:
    """The words of numbers with these shares from out[1] on; returns where they end."""
    n, top = _U(taken.size), _U(out.size)
    n_states: Int = _states_of(np.int64(n))
    state = other = _LOW
    at = top
    if n_states == 2 and n & _1 == _0:
        state, other = other, state
    for j in range(_0, n):
        share = taken[n - _1 - j]
        size = share & _M32
        if state >= size << _U(20):
            at -= _2
            out[at], out[at + _1] = np.uint8((state >> _8) & _U(255)), np.uint8(state & _U(255))
            state >>= _16
        whole = np.uint64(np.uint32(state) // np.uint32(size))
        state = (whole << _U(_TOTAL_BITS)) + (state - whole * size) + (share >> _U(32))
        if n_states == 2:
            state, other = other, state
    if n_states == 2:
        state, other = other, state
    for i in range(4):
        out[1 + i] = np.uint8((state >> np.uint64(8 * i)) & _U(255))
    start = 1 + 4 * n_states
    if n_states == 2:
        for i in range(4):
            out[5 + i] = np.uint8((other >> np.uint64(8 * i)) & _U(255))
    size = top - at
    for i in range(_0, size):
        out[_U(start) + i] = out[at + i]
    return start + np.int64(size)


@step
def _fill(raw: U8, work: U64) -> None:
    """For each 16 of 4,096 slots: the bucket that the first one of them is in."""
    for b in range(_BUCKETS):
        at = _U(8 * _FIRSTS_AT) + ((work[_STARTS_AT + b] + _U(7)) >> _U(3))
        end = _U(8 * _FIRSTS_AT) + ((work[_STARTS_AT + b + 1] + _U(7)) >> _U(3))
        while True:
            for j in range(_U(_FILLED)):  # more than is needed: the next bucket writes over it
                raw[at + j] = np.uint8(b)
            at += _U(_FILLED)
            if at >= end:
                break


@step
def _backwards(data: U8, pos: Int, end: Int, words: U64) -> None:
    """The bytes data[pos:end] from the last to the first, as words; `SLACK_WORDS` zeros behind them."""
    n = end - pos
    for i in range(n // 8):
        p, word = np.uint64(end - 8 * i - 8), _0
        for j in range(8):
            word |= np.uint64(data[p + np.uint64(7 - j)]) << np.uint64(8 * j)
        words[i] = word
    for i in range(n // 8, n // 8 + SLACK_WORDS):
        words[i] = _0
    for i in range(n & ~7, n):
        words[i >> 3] |= np.uint64(data[end - 1 - i]) << np.uint64(8 * (i & 7))


@leaf
def _fixed(raw: U8, at: np.uint64, n_bytes: Int) -> np.uint64:
    """`n_bytes` bytes as a number, the low ones first; in one instruction once compiled."""
    value = _0
    for i in range(n_bytes):
        value |= np.uint64(raw[at + _U(i)]) << _U(8 * i)
    return value


@step
def _add_up(x: U64, order: Int) -> None:
    """Residuals of an order, as zigzag, into the numbers, in place."""
    n = x.size
    for i in range(n):
        x[i] = unzigzag(x[i])
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


@leaf
def _read(raw: U8, halves: U32, work: U64, at: Reader) -> tuple[np.uint64, Reader]:
    """A number, and where the next one is."""
    state, pos, bit, mean = at
    k = _cut(mean)
    slot = state & _M12
    b = np.uint64(raw[_U(8 * _FIRSTS_AT) + (slot >> _U(3))])
    while slot >= work[_U(_STARTS_AT + 1) + b]:
        b += _1
    state = work[_U(_SIZES_AT) + b] * (state >> _12) + slot - work[_U(_STARTS_AT) + b]
    ahead = (state << _16) | _fixed(raw, pos, np.int64(2))
    pos -= _2 if state < _LOW else _0
    state = ahead if state < _LOW else state
    work[_U(_NEW_AT + 1) + b] += _1
    what = work[_U(_WIDTHS_AT) + b]
    width = k + (what & _255)
    if width <= _U(_READ_MAX):
        at32 = bit >> _5
        low = (np.uint64(halves[at32]) | (np.uint64(halves[at32 + _1]) << _32)) >> (bit & _31)
        z = (work[_U(_BASES_AT) + b] << width) | (low & ((_1 << width) - _1))
    elif b != _U(_ESCAPE):
        z = (work[_U(_BASES_AT) + b] << width) | get_bits(work, bit, width)
    else:
        width = get_bits(work, bit, _6) + _1
        z = get_bits(work, bit + _6, width)
        width += _6
    return z, (state, pos, bit + width, _next_mean(mean, what, k))


@step
def _read_by_turns(
    raw: U8, halves: U32, work: U64, at: Reader, other: np.uint64, x: U64
) -> tuple[Reader, np.uint64]:
    """An even number of numbers, by two states."""
    state, pos, bit, mean = at
    for i in range(_0, np.uint64(x.size), _2):
        x[i], (state, pos, bit, mean) = _read(raw, halves, work, (state, pos, bit, mean))
        x[i + _1], (other, pos, bit, mean) = _read(raw, halves, work, (other, pos, bit, mean))
    return (state, pos, bit, mean), other


@step
def _read_all(raw: U8, halves: U32, work: U64, at: Reader, x: U64) -> Reader:
    for i in range(x.size):
        x[i], at = _read(raw, halves, work, at)
    return at


@step
def decode(data: U8, start: Int, end: Int, work: U64, x: U64) -> bool:
    """Read x.size numbers of the body data[start:end]; False where it does not hold them."""
    n_states = _states_of(np.int64(x.size))
    if end - start < 1 + 4 * n_states or not FIRST_BYTE <= data[start] < FIRST_BYTE + 4 * (_FIRST_MAX + 1):
        return False
    order, first = np.int64(data[start] & 3), _8 << np.uint64((data[start] - FIRST_BYTE) >> 2)
    _backwards(data, start + 1, end, work[WORDS_AT:])
    raw, halves = work.view(np.uint8), work.view(np.uint32)
    state = _fixed(data, np.uint64(start + 1), np.int64(4))
    other = _fixed(data, np.uint64(start + 4 * n_states - 3), np.int64(4))
    _begin(work, first)
    _fill(raw, work)
    lowest = _U(8 * WORDS_AT)
    at = state, lowest + np.uint64(end - start - 1 - 4 * n_states) - _2, _8 * lowest, first
    i: Int = ZERO
    due: Int = np.int64(9)
    while i < x.size:
        stop = min(due, np.int64(x.size))
        if n_states == 1 or (stop - i) & 1:
            x[i], at = _read(raw, halves, work, at)
            at = (at[0], at[1], at[2], first if i == 0 else at[3])
            if n_states == 2:
                at, other = (other, at[1], at[2], at[3]), at[0]
            i += 1
        if n_states == 2:
            at, other = _read_by_turns(raw, halves, work, at, other, x[i:stop])
        else:
            at = _read_all(raw, halves, work, at, x[i:stop])
        if at[2] > _8 * (at[1] + _2):
            return False
        i = stop
        if i == due:
            _share(work, _cut(at[3]))
            _fill(raw, work)
            due += min(due - 1, np.int64(_PER))
    _add_up(x, order)
    whole = at[0] == _LOW and (n_states == 1 or other == _LOW)
    return bool(whole and (at[2] + _U(7)) >> _3 == at[1] + _2)


_own = threading.local()


def scratch_for(size: int) -> U64:
    """Scratch of the thread that asks, `WORDS_AT` words and twice those of so many bytes, and `_SLACK`."""
    found: U64 | None = getattr(_own, "scratch", None)
    words = WORDS_AT + 2 * (size // 8 + 1 + SLACK_WORDS) + _SLACK
    if found is None or found.size < words:
        found = np.empty(words, np.uint64)
        found[OWNER_AT] = 0
        _own.scratch = found
    return found
