"""Decimal numbers as the nearest floats, against Python's own reading."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.adapters.payloads.decimals import UNDECIDED, exact_float, float_bits, is_exact
from headrace.core.kernels import lean_kernel


@lean_kernel
def bits_of(digits, exponent):
    return float_bits(digits, exponent)


@lean_kernel
def exact(digits, exponent):
    return exact_float(digits, exponent) if is_exact(digits, exponent) else -1.0


def nearest(digits, exponent):
    return struct.unpack("<q", struct.pack("<d", float(f"{digits}e{exponent}")))[0]


@settings(max_examples=500)
@given(st.integers(0, 2**63 - 1) | st.integers(0, 10**17), st.integers(-345, 310) | st.integers(-25, 25))
def test_bits_are_those_of_the_nearest_float(digits, exponent):
    found = int(bits_of(digits, exponent))
    assert found in (nearest(digits, exponent), UNDECIDED)
    if exact(digits, exponent) != -1.0:
        assert exact(digits, exponent) == float(f"{digits}e{exponent}")


@pytest.mark.parametrize(
    ("digits", "exponent", "is_decided"),
    [
        (1, 0, True), (0, 5, True), (3692908884383948880, -27, True), (4904131422659170271, 3, True), (206802819119419300, 9, False),
        (2**53 + 1, 0, False), (2**53 + 3, 0, True), (2**54 - 1, 0, True), (1, 400, False), (1, -400, False),
        (5, -324, False), (2, 308, False), (17976931348623157, 292, True), (17976931348623159, 292, False),
    ],
)  # fmt: skip
def test_cases_of_each_kind(digits, exponent, is_decided):
    """A rest of the power that carries, half-way cases, subnormal and infinite ones."""
    assert int(bits_of(digits, exponent)) == (nearest(digits, exponent) if is_decided else UNDECIDED)
