"""The one way to compile a kernel: typed for mypy, cached on disk, without the GIL.

Numba is imported when the first kernel module is, never by ``import headrace``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba
import xxhash
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.runtime import rtsys

F = TypeVar("F", bound=Callable[..., object])


class CacheFiles(IndexDataCacheFile):  # type: ignore[misc]
    """Numba's files, but named after what they hold, and there before the index says so.

    Numba numbers them, from 1 on again for another source: of two processes that compile at once, or one that reads while
    the other writes, one may take code of other types or of an older source for its own.
    """

    def __init__(self, files: IndexDataCacheFile) -> None:
        self.__dict__ = files.__dict__

    def save(self, key: Any, data: Any) -> None:
        """Add what was compiled for a key; of two processes at once one may have to compile it once more."""
        name = self._data_name(xxhash.xxh3_64_intdigest(repr((self._source_stamp, key)).encode()))
        self._save_data(name, data)
        overloads = self._load_index()
        overloads[key] = name
        self._save_index(overloads)


class LoadedLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Code of an earlier process. Its intermediate code is read only when another kernel is compiled that calls it."""

    _bitcode: bytes

    def _get_module_for_linking(self) -> Any:
        if self._bitcode:
            self._shared_module, self._bitcode = llvm.parse_bitcode(self._bitcode), b""
        return super()._get_module_for_linking()


@cache
def _no_bitcode() -> bytes:
    return llvm.parse_assembly("").as_bitcode()  # type: ignore[no-any-return]


class KernelCode(CompileResultCacheImpl):  # type: ignore[misc]
    """What of a compiled function is kept: as Numba's own, but the names in its intermediate code stand beside it.

    Numba reads that code whenever a function is loaded, for these names: half of what loading costs.
    """

    def reduce(self, compiled: Any) -> tuple[Any, ...]:
        """What is kept of it."""
        (name, kind, (code, bitcode)), *rest = super().reduce(compiled)
        module = compiled.library._get_module_for_linking()
        defined = {
            one.name
            for some in (module.functions, module.global_variables)
            for one in some
            if not one.is_declaration
        }
        return (name, kind, (code, _no_bitcode())), bitcode, defined, *rest

    def rebuild(self, target_context: Any, kept: tuple[Any, ...]) -> Any:
        """The inverse of `reduce`."""
        library, bitcode, defined, *rest = kept
        target_context.codegen()._engine._defined_symbols |= defined
        compiled = super().rebuild(target_context, (library, *rest))
        compiled.library.__class__, compiled.library._bitcode = LoadedLibrary, bitcode
        return compiled


class KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function, on disk, in `CacheFiles`."""

    _impl_class = KernelCode
    _cache_file: IndexDataCacheFile

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        self._cache_file = CacheFiles(self._cache_file)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled for a signature by an earlier process, or None.

        Without what Numba needs to compile, which takes it 0.2 s to set up: it does so before it compiles, too.
        """
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), KernelCode.__name__)


def cached(compiled: Any, function: F, cache: type[KernelCache] = KernelCache) -> F:
    """What Numba made of a function, with its cache; under NUMBA_DISABLE_JIT the function itself."""
    if compiled is not function:
        compiled._cache = cache(function)
    return compiled  # type: ignore[no-any-return]


def by_type(function: F, **options: Any) -> F:
    """Have Numba compile a function, for the types of what kernels call it with only; under NUMBA_DISABLE_JIT the function itself.

    Numba would compile it for ``0`` as well, with which a counter of the caller begins, throw that away, and compile it for
    the type that the counter has. Nor is there a way in for callers in C, whom we have not.
    """
    compiled: Any = numba.njit(nogil=True, no_cfunc_wrapper=True, **options)(function)
    if compiled is function:
        return function
    resolve = compiled.get_call_template

    def get_call_template(args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        return resolve(
            tuple(numba.types.unliteral(arg) for arg in args),
            {name: numba.types.unliteral(arg) for name, arg in named.items()},
        )

    compiled.get_call_template = get_call_template
    return compiled  # type: ignore[no-any-return]


def kernel(function: F) -> F:
    """Compile `function` in nopython mode; cached, releases the GIL, IEEE arithmetic (no fast-math)."""
    return cached(by_type(function), function)


def inlined(function: F) -> F:
    """Compile a small function that kernels call; LLVM inlines it, so that it has no cache of its own."""
    return by_type(function)


def lean_kernel(function: F) -> F:
    """Compile a kernel that allocates nothing, so that nobody counts references to the arrays that it hands on.

    Where small functions of a kernel take many arrays, counting is most of the cost (measured for the scanner of line
    protocol: 690 ns a value with it). Division by zero gives what IEEE says instead of an error.
    """
    return cached(by_type(function, _nrt=False, error_model="numpy"), function)


def lean_leaf(function: F) -> F:
    """Compile a small function of lean kernels that is always inlined."""
    return by_type(function, _nrt=False, error_model="numpy", forceinline=True)


def exact_sums(function: F) -> F:
    """Compile a small function of lean kernels whose sums may be formed in any order, many terms side by side, multiplied and added at once.

    For sums that are exact in whatever order: of whole numbers that never pass 2**53. So all machines agree.
    """
    return by_type(function, _nrt=False, error_model="numpy", fastmath={"reassoc", "contract"})
