"""The engine without threads: when shards are due, what a part holds, what a replay gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core.clock import NS
from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import Tick
from headrace.pipeline.flows import Flow, FlowSpec
from headrace.runtime.engine_core import EngineCore, EngineSettings

T0 = 1_767_225_600 * NS
PAIR = Layout("f64", (Column("a"), Column("b")))
SECONDS = FlowSpec(
    "seconds", "**", ({"op": "window", "every": "1s", "agg": ["count"]},), "{parent}/{signal}_{agg}_1s"
)


class Bench:
    """A core over all shards, fed by hand."""

    def __init__(self, n_groups: int = 64, flows: bool = False, **settings: Any) -> None:
        self.directory = SensorDirectory()
        self.flows = [Flow(SECONDS, self.directory)] if flows else []
        self.slots = self.directory.define_many([f"plant/d{i}" for i in range(n_groups)], PAIR)
        for flow in self.flows:
            flow.extend()
        self.settings = EngineSettings(**{"flush_ns": 16 * NS, "turns": 4, "together_bytes": 0} | settings)
        self.core = self.new_core()
        self.seq = 0

    def new_core(self) -> EngineCore:
        return EngineCore(self.directory, self.flows, range(64), lambda *_: None, self.settings)

    def feed(self, ts_ns: int, core: EngineCore | None = None) -> None:
        self.seq += 1
        batch = FrameBatch.dense(
            self.slots, np.full(len(self.slots), ts_ns), np.full((len(self.slots), 2), 1.0), arrival_ns=ts_ns
        )
        (core or self.core).process(self.seq, batch.split(self.directory.shard[self.slots], 64)[0])

    def tick(self, second: int) -> None:
        self.seq += 1
        self.core.process(self.seq, Tick(T0 + second * NS))

    def commit(self, shards: list[int], snapshot: bool = False) -> list[Any]:
        parts = [self.core.part(n, snapshot) for n in shards]
        for part in parts:
            self.core.committed(part)
        return parts


def test_every_shard_has_its_turn_once_in_an_interval() -> None:
    bench = Bench()
    assert bench.core.due() == []  # nobody knows what time it is
    seen: list[int] = []
    sizes = []
    for second in range(1, 18):
        bench.tick(second)
        due = bench.core.due()
        bench.commit(due)
        seen += due
        sizes.append(len(due))
    assert sorted(seen) == list(range(64))
    assert max(sizes) == 16
    assert bench.commit([0], snapshot=True)[0].state_seq == bench.seq


def test_shards_that_hold_little_go_together_and_take_turns_once_they_hold_more() -> None:
    bench = Bench(together_bytes=5_000)
    flushed: dict[int, int] = {}
    for second in range(1, 41):
        bench.tick(second)
        if second > 20:
            bench.feed(T0 + second * NS)
        due = bench.core.due()
        bench.commit(due)
        flushed |= {second: len(due)} if due else {}
    assert list(flushed.items())[:2] == [(5, 64), (21, 64)]
    later = {second: n for second, n in flushed.items() if second > 21}
    assert max(later.values()) == 16
    assert sum(n for second, n in later.items() if second <= 37) == 64


@pytest.mark.parametrize("shards", [range(0, 64, 8), [5]])
def test_turns_do_not_put_off_what_is_due(shards) -> None:
    bench = Bench(together_bytes=1)
    bench.core = EngineCore(bench.directory, bench.flows, shards, lambda *_: None, bench.settings)
    last = dict.fromkeys(shards, 0)
    for second in range(1, 100):
        bench.tick(second)
        bench.feed(T0 + second * NS)
        due = bench.core.due()
        bench.commit(due)
        last |= dict.fromkeys(due, second)
        assert second - min(last.values()) <= 17
        assert second == 1 or len(shards) == 1 or len(due) <= 2


def test_a_shard_that_is_being_written_is_not_due_nor_one_that_has_just_failed() -> None:
    bench = Bench(buffer_bytes_max=1)
    bench.tick(1)
    bench.feed(T0)
    holding = [n for n, buffer in bench.core.buffers().items() if buffer.size_bytes]
    assert sorted(bench.core.due()) == holding
    parts = [bench.core.part(n) for n in range(64)]
    assert bench.core.due() == []
    assert bench.core.due(everything=True) == []
    assert bench.core.behind(bench.seq) == []
    one, two = holding[:2]
    bench.core.failed(parts[one])
    bench.core.committed(parts[two])
    assert bench.core.due(everything=True) == [one, two]
    assert bench.core.due() == [two]
    bench.tick(5)
    assert bench.core.due() == [two]
    bench.tick(7)
    assert sorted(bench.core.due()) == [one, two]


def test_the_fullest_shards_are_flushed_until_the_others_hold_half_of_what_they_may() -> None:
    bench = Bench()
    bench.feed(T0)
    sizes = {n: buffer.size_bytes for n, buffer in bench.core.buffers().items()}
    total = sum(sizes.values())
    tight = Bench(buffer_bytes_max=total - 1)
    tight.feed(T0)
    due = tight.core.due()
    left = {n: size for n, size in sizes.items() if n not in due}
    assert sum(left.values()) <= (total - 1) // 2 < sum(left.values()) + min(sizes[n] for n in due)
    assert min(sizes[n] for n in due) >= max(left.values())


def test_a_part_that_fails_before_any_tick_may_be_tried_at_once() -> None:
    bench = Bench()
    bench.feed(T0)
    bench.core.failed(bench.core.part(0))
    assert 0 in bench.core.due(everything=True)
    bench.tick(1)
    assert bench.core.behind(bench.seq) == list(range(64))


def test_state_is_in_the_first_part_in_every_nth_and_in_those_after_one_that_failed() -> None:
    bench = Bench(snapshot_every=4)
    bench.tick(1)
    assert bench.core.saved_seq == -1
    with_state = [bench.commit([0])[0].state is not None for _ in range(8)]
    assert with_state == [True, False, False, True, False, False, False, True]
    part = bench.core.part(0, snapshot=True)
    bench.core.failed(part)
    assert bench.commit([0])[0].state is not None
    assert bench.commit([0])[0].state is None


def test_shards_are_behind_until_they_are_saved_with_their_state() -> None:
    bench = Bench()
    bench.tick(1)
    bench.feed(T0)
    assert bench.core.behind(-1) == []
    assert bench.core.behind(1) == list(range(64))
    bench.commit(list(range(64)), snapshot=True)
    assert bench.core.saved_seq == bench.seq
    assert bench.core.behind(bench.seq) == []
    assert bench.core.behind(10**6) == []
    bench.feed(T0 + NS)
    bench.commit([3])
    assert bench.core.behind(bench.seq) == list(range(64))


def test_a_restored_shard_goes_on_as_if_it_had_never_stopped() -> None:
    bench = Bench(flows=True)
    for second in range(1, 4):
        bench.feed(T0 + second * NS)
        bench.tick(second)
    states = {n: bench.core.part(n, snapshot=True) for n in range(64)}
    again = bench.new_core()
    for n, part in states.items():
        again.restore(n, part.state or b"", bench.seq, bench.seq)
    again.begin(bench.seq)
    assert again.saved_seq == bench.seq
    before = bench.core.n_buffered
    bench.feed(T0 + 10 * NS)
    bench.seq -= 1
    bench.feed(T0 + 10 * NS, again)
    assert again.counters.accepted == len(bench.slots) * 2
    assert again.n_buffered == bench.core.n_buffered - before
    assert again.counters.derived == 2 * len(bench.slots)


def test_a_replay_gives_state_to_what_is_flushed_and_frames_only_beyond() -> None:
    bench = Bench()
    other = bench.new_core()
    for n in range(64):
        other.restore(n, b"", 2, -1)
    for i in range(1, 5):
        bench.feed(T0 + i * NS, other)
    assert other.n_buffered == 2 * len(bench.slots) * 2
    assert other.counters.accepted == 0  # the process that took it in has counted it
    other.begin(9)
    # What was taken in before is not counted again.
    assert other.seq == 9
    assert other.counters.accepted == 0
    assert other.part(0).counted_from == 10
    assert other.positions()[0] == (2, -1)


def test_damaged_state_is_refused_and_the_shard_may_begin_anew() -> None:
    bench = Bench(flows=True)
    bench.feed(T0)
    state = bench.core.part(0, snapshot=True).state or b""
    again = bench.new_core()
    with pytest.raises(CorruptionError):
        again.restore(0, state[: len(state) // 2], 1, 1)
    again.restore(0, b"", 1, 1)
    for n in range(1, 64):
        again.restore(n, b"", 1, 1)
    again.begin(1)
    bench.feed(T0 + NS, again)
    assert again.counters.accepted == len(bench.slots) * 2
    # Its state is saved with the next flush.
    assert again.part(0).state is not None
