import importlib.util

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from headrace.core.kernels import CacheFiles, LoadedLibrary, cached, inlined, kernel


@inlined
def _step(a):
    return a * 2


@kernel
def _total(values):
    total = 0.0
    for value in values:
        total += _step(value)
    return total


def test_kernels_compute_with_ieee_arithmetic():
    assert _total(np.array([1.0, 2.5])) == 7.0
    assert np.isnan(_total(np.array([1.0, np.nan])))
    assert _total(np.array([1e16, 1.0, -1e16])) == 0.0


@inlined
def _twice(k):
    return 2 * k


@inlined  # the cache would spare the compiling that is looked at
def _doubled(values, out):
    k = 0
    for value in values:
        out[_twice(k)] = value
        k += 1
    return k


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_a_kernel_is_compiled_for_the_types_of_its_callers_only():
    """Not for the 0 with which a counter begins, too, to be thrown away."""
    out = np.zeros(4)
    assert (_doubled(np.array([1.0, 2.0]), out), out.tolist()) == (2, [1.0, 0.0, 2.0, 0.0])
    assert _twice.signatures == [(numba.int64,)]


def files_of(folder, stamp="source 1"):
    return CacheFiles(IndexDataCacheFile(str(folder), "module.total-7.py311", stamp))


def test_two_processes_that_compile_at_once_do_not_take_each_others_code(tmp_path, monkeypatch):
    one, other = files_of(tmp_path), files_of(tmp_path)
    write = one._save_data

    def write_behind_the_other(name, data):
        other.save("of integers", "code for integers")
        write(name, data)

    monkeypatch.setattr(other, "_load_index", dict)  # it looked before the first one wrote
    monkeypatch.setattr(one, "_save_data", write_behind_the_other)
    one.save("of floats", "code for floats")
    reader = files_of(tmp_path)
    assert reader.load("of integers") == "code for integers"
    assert reader.load("of floats") in (None, "code for floats"), "at worst it is compiled once more"


def test_code_of_an_older_source_is_never_read(tmp_path, monkeypatch):
    files_of(tmp_path).save("of floats", "old")
    newer, seen = files_of(tmp_path, "source 2"), []
    write = newer._save_index
    monkeypatch.setattr(
        newer, "_save_index", lambda index: (write(index), seen.append(newer.load("of floats")))
    )
    assert newer.load("of floats") is None
    newer.save("of floats", "new")
    assert seen == ["new"], "it is there as soon as the index says so"


def test_what_is_not_compiled_has_no_cache():
    def plain():
        return 1

    assert cached(plain, plain) is plain


KERNELS = """
import numpy as np
from headrace.core.kernels import kernel

@kernel
def doubled(values):
    out = np.empty(values.size)
    for i in range(values.size):
        out[i] = 2 * values[i]
    return out

@kernel
def total(values):
    return doubled(values).sum()

@kernel
def last(values):
    return doubled(values)[-1]
"""


def module_of(file):
    """A module of its own from a file, as another process has it."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def library_of(dispatcher):
    (compiled,) = dispatcher.overloads.values()
    return compiled.library


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_code_of_another_process_is_run_and_compiled_into_what_calls_it(tmp_path):
    file, values = tmp_path / "kernels_of_a_test.py", np.arange(5.0)
    file.write_text(KERNELS)
    first, second, third = (module_of(file) for _ in range(3))
    assert first.doubled(values).tolist() == [0, 2, 4, 6, 8]
    assert not isinstance(library_of(first.doubled), LoadedLibrary)

    assert second.doubled(values).tolist() == [0, 2, 4, 6, 8]
    loaded = library_of(second.doubled)
    assert isinstance(loaded, LoadedLibrary)
    assert loaded._bitcode, "not parsed as long as nobody compiles against it"
    assert second.total(values) == 20.0
    assert not loaded._bitcode
    assert second.last(values) == 8.0, "it is parsed once"

    assert third.total(values) == 20.0
    assert isinstance(library_of(third.total), LoadedLibrary)
    assert not third.doubled.overloads, "what it calls is in its own code"
