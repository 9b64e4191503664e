"""Answers are the same, bit for bit, with rollups and without, whatever came late, in whatever layout, of whatever quality."""

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.core.tier_settings import TierSection
from headrace.sim.disk import SimulatedDisk
from headrace.store import resolutions, rollup_answers
from headrace.store.compactor import CompactionPolicy
from headrace.store.tiers import TierRules
from headrace.testing.stores import StoreModel, StoreRig, check_windows

NS = 1_000_000_000
HOUR, DAY = 3_600 * NS, 86_400 * NS
MIDNIGHT = 20_000 * DAY
ALL = ("count", "sum", "min", "max", "first", "last", "mean")
EVERY = [None, NS, 7 * NS, 60 * NS, 60 * NS, 90 * NS, 300 * NS, HOUR, HOUR, 5 * HOUR, DAY, 7 * DAY]


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Rollups of everything, and used wherever they can be."""
    monkeypatch.setattr(resolutions, "SAMPLES_MIN", 2)
    monkeypatch.setattr(resolutions, "SHARE", 1e9)
    monkeypatch.setattr(resolutions, "BLOCK_SAMPLES_MIN", 0)
    monkeypatch.setattr(rollup_answers, "BLOCK_SAMPLES_MIN", 0)


def plant():
    directory = SensorDirectory(shard_bits=1)
    grid = Layout("i16", (Column("a", scale=0.1, offset=-40.0), Column("b", scale=-2.0)))
    slots = {
        "oven": directory.define("p/l/oven", grid),
        "wider": directory.define(
            "p/l/oven", Layout("i16", (Column("c"), Column("a", scale=0.1, offset=-40.0)))
        ),
        "lone": directory.define("p/l/lone", Layout("f64", (Column(""),))),
        "small": directory.define("p/l/small", Layout("f32", (Column("x"), Column("y", scale=0.1)))),
        "meter": directory.define(
            "p/l/meter", Layout("u64", (Column("n", Kind.COUNTER), Column("m", scale=0.001)))
        ),
        "state": directory.define(
            "p/l/state", Layout("u8", (Column("s", Kind.DISCRETE, labels=("a", "b")),))
        ),
    }
    return directory, slots


def frames(directory, slot, rng, start_ns, n, step_ns):
    """Dense frames with gaps, bad values and, of floats, NaNs, negative zeros and large and small numbers."""
    layout = directory.layout(slot)
    dtype = numpy_dtype(layout.dtype)
    ts_ns = start_ns + np.flatnonzero(rng.random(n) < 0.8) * step_ns
    shape = len(ts_ns), layout.width
    if dtype.kind == "f":
        values = np.round(rng.normal(20, 5, shape), 2)
        odd = rng.random(shape)
        values = np.where(
            odd < 0.05,
            np.nan,
            np.where(odd < 0.1, -0.0, np.where(odd < 0.2, rng.normal(0, 1e6, shape), values)),
        )
    else:
        values = rng.integers(0, 100, shape)
    quality = rng.choice([Quality.GOOD] * 8 + [Quality.UNCERTAIN, Quality.BAD_DEVICE, Quality.ABSENT], shape)
    return FrameBatch.dense(
        np.full(len(ts_ns), slot, np.uint32), ts_ns, values.astype(dtype), quality.astype(np.uint8)
    )


def bits(result):
    columns = {k: np.ascontiguousarray(v).view(np.uint8).tobytes() for k, v in result.columns.items()}
    return result.sensor.tolist(), result.ts_ns.tolist(), columns


def ask_both(rig, *args):
    rig.store.uses_rollups = True
    with_rollups = rig.store.query(*args, tail=rig.tail)
    rig.store.uses_rollups = False
    without = rig.store.query(*args, tail=rig.tail)
    assert (with_rollups.missing, without.missing) == ((), ())
    ours, theirs = bits(with_rollups), bits(without)
    # A sum of floats that chunks' headers give is rounded once a chunk.
    for name in {"sum", "mean"} & set(ours[2]):
        del ours[2][name], theirs[2][name]
        one, other = with_rollups.columns[name], without.columns[name]
        assert np.allclose(one, other, rtol=1e-12, atol=1e-6, equal_nan=True), args
    assert ours == theirs, args
    assert with_rollups.resolution_ns == 0
    return with_rollups


def add_new(rig, model, batch):
    """As `add`, all frames at once: they are newer than any before of their group."""
    if batch.n_frames:
        slot = int(batch.slot[0])
        shard = int(rig.directory.shard[slot])
        rig.journal.append(batch)
        rig.buffers[shard].append(len(rig.journal) - 1, batch)
        rig._high[int(rig.directory.group_id[slot])] = int(batch.ts_ns.max())
        model.put(batch)


class Life:
    """A store's life, and questions about it, out of one seed."""

    def __init__(self, seed, rules=None):
        self.rng = np.random.default_rng(seed)
        self.directory, self.slots = plant()
        policy = CompactionPolicy(slice_samples=int(self.pick([100, 10**6])))
        rules = TierRules(rules or {})
        self.rig = StoreRig(SimulatedDisk(1), self.directory, policy=policy, rules=rules)
        self.model = StoreModel(self.directory)

    def pick(self, choices):
        return choices[self.rng.integers(len(choices))]

    def begin(self):
        """A few groups' samples around midnight, compacted."""
        for name in self.rng.permutation(sorted(set(self.slots) - {"wider"}))[: self.rng.integers(1, 4)]:
            step_ns = int(self.pick([NS // 7, NS // 2, 3 * NS, 40 * NS, 1_000 * NS]))
            start_ns = MIDNIGHT - int(self.pick([0, 500, 3 * 3_600])) * NS + 1
            batch = frames(self.directory, self.slots[name], self.rng, start_ns, 150, step_ns)
            add_new(self.rig, self.model, batch)
            if name == "oven":  # its layout changes
                later = frames(
                    self.directory, self.slots["wider"], self.rng, int(batch.ts_ns[-1]) + NS // 3, 50, step_ns
                )
                add_new(self.rig, self.model, later)
        self.rig.flush()
        assert self.rig.compact().problems == []

    def come_late(self, dropped=()):
        """More samples, and versions of some, in whatever place of the store."""
        start_ns = MIDNIGHT + int(self.pick([-400, -1, 0, 3, 60, 7_200])) * NS + 1
        step_ns = int(self.pick([NS // 7, 2 * NS]))
        slot = self.slots[self.pick(sorted(set(self.slots) - set(dropped)))]
        batch = frames(self.directory, slot, self.rng, start_ns, 4, step_ns)
        if batch.n_frames:
            self.rig.add(batch)
            self.model.put(batch)
        for step in self.pick([[], ["flush"], ["flush", "compact"], ["compact"]]):
            done = self.rig.compact() if step == "compact" else self.rig.flush()
            assert not getattr(done, "problems", [])

    def question(self):
        offset = [int(self.pick([0, 1, NS, 59 * NS, 60 * NS, HOUR, HOUR + 1, 3 * HOUR])) for _ in range(2)]
        whole = MIDNIGHT - DAY + offset[0], MIDNIGHT + DAY - offset[1]
        span = self.pick([whole, whole, whole, (MIDNIGHT - offset[0], MIDNIGHT + offset[1] + 1)])
        agg = self.pick([ALL, ALL, ALL, ALL, ("mean",), ("sum", "count"), (*ALL, "var"), ("twa",)])
        pattern = self.pick(["**", "p/l/oven/a", "p/l/lone", "p/l/{small,meter}/*"])
        return pattern, *span, self.pick(EVERY), agg


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_rollups_change_no_answer(seed):
    life = Life(seed)
    life.begin()
    for _ in range(life.rng.integers(0, 3)):
        life.come_late()
    for _ in range(6):
        ask_both(life.rig, *life.question())
    life.rig.store.uses_rollups = True
    check_windows(life.rig.store, life.model, (MIDNIGHT - DAY, MIDNIGHT + DAY), DAY, life.rig.tail)
    check_windows(life.rig.store, life.model, (MIDNIGHT - DAY + 1, MIDNIGHT + DAY - 7), HOUR, life.rig.tail)


def tier(match, rollups):
    """Cold after a month, in chunks that end anywhere, and rollups only after `rollups`."""
    after = {"cold": "30d", "rollups": rollups}
    return TierSection.model_validate(
        {
            "match": match,
            "after": after,
            "cold_block": 64,
            "rollups": ["1s", "1m"],
        }
    )


def check_aggregates(life, span, every_ns):
    """Windows are those of all that was put in, whether their samples are left or not."""
    rows = life.rig.store.query("**", *span, every_ns, ALL, tail=life.rig.tail).to_rows()
    expected = life.model.windows(*span, every_ns)
    assert [(r["path"], r["ts"]) for r in rows] == sorted(expected)
    for row in rows:
        values = expected[row["path"], row["ts"]]
        found = [row[name] for name in ("count", "min", "max", "first", "last")]
        assert found == [len(values), min(values), max(values), values[0], values[-1]], row
        assert np.isclose(row["sum"], sum(map(float, values)), rtol=1e-9, atol=1e-6)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_nothing_is_lost_or_counted_twice_when_days_are_cold_and_some_have_lost_their_samples(seed):
    dropped = ("lone", "state")
    life = Life(
        seed, {"all": tier("**", "90y"), "lone": tier("p/l/lone", "31d"), "state": tier("p/l/state/*", "31d")}
    )
    life.begin()
    for _ in range(life.rng.integers(0, 4)):
        life.come_late(dropped)
        if life.rng.random() < 0.7:
            life.rig.flush()
            life.rig.clock.advance(2 * 86_400)
            life.rig.compact()
        ask_both(life.rig, "p/l/{oven,small,meter}/*", *life.question()[1:])
    life.rig.store.uses_rollups = True
    for span in (
        (MIDNIGHT - DAY, MIDNIGHT + DAY),
        (MIDNIGHT, MIDNIGHT + DAY),
        (MIDNIGHT - HOUR, MIDNIGHT + HOUR),
    ):
        for every_ns in (HOUR, DAY):
            check_aggregates(life, span, every_ns)
    event(
        f"{len(life.rig.store.view.alone)} files alone, {sum(len(c.files) for c in life.rig.store.view.cold.values())} cold"
    )
    if {"p/l/lone", "p/l/state/s"} & set(life.model.samples):
        assert life.rig.store.view.alone
