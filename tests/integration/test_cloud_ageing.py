"""Ageing of a store in a bucket, on a real S3 server: each step there, and whatever it ends in the middle of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.unit.store.test_ageing import (
    DAY,
    DEFAULT,
    FIRST,
    Line,
    ask,
    check_day,
    headers,
    named,
    start,
    work,
)

from headrace.core.faults import FaultPoints
from headrace.sim.faults import CountedFaults, Crashed
from headrace.store.cloud import CloudDisk
from headrace.store.ranges import load_ranges
from headrace.store.verify import verify_store
from headrace.testing.stores import StoreRig

N_DAYS = 2


class DyingDisk(CloudDisk):
    """A bucket whose client ends with its process: before a request is sent, or, `is_late`, after it was done."""

    faults = FaultPoints()
    is_late = False

    @contextlib.contextmanager
    def _passing(self, point: str) -> Iterator[None]:
        if not self.is_late:
            self.faults.reach(point)
        yield
        if self.is_late:
            self.faults.reach(point)

    def put_if_absent(self, path: str, data: Any) -> bool:
        with self._passing("disk.put"):
            return super().put_if_absent(path, data)

    def replace(self, path: str, data: Any) -> None:
        with self._passing("disk.replace"):
            super().replace(path, data)

    def delete(self, path: str) -> None:
        with self._passing("disk.delete"):
            super().delete(path)


def rules(line: Line, eps: float, **after: str) -> Any:
    return line.rules(
        default=DEFAULT | {"after": {"cold": "30d", "rollups": "9y"} | after, "bound": {"range": eps}}
    )


def warm(line: Line, bucket: Any, eps: float = 0.005) -> StoreRig:
    """Some warm days of a line, which are due to get cold."""
    rig = start(line, DyingDisk(bucket.url))
    rig.rules = rules(line, eps)
    rig.start()
    line.feed(rig, FIRST, N_DAYS)
    rig.clock.set_ns((FIRST + N_DAYS + 1) * DAY)
    assert work(rig) == []
    rig.clock.set_ns((FIRST + 61) * DAY)
    return rig


def again(rig: StoreRig, *, rules: Any = None) -> None:
    """Another process opens the store."""
    rig.disk = DyingDisk(rig.disk.url)  # type: ignore[attr-defined]
    rig.rules = rules or rig.rules
    rig.start()


def check(rig: StoreRig, line: Line, eps: float = 0.005) -> None:
    """All samples, from what the bucket has alone: none lost, none twice, within the bound."""
    exact = line.values(line.times(FIRST, N_DAYS))
    found = ask(rig, "**/temp", FIRST, N_DAYS)
    assert found.ts_ns.tolist() == line.times(FIRST, N_DAYS).tolist()
    assert np.abs(found.columns["value"] - exact[:, 0]).max() <= eps * 32.0
    assert ask(rig, "**/energy", FIRST, N_DAYS).columns["value"].tolist() == exact[:, 2].tolist()
    days = ask(rig, "**/temp", FIRST, N_DAYS, DAY, ("count", "max"))
    assert days.columns["count"].tolist() == [60] * N_DAYS
    assert days.columns["max"].tolist() == exact[:, 0].reshape(N_DAYS, 60).max(axis=1).tolist()


def test_samples_get_warm_cold_coarser_and_are_deleted_in_a_bucket(bucket):
    line = Line()
    rig = warm(line, bucket)
    assert not rig.store.refresh().cold
    assert work(rig) == []
    again(rig)
    check(rig, line)
    check_day(rig, line, FIRST + 1)
    first = headers(rig, "/temp")[0]
    assert first["bound"] > 0.0
    ranges = load_ranges(rig.disk)
    again(rig, rules=rules(line, 0.05))
    assert work(rig) == []
    again(rig)
    check(rig, line, 0.05)
    (second,) = headers(rig, "/temp")
    assert (second["bound"], second["n_samples"]) == (pytest.approx(10 * first["bound"]), 60 * N_DAYS)
    assert second["n_bytes"] < first["n_bytes"]
    assert first["max_error"] < second["max_error"] <= second["bound"]
    assert load_ranges(rig.disk) == ranges, "a range is fixed once, in the bucket"
    rig.clock.advance(600)
    assert work(rig) == []
    assert set(rig.disk.list("segments")) == named(rig)
    assert verify_store(rig.disk, rig.store).is_sound
    again(rig, rules=rules(line, 0.05, rollups="40d"))
    rig.clock.set_ns((FIRST + 75) * DAY)
    assert work(rig) == []
    again(rig)
    samples = ask(rig, "**/temp", FIRST, N_DAYS)
    assert (samples.n_rows, samples.resolution_ns) == (60 * N_DAYS, 60 * 10**9)
    assert ask(rig, "**/temp", FIRST, N_DAYS, DAY, ("count",)).columns["count"].tolist() == [60] * N_DAYS
    again(rig, rules=rules(line, 0.05, rollups="40d", delete="45d"))
    for _ in range(2):
        assert work(rig) == []
        rig.clock.advance(600)
    again(rig)
    assert ask(rig, "**", FIRST, N_DAYS).n_rows == 0
    assert rig.disk.list("segments") == []
    assert verify_store(rig.disk, rig.store).is_sound


@pytest.mark.parametrize(
    ("point", "nth", "is_late"),
    [("segment.write", 1, False), ("commit.publish", 1, False), ("disk.put", 1, True), ("disk.put", 2, True), ("disk.delete", 2, True)],
)  # fmt: skip
def test_a_process_that_ends_in_a_step_of_ageing_loses_nothing_of_a_bucket(bucket, point, nth, is_late):
    line = Line()
    rig = warm(line, bucket)
    faults, rig.disk.is_late = CountedFaults({point: nth}), is_late
    rig.compactor._faults = rig.disk.faults = faults
    with contextlib.suppress(Crashed):
        work(rig)
        rig.clock.advance(400)
        work(rig)
    assert faults.passes[point] == nth
    for _ in range(2):
        again(rig)
        check(rig, line)
        rig.clock.advance(400)
        assert work(rig) == []
    assert sorted(rig.store.refresh().cold) == [FIRST // 30]
    assert headers(rig, "/temp")[0]["bound"] > 0.0
    rig.clock.advance(400)
    assert work(rig) == []
    assert set(rig.disk.list("segments")) == named(rig)
    assert verify_store(rig.disk, rig.store).is_sound
