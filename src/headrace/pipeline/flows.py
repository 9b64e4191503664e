"""Flows: pipelines compiled for a directory, and their chains of stages in each shard.

A pipeline of ``plant.toml`` reads sensors by pattern, runs operators, and writes derived series beside them. A
`Flow` resolves that once a group, not once a frame: which columns of which slots are read, in which *class* of
equal numeric layout they fall, and to which derived slots the results go. `FlowShard` is one shard's part: a
chain of stages for each class, made when its first frame comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError
from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import Layout
from headrace.core.paths import pattern_regex
from headrace.core.sensors import DERIVED, Growing, SensorDirectory, join_path
from headrace.pipeline.base import Revise, Stage, StepResult
from headrace.pipeline.operators.base import Context, Operator
from headrace.pipeline.operators.registry import operator_of
from headrace.pipeline.operators.window import Window, WindowOperator, output_layout, outputs
from headrace.pipeline.packing import pack_parts, unpack_parts
from headrace.pipeline.windows import MIXED, only_class

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FlowSpec:
    """A pipeline as written: what it reads, its steps, where it writes.

    Parameters
    ----------
    read : pattern of sensor paths. steps : operators in order, ``{"op": name, ...}``; `window` comes last.
    write : template of the derived paths: ``{parent}/`` and a name of ``{signal}`` and ``{agg}``.

    Raises
    ------
    ConfigError : what is wrong in which key.
    """

    name: str
    read: str
    steps: tuple[dict[str, Any], ...]
    write: str

    def __post_init__(self) -> None:
        where = f"pipelines.{self.name}"
        pattern_regex(self.read)
        if not self.write.startswith("{parent}/") or "/" in self.write[9:] or "{signal}" not in self.write:
            raise ConfigError(
                f"{self.write!r} must be '{{parent}}/' and a name with {{signal}}, as in "
                "'{parent}/{signal}_{agg}_1m': derived series stand beside their source",
                f"{where}.write",
            )
        for i, operator in enumerate(self.operators):
            if operator.ends_flow and i != len(self.steps) - 1:
                raise ConfigError(f"{self.steps[i]['op']} must be the last step", f"{where}.steps[{i}]")
        if self.window and "{agg}" not in self.write and len(self.window.agg) > 1:
            raise ConfigError("with several aggregates the name needs {agg}", f"{where}.write")

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """The steps as operators."""
        where = f"pipelines.{self.name}.steps"
        return tuple(operator_of(step, f"{where}[{i}]") for i, step in enumerate(self.steps))

    @property
    def window(self) -> WindowOperator | None:
        """The window step, if there is one."""
        last = self.operators[-1] if self.operators else None
        return last if isinstance(last, WindowOperator) else None

    def derived_name(self, signal: str, aggregate: str = "") -> str:
        """Name of the derived series of a signal."""
        return self.write[9:].replace("{signal}", signal).replace("{agg}", aggregate)


@dataclass
class _Class:
    """Slots whose selected columns agree in everything that operators look at."""

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
    _numbers: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _by_layout: dict[tuple[int, tuple[int, ...]], tuple[int, list[Layout], list[str]]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self._regex = pattern_regex(self.spec.read)
        # A window has at most three outputs: values in their own type, counts, floats.
        self.n_outputs = 3 if self.spec.window else 1
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
        """Take in slots defined since, and define the derived groups they need."""
        directory = self.directory
        first, last = self._class_of_slot.n, directory.n_slots
        jobs: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for slot in range(first, last):
            columns = self._selected(slot)
            if columns:
                jobs.setdefault((int(directory.layout_index[slot]), columns), []).append(slot)
        self._class_of_slot.extend(-1, last - first)
        for growing in self._derived:
            growing.extend(0, last - first)
        for key, slots in jobs.items():
            number, layouts, parts = self._plan(*key)
            self.class_of_slot[slots] = number
            paths = [directory.paths[s] for s in slots]
            for growing, layout, part in zip(self._derived, layouts, parts, strict=False):
                growing.view[slots] = directory.define_many(paths, layout, part)

    def _selected(self, slot: int) -> tuple[int, ...]:
        directory = self.directory
        if directory.is_derived(slot):
            return ()  # flows never read what flows wrote
        path, layout = directory.paths[slot], directory.layout(slot)
        if self.spec.read == "**":
            return tuple(range(layout.width))
        names = (join_path(path, c.name) for c in layout.columns)
        return tuple(i for i, name in enumerate(names) if self._regex.fullmatch(name))

    def _plan(self, layout_index: int, columns: tuple[int, ...]) -> tuple[int, list[Layout], list[str]]:
        """Class number, derived layouts and derived parts of a selection of a layout's columns."""
        known = self._by_layout.get((layout_index, columns))
        if known is not None:
            return known
        source = self.directory.layouts[layout_index]
        chosen = Layout(source.dtype, tuple(source.columns[i] for i in columns))
        layout = chosen
        for operator in self.spec.operators:
            layout = operator.layout(layout)
        numeric = tuple((c.scale, c.offset) for c in chosen.columns)
        signature = (source.dtype, columns if len(columns) < source.width else len(columns), numeric)
        number = self._numbers.setdefault(signature, len(self._numbers))
        if number == len(self.classes):
            whole = len(columns) == source.width
            self.classes.append(_Class(None if whole else np.array(columns, np.intp), chosen))
        layouts, parts = self._derived_layouts(layout)
        taken = {c.name for c in source.columns} & {c.name for one in layouts for c in one.columns}
        if taken:
            raise ConfigError(
                f"{self.spec.write!r} gives derived series the name {sorted(taken)[0]!r} of a sensor that is there "
                "already; add a suffix",
                f"pipelines.{self.spec.name}.write",
            )
        self._by_layout[(layout_index, columns)] = number, layouts, parts
        return number, layouts, parts

    def _derived_layouts(self, layout: Layout) -> tuple[list[Layout], list[str]]:
        lone = layout.columns[0].name == ""

        def name(signal: str, aggregate: str = "") -> str:
            return ("../" if lone else "") + self.spec.derived_name(signal or _LONE, aggregate)

        prefix = DERIVED + self.spec.name
        if self.spec.window is None:
            columns = tuple(replace(c, name=name(c.name)) for c in layout.columns)
            return [Layout(layout.dtype, columns)], [f"{prefix}.{layout.dtype}"]
        found = outputs(layout.dtype, self.spec.window.agg)
        return [output_layout(layout, o, name) for o in found], [f"{prefix}.{o.dtype}" for o in found]


_LONE = "{self}"


class FlowShard:
    """One shard's part of a flow."""

    def __init__(self, flow: Flow, shard: int) -> None:
        self.flow = flow
        self._shard = shard
        self._chains: dict[int, list[Stage]] = {}

    def process(self, batch: FrameBatch, result: StepResult) -> None:
        """Run accepted frames through the chains of their classes."""
        self._each_class(batch, result, self._run)

    def late(self, batch: FrameBatch, result: StepResult) -> None:
        """Tell the chains of late frames."""
        self._each_class(batch, result, self._tell)

    def _each_class(
        self, batch: FrameBatch, result: StepResult, act: Callable[[int, FrameBatch, StepResult], None]
    ) -> None:
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

    def _tell(self, number: int, batch: FrameBatch, result: StepResult) -> None:
        for stage in self._chain(number):
            stage.late(batch, result)

    def _select(self, number: int, batch: FrameBatch) -> FrameBatch | None:
        columns = self.flow.classes[number].columns
        if columns is None:
            return batch
        if batch.shape is Shape.DENSE:
            quality = None if batch.quality is None else batch.quality[:, columns]
            return batch.with_(values=np.ascontiguousarray(batch.values[:, columns]), quality=quality)
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
        for chain in self._chains.values():
            for stage in chain:
                stage.tick(now_ns, result)

    def recompute(self, effect: Revise, batch: FrameBatch) -> StepResult:
        """Compute a window again from all stored frames of its group, in time order, in the source's type."""
        result = StepResult()
        number = int(self.flow.class_of_slot[effect.slot])
        chosen: FrameBatch | None = self._select(number, batch)
        for stage in self._make(number):
            if isinstance(stage, Window):
                if chosen is not None and chosen.n_frames:
                    stage.recompute(chosen, effect.start_ns, result)
            elif chosen is not None:
                chosen = stage.process(chosen, result)
        return result

    def snapshot(self) -> bytes:
        """State of all chains, by class."""
        numbers = sorted(self._chains)
        chains = (pack_parts([stage.snapshot() for stage in self._chains[n]]) for n in numbers)
        return pack_parts([np.array(numbers, np.int64).tobytes(), *chains])

    def restore(self, data: bytes | memoryview) -> None:
        """Take over the chains of a snapshot."""
        head, *rest = unpack_parts(data)
        self._chains = {}
        for number, part in zip(np.frombuffer(head, np.int64).tolist(), rest, strict=True):
            chain = self._chain(number)
            for stage, state in zip(chain, unpack_parts(part), strict=True):
                stage.restore(state)


def _select_sparse(batch: FrameBatch, columns: npt.NDArray[np.intp]) -> FrameBatch | None:
    """The chosen columns of sparse frames, numbered anew; None where nothing is left."""
    if batch.column is None or batch.start is None:
        return batch
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
