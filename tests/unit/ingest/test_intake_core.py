"""The intake's state machine: order, coalescing, definitions, credits, acks, a journal that refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core.clock import NO_TIME, NS, VirtualClock
from headrace.core.dead_bands import DeadBands, SignalBand
from headrace.core.errors import Fenced, PluginError, StorageError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.ingest.intake_core import IntakeCore, IntakeSettings, credit_of
from headrace.ingest.journal import Journal, JournalSettings
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.journal_reader import read_records
from headrace.ingest.normalize import BadTime, TimePolicy
from headrace.ingest.rejects import decode_rejects
from headrace.sim.disk import SimulatedDisk

NOW = 1_700_000_000 * NS
PAIR = Layout("u16", (Column("a", high=1_000), Column("b")))


class Bench:
    """A core on a simulated disk; `delivered` is what the engine saw, `acked` the names acknowledged."""

    def __init__(
        self, n_saved_slots: int = 0, limit_bytes: int = 1 << 30, reserve_bytes: int = 0, **settings: Any
    ) -> None:
        self.disk = SimulatedDisk()
        self.clock = VirtualClock(NOW)
        self.directory = SensorDirectory()
        self.slots = self.directory.define_many([f"plant/d{i}" for i in range(100)], PAIR)
        self.lone = self.directory.define_many(
            [f"plant/l{i}" for i in range(10)], Layout("u16", (Column(""),))
        )
        self.journal = Journal.open(
            self.disk,
            self.clock,
            nonce=1,
            settings=JournalSettings(
                limit_bytes=limit_bytes, object_bytes=4_000, reserve_bytes=reserve_bytes
            ),
        )
        self.delivered: list[tuple[int, RecordKind, FrameBatch | int]] = []
        self.acked: list[str] = []
        self.core = IntakeCore(
            self.directory,
            self.clock,
            self.journal,
            lambda *what: self.delivered.append(what),
            settings=IntakeSettings(**settings),
            n_saved_slots=n_saved_slots,
        )

    def ack(self, name: str) -> Any:
        return lambda: self.acked.append(name)

    def run(self, acks: list[Any]) -> None:
        for ack in acks:
            ack()

    def kinds(self) -> list[RecordKind]:
        return [r.kind for r in read_records(self.disk)]

    def frames(self) -> list[FrameBatch]:
        return [b for _, _, b in self.delivered if isinstance(b, FrameBatch)]


def dense(slots: Any, value: int = 5, width: int = 2, ts_ns: int = NOW, **rest: Any) -> FrameBatch:
    slot = np.atleast_1d(np.asarray(slots, np.uint32))
    values = np.full((len(slot), width), value, np.uint16)
    return FrameBatch.dense(
        slot, np.full(len(slot), ts_ns), values, origin=rest.pop("origin", "ovens"), **rest
    )


def sparse(slot: int, value: int, ts_ns: int = NOW) -> FrameBatch:
    return FrameBatch.sparse(
        np.array([slot], np.uint32),
        np.array([ts_ns]),
        np.array([value], np.uint16),
        np.array([0, 1]),
        np.array([1], np.uint16),
        origin="ovens",
    )


def reject(raw: bytes = b"", adapter: str = "broker") -> Reject:
    return Reject(RejectCode.MALFORMED, adapter, "topic", "not JSON", raw, NOW, 3)


def test_small_batches_of_a_kind_become_one_record_in_shard_order() -> None:
    bench = Bench()
    for i in (7, 3, 99, 12):
        bench.core.offer(dense(i), bench.ack(f"{i}"))
    bench.core.offer(dense(bench.lone[0], width=1), bench.ack("lone"))
    assert bench.delivered == []
    assert bench.core.flush()
    assert bench.core.flush()
    shards = bench.directory.shard
    assert [(seq, kind) for seq, kind, _ in bench.delivered] == [
        (2, RecordKind.FRAMES),
        (3, RecordKind.FRAMES),
    ]
    first = bench.frames()[0]
    assert sorted(first.slot.tolist()) == [3, 7, 12, 99]
    assert (np.diff(shards[first.slot].astype(int)) >= 0).all()
    assert bench.core.settle() == []
    bench.run(bench.core.commit())
    assert bench.acked == ["7", "3", "99", "12", "lone"]
    records = list(read_records(bench.disk))
    assert [r.kind for r in records] == [RecordKind.DEFINE, RecordKind.FRAMES, RecordKind.FRAMES]
    assert records[1].batch().to_bytes() == first.to_bytes()
    assert records[1].batch(int(shards[7])).slot.tolist() == [7]
    assert bench.core.counters.n_acked == 5
    assert bench.core.counters.received == {"ovens": 9}


def test_new_slots_are_defined_before_their_first_use_and_saved_ones_are_not() -> None:
    bench = Bench(n_saved_slots=100)
    bench.core.offer(dense(0))
    bench.core.flush()
    late = bench.directory.define("plant/late", PAIR)
    bench.core.offer(dense(late))
    bench.core.flush()
    bench.core.offer(dense(late))
    bench.core.commit()
    assert bench.kinds() == [
        RecordKind.DEFINE, RecordKind.FRAMES, RecordKind.DEFINE, RecordKind.FRAMES, RecordKind.FRAMES,
    ]  # fmt: skip
    read = SensorDirectory()
    read.define_many([f"plant/d{i}" for i in range(100)], PAIR)
    for record in read_records(bench.disk):
        if record.kind is RecordKind.DEFINE:
            record.define(read)
    assert read.paths == bench.directory.paths


def test_frames_of_a_group_keep_their_order_when_shapes_change() -> None:
    bench = Bench()
    bench.core.offer(dense(1, 10))
    bench.core.offer(sparse(2, 20))  # another group: may wait beside
    bench.core.offer(sparse(1, 30))  # the same group: goes behind
    bench.core.offer(dense(1, 40))
    bench.core.flush()
    of_group = [
        int(b.values.reshape(-1)[i if b.width == 0 else 2 * i])
        for b in bench.frames()
        for i in range(b.n_frames)
        if b.slot[i] == 1
    ]
    assert of_group == [10, 30, 40]


def test_kinds_that_cannot_share_a_group_wait_side_by_side() -> None:
    bench = Bench()
    for _ in range(5):
        bench.core.offer(dense(1))
        bench.core.offer(dense(bench.lone[1], width=1))
    bench.core.flush()
    assert [b.n_frames for b in bench.frames()] == [5, 5]


def test_the_number_of_kinds_that_wait_is_bounded() -> None:
    bench = Bench()
    for i in range(100):
        bench.core.offer(dense(bench.lone[0], width=1, dictionary=(f"word{i}",)))
    assert len(bench.frames()) > 0 or bench.core.has_waiting
    for i in range(100):
        batch = dense(i, dictionary=(f"word{i}",))
        bench.core.offer(batch)
    assert len(bench.core._open) <= 64
    bench.core.flush()
    assert sum(b.n_frames for b in bench.frames()) == 200


def test_large_batches_are_cut_and_acknowledged_once_whole() -> None:
    bench = Bench(record_values_max=50)
    bench.core.offer(dense(np.arange(100)), bench.ack("large"))
    assert [b.n_values for b in bench.frames()] == [50] * 4
    bench.core.processed(4)
    bench.run(bench.core.commit())
    assert bench.acked == ["large"]
    big = FrameBatch.sparse(
        np.array([1, 2, 3], np.uint32),
        np.full(3, NOW),
        np.zeros(190, np.uint16),
        np.array([0, 120, 160, 190]),
        np.zeros(190, np.uint16),
    )
    bench.core.offer(big)
    bench.core.flush()
    assert [b.n_values for b in bench.frames()[4:]] == [120, 40, 30]
    for _ in range(3):
        bench.core.offer(dense(np.arange(12)))
    bench.core.flush()
    assert [b.n_values for b in bench.frames()[7:]] == [48, 24]


def test_credit_comes_back_when_durable_and_processed() -> None:
    bench = Bench(limit_samples=10)
    bench.core.offer(dense([1, 2]), bench.ack("a"))
    bench.core.offer_reject(reject(b"x" * 16))
    assert bench.core.n_in_flight == 4 + 3
    bench.run(bench.core.commit())
    assert bench.acked == ["a"]
    assert bench.core.n_in_flight == 4  # the engine is not done
    bench.core.processed(2)
    bench.core.processed(1)
    assert bench.core.settle() == []
    assert bench.core.n_in_flight == 0


def test_rejects_are_journalled_counted_and_acknowledged() -> None:
    bench = Bench()
    for i in range(3):
        bench.core.offer_reject(reject(bytes([i])), bench.ack(f"r{i}"))
    bench.core.offer_reject(reject(adapter="ovens"))
    bench.run(bench.core.commit())
    assert bench.acked == ["r0", "r1", "r2"]
    (record,) = read_records(bench.disk)
    assert record.kind is RecordKind.REJECT
    assert [r.raw for r in decode_rejects(record.payload)] == [b"\0", b"\1", b"\2", b""]
    assert bench.core.counters.rejected == {
        ("broker", RejectCode.MALFORMED): 9,
        ("ovens", RejectCode.MALFORMED): 3,
    }
    assert bench.core.counters.received == {"broker": 9, "ovens": 3}
    for _ in range(256):
        bench.core.offer_reject(reject())
    assert not bench.core.has_waiting  # flushed at its bound
    for n_bytes, waits in ((700_000, True), (700_000, False), (400_000, True)):
        bench.core.offer_reject(reject(bytes(n_bytes)))
        assert bench.core.has_waiting is waits, "so many bytes are one record"


def test_frames_with_wrong_times_are_rejected_and_acknowledged_with_the_rest() -> None:
    policy = TimePolicy(bad_time=BadTime.REJECT)
    bench = Bench(policies={"ovens": policy})
    mixed = dense([1, 2]).with_(ts_ns=np.array([NOW, 5]))
    bench.core.offer(mixed, bench.ack("mixed"))
    bench.core.offer(dense([3], ts_ns=5), bench.ack("none left"))
    bench.core.flush()
    assert bench.frames()[0].slot.tolist() == [1]
    assert bench.acked == []
    bench.run(bench.core.commit())
    assert bench.acked == ["mixed", "none left"]
    assert bench.kinds() == [RecordKind.DEFINE, RecordKind.FRAMES, RecordKind.REJECT]
    assert bench.core.counters.received == {"ovens": 6}
    assert bench.core.counters.rejected == {("ovens", RejectCode.BAD_TIME): 4}
    bench.core.processed(2)
    bench.core.settle()
    assert bench.core.n_in_flight == 0


def test_an_empty_batch_is_acknowledged_without_a_record() -> None:
    bench = Bench()
    bench.core.offer(dense([]), bench.ack("empty"))
    bench.core.offer(dense([]))
    bench.run(bench.core.commit())
    assert bench.acked == ["empty"]
    assert bench.kinds() == []
    assert bench.core.n_in_flight == 0


def test_what_a_dead_band_leaves_out_is_counted_and_acknowledged() -> None:
    bench = Bench()
    layout = bench.directory.layout(7)
    bench.directory.set_dead_bands(
        [7], DeadBands.of([SignalBand(3.0, 60 * NS), SignalBand(3.0, 60 * NS)], layout)
    )
    for i, value in enumerate((5, 6, 9)):
        bench.core.offer(dense(7, value, ts_ns=NOW + i), bench.ack(str(value)))
    bench.run(bench.core.commit())
    bench.core.processed(bench.journal.last_seq)
    bench.run(bench.core.settle())
    assert sorted(bench.acked) == ["5", "6", "9"]
    assert bench.core.counters.received == {"ovens": 6}
    assert bench.core.counters.thinned == {"ovens": 2}
    assert sum(batch.n_samples for batch in bench.frames()) == 4
    assert bench.core.n_in_flight == 0


def test_a_batch_that_does_not_fit_gives_its_credit_back() -> None:
    bench = Bench()
    with pytest.raises(PluginError):
        bench.core.offer(dense([5_000]))
    assert bench.core.n_in_flight == 0
    assert not bench.core.has_waiting


def test_arrival_is_the_adapters_or_else_now() -> None:
    bench = Bench()
    bench.core.offer(dense(1, ts_ns=NO_TIME))
    bench.core.offer(dense(2, ts_ns=NO_TIME, arrival_ns=NOW - 77))
    bench.core.flush()
    (batch,) = bench.frames()
    assert dict(zip(batch.slot.tolist(), batch.ts_ns.tolist(), strict=True)) == {1: NOW, 2: NOW - 77}


def test_credit_is_about_one_for_eight_bytes() -> None:
    assert credit_of(dense([1, 2, 3])) == 6
    assert credit_of(dense([])) == 1
    assert credit_of(reject(b"x" * 800)) == 101


# --- ticks and other records ---------------------------------------------------------------------------------


def test_ticks_are_whole_seconds_behind_what_came_before_and_never_made_up_for() -> None:
    bench = Bench()
    bench.core.offer(dense(1))
    assert bench.core.tick()
    assert not bench.core.tick()
    bench.clock.advance(0.9)
    assert not bench.core.tick()
    bench.clock.advance(0.3)
    assert bench.core.tick()
    bench.clock.advance(10)
    assert bench.core.tick()
    bench.clock.set_ns(NOW)  # a clock set back
    assert not bench.core.tick()
    bench.core.commit()
    ticks = [r.tick_ns() for r in read_records(bench.disk) if r.kind is RecordKind.TICK]
    assert ticks == [NOW, NOW + NS, NOW + 11 * NS]
    assert [(k, w) for _, k, w in bench.delivered if k is RecordKind.TICK] == [
        (RecordKind.TICK, t) for t in ticks
    ]
    assert [k for _, k, _ in bench.delivered][:2] == [RecordKind.FRAMES, RecordKind.TICK]


def test_other_records_go_behind_what_waits() -> None:
    bench = Bench()
    bench.core.offer(dense(1))
    assert bench.core.record(RecordKind.CONFIG, [b"{}"]) == 3
    bench.core.commit()
    assert bench.kinds() == [RecordKind.DEFINE, RecordKind.FRAMES, RecordKind.CONFIG]


# --- a journal that refuses ----------------------------------------------------------------------------------


def test_while_the_disk_refuses_everything_waits_and_then_goes_on_in_order() -> None:
    bench = Bench()
    bench.core.offer(dense(1, 1), bench.ack("before"))
    bench.run(bench.core.commit())
    bench.disk.is_read_only = True
    bench.core.offer(dense(1, 2), bench.ack("during"))
    with pytest.raises(StorageError, match="read-only"):
        bench.core.commit()
    assert "read-only" in bench.core.refusal
    bench.core.offer(dense(1, 3), bench.ack("during too"))
    bench.core.offer_reject(reject(), bench.ack("reject"))
    assert not bench.core.flush()
    bench.clock.advance(5)
    assert not bench.core.tick()
    with pytest.raises(StorageError, match="read-only"):
        bench.core.record(RecordKind.CONFIG, [b"{}"])
    assert bench.core.settle() == []
    assert bench.acked == ["before"]
    bench.disk.is_read_only = False
    bench.run(bench.core.commit())
    bench.run(bench.core.commit())
    assert bench.acked == ["before", "during", "during too", "reject"]
    assert bench.core.refusal == ""
    assert [b.values[0, 0] for b in bench.frames()] == [1, 2, 3]
    assert [r.batch().values[0, 0] for r in read_records(bench.disk) if r.kind is RecordKind.FRAMES] == [
        1,
        2,
        3,
    ]


def test_a_disk_that_begins_to_refuse_between_two_records_loses_none() -> None:
    bench = Bench()
    bench.core.offer(dense(1, 1), bench.ack("a"))
    bench.core.offer(sparse(2, 2), bench.ack("b"))

    taken = bench.journal.append

    def refuse_second(kind: RecordKind, payload: Any, index: Any = None) -> int:
        if len(bench.frames()) == 1:
            raise StorageError("no more")
        return taken(kind, payload, index)

    bench.journal.append = refuse_second  # type: ignore[method-assign]
    assert not bench.core.flush()
    assert bench.core.has_waiting
    bench.journal.append = taken  # type: ignore[method-assign]
    bench.run(bench.core.commit())
    assert bench.acked == ["a", "b"]
    assert bench.kinds() == [RecordKind.DEFINE, RecordKind.FRAMES, RecordKind.FRAMES]


def test_a_full_journal_takes_ticks_but_no_data_until_it_was_trimmed() -> None:
    bench = Bench(n_saved_slots=110, limit_bytes=6_000)
    noise = np.random.default_rng(1)
    n = 0
    while not bench.journal.is_full:
        values = noise.integers(0, 1_000, (50, 2)).astype(np.uint16)
        bench.core.offer(dense(np.arange(50)).with_(values=values))
        bench.core.commit()
        n += 1
    bench.core.offer(dense(1), bench.ack("waits"))
    assert not bench.core.flush()
    assert "the journal has reached its bound" in bench.core.refusal
    with pytest.raises(StorageError, match="reached its bound"):
        bench.core.record(RecordKind.CONFIG, [b"{}"])
    assert bench.core.tick()
    bench.core.commit()
    assert bench.acked == []
    bench.journal.trim(bench.journal.durable_seq)
    bench.run(bench.core.commit())
    assert bench.acked == ["waits"]
    assert len(bench.frames()) == n + 1


def test_a_short_disk_takes_ticks_but_no_data_until_there_is_space() -> None:
    bench = Bench(reserve_bytes=50_000)
    bench.disk.capacity_bytes = 40_000
    bench.core.offer(dense(1), bench.ack("a"))
    bench.run(bench.core.commit())
    assert bench.acked == ["a"]
    bench.core.offer(dense(2), bench.ack("b"))
    assert not bench.core.flush()
    assert bench.core.refusal == (
        "less than 50,000 bytes are free on the disk, which the store needs; free some space"
    )
    assert bench.core.tick()
    bench.disk.capacity_bytes = 80_000
    bench.core.commit()
    bench.run(bench.core.commit())
    assert bench.acked == ["a", "b"]


def test_a_new_owner_ends_it() -> None:
    bench = Bench()
    Journal.open(bench.disk, bench.clock, nonce=2)
    bench.core.offer(dense(1), bench.ack("never"))
    with pytest.raises(Fenced):
        bench.core.commit()
    bench.core.offer(dense(1))
    with pytest.raises(Fenced):
        bench.core.flush()
    assert bench.core.settle() == []
