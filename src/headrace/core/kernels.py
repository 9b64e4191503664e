"""The one way to compile a kernel: typed for mypy, cached on disk, without the GIL.

Numba is imported when the first kernel module is, never by ``import headrace``.
"""

from collections.abc import Callable
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile `function` in nopython mode; cached, releases the GIL, IEEE arithmetic (no fast-math)."""
    return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]


def inlined(function: F) -> F:
    """Compile a small function that kernels call; LLVM inlines it, so that it has no cache of its own."""
    return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


def lean_kernel(function: F) -> F:
    """Compile a kernel that allocates nothing, so that nobody counts references to the arrays that it hands on.

    Where small functions of a kernel take many arrays, counting is most of the cost (measured for the scanner of line
    protocol: 690 ns a value with it). Division by zero gives what IEEE says instead of an error.
    """
    return numba.njit(cache=True, nogil=True, _nrt=False, error_model="numpy")(function)  # type: ignore[no-any-return]


def lean_leaf(function: F) -> F:
    """Compile a small function of lean kernels that is always inlined."""
    return numba.njit(nogil=True, _nrt=False, error_model="numpy", forceinline=True)(function)  # type: ignore[no-any-return]
