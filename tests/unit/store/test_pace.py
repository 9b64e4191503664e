"""How work in the background rests in proportion to what it did."""

import pytest

from headrace.core.clock import thread_cpu_ns
from headrace.core.errors import Closed
from headrace.store.pace import Pace

NS = 1_000_000_000


def burn(seconds):
    until = thread_cpu_ns() + int(seconds * NS)
    while thread_cpu_ns() < until:
        pass


def test_a_quarter_of_a_core_rests_three_times_as_long_as_it_works():
    rests = []
    pace = Pace(0.25, rest=rests.append)
    pace.begin()
    for _ in range(4):
        burn(0.02)
        pace.tick()
    assert len(rests) == 1  # not before it is worth it
    assert sum(rests) == pytest.approx(3 * 0.06, rel=0.3)
    assert pace.rested_s == sum(rests)


def test_what_is_written_takes_its_time_too():
    rests = []
    pace = Pace(1.0, 1_000_000.0, rests.append)
    pace.begin()
    pace.tick(500_000)
    assert rests == [0.5]


def test_a_whole_core_never_rests():
    rests = []
    pace = Pace(rest=rests.append)
    burn(0.06)
    pace.tick(10**9)
    assert rests == []


def test_what_has_fallen_behind_does_not_rest():
    rests = []
    pace = Pace(0.25, 1.0, rests.append)
    pace.is_behind = True
    burn(0.06)
    pace.tick(10)
    pace.is_behind = False
    pace.tick()
    assert rests == []


def test_a_rest_that_is_ended_ends_the_run():
    def rest(seconds):
        raise Closed("the engine stops")

    pace = Pace(1.0, 1.0, rest)
    with pytest.raises(Closed):
        pace.tick(1)
