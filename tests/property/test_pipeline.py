"""What pipelines promise: any split of the data, any number of shards, any restart, the same results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.flows import FlowSpec
from headrace.pipeline.windowing import AGGREGATES
from headrace.sim.auditors import Aggregates, by_window
from headrace.testing.engines import PlainEngine, Series, cut

S = 1_000_000_000
T0 = 1_700_000_040 * S
EVERY_NS = 60 * S
DTYPES = ("u8", "u16", "i32", "u32", "i64", "f32", "f64")
SHAPES = ("dense", "sparse", "timed", "wave", "mixed")
STEPS = [0, 1, 3 * S, 20 * S, 59 * S, EVERY_NS, 7 * EVERY_NS + 1]


def window(agg: tuple[str, ...] = AGGREGATES) -> FlowSpec:
    return FlowSpec("w", "**", ({"op": "window", "every": "1m", "agg": agg},), "{parent}/{signal}_{agg}_1m")


@dataclass(frozen=True)
class Group:
    shape: str
    dtype: str
    width: int


@dataclass(frozen=True)
class Event:
    """One frame: of which group, how far in time (below 0: so far back from its newest), what with."""

    group: int
    step_ns: int
    seed: int


@dataclass(frozen=True)
class Story:
    """What devices send, and when ticks and new layouts come (by number of events before)."""

    groups: tuple[Group, ...]
    events: tuple[Event, ...]
    ticks: tuple[tuple[int, int], ...] = ()
    layouts: tuple[tuple[int, int, int], ...] = ()


@st.composite
def stories(draw: st.DrawFn, late: bool = True, ticks: bool = True, layouts: bool = True) -> Story:
    shapes, widths = st.sampled_from(SHAPES), st.integers(1, 5)
    group = st.builds(Group, shapes, st.sampled_from(DTYPES), widths)
    groups = tuple(draw(st.lists(group, min_size=1, max_size=5)))
    back = st.sampled_from([-s for s in STEPS]) if late else st.nothing()
    step = st.one_of(st.sampled_from(STEPS[1:]), st.sampled_from(STEPS[1:]), back)
    event = st.builds(Event, st.integers(0, len(groups) - 1), step, st.integers(0, 3))
    events = tuple(draw(st.lists(event, max_size=40)))
    places = st.integers(0, len(events))
    some_ticks = st.lists(st.tuples(places, st.integers(0, 20)), max_size=4 if ticks else 0)
    some_layouts = st.lists(
        st.tuples(places, st.integers(0, len(groups) - 1), st.integers(1, 63)), max_size=3 if layouts else 0
    )
    return Story(groups, events, tuple(draw(some_ticks)), tuple(draw(some_layouts)))


def columns_of(mask: int, n: int = 6) -> tuple[Column, ...]:
    names = [i for i in range(n) if mask >> i & 1]
    grids = [(1.0, 0.0), (0.1, -40.0), (-0.5, 3.0)]
    return tuple(Column(f"s{i}", scale=grids[i % 3][0], offset=grids[i % 3][1]) for i in reversed(names))


class Plant:
    """Tells a story to an engine; the same story gives the same frames."""

    def __init__(self, story: Story, shard_bits: int = 2, spec: FlowSpec | None = None) -> None:
        self.story = story
        self.directory = SensorDirectory(shard_bits)
        self.engine = PlainEngine(self.directory, [window() if spec is None else spec])
        self.slots = [
            self.directory.define(f"site/line/d{i}", self.layout(g, (1 << g.width) - 1))
            for i, g in enumerate(story.groups)
        ]
        self.newest = [T0] * len(story.groups)

    @staticmethod
    def layout(group: Group, mask: int) -> Layout:
        columns = columns_of(1 if group.shape == "wave" else mask)
        if group.width == 1 and group.shape == "dense" and mask == 1:
            columns = (replace(columns[0], name=""),)
        return Layout(group.dtype, columns)

    def tell(self, cuts: Any = None, restarts: tuple[int, ...] = ()) -> PlainEngine:
        """The whole story; `cuts` = None gives each frame alone, else batches that end at these frames."""
        waiting: list[FrameBatch] = []
        ticks = {place: (n, now) for place, n, now in self._ticks()}
        for i in range(len(self.story.events) + 1):
            for place, group, mask in self.story.layouts:
                if place == i and self.story.groups[group].width > 1:
                    self.slots[group] = self.directory.define(
                        self.directory.paths[self.slots[group]], self.layout(self.story.groups[group], mask)
                    )
            if i in ticks or i in restarts:
                self._feed(waiting, cuts)
                waiting = []
            for k in range(ticks.get(i, (0, 0))[0]):
                self.engine.tick(ticks[i][1] + k * S)
            if i in restarts:
                self.engine.restart()
            if i < len(self.story.events):
                waiting.append(self._frame(self.story.events[i]))
        self._feed(waiting, cuts)
        for k in range(10):
            self.engine.tick(max(self.newest) + 3_600 * S + k * S)
        return self.engine

    def _ticks(self) -> list[tuple[int, int, int]]:
        return [(place, n, T0 + place * 40 * S) for place, n in self.story.ticks]

    def _feed(self, frames: list[FrameBatch], cuts: Any) -> None:
        n = sum(b.n_frames for b in frames)
        for batch in cut(frames, np.arange(n + 1) if cuts is None else cuts, self.directory):
            self.engine.feed(batch)

    def _frame(self, event: Event) -> FrameBatch:
        slot, group = self.slots[event.group], self.story.groups[event.group]
        ts_ns = self.newest[event.group] + event.step_ns
        self.newest[event.group] = max(ts_ns, self.newest[event.group])
        rng = np.random.default_rng([event.group, ts_ns % 2**32, event.seed])
        shape = group.shape if group.shape != "mixed" else ("dense", "sparse")[event.seed % 2]
        build = {"dense": dense, "sparse": sparse, "timed": timed, "wave": wave}[shape]
        return build(slot, ts_ns, self.directory.layout(slot), rng)


def some_values(dtype: str, n: int, rng: np.random.Generator) -> Any:
    kind = numpy_dtype(dtype)
    if kind.kind == "f":
        return (rng.normal(20, 5, n) * 10.0 ** rng.integers(-3, 6)).astype(kind)
    most = min(np.iinfo(kind).max, 2**32 - 1)
    low = 0 if kind.kind == "u" else -most
    return rng.integers(low, most, n, endpoint=True).astype(kind)


def some_quality(n: int, rng: np.random.Generator) -> Any:
    pick = np.array([0, 0, 0, Quality.UNCERTAIN, Quality.BAD_RANGE, Quality.ABSENT], np.uint8)
    return rng.choice(pick, n)


def dense(slot: int, ts_ns: int, layout: Layout, rng: np.random.Generator) -> FrameBatch:
    values = some_values(layout.dtype, layout.width, rng).reshape(1, -1)
    quality = some_quality(layout.width, rng).reshape(1, -1) if rng.random() < 0.5 else None
    return FrameBatch.dense(np.array([slot], np.uint32), np.array([ts_ns]), values, quality)


def sparse(slot: int, ts_ns: int, layout: Layout, rng: np.random.Generator, **more: Any) -> FrameBatch:
    column = np.sort(rng.permutation(layout.width)[: rng.integers(1, layout.width + 1)]).astype(np.uint16)
    n = len(column)
    quality = some_quality(n, rng) if rng.random() < 0.5 else None
    if quality is not None:
        quality[quality == Quality.ABSENT] = Quality.BAD
    if more:
        more = {"value_ts_ns": ts_ns - rng.choice([0, 0, S, 30 * S, 90 * S], n)}
    values, start = some_values(layout.dtype, n, rng), np.array([0, n])
    return FrameBatch.sparse(
        np.array([slot], np.uint32), np.array([ts_ns]), values, start, column, quality=quality, **more
    )


def timed(slot: int, ts_ns: int, layout: Layout, rng: np.random.Generator) -> FrameBatch:
    return sparse(slot, ts_ns, layout, rng, timed=True)


def wave(slot: int, ts_ns: int, layout: Layout, rng: np.random.Generator) -> FrameBatch:
    n = int(rng.integers(0, 6))
    rate = np.array([rng.choice([1, 3, 1000])]), np.array([rng.choice([1, 10, 25])])
    values = some_values(layout.dtype, n, rng)
    return FrameBatch.wave(np.array([slot], np.uint32), np.array([ts_ns]), values, np.array([0, n]), rate)


def audit(engine: PlainEngine) -> None:
    """Windows are those of a computation from scratch over all samples that were kept."""
    assert engine.disorder == []
    directory = engine.directory
    expected: dict[str, set[int]] = {}
    for slot in range(directory.n_slots):
        if directory.is_derived(slot):
            continue
        layout = directory.layout(slot)
        for i, column in enumerate(layout.columns):
            path = directory.sensor_path(slot, i)
            kept = {t: k.value for t, k in engine.samples.get(path, {}).items() if k.is_usable}
            for start_ns, samples in by_window(kept, EVERY_NS).items():
                truth = Aggregates.of(samples, column.scale, column.offset)
                found = {}
                for name in AGGREGATES:
                    series = engine.derived[f"{path}_{name}_1m"]
                    expected.setdefault(f"{path}_{name}_1m", set()).add(start_ns)
                    assert series[start_ns].is_usable, (path, name, start_ns)
                    found[name] = series[start_ns].value
                assert truth.differences(found) == [], (path, start_ns)
    for path, series in engine.derived.items():
        more = {t for t, k in series.items() if k.is_usable} - expected.get(path, set())
        if "_count_1m" in path:
            assert all(series[t].value == 0 for t in more), path
        else:
            assert not more, path


def results(engine: PlainEngine) -> tuple[dict[str, Series], dict[str, Series]]:
    """Samples and derived samples with values, as bits."""
    derived = {
        path: {t: k for t, k in series.items() if k.is_usable and (k.value != 0 or "_count_" not in path)}
        for path, series in engine.derived.items()
    }
    return engine.samples, {path: series for path, series in derived.items() if series}


FEW = settings(max_examples=50)
"""A story is told once, twice or three times, and computed from scratch."""


@FEW
@given(stories(late=False, ticks=False, layouts=False))
def test_windows_equal_a_computation_from_scratch(story: Story) -> None:
    audit(Plant(story).tell())


@FEW
@given(stories())
def test_windows_equal_a_computation_from_scratch_with_late_data_ticks_and_new_layouts(story: Story) -> None:
    audit(Plant(story).tell())


@FEW
@given(stories(), st.lists(st.integers(0, 40), max_size=6), st.integers(0, 4))
def test_any_split_and_any_number_of_shards_give_the_same_bits(
    story: Story, cuts: list[int], shard_bits: int
) -> None:
    expected = results(Plant(story).tell())
    assert results(Plant(story, shard_bits).tell(cuts)) == expected
    assert results(Plant(story, 0).tell([])) == expected


@FEW
@given(stories(), st.sets(st.integers(0, 40), max_size=5))
def test_a_restart_from_snapshots_goes_on_as_if_nothing_had_been(story: Story, restarts: set[int]) -> None:
    whole = Plant(story).tell()
    restarted = Plant(story).tell(restarts=tuple(restarts))
    assert restarted.samples == whole.samples
    assert restarted.derived == whole.derived
    assert [s.snapshot() for s in restarted.shards] == [s.snapshot() for s in whole.shards]


# --- sliding windows and time-weighted means -----------------------------------------------------------------

SIZE_NS = 3 * EVERY_NS


def sliding() -> FlowSpec:
    step = {"op": "sliding", "every": "1m", "size": "3m", "agg": AGGREGATES}
    return FlowSpec("w", "**", (step,), "{parent}/{signal}_{agg}_1m")


def weighted(method: str = "auto") -> FlowSpec:
    step = {"op": "time_weighted_mean", "every": "1m", "method": method}
    return FlowSpec("w", "**", (step,), "{parent}/{signal}_{agg}_1m")


def usable_samples(engine: PlainEngine) -> Any:
    """(path, column, time → raw value) of every sensor of a device."""
    directory = engine.directory
    for slot in range(directory.n_slots):
        for i, column in enumerate(directory.layout(slot).columns):
            path = directory.sensor_path(slot, i)
            if not directory.is_derived(slot):
                kept = engine.samples.get(path, {})
                yield path, column, {t: k.value for t, k in kept.items() if k.is_usable}


def by_sliding_window(samples: dict[int, Any]) -> dict[int, list[tuple[int, Any]]]:
    windows: dict[int, list[tuple[int, Any]]] = {}
    for ts_ns, value in samples.items():
        for k in range(SIZE_NS // EVERY_NS):
            start_ns = ts_ns // EVERY_NS * EVERY_NS - k * EVERY_NS
            windows.setdefault(start_ns, []).append((ts_ns, value))
    return windows


@FEW
@given(stories())
def test_sliding_windows_equal_a_computation_from_scratch(story: Story) -> None:
    engine = Plant(story, spec=sliding()).tell()
    assert engine.disorder == []
    expected: dict[str, set[int]] = {}
    for path, column, samples in usable_samples(engine):
        for start_ns, some in by_sliding_window(samples).items():
            truth, found = Aggregates.of(some, column.scale, column.offset), {}
            for name in AGGREGATES:
                expected.setdefault(f"{path}_{name}_1m", set()).add(start_ns)
                kept = engine.derived[f"{path}_{name}_1m"][start_ns]
                assert kept.is_usable, (path, name, start_ns)
                found[name] = kept.value
            assert truth.differences(found) == [], (path, start_ns)
    for path, series in engine.derived.items():
        more = {t for t, k in series.items() if k.is_usable} - expected.get(path, set())
        assert all(series[t].value == 0 for t in more) if "_count_1m" in path else not more, path


def area(samples: list[tuple[int, Any]], start_ns: int, is_step: bool) -> float:
    """Mean of a window weighted by time, exactly."""
    ordered = sorted(samples)
    times = [start_ns, *(t for t, _ in ordered[1:]), start_ns + EVERY_NS]
    values = [Fraction(v) for _, v in ordered]
    total = Fraction(0)
    for i, value in enumerate(values):
        is_straight = not is_step and i + 1 < len(values)
        begin = times[i] if i else start_ns
        if i == 0:  # it counts from the window's start
            total += value * (ordered[0][0] - start_ns)
            begin = ordered[0][0]
        level = (value + values[i + 1]) / 2 if is_straight else value
        total += level * (times[i + 1] - begin)
    return float(total / EVERY_NS)


@pytest.mark.parametrize("method", ["auto", "step"])
@FEW
@given(story=stories())
def test_time_weighted_means_equal_a_computation_from_scratch(story: Story, method: str) -> None:
    engine = Plant(story, spec=weighted(method)).tell()
    assert engine.disorder == []
    for path, column, samples in usable_samples(engine):
        expected = by_window(samples, EVERY_NS)
        series = engine.derived.get(f"{path}_twa_1m", {})
        assert {t for t, k in series.items() if k.is_usable} == expected.keys(), path
        for start_ns, some in expected.items():
            raw = area(some, start_ns, method == "step")
            size = max(abs(float(v)) for _, v in some)
            slack = 1e-9 * (size * abs(column.scale) + abs(column.offset) + 1)
            assert abs(series[start_ns].value - (raw * column.scale + column.offset)) <= slack, path


@pytest.mark.parametrize("spec", [sliding(), weighted()], ids=["sliding", "weighted"])
@FEW
@given(
    story=stories(),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    restarts=st.sets(st.integers(0, 40), max_size=5),
)
def test_any_split_and_any_restart_give_the_same_bits_of_other_windows(
    spec: FlowSpec, story: Story, cuts: list[int], restarts: set[int]
) -> None:
    expected = results(Plant(story, spec=spec).tell())
    assert results(Plant(story, 0, spec).tell(cuts)) == expected
    assert results(Plant(story, spec=spec).tell(restarts=tuple(restarts))) == expected
