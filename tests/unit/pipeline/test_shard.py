"""The shard: order, the parts it is made of, its snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xxhash

from headrace.core.clock import NO_TIME
from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import Revise, StepResult, Tick
from headrace.pipeline.flows import Flow, FlowShard, FlowSpec
from headrace.pipeline.operators.deduplicate import Deduplicate
from headrace.pipeline.packing import pack, pack_parts, unpack, unpack_parts
from headrace.pipeline.rows import UNKNOWN, RowMap
from headrace.pipeline.shard import Shard
from headrace.pipeline.succession import Succession

S = 1_000_000_000
LAYOUTS = [Layout("f64", tuple(Column(n) for n in names)) for names in ("x", "xy", "xyz")]


def frames(slots: list[int], times: list[int], width: int = 1) -> FrameBatch:
    return FrameBatch.dense(np.array(slots, np.uint32), np.array(times), np.zeros((len(slots), width)))


def spec(name: str = "w", every: str = "1m") -> FlowSpec:
    return FlowSpec(
        name, "**", ({"op": "window", "every": every, "agg": ["count"]},), "{parent}/{signal}_" + name
    )


def shard_of(directory: SensorDirectory, *specs: FlowSpec) -> Shard:
    flows = [Flow(one, directory) for one in specs]
    for flow in flows:
        flow.extend()
    return Shard(0, Deduplicate(directory, 0), {f.spec.name: FlowShard(f, 0) for f in flows})


# --- order -------------------------------------------------------------------------------------------------


def test_frames_above_their_groups_mark_are_accepted_others_are_late() -> None:
    directory = SensorDirectory(0)
    slots = directory.define_many(["a", "b"], LAYOUTS[0]).tolist()
    shard = shard_of(directory)
    result = shard.step([frames([0, 1, 0, 0, 1], [5, 9, 6, 6, 8]), frames([1, 0], [10, 7])])
    assert slots == [0, 1]
    assert [(b.slot.tolist(), b.ts_ns.tolist()) for b in result.accepted] == [
        ([0, 1, 0], [5, 9, 6]),
        ([1, 0], [10, 7]),
    ]
    assert [(b.slot.tolist(), b.ts_ns.tolist()) for b in result.late] == [([0, 1], [6, 8])]


def timed(
    slots: list[int], times: list[int], value_times: list[int], values: list[int] | None = None
) -> FrameBatch:
    """Frames of one value each, all different where none are given."""
    n = len(slots)
    return FrameBatch.sparse(
        np.array(slots, np.uint32), np.array(times), np.array(values or range(n), np.float64), np.arange(n + 1),
        np.zeros(n, np.uint16), value_ts_ns=np.array(value_times),
    )  # fmt: skip


def test_a_new_frame_with_a_time_that_a_late_one_before_it_has_is_for_the_next_turn() -> None:
    directory = SensorDirectory(0)
    directory.define_many(["a", "b"], LAYOUTS[0])
    old = directory.define("c", LAYOUTS[0])
    directory.define("c", LAYOUTS[1])
    shard = shard_of(directory)
    shard.step([frames([0, 1, old], [9, 9, 9])])
    batch = timed(
        [0, 1, 0, 1, 0, 0, 0, 3, 3], [8, 10, 10, 11, 7, 10, 12, 9, 10], [8, 9, 8, 9, 7, 10, 10, 9, 9]
    )
    parts = [(p.slot.tolist(), p.ts_ns.tolist()) for p in shard.turns(batch)]
    assert parts == [([0, 1, 1, 3], [8, 10, 11, 9]), ([0, 0, 0, 3], [10, 7, 10, 10]), ([0], [12])]
    assert shard.turns(batch.slice(1, 4))[0].n_frames == 3
    assert len(shard.turns(frames([0, 0], [8, 10]))) == 1


def test_duplicates_and_other_times_need_no_turn_of_their_own() -> None:
    directory = SensorDirectory(0)
    directory.define("a", LAYOUTS[0])
    old, new = directory.define("b", LAYOUTS[0]), directory.define("b", LAYOUTS[1])
    shard = shard_of(directory)
    assert len(shard.turns(timed([0] * 5, [1, 1, 2, 2, 3], [1, 1, 1, 1, 1], [7] * 5))) == 1
    assert len(shard.turns(timed([0] * 5, [1, 1, 2, 2, 3], [1, 1, 1, 1, 1], [7, 7, 8, 7, 7]))) == 2
    assert len(shard.turns(timed([0] * 4, [9, 1, 10, 2], [9, 1, 2, 3]))) == 1
    # Which columns of two layouts are of one sensor is not looked at.
    assert len(shard.turns(timed([old, old, new], [9, 8, 10], [9, 8, 8], [7] * 3))) == 2
    never = timed([0, 0], [10, 5], [NO_TIME, NO_TIME])
    assert [part.n_frames for part in shard.turns(never)] == [2]


def test_a_batch_that_is_late_as_a_whole_is_not_accepted() -> None:
    directory = SensorDirectory(0)
    directory.define("a", LAYOUTS[0])
    shard = shard_of(directory)
    shard.step([frames([0], [9])])
    result = shard.step([frames([0, 0], [9, 3])])
    assert result.accepted == []
    assert result.late[0].n_frames == 2


def test_all_layouts_of_a_group_share_its_mark_whenever_they_are_defined() -> None:
    for define_first in (True, False):
        directory = SensorDirectory(0)
        directory.define("other", LAYOUTS[0])
        old = directory.define("a", LAYOUTS[0])
        new = directory.define("a", LAYOUTS[1]) if define_first else -1
        shard = shard_of(directory)
        shard.step([frames([old], [100])])
        new = directory.define("a", LAYOUTS[1])
        shard.step([frames([old], [105])])
        result = shard.step([frames([new], [104], 2), frames([new], [106], 2), frames([old], [106])])
        assert [b.ts_ns.tolist() for b in result.accepted] == [[106]]
        assert [b.ts_ns.tolist() for b in result.late] == [[104], [106]]


def test_marks_are_where_they_were_after_a_restart_with_more_groups() -> None:
    directory = SensorDirectory(0)
    first = directory.define("a", LAYOUTS[0])
    stage = Deduplicate(directory, 0)
    stage.process(frames([first], [50]), StepResult())
    state = stage.snapshot()
    more = directory.define_many([f"b{i}" for i in range(9)], LAYOUTS[0])
    new = directory.define("a", LAYOUTS[1])
    again = Deduplicate(directory, 0)
    again.restore(state)
    result = StepResult()
    assert again.process(frames([new], [50], 2), result) is None
    assert again.process(frames([int(more[0])], [50]), result) is not None
    again.late(frames([first], [1]), result)
    again.inherit(stage, (int(new), int(first)), np.array([0]), result)
    again.tick(5, result)
    assert result.effects == []


# --- the shard ---------------------------------------------------------------------------------------------


def test_time_is_that_of_the_last_tick_and_is_kept_in_the_snapshot() -> None:
    directory = SensorDirectory(0)
    shard = shard_of(directory, spec())
    shard.step([Tick(7 * S), Tick(8 * S)])
    again = shard_of(directory, spec())
    again.restore(shard.snapshot())
    assert shard.now_ns == again.now_ns == 8 * S


def test_a_shard_without_pipelines_has_a_snapshot_too() -> None:
    directory = SensorDirectory(0)
    slot = directory.define("a", LAYOUTS[0])
    shard = shard_of(directory)
    shard.step([frames([slot], [5])])
    again = shard_of(directory, spec())
    again.restore(memoryview(shard.snapshot()))
    assert again.step([frames([slot], [5])]).accepted == []


@pytest.mark.parametrize("body", [b"", b"\x00" * 4, b"\x03\x00\x00\x00" + b"\x00" * 12, b"\xff" * 40])
def test_a_snapshot_of_other_content_is_refused_whatever_its_checksum_says(body: bytes) -> None:
    with pytest.raises(CorruptionError):
        shard_of(SensorDirectory(0), spec()).restore(body + xxhash.xxh3_64_digest(body))


def test_a_snapshot_with_a_flipped_bit_is_refused() -> None:
    directory = SensorDirectory(0)
    slot = directory.define("a", LAYOUTS[0])
    shard = shard_of(directory, spec())
    shard.step([frames([slot], [5])])
    data = bytearray(shard.snapshot())
    for at in (0, len(data) // 2, len(data) - 1):
        data[at] ^= 4
        with pytest.raises(CorruptionError, match="checksum"):
            shard_of(directory, spec()).restore(bytes(data))
        data[at] ^= 4
    for short in (b"", bytes(data[:7])):
        with pytest.raises(CorruptionError):
            shard_of(directory, spec()).restore(short)


def test_pipelines_come_and_go() -> None:
    directory = SensorDirectory(0)
    slot = directory.define("a", LAYOUTS[0])
    shard = shard_of(directory, spec("one"), spec("two"))
    shard.step([frames([slot], [0])])
    again = shard_of(directory, spec("two"), spec("three"))
    again.restore(shard.snapshot())
    result = again.step([frames([slot], [60 * S])])
    assert [b.origin for b in result.derived] == ["two"]


def test_revisions_go_to_their_pipelines() -> None:
    directory = SensorDirectory(0)
    slots = directory.define_many(["a", "b"], LAYOUTS[0]).tolist()
    shard = shard_of(directory, spec("one"), spec("two"))
    stored = {s: frames([s] * 3, [1 * S, 2 * S, 3 * S]) for s in slots}
    effects = [
        Revise("one", slots[0], 0, 60 * S),
        Revise("two", slots[1], 0, 60 * S),
        Revise("one", slots[1], 0, 60 * S),
    ]
    found = shard.recompute(effects, {slots[1]: stored[slots[1]]})
    assert [(b.origin, b.values.tolist()) for b in found] == [("one", [[3]]), ("two", [[3]])]
    together = shard.recompute(effects, stored)
    assert sorted((b.origin, b.n_frames) for b in together) == [("one", 2), ("two", 1)]


# --- packing -----------------------------------------------------------------------------------------------


def test_arrays_come_back_as_they_were_and_may_be_changed() -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(6, dtype=np.int16).reshape(2, 3),
        "b": np.zeros(0),
        "c": np.array(["x"]),
    }
    found = unpack(pack({k: v for k, v in arrays.items() if k != "c"}))
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["a"].dtype == np.int16
    found["a"][0, 0] = 9
    assert unpack_parts(pack_parts([b"", b"abc"])) == [b"", b"abc"]


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\xff\xff\xff\xff", b"\x01\x00\x00\x005", pack({"a": np.zeros(3)})[:-1]]
)
def test_bytes_that_are_no_arrays_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptionError, match="not packed state"):
        unpack(data)


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x02\x00\x00\x00", pack_parts([b"abc"])[:-1], b"\xff\xff\xff\xff\x00"]
)
def test_bytes_that_are_no_parts_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptionError, match="packed state"):
        unpack_parts(data)


# --- rows --------------------------------------------------------------------------------------------------


def test_groups_get_rows_in_the_order_of_their_first_frames() -> None:
    directory = SensorDirectory(0)
    directory.define_many([f"d{i}" for i in range(5)], LAYOUTS[0])
    rows = RowMap(directory, 0)
    assert rows.rows(np.array([3, 1, 3], np.uint32)).tolist() == [1, 0, 1]
    assert rows.rows(np.array([4, 3, 0], np.uint32)).tolist() == [3, 1, 2]
    assert rows.slot.tolist() == [1, 3, 0, 4]
    later = directory.define_many([f"e{i}" for i in range(9)], LAYOUTS[0])
    assert rows.find(2) == rows.find(int(later[-1])) == UNKNOWN
    again = RowMap(directory, 0)
    again.restore(rows.slot)
    assert again.rows(np.array([0, int(later[-1])], np.uint32)).tolist() == [2, 4]


# --- successions -------------------------------------------------------------------------------------------


def test_a_layout_succeeds_all_before_it_with_its_first_frame() -> None:
    directory = SensorDirectory(0)
    classes: list[int] = []
    slots = []
    for one in LAYOUTS:
        slots.append(directory.define("a", one))
        classes.append(0)
    other = directory.define("b", LAYOUTS[0])
    classes.append(0)
    succession = Succession(directory, 0, lambda: np.array(classes))
    assert succession.begin(np.array([slots[0], other], np.uint32)) == []
    assert succession.succeeded(np.array(slots, np.uint32)) is None
    assert succession.begin(np.array([slots[2], slots[2]], np.uint32)) == [(slots[2], slots[0])]
    assert succession.begin(np.array([slots[1]], np.uint32)) == []  # it never held anything
    assert [succession.holder(s) for s in slots] == [slots[2]] * 3
    old = succession.succeeded(np.array([slots[0], other, slots[1]], np.uint32))
    assert old is not None
    assert old.tolist() == [True, False, True]
    assert succession.succeeded(np.array([other, slots[2]], np.uint32)) is None
    again = Succession(directory, 0, lambda: np.array(classes))
    again.restore(succession.begun)
    assert again.begun == succession.begun == [slots[2]]
    assert again.holder(slots[0]) == slots[2]


def test_layouts_that_are_not_read_hold_nothing() -> None:
    directory = SensorDirectory(0)
    slots = [directory.define("a", one) for one in LAYOUTS]
    succession = Succession(directory, 0, lambda: np.array([0, -1, 0]))
    assert succession.begin(np.array([slots[1]], np.uint32)) == []
    assert succession.begin(np.array([slots[2]], np.uint32)) == [(slots[2], slots[0])]
