"""Grids against exact arithmetic, and there and back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.grids import Grid, value_of
from headrace.core.layouts import numpy_dtype

INTEGERS = ("u8", "i8", "u16", "i16", "u32", "i32")


def decimals(k: int, m: int, digits: int) -> tuple[float, float]:
    """Scale and offset of few digits, as plant files have them."""
    return float(Fraction(k, 10**digits)), float(Fraction(m, 10**digits))


grids = st.builds(
    decimals,
    st.integers(-9_999, 9_999).filter(bool),
    st.just(0) | st.integers(-9_999_999, 9_999_999),
    st.integers(0, 9),
)
any_grids = st.tuples(
    st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12), st.floats(-1e12, 1e12)
)  # mostly no decimals of few digits


@st.composite
def raws(draw: st.DrawFn) -> np.ndarray:
    dtype = numpy_dtype(draw(st.sampled_from(INTEGERS)))
    info = np.iinfo(dtype)
    return np.array(draw(st.lists(st.integers(int(info.min), int(info.max)), min_size=1, max_size=20)), dtype)


@given(raws(), grids)
def test_values_are_the_floats_nearest_to_the_decimals(raw: np.ndarray, pair: tuple[float, float]) -> None:
    scale, offset = (Fraction(repr(x)) for x in pair)
    expected = [float(int(r) * scale + offset) for r in raw]
    assert Grid.of([pair]).values(raw).tolist() == expected
    assert [value_of(int(r), *pair) for r in raw] == expected


@given(raws(), st.lists(grids | any_grids, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_value_is_the_same_whichever_way_it_is_computed(
    raw: np.ndarray, pairs: list[tuple[float, float]], random: object
) -> None:
    index = np.array([random.randrange(len(pairs)) for _ in raw])  # type: ignore[attr-defined]
    grid = Grid.of(pairs)
    one = grid.values_at(raw, index)
    assert one.tobytes() == grid.take(index).values(raw).tobytes()
    assert one.tolist() == [value_of(int(r), *pairs[i]) for r, i in zip(raw, index, strict=True)]
    dense = grid.values(np.repeat(raw[:, None], len(pairs), axis=1))
    assert one.tobytes() == dense[np.arange(len(raw)), index].tobytes()


@given(raws(), grids)
def test_integers_of_up_to_32_bits_come_back(raw: np.ndarray, pair: tuple[float, float]) -> None:
    grid = Grid.of([pair])
    found, fits = grid.nearest(grid.values(raw), raw.dtype)
    assert fits.all()
    assert (found == raw).all()
    # As other programs compute it, too.
    found, fits = grid.nearest(raw.astype(np.float64) * pair[0] + pair[1], raw.dtype)
    assert fits.all()
    assert (found == raw).all()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), grids)
def test_64_bit_integers_come_back_to_their_values(raw: list[int], pair: tuple[float, float]) -> None:
    grid = Grid.of([pair])
    values = grid.values(np.array(raw))
    found, fits = grid.nearest(values, np.dtype(np.int64))
    assert (grid.values(found) == values)[fits].all()
    assert fits[np.abs(np.array(raw, np.float64)) <= 2**62].all()


@given(raws(), grids, st.floats(0.01, 0.99))
def test_between_two_steps_nothing_fits(raw: np.ndarray, pair: tuple[float, float], part: float) -> None:
    grid = Grid.of([pair])
    between = grid.values(raw.astype(np.float64) + part)
    assert not grid.nearest(between, raw.dtype)[1].any()
