"""Memory that is freed is used again, not asked for anew."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from headrace.runtime.memory import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from headrace.runtime.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 20)
before = faults()
for _ in range(50):
    np.ones(1 << 20)  # 8 MiB
print(faults() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_arrays_of_some_megabytes_take_the_pages_of_those_before():
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < 50
    assert keep_freed_memory()


def test_a_c_library_without_such_settings_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
