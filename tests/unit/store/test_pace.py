"""How work in the background rests in proportion to what it did."""

from dataclasses import replace

import pytest
from tests.unit.store.test_ageing import DAY, DEFAULT, FIRST, Line, start, work

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


def test_what_compacting_and_ageing_read_counts_as_what_they_write():
    """As much as the files hold, each time that they are read."""
    line, told = Line(), []

    class Counted(Pace):
        def tick(self, n_bytes=0):
            told.append(n_bytes)

    rig = start(line)
    rig.compactor._policy = replace(rig.policy, pace=Counted())
    line.feed(rig, FIRST, 3)

    def files(*, with_rollups):
        view = rig.store.refresh()
        found = [*view.segments.values(), *(view.rolled.values() if with_rollups else ())]
        return {info.name: info.size_bytes for infos in found for info in infos}

    def step(to_day):
        rig.clock.set_ns((FIRST + to_day) * DAY)
        read, before = files(with_rollups=False), files(with_rollups=True)
        told.clear()
        assert work(rig) == []
        written = [size for name, size in files(with_rollups=True).items() if name not in before]
        return sum(read.values()), sum(written)

    read, written = step(4)
    # A day at a time: the one hot file's headers are looked at for each.
    assert read + written <= sum(told) <= 3 * read + written
    assert sum(told) > 1.2 * written
    for day in (61, 62):
        if day == 62:  # lossy rows once more
            rig.compactor.rules = line.rules(default=DEFAULT | {"bound": {"range": 0.05}})
        read, written = step(day)
        assert 0.5 * read + written <= sum(told) <= 1.5 * read + written


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
