"""How the codec kernels are compiled: no allocation inside, so no reference counts.

A compiled function that may allocate counts references to every array it hands on, with atomic
instructions: for columns of 64 samples that was half of the whole cost. So every array is allocated by the
caller, in Python, and `entry` kernels only fill it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba
import numpy as np

Int = int | np.int64
"""An integer in a kernel: int64 once compiled, either of the two in plain Python."""

F = TypeVar("F", bound=Callable[..., object])


def entry(function: F) -> F:
    """Compile a kernel that Python calls: cached on disk, without the GIL."""
    return numba.njit(cache=True, nogil=True, _nrt=False, error_model="numpy")(function)  # type: ignore[no-any-return]


def step(function: F) -> F:
    """Compile a large function that kernels call."""
    return numba.njit(nogil=True, _nrt=False, error_model="numpy")(function)  # type: ignore[no-any-return]


def leaf(function: F) -> F:
    """Compile a small function that kernels call: always inlined."""
    return numba.njit(nogil=True, _nrt=False, error_model="numpy", forceinline=True)(function)  # type: ignore[no-any-return]


def glue(function: F) -> F:
    """Have a function that calls large ones copied into its one caller, which saves compiling those once more."""
    return numba.njit(nogil=True, _nrt=False, error_model="numpy", inline="always")(function)  # type: ignore[no-any-return]
