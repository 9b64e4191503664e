"""The kit for stores as a state machine: anything that answers `SeriesStore` against a dictionary.

Example of a third party's test::

    from headrace.testing.store_machine import StoreUnderTest, check_store

    class MyStore(StoreUnderTest):
        def __init__(self, directory):
            self.database = MyDatabase(directory)

        @property
        def store(self):
            return self.database

        def write(self, batch):
            self.database.insert(batch)

    def test_my_store():
        check_store(MyStore)

Hypothesis writes frames of every shape in order, late, again and revised, flushes, compacts and starts the store again
in any order, asks for samples and windows in between, and shortens what fails. It is needed; nothing else in the package
imports this module. What the store has to answer is in `headrace.testing.stores`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from headrace.core.clock import NS
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.store.base import SeriesStore, Tail
from headrace.testing.stores import StoreModel, check_rows, check_windows

_DAY = 86_400 * NS
_MIDNIGHT = 20_000 * _DAY
_FIRST, _LAST = _MIDNIGHT - 60 * NS, _MIDNIGHT + 60 * NS
_SECONDS = 100
_QUALITIES = (Quality.GOOD, Quality.GOOD, Quality.UNCERTAIN, Quality.BAD_DEVICE, Quality.ABSENT)
_WORDS = (("off", "on", "error"), ("on", "off", "idle"))
_GROUPS = {
    "oven": Layout("u16", (Column("a", unit="degC", scale=0.1, offset=-40.0), Column("b", scale=-2.0))),
    "lone": Layout("f64", (Column(""),)),
    "valve": Layout("i32", tuple(Column(f"s{i}") for i in range(3))),
    "meter": Layout("i64", (Column("n", Kind.COUNTER),)),
    "state": Layout("u8", (Column("word", Kind.DISCRETE),)),
    "motor": Layout("f32", (Column("v", Kind.WAVEFORM),)),
}
_VALUES: dict[str, list[Any]] = {
    "u16": [0, 1, 2, 65_535], "f64": [0.0, -0.0, 1.5, float("nan"), -3.25], "i32": [-7, 0, 9],
    "i64": [2**40, 5, -5], "u8": [0, 1, 2], "f32": [0.5, -0.5, 2.0],
}  # fmt: skip


class StoreUnderTest(ABC):
    """A store, and how it is written to; made from the directory of the sensors that the kit writes."""

    @property
    @abstractmethod
    def store(self) -> SeriesStore:
        """What is asked; looked up anew after each step."""

    @property
    def tail(self) -> Tail | None:
        """What the store is handed with each question of what is not flushed; None where it knows that itself."""
        return None

    @abstractmethod
    def write(self, batch: FrameBatch) -> None:
        """Take a batch; when this returns it is durable, and later questions see it.

        Its samples take the place of earlier ones of the same sensor and time; absent ones say nothing.
        """

    def flush(self) -> None:  # noqa: B027 - a store that has nothing of the kind does nothing
        """Write what is in memory to where it stays."""

    def compact(self) -> None:  # noqa: B027
        """Rewrite what is stored."""

    def restart(self) -> None:  # noqa: B027
        """Lose what is in memory, and start on what is durable."""


Make = Callable[[SensorDirectory], StoreUnderTest]


def plant() -> tuple[SensorDirectory, dict[str, int]]:
    """The kit's sensors, one group of every shape, and the groups' slots."""
    directory = SensorDirectory(shard_bits=1)
    return directory, {name: directory.define(f"plant/{name}", layout) for name, layout in _GROUPS.items()}


@st.composite
def _batches(draw: st.DrawFn, name: str, slot: int, first: int) -> FrameBatch:
    """Frames of one group from second `first` on."""
    layout = _GROUPS[name]
    n = draw(st.integers(1, 3))
    steps = np.cumsum(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    slots, ts_ns = np.full(n, slot, np.uint32), _FIRST + (first + steps) * NS

    def values(k: int) -> Any:
        some = draw(st.lists(st.sampled_from(_VALUES[layout.dtype]), min_size=k, max_size=k))
        return np.array(some, numpy_dtype(layout.dtype))

    def quality(k: int) -> Any:
        marks = st.lists(st.sampled_from(_QUALITIES), min_size=k, max_size=k)
        some = draw(st.none() | marks)
        return None if some is None else np.array(some, np.uint8)

    if name in ("oven", "lone", "meter"):
        marks = quality(n * layout.width)
        return FrameBatch.dense(
            slots,
            ts_ns,
            values(n * layout.width).reshape(n, -1),
            None if marks is None else marks.reshape(n, -1),
        )
    start = np.concatenate([[0], np.cumsum(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n)))])
    k = int(start[-1])
    if name == "motor":
        rate = np.full(n, draw(st.sampled_from([1, 3]))), np.full(n, 2)
        return FrameBatch.wave(slots, ts_ns, values(k), start, rate, quality=quality(k))
    column = np.array(draw(st.lists(st.integers(0, layout.width - 1), min_size=k, max_size=k)), np.uint16)
    words = draw(st.sampled_from(_WORDS)) if name == "state" else None
    return FrameBatch.sparse(slots, ts_ns, values(k), start, column, quality=quality(k), dictionary=words)


class _Machine(RuleBasedStateMachine):
    """What is done to a store, and to the model beside it."""

    make: Make

    def __init__(self) -> None:
        super().__init__()
        directory, self.slots = plant()
        self.under_test = type(self).make(directory)
        self.model = StoreModel(directory)
        self.written: list[FrameBatch] = []
        self.second = 0

    def _write(self, batch: FrameBatch) -> None:
        self.written.append(batch)
        self.under_test.write(batch)
        self.model.put(batch)

    @rule(data=st.data(), name=st.sampled_from(sorted(_GROUPS)))
    def write(self, data: st.DataObject, name: str) -> None:
        self.second = min(self.second + 3, _SECONDS)
        self._write(data.draw(_batches(name, self.slots[name], self.second)))

    @rule(data=st.data(), name=st.sampled_from(sorted(_GROUPS)))
    def write_late(self, data: st.DataObject, name: str) -> None:
        first = data.draw(st.integers(0, max(self.second - 1, 0)))
        self._write(data.draw(_batches(name, self.slots[name], first)))

    @precondition(lambda self: self.written)
    @rule(data=st.data())
    def write_again(self, data: st.DataObject) -> None:
        self._write(data.draw(st.sampled_from(self.written)))

    @rule()
    def flush(self) -> None:
        self.under_test.flush()

    @rule()
    def compact(self) -> None:
        self.under_test.compact()

    @rule()
    def restart(self) -> None:
        self.under_test.restart()

    @precondition(lambda self: self.model.samples)
    @rule(first=st.integers(0, 60), n=st.integers(1, 60))
    def ask_for_samples(self, first: int, n: int) -> None:
        self._check(_FIRST + first * NS, _FIRST + (first + n) * NS)

    def _check(self, start_ns: int, end_ns: int) -> None:
        check_rows(self.under_test.store, self.model, start_ns, end_ns, self.under_test.tail)

    @precondition(lambda self: self.model.samples)
    @rule(every_ns=st.sampled_from([5 * NS, 60 * NS, _DAY]))
    def ask_for_windows(self, every_ns: int) -> None:
        under_test = self.under_test
        check_windows(under_test.store, self.model, (_FIRST, _LAST), every_ns, under_test.tail)

    def teardown(self) -> None:
        if self.model.samples:
            self._check(_FIRST, _LAST)


def check_store(make: Make, n_examples: int = 40, n_steps: int = 20, *, shrinks: bool = True) -> None:
    """Run a store through lives of up to `n_steps` steps. AssertionError, with the shortest life, where it fails.

    Parameters
    ----------
    make : from the directory of the sensors to an empty store. shrinks : whether to look for the shortest life that
        fails, which takes minutes.
    """
    machine = type("StoreLife", (_Machine,), {"make": staticmethod(make)})
    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrinks else [])]
    chosen = settings(
        phases=phases,
        database=None,
        max_examples=n_examples,
        stateful_step_count=n_steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)
