"""What is read of rows, apart from queries."""

from types import SimpleNamespace

import numpy as np

from headrace.store.decoding import Decoding


def test_a_signalling_nan_is_read_without_a_warning():
    """Registers may hold any bits; as float64 the number is still none."""
    values = np.array([0x7FA00000, 0x3FC00000], np.uint32).view(np.float32)
    plain = SimpleNamespace(take=lambda element: SimpleNamespace(is_plain=True))
    reader = SimpleNamespace(wanted=SimpleNamespace(grid=plain))
    found = Decoding._converted(reader, values, np.array([2]), np.array([0]))
    assert np.isnan(found[0])
    assert found[1] == 1.5
