import numpy as np

from headrace.core.kernels import inlined, kernel


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
