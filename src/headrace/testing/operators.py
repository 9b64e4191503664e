"""The kit that every operator has to pass. Plain functions; `make` returns the operator to be tested.

Example of a third party's test::

    from headrace.testing import operators as kit

    @pytest.mark.parametrize("check", kit.CHECKS)
    def test_my_operator(check):
        check(lambda: MyOperator(limit=3.0))

Each raises AssertionError with the scene's name where the promise of `headrace.pipeline.base` is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NS
from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import Column, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import Stage, StepResult
from headrace.pipeline.operators.base import Context, Operator
from headrace.testing.engines import cut

Make = Callable[[], Operator]
Record = FrameBatch | int
"""What a stage is told: frames, or the time of a tick."""

START_NS = 1_700_000_040 * NS
_KINDS = (
    ("dense u16", Shape.DENSE, "u16", 3),
    ("dense f64", Shape.DENSE, "f64", 2),
    ("lone i32", Shape.DENSE, "i32", 1),
    ("sparse u32", Shape.SPARSE, "u32", 4),
    ("sparse f32", Shape.SPARSE, "f32", 1),
    ("wave i32", Shape.WAVE, "i32", 1),
)


@dataclass
class Scene:
    """Some groups of one layout in one shard, and what they send: each group in time order, ticks between."""

    name: str
    layout: Layout
    directory: SensorDirectory
    slots: npt.NDArray[np.uint32]
    records: list[Record] = field(default_factory=list)

    def context(self, layout: Layout | None = None) -> Context:
        """For a stage of this scene; derived groups are numbers that stand for the source's."""
        derived = [_Derived(i) for i in range(3)]
        return Context("kit", self.directory, 0, self.layout if layout is None else layout, derived)


class _Derived:
    def __init__(self, number: int) -> None:
        self._first = 1_000_000 * (number + 1)

    def __getitem__(self, slot: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return (slot + self._first).astype(np.uint32)


def scenes(seed: int = 0, n_rounds: int = 12) -> Iterator[Scene]:
    """One scene for each kind of frames that matters to operators."""
    for name, shape, dtype, width in _KINDS:
        rng = np.random.default_rng([seed, width, len(name)])
        columns = tuple(Column(f"s{i}", scale=(1.0, 0.1, -0.5)[i % 3], offset=10.0 * i) for i in range(width))
        layout, directory = Layout(dtype, columns), SensorDirectory(0)
        slots = directory.define_many([f"site/line/d{i}" for i in range(5)], layout)
        scene = Scene(name, layout, directory, slots)
        for r in range(n_rounds):
            chosen = slots[rng.random(len(slots)) < 0.8]
            if len(chosen):
                scene.records.append(_frames(shape, layout, chosen, START_NS + r * 17 * NS, rng))
            scene.records.append(START_NS + r * 17 * NS)
        yield scene


def _frames(
    shape: Shape, layout: Layout, slots: npt.NDArray[np.uint32], ts_ns: int, rng: np.random.Generator
) -> FrameBatch:
    n, dtype = len(slots), numpy_dtype(layout.dtype)
    times = np.full(n, ts_ns) + rng.integers(0, NS, n)
    if shape is Shape.DENSE:
        wide = (n, layout.width)
        return FrameBatch.dense(slots, times, rng.integers(90, 110, wide).astype(dtype), _quality(wide, rng))
    count = rng.integers(1, layout.width + 1 if shape is Shape.SPARSE else 4, n)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
    values = rng.integers(90, 110, start[-1]).astype(dtype)
    if shape is Shape.WAVE:
        rate = np.full(n, 10), np.full(n, 1)
        return FrameBatch.wave(slots, times, values, start, rate, quality=_quality(values.shape, rng))
    column = np.concatenate([np.sort(rng.permutation(layout.width)[:c]) for c in count]).astype(np.uint16)
    return FrameBatch.sparse(slots, times, values, start, column, quality=_quality(values.shape, rng))


def _quality(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.uint8] | None:
    known = np.array([Quality.GOOD, Quality.GOOD, Quality.UNCERTAIN, Quality.BAD_DEVICE], np.uint8)
    return None if rng.random() < 0.5 else rng.choice(known, shape)


# --- running ---------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a stage gave: frames by group in order, revisions asked for, samples held back."""

    frames: dict[tuple[str, int], list[tuple[int, bytes]]] = field(default_factory=dict)
    effects: set[Any] = field(default_factory=set)
    n_thinned: int = 0

    def add(self, given: FrameBatch | None, result: StepResult) -> None:
        """Take in what one call gave."""
        handed_on = [] if given is None else [given]
        for where, batches in (("on", handed_on), ("derived", result.derived), ("revised", result.revised)):
            for batch in batches:
                batch.check_columns()
                for f in range(batch.n_frames):
                    frame = batch.slice(f, f + 1)
                    key = where, int(frame.slot[0])
                    self.frames.setdefault(key, []).append((int(frame.ts_ns[0]), _bits(frame)))
        self.effects.update(result.effects)
        self.n_thinned += result.n_thinned


def _bits(frame: FrameBatch) -> bytes:
    """All bits of a frame; all good is the same with and without a quality column."""
    quality = np.zeros(frame.values.shape, np.uint8) if frame.quality is None else frame.quality
    plain = frame.with_(quality=quality, slot=np.zeros(1, np.uint32), arrival_ns=0, origin="", sequence=0)
    return plain.to_bytes()


def run(stage: Stage, records: Sequence[Record], outcome: Outcome | None = None) -> Outcome:
    """Tell a stage records; what it gave."""
    outcome = Outcome() if outcome is None else outcome
    for record in records:
        result = StepResult()
        given = None
        if isinstance(record, int):
            stage.tick(record, result)
        else:
            given = stage.process(record, result)
        outcome.add(given, result)
    return outcome


def split_anew(scene: Scene, places: Sequence[int]) -> list[Record]:
    """The scene's records with frames batched anew: a batch ends at each of `places`, and before every tick."""
    out: list[Record] = []
    waiting: list[FrameBatch] = []
    for record in scene.records:
        if isinstance(record, int):
            out += [*cut(waiting, places, scene.directory), record]
            waiting = []
        else:
            waiting.append(record)
    return out + cut(waiting, places, scene.directory)


def _staged(make: Make) -> Iterator[tuple[Scene, Stage]]:
    for scene in scenes():
        stage = make().stage(scene.context())
        if stage is not None:
            yield scene, stage


# --- checks ----------------------------------------------------------------------------------------------


def check_is_a_frozen_value(make: Make) -> None:
    """Two operators of the same keys are equal, and can't be changed."""
    operator: Any = make()
    assert is_dataclass(type(operator)), f"{operator!r} is no dataclass"
    assert operator == make()
    assert hash(operator) == hash(make())
    assert type(operator).__dataclass_params__.frozen, f"{operator!r} is not frozen"


def check_comes_from_its_step(make: Make) -> None:
    """The keys of a step are the operator's fields; an unknown key is refused and named."""
    operator: Any = make()
    step = {"op": "kit", **{f.name: getattr(operator, f.name) for f in fields(operator)}}
    step = {key: value for key, value in step.items() if value is not None}
    assert type(operator).from_step(step, "steps[0]") == operator
    refusal = "it was taken"
    try:
        type(operator).from_step({**step, "no_such_key": 1}, "steps[0]")
    except ConfigError as e:
        refusal = str(e)
    assert "no_such_key" in refusal, f"an unknown key is not refused by its name: {refusal}"


def check_layout_is_pure(make: Make) -> None:
    """The layout of what is handed on follows from the layout of what comes, and has its columns."""
    for scene in scenes():
        first, again = make().layout(scene.layout), make().layout(scene.layout)
        assert first == again, scene.name
        assert first.width == scene.layout.width, scene.name


def check_frames_have_the_layout(make: Make) -> None:
    """What is handed on has the value type and the columns of the operator's layout."""
    for scene, stage in _staged(make):
        layout = make().layout(scene.layout)
        for record in scene.records:
            given = None if isinstance(record, int) else stage.process(record, StepResult())
            if given is not None:
                assert given.dtype == layout.dtype, scene.name
                assert given.shape is not Shape.DENSE or given.width == layout.width, scene.name


def check_input_is_not_changed(make: Make) -> None:
    """Batches that come in are as before afterwards."""
    for scene, stage in _staged(make):
        for record in scene.records:
            before = None if isinstance(record, int) else record.to_bytes()
            run(stage, [record])
            assert isinstance(record, int) or record.to_bytes() == before, scene.name


def check_any_split_gives_the_same(make: Make) -> None:
    """One frame at a time, all at once, or anything between: the same frames of each group, the same effects."""
    for scene, stage in _staged(make):
        expected = run(stage, scene.records)
        n = sum(0 if isinstance(r, int) else r.n_frames for r in scene.records)
        rng = np.random.default_rng(n)
        for places in (range(n + 1), (), rng.integers(0, 5, 3).tolist()):
            other = make().stage(scene.context())
            assert other is not None
            assert run(other, split_anew(scene, list(places))) == expected, scene.name


def check_order_of_groups_is_free(make: Make) -> None:
    """Groups do not see each other: frames of different groups may come in any order."""
    for scene, stage in _staged(make):
        expected = run(stage, scene.records)
        rng = np.random.default_rng(1)
        shuffled = [r if isinstance(r, int) else r.take(rng.permutation(r.n_frames)) for r in scene.records]
        other = make().stage(scene.context())
        assert other is not None
        assert run(other, shuffled) == expected, scene.name


def check_frames_stay_in_order(make: Make) -> None:
    """What is handed on or derived of a group comes in increasing time."""
    for scene, stage in _staged(make):
        for (where, slot), frames in run(stage, scene.records).frames.items():
            times = [ts_ns for ts_ns, _ in frames]
            assert where == "revised" or times == sorted(set(times)), f"{scene.name}, slot {slot}: {times}"


def check_restored_goes_on_the_same(make: Make) -> None:
    """A stage restored from a snapshot, at any point, goes on as the one that was not stopped."""
    for scene, stage in _staged(make):
        n = len(scene.records)
        expected = run(stage, scene.records)
        for place in range(0, n + 1, 3):
            first, second = make().stage(scene.context()), make().stage(scene.context())
            assert first is not None
            assert second is not None
            outcome = run(first, scene.records[:place])
            state = first.snapshot()
            second.restore(memoryview(state))
            assert second.snapshot() == state, f"{scene.name} at {place}"
            assert run(second, scene.records[place:], outcome) == expected, f"{scene.name} at {place}"
            assert second.snapshot() == stage.snapshot(), f"{scene.name} at {place}"


def check_stages_share_nothing(make: Make) -> None:
    """Two stages of one operator do not see each other's frames."""
    for scene, _ in _staged(make):
        operator = make()
        one, other = operator.stage(scene.context()), operator.stage(scene.context())
        assert one is not None
        assert other is not None
        empty = other.snapshot()
        expected = run(one, scene.records)
        assert other.snapshot() == empty, scene.name
        assert run(other, scene.records) == expected, scene.name


def check_groups_may_come_later(make: Make) -> None:
    """Groups defined while the stage runs are served like others."""
    for scene, stage in _staged(make):
        run(stage, scene.records[:4])
        later = scene.directory.define("site/line/later", scene.layout)
        frames = [r.take(np.zeros(1, np.intp)) for r in scene.records if not isinstance(r, int)]
        mine: list[Record] = [b.with_(slot=np.array([later], np.uint32)) for b in frames]
        fresh = make().stage(scene.context())
        assert fresh is not None
        expected, found = run(fresh, mine), run(stage, mine)
        assert found.frames == expected.frames, scene.name


def check_late_frames_do_no_harm(make: Make) -> None:
    """Late frames give revisions at most: what comes in time gives the same frames as without them."""
    for scene, stage in _staged(make):
        expected = run(stage, scene.records).frames
        other = make().stage(scene.context())
        assert other is not None
        outcome = Outcome()
        for record in scene.records:
            run(other, [record], outcome)
            if not isinstance(record, int):
                heard = StepResult()
                other.late(record.with_(ts_ns=record.ts_ns - 300 * NS), heard)
                assert not heard.derived, scene.name
                assert all(effect.end_ns > effect.start_ns for effect in heard.effects), scene.name
        assert outcome.frames == expected, scene.name


def check_a_new_layout_goes_on(make: Make) -> None:
    """A group's new layout takes over the state of its sensors: same columns, the same frames as before."""
    for scene, stage in _staged(make):
        expected = run(stage, scene.records)
        units = tuple(
            Column(c.name, unit="kPa", scale=c.scale, offset=c.offset) for c in scene.layout.columns
        )
        new = Layout(scene.layout.dtype, units)
        half = len(scene.records) // 2
        old_stage, new_stage = make().stage(scene.context()), make().stage(scene.context(new))
        assert old_stage is not None
        assert new_stage is not None
        outcome = run(old_stage, scene.records[:half])
        slots = scene.directory.define_many([scene.directory.paths[s] for s in scene.slots], new)
        result = StepResult()
        for old, slot in zip(scene.slots.tolist(), slots.tolist(), strict=True):
            new_stage.inherit(old_stage, (slot, old), np.arange(new.width), result)
        outcome.add(None, result)
        rest = [
            r if isinstance(r, int) else r.with_(slot=slots[np.searchsorted(scene.slots, r.slot)])
            for r in scene.records[half:]
        ]
        run(new_stage, rest, outcome)
        assert _by_group(scene, outcome) == _by_group(scene, expected), scene.name


def _by_group(scene: Scene, outcome: Outcome) -> dict[tuple[str, int, str], list[tuple[int, bytes]]]:
    """Frames by where they went and group, whatever its layout."""
    found: dict[tuple[str, int, str], list[tuple[int, bytes]]] = {}
    for (where, slot), frames in sorted(outcome.frames.items()):
        number, source = divmod(slot, 1_000_000)
        found.setdefault((where, number, scene.directory.paths[source]), []).extend(frames)
    return found


CHECKS: tuple[Callable[[Make], None], ...] = (
    check_is_a_frozen_value,
    check_comes_from_its_step,
    check_layout_is_pure,
    check_frames_have_the_layout,
    check_input_is_not_changed,
    check_any_split_gives_the_same,
    check_order_of_groups_is_free,
    check_frames_stay_in_order,
    check_restored_goes_on_the_same,
    check_stages_share_nothing,
    check_groups_may_come_later,
    check_late_frames_do_no_harm,
    check_a_new_layout_goes_on,
)
