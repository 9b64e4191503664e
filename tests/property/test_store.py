"""The store against a dictionary: whatever happens to it, it answers the newest version of every sample."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import Crashed, SeededFaults
from headrace.store import frame_log
from headrace.testing.stores import StoreModel, StoreRig, check_rows, check_windows

NS = 1_000_000_000
DAY = 86_400 * NS
MIDNIGHT = 20_000 * DAY
FIRST, LAST = MIDNIGHT - 12 * NS, MIDNIGHT + 14 * NS
QUALITIES = [Quality.GOOD, Quality.GOOD, Quality.UNCERTAIN, Quality.BAD_DEVICE, Quality.ABSENT]
VALUES = {
    "u16": [0, 1, 2, 65535], "f64": [0.0, -0.0, 1.5, float("nan"), -3.25], "i32": [-7, 0, 9],
    "i64": [2**40, 5, -5], "u8": [0, 1, 2], "f32": [0.5, -0.5, 2.0],
}  # fmt: skip
WORDS = [("off", "on", "error"), ("on", "off", "idle")]


@pytest.fixture(params=[None, 32], ids=["one log", "many logs"], autouse=True)
def piece(request, monkeypatch):
    """Hot buffers with a log for all frames of a kind, and with a new one every few values."""
    if request.param:
        monkeypatch.setattr(frame_log, "PIECE_BYTES", request.param)


def plant():
    """Groups of every shape; one of them changes its layout."""
    directory = SensorDirectory(shard_bits=1)
    grid = Layout("u16", (Column("a", unit="degC", scale=0.1, offset=-40.0), Column("b", scale=-2.0)))
    wider = Layout("u16", (Column("c"), Column("a", scale=0.5), Column("b", scale=-2.0)))
    slots = {
        "dense": directory.define("p/l/oven", grid),
        "wider": directory.define("p/l/oven", wider),
        "lone": directory.define("p/l/lone", Layout("f64", (Column(""),))),
        "sparse": directory.define("p/l/valve", Layout("i32", tuple(Column(f"s{i}") for i in range(3)))),
        "counter": directory.define("p/l/meter", Layout("i64", (Column("n", Kind.COUNTER),))),
        "word": directory.define("p/l/state", Layout("u8", (Column("word", Kind.DISCRETE),))),
        "wave": directory.define("p/l/motor", Layout("f32", (Column("v", Kind.WAVEFORM),))),
    }
    return directory, slots


@st.composite
def batches(draw, directory, slots):
    name = draw(st.sampled_from(sorted(slots)))
    slot, layout = slots[name], directory.layout(slots[name])
    n = draw(st.integers(1, 3))
    ts_ns = np.array(draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))) * NS + FIRST + 2 * NS
    frame_slots = np.full(n, slot, np.uint32)

    def values(k):
        chosen = draw(st.lists(st.sampled_from(VALUES[layout.dtype]), min_size=k, max_size=k))
        return np.array(chosen, numpy_dtype(layout.dtype))

    def quality(k):
        return draw(
            st.none()
            | st.lists(st.sampled_from(QUALITIES), min_size=k, max_size=k).map(
                lambda q: np.array(q, np.uint8)
            )
        )

    if name in ("sparse", "word", "wave"):
        start = np.concatenate([[0], np.cumsum(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))])
        k = int(start[-1])
        rest = {"quality": quality(k), "dictionary": draw(st.sampled_from(WORDS)) if name == "word" else None}
        if name == "wave":
            rate = np.array([draw(st.sampled_from([1, 3]))] * n), np.full(n, 2)
            return FrameBatch.wave(frame_slots, ts_ns, values(k), start, rate, **rest)
        column = draw(st.lists(st.integers(0, layout.width - 1), min_size=k, max_size=k))
        if draw(st.booleans()):
            rest["value_ts_ns"] = np.repeat(ts_ns, np.diff(start)) + np.array(
                draw(st.lists(st.integers(-1, 1), min_size=k, max_size=k)), np.int64
            )
        return FrameBatch.sparse(frame_slots, ts_ns, values(k), start, np.array(column, np.uint16), **rest)
    width = layout.width
    flags = quality(n * width)
    return FrameBatch.dense(
        frame_slots,
        ts_ns,
        values(n * width).reshape(n, width),
        None if flags is None else flags.reshape(n, width),
    )


def check(rig, model):
    check_rows(rig.store, model, FIRST, LAST, rig.tail)
    check_rows(rig.store, model, FIRST + 5 * NS, LAST - 7 * NS, rig.tail)
    check_windows(rig.store, model, (FIRST, LAST), 5 * NS, rig.tail)
    check_windows(rig.store, model, (FIRST, LAST), DAY, rig.tail)


STEPS = [
    "add",
    "add",
    "add",
    "add",
    "repeat",
    "check",
    "flush",
    "flush one",
    "compact",
    "wait",
    "crash",
    "crash in a flush",
    "crash in a compaction",
]


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_it_answers_the_newest_version_of_every_sample(data):
    directory, slots = plant()
    rig, model = StoreRig(SimulatedDisk(1), directory), StoreModel(directory)
    for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=20)):
        if step == "add":
            batch = data.draw(batches(directory, slots))
            rig.add(batch)
            model.put(batch)
        elif step == "repeat" and rig.journal:
            batch = data.draw(st.sampled_from(rig.journal))
            rig.add(batch)
            model.put(batch)
        elif step == "flush":
            rig.flush()
        elif step == "flush one":
            rig.flush([data.draw(st.integers(0, 1))])
        elif step == "compact":
            assert rig.compact().problems == []
        elif step == "wait":
            rig.clock.advance(20)
        elif step.startswith("crash"):
            crash(rig, step, data.draw(st.integers(0, 2**32)))
        elif step == "check" and model.samples:
            check(rig, model)
    if model.samples:
        check(rig, model)


def crash(rig, step, seed):
    """End the process, at some moment of a flush or a compaction, and start it again."""
    faults = SeededFaults(seed, 12)
    if step != "crash":
        rig.disk.faults = rig.flusher._faults = rig.compactor._faults = faults
        try:
            rig.flush() if step == "crash in a flush" else rig.compact()
        except Crashed:
            pass
    rig.disk = rig.disk.crash()
    rig.start()


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_sample_is_stored_or_counted_as_a_duplicate(data):
    directory, slots = plant()
    rig, model = StoreRig(SimulatedDisk(1), directory), StoreModel(directory)
    for step in data.draw(
        st.lists(st.sampled_from(["add", "add", "repeat", "flush", "compact"]), min_size=3, max_size=20)
    ):
        if step in ("add", "repeat"):
            batch = (
                data.draw(st.sampled_from(rig.journal))
                if step == "repeat" and rig.journal
                else data.draw(batches(directory, slots))
            )
            rig.add(batch)
            model.put(batch)
        elif step == "flush":
            rig.flush()
        else:
            rig.compact()
    assert model.n_put == rig.n_stored + rig.n_duplicates + rig.n_unflushed


@pytest.mark.parametrize("seed", range(3))
def test_a_repeated_history_is_all_duplicates(seed):
    rng = np.random.default_rng(seed)
    directory, slots = plant()
    rig, model = StoreRig(SimulatedDisk(1), directory), StoreModel(directory)
    for k in range(10):
        ts_ns = np.array([FIRST + k * 2 * NS])
        batch = FrameBatch.dense(
            np.array([slots["dense"]], np.uint32), ts_ns, rng.integers(0, 9, (1, 2)).astype(np.uint16)
        )
        rig.add(batch)
        model.put(batch)
        if k % 4 == 3:
            rig.flush()
    for batch in list(rig.journal):
        rig.add(batch)
    rig.flush()
    rig.compact()
    assert rig.n_duplicates == 20
    assert rig.n_stored == 20
    check(rig, model)
