"""What dead bands leave out before anything is stored, and that every sample is accounted for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.clock import NS
from headrace.core.dead_bands import DeadBands, SignalBand
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import CLASS_MASK, Quality
from headrace.core.sensors import SensorDirectory
from headrace.ingest.thinning import Thinner

T0 = 1_700_000_000 * NS
LAYOUT = Layout("i16", (Column("t", scale=0.1), Column("n")))
BAND = SignalBand(0.5, 60 * NS)


def directory_of(*bands, n=2, layout=LAYOUT):
    directory = SensorDirectory()
    slots = directory.define_many([f"a/d{i}" for i in range(n)], layout)
    directory.set_dead_bands(slots.tolist(), DeadBands.of(bands, layout))
    return directory


def frame(slot, second, values, quality=None):
    quality = None if quality is None else np.array([quality], np.uint8)
    return FrameBatch.dense(
        np.array([slot], np.uint32), np.array([T0 + second * NS]), np.array([values], np.int16), quality
    )


def test_what_moves_less_than_its_band_is_left_out_until_the_heartbeat():
    thinner = Thinner(directory_of(BAND, None))
    assert [thinner.thin(frame(slot, 0, [100, 1]))[1] for slot in (0, 1)] == [0, 0], "the first ones"
    kept, n = thinner.thin(frame(0, 1, [105, 1]))
    assert n == 1
    assert kept.quality.tolist() == [[Quality.ABSENT, Quality.GOOD]], "the other column has no band"
    assert kept.n_samples == 1
    for second, value, n_left_out in ((2, 106, 0), (3, 102, 1), (4, 100, 0), (63, 100, 1), (64, 100, 0)):
        _, n = thinner.thin(frame(0, second, [value, 1]))
        assert n == n_left_out, second


def test_frames_with_nothing_left_are_dropped():
    thinner = Thinner(directory_of(BAND, BAND))
    batch = FrameBatch.concat([frame(0, 0, [1, 1]), frame(1, 0, [1, 1]), frame(0, 1, [1, 1])])
    kept, n = thinner.thin(batch)
    assert (kept.n_frames, n) == (2, 2)
    kept, n = thinner.thin(FrameBatch.concat([frame(0, 2, [1, 9]), frame(1, 2, [1, 1])]))
    assert (kept.n_frames, kept.n_samples, n) == (1, 1, 3)
    assert kept.values[0, 1] == 9
    kept, n = thinner.thin(frame(0, 3, [1, 9]))
    assert (kept.n_frames, n) == (0, 2)


def test_a_change_of_the_quality_class_is_kept():
    thinner = Thinner(directory_of(BAND, None))
    marks = (Quality.GOOD, Quality.BAD_DEVICE, Quality.BAD_RANGE, Quality.ABSENT, Quality.GOOD)
    left_out = [thinner.thin(frame(0, i, [0, i], [mark, 0]))[1] for i, mark in enumerate(marks)]
    assert left_out == [0, 0, 1, 0, 0]


def test_no_bands_no_work():
    directory = SensorDirectory()
    slots = directory.define_many(["a/d0", "a/d1"], LAYOUT).tolist()
    thinner, batch = Thinner(directory), frame(1, 0, [1, 1])
    assert DeadBands.of((None, None), LAYOUT) is None
    directory.set_dead_bands(slots, None)
    assert thinner.thin(batch)[0] is batch
    directory.set_dead_bands(slots[:1], DeadBands.of((BAND, None), LAYOUT))
    assert thinner.thin(batch)[0] is batch, "of another group"
    empty = batch.slice(0, 0)
    assert thinner.thin(empty)[0] is empty
    directory.set_dead_bands(slots, None)
    assert not directory.dead_bands


def test_bands_that_change_begin_anew():
    directory = directory_of(BAND, None, n=1)
    thinner = Thinner(directory)
    assert thinner.thin(frame(0, 0, [0, 0]))[1] == 0
    directory.set_dead_bands([0], DeadBands.of((SignalBand(5.0, 60 * NS), None), LAYOUT))
    assert thinner.thin(frame(0, 1, [0, 0]))[1] == 0
    assert thinner.thin(frame(0, 2, [49, 0]))[1] == 1
    assert thinner._bands[0].n == 2, "they take the place of the old ones"


def test_a_clock_that_is_set_back_silences_nobody():
    thinner = Thinner(directory_of(BAND, None))
    left_out = [thinner.thin(frame(0, second, [0, 0]))[1] for second in (1_000, 1_001, 0, 1, 60)]
    assert left_out == [0, 1, 0, 1, 0]


def test_steps_that_a_float_does_not_have_are_all_kept():
    layout = Layout("i64", (Column("n"),))
    thinner = Thinner(directory_of(SignalBand(0.0, 60 * NS), n=1, layout=layout))

    def left_out(second, value):
        ts_ns = np.array([T0 + second * NS])
        return thinner.thin(FrameBatch.dense(np.zeros(1, np.uint32), ts_ns, np.array([[value]], np.int64)))[1]

    values = (5, 5, 2**53, 2**53 + 1, -(2**53))
    assert [left_out(second, value) for second, value in enumerate(values)] == [0, 1, 0, 0, 0]


def test_what_another_adapter_brings_is_stored_as_it_is():
    directory = directory_of(BAND, None, n=1)
    directory.set_dead_bands([0], DeadBands.of((BAND, None), LAYOUT, "tanks"))
    thinner = Thinner(directory)
    for origin, n in (("tanks", 0), ("import", 0), ("import", 0), ("tanks", 1)):
        assert thinner.thin(frame(0, 1, [0, 0]).with_(origin=origin))[1] == n


@pytest.mark.parametrize("has_times", [False, True])
def test_sparse_frames_lose_values(has_times):
    thinner = Thinner(directory_of(BAND, None))
    start, column = np.array([0, 2, 3, 3]), np.array([0, 1, 0], np.uint16)
    slots = np.array([0, 1, 0], np.uint32)

    def batch(second, values):
        ts_ns = T0 + np.full(3, second * NS)
        rest = {"value_ts_ns": np.full(3, ts_ns[0]), "quality": np.zeros(3, np.uint8)} if has_times else {}
        return FrameBatch.sparse(slots, ts_ns, np.array(values, np.int16), start, column, **rest)

    assert thinner.thin(batch(0, [1, 2, 3]))[1] == 0
    kept, n = thinner.thin(batch(1, [1, 2, 3]))
    kept.check_columns()
    assert n == 2
    assert (kept.slot.tolist(), kept.values.tolist(), kept.column.tolist()) == ([0, 0], [2], [1])
    assert kept.start.tolist() == [0, 1, 1], "a frame that was empty stays"


def test_waves_have_no_bands():
    thinner = Thinner(directory_of(BAND, None))
    rate = np.array([1]), np.array([1])
    wave = FrameBatch.wave(
        np.array([0], np.uint32), np.array([T0]), np.zeros(3, np.int16), np.array([0, 3]), rate
    )
    assert thinner.thin(wave) == (wave, 0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.integers(0, 90), st.integers(-20, 20), st.sampled_from([0, 0x82, 0xC0])
        ),
        max_size=40,
    ),
    st.integers(1, 7),
)
def test_all_is_kept_or_counted_however_it_is_cut(rows, size):
    """Against a plain loop: the same values are left out, in batches of any size."""
    rows = sorted(rows, key=lambda row: row[1])
    expected, last = [], {}
    for slot, second, value, mark in rows:
        before = last.get(slot)
        grade = mark & CLASS_MASK
        moved = before is None or abs(value - before[0]) > 5 or second - before[1] >= 60 or grade != before[2]
        if grade == 0xC0:
            continue
        if moved:
            last[slot] = value, second, grade
            expected.append((slot, second, value))
    thinner, found, n_thinned = (
        Thinner(directory_of(BAND, layout=Layout("i16", (Column("t", scale=0.1),)))),
        [],
        0,
    )
    for at in range(0, len(rows), size):
        some = rows[at : at + size]
        batch = FrameBatch.dense(
            np.array([r[0] for r in some], np.uint32), np.array([T0 + r[1] * NS for r in some]),
            np.array([[r[2]] for r in some], np.int16), np.array([[r[3]] for r in some], np.uint8),
        )  # fmt: skip
        kept, n = thinner.thin(batch)
        assert kept.n_samples + n == batch.n_samples
        n_thinned += n
        good = kept.quality[:, 0] != 0xC0
        seconds = ((kept.ts_ns - T0) // NS)[good].tolist()
        found += zip(kept.slot[good].tolist(), seconds, kept.values[good, 0].tolist(), strict=True)
    assert found == expected
