"""A store far away, whose answers are lost and whose requests come late: everything is stored, and once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headrace.core.errors import StorageError, Undecided
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.sim.disk import SimulatedDisk
from headrace.store.commits import load_commits
from headrace.store.query import Store
from headrace.store.verify import verify_store
from headrace.testing.stores import StoreModel, StoreRig, check_rows

NS = 1_000_000_000
NOON = 20_000 * 86_400 * NS + 43_200 * NS
SPAN = NOON - NS, NOON + 86_400 * NS


class FarDisk(SimulatedDisk):
    """Loses answers and requests, delivers some of them late, and now and then says nothing at all.

    Parameters
    ----------
    odds : of a put that is lost, carried out without an answer, carried out later, and of a read that is refused.
    """

    def __init__(self, seed: int, odds: tuple[float, float, float, float]) -> None:
        super().__init__(seed)
        self._rng, self.odds = np.random.default_rng(seed), odds
        self._late: list[Callable[[], Any]] = []
        self.n_lost = 0

    def put_if_absent(self, path: str, data: Any) -> bool:
        def put() -> bool:
            return super(FarDisk, self).put_if_absent(path, data)

        luck, (lost, done, late, _) = self._rng.random(), self.odds
        self._deliver()
        if luck > lost + done + late:
            return put()
        self.n_lost += 1
        if lost < luck <= lost + done:
            put()
        elif luck > lost + done:
            self._late.append(put)
        raise Undecided("no answer in time")

    def read(self, path: str) -> memoryview:
        self._deliver()
        if self._rng.random() < self.odds[3]:
            raise StorageError("the service can't be reached")
        return super().read(path)

    def _deliver(self) -> None:
        late, self._late = self._late, []
        for put in late:
            if self._rng.random() < 0.4:
                self._late.append(put)
            else:
                put()

    def is_well(self) -> FarDisk:
        """From now on every request is answered, after those that were under way."""
        self.odds = 0.0, 0.0, 0.0, 0.0
        while self._late:
            self._deliver()
        return self


def a_plant() -> SensorDirectory:
    directory = SensorDirectory(shard_bits=1)
    for i in range(4):
        directory.define(f"leon/oven{i}", Layout("u16", (Column("temp", scale=0.1), Column("level"))))
    return directory


def frames(slot: int, first: int, n: int, seed: int) -> FrameBatch:
    values = np.random.default_rng(seed).integers(0, 50_000, (n, 2)).astype(np.uint16)
    ts_ns = NOON + (first + np.arange(n)) * NS
    return FrameBatch.dense(np.full(n, slot, np.uint32), ts_ns, values, arrival_ns=int(ts_ns[0]))


def a_rig(disk: FarDisk) -> tuple[StoreRig, StoreModel]:
    odds, disk.odds = disk.odds, (0.0, 0.0, 0.0, 0.0)
    rig = StoreRig(disk, a_plant())
    disk.odds = odds
    return rig, StoreModel(rig.directory)


def flush(rig: StoreRig, shards: list[int] | None = None) -> bool:
    try:
        rig.flush(shards)
    except StorageError:
        return False
    return True


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("late", [False, True])
def test_whatever_answers_are_lost_everything_is_stored_once(seed, late):
    rng = np.random.default_rng(seed)
    rig, model = a_rig(FarDisk(seed, (0.15, 0.2, 0.2, 0.1)))
    disk = rig.disk
    for n in range(60):
        slot = int(rng.integers(4))
        first = 10 * n if not late or rng.random() < 0.6 else 10 * int(rng.integers(n + 1))
        batch = frames(slot, first, 5, n)
        rig.add(batch)
        model.put(batch)
        flush(rig, [[0], [1], None][int(rng.integers(3))])
    assert disk.n_lost > 10
    disk.is_well()
    assert flush(rig)
    assert rig.n_unflushed == 0
    fresh = Store.open(disk, rig.directory)
    check_rows(fresh, model, *SPAN)
    n_samples = fresh.status().n_samples
    if late:  # a version that another one of the same flush replaces is not stored
        assert n_samples <= rig.n_stored <= model.n_put
    else:
        assert n_samples == rig.n_stored == model.n_put
    assert rig.commits.view == load_commits(disk)
    assert verify_store(disk, fresh).is_sound


@pytest.mark.parametrize("seed", range(6))
def test_a_process_that_ends_in_doubt_leaves_nothing_twice(seed):
    rng = np.random.default_rng(seed)
    rig, model = a_rig(FarDisk(seed, (0.1, 0.3, 0.2, 0.0)))
    for n in range(24):
        batch = frames(int(rng.integers(4)), 10 * n, 5, n)
        rig.add(batch)
        model.put(batch)
        if not flush(rig) and rng.random() < 0.5:
            disk, odds = rig.disk, rig.disk.odds
            disk.odds = (0.0, 0.0, 0.0, 0.0)  # what is under way still comes late
            rig.start()
            disk.odds = odds
    disk = rig.disk.is_well()
    assert flush(rig)
    fresh = Store.open(disk, rig.directory)
    check_rows(fresh, model, *SPAN)
    assert fresh.status().n_samples == model.n_put


def test_while_a_commit_is_in_doubt_its_samples_are_seen_and_wait(monkeypatch):
    rig, model = a_rig(FarDisk(1, (0.0, 0.0, 0.0, 0.0)))
    rig.add(frames(0, 0, 5, 1))
    model.put(frames(0, 0, 5, 1))
    publish, puts = rig.commits._disk.put_if_absent, []

    def silent(path, data):
        puts.append(path)
        if not path.startswith("commits/"):
            return publish(path, data)
        if len(puts) == 3:  # the directory and the segment before it: the commit is carried out
            publish(path, data)
        raise Undecided("no answer in time")

    monkeypatch.setattr(rig.disk, "put_if_absent", silent)
    for _ in range(3):
        assert not flush(rig)
        check_rows(Store.open(rig.disk, rig.directory), model, *SPAN, rig.tail)
    assert len(rig.disk.list("segments")) == 1  # nothing else was written meanwhile
    monkeypatch.undo()
    assert flush(rig)
    assert (rig.n_stored, Store.open(rig.disk).status().n_samples) == (10, 10)
