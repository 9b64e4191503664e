"""Flows: pipelines compiled for a directory, and their chains of stages in each shard.

A pipeline of ``plant.toml`` reads sensors by pattern, runs operators, and writes derived series beside them. A
`Flow` resolves that once a group, not once a frame: which columns of which slots are read, in which *class* of
equal numeric layout they fall, and to which derived slots the results go. `FlowShard` is one shard's part: a
chain of stages for each class, made when its first frame comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.growing import Growing
from headrace.core.layouts import Layout
from headrace.core.paths import check_path, pattern_regex
from headrace.core.quality import Quality
from headrace.core.sensors import DERIVED, SensorDirectory, join_path
from headrace.pipeline.base import BACK, NEW, Revise, Stage, StepResult
from headrace.pipeline.operators.base import Context, Operator
from headrace.pipeline.operators.map import function_name
from headrace.pipeline.operators.registry import operator_of
from headrace.pipeline.packing import pack_parts, unpack_parts
from headrace.pipeline.succession import Succession
from headrace.pipeline.windowing import Window, Windowed, output_layout
from headrace.pipeline.windows import MIXED, only_class

Array = npt.NDArray[Any]
_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class FlowSpec:
    """A pipeline as written: what it reads, its steps, where it writes.

    Parameters
    ----------
    read : pattern of sensor paths. steps : operators in order, ``{"op": name, ...}``; `window` comes last.
    write : template of the derived paths: ``{parent}/`` and a name with ``{signal}`` or ``{agg}`` or one of its own.
    folder : where functions of `map` steps are looked for first: that of the plant file.

    Raises
    ------
    ConfigError : what is wrong in which key.
    """

    name: str
    read: str
    steps: tuple[dict[str, Any], ...]
    write: str
    folder: str = ""

    def __post_init__(self) -> None:
        where = f"pipelines.{self.name}"
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"{self.name!r} can't name a pipeline; use letters, digits, _ and -", where)
        try:
            pattern_regex(self.read)
        except ConfigError as e:
            raise ConfigError(e.message, f"{where}.read") from e
        self._check_write(f"{where}.write")
        for i, operator in enumerate(self.operators):
            if operator.ends_flow and i != len(self.steps) - 1:
                raise ConfigError(f"{self.steps[i]['op']} must be the last step", f"{where}.steps[{i}]")
        if self.window and "{agg}" not in self.write and len(self.window.agg) > 1:
            raise ConfigError("with several aggregates the name needs {agg}", f"{where}.write")
        if not self.window and "{agg}" in self.write:
            raise ConfigError("{agg} needs a window step", f"{where}.write")

    def _check_write(self, where: str) -> None:
        head, _, name = self.write.partition("/")
        if head != "{parent}" or "/" in name or not name:
            raise ConfigError(
                f"{self.write!r} must be '{{parent}}/' and a name, as in '{{parent}}/{{signal}}_{{agg}}_1m': "
                "derived series stand beside their source",
                where,
            )
        if name == "{signal}":
            raise ConfigError("derived series can't have the names of their sources; add a suffix", where)
        try:
            check_path(self.derived_name("signal", "agg"))
        except ConfigError as e:
            raise ConfigError(
                f"{name!r}: only {{signal}} and {{agg}} stand in braces; {e.message}", where
            ) from e

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse of `from_dict`. The folder is there where functions are looked for in it."""
        out = {"name": self.name, "read": self.read, "steps": list(self.steps), "write": self.write}
        return {**out, "folder": self.folder} if self._has_folder else out

    @property
    def _has_folder(self) -> bool:
        return bool(self.folder) and any(step.get("op") == "map" for step in self.steps)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FlowSpec:
        """The inverse of `to_dict`. Raises `ConfigError`."""
        return cls(data["name"], data["read"], tuple(data["steps"]), data["write"], data.get("folder", ""))

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """The steps as operators."""
        where = f"pipelines.{self.name}.steps"
        steps = [
            {**s, "folder": self.folder} if s.get("op") == "map" and self.folder else s for s in self.steps
        ]
        return tuple(operator_of(step, f"{where}[{i}]") for i, step in enumerate(steps))

    @property
    def window(self) -> Windowed | None:
        """The step that ends the flow with windows, if there is one."""
        last = self.operators[-1] if self.operators else None
        return last if isinstance(last, Windowed) else None

    def derived_name(self, signal: str, aggregate: str = "") -> str:
        """Name of the derived series of a signal."""
        return self.write[9:].replace("{signal}", signal).replace("{agg}", aggregate)


@dataclass
class _Class:
    """Slots whose selected columns agree in everything that operators look at."""

    signature: str
    columns: npt.NDArray[np.intp] | None
    layout: Layout


@dataclass
class Flow:
    """A pipeline over a directory. Changed only by the thread that defines groups, before their first frame."""

    spec: FlowSpec
    directory: SensorDirectory
    classes: list[_Class] = field(default_factory=list)
    _class_of_slot: Growing = field(default_factory=lambda: Growing(np.int32))
    _derived: list[Growing] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    _by_layout: dict[tuple[int, tuple[int, ...]], tuple[int, list[Layout]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._regex = pattern_regex(self.spec.read)
        self._reads_all = self.spec.read == "**"
        self._sole: dict[tuple[str, int], int] = {}
        # A window has at most two outputs: values in their own type, and floats or counts.
        self.n_outputs = 2 if self.spec.window else 1
        self._derived = [Growing(np.uint32) for _ in range(self.n_outputs)]

    @property
    def class_of_slot(self) -> Array:
        """Class of each slot; -1 where the flow does not read it."""
        return self._class_of_slot.view

    def derived(self, number: int) -> Any:
        """A view by source slot of the derived slots of output `number`, current at each use."""
        growing = self._derived[number]

        class _Current:
            def __getitem__(self, slot: Array) -> Array:
                return growing.view[slot]

        return _Current()

    def extend(self) -> None:
        """Take in slots defined since, and define the derived groups they need.

        Raises
        ------
        ConfigError : derived series would get names that are taken; those groups are not read, others are.
        """
        directory = self.directory
        first, last = self._class_of_slot.n, directory.n_slots
        jobs: dict[tuple[int, tuple[int, ...], str], list[int]] = {}
        for slot in range(first, last):
            columns = self._selected(slot)
            if columns:
                key = int(directory.layout_index[slot]), columns, directory.parts[slot]
                jobs.setdefault(key, []).append(slot)
        self._class_of_slot.extend(-1, last - first)
        for growing in self._derived:
            growing.extend(0, last - first)
        problems = []
        for (layout_index, columns, part), slots in jobs.items():
            try:
                number, layouts = self._plan(layout_index, columns)
            except ConfigError as e:
                problems.append(e)
                self._reads_all = False
                continue
            paths = [directory.paths[s] for s in slots]
            prefix = ".".join([DERIVED + self.spec.name, *filter(None, [part])])
            for growing, layout in zip(self._derived, layouts, strict=False):
                growing.view[slots] = directory.define_many(paths, layout, f"{prefix}.{layout.dtype}")
            self.class_of_slot[slots] = number
        if problems:
            raise problems[0]

    def sensors(self, slot: int) -> Array:
        """Ids of the sensors of `slot` that the flow reads: uint64[D]."""
        columns = self.classes[int(self.class_of_slot[slot])].columns
        ids = self.directory.sensors(slot)
        return ids if columns is None else ids[columns]

    def _selected(self, slot: int) -> tuple[int, ...]:
        directory = self.directory
        if directory.is_derived(slot):
            return ()  # flows never read what flows wrote
        path, layout = directory.paths[slot], directory.layout(slot)
        if self.spec.read == "**":
            return tuple(range(layout.width))
        names = (join_path(path, c.name) for c in layout.columns)
        return tuple(i for i, name in enumerate(names) if self._regex.fullmatch(name))

    def _plan(self, layout_index: int, columns: tuple[int, ...]) -> tuple[int, list[Layout]]:
        """Class number and derived layouts of a selection of a layout's columns."""
        known = self._by_layout.get((layout_index, columns))
        if known is not None:
            return known
        source = self.directory.layouts[layout_index]
        chosen = Layout(source.dtype, tuple(source.columns[i] for i in columns))
        if chosen.width > 1 and "{signal}" not in self.spec.write:
            names = ", ".join(c.name for c in chosen.columns[:3])
            raise ConfigError(
                f"{self.spec.write!r} gives {chosen.width:,} signals of one device ({names}, ...) the same name; write "
                "{signal} into it, or read one signal only",
                f"pipelines.{self.spec.name}.write",
            )
        layout = chosen
        for operator in self.spec.operators:
            layout = operator.layout(layout)
        layouts = self._derived_layouts(layout)
        taken = {c.name for c in source.columns} & {c.name for one in layouts for c in one.columns}
        if taken:
            raise ConfigError(
                f"{self.spec.write!r} gives derived series the name {sorted(taken)[0]!r} of a sensor that is there "
                "already; add a suffix",
                f"pipelines.{self.spec.name}.write",
            )
        whole = len(columns) == source.width
        numeric = [(c.scale, c.offset) for c in chosen.columns]
        signature = json.dumps([source.dtype, len(columns) if whole else columns, numeric])
        number = self.numbers.setdefault(signature, len(self.numbers))
        if number == len(self.classes):
            self.classes.append(_Class(signature, None if whole else np.array(columns, np.intp), chosen))
            key = source.dtype, source.width
            self._sole[key] = MIXED if key in self._sole else number
        self._by_layout[(layout_index, columns)] = number, layouts
        return number, layouts

    def sole_class(self, batch: FrameBatch) -> int:
        """The only class that frames like these can have, without a look at each; `MIXED` where there are more."""
        if not self._reads_all or batch.shape is not Shape.DENSE:
            return MIXED
        return self._sole.get((batch.dtype, batch.width), MIXED)

    def _derived_layouts(self, layout: Layout) -> list[Layout]:
        lone = layout.columns[0].name == ""

        def name(signal: str, aggregate: str = "") -> str:
            return ("../" if lone else "") + self.spec.derived_name(signal or _LONE, aggregate)

        if self.spec.window is None:
            return [Layout(layout.dtype, tuple(replace(c, name=name(c.name)) for c in layout.columns))]
        found = self.spec.window.outputs(layout.dtype)
        return [output_layout(layout, o, name) for o in found]


_LONE = "{self}"


class FlowShard:
    """One shard's part of a flow."""

    def __init__(self, flow: Flow, shard: int) -> None:
        self.flow = flow
        self._shard = shard
        self._chains: dict[int, list[Stage]] = {}
        self._succession = Succession(flow.directory, shard, lambda: flow.class_of_slot)
        operators = flow.spec.operators
        # What a stage with a memory hands on can't be computed again from one window's samples.
        self._repeatable = not any(o.remembers for o in operators if not o.ends_flow)

    # --- frames --------------------------------------------------------------------------------------

    def process(self, batch: FrameBatch, result: StepResult) -> None:
        """Run accepted frames through the chains of their classes; texts pass, they are not read."""
        if batch.dictionary is not None:
            return
        n_effects = len(result.effects)
        self._begin(batch, result)
        current: FrameBatch | None = batch
        if self.flow.spec.window is not None:
            current = self._without_succeeded(batch, result)
        if current is not None:
            self._each_class(current, result, self._run)
        if not self._repeatable:
            del result.effects[n_effects:]

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Tell the chains of late frames; without windows and memory, late frames run like others."""
        if not self._repeatable or batch.dictionary is not None:
            return
        self._begin(batch, result)
        if self.flow.spec.window is not None:
            heard = self._tell(batch)
            result.derived += heard.derived
            result.revised += heard.revised
            result.late_effects += heard.effects
            return
        late = StepResult()
        self._each_class(batch, late, self._run)
        result.revised += late.derived

    def _begin(self, batch: FrameBatch, result: StepResult) -> None:
        """Let the first frames of a group's new layout take over its state."""
        flow = self.flow
        for slot, old in self._succession.begin(batch.slot):
            chain = self._chains.get(int(flow.class_of_slot[old]))
            if chain is not None:
                columns = self._places(slot, old)
                for stage, was in zip(self._chain(int(flow.class_of_slot[slot])), chain, strict=True):
                    stage.inherit(was, (slot, old), columns, result)

    def _places(self, slot: int, old: int) -> npt.NDArray[np.int64]:
        """Where each sensor of `slot` is in `old`, as `Stage.inherit` wants it."""
        flow, directory = self.flow, self.flow.directory
        place: dict[int, int] = {}
        before = int(directory.previous[old])
        while before >= 0:
            if flow.class_of_slot[before] >= 0:
                place.update(dict.fromkeys(flow.sensors(before).tolist(), BACK))
            before = int(directory.previous[before])
        place.update((sensor, i) for i, sensor in enumerate(flow.sensors(old).tolist()))
        return np.array([place.get(sensor, NEW) for sensor in flow.sensors(slot).tolist()], np.int64)

    def _without_succeeded(self, batch: FrameBatch, result: StepResult) -> FrameBatch | None:
        """Frames of layouts that were succeeded lead to revisions: their sensors' windows are with the heir."""
        old = self._succession.succeeded(batch.slot)
        if old is None:
            return batch
        heard = self._tell(batch.take(np.flatnonzero(old)))
        result.derived += heard.derived
        result.revised += heard.revised
        result.effects += heard.effects
        return None if old.all() else batch.take(np.flatnonzero(~old))

    def _tell(self, batch: FrameBatch) -> StepResult:
        """What windows make of late frames."""
        result = StepResult()
        old = self._succession.succeeded(batch.slot)
        if old is not None:
            for slot in np.unique(batch.slot[old]).tolist():
                self._revise_lost(slot, batch, result)
            slots = [self._succession.holder(s) for s in batch.slot.tolist()]
            batch = batch.with_(slot=np.array(slots, np.uint32))
        # By slot alone: the frames may have the shape of a layout that their group has left.
        number = self.flow.class_of_slot[batch.slot]
        for one in np.unique(number[number >= 0]).tolist():
            mine = batch.take(np.flatnonzero(number == one))
            for stage in self._chain(one):
                stage.late(mine, result)
        return result

    def _revise_lost(self, slot: int, batch: FrameBatch, result: StepResult) -> None:
        """Ask for the windows of the sensors that `slot` has and the group's present layout has not."""
        window = self.flow.spec.window
        assert window is not None
        if self.flow.class_of_slot[slot] < 0 or not self._lost(slot).any():
            return
        ts_ns = batch.take(np.flatnonzero(batch.slot == slot)).value_times()
        for start_ns in window.starts(ts_ns):
            result.effects.append(Revise(self.flow.spec.name, slot, start_ns, start_ns + window.size_ns))

    def _lost(self, slot: int) -> npt.NDArray[np.bool_]:
        """Which sensors of a succeeded `slot` its group's present layout does not have: bool[D]."""
        holder = self._succession.holder(slot)
        return ~np.isin(self.flow.sensors(slot), self.flow.sensors(holder))

    def _each_class(
        self, batch: FrameBatch, result: StepResult, act: Callable[[int, FrameBatch, StepResult], None]
    ) -> None:
        one = self.flow.sole_class(batch)
        if one == MIXED:
            one = only_class(batch.slot, self.flow.class_of_slot)
        if one != MIXED:
            if one >= 0:
                act(one, batch, result)
            return
        number = self.flow.class_of_slot[batch.slot]
        for one in np.unique(number).tolist():
            if one >= 0:
                act(one, batch.take(np.flatnonzero(number == one)), result)

    def _run(self, number: int, batch: FrameBatch, result: StepResult) -> None:
        flow: FrameBatch | None = self._select(number, batch)
        for stage in self._chain(number):
            if flow is None:
                return
            flow = stage.process(flow, result)
        if flow is not None:
            slot = self.flow.derived(0)[flow.slot]
            result.derived.append(flow.with_(slot=slot, origin=self.flow.spec.name))

    def _select(self, number: int, batch: FrameBatch) -> FrameBatch | None:
        columns = self.flow.classes[number].columns
        if columns is None:
            return batch
        if batch.shape is Shape.DENSE:
            quality = None if batch.quality is None else batch.quality[:, columns]
            return batch.with_(values=np.ascontiguousarray(batch.values[:, columns]), quality=quality)
        if batch.shape is Shape.WAVE:
            return batch if columns[0] == 0 else None  # a waveform is its group's first column
        return _select_sparse(batch, columns)

    def _chain(self, number: int) -> list[Stage]:
        chain = self._chains.get(number)
        if chain is None:
            chain = self._chains[number] = self._make(number)
        return chain

    def _make(self, number: int) -> list[Stage]:
        flow, layout = self.flow, self.flow.classes[number].layout
        targets = [flow.derived(i) for i in range(flow.n_outputs)]
        chain: list[Stage] = []
        for operator in flow.spec.operators:
            context = Context(flow.spec.name, flow.directory, self._shard, layout, targets)
            stage = operator.stage(context)
            if stage is not None:
                chain.append(stage)
            layout = operator.layout(layout)
        return chain

    def tick(self, now_ns: int, result: StepResult) -> None:
        """Pass time on."""
        n_effects = len(result.effects)
        for chain in self._chains.values():
            for stage in chain:
                stage.tick(now_ns, result)
        if not self._repeatable:
            del result.effects[n_effects:]

    def recompute(self, effects: Sequence[Revise], frames: Mapping[int, FrameBatch]) -> list[FrameBatch]:
        """Compute windows of one span again from all stored frames of their groups, by slot in `frames`."""
        together: dict[tuple[Any, ...], list[FrameBatch]] = {}
        out: list[FrameBatch] = []
        for effect in effects:
            batch, number = frames[effect.slot], int(self.flow.class_of_slot[effect.slot])
            if self._is_held_by_another(effect):
                # The present layout will tell of the sensors that it has.
                lost = self._lost(effect.slot)
                found = self._recompute(number, batch, effect.start_ns)
                out += [b for b in (_only(b, lost) for b in found) if b.n_samples]
            else:
                key = number, batch.kind_key, effect.start_ns
                together.setdefault(key, []).append(batch)
        for (number, _, start_ns), batches in together.items():
            out += self._recompute(number, FrameBatch.concat(batches), start_ns)
        return out

    def _recompute(self, number: int, batch: FrameBatch, start_ns: int) -> list[FrameBatch]:
        result = StepResult()
        chosen = self._select(number, batch)
        for stage in self._make(number):
            if chosen is None or not chosen.n_frames:
                break
            if isinstance(stage, Window):
                stage.recompute(chosen, start_ns, result)
            else:
                chosen = stage.process(chosen, StepResult())
        return result.revised

    def _is_held_by_another(self, effect: Revise) -> bool:
        """Whether the window is not over yet, and belongs to a later layout of the group."""
        holder = self._succession.holder(effect.slot)
        chain = self._chains.get(int(self.flow.class_of_slot[holder]), ())
        windows = (stage for stage in chain if isinstance(stage, Window))
        return holder != effect.slot and any(not w.has_passed(holder, effect.start_ns) for w in windows)

    # --- state ---------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """State of all chains, by what their class looks like."""
        chains = {self.flow.classes[n].signature: chain for n, chain in self._chains.items()}
        head = {
            "steps": self._steps(),
            "write": self.flow.spec.write,
            "folder": self.flow.spec.folder,
            "classes": list(chains),
            "begun": self._succession.begun,
        }
        parts = (pack_parts([stage.snapshot() for stage in chain]) for chain in chains.values())
        return pack_parts([json.dumps(head).encode(), *parts])

    def _steps(self) -> str:
        spec = self.flow.spec
        return json.dumps([spec.read, spec.steps], sort_keys=True, default=function_name)

    def restore(self, data: bytes | memoryview) -> None:
        """Take over the chains of a snapshot; a pipeline that was changed since starts empty."""
        head_bytes, *parts = unpack_parts(data)
        head = json.loads(bytes(head_bytes))
        self._chains = {}
        if head["steps"] != self._steps():
            return
        self._succession.restore(head["begun"])
        for signature, part in zip(head["classes"], parts, strict=True):
            number = self.flow.numbers.get(signature)
            if number is not None:
                for stage, state in zip(self._chain(number), unpack_parts(part), strict=True):
                    stage.restore(state)


def spec_of_state(name: str, state: bytes | memoryview) -> FlowSpec:
    """The pipeline that a snapshot of its part in a shard is of.

    Raises
    ------
    ConfigError : it can't be run any more: an operator is gone.
    """
    head = json.loads(bytes(unpack_parts(state)[0]))
    read, steps = json.loads(head["steps"])
    return FlowSpec(name, read, tuple(steps), head["write"], head["folder"])


def _only(batch: FrameBatch, columns: npt.NDArray[np.bool_]) -> FrameBatch:
    """Derived frames with the aggregates of some source columns; the others become absent."""
    n = len(columns)
    if batch.shape is Shape.DENSE:
        keep = np.broadcast_to(np.tile(columns, batch.width // n), batch.values.shape)
    else:
        assert batch.column is not None
        keep = columns[batch.column % n]
    quality = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
    return batch.with_(quality=np.where(keep, quality, np.uint8(Quality.ABSENT)))


def _select_sparse(batch: FrameBatch, columns: npt.NDArray[np.intp]) -> FrameBatch | None:
    """The chosen columns of sparse frames, numbered anew; None where nothing is left."""
    assert batch.column is not None
    assert batch.start is not None
    at = np.searchsorted(columns, batch.column)
    at[at == len(columns)] = 0
    keep = columns[at] == batch.column
    frame = np.repeat(np.arange(batch.n_frames), np.diff(batch.start))[keep]
    count = np.bincount(frame, minlength=batch.n_frames)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
    some: dict[str, Any] = {
        "values": batch.values[keep],
        "column": at[keep].astype(np.uint16),
        "start": start,
    }
    for name in ("quality", "value_ts_ns"):
        if getattr(batch, name) is not None:
            some[name] = getattr(batch, name)[keep]
    left = batch.with_(**some).take(np.flatnonzero(count))
    return left if left.n_frames else None
