"""Counter-based noise: a random number is a hash of what it belongs to.

A generator with a state gives other numbers when a time range is cut in other places or devices are asked in
another order. Here every number is a function of (seed, device, time), so that any part of a simulated
factory's history can be computed by itself, in any order, and is the same each time. Integer arithmetic only:
the same on every machine.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), the mixer of SplitMix64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
NOISE_ONE = 65_535
"""`triangular` noise lies in -NOISE_ONE .. NOISE_ONE."""


def mix_int(*parts: int) -> int:
    """One 64-bit hash of some integers, for seeds and single constants."""
    z = 0
    for part in parts:
        z = (z + (part & _MASK) + _GOLDEN) & _MASK
        z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
        z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
        z ^= z >> 31
    return z


def splitmix64(x: U64) -> U64:
    """Mix 64-bit counters into uniform 64-bit numbers, element by element: uint64[n] → uint64[n].

    Cost: about 1 ns an element in cache-sized arrays.
    """
    z: U64 = x + np.uint64(_GOLDEN)
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= np.uint64(_MIX_1)
    np.right_shift(z, np.uint64(27), out=shifted)
    z ^= shifted
    z *= np.uint64(_MIX_2)
    np.right_shift(z, np.uint64(31), out=shifted)
    z ^= shifted
    return z


def keys(seed: int, index: npt.NDArray[np.integer[Any]]) -> U64:
    """The key of each numbered thing under a seed: uint64, shaped as `index`."""
    return splitmix64(index.astype(np.uint64) ^ np.uint64(mix_int(seed)))


def salted(key: U64, salt: int, counter: npt.NDArray[np.integer[Any]] | int = 0) -> U64:
    """Independent numbers from the same keys: one stream for each `salt`, one number for each `counter`."""
    at: Any = np.uint64(mix_int(salt))
    if isinstance(counter, int):
        at = np.uint64(mix_int(salt, counter))
        return splitmix64(key ^ at)
    return splitmix64(key ^ (counter.astype(np.uint64) * np.uint64(_GOLDEN) + at))


def uniform(hashed: U64) -> F64:
    """Uniform float64 in [0, 1) from the high 53 bits."""
    return (hashed >> np.uint64(11)).astype(np.float64) * (1.0 / (1 << 53))


def below(hashed: U64, n: int) -> I64:
    """Uniform integers in 0 .. n - 1 (n up to 2**31) from the high 32 bits."""
    return ((hashed >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def odd_multipliers(seed: int, n: int) -> U32:
    """Odd 32-bit constants, one for each column of a device: uint32[n]."""
    return (keys(seed, np.arange(n)) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


def triangular(frame_hash: U32, multipliers: U32) -> npt.NDArray[np.int32]:
    """A number for each (column, frame): int32[D, F], triangular in -65,535 .. 65,535.

    The frame's 32-bit hash times the column's odd constant, mixed, and its two halves added: good enough for
    noise, in 32-bit arithmetic. Cost: about 1 ns a value.
    """
    x = frame_hash[None, :] * multipliers[:, None]
    y = x >> np.uint32(15)
    x ^= y
    x *= np.uint32(0x2C1B3C6D)
    np.right_shift(x, np.uint32(16), out=y)
    x ^= y
    x *= np.uint32(0x297A2D39)
    np.right_shift(x, np.uint32(16), out=y)
    x &= np.uint32(0xFFFF)
    x += y
    out = x.view(np.int32)
    out -= np.int32(NOISE_ONE)
    return out
