"""Our store passes the public kit, and the kit finds stores that forget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.sim.disk import SimulatedDisk
from headrace.store.base import SeriesStore, Tail
from headrace.testing.store_machine import StoreUnderTest, check_store
from headrace.testing.stores import StoreRig


class OurStore(StoreUnderTest):
    """Hot buffers, segments, compaction, and a journal that survives."""

    def __init__(self, directory: SensorDirectory) -> None:
        self.rig = StoreRig(SimulatedDisk(1), directory)

    @property
    def store(self) -> SeriesStore:
        return self.rig.store

    @property
    def tail(self) -> Tail | None:
        return self.rig.tail

    def write(self, batch: FrameBatch) -> None:
        self.rig.add(batch)

    def flush(self) -> None:
        self.rig.flush()

    def compact(self) -> None:
        assert self.rig.compact().problems == []
        self.rig.clock.advance(6)

    def restart(self) -> None:
        self.rig.disk = self.rig.disk.crash()
        self.rig.start()


class Forgetful(OurStore):
    """Loses what was not flushed."""

    def restart(self) -> None:
        flushed = self.rig.commits.view.shards
        self.rig.journal = [b for b in self.rig.journal if flushed]
        super().restart()


class Stubborn(OurStore):
    """Keeps the first version of a sample."""

    def __init__(self, directory: SensorDirectory) -> None:
        super().__init__(directory)
        self.seen: set[tuple[int, int]] = set()

    def write(self, batch: FrameBatch) -> None:
        keys = list(zip(batch.slot.tolist(), batch.ts_ns.tolist(), strict=True))
        fresh = [i for i, key in enumerate(keys) if key not in self.seen]
        self.seen.update(keys)
        if fresh:
            super().write(batch.take(np.array(fresh)))


class Blind(OurStore):
    """Does not see what is not flushed."""

    @property
    def tail(self) -> Tail | None:
        return None


def test_our_store_keeps_the_contract() -> None:
    check_store(OurStore, 10)


@pytest.mark.parametrize("wrong", [Forgetful, Stubborn, Blind])
def test_the_kit_finds_what_is_wrong(wrong: Any) -> None:
    with pytest.raises((AssertionError, ExceptionGroup)):
        check_store(wrong, shrinks=False)
