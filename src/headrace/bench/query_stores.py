"""Stores for the query benchmark, made as a plant makes them: frames in, journal, shards, flushes, compaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench.load import FULL_SCALE, fleet_series
from headrace.core.clock import NS, VirtualClock
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.runtime.pipe import Pipe
from headrace.store.compactor import Compactor

START_NS = 1_767_225_600 * NS
"""A midnight, UTC."""
GROUP = 50
BATCH_VALUES = 1 << 19
COMPACT_EVERY_S = 300
_WAIT_S = 60.0
Array = npt.NDArray[Any]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class QueryStoreSpec:
    """What store to make: `sensors` (a multiple of 50) that report every `period_s` for `seconds`."""

    sensors: int
    seconds: int
    period_s: int = 1

    @property
    def n_rounds(self) -> int:
        """Samples of each sensor."""
        return self.seconds // self.period_s


class QueryStore:
    """A store with a running pipe, and the values that are in it.

    Parameters
    ----------
    folder : an empty one.
    """

    def __init__(self, folder: Path, spec: QueryStoreSpec) -> None:
        self.spec = spec
        self.n_groups = spec.sensors // GROUP
        self.clock = VirtualClock(START_NS)
        self.pipe = Pipe(folder, [], self.clock)
        self.layout = Layout(
            "u16", tuple(Column(f"signal{i}", scale=0.1, offset=-50.0) for i in range(GROUP))
        )
        self.slots = self.pipe.directory.define_many(
            [self.device(i) for i in range(self.n_groups)], self.layout
        )
        series = np.concatenate(fleet_series(1))
        low, high = float(series.min()), float(series.max())
        self._table = np.round((series - low) / (high - low) * FULL_SCALE).astype(np.uint16)
        random = np.random.Generator(np.random.PCG64(2))
        self._base = random.integers(0, len(self._table), spec.sensors)
        self._compactor = Compactor(self.pipe.store, self.clock)

    @staticmethod
    def device(number: int) -> str:
        """Path of a device; a line has twenty."""
        return f"bench/hall{number // 2_000}/line{number // 20 % 100}/device{number % 20}"

    @property
    def now_ns(self) -> int:
        """The plant's time."""
        return self.clock.now_ns()

    def values(self, first: int, last: int) -> Array:
        """Raw values of rounds `first` to `last`: uint16[last - first, sensors]."""
        at = self._base[None, :] + np.arange(first, last)[:, None]
        found: Array = self._table[at % len(self._table)]
        return found

    def fill(self, progress: Progress) -> None:
        """Let the plant run: what is due is flushed and compacted, the last minutes are not."""
        spec = self.spec
        step = max(1, min(BATCH_VALUES // spec.sensors, max(1, 16 // spec.period_s)))
        compacted_ns = told = 0
        for first in range(0, spec.n_rounds, step):
            last = min(spec.n_rounds, first + step)
            self.pipe.offer(self._batch(first, last))
            self.clock.advance(float((last - first) * spec.period_s))
            self.pipe.tick()
            # In real time the store keeps up; so it has as many segments here.
            self.pipe.host.engine.wait_processed(self.pipe.host.delivered_seq, _WAIT_S)
            self.pipe.host.engine.committer.wait_idle(_WAIT_S)
            if self.now_ns - compacted_ns >= COMPACT_EVERY_S * NS:
                self._compactor.run_once()
                compacted_ns = self.now_ns
            if last * 4 // spec.n_rounds > told:
                told = last * 4 // spec.n_rounds
                progress(f"  {last * spec.sensors:,} samples")

    def _batch(self, first: int, last: int) -> FrameBatch:
        n = last - first
        ts_ns = START_NS + np.arange(first, last) * (self.spec.period_s * NS)
        values = self.values(first, last).reshape(n * self.n_groups, GROUP)
        slots = np.tile(self.slots, n)
        return FrameBatch.dense(
            slots, np.repeat(ts_ns, self.n_groups), values, arrival_ns=self.now_ns, origin="bench"
        )

    def settle(self) -> None:
        """Flush and compact everything."""
        self.pipe.drain()
        self._compactor.run_once(force=True)

    def close(self) -> None:
        """End its threads."""
        self.pipe.close()
