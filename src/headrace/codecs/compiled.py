"""How the codec kernels are compiled: no allocation inside, so no reference counts.

A compiled function that may allocate counts references to every array it hands on, with atomic
instructions: for columns of 64 samples that was half of the whole cost. So every array is allocated by the
caller, in Python, and `entry` kernels only fill it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import xxhash

from headrace.core.kernels import KernelCache, by_type, cached

Int = int | np.int64
"""An integer in a kernel: int64 once compiled, either of the two in plain Python."""

_NOTHING = nullcontext()


def wrapping() -> AbstractContextManager[object]:
    """Around calls of kernels whose arithmetic is modulo 2**64: NumPy would warn of it, what is compiled does not."""
    return np.errstate(all="ignore") if numba.config.DISABLE_JIT else _NOTHING


F = TypeVar("F", bound=Callable[..., object])


def _sources() -> str:
    """A digest of the modules that a kernel may be made of."""
    digest = xxhash.xxh3_128()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class SourceCache(KernelCache):
    """A cache on disk, keyed by the whole package: Numba itself sees only changes of the kernel's own file."""

    sources = _sources()

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self.sources)


def entry(function: F) -> F:
    """Compile a kernel that Python calls: cached on disk, without the GIL."""
    return cached(by_type(function, _nrt=False, error_model="numpy"), function, SourceCache)


def step(function: F) -> F:
    """Compile a large function that kernels call."""
    return by_type(function, _nrt=False, error_model="numpy")


def leaf(function: F) -> F:
    """Compile a small function that kernels call: always inlined."""
    return by_type(function, _nrt=False, error_model="numpy", forceinline=True)


def glue(function: F) -> F:
    """Have a function that calls large ones copied into its callers, which saves compiling those once more."""
    return by_type(function, _nrt=False, error_model="numpy", inline="always")
