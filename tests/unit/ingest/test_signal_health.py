"""When signals were last good: noted by the batch, told by the signal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.clock import NO_TIME, NS
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.ingest.signal_health import HealthSummary, SignalHealth

T0 = 1_700_000_000 * NS
LAYOUT = Layout("i16", (Column("a"), Column("b"), Column("c")))
LONE = Layout("i16", (Column(""),))
GOOD, BAD, ABSENT, DOUBTFUL = Quality.GOOD, Quality.BAD_DEVICE, Quality.ABSENT, Quality.UNCERTAIN


@pytest.fixture
def directory():
    return SensorDirectory()


def dense(slots, second, quality=None, origin="x", width=3):
    n = len(slots)
    quality = None if quality is None else np.array(quality, np.uint8)
    return FrameBatch.dense(
        np.array(slots, np.uint32), np.full(n, 1), np.zeros((n, width), np.int16), quality,
        arrival_ns=T0 + second * NS, origin=origin,
    )  # fmt: skip


def sparse(slot, second, columns, quality=None):
    quality = None if quality is None else np.array(quality, np.uint8)
    return FrameBatch.sparse(
        np.array([slot], np.uint32), np.array([1]), np.zeros(len(columns), np.int16), np.array([0, len(columns)]),
        np.array(columns, np.uint16), quality=quality, arrival_ns=T0 + second * NS, origin="x",
    )  # fmt: skip


def wave(slot, second, quality):
    return FrameBatch.wave(
        np.array([slot], np.uint32), np.array([1]), np.zeros(len(quality), np.int16), np.array([0, len(quality)]),
        (np.array([10]), np.array([1])), quality=np.array(quality, np.uint8), arrival_ns=T0 + second * NS, origin="x",
    )  # fmt: skip


def told(ages):
    """Seconds after T0 by (slot, column)."""
    seconds = [None if ns == NO_TIME else (ns - T0) // NS for ns in ages.last_good_ns.tolist()]
    return dict(zip(zip(ages.slot.tolist(), ages.column.tolist(), strict=True), seconds, strict=True))


def test_a_signal_is_as_old_as_its_last_usable_value(directory):
    one, two = directory.define_many(["p/one", "p/two"], LAYOUT).tolist()
    lone = directory.define("p/lone", LONE)
    health = SignalHealth(directory, T0)
    health.note(dense([one, two], 1))
    health.note(dense([one, two], 2, [[GOOD, BAD, DOUBTFUL], [GOOD, GOOD, GOOD]]))
    health.note(wave(lone, 3, [BAD, BAD]))
    assert told(health.of_adapter("x")) == {
        (one, 0): 2, (one, 1): 1, (one, 2): 2, (two, 0): 2, (two, 1): 2, (two, 2): 2, (lone, 0): None,
    }  # fmt: skip
    health.note(sparse(two, 5, [0, 2], [GOOD, ABSENT]))
    health.note(sparse(two, 6, [1]))
    health.note(wave(lone, 7, [BAD, GOOD]))
    health.note(dense([one], 4))
    found = health.of_adapter("x")
    assert told(found) == {
        (one, 0): 4, (one, 1): 4, (one, 2): 4, (two, 0): 5, (two, 1): 6, (two, 2): 2, (lone, 0): 7,
    }  # fmt: skip
    assert found.is_stale(T0 + 8 * NS, 3 * NS).tolist() == [True, True, True, False, False, True, False]
    assert health.summary("x", (), T0 + 8 * NS, 3 * NS) == HealthSummary(7, 4, T0 + 2 * NS)


def test_what_came_long_ago_makes_nothing_older(directory):
    slot = directory.define("p/one", LAYOUT)
    health = SignalHealth(directory, T0)
    health.note(dense([slot], 9))
    health.note(dense([slot], -900))
    health.note(sparse(slot, -900, [1]))
    health.note(dense([], 20))
    assert set(told(health.of_adapter("x")).values()) == {9}


def test_a_signal_is_silent_no_longer_than_it_is_watched(directory):
    directory.define("p/one", LAYOUT)
    health = SignalHealth(directory, T0)
    assert health.summary("x", ["p/one"], T0 + 2 * NS, 2 * NS) == HealthSummary(3, 0, NO_TIME)
    assert health.summary("x", ["p/one"], T0 + 3 * NS, 2 * NS) == HealthSummary(3, 3, NO_TIME)
    assert health.summary("x", ["p/none"], T0 + 3 * NS, 2 * NS) == HealthSummary(0, 0, NO_TIME)


def test_devices_that_are_groups_say_which_signals_there_are(directory):
    one, gone = directory.define_many(["p/one", "p/gone"], LAYOUT).tolist()
    flags = directory.define("p/one", Layout("u8", (Column("f"),)), "u8")
    directory.define("p/one", Layout("f64", (Column("f_mean"),)), "~mean")
    other = directory.define("p/other", LAYOUT)
    health = SignalHealth(directory, T0)
    health.note(dense([one, gone], 1))
    health.note(dense([other], 2, origin="y"))
    assert told(health.of_adapter("x", ["p/one", "broker"])) == {
        (one, 0): 1, (one, 1): 1, (one, 2): 1, (flags, 0): None,
    }  # fmt: skip
    assert set(told(health.of_adapter("x", ["broker"]))) == {(s, c) for s in (one, gone) for c in range(3)}
    assert set(told(health.of_adapter("y"))) == {(other, c) for c in range(3)}
    assert len(health.of_adapter("z")) == 0


def test_another_layout_keeps_what_its_signals_had(directory):
    first = directory.define("p/one", LAYOUT)
    health = SignalHealth(directory, T0)
    health.note(dense([first], 1))
    health.note(dense([first], 2, [[BAD, GOOD, BAD]]))
    second = directory.define("p/one", Layout("i16", (Column("b"), Column("n"))))
    third = directory.define("p/one", Layout("i16", (Column("b"), Column("c"), Column("n"))))
    health.note(dense([third], 5, [[BAD, BAD, GOOD]]))
    found = told(health.of_adapter("x"))
    assert found == {(third, 0): 2, (third, 1): 1, (third, 2): 5}
    assert second not in {slot for slot, _ in found}


@given(st.data())
def test_it_tells_what_a_dictionary_would(data):
    directory = SensorDirectory()
    slots = directory.define_many([f"p/d{i}" for i in range(4)], LAYOUT).tolist()
    health, known = SignalHealth(directory, T0), {}
    codes = st.sampled_from([GOOD, BAD, ABSENT, DOUBTFUL])
    for second in range(data.draw(st.integers(1, 8))):
        if data.draw(st.booleans()):
            some = data.draw(st.lists(st.sampled_from(slots), min_size=1, max_size=5))
            quality = data.draw(
                st.none()
                | st.lists(st.lists(codes, min_size=3, max_size=3), min_size=len(some), max_size=len(some))
            )
            health.note(dense(some, second, quality))
            rows = quality or [[GOOD] * 3] * len(some)
            good = [(s, c) for s, row in zip(some, rows, strict=True) for c in range(3) if row[c] < 0x80]
        else:
            slot, columns = (
                data.draw(st.sampled_from(slots)),
                data.draw(st.lists(st.integers(0, 2), max_size=3)),
            )
            quality = data.draw(st.none() | st.lists(codes, min_size=len(columns), max_size=len(columns)))
            health.note(sparse(slot, second, columns, quality))
            pairs = zip(columns, quality or [GOOD] * len(columns), strict=True)
            good = [(slot, c) for c, q in pairs if q < 0x80]
        known.update(dict.fromkeys(good, second))
    ages = health.of_adapter("x", [f"p/d{i}" for i in range(4)])
    assert {key: value for key, value in told(ages).items() if value is not None} == known
    stale = health.summary("x", [f"p/d{i}" for i in range(4)], T0 + 10 * NS, 5 * NS)
    assert stale.n_stale == int(ages.is_stale(T0 + 10 * NS, 5 * NS).sum())
